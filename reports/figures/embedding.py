"""The map of labels: where the candidates of each label shift lie on the plane of their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from ablate.effects.plane import SHOWN, plane
from ablate.reports.figures import style

if TYPE_CHECKING:
    import xarray as xr


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
        figure, axes = style.canvas(
            width, rows * (width / columns + 0.1) + 0.2, rows, columns, sharex=True, sharey=True
        )
        keys = list(frame.columns[: frame.columns.get_loc("label_shift")])
        every = {key: part[~part["centroid"]] for key, part in frame.groupby(keys, sort=False)}
        for i, (ax, (title, part)) in enumerate(zip(axes, parts, strict=False)):
            look = style.look(names.index(part["label_shift"].iloc[0]))
            rest = every[tuple(part[keys].iloc[0])]
            ax.plot(rest["x"], rest["y"], ".", color=style.FAINT, markersize=1.5, rasterized=True, markeredgewidth=0)
            own, centers = part[~part["centroid"]], part[part["centroid"]]
            mark: Any = {
                "color": look["color"],
                "markersize": 2.2,
                "markeredgewidth": 0,
                "alpha": 0.6,
                "rasterized": True,
            }
            ax.plot(own["x"], own["y"], look["marker"], label="candidates", **mark)
            cross: Any = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.6, "markersize": 6}
            ax.plot(centers["x"], centers["y"], "X", label="centroids", **cross)
            named = title or f"label_shift = {style.plain(part['label_shift'].iloc[0])}"
            ax.set_title(style.wrapped(named.replace("label_shift = ", ""), 26))
            lowest = i >= len(parts) - columns
            ax.set_xlabel("PC 1, embedding units" if lowest else "")
            ax.set_ylabel("PC 2, embedding units" if i % columns == 0 else "")
            ax.xaxis.set_tick_params(labelbottom=lowest)
            ax.set_box_aspect(1)
        for ax in axes[len(parts) :]:
            ax.remove()
        caption = ["Marks: candidates of the label shift; gray: of all shifts; crosses: centroid of each organism."]
        counts = [part["organism"].nunique() for _, part in parts]
        caption.append(f"PC: principal component of all pools; {style.among(counts)}.")
        if (frame["pooled"] > SHOWN).any():
            caption.append(f"At most {SHOWN} candidates of a label shift are drawn.")
        return style.finish(figure, [*caption, *style.left_out(frame, total)])
