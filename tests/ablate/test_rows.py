"""Rows of files: what is read is what stands there, and every fault is said with its place."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.rows import open_rows

FRAME = pd.DataFrame({"who": ["b", "a", "b"], "risk": [0.25, None, 1.0], "config.lr": [1, 2, 1]})
Make = Callable[[str, str | bytes], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a file and gives its path."""

    def write(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return write


def _parquet(frame: pd.DataFrame, path: Path) -> bytes:
    with duckdb.connect() as database:
        database.register("frame", frame)
        database.execute(f"copy frame to '{path}' (format parquet)")
    return path.read_bytes()


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.ndjson", "rows.parquet", "ROWS.CSV"])
def test_every_kind_of_file_gives_the_same_columns(make: Make, tmp_path: Path, name: str) -> None:
    suffix = name.rpartition(".")[2].lower()
    content: dict[str, Callable[[], str | bytes]] = {
        "csv": lambda: FRAME.to_csv(index=False),
        "tsv": lambda: FRAME.to_csv(index=False, sep="\t"),
        "parquet": lambda: _parquet(FRAME, tmp_path / "made.parquet"),
    }
    path = make(name, content.get(suffix, lambda: FRAME.to_json(orient="records", lines=True))())
    rows = open_rows(path)
    assert (rows.names, len(rows)) == (("who", "risk", "config.lr"), 3)
    codes, labels = rows.texts("who")
    assert (codes.tolist(), labels) == ([0, 1, 0], ["b", "a"])
    np.testing.assert_array_equal(rows.numbers("risk"), [0.25, np.nan, 1.0])
    np.testing.assert_array_equal(rows.numbers("config.lr"), [1, 2, 1])


def test_json_lines_may_lack_fields_and_hold_nan(make: Make) -> None:
    rows = open_rows(make("a.jsonl", '{"b/c": 1, "x": NaN}\n\n{"b/c": null, "it\'s \\"odd\\"": true}\n'))
    assert rows.names == ("b/c", "x", 'it\'s "odd"')
    np.testing.assert_array_equal(rows.numbers("b/c"), [1, np.nan])
    np.testing.assert_array_equal(rows.numbers("x"), [np.nan, np.nan])
    np.testing.assert_array_equal(rows.numbers('it\'s "odd"'), [np.nan, 1])
    assert rows.place(1).endswith("a.jsonl:3")


def test_lines_are_counted_through_quoted_line_breaks_and_blank_lines(make: Make) -> None:
    rows = open_rows(make("a.csv", '\ufeffa,b\r\n"x\r\ny",1\r\n\r\nz,2\r\n'))
    assert rows.texts("a")[1] == ["x\r\ny", "z"]
    assert [rows.place(row).rpartition(":")[2] for row in (0, 1)] == ["2", "5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", ": a file of rows ends in .csv, .tsv, .jsonl, .ndjson, .parquet"),
        ("a.csv", "", ": is empty"),
        ("a.csv", " \n\n", ": is empty"),
        ("a.csv", "a,b\n", ": has no rows"),
        ("a.csv", "a,b\n1,2\n3\n", ":3: has 1 fields, the header has 2"),
        ("a.csv", "a,b\n1,2,3\n", ":2: has 3 fields, the header has 2"),
        ("a.csv", 'a,b\n1,"2\n3,4\n', ":2: a quote is not closed"),
        ("a.csv", b"a,b\n1,\xff\n", ":2: is not UTF-8"),
        ("a.csv", "a,A\n1,2\n", ":1: 2 columns are called 'a'"),
        ("a.csv", "a;b\n1;2\n", ":1: has one column, 'a;b'; separate columns by commas in a .csv and by tabs"),
        ("a.csv", b"PAR1\0\0", ": is no text, but a parquet file"),
        ("a.csv", b"a,b\n\0\0,1\n", ": is no text, but a binary file"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), ": is no text, but text in UTF-16; save it as UTF-8"),
        ("a.csv", b"\x1f\x8b\x08\0", ": is no text, but a compressed file; unpack it"),
        ("a.parquet", "a,b\n1,2\n", ": is no parquet file, but text"),
        ("a.parquet", '{"a": 1}\n', ": is no parquet file, but JSON"),
        ("a.parquet", b"PAR1 and nothing more", ": cannot be read ("),
        ("a.jsonl", "a,b\n1,2\n", ": is no JSON lines (one object a line), but text"),
        ("a.jsonl", '[{"a": 1}]', ": is no JSON lines (one object a line), but JSON"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', ":2: is no JSON object ("),
        ("a.jsonl", '{"a": 1}\n[1]\n', ":2: is a JSON list, not an object"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', ":1: is no JSON object ("),
        ("a.jsonl", '{"a": 1}\n{"a": "\\ud800"}\n', ":2: is not UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', ":2: is not UTF-8"),
    ],
)
def test_what_cannot_be_read(make: Make, name: str, content: str | bytes, message: str) -> None:
    path = make(name, content)
    with pytest.raises(StudyError) as error:
        open_rows(path)
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none.csv: cannot be read \(No such file or directory\)"):
        open_rows(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("field", "shown"),
    [("low", "'low'"), ("1e999", "'1e999'"), ("\x1b[31m0.5", r"'\x1b[31m0.5'"), ("x" * 100, f"'{'x' * 60}...'")],
)
def test_a_field_that_is_no_number_is_said_with_its_place(make: Make, field: str, shown: str) -> None:
    rows = open_rows(make("a.csv", f"a,b\n,0\n1,0\n{field},0\n"))
    with pytest.raises(StudyError) as error:
        rows.numbers("a")
    assert str(error.value).endswith(f"a.csv:4: column 'a' has {shown}, which is no finite number")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("label_shift", "; did you mean 'config.label_shift'?"), ("rsik", "; did you mean 'risk'?"), ("zzz", "")],
)
def test_a_column_that_is_not_there(make: Make, name: str, hint: str) -> None:
    path = make("a.csv", "config.label_shift,risk\nx,1\n")
    with pytest.raises(StudyError) as error:
        open_rows(path).check(name, "--factors")
    assert str(error.value) == (f"--factors: {path} has no column '{name}'{hint} (columns: config.label_shift, risk)")


