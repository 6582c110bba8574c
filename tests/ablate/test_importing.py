"""Somebody's rows as a cube: what is declared, what is refused, and that our own numbers come back."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from laboratory import run as run_study
from laboratory import study as small_study

from ablate import cli
from ablate.cube import open_cube
from ablate.effects.verdict import Verdict
from ablate.errors import StudyError
from ablate.findings import find, frame_of
from ablate.importing import import_rows, imported
from ablate.mapping import Mapped, declared, name_of, pairs, typed
from ablate.options import Analysis
from ablate.query import query, sql
from ablate.rows import open_rows

FACTORS = {"label_shift": "view", "selector": "picker"}
PLAIN = Mapped(factors=FACTORS, unit=("who",), response="after", baseline="before")
LEVELS = (["plain", "clean"], ["top", "best"])


def frame(units: int = 6, seeds: int = 1) -> pd.DataFrame:
    """A label shift of -.2, no selector effect, noise of .01, in the words of somebody else."""
    rng = np.random.default_rng(0)
    rows = [
        {"who": f"u{unit}", "view": view, "picker": picker, "rep": seed, "before": 0.5 + unit / 100,
         "after": round(0.55 + unit / 100 - 0.2 * (view == "clean") + rng.normal(0, 0.01), 6)}
        for unit, view, picker, seed in itertools.product(range(units), *LEVELS, range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


class Made(NamedTuple):
    """What an import says, without its folder."""

    runs: dict[str, int]
    notes: tuple[str, ...]


def made(tmp_path: Path, rows: pd.DataFrame | str, mapped: Mapped | None = PLAIN) -> tuple[xr.DataTree, Made]:
    """The cube of rows, through a file but without a folder."""
    path = tmp_path / "rows.csv"
    path.write_text(rows if isinstance(rows, str) else rows.to_csv(index=False))
    tree, about, notes = imported(open_rows(path), mapped)
    return tree, Made(about["imported"]["runs"], notes)


def written(tmp_path: Path, rows: pd.DataFrame, mapped: Mapped = PLAIN) -> Path:
    """The folder of rows."""
    (tmp_path / "rows.csv").write_text(rows.to_csv(index=False))
    return import_rows(tmp_path / "rows.csv", mapped, tmp_path / "out").folder


# Round trip


@pytest.fixture(scope="module")
def back(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a study, exported as CSV and imported again."""
    folder = tmp_path_factory.mktemp("back")
    sql(open_cube(whole), "select * from runs").to_csv(folder / "whole.csv", index=False)
    mapped = Mapped(
        factors={name: name for name in ("label_shift", "selector", "objective")},
        unit=("organism",),
        response="risk_after",
        baseline="risk_before",
        seed="seed",
        items=12,
    )
    return import_rows(folder / "whole.csv", mapped, folder / "out").folder


@pytest.mark.parametrize("kind", ["fixed", "effects", "shares", "missing", "dose"])
def test_a_studys_runs_come_back_with_the_same_tables(whole: Path, back: Path, kind: str) -> None:
    one, other = (frame_of(open_cube(folder), kind) for folder in (whole, back))
    pd.testing.assert_frame_equal(one, other, rtol=1e-12, check_exact=False)


def test_a_studys_runs_come_back_with_the_same_verdict(whole: Path, back: Path) -> None:
    one, other = (find(open_cube(folder), Analysis()).verdicts for folder in (whole, back))
    assert isinstance(one[0], Verdict)
    assert one == other
    assert one[0].cause == "label_shift"


def test_a_studys_runs_come_back_as_they_were(whole: Path, back: Path) -> None:
    one, other = (sql(open_cube(folder), "select * from runs") for folder in (whole, back))
    pd.testing.assert_frame_equal(one, other[list(one)], check_dtype=False)


# Declared


def test_columns_of_other_names_play_the_mechanisms(tmp_path: Path) -> None:
    tree, said = made(tmp_path, frame())
    data = tree.to_dataset()
    assert data.risk_delta.dims == ("organism", "label_shift", "selector", "objective", "seed")
    assert data.organism.values.tolist() == [f"u{i}" for i in range(6)]
    assert data.label_shift.values.tolist() == ["plain", "clean"]
    assert data.objective.values.tolist() == ["undeclared"]
    assert set(data.behavior.values) == {"after"}
    assert said.runs == {"ok": 24}
    effect = frame_of(tree, "fixed").set_index(["held", "swapped"])["effect_pp"]
    assert effect["selector = top", "label_shift plain -> clean"] == pytest.approx(-20, abs=1)


