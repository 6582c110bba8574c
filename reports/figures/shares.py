"""Variance shares: which mechanism carries how much of the effects, and of all that varies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.decomposition import decomposition
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


MECHANISMS = ("label_shift", "selector", "interaction")
ROW = 0.17
TITLES = ("Of the effects", "Of all variance")


def shares(tree: xr.DataTree) -> Figure:
    """Shares of the variance with 95% intervals: of the effects together, and of everything that varies among runs.

    Estimand: `effects.decomposition`, shares of variance over the declared levels, with their 95% limits over
    organisms; those of effects may leave [0, 1]. A share of effects that are not shown to be there is not identified.

    Raises:
        StudyError: what `effects.decomposition` refuses.
    """
    frame = decomposition(tree)
    parts = style.facets(frame, "source")
    total, parts = len(parts), parts[: style.PANELS // 2]
    with style.styled():
        heights = [len(_random(part)) for _, part in parts]
        height = sum(0.8 + ROW * rows for rows in heights)
        figure, axes = style.canvas(style.DOUBLE, height, len(parts), 2, sharex="col", height_ratios=heights)
        for i, (title, part) in enumerate(parts):
            left, right = axes[2 * i], axes[2 * i + 1]
            effects = part[part["source"].isin(MECHANISMS)]
            _panel(left, effects, ("effect_share", "effect_low", "effect_high"))
            left.plot(effects["shapley"], range(len(effects)), "D", color=style.COLORS[2], mfc="white", markersize=4.5)
            _panel(right, _random(part), ("share", "share_low", "share_high"))
            for ax, words in zip((left, right), TITLES, strict=True):
                ax.set_title(style.wrapped(f"{title}: {words.lower()}" if title else words, 34))
                ax.set_xlabel("share of variance (1 = all)")
                ax.set_ylabel("source (name)" if ax is left else "")
                ax.xaxis.set_tick_params(labelbottom=True)
        caption = ["95% limits (of effects: linearized t; of all variance: generalized pivotal),"]
        caption.append(f"{style.among(frame['organisms'])}; hollow diamond: order-free, half of")
        caption.append("the interaction with each mechanism. Shares are of the declared levels.")
        return style.finish(figure, caption + style.left_out(frame, 2 * total))


def _random(part: pd.DataFrame) -> pd.DataFrame:
    """The rows that add up to all variance."""
    return part[~part["source"].isin(("effects together", "structural interaction"))]


def _panel(ax: Axes, part: pd.DataFrame, columns: tuple[str, str, str]) -> None:
    for place, (source, value, low, high) in enumerate(part[["source", *columns]].itertuples(index=False)):
        mechanism = source in MECHANISMS
        color = style.COLORS[1] if mechanism else style.GRAY
        if np.isnan(value):
            ax.text(0.5, place, "not identified", ha="center", va="center", color=style.GRAY, fontsize=5.5)
            continue
        ax.barh(place, value, 0.62, color=color, alpha=0.35, edgecolor=color, hatch="" if mechanism else "////")
        ax.hlines(place, low, high, color=style.COLORS[0], linewidth=1.2)
        ax.plot(value, place, "o", color=style.COLORS[0], markersize=3.5)
    ax.set_yticks(range(len(part)))
    ax.set_yticklabels([style.wrapped(name, 28, 2) for name in part["source"]])
    ax.set_ylim(len(part) - 0.4, -0.6)
    ax.set_xlim(min(0.0, ax.get_xlim()[0]), max(1.0, ax.get_xlim()[1]))
    style.zero(ax, "x")
    ax.axvline(1, color=style.FAINT, linewidth=0.6, zorder=0)
