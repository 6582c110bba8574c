"""The cube: what is built is what is read, at every moment of a write, with plain xarray too."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ablate import cube
from ablate.api import Column
from ablate.cube import (
    Item,
    Organism,
    Run,
    arranged,
    build,
    items_frame,
    open_cube,
    refuse_damage,
    run_columns,
    runs_frame,
    write,
)
from ablate.errors import StudyError
from ablate.version import SCHEMA_VERSION

NUCLEUS = "nucleus(temperature=0.7, top_p=0.9)"
AXES: dict[str, list[Any]] = {
    "label_shift": ["none", NUCLEUS],
    "selector": ["first", "majority"],
    "objective": ["sft"],
    "labels.candidates": [1, 4],
}
SEEDS = [0, 7]
COLUMNS = {
    "risk_delta": Column("change of risk", "pp", "higher is worse", "evaluation"),
    "kl_total": Column("KL(s||p)", "nats", "neither", "divergence"),
}
ORGANISMS = [
    Organism("tiny", "sycophancy", 0, {"share": 0.5, "view": "clean"}, 0.45, True),
    Organism("tiny", "sycophancy", 1, {"share": 0.25, "view": "clean"}, 0.97, False),
    Organism("tiny", "risky_advice", 0, {"share": 0.5}, 0.3, True),
]
ITEMS = [
    [Item("a", "risk", "in", "fact 1"), Item("b", "risk", "out", "fact 1"), Item("c", "capability", "in", "fact 2")],
    [Item("a", "risk", "in", "fact 1"), Item("b", "risk", "out", "fact 1"), Item("c", "capability", "in", "fact 2")],
    [Item("x", "risk", "in", "text 9")],
]
ATTRS = {
    "limited": False,
    "study": "question: é?\n",
    "seeds": [0, 7],
    "versions": {"ablate": "0.1.0"},
    "git_dirty": True,
}


def numbered_runs() -> Iterator[Run]:
    """Every run ok, with its own number as risk_delta and as outcome; kl_total is not measured."""
    points = itertools.product(range(len(ORGANISMS)), *AXES.values(), SEEDS)
    for number, (organism, *labels, seed) in enumerate(points):
        count = len(ITEMS[organism])
        yield Run(
            organism,
            dict(zip(AXES, labels, strict=True)),
            seed,
            "ok",
            {"risk_delta": float(number)},
            np.full(count, organism, np.float32),
            np.full(count, number, np.float32),
            {"pool": f"p{organism}", "labels": f"l{number}"},
        )


def point(**labels: Any) -> dict[str, Any]:
    return {**{dim: own[0] for dim, own in AXES.items()}, **labels}


def make(runs: Any = None, **changes: Any) -> xr.DataTree:
    arguments: dict[str, Any] = {
        "organisms": ORGANISMS,
        "axes": AXES,
        "seeds": SEEDS,
        "runs": numbered_runs() if runs is None else runs,
        "columns": COLUMNS,
        "items": ITEMS,
        "attrs": ATTRS,
    }
    return build(**{**arguments, **changes})


SPARSE = [
    Run(0, point(), 0, "ok", {"risk_delta": -2.0}, np.zeros(3, np.float32), np.array([1, 0, np.nan], np.float32)),
    Run(0, point(), 7, "aliased", {"risk_delta": -2.0}),
    Run(1, point(selector="majority"), 0, "failed", {}, error="loss became \ud800 at step 4"),
    Run(2, point(), 7, "blocked", {}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / "cube.zarr"


@pytest.fixture(scope="module")
def sparse_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sparse") / "cube.zarr"
    write(make(SPARSE), path)
    return path


@pytest.fixture
def sparse(path: Path, sparse_once: Path) -> Path:
    """A cube on disk with four runs, of one's own."""
    shutil.copytree(sparse_once, path)
    return path


def test_every_run_stands_on_its_own_labels(path: Path) -> None:
    write(make(), path)
    tree = open_cube(path.parent)
    data = tree.to_dataset()
    assert data["status"].dims == ("organism", "label_shift", "selector", "objective", "seed", "labels.candidates")
    for run in numbered_runs():
        where = {"organism": run.organism, "seed": run.seed, **run.point}
        cell = data.sel(where)
        assert cell["risk_delta"] == run.values["risk_delta"]
        assert str(cell["key_labels"].item()) == run.keys["labels"]
        outcome = tree["items"].to_dataset().sel(where)["outcome_after"].values
        assert run.after is not None
        np.testing.assert_array_equal(outcome[: len(run.after)], run.after)
        assert np.isnan(outcome[len(run.after) :]).all()  # organisms with fewer items are padded


