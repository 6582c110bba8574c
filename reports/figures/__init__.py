"""Figures of a cube: one kind a question, drawn from the numbers of `ablate.effects`; computes no statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ablate.errors import StudyError, did_you_mean
from ablate.reports.figures.interaction import interaction, scaling
from ablate.reports.figures.style import FORMATS, Format, save

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "KINDS", "Format", "draw", "save"]

_DRAW: Mapping[str, Callable[[xr.DataTree], Figure]] = {
    "interaction": interaction,
    "scaling": scaling,
}
KINDS = tuple(_DRAW)


def draw(tree: xr.DataTree, kind: str) -> Figure:
    """A figure of a cube; needs no display, and `save` makes a file of it.

    Raises:
        StudyError: another kind, or what the cube lacks for it.
    """
    if kind not in _DRAW:
        raise StudyError(f"no figure '{kind}'{did_you_mean(kind, KINDS)}; known: {', '.join(KINDS)}")
    return _DRAW[kind](tree)
