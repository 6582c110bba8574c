"""Two samples of points with their prompts, one distance matrix, and permutation of labels within prompts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray, IntArray
from ablate.errors import StudyError
from ablate.measures.closed_forms import at, count

ROUNDING = 1e-9
"""Squared distances below this share of the largest are those of equal texts, embedded in other batches."""

ALIKE = 1e-12
"""Points whose squared distances are all below this share of the largest squared norm are one point, in single."""

Groups = npt.ArrayLike | tuple[npt.ArrayLike, npt.ArrayLike] | None
"""Prompts: [n] shared by x[i] and y[i], or the pair (of x [n], of y [m]); None pairs x[i] with y[i]."""


class Shift(NamedTuple):
    """A distance between two samples, and its p by permutation within prompts."""

    value: float
    p: float


@dataclass(frozen=True)
class TwoSamples:
    """Rows of x, then rows of y, and who is called x: as observed, and under every permutation.

    A permutation exchanges labels among the rows of one prompt, so what all answers to a prompt share plays no
    part in a p. Every statistic is computed for all rows of ``labels`` at once, the observed first.
    """

    points: FloatArray  # [n + m, D]
    groups: IntArray  # [n + m], prompts as 0, 1, ...
    labels: npt.NDArray[np.bool_]  # [1 + B, n + m], True where a row counts as one of x
    n: int
    m: int
    picked_from: int = 0
    """K where each row of x was picked from K draws of p, and the row of y is one of the K - 1 that were left over.

    Those left over are distributed as r = (K p - s) / (K - 1), s being the distribution of the picks; so
    p = s / K + (1 - 1/K) r, and every statistic is of x against that mixture. 0: y itself is drawn from p.
    """

    @property
    def own(self) -> float:
        """The share of x in what it is compared to, 1/K or 0."""
        return 1 / self.picked_from if self.picked_from else 0.0

    @cached_property
    def squared(self) -> FloatArray:
        """Squared Euclidean distances [n + m, n + m], exactly 0 between equal texts."""
        from scipy.spatial.distance import pdist, squareform  # takes a while, and naming a measure needs none of it

        squared = pdist(self.points, "sqeuclidean")  # from differences
        squared[squared <= ROUNDING * squared.max()] = 0.0
        matrix: FloatArray = squareform(squared)
        return matrix

    @cached_property
    def principal(self) -> FloatArray:
        """Scores of the centered points on their principal axes, as many as they span, [n + m, rank]."""
        left, size, _ = np.linalg.svd(self.points - self.points.mean(0), full_matrices=False)
        rank = int((size > 1e-7 * size[0]).sum())
        return np.asarray((left * size)[:, :rank])

    def u_statistic(self, kernel: FloatArray) -> FloatArray:
        """Mean of a kernel over x-x pairs, plus over y-y pairs, minus twice over x-y pairs, [1 + B].

        Pairs are of different prompts only: two answers to one prompt are not independent, and would bias it.
        It is quadratic in the difference of the distributions, s - p = (1 - 1/K) (s - r) where x was `picked_from` K.
        """
        apart = (self.groups[:, None] != self.groups).astype(float)
        kernel = kernel * apart
        observed = self.labels[0].astype(float)
        x_x, x_any = observed @ apart @ observed, observed @ apart.sum(1)  # counts, the same for all permutations
        x_y, y_y = x_any - x_x, apart.sum() - 2 * x_any + x_x
        x = self.labels.astype(float)
        within, touching = ((x @ kernel) * x).sum(1), x @ kernel.sum(1)
        across, rest = touching - within, kernel.sum() - 2 * touching + within
        return np.asarray((1 - self.own) ** 2 * (within / x_x + rest / y_y - 2 * across / x_y))

    def shift(self, statistics: FloatArray, scale: float) -> Shift:
        """The observed statistic with p = (1 + b) / (1 + B), b of B permutations being as large.

        ``scale`` is the size of what the statistic is a difference of: equal up to its rounding is as large.
        """
        value, permuted = float(statistics[0]), statistics[1:]
        exceed = int((permuted >= value - 1e-12 * scale).sum())
        return Shift(value, (1 + exceed) / (1 + len(permuted)))


def two_samples(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 199,
) -> TwoSamples:
    """Check two samples and draw the permutations of their labels.

    Args:
        x: points [n, D].
        y: points [m, D].
        rng: draws the permutations; a fixed seed where None.
        groups: the prompt of each row, see `Groups`; needed where n != m.
        permutations: B.

    Raises:
        StudyError: rows that are not finite, other dimensions, all rows alike, rows whose prompt is not named,
            fewer than two prompts with rows of both.
    """
    permutations = count("permutations", permutations)
    x, y = _rows("x", x), _rows("y", y)
    if x.shape[1] != y.shape[1]:
        raise StudyError(f"x has {x.shape[1]} dimensions and y {y.shape[1]}: embed both by one model")
    points = np.concatenate([x, y])
    if alike(points):
        raise StudyError("all rows of x and y are alike: there is no distance to measure")
    codes = _prompts(groups, len(x), len(y))
    prompts = codes.max() + 1
    counts = np.stack(
        [np.bincount(codes[: len(x)], minlength=prompts), np.bincount(codes[len(x) :], minlength=prompts)]
    )
    exchangeable = int((counts > 0).all(0).sum())
    if exchangeable < 2:
        raise StudyError(
            f"prompts with rows of both x and y: {exchangeable}, and at least 2 are needed, since labels are permuted "
            "within prompts"
        )
    observed = np.arange(len(points)) < len(x)
    rng = np.random.default_rng(0) if rng is None else rng
    if (counts == 1).all():  # the same swaps whichever sample is named first
        permuted = observed ^ (rng.choice(np.array([-1.0, 1.0]), (permutations, prompts)) < 0)[:, codes]
    else:
        order = np.argsort(codes + rng.random((permutations, len(points))), axis=1)
        permuted = np.empty_like(order, dtype=bool)
        in_order = observed[np.argsort(codes, kind="stable")]
        np.put_along_axis(permuted, order, np.broadcast_to(in_order, order.shape), axis=1)
    return TwoSamples(points, codes, np.concatenate([observed[None], permuted]), len(x), len(y))


def alike(points: FloatArray) -> bool:
    """Whether all rows are one point, up to the rounding of single precision."""
    points = points.astype(float)
    return bool(((points - points[0]) ** 2).sum(1).max() <= ALIKE * (points**2).sum(1).max())


def _rows(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or not array.size:
        raise StudyError(f"{name} has shape {array.shape}: points [rows, dimensions] are needed")
    bad = ~np.isfinite(array).all(1)
    if bad.any():
        raise StudyError(f"{at(name, bad)} is not finite: leave out what has no embedding")
    return array


def _prompts(groups: Groups, n: int, m: int) -> IntArray:
    """The prompt of every row of x, then of y, as 0, 1, ..."""
    if groups is None:
        if n != m:
            raise StudyError(f"x has {n} rows and y {m}: name the prompt of each, groups=(of x, of y)")
        return np.tile(np.arange(n), 2)
    given: Any = groups if isinstance(groups, tuple) else np.asarray(groups)
    paired = len(given) == 2 and np.ndim(given[0]) == 1
    of_x, of_y = (np.asarray(part) for part in (given if paired else (given, given)))
    if of_x.shape != (n,) or of_y.shape != (m,):
        raise StudyError(
            f"groups names the prompts of {len(of_x)} rows of x and {len(of_y)} of y, which have {n} and {m}: one each"
        )
    return np.asarray(np.unique(np.concatenate([of_x, of_y]), return_inverse=True)[1])
