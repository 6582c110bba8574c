"""Long data frames: which rows a model can use, which columns its terms name, and how their levels are counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd

from ablate.api import FloatArray, IntArray
from ablate.errors import StudyError, did_you_mean

Term = tuple[str, ...]
"""The columns whose combinations are the levels of a term: ("a",) or, for an interaction, ("a", "b")."""


@dataclass(frozen=True, eq=False)
class Factor:
    """The level of each row, [n], and the labels of each level, one for each column of the term."""

    codes: IntArray
    levels: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """How many levels there are."""
        return len(self.levels)

    @property
    def counts(self) -> IntArray:
        """Rows of each level."""
        return np.bincount(self.codes, minlength=self.size)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows whose response is there, as ``pivot`` + ``unit`` * ``y``; ``dropped`` had none.

    ``y`` is free of rounding where the response holds decimal numbers of up to 15 digits (see `_pivoted`), however many
    of them all rows have in common; ``rounding`` is the rounding error of ``y`` to expect.
    """

    frame: pd.DataFrame
    y: FloatArray
    pivot: float
    unit: float
    rounding: float
    dropped: int

    def factor(self, term: Term) -> Factor:
        """The levels of a term that occur; labels are sorted, or in the order of a categorical.

        Raises:
            StudyError: a row without a label.
        """
        columns = [self._labels(column) for column in term]
        if len(columns) == 1:
            return columns[0]
        shape = tuple(column.size for column in columns)
        cells, codes = np.unique(np.ravel_multi_index([c.codes for c in columns], shape), return_inverse=True)
        index = zip(*np.unravel_index(cells, shape), strict=True)
        levels = tuple(tuple(c.levels[i][0] for c, i in zip(columns, at, strict=True)) for at in index)
        return Factor(codes, levels)

    def is_numeric(self, column: str) -> bool:
        """Whether a column holds numbers (not booleans, nor labels that look like numbers)."""
        series = self.frame[column]
        return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)

    def numbers(self, column: str) -> FloatArray:
        """A numeric column, [n].

        Raises:
            StudyError: a row without a finite number.
        """
        values = _numbers(self.frame[column], column)
        if not np.isfinite(values).all():
            raise StudyError(f"column '{column}' has {(~np.isfinite(values)).sum()} missing or infinite numbers")
        return values

    def _labels(self, column: str) -> Factor:
        values = pd.Categorical(self.frame[column]).remove_unused_categories()
        codes = np.asarray(values.codes, dtype=np.intp)
        if (codes < 0).any():
            count, first = (codes < 0).sum(), self.frame.index[codes < 0][0]
            raise StudyError(f"column '{column}' has no label in {count} of {len(codes)} rows (first: row {first})")
        return Factor(codes, tuple((str(label),) for label in values.categories))


def usable(frame: pd.DataFrame, response: str, columns: Iterable[str]) -> Rows:
    """The rows with a response, after a check of all named columns.

    Raises:
        StudyError: an unknown or doubled column; a response that is no number, infinite, missing everywhere
            or constant.
    """
    columns = list(dict.fromkeys(columns))
    for name in (response, *columns):
        _check_column(frame, name)
    if response in columns:
        raise StudyError(f"'{response}' is the response and cannot be a term too")
    y = _numbers(frame[response], response)
    if np.isinf(y).any():
        first = frame.index[np.isinf(y)][0]
        raise StudyError(f"response '{response}' is infinite in {np.isinf(y).sum()} rows (first: row {first})")
    there = ~np.isnan(y)
    if not there.any():
        raise StudyError(f"response '{response}' has no value in any of {len(y)} rows")
    y = y[there]
    if y.min() == y.max():
        raise StudyError(f"response '{response}' is constant ({y[0]:g} in all {len(y)} rows): nothing to take apart")
    return Rows(frame.loc[there, columns], *_pivoted(y), int((~there).sum()))


def parse(names: Sequence[str] | str, frame: pd.DataFrame) -> list[Term]:
    """Terms such as "a" or "a:b" as columns; a column that is itself called "a:b" is that column.

    Raises:
        StudyError: a term or a column of a term that is named twice.
    """
    names = [names] if isinstance(names, str) else list(names)
    terms = [
        (name,) if name in frame.columns else tuple(part.strip() for part in str(name).split(":")) for name in names
    ]
    for i, term in enumerate(terms):
        if len(set(term)) < len(term):
            raise StudyError(f"term '{names[i]}' names a column twice")
        if any(set(term) == set(other) for other in terms[:i]):
            raise StudyError(f"term '{names[i]}' is there twice")
    return terms


def wording(term: Term) -> str:
    """A term as it is written: "a:b"."""
    return ":".join(term)


def listing(words: Sequence[str], shown: int = 5) -> str:
    """The first words, and how many more there are."""
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more


def _check_column(frame: pd.DataFrame, name: str) -> None:
    found = list(frame.columns).count(name)
    if found == 1:
        return
    if found:
        raise StudyError(f"{found} columns are called '{name}'")
    if name in frame.index.names:
        raise StudyError(f"'{name}' is in the index, not a column: use frame.reset_index()")
    hint = did_you_mean(str(name), map(str, frame.columns)) or f"; there are {listing(list(map(str, frame.columns)))}"
    raise StudyError(f"no column '{name}'{hint}")


def _numbers(series: pd.Series, name: str) -> FloatArray:
    if series.dtype == object:
        fits = all(isinstance(value, (Real, Decimal)) for value in series.dropna())
    else:
        fits = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_complex_dtype(series)
    if not fits:
        raise StudyError(f"column '{name}' must hold numbers, not {pd.api.types.infer_dtype(series, skipna=True)}")
    return np.asarray(series.to_numpy(dtype=float, na_value=np.nan))


def _pivoted(response: FloatArray) -> tuple[FloatArray, float, float, float]:
    """y, pivot, unit and rounding of `Rows`.

    A double that was read from "1000000000000.4" is off by up to 6e-5, and the difference of two is off by as much. But
    the decimal number is known: where every value is the double nearest to an integer times 10^-digits, these integers
    are below 2^53 and their differences are exact. Other values are centered as they are.
    """
    largest, rounding = np.abs(response).max(), np.finfo(float).eps
    for digits in range(23):
        power = 10.0**digits
        if largest * power >= 2.0**53:
            break
        integers = np.rint(response * power)
        if (integers / power == response).all():
            middle = np.rint(np.median(integers))
            y = integers - middle
            return y, float(middle / power), 1 / power, float(rounding * np.abs(y).max())
    pivot = float(np.median(response))
    return response - pivot, pivot, 1.0, float(rounding * largest)
