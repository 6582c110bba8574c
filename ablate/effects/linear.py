"""Analysis of variance of long data frames: factorial sums of squares, and within-subject tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from ablate.api import FloatArray, IntArray
from ablate.effects.frames import Factor, Rows, Term, listing, parse, usable, wording
from ablate.errors import StudyError

ERROR = "error"
ALIASED = 1e-9
"""A column is aliased where less than this part of its length points away from the other columns."""
ROUNDING = 1e-26
"""A sum of squares below this part of the total is rounding, and stands as 0."""


def ss(frame: pd.DataFrame, response: str, factors: Sequence[str], type: Literal[1, 2, 3] = 1) -> pd.DataFrame:
    """Sums of squares of the factorial model: sequential (1), each after what does not contain it (2), or partial (3).

    - Type 1: each term after those before it: the factors in their order, then the interactions. The order matters.
    - Type 2 (Yates): each term after all terms that do not contain it.
    - Type 3: each term after all others, under sum-to-zero coding, which compares unweighted means of cells. No cell
      may be empty.

    Args:
        frame: one row for each observation; those without a response are left out and counted in ``attrs``.
        response: a numeric column.
        factors: columns, each taken as labels whatever its type, fully crossed; if interactions are among them
            (["a", "b", "a:b"]) exactly these terms, in this order.
        type: 1, 2 or 3.

    Returns:
        One row a term and a last one, "error": ``term``, ``ss``, ``df``, ``ms`` = ss / df, ``F`` = ms / error ms, and
        ``p``, from F(df, error df); F and p are NaN without degrees of freedom for the error. ``attrs``: ``type``,
        ``n`` rows used, ``dropped``.

    Raises:
        StudyError: an unusable response or column, a factor with one level, an interaction without its factors, a term
            that empty cells leave nothing of; for type 3 any empty cell, with the terms that it takes away.

    Numerically: decimal responses are shifted by whole digits, without rounding (`ablate.effects.frames`); cells are
    averaged first; a sum of squares is the length of a projection, never a difference of sums.

    Source: Searle 1971, Linear Models, chapters 7 and 8; Speed, Hocking, Hackney 1978 (what the types test).
    """
    if type not in (1, 2, 3):
        raise StudyError(f"type {type!r} is none of 1, 2, 3")
    terms = _factorial(parse(factors, frame))
    rows = usable(frame, response, [column for term in terms for column in term])
    cells = _Cells.of(rows, terms)
    if type == 3 and cells.basis(terms).shape[1] < 1 + sum(cells.columns[term].shape[1] for term in terms):
        raise StudyError(_empty(cells))
    squares, df = np.zeros(len(terms) + 1), np.zeros(len(terms) + 1, dtype=int)
    for i, term in enumerate(terms):
        given = cells.basis(_given(term, terms, type))
        own = _basis(cells.columns[term], given)
        if own.shape[1] == 0:
            raise StudyError(f"'{wording(term)}' cannot be told from the terms before it: too many cells are empty")
        part = own.T @ _outside(cells.means, given)
        squares[i], df[i] = part @ part, own.shape[1]
    model = cells.basis(terms)
    df[-1] = len(rows.y) - model.shape[1]
    # With a parameter for every cell the model fits the means of the cells: nothing is left of them but rounding.
    lack = _outside(cells.means, model) if model.shape[1] < len(cells.means) else np.zeros(1)
    squares[-1] = cells.within + lack @ lack
    centered = _outside(cells.means, cells.basis([]))
    squares[squares < ROUNDING * (cells.within + centered @ centered)] = 0
    ms, f, p = _tested(squares, df, squares[-1:], df[-1:])
    f[-1] = p[-1] = np.nan
    unit = rows.unit**2
    table = pd.DataFrame(
        {"term": [*map(wording, terms), ERROR], "ss": squares * unit, "df": df, "ms": ms * unit, "F": f, "p": p}
    )
    table.attrs = {"type": type, "n": len(rows.y), "dropped": rows.dropped}
    return table


def anova(frame: pd.DataFrame, response: str, within: Sequence[str], subject: str) -> pd.DataFrame:
    """Within-subject (repeated measures) analysis of variance: each effect against its interaction with subjects.

    Model: response ~ all factors of ``within``, crossed, with ``subject`` random and crossed with them. The error term
    of an effect is effect x subject, so that its test is one about subjects that were not observed; no effect is tested
    against a residual pooled over subjects.

    Args:
        frame: one row of every subject in every combination of levels; rows without a response are left out.
        response: a numeric column.
        within: one or more columns, each taken as labels.
        subject: the column that names the subjects, for instance organisms.

    Returns:
        One row for each factor and interaction: ``term``, ``ss``, ``df``, ``ms``, ``error_df`` = df (subjects - 1),
        ``F``, ``p`` (assumes sphericity where df > 1), and two effect sizes, where T is the term, E its error and S
        stands for subjects:

        - ``omega2p``: partial omega squared for within-subject designs, df (ms_T - ms_E) / (ss_T + ss_E + ss_S +
          ms_S), which may be negative. Source: Olejnik & Algina 2000; Lakens 2013.
        - ``ges``: generalized eta squared, ss_T / (ss_T + ss_S + the sum of all ss_E). Source: Olejnik & Algina 2003;
          Bakeman 2005.

        ``attrs``: ``subjects``, ``n`` rows used, ``dropped`` rows.

    Raises:
        StudyError: an unusable response or column, fewer than two subjects, a factor with one level, a missing cell,
            several rows in one cell, which may be replicates to average, a factor that was not named, or copies.
    """
    factors = [wording(term) for term in parse(within, frame)]
    if not factors or subject in factors:
        raise StudyError(f"within: name at least one factor, and not the subject '{subject}'")
    rows = usable(frame, response, [subject, *factors])
    levels = {column: rows.factor((column,)) for column in (subject, *factors)}
    if levels[subject].size < 2:
        raise StudyError(f"subject '{subject}' has one level: at least 2 subjects are needed")
    _several({column: levels[column] for column in factors})
    cube = _cube(rows, levels)
    scores = {term: _scores(cube, factors, term) for term in [(), *_factorial([(factor,) for factor in factors])]}
    effect = np.array([len(part) * part.mean(axis=0) @ part.mean(axis=0) for part in scores.values()])
    error = np.array([((part - part.mean(axis=0)) ** 2).sum() for part in scores.values()])
    df = np.array([part.shape[1] for part in scores.values()])
    total = effect[1:].sum() + error.sum()
    effect[effect < ROUNDING * total], error[error < ROUNDING * total] = 0, 0
    # The first entry belongs to the subjects' means: its "error" is their variation.
    subjects, subject_ms = error[0], error[0] / (levels[subject].size - 1)
    effect, error, df = effect[1:], error[1:], df[1:]
    error_df = df * (levels[subject].size - 1)
    ms, f, p = _tested(effect, df, error, error_df)
    table = pd.DataFrame(
        {
            "term": [wording(term) for term in scores if term],
            "ss": effect * rows.unit**2,
            "df": df,
            "ms": ms * rows.unit**2,
            "error_df": error_df,
            "F": f,
            "p": p,
            "omega2p": df * (ms - error / error_df) / (effect + error + subjects + subject_ms),
            "ges": effect / (effect + subjects + error.sum()),
        }
    )
    table.attrs = {"subjects": levels[subject].size, "n": len(rows.y), "dropped": rows.dropped}
    return table


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells that have rows, each weighted by the root of its rows: their means and the columns of every term.

    ``within`` is the sum of squares about the means; ``at`` is the level of each cell, by factor.
    """

    weights: FloatArray
    means: FloatArray
    within: float
    columns: Mapping[Term, FloatArray]
    levels: Mapping[str, Factor]
    at: Mapping[str, IntArray]

    @classmethod
    def of(cls, rows: Rows, terms: Sequence[Term]) -> _Cells:
        levels = {column: rows.factor((column,)) for column in dict.fromkeys(c for term in terms for c in term)}
        _several(levels)
        cells = rows.factor(tuple(levels))
        count = cells.counts
        means = np.bincount(cells.codes, rows.y) / count
        rest = rows.y - means[cells.codes]
        means += (more := np.bincount(cells.codes, rest) / count)  # what rounding took from the sums
        rest -= more[cells.codes]
        one = np.empty(cells.size, dtype=np.intp)
        one[cells.codes] = np.arange(len(rows.y))
        at = {column: factor.codes[one] for column, factor in levels.items()}
        weights = np.sqrt(count)
        columns = {}
        for term in terms:
            columns[term] = weights[:, None]
            for column in term:
                part = _contrasts(levels[column].size)[at[column]]
                columns[term] = (columns[term][:, :, None] * part[:, None, :]).reshape(cells.size, -1)
        return cls(weights, weights * means, float(rest @ rest), columns, levels, at)

    def basis(self, terms: Sequence[Term]) -> FloatArray:
        """An orthonormal basis of the intercept and the columns of the terms."""
        return _basis(np.hstack([self.weights[:, None], *(self.columns[term] for term in terms)]))


