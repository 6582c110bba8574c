"""ablate: a mechanism-isolation ablation engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.version import __version__

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["__version__", "open"]


def open(path: str | os.PathLike[str]) -> xr.DataTree:
    """The cube of a study's folder, or a ``cube.zarr`` itself, as a tree of labeled arrays read on demand.

    Raises:
        StudyError: no cube there yet, or not one of this program.
    """
    from ablate.cube import open_cube

    return open_cube(Path(path))