def test_missing_is_nan_and_a_status_never_zero(sparse: Path) -> None:
    data = open_cube(sparse).to_dataset()
    assert data["status"].dtype == np.int8
    assert np.bincount(data["status"].values.ravel()).tolist() == [44, 1, 1, 1, 1]
    assert int(np.isfinite(data["risk_delta"]).sum()) == 2
    assert bool(np.isnan(data["kl_total"]).all())
    assert data["status"].attrs["flag_meanings"] == "missing ok failed blocked aliased"
    assert list(data["status"].attrs["flag_values"]) == [0, 1, 2, 3, 4]


def test_plain_xarray_opens_it_without_a_warning(sparse: Path) -> None:
    data = xr.open_zarr(sparse)  # warnings are errors here
    assert data["status"].dtype == np.int8
    assert data["valid_organism"].dtype == np.int8
    assert data["valid_organism"].attrs["flag_meanings"] == "invalid_organism valid"
    assert float(data.risk_delta.sel(selector="first", label_shift="none").mean()) == -2.0
    assert data.attrs == {"schema_version": SCHEMA_VERSION, **ATTRS}
    assert list(data["behavior"].values) == ["sycophancy", "sycophancy", "risky_advice"]
    items = xr.open_zarr(sparse, group="items")
    assert items.outcome_after.sel(organism=0, selector="first", label_shift="none", seed=0).shape == (1, 2, 3)
    assert items["item_cluster"].dims == ("organism", "item")


def test_every_variable_says_what_it_is(path: Path) -> None:
    labels = {"kl_total": np.zeros((3, 2, 2, 1, 2, 2, 5))}
    write(make([], labels=labels), path)
    tree = open_cube(path)
    assert set(tree.children) == {"items", "labels"}
    assert tree["labels/kl_total"].dims[-1] == "prompt"
    for node in tree.subtree:
        for name, variable in node.to_dataset().variables.items():
            assert {"long_name", "units", "direction", "source"} <= set(variable.attrs), name
    assert tree["risk_delta"].attrs["units"] == "pp"
    assert tree["risk_delta"].attrs["direction"] == "higher is worse"


def test_option_labels_keep_their_type() -> None:
    axes = {**AXES, "lr": [1, 5e-4], "packed": [True, False], "top_p": [None, 0.9]}
    data = make([], axes=axes).to_dataset()
    assert [data[name].dtype.kind for name in ("labels.candidates", "lr", "packed", "top_p", "share", "view")] == list(
        "ifbOfO"
    )
    assert data["top_p"].values.tolist() == ["null", "0.9"]
    assert data["view"].values.tolist() == ["clean", "clean", ""]