def test_names_of_columns_do_not_steer_a_terminal(make: Make) -> None:
    with pytest.raises(StudyError, match=r"\(columns: a\\x1b\[2J, b\)$"):
        open_rows(make("a.csv", "a\x1b[2J,b\n1,2\n")).check("zzz", "--unit")


def test_a_field_of_20_mb_is_read(make: Make) -> None:
    rows = open_rows(make("a.csv", f"a,note\n0.5,{'x' * 20_000_000}\n"))
    assert rows.numbers("a").tolist() == [0.5]


def test_a_field_that_is_too_large_is_said_with_its_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.rows.FIELD_BYTES", 3_000_000)
    path = make("a.csv", f"a,note\n1,x\n2,{'x' * 5_000_000}\n")
    with pytest.raises(StudyError, match=r"a\.csv:3: a field is larger than 3 MB$"):
        open_rows(path)


CELL = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_any_text_is_read_as_it_stands(make: Make, records: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *records])
    lines = "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in records)
    for path, empty in ((make("a.csv", text.getvalue()), True), (make("a.jsonl", lines), False)):
        rows = open_rows(path)
        for place, name in enumerate("ab"):
            codes, labels = rows.texts(name)
            wanted = [record[place] for record in records]
            assert [labels[code] if code >= 0 else "" for code in codes] == wanted
            assert all(code >= 0 for code, text in zip(codes, wanted, strict=True) if text or not empty)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]))
def test_any_bytes_are_read_or_refused(make: Make, content: bytes, name: str) -> None:
    path = make(name, content)
    try:
        rows = open_rows(path)
    except StudyError:
        return
    assert len(rows) >= 1


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), min_size=1, max_size=6))
def test_numbers_come_back_bit_by_bit(make: Make, values: list[Any]) -> None:
    wanted = [math.nan if value is None else value for value in values]
    text = "a,b\n" + "".join(f"{'' if value is None else repr(value)},0\n" for value in values)
    np.testing.assert_array_equal(open_rows(make("a.csv", text)).numbers("a"), wanted)


@pytest.mark.parametrize("name", ["a[1].csv", "a?.csv", "*.csv", "a[1].jsonl", "a*.parquet"])
def test_a_name_is_that_of_one_file(make: Make, tmp_path: Path, name: str) -> None:
    kind = name.rpartition(".")[2]
    own, other = FRAME[:2], FRAME.assign(who="other")
    for frame, file in ((own, name), (other, f"a1.{kind}"), (other, f"a2.{kind}")):
        if kind == "parquet":
            make(file, _parquet(frame, tmp_path / "made"))
        else:
            make(file, frame.to_csv(index=False) if kind == "csv" else frame.to_json(orient="records", lines=True))
    assert open_rows(tmp_path / name).texts("who")[1] == ["b", "a"]


def test_json_that_is_nested_without_end_is_said(make: Make) -> None:
    path = make("rows.jsonl", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(StudyError, match=r"rows\.jsonl:1: is nested too deeply"):
        open_rows(path)
