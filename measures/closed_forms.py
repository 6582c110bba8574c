"""Divergences of distributions over finitely many answers, and what a selection costs in them; exact, in nats."""

from __future__ import annotations

import operator
from itertools import chain, combinations
from math import comb, log
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from scipy import special

from ablate.api import FloatArray
from ablate.errors import StudyError

TOLERANCE = 1e-9
"""How far the sum of a distribution may be from 1."""

TABLES = 500_000
"""Tables of counts that `majority` enumerates at most: 16 draws of 8 answers give 245,157."""


class Selected(NamedTuple):
    """A distribution after selection, [V], and its divergence from the one that was selected from."""

    q: FloatArray
    kl: float


class Filtered(NamedTuple):
    """A distribution restricted to what a filter keeps, [V]; ``kl`` is -log of the coverage, the mass kept."""

    q: FloatArray
    kl: float
    coverage: float


def kl(q: npt.ArrayLike, p: npt.ArrayLike) -> Any:
    """Kullback-Leibler divergence D(q || p) = sum_y q(y) log(q(y) / p(y)), with 0 log 0 = 0.

    Args:
        q: probabilities [..., V].
        p: probabilities [..., V]; leading axes are broadcast.

    Returns:
        Nats: a float, or an array over the leading axes.

    Raises:
        StudyError: not distributions (negative, NaN, sum off by more than 1e-9, other shapes), or infinite.

    Source: Kullback and Leibler, 1951.
    """
    one, other = _both(q, p)
    _inside("kl: D(q || p)", one, other)
    return np.maximum(special.rel_entr(one, other).sum(-1), 0.0)


def js(q: npt.ArrayLike, p: npt.ArrayLike) -> Any:
    """Jensen-Shannon divergence (D(q || m) + D(p || m)) / 2 with m = (q + p) / 2; symmetric, in [0, log 2].

    Arguments, result and errors are those of `kl`, but it is never infinite. Source: Lin, 1991.
    """
    pair = np.broadcast_arrays(*_both(q, p))
    twice = pair[0] + pair[1]
    # 2 q / (q + p) and not q / m: the half of the smallest number is 0
    parts = [special.xlogy(one, np.divide(2 * one, twice, out=np.ones_like(one), where=one > 0)) for one in pair]
    return np.clip(0.5 * (parts[0] + parts[1]).sum(-1), 0.0, np.log(2))


def total_variation(q: npt.ArrayLike, p: npt.ArrayLike) -> Any:
    """Total variation distance, sum_y |q(y) - p(y)| / 2: the largest difference of the probability of any event."""
    one, other = _both(q, p)
    return 0.5 * np.abs(one - other).sum(-1)


def entropy(p: npt.ArrayLike) -> Any:
    """Shannon entropy -sum_y p(y) log p(y) of probabilities [..., V], in nats."""
    return special.entr(distribution("p", p)).sum(-1)


def cross_entropy(q: npt.ArrayLike, p: npt.ArrayLike) -> Any:
    """Cross entropy -sum_y q(y) log p(y) = entropy(q) + kl(q, p), in nats; StudyError where it is infinite."""
    one, other = _both(q, p)
    _inside("cross_entropy", one, other)
    return -special.xlogy(one, other).sum(-1)


