"""A study from its file to its folder: finished once, resumed after any interruption, never mixed with another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import Killer
from laboratory import WHOLE, assert_same_cube, cube_of, run, study

from ablate import summary
from ablate.cube import open_cube
from ablate.errors import StudyError
from ablate.forecast import forecast, progress_in_words
from ablate.plan import compile_study
from ablate.store import Store
from ablate.workflow import describe, limited, provenance_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def times(folder: Path) -> dict[str, int]:
    """When each file was written, but for those that say who runs what."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", ".lock.json", "study.resolved.yaml")
    }


def whole_artifacts(folder: Path) -> int:
    """How many artifacts there are; every one of them must be as it was written."""
    store = Store(folder)
    for key in store.keys():
        store.verify(key)
    return len(store.keys())


# Another design in the same folder


def test_what_tells_of_another_design_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    first = run(study(), folder)
    (folder / "figures").mkdir()
    (folder / "figures" / "shares.svg").write_text("of the first design")
    (folder / "tables" / "mine.md").write_text("of the reader")
    assert (folder / "tables" / "shares.md").is_file()
    assert not run(study(), folder).redesigned
    assert (folder / "figures" / "shares.svg").is_file()
    second = run(study("factors.selector=first"), folder)
    assert (first.redesigned, second.redesigned) == (False, True)
    assert not (folder / "tables" / "shares.md").exists()
    assert not (folder / "figures" / "shares.svg").exists()
    assert (folder / "tables" / "fixed.md").is_file()
    assert (folder / "tables" / "mine.md").is_file()


# Resuming


def test_killed_at_random_moments_it_ends_with_the_same_cube(tmp_path: Path, small: Path) -> None:
    rng, folder, made = np.random.default_rng(0), tmp_path / "small", 0
    with Killer() as killer:
        wall_s = killer.run(tmp_path / "undisturbed" / "small")["wall_s"]
        kills = [killer.run(folder, seconds=seconds)["killed"] for seconds in rng.uniform(0, wall_s / 2, 8)]
        assert sum(kills) >= 3, "too few were killed on their way to show anything"
        made = whole_artifacts(folder)
        assert not killer.run(folder)["killed"]
    assert whole_artifacts(folder) == whole_artifacts(small) >= made
    assert_same_cube(cube_of(folder), cube_of(small))
    assert_same_cube(cube_of(tmp_path / "undisturbed" / "small"), cube_of(small))


