"""Cubes to draw."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr
from gallery import gallery, of_methods
from laboratory import WHOLE, cube_of, run, study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study with six organisms; do not write there."""
    folder = tmp_path_factory.mktemp("drawn") / "whole"
    run(study(text=WHOLE, name="whole"), folder)
    return folder


@pytest.fixture(scope="session")
def cubes(finished: Path) -> dict[str, xr.DataTree]:
    """By name: of a study, with every kind's dimensions, of methods, and hard ones to draw."""
    names = ["none", "$x^2$ and $\\frac{", "<script>alert(1)</script>", "two\nlines\x07", "שלום", "漢字", "x" * 300]
    return {
        "study": cube_of(finished),
        "scaling": gallery(candidates=(2, 4)),
        "isolated": of_methods(),
        "methods": of_methods([f"method_{i}" for i in range(9)], isolated=False),
        "two by two": gallery(shifts=["none", "clean_view"], selectors=["first", "majority"]),
        "one organism": gallery(organisms=1),
        "one selector": gallery(selectors=["first"]),
        "hostile": gallery(shifts=names, selectors=["first", "argmax($a_b^c$)", "<b>best</b>"]),
    }
