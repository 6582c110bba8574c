"""That each contract finds the fault it is there for: broken plug-ins under the shipped test classes."""

# ruff: noqa: E501 (a table of faults is read by the line)

from __future__ import annotations

import re

import numpy as np
import pytest

from ablate import registry, testing
from ablate.testing import ask, every, judged, leaves_alone, read_only, rearranged, rng

pytest_plugins = ["pytester"]

HEAD = """
import numpy as np
import pytest
from dataclasses import replace
from itertools import count
from ablate import api, testing
from ablate.api import Behavior, Column, Method, Pair, Prompt

calls = count()


def ask(item):
    return Prompt(f"p{item}", f"Which {item}?", f"Which {item}?", str(item), {"truth": "far"})


def answer(prompt, text):
    return text if text in ("far", "end") else None


def judge(prompt, text):
    return float(text == "end") if text in ("far", "end") else float("nan")


def right(prompt, text):
    return float(text == "far")


def good(known, rng, **changes):
    items = iter(rng.permutation(40).tolist())
    sets = [tuple(ask(next(items)) for _ in range(10)) for _ in range(4)]
    pairs = tuple(Pair(prompt, "end", "far") for prompt in sets[0])
    return replace(Behavior(pairs, *sets[1:], answer, judge, right), **changes)

"""

SHIFT = (
    '@api.label_shift\ndef NAME(lm, prompts, rng, *, k: int):\n    """Bad."""\n    pool = lm.pool(prompts, rng, k=k)\n'
)
SCORER = '@api.scorer\ndef NAME(lm, pool):\n    """Bad."""\n'
SELECTOR = '@api.selector\ndef NAME(scores, classes, rng):\n    """Bad."""\n'
SCORED = SELECTOR.replace("selector\n", "selector(scored=True)\n", 1)
OBJECTIVE = '@api.objective\ndef NAME(batch):\n    """Bad."""\n'
MEASURE = (
    "@api.measure(columns={'x': Column('a number', '1', 'neither', 'made up')})\n"
    'def NAME(before, labels, after, rng):\n    """Bad."""\n'
)

METHOD = '@api.method\ndef NAME():\n    """Bad."""\n'
BEHAVIOR = '@api.behavior\ndef NAME(known, rng):\n    """Bad."""\n'

