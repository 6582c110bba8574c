"""One true end-to-end run on the embedded model: the shipped smoke study through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of the study, and what the command said."""
    folder = tmp_path_factory.mktemp("smoke") / "smoke"
    return folder, ablate("study", "smoke.yaml", "--out", str(folder))


def ablate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ablate", *words], capture_output=True, text=True, check=False)


def test_it_ends_well_and_says_what_it_found(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = ran
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for words in ("organisms  ", "null control  ", "label_shift  ", "VERDICT  undetermined", str(folder / "cube.zarr")):
        assert words in done.stdout
    assert "no 5% verdict is possible with 2 valid organisms, because the smallest p is 2/2^2 = .500" in done.stdout


def test_the_cube_holds_real_numbers(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    cube = xr.open_zarr(folder / "cube.zarr")
    assert dict(cube.sizes) == {"organism": 2, "label_shift": 2, "selector": 2, "objective": 1, "seed": 1}
    assert cube.status.dtype == np.int8
    assert set(np.unique(cube.status)) <= {1, 4}
    assert cube.risk_after.notnull().all()
    own = cube.sel(label_shift="none")
    np.testing.assert_array_equal(own.kl_shift, 0)
    assert (cube.sel(label_shift="clean_view").kl_shift > 1).all()
    closes = cube.shift_term + cube.selection_term - (cube.m_ts - cube.m_p)
    assert float(abs(closes).max()) <= 1e-12


def test_every_selector_reads_one_pool(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    cube = xr.open_zarr(ran[0] / "cube.zarr")
    first, majority = (cube.key_pool.sel(selector=name).values for name in ("first", "majority"))
    assert (first == majority).all()
    assert len(set(first.ravel())) == 4


def test_organisms_are_calibrated_and_the_screen_knows_something(
    ran: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = ran
    calibrations = [json.loads(file.read_text()) for file in folder.glob("artifacts/*/*/calibration.json")]
    assert len(calibrations) == 2
    assert all(0 < made["interpolation"] < 1 and made["reached"] for made in calibrations)
    (known,) = (json.loads(file.read_text()) for file in folder.glob("artifacts/*/*/known.json"))
    assert len(known) > 200


def test_the_same_command_has_nothing_to_do(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = ran
    again = ablate("study", "smoke.yaml", "--out", str(folder))
    assert again.returncode == 0
    assert again.stdout.splitlines()[1] == "nothing to do: the study is finished"
    assert again.stdout.split("organisms  ")[1] == first.stdout.split("organisms  ")[1]