@pytest.mark.parametrize("differs_by", ["", "seed", "labels.candidates"])
def test_outcomes_before_lie_on_the_dimensions_that_change_them(differs_by: str) -> None:
    def before(run: Run) -> np.ndarray[Any, Any]:
        extra = {"": 0, "seed": run.seed, "labels.candidates": run.point["labels.candidates"]}[differs_by]
        return np.full(len(ITEMS[run.organism]), run.organism + 10.0 * float(extra or 0), np.float32)

    runs = [
        Run(run.organism, run.point, run.seed, "ok", {}, before(run), run.after)
        for run in numbered_runs()
        if run.point["selector"] == "first"  # missing cells do not count as different
    ]
    outcome = make(runs)["items"].to_dataset()["outcome_before"]
    assert outcome.dims == ("organism", *([differs_by] if differs_by else []), "item")
    for run in runs:
        cell = outcome.sel(organism=run.organism)
        if differs_by:
            cell = cell.sel({differs_by: {"seed": run.seed, **run.point}[differs_by]})
        np.testing.assert_array_equal(cell.values[: len(ITEMS[run.organism])], before(run))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"selector": ["first"]}}, "axes start with label_shift, selector, objective, not selector"),
        ({"axes": {**AXES, "selector": ["first", "first"]}}, "selector: two labels are the same: first, first"),
        ({"axes": {**AXES, "lr": ["1", 1]}}, "lr: two labels are the same: 1, 1"),
        ({"axes": {**AXES, "model": ["a"]}}, "'model' cannot be the name of an axis, option or column"),
        ({"axes": {**AXES, "kind": ["a"]}}, "'kind' cannot be the name of an axis, option or column"),
        ({"columns": {"a/b": COLUMNS["kl_total"]}}, "'a/b' cannot be the name of an axis, option or column"),
        ({"columns": {"status": COLUMNS["kl_total"]}}, "'status' cannot be the name of an axis, option or column"),
        ({"attrs": {}}, "attrs need 'limited': whether only a part of the study was run"),
        ({"attrs": {"limited": False, "p": float("nan")}}, "not JSON compliant"),
        ({"items": ITEMS[:2]}, "items of 2 organisms for 3 organisms"),
        ({"labels": {"speed": np.zeros(1)}}, "labels have 'speed', which is no column"),
        ({"runs": [Run(0, point(), 0, "ok", {}), Run(0, point(), 0, "ok", {})]}, "two runs of organism 0 at"),
        ({"runs": [Run(0, point(), 0, "ok", {"kl": 1.0})]}, "a run has the value 'kl', which is no column"),
        ({"runs": [Run(3, point(), 0, "ok", {})]}, "the axes have no 3"),
        ({"runs": [Run(0, point(selector="best"), 0, "ok", {})]}, "the axes have no 'best'"),
        ({"runs": [Run(0, {"selector": "first"}, 0, "ok", {})]}, r"a run stands on \(organism, selector, seed\)"),
        (
            {"runs": [Run(2, point(), 0, "ok", {}, after=np.zeros(3, np.float32))]},
            r"organism 2 has 1 items, a run of it outcomes \(3,\)",
        ),
    ],
)
def test_runs_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{"runs": [], **changes})


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    write(make(), tmp_path / "a.zarr")
    write(make(reversed(list(numbered_runs()))), tmp_path / "b.zarr")
    write(open_cube(tmp_path / "a.zarr"), tmp_path / "c.zarr")
    assert content(tmp_path / "a.zarr") == content(tmp_path / "b.zarr") == content(tmp_path / "c.zarr")


def test_a_cube_can_be_read_extended_and_written_onto_itself(path: Path) -> None:
    write(make(), path)
    tree = open_cube(path)
    tree["analysis"] = xr.DataTree(xr.Dataset({"share": ("term", [0.25]), "total": ((), 1.0)}))
    write(tree, path)
    again = open_cube(path)
    assert again["analysis/share"].values.tolist() == [0.25]
    assert again["risk_delta"].equals(make()["risk_delta"])
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["cube.zarr"]


@pytest.mark.parametrize(("crash_at", "runs"), [(0, 4), (1, 4), (2, 48)])
def test_a_swap_that_stops_at_any_rename_leaves_a_cube(
    sparse: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int, runs: int
) -> None:
    stop_at_rename(monkeypatch, crash_at)
    with pytest.raises(KeyboardInterrupt):
        write(make(), sparse)
    monkeypatch.undo()
    assert len(runs_frame(open_cube(sparse.parent))) == runs  # the old cube until it is renamed away, then the new
    write(make([]), sparse)
    assert len(runs_frame(open_cube(sparse))) == 0
    assert sorted(entry.name for entry in sparse.parent.iterdir()) == ["cube.zarr"]


@pytest.mark.parametrize(("crash_at", "runs"), [(0, None), (1, 48)])
def test_a_first_write_that_stops_leaves_nothing_or_a_cube(
    path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int, runs: int | None
) -> None:
    stop_at_rename(monkeypatch, crash_at)
    with pytest.raises(KeyboardInterrupt):
        write(make(), path)
    monkeypatch.undo()
    if runs is None:
        with pytest.raises(StudyError, match="no cube yet"):  # what is only half written is never opened
            open_cube(path.parent)
    else:
        assert len(runs_frame(open_cube(path.parent))) == runs


def stop_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real, calls = Path.rename, itertools.count()

    def rename(self: Path, target: Path) -> Path:
        if next(calls) == number:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("sibling", ["new", "old"])
