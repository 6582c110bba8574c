"""Variance components of balanced data from expected mean squares: closed form, unbiased, possibly negative.

Source: Searle, Casella, McCulloch 1992, chapter 4 (analysis of variance estimators); Tjur 1984 (which groupings make an
orthogonal design); Ting, Burdick, Graybill, Jeyaratnam, Lu 1990 (modified large-sample limits).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

from ablate.api import FloatArray
from ablate.effects.block import BoolArray
from ablate.effects.frames import Factor
from ablate.errors import StudyError

HOW = "use method='reml'"


class Strata(NamedTuple):
    """Degrees of freedom and mean square of each term, coarsest first, the residual last; which term lies in which.

    ``inside[i, j]`` is whether every level of term j lies in one level of term i.
    """

    names: list[str]
    df: FloatArray
    mean_square: FloatArray
    inside: BoolArray


class Components(NamedTuple):
    """Variances with limits, random terms in order and the residual last."""

    variance: FloatArray
    low: FloatArray
    high: FloatArray
    strata: Strata


def expected_mean_squares(y: FloatArray, fixed: Mapping[str, Factor], random: Mapping[str, Factor]) -> Components:
    """The components of ``y`` [n] that make every random term's mean square equal its expectation.

    E MS_T = sum of (rows in a level of U) * variance_U over the random terms U that are T or lie in T, + the residual
    variance. Fixed terms take their degrees of freedom and nothing else: effects of random levels are not assumed to
    sum to zero over a fixed factor, as in likelihood methods and SAS.

    Raises:
        StudyError: levels with unequal numbers of rows, groupings that are neither nested nor crossed in equal numbers,
            shared differences that belong to no term, no degrees of freedom.
    """
    terms = {**fixed, **random}
    strata = _strata(y, terms)
    position = {name: i for i, name in enumerate(strata.names)}
    of_random = [position[name] for name in random]
    size = np.array([len(y) / factor.size for factor in random.values()])
    expectation = np.ones((len(random) + 1, len(random) + 1))
    expectation[:-1, :-1] = strata.inside[np.ix_(of_random, of_random)] * size
    expectation[-1, :-1] = 0
    weights = np.linalg.inv(expectation)
    used = [*of_random, -1]
    mean_square, df = strata.mean_square[used], strata.df[used]
    low, high = limits(weights, mean_square, df)
    return Components(weights @ mean_square, low, high, strata)


def limits(weights: FloatArray, mean_square: FloatArray, df: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95% limits of the sums ``weights`` [sums, terms] @ E mean squares, for independent chi-square mean squares.

    Modified large-sample limits: exact for a single mean square, nearly so for sums and differences of several, where
    Satterthwaite's approximation fails. A limit below 0 is left as it is, as is a negative estimate.
    """
    alpha = 0.025
    positive, negative = np.maximum(weights, 0) * mean_square, np.maximum(-weights, 0) * mean_square
    upper, lower = df / special.chdtri(df, alpha), df / special.chdtri(df, 1 - alpha)
    g, h = 1 - upper, lower - 1
    one, other = df[:, None], df[None, :]
    f_up, f_low = special.fdtri(one, other, 1 - alpha), special.fdtri(one, other, alpha)
    mixed_low = ((f_up - 1) ** 2 - g[:, None] ** 2 * f_up**2 - h**2) / f_up
    mixed_high = ((1 - f_low) ** 2 - h[:, None] ** 2 * f_low**2 - g**2) / f_low
    both = one + other
    joint = (1 - both / special.chdtri(both, alpha)) ** 2 * both**2 / (one * other)
    joint = np.triu(joint - g[:, None] ** 2 * one / other - g**2 * other / one, 1)

    def reach(
        plus: FloatArray, minus: FloatArray, mixed: FloatArray, toward: FloatArray, away: FloatArray
    ) -> FloatArray:
        several = np.maximum((plus > 0).sum(axis=1) - 1, 1)
        square = (plus * toward) ** 2 @ np.ones(len(df)) + (minus * away) ** 2 @ np.ones(len(df))
        square += np.einsum("cq,qr,cr->c", plus, mixed, minus) + np.einsum("cq,qt,ct->c", plus, joint, plus) / several
        return np.sqrt(np.maximum(square, 0))

    estimate = weights @ mean_square
    low = estimate - reach(positive, negative, mixed_low, g, h)
    high = estimate + reach(negative, positive, mixed_high.T, g, h)
    return low, high


def _strata(y: FloatArray, terms: Mapping[str, Factor]) -> Strata:
    n = len(y)
    names = sorted(terms, key=lambda name: terms[name].size)
    for name in names:
        counts = terms[name].counts
        if counts.min() != counts.max():
            raise StudyError(
                f"the data are not balanced: levels of '{name}' have {counts.min()} to {counts.max()} rows, and "
                f"expected mean squares need the same number in each; {HOW}"
            )
    inside = np.eye(len(names), dtype=bool)
    for j, fine in enumerate(names):
        for i, coarse in enumerate(names[:j]):
            inside[i, j] = _nested(coarse, fine, terms)
    df, squares = np.zeros(len(names) + 1), np.zeros(len(names) + 1)
    parts: list[FloatArray] = []
    rest = y - y.mean()
    for j, name in enumerate(names):
        factor, above = terms[name], inside[:j, j]
        df[j] = factor.size - 1 - df[:j][above].sum()
        if df[j] < 1:
            raise StudyError(f"'{name}' has no degrees of freedom beyond the terms that it is nested in")
        means = np.bincount(factor.codes, weights=y - y.mean()) / factor.counts
        part = means[factor.codes] - sum(parts[i] for i in np.flatnonzero(above))
        parts.append(part)
        rest, squares[j] = rest - part, part @ part
    df[-1], squares[-1] = n - 1 - df.sum(), rest @ rest
    if df[-1] < 1:
        raise StudyError(f"no residual degrees of freedom: the terms take all {n - 1} that {n} rows have")
    return Strata([*names, "residual"], df, squares / df, inside)


def _nested(coarse: str, fine: str, terms: Mapping[str, Factor]) -> bool:
    """Whether ``fine`` lies in ``coarse``; crossed in equal numbers is the only other thing it may be."""
    from scipy import sparse
    from scipy.sparse import csgraph

    a, b = terms[coarse], terms[fine]
    met = sparse.coo_array((np.ones(len(a.codes)), (a.codes, b.codes)), shape=(a.size, b.size))
    met.sum_duplicates()
    if met.nnz == b.size:
        if a.size == b.size:
            raise StudyError(f"'{coarse}' and '{fine}' group the rows identically: leave one of them out")
        return True
    # Levels that meet, directly or through others, form islands: the groupings are crossed within each.
    islands, label = csgraph.connected_components(sparse.block_array([[None, met], [met.T, None]]), directed=False)
    island = label[: a.size]
    wide, long = np.bincount(island), np.bincount(label[a.size :])
    rows = np.bincount(island, weights=a.counts)
    if met.nnz != wide @ long or (met.data != (rows / (wide * long))[island[met.row]]).any():
        raise StudyError(
            f"the data are not balanced: '{coarse}' and '{fine}' are neither nested nor crossed with the same number "
            f"of rows in every combination; {HOW}"
        )
    shared = island[a.codes]
    known = any(
        factor.size == islands and len(np.unique(factor.codes * islands + shared)) == islands
        for factor in terms.values()
    )
    if islands > 1 and not known:
        raise StudyError(
            f"'{coarse}' and '{fine}' share differences between {islands} groups of rows that belong to no term: add "
            f"what they have in common as a term, or {HOW}"
        )
    return False
