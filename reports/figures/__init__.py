"""Figures of a cube: one kind a question, drawn from the numbers of `ablate.effects`; computes no statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ablate.errors import StudyError, did_you_mean
from ablate.reports.figures.diversity import diversity
from ablate.reports.figures.embedding import embedding
from ablate.reports.figures.eta import eta
from ablate.reports.figures.forest import isolate, methods, organisms
from ablate.reports.figures.interaction import interaction, scaling
from ablate.reports.figures.scatter import dose, prediction
from ablate.reports.figures.shares import shares
from ablate.reports.figures.style import FORMATS, Format, save

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "KINDS", "Format", "draw", "save"]

_DRAW: Mapping[str, Callable[[xr.DataTree], Figure]] = {
    "interaction": interaction,
    "organisms": organisms,
    "shares": shares,
    "prediction": prediction,
    "dose": dose,
    "eta": eta,
    "diversity": diversity,
    "embedding": embedding,
    "scaling": scaling,
    "methods": methods,
    "isolate": isolate,
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