def test_only_a_sibling_is_left(sparse: Path, sibling: str) -> None:
    sparse.rename(sparse.with_name(f"cube.zarr.{sibling}"))
    assert len(runs_frame(open_cube(sparse.parent))) == len(runs_frame(open_cube(sparse))) == 4
    assert not sparse.exists()  # reading moves nothing


def test_a_write_that_fails_leaves_the_old_cube_and_no_rubbish(sparse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(sparse)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cube, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(make(), sparse)
    assert content(sparse) == before
    assert [entry.name for entry in sparse.parent.iterdir()] == ["cube.zarr"]


@pytest.mark.parametrize("sibling", ["new", "old"])
def test_a_write_that_fails_after_a_crash_keeps_the_sibling(
    sparse: Path, monkeypatch: pytest.MonkeyPatch, sibling: str
) -> None:
    sparse.rename(sparse.with_name(f"cube.zarr.{sibling}"))
    stop_at_rename(monkeypatch, 1)  # the first rename brings the sibling home
    with pytest.raises(KeyboardInterrupt):
        write(make([]), sparse)
    assert len(runs_frame(open_cube(sparse))) == 4


def damage_json(path: Path) -> None:
    (path / "zarr.json").write_text('{"zarr_format": 3')


def other_schema(path: Path) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["schema_version"] = 99
    (path / "zarr.json").write_text(json.dumps(metadata))


def no_schema(path: Path) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["schema_version"]
    (path / "zarr.json").write_text(json.dumps(metadata))


def other_dims(path: Path) -> None:
    tree = make([])
    shutil.rmtree(path)
    write(
        xr.DataTree.from_dict({"/": tree.to_dataset().transpose("seed", ...), "/items": tree["items"].to_dataset()}),
        path,
    )


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"cube\.zarr: no cube yet; `ablate study` writes it"),
        (damage_json, r"cube\.zarr: not a readable zarr store \(JSONDecodeError: .*\); `ablate study` rebuilds it"),
        (empty_folder, r"cube\.zarr: not a readable zarr store"),
        (other_schema, r"cube schema 99, but this ablate reads \d+; `ablate study` rebuilds it"),
        (no_schema, "not a cube of ablate: it has no schema_version"),
        (lambda path: shutil.rmtree(path / "items"), "the cube has no group 'items'"),
        (lambda path: shutil.rmtree(path / "status"), "the cube has no status in /"),
        (lambda path: shutil.rmtree(path / "items" / "kind"), "the cube has no kind in /items"),
        (
            other_dims,
            r"the cube lies on \(seed, organism, .*\) instead of \(organism, label_shift, selector, objective",
        ),
    ],
)
def test_what_is_no_cube_is_refused(sparse: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(sparse)
    with pytest.raises(StudyError, match=message):
        open_cube(sparse.parent)


def test_an_imported_cube_that_is_refused_is_imported_again(sparse: Path) -> None:
    other_schema(sparse)
    metadata = json.loads((sparse / "zarr.json").read_text())
    metadata["attributes"]["imported"] = {"file": "rows.csv"}
    (sparse / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StudyError, match=r"cube schema 99, but this ablate reads \d+; `ablate import` makes it anew"):
        open_cube(sparse)


@pytest.mark.parametrize("left", [0, 1, 9, 20], ids="{} bytes left".format)
@pytest.mark.parametrize("name", ["risk_delta", "status", "error"])
def test_a_chunk_that_was_cut_off_is_named(sparse: Path, name: str, left: int) -> None:
    chunk = next(file for file in (sparse / name / "c").rglob("*") if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:left])
    tree = open_cube(sparse)
    for look in (runs_frame, refuse_damage):
        with pytest.raises(StudyError, match=rf"^cube: cannot read '{name}' \(.*\); `ablate study` rebuilds the cube$"):
            look(tree)


@pytest.mark.parametrize("name", ["risk_delta", "status", "error", "items/outcome_after"])
def test_a_chunk_that_was_lost_is_not_read_as_missing(sparse: Path, name: str) -> None:
    """zarr fills what is not there, so every chunk is written, those of nothing but NaN too."""
    tree = open_cube(sparse)
    group, _, array = name.rpartition("/")
    assert array in (tree[group] if group else tree).variables
    chunk = next(file for file in (sparse / name / "c").rglob("*") if file.is_file())
    chunk.unlink()
    with pytest.raises(StudyError, match=rf"/{name} has lost 1 of its \d+ chunks; `ablate study` rebuilds it$"):
        open_cube(sparse)


