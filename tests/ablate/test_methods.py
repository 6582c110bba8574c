"""Methods in a study: what is written, the way back to YAML, what runs, and what is shared."""

# ruff: noqa: E501 (a table of messages is read by the line)

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from editor import accepts
from laboratory import with_plugins

from ablate import api
from ablate.errors import StudyError, StudyMistakes
from ablate.levels import Level
from ablate.methods import METHOD, point
from ablate.options import Options
from ablate.plan import Cell, Plan, compile_study
from ablate.schema import json_schema
from ablate.study import Study, loads
from ablate.yamlfile import to_text

HEAD = "question: why?\nmodel: tabular\norganism: {behavior: tabular, seeds: 2}\n"
MECHANISMS = ("label_shift", "selector", "objective")


def of(text: str, *sets: str) -> Study:
    return loads(HEAD + text, source="mine.yaml", sets=sets)


def shape(study: Study) -> list[tuple[str, str, tuple[Any, ...]]]:
    return [(axis.path, axis.dim, axis.labels) for axis in study.axes]


def at(study: Study, **labels: Any) -> Options:
    """The options of the run with these levels, named by their labels."""
    named = {axis.dim: (axis.path, dict(zip(axis.labels, axis.levels, strict=True))) for axis in study.axes}
    return study.at({named[dim][0]: named[dim][1][label] for dim, label in labels.items()})


def levels_of(options: Options) -> tuple[str, ...]:
    return tuple(getattr(options.factors, name).label for name in MECHANISMS)


# What is written


def test_methods_as_a_whole() -> None:
    study = of("factors: {method: {swap: [self_certainty, {dual_decoding: {scorer: length}}]}}")
    assert shape(study) == [
        ("label_shift", "label_shift", ("method",)),
        ("selector", "selector", ("method",)),
        ("objective", "objective", ("method",)),
        ("factors.method", "method_name", ("self_certainty", "dual_decoding(scorer=length)")),
    ]
    assert not any(axis.organism for axis in study.axes)


def test_methods_taken_apart() -> None:
    study = of("factors: {isolate: [self_certainty, bct]}\nlabels: {candidates: {swap: [2, 8]}}")
    assert shape(study) == [
        ("label_shift", "label_shift", ("none", "method")),
        ("selector", "selector", ("first", "method")),
        ("objective", "objective", ("sft", "method")),
        ("factors.method", "method_name", ("self_certainty", "bct")),
        ("labels.candidates", "candidates", (2, 8)),
    ]


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("method: bct", "method: {swap: [bct]}"),
        ("method: {fix: bct}", "method: {swap: [bct]}"),
        ("method: {self_certainty: {k: 4}}", "method: {swap: [self_certainty]}"),
        ("method: {self_certainty: }", "method: {swap: [self_certainty]}"),
        ("isolate: bct", "isolate: [bct]"),
        ("isolate: {self_certainty: {k: 8}}", "isolate: [{self_certainty: {k: 8}}]"),
    ],
)
def test_ways_to_write_it(one: str, same: str) -> None:
    assert of(f"factors: {{{one}}}") == of(f"factors: {{{same}}}")


def test_a_method_taken_apart_is_another_study() -> None:
    assert of("factors: {isolate: [bct]}") != of("factors: {method: bct}")


@pytest.mark.parametrize("text", ["", "factors: {isolate: [bct, self_rewarding]}"])
def test_set_names_methods(text: str) -> None:
    study = of(text, "factors.isolate=[self_certainty, {dual_decoding: {scorer: length}}]")
    assert study == of("factors: {isolate: [self_certainty, {dual_decoding: {scorer: length}}]}")
    assert of("", "factors.method=bct") == of("factors: {method: bct}")


