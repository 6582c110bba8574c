"""Two folders side by side, as a person asks for it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from laboratory import WHOLE, run, study

from ablate.compare import compare, comparison
from ablate.cube import open_cube
from ablate.errors import StudyError
from ablate.importing import import_rows
from ablate.mapping import Mapped
from ablate.version import SCHEMA_VERSION


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study `whole` with fewer candidates and another learning rate, on the same organisms."""
    folder = tmp_path_factory.mktemp("other") / "other"
    run(study("labels.candidates=2", "train.lr=0.004", "factors.selector.swap=[first, majority]", text=WHOLE,
              name="other"), folder)  # fmt: skip
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """An imported folder in which nothing is as in `whole`."""
    lines = [f"{unit},{view},{0.4 + unit / 50 + 0.1 * (view == 'b')}" for unit in range(4) for view in "ab"]
    (tmp_path / "rows.csv").write_text("\n".join(["unit,view,risk", *lines]) + "\n")
    mapped = Mapped(factors={"label_shift": "view"}, unit=("unit",), response="risk")
    return import_rows(tmp_path / "rows.csv", mapped, tmp_path / "rows").folder


def test_what_changed_is_said_and_what_did_not_is_not(whole: Path, other: Path) -> None:
    found = comparison(open_cube(whole), open_cube(other))
    assert found.notes == ()
    changed = {row.changed: (row.a, row.b) for row in found.design.itertuples()}
    assert changed == {
        "selector: levels": ("first, majority, argmax(mean_logprob)", "first, majority"),
        "runs": ("54", "36"),
        "factors.selector.swap": ("[first, majority, {argmax: {scorer: mean_logprob}}]", "[first, majority]"),
        "labels.candidates": ("3", "2"),
        "train.lr": ("0.002", "0.004"),
    }
    keys = found.keys.set_index("artifact")
    assert keys.loc["organisms", ["in_a", "in_b", "in_both"]].tolist() == [6, 6, 6]
    assert keys.loc["pools", ["in_both", "same_runs"]].tolist() == [0, 0]
    assert keys.loc["trainings", "in_both"] == 0
    estimands = found.effects.set_index("swapped")["estimand"]
    assert set(estimands["label_shift none -> clean_view"]) == {"paired", "only in A"}
    assert found.effects["shared"].max() == 6
    assert found.verdicts["behavior"].tolist() == ["tabular"]


def test_a_folder_and_itself(whole: Path) -> None:
    found = comparison(open_cube(whole), open_cube(whole))
    assert found.design.empty
    assert (found.keys["in_a"] == found.keys["in_both"]).all()
    assert (found.keys["runs"] == found.keys["same_runs"]).all()
    assert set(found.effects["estimand"]) == {"paired"}
    assert found.effects["difference_pp"].abs().max() == 0
    assert found.verdicts["same"].tolist() == [True]


def test_imported_against_made_with_nothing_in_common(whole: Path, rows: Path) -> None:
    text = compare(whole, rows)
    assert text.startswith(f"# {whole} (A) and {rows} (B)\n\nB was imported from rows.csv, not made here.\n")
    assert "No contrast is in both; A: tabular, label_shift = none, selector = first | null control; B: risk, " in text
    assert "No artifact is in both, so nothing proves that anything was the same." in text
    assert "| options " in text
    assert "only in A" in text
    assert "only in B" in text


def test_as_markdown(whole: Path, other: Path) -> None:
    text = compare(whole, other)
    for heading in ("## Design", "## Artifacts", "## Effects", "## Verdicts"):
        assert heading in text
    assert "| train.lr " in text
    assert "\n- tabular\n  - A: label_shift: the label shift changes tabular (" in text
    assert text.endswith("\n")


def test_as_data(whole: Path, other: Path) -> None:
    said = json.loads(compare(whole, other, "json"))
    assert list(said) == ["a", "b", "notes", "design", "keys", "effects", "verdicts"]
    table = list(csv.DictReader(io.StringIO(compare(whole, other, "csv"))))
    parts = [row["part"] for row in table]
    assert {name: parts.count(name) for name in parts} == {name: len(said[name]) for name in list(said)[3:]}
    effect = next(row for row in table if row["part"] == "effects")
    assert float(effect["difference_pp"]) == pytest.approx(said["effects"][0]["difference_pp"])


def test_a_cube_of_another_schema_is_refused(whole: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(whole / "cube.zarr", old / "cube.zarr")
    file = old / "cube.zarr" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["schema_version"] = 2
    file.write_text(json.dumps(metadata))
    said = rf"old/cube.zarr: cube schema 2, but this ablate reads {SCHEMA_VERSION}; `ablate study` rebuil"
    with pytest.raises(StudyError, match=said):
        compare(whole, old)


def test_a_folder_without_a_cube_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cube\.zarr: no cube yet"):
        compare(tmp_path, whole)
