"""Questions to a cube: a small filter language, SQL, and plain renderings of the answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from ablate.cube import STATUSES, items_frame, read, run_columns, runs_frame
from ablate.errors import StudyError, did_you_mean, printable

Level = str | float | bool
Levels = Mapping[str, Sequence[Level] | None]
"""The levels of every column: None where it holds measured numbers, none at all where it is free text."""

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Stat = Literal["mean", "median", "min", "max"]
Format = Literal["table", "csv", "json"]

START = re.compile(r"\s*([^=!<>]*?)\s*(!=|<=|>=|==|=|<|>)\s*")
NEXT_CONDITION = re.compile(r"\Aand\s+", re.IGNORECASE)
END_OF_VALUE = re.compile(r"\s*(,|\Z)|\s+and\s", re.IGNORECASE)
SHOWN = 40  # names in an error message
EXACT_DIGITS = 6  # numbers with at most so many decimals, a learning rate perhaps, are not rounded


@dataclass(frozen=True, slots=True)
class Condition:
    """``column`` stands to one of ``values`` as ``operator`` says."""

    column: str
    operator: Operator
    values: tuple[Level, ...]

    def holds(self, column: pd.Series[Any]) -> pd.Series[bool]:
        """Where it is true; a missing number fulfills no condition."""
        match self.operator:
            case "=":
                return column.isin(self.values)
            case "!=":
                return column.notna() & ~column.isin(self.values)
            case "<":
                return column < self.values[0]
            case "<=":
                return column <= self.values[0]
            case ">":
                return column > self.values[0]
            case ">=":
                return column >= self.values[0]


def parse(text: str, levels: Levels) -> list[Condition]:
    """Read conditions joined by ``and``: name, one of = != < <= > >=, and a value or (after = and !=) a comma list.

    A known level is recognized as it stands, with the commas, brackets and words inside it.

    Raises:
        StudyError: no such column or level, or nothing that can be read.
    """
    conditions: list[Condition] = []
    rest = text.strip()
    while True:
        start = START.match(rest)
        if not start or not start[1]:
            raise StudyError(f"where: cannot read '{rest}'; write name=value, name!=value or name<number")
        column, operator = start[1], cast(Operator, start[2].replace("==", "="))
        if column not in levels:
            raise _unknown("column", column, list(levels))
        token, rest = _token(rest[start.end() :], levels[column])
        tokens = [token]
        while rest.startswith(","):
            token, rest = _token(rest[1:].lstrip(), levels[column])
            tokens.append(token)
        conditions.append(_condition(column, operator, tokens, levels[column]))
        if not rest:
            return conditions
        rest = NEXT_CONDITION.sub("", rest, count=1)


def _token(rest: str, levels: Sequence[Level] | None) -> tuple[str, str]:
    """The next value and what follows it: a comma, ``and`` with the next condition, or nothing."""
    for level in sorted((level for level in levels or () if isinstance(level, str)), key=len, reverse=True):
        if level and rest.startswith(level) and END_OF_VALUE.match(rest, len(level)):
            return level, rest[len(level) :].lstrip()
    depth = 0
    for place, character in enumerate(rest):
        depth += (character in "([{") - (character in ")]}")
        if depth <= 0 and END_OF_VALUE.match(rest, place):
            return rest[:place], rest[place:].lstrip()
    return rest, ""


def _condition(column: str, operator: Operator, tokens: Sequence[str], levels: Sequence[Level] | None) -> Condition:
    if operator in ("=", "!="):
        values = [_number(column, token) if levels is None else _level(column, token, levels) for token in tokens]
        return Condition(column, operator, tuple(values))
    if levels is not None and not (levels and all(type(level) in (int, float) for level in levels)):
        raise StudyError(f"where: '{column}' is no number; it takes = and !=, not {operator}")
    if len(tokens) > 1:
        raise StudyError(f"where: {column} {operator} takes one number, not {', '.join(tokens)}")
    return Condition(column, operator, (_number(column, tokens[0]),))


def _number(column: str, token: str) -> float:
    try:
        number = float(token)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise StudyError(f"where: {column} is compared to numbers, and '{token}' is none")
    return number


def _level(column: str, token: str, levels: Sequence[Level]) -> Level:
    if not levels:
        return token
    texts = [str(level).lower() if isinstance(level, bool) else str(level) for level in levels]
    for level, text in zip(levels, texts, strict=True):
        if "".join(text.split()) == "".join(token.split()):  # spaces inside brackets do not matter
            return level
    if not isinstance(levels[0], str):
        try:
            number = float(token)
        except ValueError:
            number = math.nan
        if number in levels:
            return number
    raise _unknown(f"level of {column}", token, texts)


def _unknown(what: str, name: str, known: Sequence[str]) -> StudyError:
    more = f", and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    names = ", ".join(known[:SHOWN]) + more
    return StudyError(f"no {what} called '{name}'{did_you_mean(name, known)} ({what.split()[0]}s: {names})")


def column_levels(tree: xr.DataTree) -> Levels:
    """What a condition on each column of the runs may name."""
    data = tree.to_dataset()
    levels: dict[str, Sequence[Level] | None] = {}
    for name in run_columns(tree):
        if name == "status":
            levels[name] = STATUSES
        elif name == "valid_organism":
            levels[name] = (False, True)
        elif name in data.coords:
            levels[name] = pd.Series(read(data, name)).dropna().unique().tolist()
        else:
            levels[name] = None if data[name].dtype.kind in "iuf" else ()
    return levels


def query(
    tree: xr.DataTree, where: Sequence[str], by: Sequence[str], value: Sequence[str], stat: Stat = "mean"
) -> pd.DataFrame:
    """Runs that fulfill every condition, grouped.

    Columns: those of ``by``; ``n`` runs; ``organisms``; per value ``<value>_<stat>`` and the standard deviation over
    runs ``<value>_sd`` (n - 1; missing numbers left out). Rows are in the order of the levels. Counted are runs with
    status ok or aliased of valid organisms, unless a condition names ``status`` or ``valid_organism``.

    ``attrs`` of the result: ``excluded``, the runs left out because their organism is invalid, and ``missing``, the
    runs in the result without a number, per value.

    Raises:
        StudyError: no such column, level or statistic, or a value that is no number.
    """
    levels = column_levels(tree)
    conditions = [condition for text in where for condition in parse(text, levels)]
    _check(levels, by, value, stat)
    asked = {condition.column for condition in conditions}
    frame = runs_frame(tree, {*asked, *by, *value, "organism", "status", "valid_organism"})
    keep = pd.Series(True, frame.index)
    for condition in conditions:
        keep &= condition.holds(frame[condition.column])
    if "status" not in asked:
        keep &= frame["status"].isin(["ok", "aliased"])
    excluded = 0
    if "valid_organism" not in asked:
        excluded = int((keep & ~frame["valid_organism"]).sum())
        keep &= frame["valid_organism"]
    rows = frame[keep]
    result = _grouped(rows, by, value, stat, levels)
    result.attrs = {"excluded": excluded, "missing": {name: int(rows[name].isna().sum()) for name in value}}
    return result


def _check(levels: Levels, by: Sequence[str], value: Sequence[str], stat: str) -> None:
    for name in (*by, *value):
        if name not in levels:
            raise _unknown("column", name, list(levels))
        if (*by, *value).count(name) > 1:
            raise StudyError(f"'{name}' is named twice in by and value")
    for name in value:
        own = levels[name]
        if own is not None and not (own and all(type(level) in (int, float) for level in own)):
            numbers = [name for name, own in levels.items() if own is None]
            raise StudyError(f"value: '{name}' is no number (numbers: {', '.join(numbers)})")
    if taken := {"n", "organisms"} & {*by}:
        raise StudyError(f"by: the result has its own column '{min(taken)}'; use --sql")
    if stat not in get_args(Stat):
        raise _unknown("stat", stat, get_args(Stat))


def _grouped(rows: pd.DataFrame, by: Sequence[str], value: Sequence[str], stat: Stat, levels: Levels) -> pd.DataFrame:
    keys: list[Any] = [
        rows[name].astype(pd.CategoricalDtype(pd.Index(known))) if (known := levels[name]) else rows[name]
        for name in by
    ]
    groups = rows.groupby(keys or (lambda row: 0), observed=True, dropna=False)
    table = pd.DataFrame({"n": groups.size(), "organisms": groups["organism"].nunique()})
    for name in value:
        table[f"{name}_{stat}"] = groups[name].agg(stat)
        table[f"{name}_sd"] = groups[name].std()
    table = table.reset_index(drop=not by)
    return table.astype({name: rows[name].dtype for name in by})


def sql(tree: xr.DataTree, statement: str) -> pd.DataFrame:
    """The answer of duckdb to ``statement`` over the views ``runs`` and ``items``.

    The database lives in memory and has no access to files, the network, extensions or Python's variables. Missing
    numbers are NULL there. ``items`` is only made where the statement mentions it.

    Raises:
        StudyError: with the first line of duckdb's message.
    """
    try:
        statement.encode()
    except UnicodeEncodeError:
        raise StudyError("sql: the statement is not UTF-8") from None
    with duckdb.connect(":memory:", config={"enable_external_access": "false", "temp_directory": ""}) as database:
        database.execute("set lock_configuration = true")
        database.register("runs", runs_frame(tree))
        if re.search(r"\bitems\b", statement, re.IGNORECASE):
            database.register("items", items_frame(tree))
        try:
            answer = database.execute(statement)
            if answer is None or answer.description is None:
                raise StudyError("sql: the statement is empty")
            return answer.df()
        except duckdb.Error as error:
            known = [*run_columns(tree), "item_id", "kind", "split", "item_cluster", "outcome_before", "outcome_after"]
            wrong = re.search(r'Referenced column "([^"]*)" not found', str(error))
            hint = did_you_mean(wrong[1], known) if wrong else ""
            raise StudyError(f"sql: {str(error).splitlines()[0]}{hint}") from None


def render(frame: pd.DataFrame, format: Format = "table") -> str:
    """The frame as aligned text (four significant digits), exact CSV or JSON records; NaN is ``-``, empty or null."""
    if format == "csv":
        return frame.to_csv(index=False, lineterminator="\n")
    if format == "json":
        records = [dict(zip(frame.columns, map(_json, row), strict=True)) for row in frame.itertuples(index=False)]
        return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    columns = [[printable(str(name)), *_cells(frame.iloc[:, place])] for place, name in enumerate(frame.columns)]
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines if len(frame) else [*lines, "(no rows)"]) + "\n"


def parquet(frame: pd.DataFrame, about: str = "") -> bytes:
    """The frame as a parquet file; what is no number, truth value or time is text, ``about`` is its metadata."""
    plain = frame.copy()
    for name in plain.columns[plain.dtypes.map(pd.api.types.is_object_dtype).to_numpy()]:
        plain[name] = [None if _missing(value) else str(value) for value in plain[name]]
    plain.columns = [str(name) for name in plain.columns]
    with TemporaryDirectory() as folder, duckdb.connect(":memory:") as database:
        target = Path(folder) / "frame.parquet"
        database.register("frame", plain)
        said = about.replace("'", "''")
        database.execute(f"copy frame to '{target}' (format parquet, kv_metadata {{about: '{said}'}})")
        return target.read_bytes()


def _json(value: Any) -> Any:
    """The value with None for what is missing or infinite, which JSON cannot say."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, dict):
        return {str(name): _json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json(part) for part in value]
    return None if _missing(value) or (isinstance(value, float) and math.isinf(value)) else value


def _missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _cells(column: pd.Series[Any]) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return ["-" if _missing(value) else printable(str(value)) for value in column]
    finite = [abs(value) for value in column if math.isfinite(value) and value]
    largest = max(finite, default=1.0)
    if not 1e-6 <= largest < 1e9:
        return ["-" if math.isnan(value) else f"{value:.3e}" for value in column]
    digits = max((len(f"{value:.9f}".rstrip("0").partition(".")[2]) for value in finite), default=0)
    if digits > EXACT_DIGITS:
        digits = max(0, 3 - math.floor(math.log10(largest)))
    return ["-" if math.isnan(value) else f"{value:.{digits}f}" for value in column]