def test_killed_before_any_operation_on_the_disk_it_ends_with_the_same_cube(tmp_path: Path, small: Path) -> None:
    rng = np.random.default_rng(1)
    with Killer() as killer:
        total = killer.run(tmp_path / "undisturbed" / "small")["operations"]
        folder, last = tmp_path / "small", 0
        # the first ones fall among the stages, the later ones, which resume from there, into the cube
        for operation in [2, 7, *rng.integers(10, total // 3, 3), *rng.integers(total // 3, total, 3), 5]:
            ended = killer.run(folder, operation=int(operation))
            now = whole_artifacts(folder)
            assert now >= last, "what was made stays made"
            last = now
            if (folder / "cube.zarr").exists():
                assert open_cube(folder).load() is not None
            journal = Store(folder)
            assert len({entry["key"] for entry in journal.entries() if entry["status"] == "ok"}) <= now
            assert journal.torn == 0
            assert ended["killed"] or now == whole_artifacts(small)
        assert not killer.run(folder)["killed"]
    assert_same_cube(cube_of(folder), cube_of(small))
    assert not [path for path in folder.iterdir() if path.name.startswith("cube.zarr.")]
    assert list((folder / "artifacts" / ".tmp").iterdir()) == []
    assert not (folder / "artifacts" / ".corrupt").exists()


def test_killed_while_the_cube_is_swapped_there_is_always_one(tmp_path: Path, small: Path) -> None:
    """The last operations: syncs, then new in, old out, and the note that says what the cube is of."""
    wanted = cube_of(small)
    with Killer() as killer:
        folder = tmp_path / "small"
        total = killer.run(folder)["operations"]
        assert total > 100
        (folder / "cube.json").unlink()
        again = killer.run(folder)["operations"]
        for back in (40, 5, 3, 2, 1):
            (folder / "cube.json").unlink(missing_ok=True)
            assert killer.run(folder, operation=again - back)["killed"]
            assert_same_cube(cube_of(folder), wanted)
        killer.run(folder)
    assert_same_cube(cube_of(folder), wanted)


def test_status_of_a_study_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with Killer() as killer:
        assert killer.run(folder, operation=60)["killed"]
    text = progress_in_words(folder)
    assert text.startswith("small: does the engine work?\n  runs  8 missing\n")
    assert "  screen       1 / 1 " in text


# A finished study


def test_a_finished_study_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    first = run(study(), folder)
    assert first.executed > 0
    before = times(folder)
    second = run(study(), folder)
    assert (second.executed, second.states, second.errors) == (0, first.states, ())
    assert times(folder) == before


def test_another_question_makes_the_cube_anew_and_runs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    ran = run(study("question=another one?", "analysis.alpha=0.01"), folder)
    assert ran.executed == 0
    assert cube_of(folder).attrs["question"] == "another one?"
    assert "another one?" in (folder / "study.resolved.yaml").read_text()


@pytest.mark.parametrize("damage", ["zarr.json", "risk_delta", "items/outcome_after", "gone"])
def test_a_damaged_cube_is_made_again(tmp_path: Path, small: Path, damage: str) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    cube = folder / "cube.zarr"
    if damage == "gone":
        cube.rename(tmp_path / "elsewhere")
    else:
        broken = cube / damage
        chunks = [path for path in broken.rglob("*") if path.is_file() and path.name != "zarr.json"]
        file = broken if broken.is_file() else chunks[0]
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
    ran = run(study(), folder)
    assert ran.executed == 0
    assert_same_cube(cube_of(folder), cube_of(small))


@pytest.mark.parametrize("name", ["summary.txt", "provenance.json", "tables/organisms.md"])
@pytest.mark.parametrize("left", [None, b"\xffVERDICT  label_shift"])
def test_what_is_said_beside_a_cube_is_made_again(tmp_path: Path, small: Path, name: str, left: bytes | None) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    wanted = (folder / name).read_bytes()
    (folder / name).unlink() if left is None else (folder / name).write_bytes(left)
    assert run(study(), folder).executed == 0
    assert (folder / name).read_bytes() == wanted


def test_a_report_that_a_reader_left_beside_new_results_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "small"
    real = summary.write_tables

    def late(*arguments: Any) -> None:
        (folder / "report.html").write_text("of other results")  # its reader began before these were there
        real(*arguments)

    monkeypatch.setattr(summary, "write_tables", late)
    run(study(), folder)
    assert "of other results" not in (folder / "report.html").read_text(encoding="utf-8")


def test_status_and_plan_of_a_folder_with_damage(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    own = compile_study(study())
    (Store(folder).read(own.cells[0].labels).path / "receipt.json").write_bytes(b"")
    with open(folder / "journal.jsonl", "a") as journal:
        journal.write('{"kinc":"train","status":"ok","wall_s":1}\n')
    assert "  labels       7 / 8 " in progress_in_words(folder)
    assert forecast(study(), folder)["stages"]["labels"]["to_run"] == 1
    (folder / "study.resolved.yaml").write_bytes(b"question: \xb1\n")
    with pytest.raises(StudyError, match="is not UTF-8"):
        progress_in_words(folder)


def test_a_note_that_cannot_be_read_makes_the_cube_again(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    (folder / "cube.json").write_bytes(b"\xff{")
    assert run(study(), folder).executed == 0
    assert "digest" in json.loads((folder / "cube.json").read_text())
    assert_same_cube(cube_of(folder), cube_of(small))


def test_a_cube_of_another_schema_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    for module in ("cube", "states"):
        monkeypatch.setattr(f"ablate.{module}.SCHEMA_VERSION", 99)
    assert run(study(), folder).executed == 0
    assert cube_of(folder).attrs["schema_version"] == 99


# One folder, one study, one driver


def test_a_folder_of_another_study_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    before = times(folder)
    with pytest.raises(StudyError) as error:
        run(study(name="other"), folder)
    assert str(error.value) == f"{folder} holds study 'small', not 'other'; choose another folder for 'other'"
    assert times(folder) == before


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with Store(folder).locked("small"), pytest.raises(StudyError) as error:
        run(study(), folder)
    assert str(error.value).startswith(f"{folder} is in use by study 'small', process {os.getpid()} on ")
    assert str(error.value).endswith("; wait for it or choose another folder")
    assert run(study(), folder).errors == (), "and admitted when the first is gone"


# Limits, names, provenance


def test_a_limited_study_is_another_one() -> None:
    whole = study(text=WHOLE, name="whole")
    less = limited(whole, 5)
    options = less.options
    assert less.name == "whole.limit5"
    assert (options.labels.prompts, options.evaluate.items, options.evaluate.capability) == (5, 5, 4)
    assert limited(whole, None) is whole
    assert less.digest != whole.digest
    kept = compile_study(less).stages.keys() & compile_study(whole).stages.keys()
    assert {compile_study(less).stages[key].kind for key in kept} == {"screen", "organism"}


def test_a_run_in_words() -> None:
    plan = compile_study(study("seeds=2"))
    assert describe(plan, plan.cells[0]) == "organism 0, none x first, seed 0"
    assert describe(plan, plan.controls[0].cell) == "organism 0, control, seed 0"
    plan = compile_study(study())
    assert describe(plan, plan.cells[-1]) == "organism 1, greedy x argmax(mean_logprob)"


def test_provenance_says_what_was_run_with() -> None:
    found = provenance_of(study())
    assert found["versions"].keys() >= {"python", "ablate", "numpy", "xarray", "zarr"}
    assert found["digest"] == study().digest[:12]
    assert found["evaluation"] == "2 sampled at T = 1"
    assert provenance_of(study("evaluate.decoding=greedy"))["evaluation"] == "greedy answer"


def test_nothing_of_the_environment_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "s3cr3t-value")
    folder = tmp_path / "small"
    run(study(), folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if b"s3cr3t" in path.read_bytes()] == []
    assert str(Path.home()).encode() not in (folder / "provenance.json").read_bytes()
