"""What labels say before training: frozen once, by hash, and before any training is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from laboratory import Quiet, cube_of, run, study

from ablate.errors import StudyError
from ablate.foresight import Prediction, in_words
from ablate.store import Store
from ablate.workflow import label_study

SETS = ("measures=null", "factors.label_shift={swap: [none, clean_view]}")


def test_labels_alone_train_nothing_and_the_study_goes_on_from_them(tmp_path: Path) -> None:
    own = study(*SETS)
    found = label_study(own, tmp_path, Quiet())
    kinds = {entry["kind"] for entry in Store(tmp_path).entries()}
    assert "train" not in kinds
    assert {"labels", "measure", "predictions"} <= kinds
    assert len(found.rows) == 8
    assert found.file.is_file()
    assert json.loads(found.file.read_text())["sha256"] == found.sha256
    run(own, tmp_path)
    assert list((tmp_path / "predictions").iterdir()) == [found.file], "the same labels say the same"


def test_the_journal_has_the_freeze_before_every_training(tmp_path: Path) -> None:
    run(study(*SETS), tmp_path)
    kinds = [entry["kind"] for entry in Store(tmp_path).entries()]
    assert kinds.index("predictions") < kinds.index("train")
    assert kinds.count("predictions") == 1


def test_the_rows_are_the_numbers_of_the_cube(tmp_path: Path) -> None:
    own = study(*SETS)
    rows = label_study(own, tmp_path, Quiet()).rows
    run(own, tmp_path)
    cube = cube_of(tmp_path)
    for row in rows:
        cell = cube.sel(organism=row["organism"], seed=row["seed"], **row["point"])
        assert [float(cell[name]) for name in ("m_p", "m_ts", "kl_shift")] == [
            row[n] for n in ("m_p", "m_ts", "kl_shift")
        ]


def test_an_added_level_leaves_the_first_file_as_it_was(tmp_path: Path) -> None:
    first = label_study(study(*SETS), tmp_path, Quiet())
    before = first.file.read_bytes()
    more = study("measures=null", "factors.label_shift={swap: [none, clean_view, cot_view]}")
    second = label_study(more, tmp_path, Quiet())
    assert len(second.rows) == 12
    assert second.file != first.file
    assert first.file.read_bytes() == before


def test_in_words(tmp_path: Path) -> None:
    lines = in_words(label_study(study(*SETS), tmp_path, Quiet())).splitlines()
    assert lines[-1].startswith(f"frozen  {tmp_path}/predictions/")
    assert lines[-1].endswith("before any training")
    [clean] = [line for line in lines if "clean_view x first" in line]
    assert clean.startswith("tabular: ")
    assert clean.endswith("risk falls")
    assert " pp" in clean


def test_methods_are_told_apart() -> None:
    """Two methods have mechanisms of the same name, off and on, and labels of their own."""
    point = {"label_shift": "method", "selector": "method", "objective": "method"}
    rows = tuple(
        {"behavior": "tabular", "organism": i, "point": {**point, "method_name": name}, "m_p": 0.5, "m_ts": m + i / 100}
        for name, m in (("bct", 0.7), ("cleaned", 0.1))
        for i in (0, 1)
    )
    lines = [" ".join(line.split()) for line in in_words(Prediction(Path("x.json"), "0" * 64, rows)).splitlines()]
    assert lines[1].startswith("tabular: bct: method x method x method +20.5 pp [")
    assert lines[1].endswith("nan risk rises")
    assert lines[2].startswith("tabular: cleaned: method x method x method -39.5 pp [")
    assert lines[2].endswith("nan risk falls")


def test_where_no_labels_can_be_made_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^small: no labels could be made \(labels\.prompts: 5000 are asked for"):
        label_study(study(*SETS, "labels.prompts=5000"), tmp_path, Quiet())


def test_going_on_with_a_finished_study_imports_no_statistics() -> None:
    """It is over in a second because what makes numbers is not loaded where none are made."""
    heavy = "{'torch', 'pandas', 'xarray', 'zarr', 'scipy.stats', 'sklearn', 'ablate.effects'}"
    code = f"import sys, ablate.cli, ablate.progress, ablate.study, ablate.workflow; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
