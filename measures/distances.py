"""Distances between two samples of embeddings, each with its p by permutation within prompts.

All functions take ``x`` [n, D], ``y`` [m, D] and the prompts of their rows. The functions in ``_of`` take what
`two_samples` made of them, so that several distances share one distance matrix and the same permutations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.errors import StudyError
from ablate.measures.closed_forms import count
from ablate.measures.samples import Groups, Shift, TwoSamples, two_samples


class FrechetShift(NamedTuple):
    """``value`` is ``raw`` minus ``null``, the mean of raw over permutations: what sampling alone makes of it."""

    value: float
    p: float
    raw: float
    null: float
    components: int


def mmd2(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
) -> Shift:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel; may be negative.

    Estimand: E k(x, x') + E k(y, y') - 2 E k(x, y) over answers to two different prompts, with
    k(a, b) = exp(-|a - b|^2 / h), h the median of the positive squared distances of the pooled points, fixed
    before permuting. Estimate: the U-statistic over pairs of rows of different prompts.

    Args:
        x: embeddings [n, D].
        y: embeddings [m, D].
        rng: draws the permutations; a fixed seed where None.
        groups: prompt of each row: [n] where x[i] and y[i] share it, or (of x [n], of y [m]); None pairs the rows.
        permutations: B of p = (1 + b) / (1 + B); labels are permuted within prompts.

    Raises:
        StudyError: see `two_samples`.

    Source: Gretton et al., A kernel two-sample test, 2012.
    """
    return mmd2_of(two_samples(x, y, rng, groups=groups, permutations=permutations))


def mmd2_of(samples: TwoSamples) -> Shift:
    """`mmd2`."""
    squared = samples.squared
    positive = squared[np.tril_indices(len(squared), -1)]
    kernel = np.exp(-squared / np.median(positive[positive > 0]))
    return samples.shift(samples.u_statistic(kernel), 4.0)


def energy(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
) -> Shift:
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'|, unbiased, in units of the embedding; may be negative.

    The U-statistic over pairs of rows of different prompts. scipy.stats.energy_distance is the square root of
    the V-statistic of the same. Arguments and errors are those of `mmd2`.

    Source: Szekely and Rizzo, Energy statistics, 2013.
    """
    return energy_of(two_samples(x, y, rng, groups=groups, permutations=permutations))


def energy_of(samples: TwoSamples) -> Shift:
    """`energy`."""
    distance = np.sqrt(samples.squared)
    return samples.shift(samples.u_statistic(-distance), 4 * float(distance.max()))


def centroid_cosine(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
) -> Shift:
    """Cosine distance 1 - cos(mean x, mean y), in [0, 2]; positive in samples of one distribution too.

    Arguments and errors are those of `mmd2`; besides, a mean of 0 has no direction.
    """
    return centroid_cosine_of(two_samples(x, y, rng, groups=groups, permutations=permutations))


def centroid_cosine_of(samples: TwoSamples) -> Shift:
    """`centroid_cosine`."""
    distances = centroid_distances(samples)
    if np.isnan(distances[0]):
        raise StudyError("centroid_cosine: the mean of x or of y is 0 and has no direction")
    return samples.shift(distances, 2.0)


def centroid_distances(samples: TwoSamples) -> FloatArray:
    """`centroid_cosine` of each labeling [1 + B], NaN where the observed means have no direction."""
    of_x = samples.labels.astype(float) @ samples.points / samples.n
    of_y = (~samples.labels).astype(float) @ samples.points / samples.m
    of_y += samples.own * (of_x - of_y)
    norm = np.sqrt((of_x**2).sum(1) * (of_y**2).sum(1))
    # A permutation whose mean is 0 is no nearer than a right angle.
    cosine = np.divide((of_x * of_y).sum(1), norm, out=np.zeros_like(norm), where=norm > 0)
    cosine[:1][norm[:1] == 0] = np.nan
    return np.asarray(1 - np.clip(cosine, -1, 1))


def frechet(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
    components: int | None = None,
) -> FrechetShift:
    """Squared Frechet distance of the Gaussians that fit x and y, on principal components, less its null mean.

    raw = |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2), the squared 2-Wasserstein distance of
    two Gaussians, on the first ``components`` principal components of the pooled points, so that both
    covariances have full rank; ``value`` is raw minus its mean over permutations (sampling makes raw positive
    without any shift), ``p`` is of raw. Other arguments and errors are those of `mmd2`.

    Args:
        components: how many; where None the smallest of 8, the rank, and half of the smaller sample.

    Raises:
        StudyError: more components than leave a covariance of full rank.

    Source: Dowson and Landau, 1982; Heusel et al., 2017 (FID).
    """
    samples = two_samples(x, y, rng, groups=groups, permutations=permutations)
    return frechet_of(samples, components=components)


def frechet_of(samples: TwoSamples, *, components: int | None = None) -> FrechetShift:
    """`frechet`."""
    scores = _principal(samples, components)
    k = scores.shape[1]
    products = (scores[:, :, None] * scores[:, None, :]).reshape(len(scores), k * k)
    (mean_x, cov_x), (mean_y, cov_y) = (
        _moments(scores, products, labels.astype(float)) for labels in (samples.labels, ~samples.labels)
    )
    apart, own = mean_x - mean_y, samples.own  # of p where x was picked from draws of it: the moments of the mixture
    cov_y = (1 - own) * cov_y + own * cov_x + own * (1 - own) * apart[:, :, None] * apart[:, None, :]
    size, axes = np.linalg.eigh(cov_x)
    root = axes * np.sqrt(np.clip(size, 0, None))[:, None, :] @ axes.mT
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_y @ root), 0, None)).sum(1)
    spread = np.trace(cov_x + cov_y, axis1=1, axis2=2)
    raw = (1 - own) ** 2 * (apart**2).sum(1) + spread - 2 * overlap
    null = float(raw[1:].mean())
    value, p = samples.shift(raw, float(spread[0]))
    return FrechetShift(value - null, p, value, null, k)


def _principal(samples: TwoSamples, components: int | None) -> FloatArray:
    """Scores [n + m, components] on the principal axes of the pooled points."""
    smaller, rank = min(samples.n, samples.m), samples.principal.shape[1]
    if components is None:
        components = max(1, min(8, rank, smaller // 2))
    most = min(rank, smaller - 1)
    if count("frechet: components", components) > most:
        raise StudyError(
            f"frechet: {components} components of points of rank {rank}, {smaller} in the smaller sample: at most "
            f"{most} leave covariances of full rank"
        )
    return samples.principal[:, :components]


def _moments(scores: FloatArray, products: FloatArray, members: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means [1 + B, k] and covariances [1 + B, k, k] of the rows that each labeling names."""
    k, n = scores.shape[1], members[0].sum()
    mean = members @ scores / n
    second = (members @ products).reshape(-1, k, k)
    return mean, (second - n * mean[:, :, None] * mean[:, None, :]) / (n - 1)


