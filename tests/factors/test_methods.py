"""Each method is the point of the grid that it was released as; oracle: the paper's table, written out by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from ablate import registry
from ablate.levels import Level
from ablate.methods import point, table
from ablate.testing import MethodContract, every

SKYWORK = ("reward_model", {"model": "Skywork/Skywork-Reward-V2-Llama-3.1-8B"})
PROMPT_AND_ANSWER = ("sft", {"on": "all"})
NONE, FIRST = ("none", {}), ("first", {})

# method: label shift, candidates, scorer, selector, objective; options are those that the paper states
GRID = {
    "greedy_self_training": (("greedy", {}), 1, None, FIRST, PROMPT_AND_ANSWER),
    "rejection_sampling": (("temperature", {"temperature": 0.7}), 4, SKYWORK, ("argmax", {}), PROMPT_AND_ANSWER),
    "self_certainty": (
        ("nucleus", {"temperature": 0.7, "top_p": 0.9}),
        4,
        ("mean_logprob", {}),
        ("argmax", {}),
        PROMPT_AND_ANSWER,
    ),
    "dual_decoding": (
        ("mixed_decoding", {"temperature": 0.8, "top_p": 0.9, "width": 4}),
        3,
        SKYWORK,
        ("argmax", {}),
        PROMPT_AND_ANSWER,
    ),
    "multi_view_consistency": (
        ("multi_view", {}),
        3,
        None,
        ("agreement_filter", {"at": 0.66, "take": "first"}),
        PROMPT_AND_ANSWER,
    ),
    "self_refinement": (("refine", {"temperature": 0.6, "top_p": 0.9}), 1, None, FIRST, PROMPT_AND_ANSWER),
    "self_rewarding": (
        ("temperature", {"temperature": 0.7}),
        4,
        ("self_reward", {}),
        ("argmax", {}),
        PROMPT_AND_ANSWER,
    ),
    "bct": (NONE, None, None, FIRST, ("bct", {"alignment": "tail", "teacher": "live", "temperature": 1.0})),
    "act": (NONE, None, None, FIRST, ("act", {"alignment": "tail", "teacher": "live", "weight": 1e-4})),
}


class TestShipped(MethodContract):
    @pytest.fixture(params=every("method"))
    def level(self, request):
        return request.param


class TestWithAScorer(MethodContract):
    @pytest.fixture(params=["rejection_sampling", "dual_decoding"])
    def level(self, request):
        return request.param, {"scorer": {"shuffled": {"scorer": "mean_logprob"}}, "k": 2}


def at(name, **options):
    """The point of a method with options as a study validates them."""
    return point(Level("method", name, registry.get("method", name).options(**options).model_dump()))


def states(level, expected):
    """That a level has this name and, among all of its options, these."""
    name, options = expected
    return level.name == name and options.items() <= dict(level.options).items()


def test_every_method_of_the_paper_is_there():
    assert registry.names("method") == sorted(GRID)


@pytest.mark.parametrize("method", GRID)
def test_points_of_the_grid(method):
    label_shift, candidates, scorer, selector, objective = GRID[method]
    own = at(method)
    assert states(own["label_shift"], label_shift)
    assert own.get("labels.candidates") == candidates
    assert states(own["selector"], selector)
    assert states(own["objective"], objective)
    if scorer is None:
        assert own["selector"].scorer is None
    else:
        assert states(own["selector"].scorer, scorer)


def test_the_table_names_the_points():
    rows = {row["method"]: row for row in table()}
    assert list(rows) == registry.names("method")
    assert rows["self_certainty"] == {
        "method": "self_certainty",
        "label shift": "nucleus(temperature=0.7)",
        "candidates": "4",
        "scorer": "mean_logprob",
        "selector": "argmax",
        "objective": "sft(on=all)",
    }
    assert rows["bct"] == {
        "method": "bct",
        "label shift": "none",
        "candidates": "-",
        "scorer": "-",
        "selector": "first",
        "objective": "bct(alignment=tail, teacher=live)",
    }


@pytest.mark.parametrize(
    ("classes", "pick"),
    [
        ([0, 0, 0], 0),
        ([0, 0, 1], 0),  # one other view agrees with the greedy answer
        ([0, 1, 0], 0),
        ([0, 1, 1], -1),  # the other views agree with each other
        ([0, 1, 2], -1),
        ([-1, 1, 1], -1),  # the greedy answer states nothing
    ],
    ids=str,
)
def test_multi_view_consistency_accepts_the_greedy_answer_or_none(classes, pick):
    selector = at("multi_view_consistency")["selector"]
    choose = registry.get("selector", selector.name)
    picks = choose(np.full((1, 3), np.nan), np.array([classes]), np.random.default_rng(0), **selector.options)
    assert picks.tolist() == [pick]


# Options


@pytest.mark.parametrize("method", ["rejection_sampling", "dual_decoding"])
@pytest.mark.parametrize(
    ("scorer", "label"),
    [
        ("mean_logprob", "mean_logprob"),
        ({"shuffled": {"scorer": "length"}}, "shuffled(length)"),
        ({"self_reward": {"max_tokens": 4}}, "self_reward(max_tokens=4)"),
    ],
    ids=str,
)
def test_another_scorer(method, scorer, label):
    own = at(method, scorer=scorer)
    assert own["selector"].scorer.label == label
    assert {**own, "selector": None} == {**at(method), "selector": None}, "and nothing else changes"


@pytest.mark.parametrize("method", ["rejection_sampling", "self_certainty", "dual_decoding", "self_rewarding"])
def test_another_number_of_candidates(method):
    assert at(method, k=7) == {**at(method), "labels.candidates": 7}
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        at(method, k=0)


def test_how_many_views_must_agree():
    assert at("multi_view_consistency", at=1.0)["selector"].options == {"at": 1.0, "take": "first"}
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        at("multi_view_consistency", at=1.5)
