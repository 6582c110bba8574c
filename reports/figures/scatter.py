"""Observed effects of cells against what came before them: the dose of the labels, and what they predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablate.effects import words
from ablate.effects.dose import dose_response
from ablate.effects.points import cells_by
from ablate.effects.prediction import prediction as prediction_table
from ablate.errors import StudyError
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


FILLS = ("full", "none", "left", "top", "right", "bottom")
DOSE = "kl_shift"


class Slope(NamedTuple):
    """A line through 0: effect by x, with its limits and its unit."""

    value: float
    low: float
    high: float
    unit: str

    def __str__(self) -> str:
        """``slope +0.91 pp per pp [+0.74, +1.08]``."""
        limits = "" if np.isnan(self.low) else f" [{words.signed(self.low, 2)}, {words.signed(self.high, 2)}]"
        return f"slope {words.signed(self.value, 2)} {self.unit}{limits}"


def dose(tree: xr.DataTree) -> Figure:
    """Effect against the KL shift of the labels, each relative to the null cell, with the slope over organisms.

    Estimand: `effects.dose_response`, the mean over organisms of the least-squares slope through the null cell, in pp
    per nat; the points are `effects.points.cells_by`, means of a cell with 95% t intervals, and faint, each organism.
    An association: the dose is observed, not assigned.

    Raises:
        StudyError: a cube without the KL of its label shifts.
    """
    frame = cells_by(tree, DOSE)

    def slopes() -> dict[str, Slope]:
        rows = dose_response(tree, DOSE)[["behavior", "slope", "low", "high"]]
        return {str(name): Slope(b, low, high, "pp per nat") for name, b, low, high in rows.itertuples(index=False)}

    return _figure(tree, frame, "KL of the label shift (q from p), nats", slopes, calibrated=False)


def prediction(tree: xr.DataTree) -> Figure:
    """Effect against what the labels alone said before training, g = m_TS - m_P, with the calibration line.

    Estimand: the calibration slope of `effects.prediction` (predictor ``g``, nothing fitted), the mean over organisms
    of the slope of the effect on g through 0, over all behaviors; 1 is calibrated. Points as in `dose`.

    Raises:
        StudyError: a cube without Price terms.
    """
    frame = cells_by(tree, "g")

    def slopes() -> dict[str, Slope]:
        table = prediction_table(tree)
        row = table[(table["predictor"] == "g") & (table["level"] == "all")].iloc[0]
        slope = Slope(float(row["slope"]), float(row["slope_low"]), float(row["slope_high"]), "pp per pp")
        return dict.fromkeys(frame["behavior"], slope)

    return _figure(tree, frame, "predicted from the labels before training, g, pp", slopes, calibrated=True)


def _figure(
    tree: xr.DataTree, frame: pd.DataFrame, label: str, slopes: Callable[[], dict[str, Slope]], *, calibrated: bool
) -> Figure:
    try:
        lines, reason = slopes(), ""
    except StudyError as error:  # the points stand without a line, and the caption says why
        lines, reason = {}, f"No line: {style.plain(error)}."
    behaviors = list(dict.fromkeys(frame["behavior"]))
    total, behaviors = len(behaviors), behaviors[: style.PANELS]
    columns = min(2, len(behaviors))
    rows = -(-len(behaviors) // columns)
    with style.styled():
        shifts, selectors = (_levels(tree, frame, name) for name in ("label_shift", "selector"))
        names = [style.wrapped(name) for name in (*shifts, *selectors)]
        listed = 0.135 * (4 + sum(1 + name.count("\n") for name in names)) + 0.2  # the legend
        size = (5.0 if columns == 1 else style.DOUBLE, max(3.0 * rows, listed))
        figure, axes = style.canvas(*size, rows, columns)
        for i, (ax, behavior) in enumerate(zip(axes, behaviors, strict=False)):
            _points(ax, frame[frame["behavior"] == behavior], shifts, selectors)
            if calibrated:
                _calibrated(ax)
            if behavior in lines:
                _line(ax, lines[behavior])
            ax.set_title(style.wrapped(behavior, 50) if len(behaviors) > 1 else "")
            ax.set_xlabel(label)
            ax.set_ylabel("observed effect on risk, pp" if i % columns == 0 else "")
            style.zero(ax)
            ax.axvline(0, color=style.GRAY, linewidth=0.6, zorder=0)
        for ax in axes[len(behaviors) :]:
            ax.remove()
        _legend(figure, shifts, selectors, {"mean slope": bool(lines), "as predicted (slope 1)": calibrated})
        means = frame[frame["organism"] == ""]
        caption = [f"Large: mean of a cell less the null cell, {style.intervals(means['organisms'])}; faint: one"]
        caption.append("organism.")
        if lines:
            caption.append("Line: mean slope over organisms through the null cell, with its 95% limits.")
        if others := list(frame.columns)[1 : list(frame.columns).index("label_shift")]:
            caption.append(f"Cells of all levels of {', '.join(map(style.plain, others))}.")
        return style.finish(figure, [*caption, *filter(None, [reason]), *style.left_out(frame, total)])


def _levels(tree: xr.DataTree, frame: pd.DataFrame, name: str) -> list[str]:
    """The levels that have a cell, in the order of the cube."""
    return [level for level in map(str, tree.coords[name].values) if (frame[name] == level).any()]


def _points(ax: Axes, part: pd.DataFrame, shifts: list[str], selectors: list[str]) -> None:
    for (shift, selector), cell in part.groupby(["label_shift", "selector"], sort=False):
        look = style.look(shifts.index(str(shift)))
        color, marker = look["color"], look["marker"]
        one, mean = cell[cell["organism"] != ""], cell[cell["organism"] == ""]
        ax.plot(one["dose"], one["effect_pp"], marker, color=color, markersize=2, alpha=0.35, markeredgewidth=0)
        ax.vlines(mean["dose"], mean["low"], mean["high"], color=color, linewidth=0.9)
        fill = FILLS[selectors.index(str(selector)) % len(FILLS)]
        ax.plot(
            mean["dose"], mean["effect_pp"], marker, color=color, markersize=5.5, fillstyle=fill,
            markerfacecoloralt="white", label=f"{style.plain(shift)} | {style.plain(selector)}",
        )  # fmt: skip


def _line(ax: Axes, slope: Slope) -> None:
    x = np.array(ax.get_xlim())
    x = np.array([min(x[0], 0), 0, max(x[1], 0)])
    limits = ax.get_ylim()
    ax.fill_between(x, slope.low * x, slope.high * x, color=style.FAINT, alpha=0.5, linewidth=0, zorder=0)
    ax.plot(x, slope.value * x, color=style.COLORS[0], linewidth=1, zorder=1, label="slope")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(limits)
    ax.text(0.02, 1.0, str(slope), transform=ax.transAxes, va="bottom", fontsize=6.5)


def _calibrated(ax: Axes) -> None:
    """The line on which effects are as predicted."""
    ax.axline((0, 0), slope=1, color=style.GRAY, linestyle=":", linewidth=0.9, label="calibrated")


def _legend(figure: Figure, shifts: list[str], selectors: list[str], lines: Mapping[str, bool]) -> None:
    handles = [Line2D([], [], linestyle="", label="label shift (mark)", color="none")]
    for i, name in enumerate(shifts):
        look = {**style.look(i), "linestyle": ""}
        handles.append(Line2D([], [], label=style.wrapped(name), **look))
    handles.append(Line2D([], [], linestyle="", label="selector (fill)", color="none"))
    for i, name in enumerate(selectors):
        fill = FILLS[i % len(FILLS)]
        look = {"marker": "o", "color": style.GRAY, "fillstyle": fill, "markerfacecoloralt": "white", "linestyle": ""}
        handles.append(Line2D([], [], label=style.wrapped(name), **look))
    looks: tuple[dict[str, Any], ...] = (
        {"color": style.COLORS[0]},
        {"color": style.GRAY, "linestyle": ":", "linewidth": 0.9},
    )
    handles += [Line2D([], [], label=name, **look) for (name, on), look in zip(lines.items(), looks, strict=True) if on]
    figure.legend(handles=handles, loc="outside right upper")