def sliced_w2(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
    projections: int = 50,
) -> Shift:
    """Sliced 2-Wasserstein distance: the root of the mean over directions of W_2^2 of the projected points.

    In units of the embedding. Of the samples as they are: positive without any shift too, less so in larger
    samples. For Gaussians of one covariance it tends to |mu_x - mu_y| / sqrt(D). Other arguments and errors are
    those of `mmd2`.

    Args:
        rng: draws the permutations, then the directions.
        projections: number of directions, uniform on the sphere.

    Source: Bonneel et al., 2015, by POT (``ot.wasserstein_1d``).
    """
    rng = np.random.default_rng(0) if rng is None else rng
    samples = two_samples(x, y, rng, groups=groups, permutations=permutations)
    return sliced_w2_of(samples, rng, projections=projections)


def sliced_w2_of(samples: TwoSamples, rng: np.random.Generator, *, projections: int = 50) -> Shift:
    """`sliced_w2`."""
    directions = rng.normal(size=(samples.points.shape[1], count("projections", projections)))
    projected = samples.points @ (directions / np.linalg.norm(directions, axis=0))
    return samples.shift(sliced_distances(samples, projected), float(np.abs(projected).max()))


def sliced_distances(samples: TwoSamples, projected: FloatArray) -> FloatArray:
    """`sliced_w2` of each labeling, [1 + B], of points that were projected on directions, [n + m, directions].

    Each direction is sorted once for all labelings.
    """
    import ot  # imports torch where it is installed

    transport: Any = ot.wasserstein_1d  # untyped
    order = projected.argsort(0)
    ranked = np.take_along_axis(projected, order, axis=0)
    k = max(1, samples.picked_from)
    squares = []
    for labels in samples.labels:
        is_x = labels[order]
        x = ranked.T[is_x.T].reshape(ranked.shape[1], -1).T
        # of k draws one was picked: x joins k - 1 copies of what was left over
        y_mass = np.where(is_x, float(k > 1), float(max(1, k - 1)))
        mass = np.full(x.shape, 1 / len(x)), y_mass / y_mass.sum(0)
        squares.append(transport(x, ranked, *mass, p=2, require_sort=False).mean())
    return np.sqrt(squares)
