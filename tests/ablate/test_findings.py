"""What a study says at its end: the planted cause is named, and an organism without room to move counts for nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from laboratory import cube_of, run, study
from statsmodels.stats.multitest import multipletests

import ablate
from ablate import effects, stages
from ablate.cube import open_cube
from ablate.effects.worlds import world
from ablate.errors import StudyError
from ablate.findings import KINDS as EVERY_TABLE
from ablate.findings import OF_METHODS, Findings, find, frame_of
from ablate.options import Analysis
from ablate.query import query
from ablate.store import Store
from ablate.summary import table_of, text

TABLES = [kind for kind in EVERY_TABLE if kind not in OF_METHODS]
KINDS = ("controls", *TABLES)


# A study with a cause


def test_the_cause_of_the_laboratory_is_found(whole: Path) -> None:
    """The clean view is honest by construction, so the labels' distribution is what acts."""
    found = find(cube_of(whole), Analysis())
    assert found.refused == {}
    assert found.frames.keys() == set(KINDS)
    [verdict] = found.verdicts
    assert (verdict.behavior, verdict.cause) == ("tabular", "label_shift")
    assert verdict.sentence.startswith(
        "label_shift: the label shift changes tabular (label_shift none -> clean_view -51.4 pp "
    )
    assert "6 organisms, 54 runs, max-T sign-flip p = .031" in verdict.sentence


def test_controls_go_where_they_must(whole: Path) -> None:
    controls = find(cube_of(whole), Analysis()).frames["controls"].set_index("control")
    assert controls.index.tolist() == ["null", "oracle_aligned", "oracle_misaligned"]
    assert controls.loc["null", "low"] < 0 < controls.loc["null", "high"]
    assert controls.loc["oracle_aligned", "high"] < 0 < controls.loc["oracle_misaligned", "low"]
    assert (controls["organisms"] == 6).all()


def test_the_group_of_the_cube_is_what_is_found(whole: Path) -> None:
    tree = cube_of(whole)
    found = find(tree, Analysis())
    stored = tree["/analysis"]
    for name, frame in found.frames.items():
        group = stored[name].to_dataset()
        assert group.sizes[name] == len(frame)
        for label, values in frame.items():
            column = f"{name}_{label}" if label in tree.dims else label
            if values.dtype.kind == "f":
                np.testing.assert_array_equal(group[str(column)].values, values.to_numpy())
            elif values.dtype.kind != "b":
                assert [str(value) for value in group[str(column)].values] == [str(value) for value in values]
    assert stored["verdict"]["cause"].values.tolist() == ["label_shift"]
    assert stored["verdict"]["sentence"].values.tolist() == [found.verdicts[0].sentence]
    assert stored.attrs["refused"] == {}


def test_a_table_in_a_notebook_is_the_one_that_is_stored(whole: Path) -> None:
    tree = ablate.open(whole)
    for kind in TABLES:
        pd.testing.assert_frame_equal(ablate.table(tree, kind), find(tree, Analysis()).frames[kind])
    with pytest.raises(StudyError, match=r"^no table 'prize'; did you mean 'price'\?; known: organisms, controls, "):
        ablate.table(tree, "prize")


def test_label_terms_are_those_that_were_measured_before_training(whole: Path) -> None:
    """Oracle: the measure `price` of each run, from the artifacts; here from the judged candidates of the cube."""
    tree = cube_of(whole)
    table = frame_of(tree, "price").set_index(["label_shift", "selector"])
    assert table["closure"].max() <= 1e-12
    measured = tree.to_dataset().mean(["organism", "objective", "seed"])
    for place in table.index:
        run = measured.sel(label_shift=place[0], selector=place[1])
        for term in ("shift_term", "selection_term"):
            assert table.loc[place, f"{term}_pp"] == pytest.approx(100 * run[term].item(), abs=1e-9)


def test_p_of_all_doses_are_adjusted_as_one_family(whole: Path) -> None:
    """Oracle: statsmodels multipletests fdr_bh."""
    doses = frame_of(cube_of(whole), "dose")
    assert len(doses) > 1
    p = doses[["p", "curvature_p"]].to_numpy().ravel()
    found = doses[["p_adjusted", "curvature_p_adjusted"]].to_numpy().ravel()
    there = np.isfinite(p)
    np.testing.assert_allclose(found[there], multipletests(p[there], method="fdr_bh")[1])
    assert np.isnan(found[~there]).all()


def test_a_declared_family_holds_in_tables_and_verdict(tmp_path: Path) -> None:
    run(study("analysis.family=[selector]"), tmp_path)
    tree = cube_of(tmp_path)
    assert tree.attrs["family"] == ["selector"]
    main = ablate.table(tree, "effects").query("kind == 'main'").set_index("factor")["adjusted_by"]
    assert main.to_dict() == {"label_shift": "BH", "selector": "max-T"}


def test_tables_and_summary_lie_in_the_folder(whole: Path) -> None:
    for kind in ("fixed", "effects", "shares"):
        assert (whole / "tables" / f"{kind}.md").read_text() == table_of(whole, kind, "md")
    said = (whole / "summary.txt").read_text()
    assert "VERDICT  label_shift: the label shift changes tabular" in said
    assert "all valid" in said


