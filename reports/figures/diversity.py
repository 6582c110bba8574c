"""How divided answers are: histograms of p_x over label prompts, and over evaluation items before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.posterior import p_histograms
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


SELECTORS = 3
"""Selectors that have room beside each other."""
ROWS = 24
HIGH = 0.82
"""Height of 100% in a row whose height is 1."""


def diversity(tree: xr.DataTree) -> Figure:
    """Where p_x = P(M = 1 | x) lies: of label prompts under each label shift, of items before and after training.

    Estimand: `effects.posterior.p_histograms`, the mean over organisms of the share of an organism's prompts or items
    in each fifth of p_x, with 95% t intervals. Stable prompts are at 0 or 1, divided ones in the middle. A row is a
    label shift and 100% high; the first column is its pool, every other one a selector: after training filled, before
    outlined.

    Raises:
        StudyError: a cube without judged candidates or without its items.
    """
    frame = p_histograms(tree)
    parts = style.facets(frame, "selector")
    total, parts = len(parts), parts[:ROWS]
    names = [name for name in dict.fromkeys(frame["selector"]) if name]
    shown = names[:SELECTORS]
    columns = 1 + len(shown)
    with style.styled():
        width = 1.2 + (style.DOUBLE - 1.2) * columns / (1 + SELECTORS)
        height = 0.9 + max(0.42, min(0.75, 5 / len(parts))) * len(parts)
        figure, axes = style.canvas(width, height, 1, columns, sharex=True, sharey=True)
        rows = pd.concat([part.assign(base=place + HIGH) for place, (_, part) in enumerate(parts)])
        _column(axes[0], rows[rows["what"] == "pool"], len(parts), style.COLORS[1], "")
        for ax, name in zip(axes[1:], shown, strict=True):
            own = rows[rows["selector"] == name]
            _column(ax, own[own["what"] == "after"], len(parts), style.COLORS[3], "////")
            _outline(ax, own[own["what"] == "before"])
        for ax, name in zip(axes, ["", *shown], strict=True):
            ax.set_title(style.wrapped(f"items, {name}" if name else "label prompts: pool", 24, 3))
            ax.set_xlabel("P(M = 1) of an item" if name else "P(M = 1) of a prompt")
            ax.set_xlim(0, 1)
            ax.set_xticks([0, 0.5, 1])
            ax.set_ylim(len(parts) - 0.1, -0.1)
            ax.spines["left"].set_visible(False)
            ax.tick_params("y", length=0)
        axes[0].set_yticks(np.arange(len(parts)) + HIGH / 2)
        axes[0].set_yticklabels([style.wrapped(_named(title, part), 20) for title, part in parts])
        what = "label shift" if frame.columns.get_loc("label_shift") == 1 else "setting"
        axes[0].set_ylabel(f"{what} (level);\na row is 100% of prompts high")
        return style.finish(figure, _caption(frame, total, names, len(shown)))


def _named(title: str, part: pd.DataFrame) -> str:
    return title.replace("label_shift = ", "") if title else str(part["label_shift"].iloc[0])


def _column(ax: Axes, own: pd.DataFrame, rows: int, color: str, hatch: str) -> None:
    """Histograms upwards from the ``base`` of their rows; the axis of rows points down."""
    bases = np.arange(rows) + HIGH
    ax.hlines(bases, 0, 1, color=style.GRAY, linewidth=0.4)
    ax.hlines([*(bases - HIGH / 2), *(bases - HIGH)], 0, 1, color=style.FAINT, linewidth=0.4)
    for base in set(bases) - set(own["base"]):
        ax.text(0.5, base - HIGH / 2, "no run", ha="center", va="center", color=style.GRAY, fontsize=5.5)
    middle, width = (own["low_edge"] + own["high_edge"]) / 2, own["high_edge"] - own["low_edge"]
    bars: Any = {"facecolor": color, "edgecolor": "white", "linewidth": 0.5, "hatch": hatch}
    ax.bar(middle, -HIGH * own["share"], width, bottom=own["base"], zorder=1, **bars)
    high, low = (own["base"] - HIGH * own[limit] for limit in ("high", "low"))
    ax.vlines(middle, low, high, color=style.COLORS[0], linewidth=0.8)


def _outline(ax: Axes, own: pd.DataFrame) -> None:
    for base in own["base"].unique().tolist():
        part = own[own["base"] == base]
        edges = np.array([*part["low_edge"], part["high_edge"].iloc[-1]])
        tops = base - HIGH * part["share"].to_numpy()
        ax.stairs(tops, edges, baseline=base, color=style.COLORS[0], linewidth=1.1)


def _caption(frame: pd.DataFrame, rows: int, names: list[str], shown: int) -> list[str]:
    caption = ["Mean over organisms of the share of an organism's prompts or items in a fifth of p_x;"]
    caption.append(f"{style.intervals(frame['organisms'])}; items after training filled, before outlined. Gray lines:")
    caption.append("0, 50, 100%.")
    if len(names) > shown:
        caption.append(f"The first {shown} of {len(names)} selectors.")
    if rows > ROWS:
        caption.append(f"The first {ROWS} of {rows} rows.")
    return caption + style.left_out(frame)