BROKEN = [
    ("Behavior", BEHAVIOR + "    return good(known, rng)", ""),
    ("Behavior", BEHAVIOR + "    made = good(known, rng)\n    return replace(made, calibration=made.label[:1])", "test_sets_share_no_item"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, calibration=())", "test_sets_share_no_item"),
    ("Behavior", BEHAVIOR + "    made = good(known, rng)\n    return replace(made, calibration=(replace(ask(99), text=made.label[0].text),))", "test_sets_share_no_text"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, label=(replace(ask(98), id='x'), replace(ask(99), id='x')))", "test_prompts_have_names_of_their_own"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, label=(replace(ask(99), facts={'truth': 3}),))", "test_prompts_are_text"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, label=(replace(ask(99), clean=''),))", "test_prompts_are_text"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, label=(replace(ask(99), kind='capability'),))", "test_kinds"),
    ("Behavior", BEHAVIOR.replace("api.behavior", "api.behavior(questions=lambda: (ask(1), ask(2)), right=right)") + "    return good(known, rng)", "test_items_are_known"),
    ("Behavior", BEHAVIOR.replace("api.behavior", "api.behavior(questions=lambda: (ask(1), ask(1)), right=right)") + "    return good(known, rng)", "test_questions_have_one_right_answer"),
    ("Behavior", BEHAVIOR.replace("api.behavior", "api.behavior(questions=lambda: (ask(1),), right=lambda p, t: 1.0)") + "    return good(known, rng)", "test_questions_have_one_right_answer"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, induction=(Pair(ask(99), 'far', 'end'),))", "test_induction_shows_the_behavior"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, induction=(Pair(ask(99), 'far', 'far'),))", "test_induction_shows_the_behavior"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, indicator=lambda p, t: float(t == 'end'))", "test_what_says_nothing_is_not_judged"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, answer=lambda p, t: 'far')", "test_one_answer_one_judgment"),
    ("Behavior", BEHAVIOR + "    return good(known, rng, indicator=lambda p, t: 0.5 if t in ('far', 'end') else float('nan'))", "test_one_answer_one_judgment"),
    ("Behavior", BEHAVIOR + "    return good(known, np.random.default_rng())", "test_behavior_is_a_function_of_its_generator"),
    ("Behavior", BEHAVIOR + "    return good(known, np.random.default_rng(0))", "test_behavior_is_a_function_of_its_generator"),
    ("LabelShift", SHIFT + "    return pool", ""),
    ("Scorer", SCORER + "    return pool.lengths * 1.0", ""),
    ("Selector", SELECTOR + "    return np.full(classes.shape, 1.0)", ""),
    ("Objective", OBJECTIVE + "    return -(batch.logprobs * batch.mask * batch.weights[:, None]).sum()", ""),
    ("Method", METHOD + "    return Method('greedy')", ""),
    ("Measure", MEASURE + "    return {'x': float(labels.weights.sum())}", ""),
    ("LabelShift", SHIFT + "    return replace(pool, prompts=prompts[::-1])", "test_pool_belongs_to_the_prompts"),
    ("LabelShift", SHIFT + "    return lm.pool(prompts, rng, k=k + 1)", "test_pool_belongs_to_the_prompts"),
    ("LabelShift", SHIFT + "    return replace(pool, kl=pool.kl - 1)", "test_densities"),
    ("LabelShift", SHIFT + "    return replace(pool, kl=pool.kl + np.inf)", "test_densities"),
    ("LabelShift", SHIFT + "    return replace(pool, kl=pool.kl * np.nan)", "test_densities"),
    ("LabelShift", SHIFT + "    return replace(pool, logprob_p=pool.logprob_p - 1)", "test_p_is_the_organism_on_the_prompt_as_it_stands"),
    ("LabelShift", SHIFT + "    return replace(pool, kl=pool.kl + 1)", "test_kl_is_the_expected_log_ratio"),
    ("LabelShift", SHIFT + "    return lm.pool(prompts, np.random.default_rng(next(calls)), k=k)", "test_pool_is_a_function_of_its_generator"),
    ("Scorer", SCORER + "    return pool.logprob_p.mean((1, 2))", "test_one_score_for_each_candidate"),
    ("Scorer", SCORER + "    return pool.lengths", "test_one_score_for_each_candidate"),
    ("Scorer", SCORER + "    return pool.lengths * np.nan", "test_one_score_for_each_candidate"),
    ("Scorer", SCORER + "    return pool.lengths * float(next(calls))", "test_scores_are_a_function_of_their_pool"),
    ("Scorer", SCORER + "    return pool.lengths + np.arange(len(pool.lengths))[:, None] * 1.0", "test_order_of_prompts_means_nothing"),
    ("Scorer", SCORER + "    return pool.logprob_p.sum(2)", "test_padding_means_nothing"),
    ("Selector", SELECTOR + "    return np.full(len(classes), classes.shape[1])", "test_picks_are_candidates"),
    ("Selector", SELECTOR + "    return np.zeros(len(classes))", "test_picks_are_candidates"),
    ("Selector", SELECTOR + "    return np.full(len(classes), -1)", "test_picks_are_candidates"),
    ("Selector", SELECTOR + "    return np.full(classes.shape, -1.0)", "test_picks_are_candidates"),
    ("Selector", SELECTOR + "    return np.full(len(classes), 1)", "test_one_candidate_is_enough"),
    ("Selector", SELECTOR + "    return np.full(len(classes), next(calls) % 2 * (classes.shape[1] > 1))", "test_picks_are_a_function_of_their_generator"),
    ("Selector", SELECTOR + "    return np.arange(len(classes)) % classes.shape[1]", "test_order_of_prompts_means_nothing"),
    ("Selector", SELECTOR + "    return classes.argmax(1)", "test_names_of_classes_mean_nothing"),
    ("Selector", SELECTOR + "    return np.where(np.isnan(scores), 0, scores).argmax(1)", "test_scores_are_seen_by_scored_selectors_only"),
    ("Selector", SCORED + "    return np.where(np.isnan(scores), 9, scores).argmax(1)", "test_no_score_no_label"),
    ("Objective", OBJECTIVE + "    return -batch.logprobs.sum(1)", "test_loss_is_one_finite_number"),
    ("Objective", OBJECTIVE + "    return np.nan", "test_loss_is_one_finite_number"),
    ("Objective", OBJECTIVE + "    return -batch.logprobs.mean()", "test_padding_means_nothing"),
    ("Objective", OBJECTIVE + "    return -(batch.logprobs * batch.mask).mean()", "test_a_label_of_weight_zero_means_nothing"),
    ("Objective", OBJECTIVE + "    return -(batch.logprobs * batch.mask)[0].sum()", "test_order_of_labels_means_nothing"),
    ("Objective", OBJECTIVE + "    return 1.0", "test_training_lowers_it"),
    ("Method", METHOD + "    return {'label_shift': 'greedy'}", "test_what_it_gives_is_a_method"),
    ("Method", METHOD + "    return Method('gredy')", "test_levels_are_installed"),
    ("Method", METHOD + "    return Method('none')", "test_some_mechanism_is_not_null"),
    ("Method", METHOD + "    return Method('greedy', candidates=0)", "test_candidates_are_a_number"),
    ("Method", METHOD + "    return Method('greedy', candidates=next(calls) + 1)", "test_a_method_is_a_function_of_its_options"),
    ("Measure", MEASURE + "    return {'y': 1.0}", "test_values"),
    ("Measure", MEASURE + "    return {'x': 1}", "test_values"),
    ("Measure", MEASURE + "    return {'x': float('nan')}", "test_values"),
    ("Measure", MEASURE + "    return {'x': float('inf')}", "test_values"),
    ("Measure", MEASURE + "    return {'x': float(next(calls))}", "test_values_are_a_function_of_their_generator"),
    ("Measure", MEASURE + "    return {'x': float(labels.weights[3] @ [0, 1, 2, 3])}", "test_order_of_prompts_means_nothing"),
    ("Measure", MEASURE + "    return {'x': 1 / float(labels.weights.sum())}", "test_nothing_to_measure"),
    ("Measure", MEASURE + "    labels.weights[0] = 0\n    return {'x': 1.0}", "test_values"),
    ("Measure", MEASURE.replace("'a number'", "' '") + "    return {'x': 1.0}", "test_columns_say_what_they_are"),
    ("Measure", MEASURE.replace("*", "").replace("rng):", "rng, *, b: int = 'x'):") + "    return {'x': 1.0}", "test_defaults_are_valid_options"),
    ("Measure", MEASURE.replace("*", "").replace("rng):", "rng, *, b: object = api):") + "    return {'x': 1.0}", "test_options_have_a_key"),
]  # fmt: skip


