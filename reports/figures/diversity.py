"""How divided answers are: histograms of p_x over label prompts, and over evaluation items before and after."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.posterior import p_histograms
from ablate.reports.figures import style

SELECTORS = 3
"""Selectors that have room beside each other."""
ROWS = 12


def diversity(tree: xr.DataTree) -> Figure:
    """Where p_x = P(M = 1 | x) lies: of label prompts under each label shift, of items before and after training.

    Estimand: `effects.posterior.p_histograms`, the mean over organisms of the share of an organism's prompts or items
    in each fifth of p_x, with 95% t intervals. Stable prompts are at 0 or 1, divided ones in the middle. A row is a
    label shift, the first column its pool, every other one a selector: after training filled, before outlined.

    Raises:
        StudyError: a cube without judged candidates or without its items.
    """
    frame = p_histograms(tree)
    parts = style.facets(frame, "selector")
    single = frame["label_shift"].nunique() == 1
    total, parts = len(parts), parts[:ROWS]
    names = [name for name in dict.fromkeys(frame["selector"]) if name]
    shown = names[:SELECTORS]
    columns = 1 + len(shown)
    with style.styled():
        size = (style.DOUBLE * (0.25 + 0.75 * columns / (1 + SELECTORS)), 0.45 + 1.15 * len(parts))
        figure, axes = style.canvas(*size, len(parts), columns, sharex=True, sharey=True)
        for i, (title, part) in enumerate(parts):
            row = axes[i * columns : (i + 1) * columns]
            _bars(row[0], part[part["what"] == "pool"], style.COLORS[1], "")
            for ax, name in zip(row[1:], shown, strict=True):
                own = part[part["selector"] == name]
                _bars(ax, own[own["what"] == "after"], style.COLORS[3], "////")
                _outline(ax, own[own["what"] == "before"])
            named = title or (f"label_shift = {style.plain(part['label_shift'].iloc[0])}" if single else "")
            row[0].set_ylabel(f"{style.wrapped(named.replace('label_shift = ', ''), 20, 3)}\n% of prompts")
        for ax, name in zip(axes[:columns], ["", *shown], strict=True):
            ax.set_title(style.wrapped(f"items, {style.plain(name)}" if name else "label prompts: pool", 24, 3))
        for ax in axes[-columns:]:
            ax.set_xlabel("P(M = 1) of " + ("a prompt" if ax is axes[-columns] else "an item"))
            ax.set_xticks([0, 0.5, 1])
        return style.finish(figure, _caption(frame, total, names, len(shown)))


def _bars(ax: Axes, own: pd.DataFrame, color: str, hatch: str) -> None:
    if own.empty:
        ax.text(0.5, 0.5, "no run", transform=ax.transAxes, ha="center", color=style.GRAY, fontsize=5.5)
        return
    left, width = own["low_edge"], own["high_edge"] - own["low_edge"]
    ax.bar(left, 100 * own["share"], width, align="edge", facecolor=color, edgecolor="white", hatch=hatch, alpha=0.75)
    ax.vlines(left + width / 2, 100 * own["low"], 100 * own["high"], color=style.COLORS[0], linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 100)


def _outline(ax: Axes, own: pd.DataFrame) -> None:
    if not own.empty:
        edges = [*own["low_edge"], own["high_edge"].iloc[-1]]
        ax.stairs(100 * own["share"].to_numpy(), np.array(edges), color=style.COLORS[0], linewidth=1.1)


def _caption(frame: pd.DataFrame, rows: int, names: list[str], shown: int) -> list[str]:
    caption = ["Mean over organisms of the share of an organism's prompts or items;"]
    caption.append(f"{style.intervals(frame['organisms'])}; items after training filled, before outlined.")
    if len(names) > shown:
        caption.append(f"The first {shown} of {len(names)} selectors.")
    if rows > ROWS:
        caption.append(f"The first {ROWS} of {rows} rows.")
    return caption + style.left_out(frame)
