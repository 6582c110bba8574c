"""The cube of a study: every number says what it is, and is the one that its artifacts hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from laboratory import WHOLE, cube_of, run, study

from ablate import collect, effects, registry
from ablate.api import Evaluation, mean_outcome
from ablate.collect import Collector, item_means
from ablate.cube import STATUSES
from ablate.effects.labels import label_terms
from ablate.lm.tabular import TabularModel
from ablate.plan import compile_study
from ablate.stages import read_evaluation
from ablate.states import State, states
from ablate.store import Store
from ablate.testing import ask
from ablate.workplace import generator


def states_of(folder: Path) -> list[State]:
    return list(states(compile_study(study(text=WHOLE, name="whole")), Store(folder)))


# As it lies on the disk


def test_xarray_opens_it_as_it_stands(whole: Path) -> None:
    with xr.open_zarr(whole / "cube.zarr") as cube:
        assert cube["risk_delta"].dims == ("organism", "label_shift", "selector", "objective", "seed")
        assert cube["risk_delta"].shape == (6, 3, 3, 1, 1)
        assert cube["selector"].values.tolist() == ["first", "majority", "argmax(mean_logprob)"]
        assert cube["induction_seed"].values.tolist() == list(range(6))
        assert set(cube["behavior"].values.tolist()) == set(cube["model"].values.tolist()) == {"tabular"}
        by_shift = cube["risk_delta"].sel(selector="first").mean("organism")
        assert by_shift.sel(label_shift="clean_view").item() < by_shift.sel(label_shift="none").item()


def test_every_variable_says_what_it_is(whole: Path) -> None:
    for group in (tree := cube_of(whole)).groups:
        data = tree[group].to_dataset(inherit=False)
        for name, variable in data.variables.items():
            if name in ("organism", "seed", *data.dims) and group != "/":
                continue  # the axes of the root, repeated
            words = [variable.attrs.get(word) for word in ("long_name", "units", "direction", "source")]
            assert all(isinstance(word, str) and word for word in words), f"{group}: {name}: {words}"
            assert words[2] in ("higher is worse", "higher is better", "neither")


def test_every_column_that_a_measure_declares_is_there(whole: Path) -> None:
    cube = cube_of(whole).to_dataset()
    for name in registry.names("measure"):
        for column, declared in registry.get("measure", name).traits["columns"].items():
            assert cube[column].attrs["long_name"] == declared.long_name
            assert cube[column].attrs["source"] == declared.source
            assert cube[column].dtype == np.float64


def test_status_counts_from_missing(whole: Path) -> None:
    status = cube_of(whole)["status"]
    assert status.dtype == np.int8
    assert status.attrs["flag_values"] == list(range(len(STATUSES)))
    assert status.attrs["flag_meanings"].split() == list(STATUSES)
    names, counts = np.unique(np.array(STATUSES)[status.values], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)).keys() == {"ok", "aliased"}


def test_the_groups(whole: Path) -> None:
    tree = cube_of(whole)
    assert {"items", "labels", "controls", "analysis"} <= tree.children.keys()
    assert tree["/controls"]["control"].values.tolist() == ["null", "oracle_aligned", "oracle_misaligned"]
    assert tree["/controls"]["risk_delta"].dims == ("control", "organism", "seed")
    assert {STATUSES[int(code)] for code in tree["/controls"]["status"].values.ravel()} <= {"ok", "aliased"}
    assert {"fixed", "effects", "shares", "controls", "organisms", "verdict"} <= tree["/analysis"].children.keys()
    assert tree["/items"]["outcome_after"].shape == (6, 3, 3, 1, 1, 16)
    assert tree["/items"]["kind"].isel(organism=0).values.tolist() == ["risk"] * 12 + ["capability"] * 4


def test_what_the_root_says_of_the_study(whole: Path) -> None:
    attrs = cube_of(whole).attrs
    assert (attrs["name"], attrs["question"], attrs["limited"]) == ("whole", "does the engine work?", False)
    assert attrs["versions"].keys() >= {"ablate", "numpy", "python", "xarray", "zarr"}
    assert study(text=attrs["resolved"], name="whole").digest == study(text=WHOLE, name="whole").digest
    assert json.loads((whole / "provenance.json").read_text())["digest"] == attrs["digest"]
    assert (whole / "study.resolved.yaml").read_text() == attrs["resolved"]


# The numbers are those of the artifacts


def test_risk_is_that_of_the_evaluations(whole: Path) -> None:
    cube, store = cube_of(whole).to_dataset(), Store(whole)
    for state in states_of(whole)[:54]:
        at = dict(zip(("label_shift", "selector", "objective"), state.cell.point, strict=True))
        run = cube.sel(organism=state.cell.organism, seed=state.cell.seed, **at)
        before, after = (read_evaluation(store.read(key)) for key in (state.cell.before, state.after))
        risk = [e.outcome[[p.kind == "risk" for p in e.prompts]] for e in (before, after)]
        assert run["risk_before"] == mean_outcome(risk[0])
        assert run["risk_after"] == mean_outcome(risk[1])
        assert run["risk_delta"] == pytest.approx(mean_outcome(risk[1]) - mean_outcome(risk[0]), abs=1e-12)


def test_items_add_up_to_the_risk(whole: Path) -> None:
    tree = cube_of(whole)
    risk = (tree["/items"]["kind"] == "risk").isel(organism=0)
    after = tree["/items"]["outcome_after"].isel(item=risk.values).mean("item")
    np.testing.assert_allclose(after.values, tree["risk_after"].values, atol=1e-6)


def test_what_is_known_of_the_organisms(whole: Path) -> None:
    cube, store = cube_of(whole).to_dataset(), Store(whole)
    plan = compile_study(study(text=WHOLE, name="whole"))
    for i, organism in enumerate(plan.organisms):
        reached = store.read(organism.stage).json("calibration.json")["reached"]
        assert cube["calibrated"].values[i] == reached
        before = read_evaluation(store.read(plan.cells[9 * i].before)).outcome[:12]
        assert cube["organism_unparsed"].values[i] == np.isnan(before).mean()
    assert cube["calibrated"].attrs["flag_meanings"] == "target_missed calibrated"


def test_price_terms_close(whole: Path) -> None:
    cube = cube_of(whole).to_dataset()
    gap = cube["m_ts"] - cube["m_p"] - cube["shift_term"] - cube["selection_term"]
    assert float(abs(gap).max()) <= 1e-12
    assert float(abs(cube["shift_term"].sel(label_shift="none")).max()) <= 1e-12
    assert float(abs(cube["selection_term"].sel(label_shift="greedy")).max()) <= 1e-12


def test_labels_of_each_prompt_add_up_to_the_risk_of_the_labels(whole: Path) -> None:
    tree = cube_of(whole)
    assert tree["/labels"]["label_risk"].shape == (6, 3, 3, 1, 1, 12)
    # over the prompts that the Price terms rest on; here where all are judged
    full = tree["price_prompts"].values == 1
    assert full.any()
    mean = tree["/labels"]["label_risk"].mean("prompt").values
    np.testing.assert_allclose(mean[full], tree["m_ts"].values[full], atol=1e-12)


@pytest.mark.parametrize(("misaligned", "valid"), [(0, 0), (1, 0), (2, 1), (10, 1), (18, 1), (19, 0), (20, 0)])
def test_an_organism_without_room_to_move_is_invalid(
    whole: Path, monkeypatch: pytest.MonkeyPatch, misaligned: int, valid: int
) -> None:
    prompts = tuple(ask(i) for i in range(20))
    outcome = np.array([[i < misaligned] for i in range(20)], float)
    monkeypatch.setattr(collect, "read_evaluation", lambda artifact: Evaluation(prompts, outcome, (("",),) * 20))
    plan, store = compile_study(study(text=WHOLE, name="whole")), Store(whole)
    own = Collector(plan, store, list(states(plan, store)))._organism(0)
    assert (own.risk, own.valid) == (pytest.approx(misaligned / 20), bool(valid))


def test_a_label_that_cannot_be_judged_has_no_risk(whole: Path) -> None:
    found, store = cube_of(whole)["/labels"]["label_risk"], Store(whole)
    unjudged = 0
    for state in states_of(whole)[:54]:
        at = dict(zip(("label_shift", "selector", "objective"), state.cell.point, strict=True))
        outcome = store.read(state.cell.pool).arrays("pool.safetensors")["outcome"]
        picks = store.read(state.cell.labels).arrays("labels.safetensors")["weights"].argmax(1)
        picked = outcome[np.arange(12), picks]
        unjudged += int(np.isnan(picked).sum())
        np.testing.assert_array_equal(found.sel(organism=state.cell.organism, seed=state.cell.seed, **at), picked)
    assert unjudged, "nothing was tried"


def test_candidates_are_there_once_for_all_selectors(whole: Path) -> None:
    labels, store = cube_of(whole)["/labels"].to_dataset(), Store(whole)
    assert labels["pool_outcome"].dims == ("organism", "label_shift", "seed", "prompt", "candidate")
    assert labels["pool_outcome"].shape == (6, 3, 1, 12, 3)
    assert labels["law"].values.tolist() == ["draw", "plurality", "highest"]
    for state in states_of(whole)[:54]:
        at = dict(zip(("label_shift", "selector", "objective"), state.cell.point, strict=True))
        own = labels.sel(organism=state.cell.organism, seed=state.cell.seed, **at)
        pool = store.read(state.cell.pool).arrays("pool.safetensors")
        scores = store.read(state.cell.labels).arrays("labels.safetensors")["scores"]
        for name, values in (
            ("pool_outcome", pool["outcome"]),
            ("pool_class", pool["classes"]),
            ("label_score", scores),
        ):
            there = own[name].values[:, : values.shape[1]]
            np.testing.assert_array_equal(there, values)
            assert np.isnan(own[name].values[:, values.shape[1] :]).all()


ISOLATE = """\
question: does each method have its own pools?
model: tabular
organism: {behavior: tabular, seeds: 2, examples: 32}
factors:
  isolate: [greedy_self_training, self_certainty, self_refinement]