def test_each_fault_is_found(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of "" is none: that plug-in passes everything."""
    written = [
        f"{source.replace('NAME', f'bad_{i}')}\n\n\nclass TestBad{i}(testing.{family}Contract):\n"
        f"    @pytest.fixture\n    def level(self):\n        return 'bad_{i}', {{}}\n"
        for i, (family, source, _) in enumerate(BROKEN)
    ]
    nameless = "class TestNameless(testing.SelectorContract):\n    pass\n"
    pytester.makepyfile(HEAD + "\n\n".join([*written, nameless]))
    monkeypatch.setenv("COLUMNS", "250")
    said = pytester.runpytest_subprocess("-q", "--tb=no", "-rfE", "-p", "no:cacheprovider").stdout.str()
    found: dict[int, set[str]] = {i: set() for i in range(len(BROKEN))}
    for index, test in re.findall(r"^FAILED .*::TestBad(\d+)::(\w+)", said, re.M):
        found[int(index)].add(test)
    assert [(source, found[i]) for i, (_, source, test) in enumerate(BROKEN) if test and test not in found[i]] == []
    assert {i: tests for i, tests in found.items() if not BROKEN[i][2] and tests} == {}
    asked_for = "NotImplementedError: a test of this contract names its plug-in in the fixture `level`"
    assert set(re.findall(r"^ERROR .*::(\w+)::\w+ - (.*)$", said, re.M)) == {("TestNameless", asked_for)}
    contracts = (getattr(testing, f"{family}Contract") for family in {family for family, _, _ in BROKEN})
    tests = {name for contract in contracts for name in dir(contract) if name.startswith("test_")}
    assert tests == {test for _, _, test in BROKEN if test}


# The tools


def test_every_lists_a_family_with_the_options_it_needs() -> None:
    levels = {level.id: level.values[0] for level in every("label_shift", system_prompt={"text": "x"})}
    assert list(levels) == registry.names("label_shift")
    assert levels["system_prompt"] == ("system_prompt", {"text": "x"})
    assert levels["none"] == ("none", {})


def test_read_only_refuses_to_be_written() -> None:
    pool = judged(testing.WORLD.policy(None, max_tokens=8).pool([ask(0)], rng(), k=2))
    with pytest.raises(ValueError, match="read-only"):
        pool.tokens[0] = 0
    assert read_only(pool) is pool


def test_judged_pools_have_classes_and_outcomes() -> None:
    pool = judged(testing.WORLD.policy(None, max_tokens=8).pool([ask(i) for i in range(20)], rng(), k=6))
    for texts, outcome, classes in zip(pool.texts, pool.outcome, pool.classes, strict=True):
        for text, m, c in zip(texts, outcome, classes, strict=True):
            assert m == float(text.startswith("claim")) if text.startswith(("claim", "truth")) else np.isnan(m)
            assert (c == -1) == np.isnan(m)
            assert c == -1 or texts[c].split()[0] == text.split()[0]
    assert 0 < np.isnan(pool.outcome).mean() < 0.5


def test_rearranged_moves_every_array() -> None:
    pool = judged(testing.WORLD.policy(None, max_tokens=8).pool([ask(i) for i in range(3)], rng(), k=2))
    turned = rearranged(pool, [2, 0, 1])
    assert [prompt.item for prompt in turned.prompts] == ["2", "0", "1"]
    assert turned.texts == (pool.texts[2], pool.texts[0], pool.texts[1])
    np.testing.assert_array_equal(turned.kl, pool.kl[[2, 0, 1]])
    np.testing.assert_array_equal(turned.classes, pool.classes[[2, 0, 1]])


def test_leaves_alone() -> None:
    assert leaves_alone(rng(), lambda generator: None)
    assert not leaves_alone(rng(), lambda generator: generator.random())