@overload
def best_of_n(n: int) -> float: ...
@overload
def best_of_n(n: int, p: npt.ArrayLike, scores: npt.ArrayLike) -> Selected: ...
def best_of_n(n: int, p: npt.ArrayLike | None = None, scores: npt.ArrayLike | None = None) -> float | Selected:
    """The answer of the highest score among ``n`` independent draws: its distribution and divergence.

    With ``p`` and ``scores`` exact, ties broken at random: q(y) = p(y) (F^n - F_^n) / (F - F_), where F and F_
    are the probabilities under p of a score at most, and below, that of y. Without them the divergence where
    no two answers tie, log n - (n - 1) / n; for any p and scores it is an upper bound.

    Args:
        n: number of draws, an integer >= 1.
        p: probabilities [V] of the answers.
        scores: score [V] of each answer.

    Returns:
        ``Selected(q, kl)``; without ``p`` the bound alone, a float in nats.

    Source: order statistics; Beirami et al., Theoretical guarantees on the best-of-n alignment policy, 2024.
    """
    n = count("best_of_n: n", n)
    if p is None and scores is None:
        return float(np.log(n) - (n - 1) / n)
    if p is None or scores is None:
        raise StudyError("best_of_n: p and scores are given together, or neither for the bound log n - (n - 1) / n")
    before, score = _single("p", p), np.asarray(scores, dtype=float)
    if score.shape != before.shape:
        raise StudyError(f"best_of_n: scores has shape {score.shape}, p has {before.shape}: one score an answer")
    if np.isnan(score).any():
        raise StudyError(f"best_of_n: {at('scores', np.isnan(score))} is NaN: leave out answers without a score")
    tied = np.unique(score, return_inverse=True)[1]
    mass = np.bincount(tied, before)  # F - F_ of every distinct score
    upper = np.cumsum(mass) / mass.sum()
    share = np.divide(mass, upper, out=np.zeros_like(mass), where=mass > 0).clip(max=1.0)
    with np.errstate(divide="ignore"):  # log 0, where F_ is 0
        won = -(upper**n) * np.expm1(n * np.log1p(-share))  # F^n - F_^n without cancellation
    return _selected(before * np.divide(won, mass, out=np.zeros_like(mass), where=mass > 0)[tied], before)


def majority(p: npt.ArrayLike, n: int) -> Selected:
    """The answer that most of ``n`` independent draws from ``p`` give (plurality), ties broken at random.

    q(y) = sum over tables of counts c of Multinomial(c; n, p) [y is among the most frequent] / (their number),
    by enumeration of all tables.

    Args:
        p: probabilities [V] of the answers.
        n: number of draws, an integer >= 1.

    Returns:
        ``Selected(q, kl)``.

    Raises:
        StudyError: more than `TABLES` tables, besides what `kl` refuses.
    """
    n, before = count("majority: n", n), _single("p", p)
    possible = np.flatnonzero(before > 0)
    tables = comb(n + len(possible) - 1, n)
    if tables > TABLES:
        raise StudyError(
            f"majority: {n} draws of {len(possible)} answers give {tables:,} tables of counts, and at most {TABLES:,} "
            "are enumerated: take fewer draws, or join the rarest answers"
        )
    counts = _tables(n, len(possible), tables)
    log_chance = special.gammaln(n + 1) - special.gammaln(counts + 1).sum(1) + counts @ np.log(before[possible])
    most = counts == counts.max(1, keepdims=True)
    q = np.zeros_like(before)
    q[possible] = np.exp(log_chance) @ (most / most.sum(1, keepdims=True))
    return _selected(q, before)


def filtered(p: npt.ArrayLike, keep: npt.ArrayLike) -> Filtered:
    """A draw from ``p`` given that the filter keeps it: q = p [keep] / Z, with coverage Z and divergence -log Z.

    Args:
        p: probabilities [V].
        keep: booleans [V].

    Raises:
        StudyError: nothing of ``p`` is kept, so there is no distribution.
    """
    before, mask = _single("p", p), np.asarray(keep)
    if mask.dtype != bool or mask.shape != before.shape:
        raise StudyError(
            f"filtered: keep holds one True or False an answer, {before.shape}; this is {mask.dtype} {mask.shape}"
        )
    coverage = float(before[mask].sum() / before.sum())
    if coverage == 0:
        raise StudyError("filtered: no answer of positive probability is kept, so there is nothing to compare to p")
    return Filtered(np.where(mask, before, 0.0) / before[mask].sum(), max(-log(coverage), 0.0), coverage)


def reweighted(w: npt.ArrayLike, q: npt.ArrayLike) -> Selected:
    """Selection by weights: s = w q, with ``w`` scaled to E_q[w] = 1, and D(s || q) = E_q[w log w].

    Args:
        w: weights [V], nonnegative, of any scale.
        q: probabilities [V]; 1 / n each for the n draws of a sample.

    Returns:
        ``Selected(s, kl)``.
    """
    before, weight = _single("q", q), np.asarray(w, dtype=float)
    if weight.shape != before.shape:
        raise StudyError(f"reweighted: w has shape {weight.shape}, q has {before.shape}: one weight an answer")
    bad = ~((weight >= 0) & (weight < np.inf))
    if bad.any():
        raise StudyError(f"reweighted: {at('w', bad)} = {weight[bad][0]} is no weight: finite and >= 0")
    selected = before * weight
    if not selected.any():
        raise StudyError("reweighted: E_q[w] = 0, nothing is selected")
    return _selected(selected / selected.sum(), before)


