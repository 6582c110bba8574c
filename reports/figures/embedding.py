"""The map of labels: where the candidates of each label shift lie on the plane of their embeddings."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from ablate.effects.plane import SHOWN, plane
from ablate.reports.figures import style

COLUMNS = 4


def embedding(tree: xr.DataTree) -> Figure:
    """Candidates on the two directions in which all of them vary most, a panel a label shift, all others gray behind.

    Estimand: none; a description, `effects.plane.plane`. Crosses are the centroids of organisms.

    Raises:
        StudyError: a cube without embedded candidates.
    """
    frame = plane(tree)
    parts = style.facets(frame, "organism")
    total, parts = len(parts), parts[: style.PANELS]
    columns = min(COLUMNS if len(parts) != 6 else 3, len(parts))
    rows = -(-len(parts) // columns)
    names = list(dict.fromkeys(frame["label_shift"]))
    with style.styled():
        width = style.DOUBLE if columns > 2 else 2.6 * columns
        figure, axes = style.canvas(width, rows * (width / columns + 0.1), rows, columns, sharex=True, sharey=True)
        every = frame[~frame["mean"]]
        for i, (ax, (title, part)) in enumerate(zip(axes, parts, strict=False)):
            look = style.look(names.index(part["label_shift"].iloc[0]))
            ax.plot(every["x"], every["y"], ".", color=style.FAINT, markersize=1.5, rasterized=True, markeredgewidth=0)
            own, centers = part[~part["mean"]], part[part["mean"]]
            mark = {"color": look["color"], "markersize": 2.2, "markeredgewidth": 0, "alpha": 0.6, "rasterized": True}
            ax.plot(own["x"], own["y"], look["marker"], label="candidates", **mark)
            cross = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.6, "markersize": 6}
            ax.plot(centers["x"], centers["y"], "X", label="centroids", **cross)
            named = title or f"label_shift = {style.plain(part['label_shift'].iloc[0])}"
            ax.set_title(style.wrapped(named.replace("label_shift = ", ""), 26))
            ax.set_xlabel("1st component, embedding units" if i >= len(parts) - columns else "")
            ax.set_ylabel("2nd component, embedding units" if i % columns == 0 else "")
            ax.set_box_aspect(1)
        for ax in axes[len(parts) :]:
            ax.remove()
        caption = ["Marks: candidates of the label shift; gray: of all; crosses: centroid of each organism. Principal"]
        caption.append(f"components of all pools; {style.among([part['organism'].nunique() for _, part in parts])}.")
        if (frame["candidates"] > SHOWN).any():
            caption.append(f"At most {SHOWN} candidates of a label shift are drawn.")
        return style.finish(figure, [*caption, *style.left_out(frame, total)])
