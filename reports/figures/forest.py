"""Effects as rows with intervals: of every organism, of whole methods, and of the mechanisms of a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.methods import isolated
from ablate.effects.methods import methods as methods_table
from ablate.effects.points import organism_effects
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


ROW = 0.17
"""Height of a row, inches."""
COLUMNS = 3
NAMED = 24
"""Organisms that have room for their names; of more, evenly spaced ones are named."""


def organisms(tree: xr.DataTree) -> Figure:
    """Every main effect in every organism, and its mean over organisms with a 95% t interval; a panel an effect.

    Estimand: `effects.points.organism_effects`, the change of risk by a swap, paired within organism and averaged over
    the other factors, in pp. Hollow marks have the other sign than the mean.

    Raises:
        StudyError: no factor has two levels that differ; what `effects.contrasts` refuses.
    """
    frame = organism_effects(tree)
    several = frame["behavior"].nunique() > 1
    panels = list(frame.groupby(["behavior", "factor", "end"], sort=False))
    total, panels = len(panels), panels[: style.PANELS]
    columns = 2 if total == 4 else min(COLUMNS, total)
    rows = math.ceil(len(panels) / columns)
    most = max(len(part) for _, part in panels)
    with style.styled():
        height = rows * (0.75 + min(ROW * max(most, 4), 2.4))
        figure, axes = style.canvas(style.DOUBLE if columns > 1 else style.SINGLE, height, rows, columns, sharex=True)
        for i, ((behavior, *_), part) in enumerate(panels):
            about = f"{style.plain(behavior)}: " if several else ""
            axes[i].set_title(style.wrapped(about + part["swapped"].iloc[0], {1: 44, 2: 44}.get(columns, 30)))
            _organisms(axes[i], part, named=i % columns == 0 or several)
            axes[i].set_xlabel("effect on risk, pp")
            axes[i].xaxis.set_tick_params(labelbottom=True)
            axes[i].set_ylabel("organism (name)" if i % columns == 0 else "")
        for ax in axes[len(panels) :]:
            ax.remove()
        return style.finish(figure, _organism_caption(frame, total))


def _organisms(ax: Axes, part: pd.DataFrame, named: bool) -> None:
    mean, own = part.iloc[-1], part.iloc[:-1]
    effects, places = own["effect_pp"].to_numpy(), np.arange(len(own))
    other = effects * mean["effect_pp"] < 0
    for which, face in ((~other, style.COLORS[1]), (other, "white")):
        ax.plot(effects[which], places[which], "o", color=style.COLORS[1], markerfacecolor=face, markersize=3.5)
    for place in places[np.isnan(effects)]:
        ax.text(0, place, "no run", ha="center", va="center", color=style.GRAY, fontsize=5.5)
    _interval(ax, len(own), mean["effect_pp"], mean["low"], mean["high"], style.COLORS[0], "D")
    ax.axhline(len(own) - 0.5, color=style.FAINT, linewidth=0.6)
    step = -(-len(own) // NAMED)
    names = [str(name) if i % step == 0 and i <= len(own) - step else "" for i, name in enumerate(own["organism"])]
    _rows(ax, [*names, "mean"], named)


def _organism_caption(frame: pd.DataFrame, panels: int) -> list[str]:
    means = frame[frame["organism"] == ""]
    caption = [f"Diamond: mean, {style.intervals(means['organisms'])}; circle: one organism, hollow where its sign"]
    caption.append("is not that of the mean. Paired within organism, averaged over the other factors.")
    if names := frame.attrs["invalid"]:
        caption.append(f"Not valid before training: {', '.join(map(style.plain, names))}.")
    return caption + style.left_out(frame, panels)


def methods(tree: xr.DataTree) -> Figure:
    """The effect of every method as a whole on risk and, where it was measured, on capability, a row a method.

    Estimand: `effects.methods`, the change by a method less that of the null labels, paired within organism, in pp,
    with 95% t intervals over organisms.

    Raises:
        StudyError: a study that compares no methods.
    """
    frame = methods_table(tree)
    shown = [("effect_pp", "low", "high", "effect on risk, pp")]
    if frame["capability_pp"].notna().any():
        shown.append(("capability_pp", "capability_low", "capability_high", "effect on capability, pp"))
    parts = style.facets(frame, "method")
    total, parts = len(parts), parts[: style.PANELS]
    with style.styled():
        width = style.DOUBLE if len(shown) > 1 else 5.0
        height = sum(0.75 + ROW * max(len(part), 3) for _, part in parts)
        figure, axes = style.canvas(
            width, height, len(parts), len(shown), sharex="col", height_ratios=[len(part) + 3 for _, part in parts]
        )
        for i, (title, part) in enumerate(parts):
            for j, (name, low, high, label) in enumerate(shown):
                ax = axes[i * len(shown) + j]
                for place, row in enumerate(part.to_dict("records")):
                    _interval(ax, place, row[name], row[low], row[high], style.COLORS[j], style.MARKERS[j])
                ax.set_title(title if j == 0 else "")
                ax.set_xlabel(label)
                ax.set_ylabel("method (name)" if j == 0 else "")
                _rows(ax, list(part["method"]), named=j == 0)
        caption = [f"Change by the whole method less that of the null labels; {style.intervals(frame['organisms'])}."]
        return style.finish(figure, [*caption, *style.left_out(frame, total)])


def isolate(tree: xr.DataTree) -> Figure:
    """What each mechanism of a method does, and their interactions; a panel a method.

    Estimand: `effects.isolated`. The filled mark of a mechanism is its effect averaged over the orders of adding the
    mechanisms, with its 95% t interval; hollow ones add it to nothing and remove it from all, in pp.

    Raises:
        StudyError: a study that isolates no method; what `effects.contrasts` refuses.
    """
    frame = isolated(tree)
    parts = [(title or style.plain(part["method"].iloc[0]), part) for title, part in style.facets(frame, "part")]
    total, parts = len(parts), parts[: style.PANELS]
    with style.styled():
        height = sum(0.75 + ROW * max(len(part), 3) for _, part in parts)
        ratios = [len(part) + 3 for _, part in parts]
        figure, axes = style.canvas(style.DOUBLE, height, len(parts), 1, sharex=True, height_ratios=ratios)
        for ax, (title, part) in zip(axes, parts, strict=True):
            ax.set_title(style.wrapped(title, 90))
            for place, row in enumerate(part.to_dict("records")):
                _interval(ax, place, row["effect_pp"], row["low"], row["high"], _COLOR[row["kind"]], _MARK[row["kind"]])
                for name, mark in (("added_pp", ">"), ("removed_pp", "<")):
                    ax.plot(row[name], place, mark, color=style.COLORS[2], markerfacecolor="white", zorder=1)
            ax.set_xlabel("effect on risk, pp")
            ax.set_ylabel("mechanism (level)")
            ax.xaxis.set_tick_params(labelbottom=True)
            _rows(
                ax, [" ".join(filter(None, map(str, pair))) for pair in zip(part["part"], part["level"], strict=True)]
            )
        caption = [
            "Filled: whole method (diamond), mechanism over all orders (circle), interaction (square), each with"
        ]
        caption.append(f"{style.intervals(frame['organisms'])}. Hollow: added to nothing (>), removed from all (<).")
        return style.finish(figure, [*caption, *style.left_out(frame, total)])


_COLOR = dict(zip(("total", "mechanism", "interaction"), style.COLORS, strict=False))
_MARK = dict(zip(("total", "mechanism", "interaction"), ("D", "o", "s"), strict=True))


def _interval(ax: Axes, place: float, value: float, low: float, high: float, color: str, marker: str) -> None:
    """One row: its estimate, and its limits where it has them; where there is no number, it says so."""
    if np.isnan(value):
        ax.text(0, place, "not estimated", ha="center", va="center", color=style.GRAY, fontsize=5.5)
        return
    ax.hlines(place, low, high, color=color, linewidth=1.2)
    ax.plot(value, place, marker, color=color, markersize=4.5)


def _rows(ax: Axes, names: Sequence[str], named: bool = True) -> None:
    """Names of rows from the top down, and the line of no effect."""
    ax.set_yticks(range(len(names)))
    ax.set_yticklabels([name and style.wrapped(name, 44, 1) for name in names] if named else [])
    ax.set_ylim(len(names) - 0.4, -0.6)
    style.zero(ax, "x")