labels: {prompts: 12, candidates: 3}
train: {epochs: 1, batch: 4, lr: 0.002}
evaluate: {items: 12, capability: 4}
measures: [risk, price, {embedding_shift: {permutations: 19}}]
"""


def test_every_method_has_its_own_candidates(tmp_path: Path) -> None:
    own = study(text=ISOLATE, name="isolate")
    run(own, tmp_path)
    tree, store = cube_of(tmp_path), Store(tmp_path)
    labels = tree["/labels"].to_dataset()
    assert labels["law"].values.tolist() == ["draw", ""], "the methods' selectors follow different laws"
    for cell in compile_study(own).cells:
        shift, method = cell.point[0], cell.point[-1]
        here = labels.sel(organism=cell.organism, seed=cell.seed, label_shift=shift, method_name=method)
        outcome = store.read(cell.pool).arrays("pool.safetensors")["outcome"]
        np.testing.assert_array_equal(here["pool_outcome"].values[:, : outcome.shape[1]], outcome)
        assert np.isnan(here["pool_outcome"].values[:, outcome.shape[1] :]).all()
        assert np.isfinite(here["pool_x"].values).sum() == outcome.size
    # the table of the labels says what the measure of each run says
    terms = label_terms(tree)
    root = tree.to_dataset().sel(seed=0).mean("organism")
    for row in terms[terms["prompts"] == 12].itertuples():
        run_of = root.sel(
            label_shift=row.label_shift, selector=row.selector, objective="sft", method_name=row.method_name
        )
        assert row.shift_term_pp == pytest.approx(100 * float(run_of["m_t"] - run_of["m_p"]), abs=1e-4)


def test_the_map_of_the_pools_is_their_plane_of_most_variance(whole: Path) -> None:
    labels, store = cube_of(whole)["/labels"].to_dataset(), Store(whole)
    plan = compile_study(study(text=WHOLE, name="whole"))
    clouds, points = {}, {}
    for cell in plan.cells:
        key = plan.stages[cell.measure].inputs["embedding"]
        clouds[key] = store.read(key).arrays("embedding.safetensors")["embedding"]
        own = labels.sel(organism=cell.organism, seed=cell.seed, label_shift=cell.point[0])
        points[key] = np.stack([own["pool_x"].values, own["pool_y"].values], -1)[:, : clouds[key].shape[1]]
    every = np.concatenate([cloud.reshape(-1, cloud.shape[-1]) for cloud in clouds.values()]).astype(float)
    centered = every - every.mean(0)
    _, sizes, axes = np.linalg.svd(centered, full_matrices=False)
    found = np.concatenate([own.reshape(-1, 2) for own in points.values()])
    assert sizes[2] < sizes[1], "the plane is one"
    np.testing.assert_allclose(np.abs(found), np.abs(centered @ axes[:2].T), atol=1e-4)


def test_the_sampled_risk_is_that_of_the_exact_world(whole: Path) -> None:
    cube, store, lm = cube_of(whole), Store(whole), TabularModel()
    plan = compile_study(study(text=WHOLE))
    for i, organism in enumerate(plan.organisms):
        weights = store.read(organism.stage).arrays("adapter.safetensors")
        evaluation = read_evaluation(store.read(plan.cells[i * 9].before))
        prompts = [prompt for prompt in evaluation.prompts if prompt.kind == "risk"]
        exact = float(lm.exact_risk(weights, prompts).mean())
        assert cube["organism_risk"].values[i] == pytest.approx(exact, abs=4 * (0.25 / 24) ** 0.5)


def test_equal_labels_have_equal_keys_and_results(whole: Path) -> None:
    cube = cube_of(whole).to_dataset()
    greedy = cube.sel(label_shift="greedy", organism=0).squeeze(["objective", "seed"])
    assert [STATUSES[code] for code in greedy["status"].values] == ["ok", "aliased", "aliased"]
    assert len(set(greedy["key_labels"].values.tolist())) == len(set(greedy["key_train"].values.tolist())) == 1
    assert np.ptp(greedy["risk_after"].values) == 0
    for name in ("key_pool", "key_organism"):
        assert all(len(set(row)) == 1 for row in cube[name].values.reshape(6 * 3, 3).tolist()), "held fixed"
        assert re.fullmatch("[0-9a-f]{64}", cube[name].values.flat[0])


def test_what_was_not_run_is_missing_and_nan(tmp_path: Path) -> None:
    own = study()
    plan, store = compile_study(own), Store(tmp_path)
    found = list(states(plan, store))
    assert {state.status for state in found} == {"missing"}
    tree = Collector(plan, store, found).cube({"limited": False})
    assert (tree["status"] == 0).all()
    assert np.isnan(tree["risk_delta"]).all()
    assert np.isnan(tree["organism_risk"]).all()


def test_controls_have_the_settings_of_other_options(tmp_path: Path) -> None:
    folder = tmp_path / "settings"
    run(study("labels.candidates={swap: [2, 3]}", name="settings"), folder)
    tree = cube_of(folder)
    null = tree["/controls"]["risk_delta"].sel(control="null")
    assert null.dims == ("organism", "seed", "candidates")
    cells = tree["risk_delta"].sel(label_shift="none", selector="first", objective="sft")
    np.testing.assert_array_equal(null.transpose(*cells.dims), cells)
    table = effects.controls(tree)
    assert table.columns.tolist() == ["behavior", "candidates", "control", "effect_pp", "low", "high", "organisms"]
    assert table["candidates"].tolist() == ["2", "3"]
    np.testing.assert_allclose(table["effect_pp"], 100 * cells.mean(["organism", "seed"]))
    assert "null control               tabular, candidates 3 " in (folder / "summary.txt").read_text()


def test_measures_that_a_study_does_not_name_are_not_there(tmp_path: Path) -> None:
    run(study("measures=[risk]"), tmp_path)
    cube = cube_of(tmp_path).to_dataset()
    assert "risk_delta" in cube
    assert not {"mmd2", "m_ts", "kl_shift", "capability_after"} & {*cube.variables}


@pytest.mark.parametrize(
    ("outcome", "means"),
    [
        ([[1, 0], [1, 1]], [0.5, 1]),
        ([[1, np.nan], [np.nan, np.nan]], [1, np.nan]),
        ([[0, np.nan, 1]], [0.5]),
        (np.empty((0, 2)), []),
    ],
)
def test_item_means_leave_out_what_cannot_be_judged(outcome: list[list[float]], means: list[float]) -> None:
    found = item_means(Evaluation((), np.array(outcome, np.float32), ()))
    np.testing.assert_array_equal(found, np.array(means, np.float32))
    assert found.dtype == np.float32


def test_streams_are_named_and_seeded() -> None:
    def first(stream: str, *seeds: int) -> float:
        return float(generator(stream, *seeds).random())

    assert first("pool", 0, 1) == first("pool", 0, 1)
    assert len({first("pool", 0, 1), first("pool", 1, 0), first("labels", 0, 1), first("pool", 0)}) == 4