def _factorial(terms: Sequence[Term]) -> list[Term]:
    if not terms:
        raise StudyError("factors: name at least one")
    if max(map(len, terms)) == 1:
        columns = [column for (column,) in terms]
        return [term for order in range(1, len(columns) + 1) for term in combinations(columns, order)]
    known = {frozenset(term) for term in terms}
    for term in terms:
        for part in combinations(term, len(term) - 1):
            if part and frozenset(part) not in known:
                raise StudyError(f"'{wording(term)}' contains '{wording(part)}', which is not among the terms")
    return list(terms)


def _given(term: Term, terms: Sequence[Term], type: int) -> list[Term]:
    """The terms after which a term is measured."""
    if type == 1:
        return list(terms[: terms.index(term)])
    return [other for other in terms if other != term and (type == 3 or not set(term) < set(other))]


def _several(levels: Mapping[str, Factor]) -> None:
    for column, factor in levels.items():
        if factor.size < 2:
            raise StudyError(f"factor '{column}' has one level ('{factor.levels[0][0]}'): it needs at least 2")


def _empty(cells: _Cells) -> str:
    factors = list(cells.levels)
    there = set(zip(*(cells.at[factor].tolist() for factor in factors), strict=True))
    cube = list(product(*(range(cells.levels[factor].size) for factor in factors)))
    empty = [dict(zip(factors, cell, strict=True)) for cell in cube if cell not in there]

    def named(cell: Mapping[str, int], term: Sequence[str], glue: str) -> str:
        return glue.join(cells.levels[factor].levels[cell[factor]][0] for factor in term)

    gone = [
        f"{wording(term)} at {listing(list(dict.fromkeys(named(cell, term, ':') for cell in empty)))}"
        for term in cells.columns
    ]
    return (
        f"type 3 needs rows in every cell of {' x '.join(factors)}, and {len(empty)} of {len(cube)} have none: "
        f"{listing([named(cell, factors, ' x ') for cell in empty])}. Not estimable: {'; '.join(gone)}. Types 1 and 2 "
        "do without these cells"
    )


