"""How far the labels' texts are from the organism's own answers to the same prompts."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Column, FloatArray, LabelSet, measure

ROUNDING = 1e-9
"""Squared distances below this share of the largest are those of equal texts, embedded in other batches."""

MMD = "unbiased squared MMD, Gaussian kernel, pooled median bandwidth (Gretton et al., 2012)"


@measure(
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
    value, p = mmd2(
        labels.embedding[given, picked], labels.reference_embedding[given, other], rng, permutations=permutations
    )
    return {"mmd2": value * scale, "mmd2_p": p}


def mmd2(x: FloatArray, y: FloatArray, rng: np.random.Generator, *, permutations: int = 199) -> tuple[float, float]:
    """Unbiased MMD^2 between pairs x[i], y[i] that share a prompt, with its permutation p.

    U-statistic of h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j) over i != j. Exchanging the
    two answers of prompt i changes the sign of every h(i, .), so a permutation is a vector of signs.

    Args:
        x: embeddings [n, D].
        y: embeddings [n, D] of the other answers to the same prompts.
        rng: draws the permutations.
        permutations: B of p = (1 + b) / (1 + B).
    """
    from sklearn.metrics import pairwise_distances  # takes a second to import, and naming a measure needs none of it

    n = len(x)
    points = np.concatenate([x, y]).astype(np.float64)
    squared = pairwise_distances(points, metric="sqeuclidean")  # from differences, so exactly 0 between equal answers
    squared[squared <= ROUNDING * squared.max()] = 0.0
    positive = squared[np.triu_indices(2 * n, 1)]
    positive = positive[positive > 0]
    if not len(positive):
        return 0.0, 1.0
    kernel = np.exp(-squared / np.median(positive))
    h = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]
    np.fill_diagonal(h, 0.0)
    signs = rng.choice(np.array([-1.0, 1.0]), (permutations, n))
    value = h.sum() / (n * (n - 1))
    permuted = ((signs @ h) * signs).sum(1) / (n * (n - 1))
    rounding = 1e-12 * np.abs(h).sum() / (n * (n - 1))
    exceed = int((permuted >= value - rounding).sum())
    return float(value), (1 + exceed) / (1 + permutations)
