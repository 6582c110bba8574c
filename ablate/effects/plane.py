"""Where the candidates of every label shift lie on the plane of their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.effects.block import Block, root
from ablate.effects.contrasts import gather
from ablate.effects.dose import aligned
from ablate.effects.labels import DATA, group_of
from ablate.effects.posterior import settings
from ablate.errors import StudyError

SHOWN = 1500
"""Candidates of a label shift that are listed; of more, evenly spaced ones."""


def plane(cube: xr.DataTree) -> pd.DataFrame:
    """Candidates on the plane of the two directions in which all of them vary most (PCA of all pools of the study).

    Rows: candidates of a label shift, at most `SHOWN`, evenly spaced over organisms, training seeds and prompts; then,
    with ``centroid`` True, the centroid of all candidates of each organism. Columns: ``behavior``, swapped options of
    the labels, ``label_shift, organism, x, y`` (principal components, in the unit of the embedding), ``centroid``,
    and ``pooled``, the candidates of the label shift in all. A description of the pools; nothing is tested.

    Raises:
        StudyError: a cube that has no embedded candidates.
    """
    group = group_of(cube, "pool_x", "pool_y")
    if not np.isfinite(group["pool_x"].values).any():
        raise StudyError("no candidates were embedded; add embedding_shift to `measures`")

    def rows(block: Block) -> pd.DataFrame:
        x, y = (aligned(block, group[name], root(cube)) for name in ("pool_x", "pool_y"))
        frames: list[pd.DataFrame] = []
        for other, (own_x, own_y) in settings(block, x, y):
            for shift, name in enumerate(block.levels["label_shift"]):
                about = {"behavior": block.behavior, **other, "label_shift": name}
                frames += _shift(block, about, np.stack([own_x[:, shift, 0], own_y[:, shift, 0]], axis=-1))
        if not frames:
            raise StudyError(f"{block.behavior}: no candidates were embedded; add embedding_shift to `measures`")
        return pd.concat(frames, ignore_index=True)

    table = gather(cube, rows, least=1)
    table.attrs["facts"] = DATA
    return table


def _shift(block: Block, about: dict[str, Any], points: Any) -> list[pd.DataFrame]:
    """Rows of one label shift, of ``points`` [organism, seed, prompt, candidate, 2]."""
    flat = points.reshape(len(points), -1, 2)
    there = np.isfinite(flat).all(axis=-1)
    total = int(there.sum())
    if not total:
        return []
    organism, place = np.nonzero(there)
    chosen = np.unique(np.linspace(0, total - 1, min(total, SHOWN)).round().astype(int))
    names = np.array(block.organisms, object)
    some = pd.DataFrame({"organism": names[organism[chosen]], "centroid": False})
    some[["x", "y"]] = flat[organism[chosen], place[chosen]]
    own = np.flatnonzero(there.any(axis=1))
    centers = pd.DataFrame({"organism": names[own], "centroid": True})
    centers[["x", "y"]] = [flat[i][there[i]].mean(axis=0) for i in own]
    both = pd.concat([some, centers], ignore_index=True).assign(**about, pooled=total)
    return [both[[*about, "organism", "x", "y", "centroid", "pooled"]]]