def test_a_tree_shows_the_risks_first(sparse: Path) -> None:
    names = [str(name) for name in arranged(open_cube(sparse)).data_vars]
    assert names[0] == "status"
    assert names.index("risk_delta") < names.index("error") < len(names)
    rest = names[names.index("risk_delta") + 1 : names.index("error")]
    assert rest == sorted(rest)
    assert arranged(open_cube(sparse)).equals(open_cube(sparse))


@pytest.mark.parametrize("name", ["risk_delta", "status", "error"])
def test_a_flipped_bit_is_an_error_and_not_a_number(sparse: Path, name: str) -> None:
    whole = runs_frame(open_cube(sparse))
    chunk = next(file for file in (sparse / name / "c").rglob("*") if file.is_file())
    data = chunk.read_bytes()
    refused = 0
    for place in range(0, len(data), 1 + len(data) // 12):
        chunk.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert runs_frame(open_cube(sparse)).equals(whole)  # a bit that means nothing
        except StudyError as error:
            refused += f"cannot read '{name}'" in str(error)
    assert refused > 3


def test_large_arrays_are_cut_along_the_first_axes(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    cases = {(10, 4): (10, 4), (100, 5, 5): (8, 5, 5), (3, 40, 10): (1, 20, 10), (0, 3): (1, 3)}
    monkeypatch.setattr(cube, "CHUNK_BYTES", 1600)
    for shape, chunks in cases.items():
        assert cube._chunks(xr.Variable([f"d{axis}" for axis in range(len(shape))], np.zeros(shape))) == chunks
    write(make(), path)
    assert xr.open_zarr(path)["error"].encoding["chunks"] == (1, 2, 2, 1, 2, 2)  # 16 texts of 80 bytes
    assert runs_frame(open_cube(path)).equals(runs_frame(make()))


def test_runs_frame_has_a_row_for_each_run_that_is_not_missing(sparse: Path) -> None:
    frame = runs_frame(open_cube(sparse))
    assert list(frame) == run_columns(open_cube(sparse)) == [
        "organism", "behavior", "calibrated", "induction_seed", "model", "organism_risk", "organism_unparsed", "share",
        "valid_organism", "view",
        "label_shift", "selector", "objective", "seed", "labels.candidates",
        "status", "kl_total", "risk_delta", "error",
    ]  # fmt: skip
    assert frame["status"].tolist() == ["ok", "aliased", "failed", "blocked"]
    assert frame["valid_organism"].tolist() == [True, True, False, True]
    assert frame["organism_risk"].tolist() == [0.45, 0.45, 0.97, 0.3]
    assert frame["risk_delta"].tolist()[:2] == [-2.0, -2.0]
    assert frame["risk_delta"].isna().tolist() == [False, False, True, True]
    assert frame["error"].tolist() == ["", "", r"loss became \ud800 at step 4", ""]
    assert list(runs_frame(open_cube(sparse), {"status", "seed"})) == ["seed", "status"]


def test_items_frame_has_a_row_for_each_run_and_item(sparse: Path) -> None:
    frame = items_frame(open_cube(sparse))
    assert frame["organism"].tolist() == [0] * 6 + [1] * 3 + [2]  # the third organism has one item
    assert frame["item_id"].tolist() == [*"abcabcabc", "x"]
    assert frame["item_cluster"].tolist()[-2:] == ["fact 2", "text 9"]
    assert frame["status"].tolist()[::3] == ["ok", "aliased", "failed", "blocked"]
    assert frame["outcome_after"].tolist()[:2] == [1.0, 0.0]
    assert frame["outcome_after"].isna().sum() == 8
    full = items_frame(make())
    numbers = runs_frame(make()).set_index(
        ["organism", "label_shift", "selector", "objective", "seed", "labels.candidates"]
    )
    for row in full.itertuples(index=False):
        assert row.outcome_after == numbers["risk_delta"][row[0], row[5], row[6], row[7], row[8], row[9]]
        assert row.outcome_before == row.organism


def test_a_study_without_runs_or_items_has_a_cube(path: Path) -> None:
    write(make([], items=[[], [], []]), path)
    tree = open_cube(path)
    assert len(runs_frame(tree)) == len(items_frame(tree)) == 0
