"""Cell means as lines: of selectors over label shifts, and of selectors over the number of candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.cells import cell_means
from ablate.errors import StudyError
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


CHANGE = "change of risk after training, pp"
CANDIDATES = "candidates"
METHOD = "method_name"


def interaction(tree: xr.DataTree) -> Figure:
    """Change of risk by label shift, one line a selector; lines that are not parallel are an interaction.

    Estimand: `effects.cells.cell_means`, the mean over organisms of the change within organism, in pp. Thin bars are
    its 95% t intervals, thick ones the within-organism intervals that compare cells. A cell without a run is a cross
    at the edge; where labels are those of a null level, a gray ring is around the mark.

    Raises:
        StudyError: one level each of label shift and selector, or a study of methods.
    """
    if METHOD in tree.dims:
        raise StudyError("a study of methods has no grid of label shifts and selectors; see the kinds methods, isolate")
    frame = cell_means(tree)
    shifts, selectors = frame["label_shift"].nunique(), frame["selector"].nunique()
    if shifts == selectors == 1:
        raise StudyError("label_shift and selector have one level each: there is no interaction to draw")
    x, line = ("label_shift", "selector") if shifts > 1 else ("selector", "label_shift")
    return _lines(frame, x, line, f"{x.replace('_', ' ')} (level)")


def scaling(tree: xr.DataTree) -> Figure:
    """Change of risk by the number of candidates, one line a selector, one panel a label shift.

    Estimand: as in `interaction`. The null selector takes the first candidate whatever their number, so its line is
    what the others are to be compared with.

    Raises:
        StudyError: a study that does not swap the number of candidates.
    """
    if CANDIDATES not in tree.dims:
        raise StudyError("the study does not swap labels.candidates: there is no scaling with their number to draw")
    numbers = pd.to_numeric(pd.Series([str(level) for level in tree.coords[CANDIDATES].values]), errors="coerce")
    if not (numbers > 0).all():
        raise StudyError(
            "the levels of candidates are no numbers above 0: there is no scaling with their number to draw"
        )
    frame = cell_means(tree)
    frame = frame.astype({CANDIDATES: float})
    first = [name for name in frame.columns[: frame.columns.get_loc("selector")] if name != CANDIDATES]
    rest = [name for name in frame.columns if name not in (*first, CANDIDATES)]
    ordered = frame[[*first, CANDIDATES, *rest]]
    ordered.attrs = frame.attrs
    return _lines(ordered, CANDIDATES, "selector", "candidates of a prompt (number, log scale)")


def _lines(frame: pd.DataFrame, x: str, line: str, label: str) -> Figure:
    by = x if x == CANDIDATES else "label_shift"
    parts = style.facets(frame, by)
    total, parts = len(parts), parts[: style.PANELS]
    columns = min(len(parts), 2)
    rows = math.ceil(len(parts) / columns)
    wide = len(parts) > 1 or frame[x].nunique() > 4
    names = list(dict.fromkeys(frame[line]))
    with style.styled():
        figure, axes = style.canvas(
            style.DOUBLE if wide else 5.0, 2.6 * rows if rows > 1 else 2.9, rows, columns, sharey=True
        )
        for ax in axes[len(parts) :]:
            ax.remove()
        extra = 0.0
        for i, (title, part) in enumerate(parts):
            ax = axes[i]
            ax.set_title(title and style.wrapped(title, 50))
            extra = max(extra, _panel(ax, part, x, line, names, figure.get_size_inches()[0] / columns - 1.6))
            ax.set_xlabel(label)
            ax.set_ylabel(CHANGE if i % columns == 0 else "")
            style.zero(ax)
        figure.set_figheight(figure.get_figheight() + rows * extra)
        for i, (_, part) in enumerate(parts):
            _name(axes[i], part, x, line, names)
        return style.finish(figure, _caption(frame, total))


def _places(part: pd.DataFrame, x: str) -> Mapping[Any, float]:
    levels = list(dict.fromkeys(part[x]))
    return {level: math.log2(level) if x == CANDIDATES else float(i) for i, level in enumerate(levels)}


def _panel(ax: Axes, part: pd.DataFrame, x: str, line: str, names: Sequence[str], inches: float) -> float:
    """The lines of a panel; returns the height that the names of its levels take, see `style.level_names`."""
    places = _places(part, x)
    step = min(np.diff(sorted(places.values())), default=1.0)
    for i, name in enumerate(names):
        own = part[part[line] == name]
        shift = step * 0.5 * ((i + 0.5) / len(names) - 0.5)
        at = np.array([places[level] for level in own[x]]) + shift
        look = style.look(i)
        ax.vlines(at, own["low"], own["high"], color=look["color"], linewidth=0.8)
        ax.vlines(at, own["within_low"], own["within_high"], color=look["color"], linewidth=2.2, alpha=0.6)
        ax.plot(at, own["effect_pp"], label=style.plain(name), **look)
        same = own["identical"].to_numpy(bool)
        ax.plot(at[same], own["effect_pp"][same], "o", markersize=7, markerfacecolor="none", color=style.GRAY, mew=0.5)
        gone = own["effect_pp"].isna().to_numpy()
        ax.plot(at[gone], np.zeros(gone.sum()), "x", color=look["color"], transform=ax.get_xaxis_transform())
    ax.set_xticks(list(places.values()))
    ax.set_xlim(min(places.values()) - 0.5 * step, max(places.values()) + 0.5 * step)
    return style.level_names(ax, [f"{level:g}" if x == CANDIDATES else level for level in places], inches)


def _name(ax: Axes, part: pd.DataFrame, x: str, line: str, names: Sequence[str]) -> None:
    """Every line is named at its last cell that has a number."""
    if len(names) < 2:
        return
    marks = {str(mark.get_label()): mark for mark in ax.lines}
    for i, name in enumerate(names):
        points = np.asarray(marks[style.plain(name)].get_xydata())
        points = points[np.isfinite(points[:, 1])]
        if len(points):
            style.ended(ax, float(points[-1, 0]), float(points[-1, 1]), style.wrapped(name), style.look(i)["color"])


def _caption(frame: pd.DataFrame, panels: int) -> list[str]:
    parts = [f"Mean change of risk within organism; thin bars: {style.intervals(frame['organisms'])}."]
    if frame["within_low"].notna().any():
        parts.append("Thick bars: 95% within-organism interval, for comparing cells.")
    if frame["identical"].any():
        parts.append("Gray ring: labels identical to those of a null level.")
    if frame["effect_pp"].isna().any():
        parts.append("Cross at the edge: no usable run.")
    return [*parts, *style.left_out(frame, panels)]