def _cube(rows: Rows, levels: Mapping[str, Factor]) -> FloatArray:
    """The response of every cell, [subject, factors]; refuses a cell without a row and one with several."""
    shape = tuple(factor.size for factor in levels.values())
    index = np.ravel_multi_index([factor.codes for factor in levels.values()], shape)
    count = np.bincount(index, minlength=int(np.prod(shape))).reshape(shape)

    def wrong(such: npt.NDArray[np.bool_], have: str) -> str:
        cells = [
            " x ".join(factor.levels[i][0] for factor, i in zip(levels.values(), cell, strict=True))
            for cell in np.argwhere(such)
        ]
        return f"{len(cells)} of {count.size} cells of {' x '.join(levels)} have {have}: {listing(cells)}"

    if not count.all():
        raise StudyError(
            f"{wrong(count == 0, 'no response')}. Every subject needs every cell: leave out the subjects that lack one"
        )
    if count.max() > 1:
        raise StudyError(
            f"{wrong(count > 1, 'several rows')}. Leave out copies, name the factor that tells the rows apart, or "
            f"average replicates first: frame.groupby({list(levels)}, as_index=False).mean(numeric_only=True)"
        )
    return rows.y[np.argsort(index)].reshape(shape)


def _scores(cube: FloatArray, factors: Sequence[str], term: Term) -> FloatArray:
    """Orthonormal contrasts of the term within each subject, [subject, df]; averages over the other factors."""
    scores = cube
    for factor, size in zip(factors, cube.shape[1:], strict=True):
        matrix = _contrasts(size) if factor in term else np.full((size, 1), size**-0.5)
        scores = np.tensordot(scores, matrix, (1, 0))  # takes the factor's axis from the front to the end
    return scores.reshape(len(cube), -1)


def _tested(
    effect: FloatArray, df: IntArray, error: FloatArray, error_df: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean squares, F and p. F is infinite where only the error is 0, NaN where both are or there is no error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ms = effect / df
        f = ms / (error / error_df)
    return ms, f, np.where(np.isposinf(f), 0.0, special.fdtrc(df, error_df, f))


def _contrasts(size: int) -> FloatArray:
    """Orthonormal columns that sum to zero, [size, size - 1]."""
    return np.asarray(np.linalg.qr(np.eye(size)[:, 1:] - 1 / size)[0])


def _basis(columns: FloatArray, given: FloatArray | None = None) -> FloatArray:
    """An orthonormal basis of the columns, or of what they have beyond the columns of ``given``, orthonormal too."""
    from scipy.linalg import qr

    rest = columns if given is None else _outside(columns, given)
    q, r, _ = qr(rest, mode="economic", pivoting=True)
    return np.asarray(q[:, np.abs(np.diag(r)) > ALIASED * np.linalg.norm(columns, axis=0).max()])


def _outside(columns: FloatArray, given: FloatArray) -> FloatArray:
    # Twice is enough: the second projection removes what rounding left in the first.
    rest = columns - given @ (given.T @ columns)
    return np.asarray(rest - given @ (given.T @ rest))