@pytest.mark.parametrize(("items", "cause"), [(0, "undetermined"), (128, "label_shift")])
def test_a_risk_of_0_needs_the_number_of_items_for_a_verdict(tmp_path: Path, items: int, cause: str) -> None:
    rows = frame()
    rows["after"] = (rows["after"] - 0.4).clip(0)  # some are 0, which has no logit
    mapped = Mapped(factors=FACTORS, unit=("who",), response="after", baseline="before", items=items)
    tree, _ = made(tmp_path, rows, mapped)
    [verdict] = find(tree, Analysis()).verdicts
    assert verdict.cause == cause
    assert tree.attrs.get("items") == ({"after": 128} if items else None)


def test_the_null_level_is_declared(tmp_path: Path) -> None:
    mapped = Mapped(factors=FACTORS, unit=("who",), response="after", baseline="before", nulls={"label_shift": "clean"})
    tree, _ = made(tmp_path, frame(), mapped)
    assert tree.label_shift.values.tolist() == ["clean", "plain"]
    assert "label_shift clean -> plain" in set(frame_of(tree, "fixed")["swapped"])


@pytest.mark.parametrize(
    ("nulls", "message"),
    [
        ({"label_shift": "claen"}, "--null: label_shift has no level 'claen'; did you mean 'clean'? (levels: plain, "),
        ({"labelshift": "clean"}, "--null: 'labelshift' is no factor; did you mean 'label_shift'?"),
    ],
)
def test_a_null_level_that_is_none(tmp_path: Path, nulls: dict[str, str], message: str) -> None:
    mapped = Mapped(factors=FACTORS, unit=("who",), response="after", nulls=nulls)
    with pytest.raises(StudyError) as error:
        made(tmp_path, frame(), mapped)
    assert str(error.value).startswith(message)


def test_without_a_baseline_effects_are_the_same_and_there_is_no_null_control(tmp_path: Path) -> None:
    rows = frame().replace({"view": {"plain": "none"}, "picker": {"top": "first"}}).assign(objective="sft")
    factors = FACTORS | {"objective": "objective"}
    kept = [tmp_path / "with", tmp_path / "without"]
    for folder in kept:
        folder.mkdir()
    with_, _ = made(kept[0], rows, Mapped(factors=factors, unit=("who",), response="after", baseline="before"))
    without, said = made(kept[1], rows, Mapped(factors=factors, unit=("who",), response="after", items=64))
    one, other = (frame_of(tree, "fixed") for tree in (with_, without))
    assert one["kind"].tolist()[0] == "null control"
    pd.testing.assert_frame_equal(one.iloc[1:].reset_index(drop=True), other)
    assert np.isnan(without.to_dataset().risk_before).all()
    assert without.to_dataset().risk_delta.isel(label_shift=0, selector=0).values == pytest.approx(0)
    assert "no --baseline: the change of risk is against the organism's own runs" in said.notes[0]
    assert find(without, Analysis()).verdicts[0].cause == "label_shift"


