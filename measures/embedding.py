"""How far the labels' texts are from the organism's own answers to the same prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ablate.api import Column, LabelSet, measure
from ablate.measures.classifier import Classified, c2st, c2st_of
from ablate.measures.distances import (
    FrechetShift,
    centroid_cosine,
    centroid_cosine_of,
    energy,
    energy_of,
    frechet,
    frechet_of,
    mmd2,
    mmd2_of,
    sliced_w2,
    sliced_w2_of,
)
from ablate.measures.samples import Groups, Shift, alike, two_samples

__all__ = [
    "Classified",
    "FrechetShift",
    "Shift",
    "c2st",
    "centroid_cosine",
    "energy",
    "frechet",
    "mmd",
    "mmd2",
    "shifts",
    "sliced_w2",
]

MMD = "unbiased squared MMD, Gaussian kernel, pooled median bandwidth (Gretton et al., 2012)"


@measure(
    version=2,
    embeds=True,
    columns={
        "mmd2": Column("embedding shift of the labels, MMD^2", "1", "neither", MMD),
        "mmd2_p": Column(
            "p of the embedding shift", "1", "neither", "permutation within prompts, p = (1 + b) / (1 + B)"
        ),
    },
)
def mmd(
    before: None,
    labels: LabelSet,
    after: None,
    rng: np.random.Generator,
    *,
    permutations: Annotated[int, Field(ge=19)] = 199,
) -> dict[str, float]:
    """Labels against the organism's own unshifted answers to the same prompts, one of each a prompt.

    Where the labels were picked from the organism's own pool, the answer that they are compared to is
    another of its K candidates, so that no answer is compared to itself; with one candidate there is none. Those
    that were left over are (K p - s) / (K - 1) and not p, so that MMD^2 would be (K / (K - 1))^2 too large.
    """
    given = np.flatnonzero(labels.weights.sum(1) > 0)
    picked = np.array([rng.choice(len(row), p=row / row.sum()) for row in labels.weights[given]], int)
    own = rng.random(labels.reference_embedding.shape[:2])[given]
    scale = 1.0
    if labels.pool.tokens is labels.reference.tokens or np.array_equal(labels.pool.tokens, labels.reference.tokens):
        own[np.arange(len(given)), picked] = -1.0
        scale = (1 - 1 / own.shape[1]) ** 2
    other = own.argmax(1)
    if len(given) < 2 or (own.max(1) < 0).any():
        return {"mmd2": float("nan"), "mmd2_p": float("nan")}
    x, y = labels.embedding[given, picked], labels.reference_embedding[given, other]
    if alike(np.concatenate([x, y])):  # every answer is one text: no distance, and all permutations are as it is
        return {"mmd2": 0.0, "mmd2_p": 1.0}
    value, p = mmd2(x, y, rng, permutations=permutations)
    return {"mmd2": value * scale, "mmd2_p": p}


def shifts(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
    refits: int = 99,
    components: int | None = None,
    projections: int = 50,
    lengths: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> dict[str, Shift | FrechetShift | Classified]:
    """All distances of this module at once, by name, from one distance matrix and the same permutations.

    Arguments are those of the functions of these names; ``refits`` are the permutations of `c2st`, the first of
    the others', at most as many.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    samples = two_samples(x, y, rng, groups=groups, permutations=permutations)
    return {
        "mmd2": mmd2_of(samples),
        "energy": energy_of(samples),
        "centroid_cosine": centroid_cosine_of(samples),
        "frechet": frechet_of(samples, components=components),
        "sliced_w2": sliced_w2_of(samples, rng, projections=projections),
        "c2st": c2st_of(replace(samples, labels=samples.labels[: 1 + refits]), rng, lengths=lengths),
    }
