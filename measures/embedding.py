"""How far the labels' texts are from the organism's own answers to the same prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ablate.api import Column, FloatArray, IntArray, LabelSet, measure
from ablate.measures.classifier import Classified, c2st, c2st_of
from ablate.measures.distances import (
    FrechetShift,
    centroid_cosine,
    centroid_cosine_of,
    centroid_distances,
    energy,
    energy_of,
    frechet,
    frechet_of,
    mmd2,
    mmd2_of,
    sliced_distances,
    sliced_w2,
    sliced_w2_of,
)
from ablate.measures.samples import Groups, Shift, TwoSamples, alike, two_samples

__all__ = [
    "Classified",
    "FrechetShift",
    "Shift",
    "c2st",
    "centroid_cosine",
    "embedding_shift",
    "energy",
    "frechet",
    "mmd2",
    "shifts",
    "sliced_w2",
]

SLICED = 19
"""Permutations whose mean is taken off sliced W2^2: they add 1/19 to its variance where nothing is shifted."""

COLUMNS = ("mmd2", "mmd2_p", "energy", "energy_p", "frechet", "sliced_w2", "centroid_cosine")
PERMUTED = "permutation within prompts, p = (1 + b) / (1 + B)"
LESS = ", less its mean over permutations within prompts"


def _column(long_name: str, source: str, units: str = "1") -> Column:
    return Column(long_name, units, "neither", source)


@measure(
    embeds=True,
    columns={
        "mmd2": _column(
            "embedding shift of the labels, MMD^2",
            "unbiased squared MMD, Gaussian kernel, pooled median bandwidth (Gretton et al., 2012)",
        ),
        "mmd2_p": _column("p of MMD^2", PERMUTED),
        "energy": _column(
            "embedding shift of the labels, energy distance",
            "2 E|x - y| - E|x - x'| - E|y - y'|, unbiased (Szekely and Rizzo, 2013)",
            "embedding distance",
        ),
        "energy_p": _column("p of the energy distance", PERMUTED),
        "frechet": _column(
            "embedding shift of the labels, squared Frechet distance",
            "of Gaussians on at most 8 principal components (Dowson and Landau, 1982)" + LESS,
            "squared embedding distance",
        ),
        "sliced_w2": _column(
            "embedding shift of the labels, squared sliced 2-Wasserstein distance",
            "W_2^2, mean over an orthonormal basis (Bonneel et al., 2015)" + LESS,
            "squared embedding distance",
        ),
        "centroid_cosine": _column(
            "embedding shift of the labels, cosine distance of the means", "1 - cos(mean x, mean y)" + LESS
        ),
        "c2st_auc": _column(
            "AUC of a classifier that tells labels from own answers",
            "logistic regression on embeddings, folds of whole prompts (Lopez-Paz and Oquab, 2017); .5 tells nothing",
        ),
        "c2st_length_auc": _column(
            "AUC of a classifier that sees the length alone", "as c2st_auc, on the number of tokens"
        ),
    },
)
def embedding_shift(
    before: None,
    labels: LabelSet,
    after: None,
    rng: np.random.Generator,
    *,
    permutations: Annotated[int, Field(ge=19)] = 199,
) -> dict[str, float]:
    """Labels against the organism's own unshifted answers to the same prompts, one of each a prompt.

    All from one distance matrix and the same permutations. Without a shift every column has mean 0: MMD^2 and energy
    are unbiased, and the others, which sampling alone makes positive, are less their mean over permutations, each of
    which is then as likely as what is observed. An AUC, of rows held out together, has mean .5; it has no p, since the
    classifier is not fitted again.

    Where the labels were picked from the organism's own pool, the answer that they are compared to is
    another of its K candidates, so that no answer is compared to itself; with one candidate there is none. Those that
    were left over are distributed as r = (K p - s) / (K - 1) and not as p, which exaggerates the shift. As
    p = s / K + (1 - 1/K) r, what is measured is s against that mixture: MMD^2 and energy are quadratic in
    s - p = (1 - 1/K) (s - r), hence (1 - 1/K)^2 times those of s and r, and still unbiased; an AUC is linear in p and
    1/2 for s against itself, hence 1/2 + (1 - 1/K) (AUC - 1/2) for the classifier as it is; Frechet, sliced and cosine
    distances take the moments, quantiles and mean of the mixture of the two samples.

    NaN below two prompts with a label; no shift where all texts are alike.
    """
    given = np.flatnonzero(labels.weights.sum(1) > 0)
    cdf = labels.weights[given].cumsum(1)
    picked = (cdf / cdf[:, -1:] <= rng.random((len(given), 1))).sum(1)  # as rng.choice(K, p=row) row by row
    own = rng.random(labels.reference_embedding.shape[:2])[given]
    picked_from = 0
    if labels.pool.tokens is labels.reference.tokens or np.array_equal(labels.pool.tokens, labels.reference.tokens):
        own[np.arange(len(given)), picked] = -1.0
        picked_from = own.shape[1]
    other = own.argmax(1)
    if len(given) < 2 or (own.max(1) < 0).any():
        return dict.fromkeys((*COLUMNS, "c2st_auc", "c2st_length_auc"), float("nan"))
    x, y = labels.embedding[given, picked], labels.reference_embedding[given, other]
    lengths = labels.pool.lengths[given, picked], labels.reference.lengths[given, other]
    if alike(np.concatenate([x, y])):  # every answer is one text: no distance, and all permutations are as it is
        length_auc = 0.5 if len(np.unique(lengths)) == 1 else float("nan")
        same = dict.fromkeys(COLUMNS, 0.0) | {"mmd2_p": 1.0, "energy_p": 1.0}
        return same | {"c2st_auc": 0.5, "c2st_length_auc": length_auc}
    samples = replace(two_samples(x, y, rng, permutations=permutations), picked_from=picked_from)
    return _columns(samples, rng, lengths)


def _columns(samples: TwoSamples, rng: np.random.Generator, lengths: tuple[IntArray, IntArray]) -> dict[str, float]:
    """The columns of `embedding_shift`."""
    kernel, distance = mmd2_of(samples), energy_of(samples)
    told = c2st_of(replace(samples, labels=samples.labels[:1]), rng, lengths=lengths)
    return {
        "mmd2": kernel.value,
        "mmd2_p": kernel.p,
        "energy": distance.value,
        "energy_p": distance.p,
        "frechet": frechet_of(samples).value,
        "sliced_w2": _sliced(samples, rng),
        "centroid_cosine": _excess(centroid_distances(samples)),
        "c2st_auc": told.value,
        "c2st_length_auc": told.length_auc,
    }


def _excess(statistics: FloatArray) -> float:
    """The observed one less the mean of the permuted: 0 on average where nothing is shifted."""
    return float(statistics[0] - statistics[1:].mean())


def _sliced(samples: TwoSamples, rng: np.random.Generator) -> float:
    """Squared sliced W2, over a random orthonormal basis of the span of the points, less its mean over permutations.

    Squares, since what sampling adds to them hardly depends on the shift. Directions outside the span see no
    distance: W_2^2 over all of R^D is rank / D of that within the span. A whole
    basis has the distance of the means exactly, |mu_x - mu_y|^2 / D, where L single draws err by sqrt(2 / L) of it: on
    MiniLM embeddings of 96 labels a basis of 139 directions erred by 1% (of clean-view labels), 100 draws by 15%.
    """
    points, dimensions = samples.principal, samples.points.shape[1]
    rank = points.shape[1]
    basis = np.linalg.qr(rng.normal(size=(rank, rank)))[0]
    some = replace(samples, labels=samples.labels[: 1 + SLICED])
    return float(rank / dimensions) * _excess(sliced_distances(some, points @ basis) ** 2)


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