def kl_gaussian(mu_q: float, var_q: float, mu_p: float, var_p: float) -> float:
    """D(N(mu_q, var_q) || N(mu_p, var_p)) = (var_q / var_p - 1 - log(var_q / var_p) + (mu_q - mu_p)^2 / var_p) / 2."""
    for name, value in (("var_q", var_q), ("var_p", var_p)):
        if not 0 < value < np.inf:
            raise StudyError(f"{name} = {value} is no variance: finite and > 0")
    ratio = var_q / var_p
    return float(0.5 * (ratio - 1 - np.log(ratio) + (mu_q - mu_p) ** 2 / var_p))


def distribution(name: str, values: npt.ArrayLike) -> FloatArray:
    """Probabilities [..., V] in double precision; StudyError where they are none."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise StudyError(f"{name}: probabilities [..., V] are needed, this has shape {array.shape}")
    bad = ~(array >= 0)
    if bad.any():
        raise StudyError(f"{at(name, bad)} = {array[bad][0]} is no probability")
    total = array.sum(-1)
    off = np.abs(total - 1) > TOLERANCE
    if off.any():
        which = at(name, off) if total.ndim else name
        raise StudyError(f"{which} sums to {total[off].flat[0]:.10g}, not to 1 within {TOLERANCE:g}: divide by the sum")
    return array


def at(name: str, bad: npt.NDArray[np.bool_]) -> str:
    """``name[i, j]`` of the first True."""
    return f"{name}[{', '.join(map(str, np.argwhere(bad)[0]))}]"


def count(name: str, n: int) -> int:
    """An integer >= 1."""
    try:
        whole = operator.index(n)
    except TypeError:
        raise StudyError(f"{name} = {n!r} is no integer") from None
    if whole < 1:
        raise StudyError(f"{name} = {n} is not >= 1")
    return whole


def _selected(q: FloatArray, p: FloatArray) -> Selected:
    return Selected(q, max(float(special.rel_entr(q, p).sum()), 0.0))


def _single(name: str, values: npt.ArrayLike) -> FloatArray:
    array = distribution(name, values)
    if array.ndim != 1:
        raise StudyError(f"{name}: one distribution [V] is needed, this has shape {array.shape}")
    return array


def _both(q: npt.ArrayLike, p: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, other = distribution("q", q), distribution("p", p)
    if one.shape[-1] != other.shape[-1]:
        raise StudyError(f"q is over {one.shape[-1]} answers and p over {other.shape[-1]}: align them first")
    try:
        np.broadcast_shapes(one.shape, other.shape)
    except ValueError:
        raise StudyError(f"q has shape {one.shape} and p {other.shape}: the leading axes do not fit") from None
    return one, other


def _inside(what: str, q: FloatArray, p: FloatArray) -> None:
    outside = (q > 0) & (p == 0)
    if outside.any():
        raise StudyError(
            f"{what} is infinite, because supp(q) is not inside supp(p): {at('q', outside)} = "
            f"{np.broadcast_to(q, outside.shape)[outside][0]:g} where p is 0; js(q, p) is finite"
        )


def _tables(n: int, answers: int, tables: int) -> npt.NDArray[np.int64]:
    """All counts of ``answers`` that sum to ``n``, [tables, answers]: stars and bars."""
    inner = combinations(range(n + answers - 1), answers - 1)
    bars = np.fromiter(chain.from_iterable(inner), np.int64, tables * (answers - 1)).reshape(tables, answers - 1)
    ends = (
        np.pad(bars, ((0, 0), (1, 0)), constant_values=-1),
        np.pad(bars, ((0, 0), (0, 1)), constant_values=n + answers - 1),
    )
    return ends[1] - ends[0] - 1
