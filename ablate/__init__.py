"""ablate: a mechanism-isolation ablation engine."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ablate.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from ablate import effects, measures

__all__ = ["__version__", "effects", "figure", "measures", "open", "table"]


def __getattr__(name: str) -> ModuleType:
    """``ablate.effects`` and ``ablate.measures`` are imported when they are first asked for."""
    if name in ("effects", "measures"):
        return import_module(f"ablate.{name}")
    raise AttributeError(f"module 'ablate' has no attribute {name!r}")


def open(path: str | os.PathLike[str]) -> xr.DataTree:
    """The cube of a study's folder, or a ``cube.zarr`` itself, as a tree of labeled arrays read on demand.

    Raises:
        StudyError: no cube there yet, or not one of this program.
    """
    from ablate.cube import open_cube

    return open_cube(Path(path))


def table(tree: xr.DataTree, kind: str = "fixed") -> pd.DataFrame:
    """A table of a cube as numbers: what ``ablate table DIR --kind KIND`` renders; ``.attrs`` say how it was made.

    Raises:
        StudyError: no such kind, or what the cube lacks for it, in one sentence.
    """
    from ablate.findings import frame_of

    return frame_of(tree, kind)


def figure(tree: xr.DataTree, kind: str = "interaction") -> Figure:
    """A figure of a cube, as ``ablate figure DIR --kind KIND`` writes it; a notebook shows it, no display is needed.

    Raises:
        StudyError: no such kind, or what the cube lacks for it, in one sentence.
    """
    from ablate.reports.figures import draw

    return draw(tree, kind)
