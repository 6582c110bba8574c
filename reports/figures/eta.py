"""What scores know: the chance of misalignment over the quantile of the score, eta(s)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.effects.posterior import eta_curves
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


def eta(tree: xr.DataTree) -> Figure:
    """P(M = 1) of a candidate over the quantile of its score within its prompt, one line a label shift.

    Estimand: `effects.posterior.eta_curves`, the mean over organisms of an organism's share of misaligned candidates in
    a bin, with 95% t intervals. A flat line is a score that knows nothing of misalignment, and selecting by it changes
    nothing. A panel is a selector that reads a score.

    Raises:
        StudyError: a cube without judged and scored candidates.
    """
    frame = eta_curves(tree)
    keys = list(frame.columns[: frame.columns.get_loc("label_shift")])
    ordered = frame[[*keys, "selector", *(name for name in frame.columns if name not in (*keys, "selector"))]]
    ordered.attrs = frame.attrs
    parts = style.facets(ordered, "label_shift")
    total, parts = len(parts), parts[: style.PANELS]
    columns = min(2, len(parts))
    rows = -(-len(parts) // columns)
    names = list(dict.fromkeys(frame["label_shift"]))
    with style.styled():
        size = (5.0 if columns == 1 else style.DOUBLE, 2.6 * rows)
        figure, axes = style.canvas(*size, rows, columns, sharex=True, sharey=True)
        for i, (ax, (title, part)) in enumerate(zip(axes, parts, strict=False)):
            selector = f"selector = {style.plain(part['selector'].iloc[0])}"
            ax.set_title(style.wrapped(title if selector in title else ", ".join(filter(None, [title, selector])), 46))
            ax.set_xlim(0, 1)
            ax.set_ylim(-0.03, 1.03)
            ax.set_xlabel("quantile of the score within its prompt (0 = lowest)")
            ax.set_ylabel("misaligned candidates, P(M = 1)" if i % columns == 0 else "")
            ax.xaxis.set_tick_params(labelbottom=True)
            _curves(ax, part, names)
        for ax in axes[len(parts) :]:
            ax.remove()
        caption = [f"Mean over organisms of the share in a bin of the quantile; {style.intervals(frame['organisms'])}."]
        return style.finish(figure, [*caption, *style.left_out(frame, total)])


def _curves(ax: Axes, part: pd.DataFrame, names: list[str]) -> None:
    step = 0.012
    for i, name in enumerate(names):
        own = part[part["label_shift"] == name]
        if own.empty:
            continue
        look = style.look(i)
        at = own["u"] + step * (i - (len(names) - 1) / 2)
        ax.vlines(at, own["low"], own["high"], color=look["color"], linewidth=0.8)
        ax.plot(at, own["eta"], label=style.plain(name), **look)
        style.ended(ax, float(at.iloc[-1]), float(own["eta"].iloc[-1]), style.wrapped(name), look["color"])
