"""The plan: what is counted, what is shared, and which option changes which key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from laboratory import SMALL, WHOLE, study

from ablate.api import JudgeOptions
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.options import Analysis, Evaluate, Labels, Model, Options, Organism, Train
from ablate.plan import KINDS, VERSIONS, Cell, Plan, compile_study, level

CONTENT = "of some labels"


def planned(*sets: str, text: str = SMALL, name: str = "small") -> Plan:
    return compile_study(study(*sets, text=text, name=name))


def keys_of(plan: Plan, cell: Cell) -> dict[str, str]:
    """Every key of one run, were its labels of the same content."""
    organism = plan.stages[plan.organisms[cell.organism].stage]
    train = plan.training(cell, CONTENT)
    return {
        "screen": organism.inputs["screen"],
        "organism": organism.key,
        "pool": cell.pool,
        "embed": plan.stages[cell.measure].inputs["embedding"],
        "scores": cell.scores or "",
        "labels": cell.labels,
        "measure": cell.measure,
        "before": cell.before,
        "train": train.key,
        "after": plan.evaluation(cell, train.key).key,
    }


def counts(plan: Plan) -> Counter[str]:
    known, more = plan.needed({})
    return Counter(known.values()) + more


# What is counted


def test_counts_of_a_study() -> None:
    plan = planned(text=WHOLE)
    assert len(plan.organisms) == 6
    assert len(plan.cells) == 6 * 3 * 3
    # the oracles take from the pool of `none`: two more score sets, no more pools
    assert counts(plan) == {
        "screen": 1,
        "organism": 6,
        "pool": 18,
        "embed": 18,
        "scores": 6 * (3 + 1),
        "labels": 6 * (9 + 2),
        "measure": 6 * (9 + 2),
        "train": 6 * (9 + 2),
        "evaluate": 6 + 6 * (9 + 2),
    }
    assert set(counts(plan)) == set(KINDS)


def test_the_design_in_the_order_of_the_file() -> None:
    plan = planned(text=WHOLE)
    own = [cell.point for cell in plan.cells if cell.organism == 0]
    assert own[:4] == [
        ("none", "first", "sft"),
        ("none", "majority", "sft"),
        ("none", "argmax(mean_logprob)", "sft"),
        ("greedy", "first", "sft"),
    ]
    assert [cell.organism for cell in plan.cells] == sorted(cell.organism for cell in plan.cells)
    assert [(o.model, o.behavior, o.induction_seed) for o in plan.organisms] == [
        ("tabular", "tabular", seed) for seed in range(6)
    ]


def test_every_input_of_a_stage_is_a_stage_of_the_plan() -> None:
    plan = planned(text=WHOLE)
    for stage in plan.stages.values():
        assert set(stage.inputs.values()) <= set(plan.stages), stage.kind
    assert all(key == stage.key for key, stage in plan.stages.items())


def test_controls_are_there() -> None:
    plan = planned(text=WHOLE)
    assert Counter(name for name, *_ in plan.controls) == {"null": 6, "oracle_aligned": 6, "oracle_misaligned": 6}
    null, aligned, misaligned = (next(cell for name, _, cell in plan.controls if name == wanted) for wanted in
                                 ("null", "oracle_aligned", "oracle_misaligned"))  # fmt: skip
    assert null.options.factors.label_shift.name == "none"
    assert null.options.factors.selector.label == "first"
    assert aligned.options.factors.selector.label == "argmax(behavior_oracle)"
    assert misaligned.options.factors.selector.label == "argmin(behavior_oracle)"
    design = next(cell for cell in plan.cells if cell.point[:2] == ("none", "first"))
    assert null.labels == design.labels, "where the design has the null run, the control is that run"
    assert len(list(plan.runs())) == len(plan.cells) + len(plan.controls)


def test_the_null_control_is_there_where_the_design_has_no_null_level() -> None:
    plan = planned("factors.label_shift={swap: [greedy, clean_view]}", "controls=[]")
    assert {name for name, *_ in plan.controls} == {"null"}
    assert all(cell.pool not in {own.pool for own in plan.cells} for *_, cell in plan.controls)


def test_controls_are_there_at_every_setting_of_other_options() -> None:
    plan = planned("labels.candidates={swap: [2, 4]}", "train.lr={swap: [1.0e-4, 1.0e-3]}", "controls=[null, oracle]")
    places = [(2, 1e-4), (2, 1e-3), (4, 1e-4), (4, 1e-3)]
    own = [control for control in plan.controls if control.cell.organism == 0]
    assert Counter((name, setting) for name, setting, _ in own) == {
        (name, place): 1 for name in ("null", "oracle_aligned", "oracle_misaligned") for place in places
    }
    for name, setting, cell in own:
        assert (cell.options.labels.candidates, cell.options.train.lr) == setting
        design = [c for c in plan.cells if c.organism == 0 and c.point == ("none", "first", "sft", *setting)]
        if name == "null":
            assert [c.labels for c in design] == [cell.labels], (
                "where the design has the null run, the control is that run"
            )


def test_a_method_has_its_null_control_at_every_setting() -> None:
    plan = planned(
        "factors={method: {swap: [self_certainty, greedy_self_training]}}", "train.lr={swap: [1.0e-4, 1.0e-3]}"
    )
    own = [control for control in plan.controls if control.cell.organism == 0]
    assert [(name, setting) for name, setting, _ in own] == [("null", (1e-4,)), ("null", (1e-3,))]
    assert {cell.options.factors.selector.label for *_, cell in own} == {"first"}


# What is shared


def test_every_selector_reads_one_pool() -> None:
    plan = planned(text=WHOLE)
    pools: dict[tuple[int, Any], set[str]] = {}
    for cell in plan.cells:
        pools.setdefault((cell.organism, cell.point[0]), set()).add(cell.pool)
    assert len(pools) == 18
    assert all(len(keys) == 1 for keys in pools.values())
    assert len(set.union(*pools.values())) == 18, "and no two label shifts share one"


def test_two_selectors_with_one_scorer_share_its_scores() -> None:
    plan = planned(
        "factors.selector={swap: [{argmax: {scorer: mean_logprob}}, {argmin: {scorer: mean_logprob}}]}",
        "factors.label_shift=none",
    )
    assert counts(plan)["scores"] == len(plan.organisms)
    assert counts(plan)["labels"] == 2 * len(plan.organisms) + len(plan.organisms)  # and the null control's


def test_a_training_is_named_by_the_content_of_its_labels() -> None:
    plan = planned()
    one, two, *_ = (cell for cell in plan.cells if cell.organism == 0 and cell.point[0] == "greedy")
    assert one.labels != two.labels
    assert plan.training(one, CONTENT).key == plan.training(two, CONTENT).key
    assert plan.training(one, CONTENT).key != plan.training(two, "of other labels").key
    other = next(cell for cell in plan.cells if cell.organism == 1)
    assert plan.training(one, CONTENT).key != plan.training(other, CONTENT).key, "another organism is another training"


def test_an_objective_trains_on_the_same_labels() -> None:
    plan = planned("train.epochs={swap: [1, 2]}")
    one, two = (cell for cell in plan.cells if cell.organism == 0 and cell.point[:2] == ("none", "first"))
    assert (one.point[-1], two.point[-1]) == (1, 2)
    assert (one.pool, one.labels, one.measure, one.before) == (two.pool, two.labels, two.measure, two.before)
    assert plan.training(one, CONTENT).key != plan.training(two, CONTENT).key


def test_labels_are_measured_against_the_answers_of_the_organism_itself() -> None:
    plan = planned("factors.label_shift={swap: [greedy, none]}")
    own = {(cell.organism, cell.seed): cell.pool for cell in plan.cells if cell.point[0] == "none"}
    for cell in plan.cells:
        assert plan.stages[cell.measure].inputs["reference"] == own[cell.organism, cell.seed]


def test_training_goes_on_with_the_adapter_of_the_organism() -> None:
    plan = planned("organism.rank=8", "organism.alpha=24")
    told = plan.training(plan.cells[0], "content").options["train"]
    assert (told["rank"], told["alpha"]) == (8, 24)


def test_a_seed_changes_everything_but_the_organism() -> None:
    plan = planned("seeds=2")
    one, two = (keys_of(plan, cell) for cell in plan.cells if cell.organism == 0 and cell.point[1] != "first"
                and cell.point[0] == "none")  # fmt: skip
    assert {name for name, key in one.items() if key == two[name]} == {"screen", "organism"}


# Swapped options


def test_a_swapped_option_is_an_axis_of_the_runs() -> None:
    plan = planned("labels.candidates={swap: [1, 2, 4]}")
    assert [axis.dim for axis in plan.axes] == ["label_shift", "selector", "objective", "candidates"]
    assert len(plan.cells) == 2 * 2 * 2 * 3
    assert counts(plan)["pool"] == 2 * 2 * 3
    assert len(plan.organisms) == 2


def test_a_swapped_evaluation_shares_the_training() -> None:
    plan = planned("evaluate.decoding={swap: [sample, greedy]}")
    one, two = (keys_of(plan, cell) for cell in plan.cells if cell.organism == 0 and cell.point[0] == "none"
                and cell.point[1] != "first")  # fmt: skip
    assert {name for name, key in one.items() if key != two[name]} == {"before", "after"}
    assert counts(plan)["train"] == len(plan.cells) // 2
    # the null control is at the first level, where the design has that run too
    assert counts(plan)["evaluate"] == 2 * len(plan.organisms) + len(plan.cells)


def test_a_swapped_option_of_the_organism_makes_other_organisms() -> None:
    plan = planned("organism.mix={swap: [0.5, 1.0]}")
    assert [axis.dim for axis in plan.axes] == ["label_shift", "selector", "objective"]
    assert [(own.induction_seed, own.options) for own in plan.organisms] == [
        (0, {"mix": 0.5}),
        (1, {"mix": 0.5}),
        (0, {"mix": 1.0}),
        (1, {"mix": 1.0}),
    ]
    assert len({own.stage for own in plan.organisms}) == 4
    assert len(plan.cells) == 4 * 4


def test_swapped_behaviors_are_organisms_with_a_screen_each() -> None:
    plan = planned("organism.behavior={swap: [tabular, sycophancy]}")
    assert [own.behavior for own in plan.organisms] == ["tabular", "tabular", "sycophancy", "sycophancy"]
    assert counts(plan)["screen"] == 2
    assert not {cell.pool for cell in plan.cells if cell.organism < 2} & {
        cell.pool for cell in plan.cells if cell.organism >= 2
    }


def test_swapped_models_are_organisms_too() -> None:
    plan = planned("model={swap: [tabular, smollm2-135m]}")
    assert [own.model for own in plan.organisms] == ["tabular", "tabular", "smollm2-135m", "smollm2-135m"]
    assert counts(plan)["embed"] == 2 * counts(plan)["organism"]


# Which option changes which key

ALL = {"screen", "organism", "pool", "embed", "scores", "labels", "measure", "before", "train", "after"}
ORGANISM = ALL - {"screen"}
POOL = {"pool", "embed", "scores", "labels", "measure"}
TRAIN = {"train", "after"}
EVALUATE = {"before", "after"}

CHANGES: dict[str, tuple[str, set[str]]] = {
    "name": ("another", set()),
    "question": ("which one?", set()),
    "model.name": ("other", ALL),
    "model.dtype": ("float32", ALL),
    "model.revision": ("v2", ALL),
    "model.trust_remote_code": ("true", ALL),
    "model.device_map": ("auto", ALL),
    "model.quantization": ("nf4", ALL),
    "organism.behavior": ("sycophancy", ALL),
    "organism.risk": ("0.4", ORGANISM),
    "organism.tolerance": ("0.2", ORGANISM),
    "organism.examples": ("33", ORGANISM),
    "organism.epochs": ("3", ORGANISM),
    "organism.lr": ("0.002", ORGANISM),
    "organism.batch": ("8", ORGANISM),
    "organism.warmup": ("0.2", ORGANISM),
    "organism.rank": ("8", ORGANISM),
    "organism.alpha": ("16", ORGANISM),
    "organism.mix": ("0.9", ORGANISM),
    "organism.calibration": ("65", ORGANISM),
    "organism.max_tokens": ("17", ORGANISM),
    "organism.seeds": ("[7, 8]", ORGANISM),
    "factors.label_shift": ("{swap: [{nucleus: {top_p: 0.5}}, none]}", POOL),
    "factors.selector": ("{swap: [first, {argmin: {scorer: mean_logprob}}]}", {"labels", "measure"}),
    "factors.objective": ("other_sft", TRAIN),
    "labels.prompts": ("13", POOL),
    "labels.candidates": ("4", POOL),
    "labels.max_tokens": ("17", POOL),
    "labels.match": ("{kl_total: 1.0}", POOL),
    "train.epochs": ("3", TRAIN),
    "train.tokens": ("100", TRAIN),
    "train.lr": ("0.0002", TRAIN),
    "train.batch": ("8", TRAIN),
    "train.warmup": ("0.2", TRAIN),
    "evaluate.items": ("13", EVALUATE),
    "evaluate.capability": ("5", EVALUATE),
    "evaluate.samples": ("3", EVALUATE),
    "evaluate.decoding": ("greedy", EVALUATE),
    "evaluate.max_tokens": ("17", EVALUATE),
    "seeds": ("[7]", ALL - {"screen", "organism"}),
    "measures": ("[risk, capability, price, {embedding_shift: {permutations: 29}}]", {"measure"}),
    "embedder": ("model", set()),  # the tabular world has one anyway
    "controls": ("[null, oracle]", set()),
    "analysis.alpha": ("0.01", set()),
    "analysis.equivalence_pp": ("3", set()),
    "analysis.share_bar": ("0.6", set()),
    "analysis.interaction_share": ("0.2", set()),
    "analysis.family": ("[label_shift]", set()),
}


def test_no_option_is_forgotten_below() -> None:
    sections = {"model": Model, "organism": Organism, "labels": Labels, "train": Train, "evaluate": Evaluate,
                "analysis": Analysis}  # fmt: skip
    known = {f"{section}.{name}" for section, model in sections.items() for name in model.model_fields}
    known |= {name for name in Options.model_fields if name not in (*sections, "factors")}
    known |= {"factors.label_shift", "factors.selector", "factors.objective"}
    assert known == CHANGES.keys()


def _other_objective() -> None:
    from ablate import api

    @api.objective
    def other_sft(batch: Any) -> Any:
        """Another one."""


@pytest.mark.parametrize(("path", "value", "changed"), [(path, *change) for path, change in CHANGES.items()])
def test_an_option_changes_the_keys_of_what_it_changes(path: str, value: str, changed: set[str]) -> None:
    from laboratory import with_plugins

    def keys(*sets: str) -> dict[str, str]:
        plan = planned("model={name: tabular}", *sets)
        # the first level of the label shift and the scored selector, so that every kind of stage is looked at
        cell = next(cell for cell in plan.cells if cell.scores)
        return keys_of(plan, cell)

    with with_plugins(_other_objective):
        before, after = keys(), keys(f"{path}={value}")
    assert {name for name, key in before.items() if key != after[name]} == changed


@pytest.mark.parametrize(
    ("selector", "changed"),
    [
        ("first", {"labels", "measure"}),
        ("{argmax: {scorer: behavior_oracle}}", {"scores", "labels", "measure"}),
    ],
)
def test_a_scorer_changes_scores_and_labels_but_no_pool(selector: str, changed: set[str]) -> None:
    plan, other = planned("factors.selector={argmax: {scorer: mean_logprob}}"), planned(f"factors.selector={selector}")
    before, after = keys_of(plan, plan.cells[0]), keys_of(other, other.cells[0])
    assert {name for name, key in before.items() if key != after[name]} - {"scores"} == changed - {"scores"}
    assert before["scores"] != after["scores"]


ENDPOINT = {
    "base_url": "http://other/v1",
    "model": "other",
    "api_key_env": "KEY",
    "concurrency": 2,
    "max_tokens_total": 9,
    "retries": 1,
    "timeout_s": 3.0,
}


@pytest.mark.parametrize("option", ENDPOINT)
def test_how_an_endpoint_is_asked_is_no_part_of_a_key(option: str) -> None:
    def keys(**changed: Any) -> set[str]:
        by = {"model": "judge", "base_url": "http://here/v1", **changed}
        scorer = json.dumps({"judge": {"by": by}})
        return set(compile_study(study(f"factors.selector={{argmax: {{scorer: {scorer}}}}}")).stages)

    assert set(ENDPOINT) == set(JudgeOptions.__annotations__), "an option that nobody has thought about"
    assert (keys() == keys(**{option: ENDPOINT[option]})) == (option not in ("base_url", "model"))


def test_the_version_of_a_plug_in_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from ablate import registry

    before = planned()
    known = dict(registry._plugins)
    known["selector", "first"] = replace(known["selector", "first"], version=2)
    monkeypatch.setattr(registry, "_plugins", known)
    after = planned()
    assert level(study().options.factors.selector)["version"] == 2
    first, scored = before.cells[0], next(cell for cell in before.cells if cell.scores)
    assert first.labels not in after.stages
    assert scored.labels in after.stages


# Objectives

NOTES = {"content": CONTENT, "pairs": "of those labels and what was rejected"}


def training_key(objective: str, notes: dict[str, str] = NOTES, *sets: str) -> str:
    plan = planned(f"factors.objective={objective}", "model.name=other", *sets)
    return plan.training(plan.cells[0], plan.content(plan.cells[0], notes)).key


OBJECTIVES = [
    "sft",
    "{sft: {on: all}}",
    *(f"{{bct: {{{option}}}}}" for option in ("", "temperature: 2.0", "alignment: tail", "teacher: live")),
    *(f"{{act: {{{option}}}}}" for option in ("", "weight: 0.001", "alignment: tail", "teacher: live")),
    "bct_ce",
    "entropy_min",
    "dpo",
    "{dpo: {beta: 0.2}}",
]


def test_every_option_of_an_objective_is_another_training() -> None:
    assert len({training_key(objective) for objective in OBJECTIVES}) == len(OBJECTIVES)


@pytest.mark.parametrize(
    ("objective", "by"), [("sft", {"content"}), ("bct", {"content"}), ("dpo", {"pairs"}), ("bct_ce", set())]
)
def test_a_training_is_keyed_by_the_content_that_its_objective_reads(objective: str, by: set[str]) -> None:
    key = training_key(objective)
    assert {name for name in NOTES if training_key(objective, {**NOTES, name: "other"}) != key} == by


def test_an_objective_with_labels_of_its_own_reads_the_clean_pool_alone() -> None:
    plan = planned("factors.objective=bct_ce", "factors.label_shift={swap: [none, greedy, clean_view]}")
    own = [cell for cell in plan.cells if cell.organism == 0]
    clean = next(cell.pool for cell in own if cell.point[0] == "clean_view")
    assert {cell.clean for cell in own} == {clean}, "the pool that the label shift of that name has"
    late = [plan.training(cell, plan.content(cell, NOTES)) for cell in own]
    assert len({stage.key for stage in late}) == 1, "whatever was labeled"
    assert {**late[0].inputs} == {"screen": plan.stages[plan.organisms[0].stage].inputs["screen"],
                                  "organism": plan.organisms[0].stage, "pool": clean}  # fmt: skip


def test_the_null_control_has_the_null_objective() -> None:
    objectives = {name: cell.options.factors.objective.label for name, _, cell in
                  planned("factors.objective=bct", "controls=[null, oracle]").controls}  # fmt: skip
    assert objectives == {"null": "sft", "oracle_aligned": "bct", "oracle_misaligned": "bct"}
    whole = planned("factors.objective={sft: {on: all}}").controls
    assert {control.cell.options.factors.objective.label for control in whole} == {"sft(on=all)"}


def test_a_model_without_layers_has_none_to_compare() -> None:
    with pytest.raises(
        StudyError, match=r"^objective 'act' compares activations of decoder layers, and model 'tabular'"
    ):
        planned("factors.objective={swap: [sft, act]}")
    assert planned("factors.objective={swap: [sft, act]}", "model.name=smollm2-135m").cells


# Anywhere, anytime

ALL_KEYS = f"""
import sys, json
from ablate.study import loads
from ablate.plan import compile_study
plan = compile_study(loads({WHOLE!r}, source="whole.yaml"))
late = [plan.training(cell, "c") for cell in plan.runs()]
print(json.dumps([list(plan.stages), [stage.key for stage in late], sorted(
    name for name in ("torch", "transformers", "peft", "optuna", "xarray", "pandas", "zarr", "duckdb")
    if name in sys.modules
)]))
"""


def _elsewhere(seed: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", ALL_KEYS],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_keys_are_the_same_in_every_process_and_planning_imports_no_model() -> None:
    plan = planned(text=WHOLE, name="whole")
    here = [list(plan.stages), [plan.training(cell, "c").key for cell in plan.runs()]]
    for seed in ("0", "1"):
        *there, heavy = _elsewhere(seed)
        assert there == here
        assert heavy == []


def test_a_key_is_the_hash_of_kind_version_options_and_inputs() -> None:
    for stage in planned(text=WHOLE).stages.values():
        assert stage.key == key_of([stage.kind, VERSIONS[stage.kind], key_of(stage.options), stage.inputs])


def test_a_stage_is_built_once_however_many_cells_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ablate import plan as plans

    hashed: list[str] = []
    monkeypatch.setattr(plans, "key_of", lambda payload: hashed.append("") or key_of(payload))
    plan = planned(
        "organism.seeds=50", "seeds=5", "labels.candidates={swap: [1, 2, 3, 4, 5]}", "train.epochs={swap: [1, 2]}"
    )
    assert len(plan.cells) == 50 * 5 * 5 * 2 * 2 * 2
    assert counts(plan)["pool"] == 50 * 5 * 5 * 2
    assert counts(plan)["labels"] == 50 * 5 * 5 * 2 * 2
    # options that many stages have are hashed once
    assert len(hashed) < 0.5 * len(plan.stages) < len(plan.cells)