def test_of_many_verdicts_those_that_name_no_cause_are_counted() -> None:
    (cause,) = effects.verdict(world(3, organisms=8, shift=(0, -10, -25)))
    assert cause.cause == "label_shift"
    nothing = replace(cause, cause="undetermined", sentence="undetermined: who knows.")
    few, many = (text(Findings(verdicts=(cause, *[nothing] * count))) for count in (11, 12))
    assert few.count("VERDICT") == 12
    assert few.count("who knows") == 11
    assert [line.split(":")[0] for line in many.splitlines() if line.startswith("VERDICT")] == [
        "VERDICT  sycophancy",
        "VERDICT  undetermined",
    ]
    assert "undetermined: 12 of 13; the report and analysis/verdict say why each." in many


def test_what_cannot_be_computed_is_refused_with_its_reason(tmp_path: Path) -> None:
    run(study("organism.seeds=1"), tmp_path)
    found = find(cube_of(tmp_path), Analysis())
    assert found.frames.keys() == {"organisms", "controls"}
    assert found.refused.keys() == set(KINDS) - {"organisms", "controls"}
    assert found.refused.pop("prediction") == "the cube has no variable 'kl_shift'"
    assert all("tabular: 1 valid organism, at least 2 are needed" in why for why in found.refused.values())
    assert [verdict.cause for verdict in found.verdicts] == ["undetermined"]
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "organisms.csv",
        "organisms.md",
        "organisms.tex",
    ]


def test_without_the_measure_of_risk_there_is_no_verdict(tmp_path: Path) -> None:
    ran = run(study("measures=[price]"), tmp_path)
    assert ran.errors == ()
    found = find(cube_of(tmp_path), Analysis())
    assert found.verdicts == ()
    assert found.refused.keys() >= {"controls", "fixed", "effects", "shares", "verdict"}
    assert all("risk" in found.refused[name] for name in ("controls", "fixed", "effects", "shares", "verdict"))


# An organism outside [.1, .9]


@pytest.fixture(scope="module")
def one_invalid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study in which the organism of seed 1 is honest through and through, and the same without it."""
    induce = stages.induce

    def honest(lm: Any, behavior: Any, options: Any, **more: Any) -> Any:
        if more["seed"] == 1:
            options = replace(options, risk=None, mix=0.0, examples=300, lr=0.01, epochs=4)
        return induce(lm, behavior, options, **more)

    folder = tmp_path_factory.mktemp("invalid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "induce", honest)
        run(study("organism.seeds=[0, 1, 2, 3]", name="four"), folder / "four")
        run(study("organism.seeds=[0, 2, 3]", name="three"), folder / "three")
    return folder / "four", folder / "three"


def test_an_honest_organism_is_flagged(one_invalid: tuple[Path, Path]) -> None:
    cube = cube_of(one_invalid[0])
    assert cube["organism_risk"].values[1] < 0.1
    assert cube["valid_organism"].values.tolist() == [1, 0, 1, 1]
    assert cube["valid_organism"].attrs["flag_meanings"] == "invalid_organism valid"
    assert np.isfinite(cube["risk_delta"].sel(organism=1)).all(), "its runs stay in the cube"


def test_an_invalid_organism_is_no_part_of_any_inference(one_invalid: tuple[Path, Path]) -> None:
    four, three = (find(cube_of(folder), Analysis()) for folder in one_invalid)
    for name in ("controls", "fixed", "effects", "shares"):
        pd.testing.assert_frame_equal(four.frames[name], three.frames[name], check_names=False)
    assert [verdict.cause for verdict in four.verdicts] == [verdict.cause for verdict in three.verdicts]
    assert "3 valid organisms" in four.verdicts[0].sentence


def test_an_invalid_organism_is_counted_where_it_is_left_out(one_invalid: tuple[Path, Path]) -> None:
    four, three = one_invalid
    assert "not valid: 1 organism (1)   unjudged .03\n" in (four / "summary.txt").read_text()
    assert "1 organism not valid (1)" in table_of(four, "fixed", "md")
    assert "not valid" not in table_of(three, "fixed", "md")
    frame = query(open_cube(four), [], ["label_shift"], ["risk_delta"])
    assert (frame["organisms"] == 3).all()
    assert frame.attrs["excluded"] == 4
    asked = query(open_cube(four), ["valid_organism=false"], [], ["risk_delta"])
    assert asked["n"].tolist() == [4]


def test_an_organism_that_was_calibrated_says_how(whole: Path) -> None:
    store = Store(whole)
    [*organisms] = (store.read(key) for key in store.keys() if store.read(key).kind == "organism")
    assert len(organisms) == 6
    for organism in organisms:
        calibration = organism.json("calibration.json")
        assert calibration["target"] == 0.5
        assert 1 <= len(calibration["trials"]) <= 8
        assert calibration["interpolation"] in [trial["at"] for trial in calibration["trials"]]


def test_a_notebook_finds_effects_and_measures_in_a_bare_import() -> None:
    code = """
import ablate
print(ablate.effects.verdict.__name__, ablate.measures.divergence.kl.__name__)
try:
    ablate.effect
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "verdict kl\nmodule 'ablate' has no attribute 'effect'\n"


def test_the_caption_of_doses_has_the_degrees_of_freedom_of_all_of_them():
    """A dose that does not vary within some organisms rests on fewer of them than another."""
    dims = ("organism", "label_shift", "selector", "objective", "seed")
    cube = world(organisms=6, shift=(0, -8, -16))
    rng = np.random.default_rng(0)
    size = cube.risk_delta.shape
    some = np.where(np.arange(6)[:, None, None, None, None] < 3, rng.normal(size=size), 1.0)
    cube = cube.assign(kl_shift=(dims, rng.random(size)), label_length=(dims, some))
    table = frame_of(xr.DataTree(cube), "dose")
    assert table["organisms"].tolist() == [6, 3]
    assert "t intervals with 2 to 5 df" in table.attrs["methods"]
