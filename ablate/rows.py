"""Rows of a file as columns: CSV, JSON lines or parquet, read by duckdb, every fault with its place in the file."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.errors import StudyError, did_you_mean, printable

Kind = Literal["csv", "tsv", "jsonl", "parquet"]
SUFFIXES: dict[str, Kind] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
DELIMITERS = {"csv": ",", "tsv": "\t"}
FIELD_BYTES = 100_000_000
"""The largest field that is read."""
SHOWN = 20  # names in an error message

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The rows of a file. ``names`` are its columns in their order; rows count from 0 in the order of the file."""

    path: Path
    kind: Kind
    names: tuple[str, ...]
    _database: duckdb.DuckDBPyConnection

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._database.execute("select count(*) from rows").fetchall()[0][0])

    @cached_property
    def sha256(self) -> str:
        """Of the file as it is, hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check(self, name: str, option: str) -> None:
        """Refuse a column that is not there; ``option`` is who asks for it.

        Raises:
            StudyError: with the nearest name, or the one that an export puts a prefix before.
        """
        if name in self.names:
            return
        longer = [column for column in self.names if re.split(r"[./]", column, maxsplit=1)[-1] == name]
        hint = f"; did you mean '{longer[0]}'?" if longer else did_you_mean(name, self.names)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        names = printable(", ".join(self.names[:SHOWN]))
        raise StudyError(f"{option}: {self.path} has no column '{name}'{printable(hint)} (columns: {names}{more})")

    def texts(self, name: str) -> tuple[npt.NDArray[np.intp], list[str]]:
        """A column as (codes [rows], labels in the order of the file); -1 where a field is empty."""
        values = self._values(f"cast({_quoted(name)} as varchar)")
        plain = np.array(np.ma.getdata(values), object)
        plain[np.ma.getmaskarray(values)] = None
        codes, labels = pd.factorize(plain)
        return codes, [str(label) for label in labels]

    def numbers(self, name: str) -> Numbers:
        """A column as numbers [rows], NaN where a field is empty or says NaN; true is 1 and false 0.

        Raises:
            StudyError: a field that is no finite number, with its place.
        """
        column = _quoted(name)
        word = f"case lower(cast({column} as varchar)) when 'true' then 1 when 'false' then 0 end"
        number = f"coalesce(try_cast({column} as double), {word})"
        values = np.ma.filled(self._values(number).astype(np.float64), np.nan)
        fault = np.isinf(values)
        if np.isnan(values).any():
            fault |= np.asarray(self._values(f"{column} is not null and {number} is null"), bool)
        if fault.any():
            row = int(fault.argmax())
            codes, labels = self.texts(name)
            raise StudyError(
                f"{self.place(row)}: column '{name}' has {quoted(labels[codes[row]])}, which is no finite number"
            )
        return values

    def _values(self, expression: str) -> Any:
        return self._database.execute(f"select {expression} as value from rows order by rowid").fetchnumpy()["value"]

    def place(self, row: int) -> str:
        """Where a row stands: ``rows.csv:17``, or ``rows.parquet, row 17``, counted from 1."""
        if self.kind == "parquet":
            return f"{self.path}, row {row + 1}"
        lines = (line for line, record in self._records() if record)
        return f"{self.path}:{next(line for i, line in enumerate(lines) if i == row)}"

    def _records(self) -> Iterator[tuple[int, object]]:
        """Every record with the line that it begins on, read slowly, to say where a fault is."""
        if self.kind == "jsonl":
            with self.path.open(encoding="utf-8-sig", errors="replace") as file:
                yield from ((number, line.strip()) for number, line in enumerate(file, 1))
        else:
            yield from _csv_records(self.path, DELIMITERS[self.kind], skip=1)


def open_rows(path: Path) -> Rows:
    """Read a file whose name says what it is: .csv, .tsv, .jsonl, .ndjson or .parquet.

    Raises:
        StudyError: no such file, another kind of file, one that is not what its name says, no rows, or a row that
            cannot be read, with its line.
    """
    path = Path(path)
    if (kind := SUFFIXES.get(path.suffix.lower())) is None:
        raise StudyError(f"{path}: a file of rows ends in {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error})") from None
    _refuse_other(path, kind, head)
    # nothing but this one file is read, and no other statement than those of this module
    database = duckdb.connect(":memory:", config={"temp_directory": ""})
    try:
        names = _read(database, path, kind)
    except (duckdb.Error, RecursionError) as error:
        raise StudyError(_fault(path, kind, str(error))) from None
    rows = Rows(path, kind, names, database)
    if not len(rows):
        raise StudyError(f"{path}: has no rows")
    return rows


def _refuse_other(path: Path, kind: Kind, head: bytes) -> None:
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        found = "a parquet file"
    elif head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"(\xb5/\xfd")):
        found = "a compressed file; unpack it"
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        found = "text in UTF-16; save it as UTF-8"
    elif b"\0" in head:
        found = "a binary file"
    elif not begins:
        raise StudyError(f"{path}: is empty")
    else:
        found = "JSON" if begins.startswith((b"{", b"[")) else "text"
    fits = {"parquet": found == "a parquet file", "jsonl": begins.startswith(b"{") and found == "JSON"}
    if not fits.get(kind, found in ("text", "JSON")):
        wanted = {"parquet": "no parquet file", "jsonl": "no JSON lines (one object a line)"}.get(kind, "no text")
        raise StudyError(f"{path}: is {wanted}, but {found}")


def _read(database: duckdb.DuckDBPyConnection, path: Path, kind: Kind) -> tuple[str, ...]:
    """Make the table ``rows`` with the columns of the file, and name them."""
    if kind == "parquet":
        database.execute("create table rows as select * from read_parquet(?)", [_literal(path)])
        return tuple(name for name, *_ in database.execute("describe rows").fetchall())
    if kind == "jsonl":
        return _read_json(database, path)
    names = _header(path, DELIMITERS[kind])
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in names)
    database.execute(
        "create table rows as select * from read_csv(?, auto_detect = false, header = true, quote = '\"', "
        f"escape = '\"', delim = '{DELIMITERS[kind]}', strict_mode = true, max_line_size = {FIELD_BYTES}, "
        f"columns = {{{columns}}})",
        [_literal(path)],
    )
    return names


def _read_json(database: duckdb.DuckDBPyConnection, path: Path) -> tuple[str, ...]:
    database.execute(
        "create temp table lines as select json from read_json_objects(?, format = 'newline_delimited', "
        f"maximum_object_size = {FIELD_BYTES})",
        [_literal(path)],
    )
    if (other := _first(database, "select min(rowid) from lines where json_type(json) <> 'OBJECT'")) is not None:
        raise duckdb.InvalidInputException(f"row {other}")  # said with its line by `_fault`
    found = database.execute(
        "select name, min(line) from (select rowid as line, unnest(json_keys(json)) as name from lines) group by name"
    ).fetchall()
    first = list(json.loads(str(_first(database, "select cast(json as varchar) from lines where rowid = 0") or "{}")))
    order = {name: place for place, name in enumerate(first)}
    names = tuple(sorted((name for name, _ in found), key=lambda name: (order.get(name, len(order)), name)))
    if not names:
        raise duckdb.InvalidInputException("no names")
    fields = ", ".join(
        f"json ->> {_text('/' + name.replace('~', '~0').replace('/', '~1'))} as {_quoted(name)}" for name in names
    )
    database.execute(f"create table rows as select {fields} from lines")
    database.execute("drop table lines")
    return names


def _first(database: duckdb.DuckDBPyConnection, statement: str) -> Any:
    found = database.execute(statement).fetchone()
    return found[0] if found else None


def _header(path: Path, delimiter: str) -> tuple[str, ...]:
    """The names of the columns; one that is empty, as pandas writes its index, is called by its place.

    Raises:
        StudyError: a name that stands twice, a single column that seems to be several.
    """
    _, header = next(iter(_csv_records(path, delimiter)), (1, []))
    names = tuple(name if name else f"column {place}" for place, name in enumerate(header, 1))
    if twice := [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]:
        raise StudyError(f"{path}:1: {Counter(map(str.casefold, names))[twice[0]]} columns are called '{twice[0]}'")
    if len(names) == 1 and re.search(r"[;\t,|]", names[0]):
        raise StudyError(
            f"{path}:1: has one column, {quoted(names[0])}; separate columns by commas in a .csv and by tabs in a .tsv"
        )
    return names


def _csv_records(path: Path, delimiter: str, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(FIELD_BYTES)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, line = csv.reader(file, delimiter=delimiter, strict=True), 1
        try:
            for number, record in enumerate(reader):
                if number >= skip:
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise StudyError(f"{path}:{line}: {error}") from None


def _fault(path: Path, kind: Kind, message: str) -> str:
    """A row that cannot be read, with its line; else the first line of duckdb's message."""
    if kind == "jsonl":
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.encode()
                    found = json.loads(line) if line.strip() else {}
                    json.dumps(found, ensure_ascii=False).encode()
                    why = "" if isinstance(found, dict) else f"is a JSON {type(found).__name__}, not an object"
                except UnicodeError:
                    why = "is not UTF-8"
                except ValueError as error:
                    why = f"is no JSON object ({error})"
                except RecursionError:
                    why = "is nested too deeply"
                if why:
                    return f"{path}:{number}: {why}"
    line_number = re.search(r"CSV Error on Line: (\d+)", message)
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    where = f"{path}:{line_number[1]}" if line_number else f"{path}"
    if fields:
        return f"{where}: has {fields[2]} fields, the header has {fields[1]}"
    for sign, why in (
        ("unterminated quote", "a quote is not closed"),
        ("not utf-8", "is not UTF-8"),
        ("aximum line size", f"a field is larger than {FIELD_BYTES // 1_000_000} MB"),
    ):
        if sign in message:
            return f"{where}: {why}"
    return f"{where}: cannot be read ({message.splitlines()[0]})"


def _literal(path: Path) -> str:
    """What duckdb takes for this one file: it reads every file that a name with ``*``, ``?`` or ``[`` fits."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def quoted(text: str, length: int = 60) -> str:
    """A field in quotes: its beginning, control characters escaped."""
    return f"'{printable(text if len(text) <= length else f'{text[:length]}...')}'"