@pytest.mark.parametrize(("scale", "factor"), [("percent", 100.0), ("pp", 100.0)])
def test_the_unit_of_the_response_is_declared(tmp_path: Path, scale: Any, factor: float) -> None:
    rows = frame()
    if scale == "pp":
        rows["after"] = (rows["after"] - rows["before"]) * factor
        mapped = Mapped(factors=FACTORS, unit=("who",), response="after", scale=scale)
    else:
        rows[["before", "after"]] *= factor
        mapped = Mapped(factors=FACTORS, unit=("who",), response="after", baseline="before", scale=scale)
    tree, _ = made(tmp_path, rows, mapped)
    wanted = frame()["after"] - frame()["before"]
    np.testing.assert_allclose(tree.to_dataset().risk_delta.values.ravel(), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "value", "message"),
    [
        ("probability", "37.5", "has 37.5, which is not in [0, 1] as --scale probability says; is it in another unit "
                                "(--scale percent)?"),
        ("probability", "-0.2", "has -0.2, which is not in [0, 1] as --scale probability says; is it in another unit "
                                "(--scale pp)?"),
        ("percent", "101", "has 101, which is not in [0, 100] as --scale percent says"),
        ("pp", "-101", "has -101, which is not in [-100, 100] as --scale pp says"),
    ],
)  # fmt: skip
def test_a_unit_is_never_guessed(tmp_path: Path, scale: Any, value: str, message: str) -> None:
    text = f"who,view,picker,after\na,x,y,0\nb,x,y,{value}\n"
    with pytest.raises(StudyError) as error:
        made(tmp_path, text, Mapped(factors=FACTORS, unit=("who",), response="after", scale=scale))
    assert f"rows.csv:3: column 'after' {message}" in str(error.value)


def test_other_factors_are_dimensions_in_their_own_type(tmp_path: Path) -> None:
    rows = frame(seeds=2).rename(columns={"rep": "config.train-lr"})
    rows["config.train-lr"] = rows["config.train-lr"].map({0: 0.001, 1: 0.01})
    mapped = declared("label_shift=view,selector=picker,config.train-lr", "who", "after", "before",
                      "probability", "", "", "", "", "", "", 0)  # fmt: skip
    tree, _ = made(tmp_path, rows, mapped)
    assert tree.to_dataset().train_lr.values.tolist() == [0.001, 0.01]
    found = query(tree, ["train_lr<0.005"], ["label_shift"], ["risk_delta"])
    assert found["n"].tolist() == [12, 12]


