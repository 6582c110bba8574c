"""The driver: what runs once, what a failure takes with it, what is repaired, and what is done again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laboratory import WHOLE, assert_same_cube, cube_of, drive, run, study, with_plugins

from ablate import api, registry
from ablate.cube import STATUSES
from ablate.plan import KINDS, compile_study
from ablate.store import Store

Cells = dict[tuple[str, ...], str]


def copied(folder: Path, to: Path) -> Path:
    """A copy of a finished study that a test may damage."""
    shutil.copytree(folder, to)
    return to


def status_of(folder: Path, *dims: str) -> Cells:
    """The statuses along ``dims``, which must be the same over the rest."""
    cells: dict[tuple[str, ...], set[str]] = {}
    status = cube_of(folder)["status"].stack(cell=dims)
    for values in status.transpose("cell", ...):
        names = {STATUSES[int(value)] for value in np.unique(values)}
        cells[tuple(str(values.coords[dim].item()) for dim in dims)] = names
    return {cell: "|".join(sorted(names)) for cell, names in cells.items()}


def error_of(folder: Path, **where: Any) -> str:
    errors = {str(error) for error in cube_of(folder)["error"].sel(where).values.ravel()}
    assert len(errors) == 1, errors
    return errors.pop()


# Once each


def test_every_distinct_key_is_executed_once(tmp_path: Path) -> None:
    plan, engine, driver = drive(study(text=WHOLE), tmp_path)
    store = Store(tmp_path)
    needed = {key: stage.kind for key, stage in plan.stages.items()}
    for cell in plan.runs():
        train = plan.training(cell, store.read(cell.labels).notes["content"])
        needed |= {late.key: late.kind for late in (train, plan.evaluation(cell, train.key))}
    assert Counter(stage.kind for stage in engine.given) == Counter(needed.values())
    assert sorted(stage.key for stage in engine.given) == sorted(needed)
    assert driver.executed == len(needed) == len(store.keys())
    assert driver.errors == {}


def test_inputs_are_there_before_a_stage_runs(tmp_path: Path) -> None:
    _, engine, _ = drive(study(), tmp_path)
    made: set[str] = set()
    for stage in engine.given:
        assert set(stage.inputs.values()) <= made, stage.kind
        made.add(stage.key)


def test_identical_labels_share_training_and_evaluation(tmp_path: Path) -> None:
    plan, engine, _ = drive(study(), tmp_path)
    count = Counter(stage.kind for stage in engine.given)
    assert count["labels"] == 2 * 4
    assert count["train"] == count["evaluate"] - 2 < 2 * 4, "greedy leaves one candidate, so every selector takes it"
    labels = {cell.point[:2]: Store(tmp_path).read(cell.labels).notes["content"] for cell in plan.cells[:4]}
    assert labels["greedy", "first"] == labels["greedy", "argmax(mean_logprob)"]
    assert labels["none", "first"] != labels["none", "argmax(mean_logprob)"]


def test_objectives_share_what_they_read_alike(tmp_path: Path) -> None:
    """bct_ce brings its labels, so that every label shift and selector is one run of it."""
    names = ("sft", "entropy_min", "bct", "dpo", "bct_ce")
    run(study(f"factors.objective={{swap: [{', '.join(names)}]}}"), tmp_path)
    runs = cube_of(tmp_path).sel(organism=0, seed=0)
    trainings = {name: runs.key_train.sel(objective=name).values.ravel().tolist() for name in names}
    assert {name: len(set(keys)) for name, keys in trainings.items()} == dict.fromkeys(names[:4], 3) | {"bct_ce": 1}
    assert len({key for keys in trainings.values() for key in keys}) == 4 * 3 + 1
    moved = runs.risk_delta.sel(label_shift="none", selector="first")
    assert (moved.sel(objective=["bct", "bct_ce"]) < moved.sel(objective="sft") - 0.1).all(), "the clean view is honest"
    greedy = Store(tmp_path).read(
        str(runs.key_train.sel(label_shift="greedy", selector="first", objective="dpo").item())
    )
    assert greedy.json("losses.json") == pytest.approx([np.log(2)] * 6), "one candidate has nothing to be preferred to"


def test_tokens_are_one_dose_for_all(tmp_path: Path) -> None:
    """`claim 0` has three tokens and the empty answer one; both train on 40 to within one answer."""
    doses: list[float] = []

    def counting() -> None:
        @api.objective
        def counts(batch: Any) -> Any:
            """Notes how many label tokens it was asked about."""
            doses.append(float(batch.mask.sum()))
            return -(batch.logprobs * batch.mask).sum()

    with with_plugins(counting):
        _, engine, driver = drive(study("factors.objective=counts", "train.tokens=40", "train.lr=0.000001"), tmp_path)
    assert driver.errors == {}
    own = [stage for stage in engine.given if stage.kind == "train" and stage.options["objective"]["name"] == "counts"]
    steps = sum(len(Store(tmp_path).read(stage.key).json("losses.json")) for stage in own)
    total = sum(doses) * steps / len(doses)  # every step asks equally often
    assert 40 * len(own) <= total < 43 * len(own)


def test_runs_are_finished_one_after_the_other(tmp_path: Path) -> None:
    _, engine, _ = drive(study(), tmp_path)
    kinds = [stage.kind for stage in engine.given]
    trained = [i for i, kind in enumerate(kinds) if kind == "train"]
    assert all(kinds[i + 1] == "evaluate" for i in trained), "a study that is stopped leaves whole runs"


def test_a_second_drive_executes_nothing(tmp_path: Path) -> None:
    drive(study(), tmp_path)
    _, engine, driver = drive(study(), tmp_path)
    assert (engine.given, driver.executed) == ([], 0)


def test_the_watch_is_told_every_stage(tmp_path: Path) -> None:
    _, engine, driver = drive(study(), tmp_path)
    watch: Any = driver.watch
    assert [done.stage.key for done in watch.done] == [stage.key for stage in engine.given]
    known = [stage.key for stage in (*watch.waiting, *watch.late)]
    assert sorted(known) == sorted(stage.key for stage in engine.given)


# A failure takes its dependents, and nothing else


def _nan() -> None:
    @api.objective
    def becomes_nan(batch: Any) -> Any:
        """A loss that is NaN."""
        return float("nan")


def _raises() -> None:
    @api.scorer
    def broken_score(lm: Any, pool: Any) -> Any:
        """Raises."""
        raise RuntimeError("no [bold]score[/bold]\nfor you")

    @api.scorer
    def misshapen(lm: Any, pool: Any) -> Any:
        """One score too few."""
        return pool.outcome[:, 1:]

    @api.selector
    def broken_pick(scores: Any, classes: Any, rng: Any) -> Any:
        """Raises."""
        raise ZeroDivisionError

    @api.selector
    def off_the_end(scores: Any, classes: Any, rng: Any) -> Any:
        """Takes a candidate that is not there."""
        return np.full(len(classes), classes.shape[1])

    @api.label_shift
    def broken_shift(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
        """Raises."""
        raise KeyError("shift")


def test_a_loss_that_is_nan_fails_its_runs_alone(tmp_path: Path) -> None:
    with with_plugins(_nan):
        ran = run(study("factors.objective={swap: [sft, becomes_nan]}"), tmp_path)
        states = status_of(tmp_path, "objective", "label_shift", "selector")
    assert set(states.values()) == {"ok", "aliased", "failed"}
    assert {cell for cell, state in states.items() if state == "failed"} == {
        cell for cell in states if cell[0] == "becomes_nan"
    }
    assert states["sft", "greedy", "argmax(mean_logprob)"] == "aliased"
    assert error_of(tmp_path, objective="becomes_nan") == "loss became NaN at step 1 of 6"
    assert error_of(tmp_path, objective="sft") == ""
    assert ran.states == {"ok": 6, "aliased": 2, "failed": 8}
    assert ran.errors[0] == ("organism 0, none x first x becomes_nan", "loss became NaN at step 1 of 6")
    assert len(ran.errors) == 8


@pytest.mark.parametrize(
    ("swap", "where", "status", "error"),
    [
        (
            "factors.selector={swap: [first, {argmax: {scorer: broken_score}}]}",
            ("selector", "argmax(broken_score)"),
            "blocked",
            "RuntimeError: no [bold]score[/bold] for you",
        ),
        (
            "factors.selector={swap: [first, {argmax: {scorer: misshapen}}]}",
            ("selector", "argmax(misshapen)"),
            "blocked",
            "ValueError: scorer 'misshapen' gave (12, 2), not one score for each of (12, 3)",
        ),
        ("factors.selector={swap: [first, broken_pick]}", ("selector", "broken_pick"), "failed", "ZeroDivisionError"),
        (
            "factors.selector={swap: [first, off_the_end]}",
            ("selector", "off_the_end"),
            "failed",
            "ValueError: selector 'off_the_end' gave neither an index [P] nor weights [P, K] of (12, 3)",
        ),
        (
            "factors.label_shift={swap: [none, broken_shift]}",
            ("label_shift", "broken_shift"),
            "blocked",
            "KeyError: 'shift'",
        ),
    ],
)
def test_what_a_plug_in_raises_stops_what_needs_it(
    tmp_path: Path, swap: str, where: tuple[str, str], status: str, error: str
) -> None:
    dim, broken = where
    with with_plugins(_raises):
        ran = run(study("factors.label_shift=none", swap), tmp_path)
        states = status_of(tmp_path, dim)
    assert {level: state for (level,), state in states.items() if level == broken} == {broken: status}
    assert all(state == "ok" for (level,), state in states.items() if level != broken)
    assert {message for _, message in ran.errors} == {error}
    assert error_of(tmp_path, **{dim: broken}) == error


def test_what_fails_is_blocked_downstream_and_not_tried(tmp_path: Path) -> None:
    with with_plugins(_raises):
        own = study("factors.label_shift={swap: [none, broken_shift]}")
        plan, engine, driver = drive(own, tmp_path)
    broken = {cell.pool for cell in plan.cells if cell.point[0] == "broken_shift"}
    given = {stage.key for stage in engine.given}
    assert broken <= given
    for cell in plan.cells:
        if cell.pool in broken:
            assert not {cell.labels, cell.measure} & given
            assert driver.errors[cell.labels].startswith(("blocked by pool", "blocked by scores"))
    assert len(driver.errors) == len(given & broken) + sum(
        bool(broken & {*stage.inputs.values()}) or "blocked" in driver.errors.get(stage.key, "")
        for stage in plan.stages.values()
    )


def test_clean_answers_that_cannot_be_had_block_the_runs_that_are_taught_them(tmp_path: Path) -> None:
    def without_clean() -> None:
        del registry._plugins["label_shift", "clean_view"]

        @api.label_shift
        def clean_view(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
            """Not to be had."""
            raise ValueError("no clean view")

    own = study("factors.label_shift=none", "factors.objective={swap: [sft, bct_ce]}")
    with with_plugins(without_clean):
        ran = run(own, tmp_path)
    assert ran.states == {"ok": 4, "blocked": 4}
    assert {error for _, error in ran.errors} == {"ValueError: no clean view"}


def test_an_organism_that_fails_blocks_all_of_its_runs_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate import stages

    induce = stages.induce

    def fails_once(*args: Any, **options: Any) -> Any:
        if options["seed"] == 1:
            raise FloatingPointError("diverged")
        return induce(*args, **options)

    monkeypatch.setattr(stages, "induce", fails_once)
    ran = run(study("organism.seeds=3"), tmp_path)
    assert status_of(tmp_path, "organism", "label_shift", "selector")["2", "none", "first"] == "ok"
    assert {state for cell, state in status_of(tmp_path, "organism", "label_shift").items() if cell[0] == "1"} == {
        "blocked"
    }
    assert error_of(tmp_path, organism=1) == "FloatingPointError: diverged"
    assert ran.states["blocked"] == 4
    tree = cube_of(tmp_path)
    assert np.isnan(tree["organism_risk"].values[1])
    assert np.isnan(tree["risk_delta"].sel(organism=1)).all(), "missing is NaN, never 0"
    assert np.isfinite(tree["risk_delta"].sel(organism=[0, 2])).all()


def test_a_measure_of_labels_that_raises_fails_the_runs(tmp_path: Path) -> None:
    def broken() -> None:
        @api.measure(columns={"never": api.Column("never", "1", "neither", "made up")})
        def broken_measure(before: Any, labels: Any, after: Any, rng: Any) -> Any:
            """Raises."""
            raise ValueError("no such number")

    with with_plugins(broken):
        ran = run(study("measures=[risk, broken_measure]"), tmp_path)
    assert ran.states == {"failed": 8}
    assert {error for _, error in ran.errors} == {"ValueError: no such number"}


def test_a_measure_of_runs_that_raises_fails_that_run_and_is_tried_again(tmp_path: Path) -> None:
    calls: list[float] = []

    def fussy() -> None:
        @api.measure(of="run", columns={"fuss": api.Column("fuss", "1", "neither", "made up")})
        def fussy_measure(before: Any, labels: Any, after: Any, rng: Any) -> Any:
            """Raises at its second call."""
            calls.append(1.0)
            if len(calls) == 2:
                raise ArithmeticError("I do not like this run")
            return {"fuss": 1.0}

    with with_plugins(fussy):
        own = study("measures=[fussy_measure, risk]")
        ran = run(own, tmp_path)
        assert ran.states == {"ok": 5, "aliased": 2, "failed": 1}
        assert ran.errors == (
            (
                "organism 0, none x argmax(mean_logprob)",
                "measure 'fussy_measure': ArithmeticError: I do not like this run",
            ),
        )
        tree = cube_of(tmp_path)
        failed = tree["status"].values == STATUSES.index("failed")
        assert np.isnan(tree["fuss"].values[failed]).all()
        assert (tree["fuss"].values[~failed] == 1).all()
        again = run(own, tmp_path)
        assert (again.executed, again.errors) == (0, ())
        assert (cube_of(tmp_path)["fuss"] == 1).all()


def test_a_measure_that_gives_another_column_is_told_so(tmp_path: Path) -> None:
    def other() -> None:
        @api.measure(columns={"wanted": api.Column("wanted", "1", "neither", "made up")})
        def other_column(before: Any, labels: Any, after: Any, rng: Any) -> Any:
            """Gives what it did not declare."""
            return {"given": 1.0}

    with with_plugins(other):
        ran = run(study("measures=[risk, other_column]"), tmp_path)
    assert {error for _, error in ran.errors} == {
        "ValueError: measure 'other_column' gave ['given'], it declares ['wanted']"
    }


def test_running_again_tries_what_failed_and_nothing_else(tmp_path: Path) -> None:
    broken = [True]

    def moody() -> None:
        @api.objective
        def moody(batch: Any) -> Any:
            """NaN at first."""
            from ablate.factors.objectives.sft import sft

            return float("nan") if broken[0] else sft(batch)

    with with_plugins(moody):
        own = study("factors.objective=moody")
        first = run(own, tmp_path)
        assert first.states == {"failed": 8}
        assert np.isnan(cube_of(tmp_path)["risk_after"]).all()
        second = run(own, tmp_path)
        trained = 8 - 2  # two runs of identical labels in two organisms
        assert second.executed == trained, "tried again, failed again; the evaluations behind it were not tried"
        broken[0] = False
        third = run(own, tmp_path)
        assert third.executed == 2 * trained
        assert (third.states, third.errors) == ({"ok": 6, "aliased": 2}, ())
    assert (cube_of(tmp_path)["error"] == "").all()


def test_a_failure_is_in_the_journal(tmp_path: Path) -> None:
    with with_plugins(_nan):
        drive(study("factors.objective=becomes_nan"), tmp_path)
    entries = [entry for entry in Store(tmp_path).entries() if entry["status"] == "failed"]
    assert {(entry["kind"], entry["error"]) for entry in entries} == {("train", "loss became NaN at step 1 of 6")}


# A corrupt artifact is made again

READ_BY = {"screen": "organism", "organism": "pool", "pool": "labels", "embed": "measure", "scores": "labels",
           "labels": "measure", "train": "evaluate", "measure": "", "evaluate": ""}  # fmt: skip
"""Something that reads each kind of artifact; measures and evaluations are read by the cube itself."""


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def receipt(path: Path) -> None:
    flip(path.with_name("receipt.json"))


def _artifacts(folder: Path, kind: str) -> list[Path]:
    store = Store(folder)
    return [store.read(key).path for key in store.keys() if store.read(key).kind == kind]


def _file_of(artifact: Path) -> Path:
    """The largest file of an artifact: its arrays, where it has some."""
    files = [path for path in artifact.iterdir() if path.name != "receipt.json"]
    return max(files, key=lambda path: (path.suffix == ".safetensors", path.stat().st_size))


def _broken(folder: Path, kind: str, damage: Callable[[Path], None], readers: bool = True) -> Path:
    """Damage one artifact of that kind and remove those that were made from such, so that it is read again."""
    artifact, read = _artifacts(folder, kind)[0], _artifacts(folder, READ_BY[kind]) if readers else []
    damage(_file_of(artifact))
    for reader in read:
        shutil.rmtree(reader)
    return artifact


def _contents(folder: Path) -> dict[str, Any]:
    """What every artifact holds, by key, checked against its receipt."""
    store = Store(folder)
    for key in store.keys():
        store.verify(key)
    return {key: (store.read(key).files, store.read(key).notes) for key in store.keys()}


@pytest.mark.parametrize(
    ("kind", "damage"),
    [*((kind, flip) for kind in KINDS[:-2] if kind != "measure"), ("pool", truncate), ("pool", receipt),
     ("pool", Path.unlink), ("train", truncate), ("train", receipt), ("train", Path.unlink), ("train", flip)],
)  # fmt: skip
def test_a_corrupt_artifact_is_repaired(tmp_path: Path, small: Path, kind: str, damage: Callable[[Path], None]) -> None:
    folder = copied(small, tmp_path / "small")
    broken = _broken(folder, kind, damage)
    _, engine, driver = drive(study(), folder)
    assert driver.errors == {}
    assert broken.name in [stage.key for stage in engine.given]
    assert [path.name.split("-")[0] for path in (folder / "artifacts" / ".corrupt").iterdir()] == [broken.name]
    assert _contents(folder) == _contents(small)


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("kind", ["measure", "evaluate"])
def test_a_corrupt_artifact_that_the_cube_reads_is_repaired(
    tmp_path: Path, small: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    folder = copied(small, tmp_path / "small")
    _broken(folder, kind, damage)
    (folder / "cube.json").unlink()  # so that the cube is made again
    ran = run(study(), folder)
    assert (ran.errors, ran.executed) == ((), 1)
    assert _contents(folder) == _contents(small)
    assert_same_cube(cube_of(folder), cube_of(small))


def test_a_stage_all_of_whose_inputs_are_corrupt(tmp_path: Path, small: Path) -> None:
    folder = copied(small, tmp_path / "small")
    for kind in ("pool", "embed", "labels"):
        for artifact in _artifacts(folder, kind):
            flip(_file_of(artifact))
    for artifact in _artifacts(folder, "measure"):
        shutil.rmtree(artifact)
    _, _, driver = drive(study(), folder)
    assert driver.errors == {}
    assert _contents(folder) == _contents(small)


@pytest.mark.parametrize("kind", ["measure", "evaluate"])
def test_however_many_artifacts_are_corrupt(tmp_path: Path, small: Path, kind: str) -> None:
    folder = copied(small, tmp_path / "small")
    broken = _artifacts(folder, kind)
    for artifact in broken:
        flip(_file_of(artifact))
    (folder / "cube.json").unlink()
    ran = run(study(), folder)
    assert (ran.errors, ran.executed) == ((), len(broken))
    assert_same_cube(cube_of(folder), cube_of(small))


def test_a_disk_that_corrupts_everything_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose input comes back corrupt again and again has failed; the study does not run for ever."""
    from ablate.store import Artifact, CorruptArtifactError

    def arrays(self: Artifact, name: str) -> Any:
        if self.kind == "organism":
            raise CorruptArtifactError(self.key, name, "has another sha256 than its receipt says")
        return real(self, name)

    real = Artifact.arrays
    monkeypatch.setattr(Artifact, "arrays", arrays)
    _, engine, driver = drive(study("organism.seeds=1"), tmp_path)
    assert Counter(stage.kind for stage in engine.given)["organism"] <= 1 + 2 * 3
    assert any("has another sha256 than its receipt says" in error for error in driver.errors.values())