@pytest.mark.parametrize(
    "factors",
    [
        {"method": {"swap": ["self_certainty", {"dual_decoding": {"scorer": "mean_logprob", "k": 3}}]}},
        {"method": {"swap": ["bct"]}},
        {"isolate": ["self_certainty", {"rejection_sampling": {"scorer": {"shuffled": {"scorer": "length"}}}}]},
        {"isolate": ["bct"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("more", ["", "labels: {candidates: {swap: [2, 8]}}\ntrain: {epochs: {swap: [1, 2]}}\n"])
def test_the_way_back_to_yaml(factors: dict[str, Any], more: str) -> None:
    study = of(more + to_text({"factors": factors}))
    [word] = study.resolved()["factors"]
    assert word in factors
    again = loads(study.dump(), source="else.yaml")
    assert again == study
    assert again.axes == study.axes
    assert again.options == study.options
    assert again.dump() == study.dump()


# What is wrong

MISTAKES = [
    ("factors: {isolate: [bct, self_certanty]}", "4:26: factors.isolate[1]: no method called 'self_certanty'; did you mean 'self_certainty'? (`ablate list methods`)"),
    ("factors: {method: {self_certainty: {K: 3}}}", "4:37: factors.method.self_certainty.K: unknown option; known are k"),
    ("factors: {method: {self_certainty: {k: 0}}}", "4:40: factors.method.self_certainty.k: 0 is not >= 1"),
    ("factors: {method: {swap: [bct, bct]}}", "4:32: factors.method.swap[1]: 'bct' is there twice"),
    ("factors: {isolate: [bct], selector: first}", "4:27: factors.selector: 'isolate' stands alone: a method brings a level of every mechanism"),
    ("factors: {isolate: {dual_decoding: {scorer: mean_logprb}}}", "4:20: factors.isolate: selector.argmax.scorer: no scorer called 'mean_logprb'; did you mean 'mean_logprob'? (`ablate list scorers`)"),
    ("factors: {isolate: [{dual_decoding: {scorer: {judge: {}}}}]}", "4:21: factors.isolate[0]: selector.argmax.scorer.judge.by: required, but missing"),
    ("factors: {method: {dual_decoding: {scorer: 3}}}", "4:44: factors.method.dual_decoding.scorer: 3 is not a text or a mapping"),
    ("factors: {isolate: [bct, act]}\nanalysis: {family: [method]}", "5:21: analysis.family[0]: no swapped factor and no swap is called 'method'; known are label_shift, label_shift none -> method, selector, selector first -> method, objective, objective sft -> method"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(StudyMistakes) as caught:
        of(text)
    assert str(caught.value).splitlines()[:-1] == ["mine.yaml:" + message]


def test_a_method_of_a_plug_in_whose_level_is_not_there() -> None:
    def misspelled() -> api.Method:
        """A mistake of its author."""
        return api.Method("gredy", objective={"stf": {}})

    with with_plugins(lambda: api.method(misspelled)), pytest.raises(StudyMistakes) as caught:
        of("factors: {method: misspelled}")
    assert [mistake.message for mistake in caught.value.mistakes] == [
        "label_shift: no label shift called 'gredy'; did you mean 'greedy'? (`ablate list label_shifts`)",
        "objective: no objective called 'stf'; did you mean 'sft'? (`ablate list objectives`)",
    ]


def test_a_declared_family_may_name_methods_that_run_as_a_whole() -> None:
    study = of("factors: {method: {swap: [bct, self_certainty]}}\nanalysis: {family: [method_name]}")
    assert study.options.analysis.family == ("method_name",)


# The schema

SCHEMA: list[tuple[Any, bool]] = [
    (None, True),
    ({}, True),
    ({"label_shift": "greedy", "selector": {"swap": ["first", "majority"]}}, True),
    ({"method": "bct"}, True),
    ({"method": {"fix": "bct"}}, True),
    ({"method": {"swap": ["bct", {"self_certainty": {"k": 8}}]}}, True),
    ({"method": {"self_certainty": None}}, True),
    ({"method": {"dual_decoding": {"scorer": {"shuffled": {"scorer": "length"}}}}}, True),
    ({"isolate": "bct"}, True),
    ({"isolate": ["bct", {"rejection_sampling": {"scorer": "length", "k": 2}}]}, True),
    ({"isolate": {"self_certainty": {"k": 2}}}, True),
    ({"method": "bct", "selector": "first"}, False),
    ({"isolate": "bct", "objective": "sft"}, False),
    ({"isolate": "bct", "method": "act"}, False),
    ({"method": None}, False),
    ({"isolate": None}, False),
    ({"method": "bctt"}, False),
    ({"method": ["bct"]}, False),
    ({"method": {"swap": []}}, False),
    ({"method": {"swap": ["bct"], "fix": "bct"}}, False),
    ({"method": {"swap": ["bct", "bct"]}}, False),
    ({"isolate": []}, False),
    ({"isolate": ["bct", "bct"]}, False),
    ({"isolate": {"swap": ["bct"]}}, False),
    ({"isolate": {"fix": "bct"}}, False),
    ({"method": {"self_certainty": {"k": 0}}}, False),
    ({"method": {"self_certainty": {"k": 1.5}}}, False),
    ({"method": {"self_certainty": {"kk": 1}}}, False),
    ({"method": {"bct": {}, "act": {}}}, False),
    ({"isolate": {"dual_decoding": {"scorer": "lenght"}}}, False),
    ({"isolate": {"dual_decoding": {"scorer": 3}}}, False),
    ({"isolated": "bct"}, False),
]


@pytest.mark.parametrize(("factors", "valid"), SCHEMA, ids=[str(factors) for factors, _ in SCHEMA])
def test_an_editor_and_the_engine_agree(factors: Any, valid: bool) -> None:
    tree = {"question": "q", "model": "m", "organism": {"behavior": "tabular"}, "factors": factors}
    assert accepts(json_schema(), tree) == valid
    if valid:
        loads(to_text(tree), source="mine.yaml")
    else:
        with pytest.raises(StudyMistakes):
            loads(to_text(tree), source="mine.yaml")


# What runs


def test_a_run_has_the_levels_of_its_method() -> None:
    study = of("factors: {method: {swap: [self_certainty, bct]}}\nlabels: {candidates: 6}")
    whole = dict.fromkeys(MECHANISMS, "method")
    sampled, pulled = (at(study, method_name=name, **whole) for name in ("self_certainty", "bct"))
    assert levels_of(sampled) == ("nucleus(temperature=0.7)", "argmax(mean_logprob)", "sft(on=all)")
    assert levels_of(pulled) == ("none", "first", "bct(alignment=tail, teacher=live)")
    assert (sampled.labels.candidates, pulled.labels.candidates) == (4, 6), (
        "a method without a number takes the study's"
    )


@pytest.mark.parametrize(
    ("on", "levels"),
    [
        ((), ("none", "first", "sft")),
        (("label_shift",), ("nucleus(temperature=0.7)", "first", "sft")),
        (("selector",), ("none", "argmax(mean_logprob)", "sft")),
        (("objective",), ("none", "first", "sft(on=all)")),
        (("label_shift", "objective"), ("nucleus(temperature=0.7)", "first", "sft(on=all)")),
    ],
    ids=str,
)
def test_a_mechanism_is_off_or_on(on: tuple[str, ...], levels: tuple[str, ...]) -> None:
    study = of("factors: {isolate: {self_certainty: {k: 5}}}")
    null = {"label_shift": "none", "selector": "first", "objective": "sft"}
    options = at(study, method_name="self_certainty(k=5)", **{**null, **dict.fromkeys(on, "method")})
    assert levels_of(options) == levels
    assert options.labels.candidates == 5, "with every mechanism off there are as many candidates as with all on"


def test_candidates_that_are_swapped_win() -> None:
    study = of("factors: {isolate: [self_certainty, bct]}\nlabels: {candidates: {swap: [2, 8]}}")
    whole = dict.fromkeys(MECHANISMS, "method")
    for method in ("self_certainty", "bct"):
        for candidates in (2, 8):
            assert at(study, method_name=method, candidates=candidates, **whole).labels.candidates == candidates


def test_without_a_method_every_mechanism_is_null() -> None:
    study = of("factors: {method: {swap: [self_certainty, bct]}}")
    assert study.at({}) == study.options
    assert levels_of(study.options) == ("none", "first", "sft")
    assert study.options.labels.candidates == 4


def test_a_point_is_made_of_levels_with_all_of_their_options() -> None:
    own = point(Level("method", "bct"))
    assert own["label_shift"] == Level("label_shift", "none")
    assert own["objective"].options == {"temperature": 1.0, "alignment": "tail", "teacher": "live"}
    assert own["selector"].scorer is None
    assert "labels.candidates" not in own


# What is shared


def planned(factors: str, *sets: str) -> Plan:
    return compile_study(of(f"factors: {factors}", *sets))


def cells(plan: Plan, method: str, organism: int = 0) -> dict[tuple[Any, ...], Cell]:
    """The runs of one method and organism by their levels of the mechanisms."""
    return {cell.point[:3]: cell for cell in plan.cells if cell.point[3] == method and cell.organism == organism}


def counts(plan: Plan) -> Counter[str]:
    known, more = plan.needed({})
    return Counter(known.values()) + more


def test_the_stages_of_two_methods_counted_by_hand() -> None:
    plan = planned("{isolate: [self_certainty, bct]}")
    assert len(plan.cells) == 2 * 2 * 8
    assert counts(plan) == {
        "screen": 1,
        "organism": 2,
        "pool": 2 * 2,  # own answers and the nucleus
        "embed": 2 * 2,
        "scores": 2 * 2,  # mean_logprob on either
        "labels": 2 * 4,  # the first and the best of either
        "measure": 2 * 4,
        "train": 2 * (4 * 2 + 1),  # by sft on the answer or on all, and the null labels by bct
        "evaluate": 2 * (4 * 2 + 1) + 2,  # and each organism itself
    }


def test_methods_as_a_whole_need_their_own_point_and_the_null_control() -> None:
    plan = planned("{method: {swap: [self_certainty, bct]}}")
    assert len(plan.cells) == 2 * 2
    wanted = {"pool": 2 * 2, "scores": 2, "labels": 2 * 2, "train": 2 * 3, "evaluate": 2 * 3 + 2}
    assert {kind: counts(plan)[kind] for kind in wanted} == wanted


def test_what_a_method_lacks_is_one_run() -> None:
    plan = planned("{isolate: [bct]}")
    own = cells(plan, "bct")
    assert len(own) == 8
    for objective in ("sft", "method"):
        runs = [cell for place, cell in own.items() if place[2] == objective]
        assert len({(cell.pool, cell.scores, cell.labels, cell.measure, cell.before) for cell in own.values()}) == 1
        assert len({plan.training(cell, "of some labels").key for cell in runs}) == 1
    assert counts(plan)["train"] == 2 * 2


def test_methods_with_as_many_candidates_share_their_null_runs() -> None:
    plan = planned("{isolate: [self_certainty, self_rewarding, {self_rewarding: {k: 2}}]}")
    null = ("none", "first", "sft")
    one, two, other = (cells(plan, name)[null] for name in ("self_certainty", "self_rewarding", "self_rewarding(k=2)"))
    assert one.labels == two.labels
    assert plan.training(one, "x").key == plan.training(two, "x").key
    assert other.pool != one.pool
    control = next(cell for name, _, cell in plan.controls if name == "null" and cell.organism == 0)
    assert control.labels == one.labels, "the study's own number is 4 too"


def test_the_label_shift_of_a_method_keeps_its_pool_whatever_selects_from_it() -> None:
    own = cells(planned("{isolate: [self_certainty]}"), "self_certainty")
    for label_shift in ("none", "method"):
        assert len({cell.pool for place, cell in own.items() if place[0] == label_shift}) == 1
    assert len({cell.pool for cell in own.values()}) == 2


@pytest.mark.parametrize("factors", ["{isolate: [act]}", "{method: act}"])
def test_act_has_no_layers_to_compare_here(factors: str) -> None:
    said = (
        "^objective 'act' compares activations of decoder layers, and model 'tabular' has none; leave it out, or name "
        "another model$"
    )
    with pytest.raises(StudyError, match=said):
        planned(factors)
    assert planned(factors, "model=smollm2-135m", "organism.behavior=sycophancy").cells


def test_the_path_of_the_factor() -> None:
    assert METHOD in {axis.path for axis in of("factors: {method: bct}").axes}