def test_a_missing_cell_is_missing_and_never_zero(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[3, "after"] = math.nan
    tree, said = made(tmp_path, rows.drop(index=7))
    assert said.runs == {"missing": 2, "ok": 22}
    data = tree.to_dataset()
    for unit in (0, 1):
        cell = data.isel(organism=unit, label_shift=1, selector=1).squeeze()
        assert (int(cell.status), math.isnan(float(cell.risk_delta))) == (0, True)
        assert math.isnan(float(cell.risk_after))


def test_trackers_exports_are_read_as_they_are(tmp_path: Path) -> None:
    rows = frame().rename(columns={"view": "config.label_shift", "picker": "config.selector", "after": "metrics/after"})
    rows.insert(0, "Name", [f"quiet-frost-{i}" for i in range(len(rows))])
    rows.insert(1, "State", ["finished", "crashed", *["FINISHED"] * 21, "running"])
    mapped = declared("config.label_shift,config.selector", "who", "metrics/after", "before", "probability", "", "",
                      "", "", "", "", 0)  # fmt: skip
    tree, said = made(tmp_path, rows, mapped)
    assert said.runs == {"missing": 1, "ok": 22, "failed": 1}
    assert "2 runs that did not finish have a number, which is not used" in said.notes[0]
    assert np.isnan(tree.to_dataset().risk_after.values.ravel()[1])
    assert said.notes[-1] == "not used: Name, rep"
    assert set(tree.behavior.values) == {"after"}


def test_one_unit_under_two_behaviors_is_two_organisms(tmp_path: Path) -> None:
    both = pd.concat([frame().assign(behavior="syc"), frame().assign(behavior="hack")])
    tree, _ = made(tmp_path, both)
    assert tree.organism.values.tolist() == [f"{b} / u{i}" for b in ("syc", "hack") for i in range(6)]
    assert set(frame_of(tree, "fixed")["behavior"]) == {"syc", "hack"}


def test_provenance_says_where_runs_came_from(tmp_path: Path) -> None:
    folder = written(tmp_path, frame())
    about = json.loads((folder / "provenance.json").read_text())
    source = about["imported"]
    assert open_cube(folder).attrs["imported"] == source
    assert (source["file"], source["rows"], source["runs"]) == ("rows.csv", 24, {"ok": 24})
    assert len(source["sha256"]) == 64
    assert source["mapping"]["factors"] == FACTORS
    assert source["note"] == "these runs were imported, not made here"
    assert str(tmp_path) not in json.dumps(about)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("cube.zarr", "provenance.json", "study.json", "summary.txt", "tables")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.csv"]


def test_no_study_writes_into_an_imported_folder(tmp_path: Path) -> None:
    folder = written(tmp_path, frame())
    with pytest.raises(StudyError, match=r"out holds study 'import of rows.csv', not 'small'; choose another folder"):
        run_study(small_study(), folder)


# Refused


def test_two_rows_in_a_cell_are_refused_with_both_places(tmp_path: Path) -> None:
    rows = frame(seeds=2)
    with pytest.raises(StudyError) as error:
        written(tmp_path, rows)
    assert str(error.value) == (
        f"{tmp_path}/rows.csv:3: a second run of organism = u0, label_shift = plain, selector = top; the first is at "
        f"{tmp_path}/rows.csv:2. If they are replicates, name the column that tells them apart: --seed COLUMN; if "
        "another option differs, --factors"
    )
    assert not (tmp_path / "out").exists()
    tree, _ = made(tmp_path, rows, Mapped(factors=FACTORS, unit=("who",), response="after", seed="rep"))
    assert tree.to_dataset().sizes["seed"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,x,,1\n", "rows.csv:2: column 'picker' is empty; every run needs its level"),
        ("a,x,y,1\n,x,y,1\n", "rows.csv:3: column 'who' is empty; every run needs its level"),
        ("a,x,y\x1b[2J,1\n", r"rows.csv:2: column 'picker': 'y\x1b[2J' has a control character and cannot be a level"),
        (f"a,x,{'y' * 300},1\n", f"rows.csv:2: column 'picker': '{'y' * 60}...' has more than 200 characters and"),
        ("a,x,y,low\n", "rows.csv:2: column 'after' has 'low', which is no finite number"),
        ("a,x,y,1\nb,z,y,1\n", "factors: every organism has one level of 'label_shift' only: it tells organisms apart"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        made(tmp_path, f"who,view,picker,after\n{text}", Mapped(factors=FACTORS, unit=("who",), response="after"))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"response": "aftr"},
            "--response: {}/rows.csv has no column 'aftr'; did you mean 'after'? (columns: who, view",
        ),
        ({"unit": ("how",)}, "--unit: {}/rows.csv has no column 'how'; did you mean 'who'?"),
        ({"factors": {"label_shift": "veiw"}}, "--factors: {}/rows.csv has no column 'veiw'; did you mean 'view'?"),
        (
            {"factors": {"label_shift": "view", "selector": "view"}},
            "column 'view' cannot be label_shift and selector at",
        ),
        ({"factors": {"label_shift": "view", "status": "picker"}}, "factors: 'status' cannot be the name of an axis"),
        ({"scale": "pp"}, "--baseline: a response in pp is a change already, it has no baseline; leave it out"),
    ],
)
def test_columns_that_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {
        "factors": FACTORS,
        "unit": ("who",),
        "response": "after",
        "baseline": "before",
    } | changed
    with pytest.raises(StudyError) as error:
        made(tmp_path, frame(), Mapped(**options))
    assert str(error.value).startswith(message.format(tmp_path))


def test_a_grid_out_of_all_proportion_is_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"who": range(300), "view": range(300), "picker": range(300), "after": 0.5})
    other = rows.assign(**{name: rows[name].shift(1, fill_value=0) for name in ("view", "picker")})
    with pytest.raises(
        StudyError, match=r"^factors: 300 organism x 300 label_shift x 300 selector are 27,000,000 cells"
    ):
        made(tmp_path, pd.concat([rows, other.iloc[1:]]), Mapped(
            factors=FACTORS, unit=("who",), response="after"))  # fmt: skip


def test_a_state_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as error:
        made(tmp_path, frame().assign(State="finsihed"))
    assert "rows.csv:2: column 'State' has 'finsihed', which is no state of a run; did you mean 'finished'?" in str(
        error.value
    )