# More of it


def test_an_added_level_runs_its_new_cells_alone(tmp_path: Path, small: Path) -> None:
    folder = copied(small, tmp_path / "small")
    more = study("factors.label_shift={swap: [none, greedy, clean_view]}")
    new = compile_study(more).stages.keys() - compile_study(study()).stages.keys()
    ran = run(more, folder)
    ends = sum(entry["kind"] in ("train", "evaluate") for entry in list(Store(folder).entries())[-ran.executed :])
    assert ran.executed == len(new) + ends
    assert ran.errors == ()
    old, both = cube_of(small), cube_of(folder).to_dataset()
    assert both["label_shift"].values.tolist() == ["none", "greedy", "clean_view"]
    kept = both.sel(label_shift=["none", "greedy"])
    for name in ("risk_delta", "status", "key_train", "mmd2"):
        np.testing.assert_array_equal(kept[name].values, old[name].values)
    assert json.loads((folder / "study.json").read_text())["digest"] == more.digest


def test_a_removed_level_runs_nothing_and_gives_the_smaller_cube(tmp_path: Path, small: Path) -> None:
    folder = copied(small, tmp_path / "small")
    ran = run(study("factors.label_shift=none"), folder)
    assert ran.executed == 0
    assert cube_of(folder)["label_shift"].values.tolist() == ["none"]


def test_stages_of_a_phase_run_in_the_order_of_the_plan(tmp_path: Path) -> None:
    """So that what is read for one of them, a pool, serves the next."""
    own = study("seeds=3")
    plan, engine, _ = drive(own, tmp_path / "x")
    for kind in ("labels", "measure"):
        planned = [key for key, stage in plan.stages.items() if stage.kind == kind]
        assert [stage.key for stage in engine.given if stage.kind == kind] == planned
    trained = [stage.inputs["pool"] for stage in engine.given if stage.kind == "train"]
    assert sum(a != b for a, b in pairwise(trained)) == len(set(trained)) - 1
