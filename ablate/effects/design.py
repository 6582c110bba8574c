"""The fixed effects of a linear model as columns: treatment coding, aliasing refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ablate.api import FloatArray
from ablate.effects.frames import Rows, Term, listing
from ablate.errors import StudyError

INTERCEPT = "Intercept"
ALIASED = 1e-10
"""A column is aliased where less than this part of its length points away from the columns before it."""


@dataclass(frozen=True, eq=False)
class Design:
    """Columns X = q @ r, [n, p], with q orthonormal and r upper triangular; ``names`` as patsy writes them.

    ``terms`` are those that were asked for and the terms that they contain.
    """

    names: tuple[str, ...]
    terms: tuple[Term, ...]
    q: FloatArray
    r: FloatArray

    @classmethod
    def of(cls, rows: Rows, terms: Sequence[Term]) -> Design:
        """Intercept and terms: a numeric column is a covariate, any other a factor without its first level.

        An interaction brings along the terms that it contains, so that "a:b" alone spans the cells. R and patsy may
        choose other columns for it, but the change between them has determinant +-1, which REML does not notice.

        Raises:
            StudyError: a factor with one level; aliased columns, by name; no row left for the residual.
        """
        names, columns = [INTERCEPT], [np.ones((len(rows.y), 1))]
        coded = {column: _coded(rows, column) for term in terms for column in term}
        parts = _contained(rows, terms)
        for part in parts:
            words, block = [""], columns[0]
            for column in part:
                words = [f"{word}:{one}" if word else one for word in words for one in coded[column][0]]
                block = (block[:, :, None] * coded[column][1][:, None, :]).reshape(len(block), -1)
            names += words
            columns.append(block)
        x = np.hstack(columns)
        n, p = x.shape
        if p >= n:
            raise StudyError(f"no residual degrees of freedom: {p} fixed effects in {n} rows")
        q, r = np.linalg.qr(x)
        length = np.linalg.norm(x, axis=0)
        if (np.abs(np.diag(r)) <= ALIASED * length).any():
            raise StudyError(f"fixed effects are aliased with those before them: {listing(_aliased(x, names))}")
        return cls(tuple(names), tuple(parts), q, r)

    def center(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """The least-squares residuals of the rows' ``y`` and its coefficients on q.

        Raises:
            StudyError: nothing is left but rounding.
        """
        first = self.q.T @ rows.y
        rest = rows.y - self.q @ first
        second = self.q.T @ rest  # removes what rounding left of the first pass
        rest = rest - self.q @ second
        if np.abs(rest).max() <= 10 * rows.rounding:
            raise StudyError("the fixed effects fit every row exactly: no variance is left to take apart")
        return rest, first + second

    def coefficients(self, beta: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients on q and their covariance, as those on X."""
        inverse = np.linalg.inv(self.r)
        return inverse @ beta, inverse @ covariance @ inverse.T

    @property
    def log_det(self) -> float:
        """log|X'X|."""
        return float(2 * np.log(np.abs(np.diag(self.r))).sum())


def _contained(rows: Rows, terms: Sequence[Term]) -> list[Term]:
    """The terms and those that they contain, small ones first; a covariate stays in what contains it."""
    found: dict[frozenset[str], Term] = {}
    for term in terms:
        factors = [column for column in term if not rows.is_numeric(column)]
        for size in range(len(factors), -1, -1):
            for left_out in combinations(factors, size):
                part = tuple(column for column in term if column not in left_out)
                found.setdefault(frozenset(part), part)
    return [part for part in found.values() if part]


def _coded(rows: Rows, column: str) -> tuple[list[str], FloatArray]:
    if rows.is_numeric(column):
        return [column], rows.numbers(column)[:, None]
    factor = rows.factor((column,))
    if factor.size < 2:
        raise StudyError(f"fixed effect '{column}' has one level, so it is aliased with the intercept")
    return [f"{column}[T.{label}]" for (label,) in factor.levels[1:]], np.eye(factor.size)[:, 1:][factor.codes]


def _aliased(x: FloatArray, names: Sequence[str]) -> list[str]:
    kept, found = np.zeros((len(x), 0)), []
    for column, name in zip(x.T, names, strict=True):
        rest = column - kept @ (kept.T @ column)
        rest -= kept @ (kept.T @ rest)
        if (left := np.linalg.norm(rest)) <= ALIASED * np.linalg.norm(column):
            found.append(name)
        else:
            kept = np.column_stack([kept, rest / left])
    return found