def test_what_is_known_of_an_organism_is_the_same_in_its_rows(tmp_path: Path) -> None:
    rows = frame().assign(induction_seed=range(24))
    with pytest.raises(StudyError) as error:
        made(tmp_path, rows)
    assert "rows.csv:3: organism u0 has induction_seed 1, and 0 at" in str(error.value)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(StudyError, match="out: is there already; choose another folder with --out"):
        written(tmp_path, frame())
    assert (tmp_path / "out" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,b", {"a": "a", "b": "b"}),
        ("label_shift=view, lr = config.lr", {"label_shift": "view", "lr": "config.lr"}),
        ("config.lr,params/k-max", {"lr": "config.lr", "k_max": "params/k-max"}),
        ("method", {"method_name": "method"}),
    ],
)
def test_pairs(text: str, found: dict[str, str]) -> None:
    assert pairs(text, "--factors") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,,b", "--factors: cannot read ''; write COLUMN or NAME=COLUMN"),
        ("1a", "--factors: cannot read '1a'; write"),
        ("a=", "--factors: cannot read 'a='; write"),
        ("config.a,a", "--factors: 'a' is named twice; write NAME=COLUMN for one of them"),
    ],
)
def test_pairs_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        pairs(text, "--factors")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["1", "-2"], [1, -2]),
        (["1", "0.5", "2e-4"], [1.0, 0.5, 2e-4]),
        (["007", "7"], ["007", "7"]),
        (["true", "false"], [True, False]),
        (["True"], [True]),
        (["1", "x"], ["1", "x"]),
        (["1e999x", "nan"], ["1e999x", "nan"]),
    ],
)
def test_labels_keep_their_type(labels: list[str], found: list[Any]) -> None:
    assert typed(labels) == found
    assert [type(label) for label in typed(labels)] == [type(label) for label in found]


def test_names_of_columns() -> None:
    assert [name_of(name) for name in ("config.lr", "mmlu/accuracy", "a-b", "lr")] == [
        "lr",
        "mmlu_accuracy",
        "a_b",
        "lr",
    ]


# The command


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return exit_.value.code, out, err


def test_the_command_and_all_others_on_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text(frame().to_csv(index=False))
    out = tmp_path / "runs"
    code, said, err = run(
        capsys, "import", tmp_path / "rows.csv", "--factors", "label_shift=view,selector=picker", "--unit", "who",
        "--response", "after", "--baseline", "before", "--items", 64, "--null", "label_shift=plain", "--out", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert said.startswith("imported 24 rows as 24 ok\nnot used: rep\norganisms ")
    assert "VERDICT  label_shift: the label shift changes after (label_shift plain -> clean -" in said
    assert said.endswith(f"cube    {out / 'cube.zarr'}\n")
    assert (out / "tables" / "fixed.md").is_file()
    for words in (["table", out], ["table", out, "--kind", "shares"], ["table", out, "--kind", "organisms"],
                  ["query", out, "--by", "label_shift"], ["query", out, "--sql", "select count(*) from items"],
                  ["compare", out, out], ["status", out]):  # fmt: skip
        assert run(capsys, *words)[0] == 0, words
    assert run(capsys, "status", out)[1].startswith("runs imported from rows.csv (sha256 ")
    assert run(capsys, "table", out, "--kind", "price")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "not the result table of a known program (those have base_model, misalignment, method, seed, phase, epoch)",
        ),
        (["--factors", "view"], "--unit, --response: needed to say what the columns are"),
        (["--seed", "rep"], "--factors, --unit, --response: needed to say what the columns are"),
        (
            ["--factors", "view", "--unit", "who", "--response", "after", "--null", "x"],
            "--null: cannot read 'x'; write",
        ),
    ],
)
def test_too_little_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    (tmp_path / "rows.csv").write_text(frame().to_csv(index=False))
    code, out, err = run(capsys, "import", tmp_path / "rows.csv", "--out", tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("name", ["items", "labels", "controls", "analysis", "induction"])
def test_a_column_called_like_a_group_is_refused(tmp_path: Path, name: str) -> None:
    rows = frame().assign(**{name: 1.0})
    with pytest.raises(StudyError, match=f"'{name}' cannot be the name of an axis, option or column"):
        made(tmp_path, rows, replace(PLAIN, values={name: name}))


def test_the_current_folder_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text(frame().to_csv(index=False))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(StudyError, match="choose another with --out"):
        import_rows(tmp_path / "rows.csv", PLAIN, Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "rows.csv"]
