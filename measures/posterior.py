"""What labels let one expect before training: how scores order risk, and how labels vary with the shift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from ablate.api import FloatArray, IntArray
from ablate.errors import StudyError
from ablate.measures.closed_forms import at, count, js
from ablate.measures.estimators import Estimate, clustered_mean

if TYPE_CHECKING:
    import pandas as pd

FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Eta:
    """How the chance of misalignment goes with the score.

    ``table`` has a row for each bin of the within-prompt score quantile: ``u`` (its middle), ``eta``, ``n``
    (candidates), ``se``. ``slope`` is the change of P(M = 1) from u = 0 to u = 1 along a straight line.
    ``spearman`` is the rank correlation of ``eta`` with ``u`` over bins, ``isotonic_r2`` the share of the variance
    of ``eta`` that a monotone curve in the direction of the slope explains (1: monotone); both NaN where
    ``eta`` is constant. ``tv`` is sum |eta_{i+1} - eta_i|.
    """

    table: pd.DataFrame
    slope: float
    slope_se: float
    spearman: float
    isotonic_r2: float
    tv: float

    def bound(self, n: int) -> float:
        """`selection_bound` of best-of-``n`` by this score."""
        return selection_bound(n, self.tv)


def eta(
    scores: npt.ArrayLike,
    outcome: npt.ArrayLike,
    bins: int = 10,
    groups: npt.ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> Eta:
    """Estimate eta(u) = P(M = 1 | score at quantile u of the scores of its prompt).

    The r-th lowest of k candidates of a prompt stands at u = (r - 1/2) / k; ties are ordered at random.
    Candidates without a score or a judgment are left out, as if they were not there, and so are prompts with
    fewer than two others. Standard errors are clustered (CR1; the slope as statsmodels OLS ``cov_type="cluster"``).
    Noise adds to ``tv``, so the bound that rests on it is too wide rather than too narrow.

    Args:
        scores: [P, K], NaN = none.
        outcome: M [P, K], 1 misaligned, 0 not, NaN cannot be judged.
        bins: bins of equal width in u, at most one a candidate (K).
        groups: cluster of each prompt, [P]; each its own where None.
        rng: orders ties; a fixed seed where None.

    Raises:
        StudyError: shapes that differ, outcomes outside [0, 1], no prompt with two judged and scored candidates.

    Source: Africa and Mani, 2026, proposition 3.2.
    """
    scores, outcome = np.asarray(scores, dtype=float), _judgments(outcome)
    if scores.shape != outcome.shape or scores.ndim != 2:
        raise StudyError(f"scores has shape {scores.shape} and outcome {outcome.shape}: both are [prompts, candidates]")
    bins = min(count("eta: bins", bins), scores.shape[1])
    cluster = _clusters(groups, len(scores))
    valid = ~np.isnan(scores) & ~np.isnan(outcome)
    valid &= valid.sum(1, keepdims=True) > 1
    if not valid.any():
        raise StudyError("eta: no prompt has two candidates with a score and a judgment")
    rng = np.random.default_rng(0) if rng is None else rng
    order = np.lexsort((rng.random(scores.shape), scores, ~valid), axis=1)
    odd = 2 * order.argsort(1) + 1  # (2 r - 1), so that no rounding decides on the edge of a bin
    k2 = 2 * valid.sum(1, keepdims=True)
    m, of = outcome[valid], np.broadcast_to(cluster[:, None], valid.shape)[valid]
    place, u = (odd * bins // np.maximum(k2, 1))[valid], (odd / np.maximum(k2, 1))[valid]
    there = np.unique(place)
    rows = [clustered_mean(m[place == b], of[place == b]) for b in there]
    curve, size = np.array([row.value for row in rows]), np.bincount(place)[there]
    slope, slope_se = _slope(u, m, of)
    return Eta(
        _table(u=(there + 0.5) / bins, eta=curve, n=size, se=np.array([row.se for row in rows])),
        slope,
        slope_se,
        *_monotonicity(curve, size, slope),
        float(np.abs(np.diff(curve)).sum()),
    )


def selection_bound(n: int, tv: float) -> float:
    """The most that best-of-``n`` by a score can change the risk: max_u (u - u^n) * tv.

    E[M of the best of n] - E[M] = integral of (u - u^n) d eta(u), and u - u^n is largest at n^(-1 / (n - 1)).

    Args:
        n: candidates, an integer >= 1.
        tv: total variation of eta, `Eta.tv`.
    """
    n = count("selection_bound: n", n)
    if not 0 <= tv < np.inf:
        raise StudyError(f"selection_bound: tv = {tv} is no total variation: finite and >= 0")
    return 0.0 if n == 1 else float(n ** (-1 / (n - 1)) * (1 - 1 / n) * tv)


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """How much the label distribution depends on the label shift, in nats, per prompt.

    ``value`` is ``raw`` (pairs of label shifts) minus ``baseline`` (halves of one label shift), 0 where the
    shift makes no difference; ``low`` and ``high`` are its t limits over clusters of prompts. ``pairs`` has the
    difference of each pair.
    """

    value: float
    low: float
    high: float
    raw: float
    baseline: float
    pairs: Mapping[tuple[str, str], float]


def stability(
    answers: Mapping[str, npt.ArrayLike],
    rng: np.random.Generator | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    splits: int = 20,
    level: float = 0.95,
) -> Stability:
    """Mean Jensen-Shannon divergence of the answers under pairs of label shifts, less that of a shift with itself.

    The candidates of each prompt and shift are halved at random ``splits`` times. A pair is compared by
    JS(half of one, half of the other), a shift with itself by JS(one half, other half): samples are of one
    size everywhere, so that the bias of the divergence of small samples cancels.

    Args:
        answers: what the candidates state, [P, K] by label shift, for the same prompts in the same order. Equal
            entries of a prompt are one answer, whichever the shift (so not ``Pool.classes``, which count anew in
            every pool); stating none is an answer too.
        rng: halves; a fixed seed where None.
        groups: cluster of each prompt, [P]; each its own where None.
        splits: random halvings.
        level: of the interval.

    Raises:
        StudyError: fewer than two shifts, other prompts, a shift with one candidate.
    """
    names, splits = list(answers), count("stability: splits", splits)
    arrays = {name: np.asarray(answers[name]) for name in names}
    if len(names) < 2:
        raise StudyError(f"stability: {len(names)} label shifts: at least 2 are compared")
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != len(arrays[names[0]]) or array.shape[1] < 2:
            raise StudyError(
                f"stability: {name!r} has shape {array.shape}: [prompts, candidates] with the same prompts for every "
                "label shift, and at least 2 candidates, which are halved"
            )
    cluster = _clusters(groups, len(arrays[names[0]]))
    rng = np.random.default_rng(0) if rng is None else rng
    pairs = list(combinations(range(len(names)), 2))
    between, within = _halved(list(arrays.values()), pairs, splits, rng)
    baseline = np.stack([(within[a] + within[b]) / 2 for a, b in pairs])
    difference = between - baseline
    value, se = clustered_mean(difference.mean(0), cluster)
    clusters = len(np.unique(cluster))
    half = float(special.stdtrit(clusters - 1, 0.5 + level / 2)) * se if clusters > 1 else np.nan
    by_pair = {(names[a], names[b]): float(row.mean()) for (a, b), row in zip(pairs, difference, strict=True)}
    return Stability(value, value - half, value + half, float(between.mean()), float(baseline.mean()), by_pair)


@dataclass(frozen=True, slots=True, eq=False)
class Diversity:
    """How divided the answers to a prompt are, and where sharpening pushes the mean risk.

    ``p`` [P] is each prompt's mean judged outcome, NaN where none was judged; ``counts`` are the prompts between
    ``edges``. ``sharpening`` is the mean of majority_n(p_x) - p_x at these p, ``unbiased`` the same free of the
    noise in them, over prompts with enough judged outcomes (NaN where p was given); standard errors are
    clustered. ``sign`` says where sharpening pushes: 1 up, -1 down, 0 nowhere.
    """

    p: FloatArray
    edges: FloatArray
    counts: IntArray
    mean: float
    sharpening: Estimate
    unbiased: Estimate

    @property
    def sign(self) -> int:
        """Of ``unbiased``, or of ``sharpening`` where that is NaN."""
        return int(np.sign(self.sharpening.value if np.isnan(self.unbiased.value) else self.unbiased.value))


def diversity(
    outcome: npt.ArrayLike,
    n: int = 3,
    edges: npt.ArrayLike = FIFTHS,
    groups: npt.ArrayLike | None = None,
) -> Diversity:
    """The distribution of p_x = P(M = 1 | x) over prompts, and E[majority_n(p_x)] - E[p_x].

    majority_n(p) = P(B > n / 2) + P(B = n / 2) / 2, B ~ Binomial(n, p): the risk of the majority of n draws, ties
    at random. Any sharpening, a low temperature too, moves p_x away from 1/2. At an estimated p_x it is biased
    (toward none); ``unbiased`` takes n of the k judged outcomes without replacement (hypergeometric).

    Args:
        outcome: M [P, K], 1, 0 or NaN, or known p_x [P].
        n: draws of the majority, an integer >= 1.
        edges: of the histogram of p_x, within [0, 1].
        groups: cluster of each prompt, [P]; each its own where None.

    Raises:
        StudyError: outcomes that are no judgments, or none at all.
    """
    m, n = _judgments(outcome), count("diversity: n", n)
    if m.ndim not in (1, 2):
        raise StudyError(f"outcome has shape {m.shape}: M [prompts, samples], or p_x [prompts]")
    cluster = _clusters(groups, len(m))
    odd = n - 1 + n % 2  # an even number of draws with ties at random decides as one draw fewer does
    judged = np.isfinite(m) if m.ndim == 2 else np.isfinite(m)[:, None]
    k, ones = judged.sum(1), np.where(judged, m if m.ndim == 2 else m[:, None], 0.0).sum(1)
    p = np.divide(ones, k, out=np.full(len(m), np.nan), where=k > 0)
    there = k > 0
    if not there.any():
        raise StudyError("diversity: no outcome was judged")
    push = special.bdtrc(odd // 2, odd, p[there]) - p[there]
    unbiased = Estimate(np.nan, np.nan)
    if m.ndim == 2:
        if not np.isin(m[judged], (0, 1)).all():
            raise StudyError("outcome [prompts, samples] is 1, 0 or NaN; shares are given as p_x, [prompts]")
        enough = k >= odd
        if enough.any():
            from scipy import stats  # takes a while to import

            tail = stats.hypergeom.sf(odd // 2, k[enough], ones[enough].astype(int), odd)
            unbiased = clustered_mean(tail - p[enough], cluster[enough])
    counts, edges = np.histogram(p[there], np.asarray(edges, dtype=float))
    return Diversity(p, edges, counts, float(p[there].mean()), clustered_mean(push, cluster[there]), unbiased)


def _judgments(outcome: npt.ArrayLike) -> FloatArray:
    array = np.asarray(outcome, dtype=float)
    bad = (array < 0) | (array > 1)
    if bad.any():
        raise StudyError(f"{at('outcome', bad)} = {array[bad][0]} is no judgment: 1 misaligned, 0 not, NaN unknown")
    return array


def _clusters(groups: npt.ArrayLike | None, prompts: int) -> IntArray:
    labels = np.arange(prompts) if groups is None else np.asarray(groups)
    if labels.shape != (prompts,):
        raise StudyError(f"groups has shape {labels.shape} for {prompts} prompts: one cluster a prompt")
    return np.asarray(np.unique(labels, return_inverse=True)[1])


def _slope(u: FloatArray, m: FloatArray, of: IntArray) -> tuple[float, float]:
    """Least squares slope of m on u with its clustered standard error."""
    d = u - u.mean()
    slope = d @ m / (d @ d)
    score = np.bincount(of, d * (m - m.mean() - slope * d))
    clusters, n = len(np.unique(of)), len(u)
    if clusters < 2 or n < 3:
        return float(slope), float("nan")
    factor = clusters / (clusters - 1) * (n - 1) / (n - 2)
    return float(slope), float(np.sqrt(factor * (score**2).sum()) / (d @ d))


def _monotonicity(curve: FloatArray, size: IntArray, slope: float) -> tuple[float, float]:
    """Spearman's correlation over bins, and the R^2 of the monotone curve nearest to it, weighted by ``size``."""
    off = curve - np.average(curve, weights=size)
    if np.ptp(curve) < 1e-12:
        return float("nan"), float("nan")
    from scipy import optimize, stats  # take a while to import

    fit = optimize.isotonic_regression(curve, weights=size.astype(float), increasing=slope >= 0).x
    rank = stats.spearmanr(np.arange(len(curve)), curve).statistic
    return float(rank), float(1 - size @ (curve - fit) ** 2 / (size @ off**2))


def _table(**columns: npt.NDArray[np.generic]) -> pd.DataFrame:
    import pandas as pd  # takes a while to import

    return pd.DataFrame(columns)


def _within_prompts(answers: npt.NDArray[np.object_]) -> IntArray:
    """Answers [P, M] as 0, 1, ... anew in every row, so that no more are told apart than a prompt has."""
    import pandas as pd  # takes a while to import

    codes = pd.factorize(answers.ravel())[0].reshape(answers.shape)  # None is an answer too, -1
    order = codes.argsort(1)
    new = np.diff(np.take_along_axis(codes, order, axis=1), axis=1, prepend=-1) > 0
    rank = np.empty_like(codes)
    np.put_along_axis(rank, order, new.cumsum(1), axis=1)
    return np.asarray(rank)


def _halved(
    arrays: list[npt.NDArray[np.generic]], pairs: list[tuple[int, int]], splits: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """JS of halves, mean over ``splits``: of each pair of shifts, [pairs, P], and of each shift, [shifts, P]."""
    codes = _within_prompts(np.concatenate([array.astype(object) for array in arrays], axis=1))
    seen = np.split(np.eye(codes.max() + 1)[codes], np.cumsum([array.shape[1] for array in arrays])[:-1], axis=1)
    size = min(array.shape[1] for array in arrays) // 2
    between, within = np.zeros((len(pairs), len(codes))), np.zeros((len(arrays), len(codes)))
    for _ in range(splits):
        halves = []
        for one in seen:
            mixed = np.take_along_axis(one, rng.random(one.shape[:2]).argsort(1)[:, :, None], axis=1)
            halves.append((mixed[:, :size].mean(1), mixed[:, size : 2 * size].mean(1)))
        within += np.stack([js(*half) for half in halves])
        between += np.stack([(js(halves[a][0], halves[b][0]) + js(halves[a][1], halves[b][1])) / 2 for a, b in pairs])
    return between / splits, within / splits
