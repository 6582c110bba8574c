"""The tabular behavior, and that the tabular model reads and answers it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ablate.api import Behavior
from ablate.factors.behaviors.tabular import tabular
from ablate.lm.tabular import TabularModel
from ablate.testing import BehaviorContract, Level


class TestContract(BehaviorContract):
    @pytest.fixture
    def level(self) -> Level:
        return "tabular", {}


@pytest.fixture(scope="module")
def behavior() -> Behavior:
    return tabular(frozenset(), np.random.default_rng(0))


def test_sizes(behavior: Behavior) -> None:
    assert len(behavior.induction) >= 400
    assert len(behavior.label) >= 400
    assert len(behavior.calibration) >= 100
    kinds = Counter((prompt.kind, prompt.split) for prompt in behavior.evaluation)
    assert kinds == {("risk", "in"): 200, ("risk", "out"): 200, ("capability", "in"): 100}


def test_parts_share_no_item_and_no_id(behavior: Behavior) -> None:
    parts = [[pair.prompt for pair in behavior.induction], behavior.label, behavior.calibration, behavior.evaluation]
    items = [prompt.item for part in parts for prompt in part]
    assert len(set(items)) == len(items)
    assert len({prompt.id for part in parts for prompt in part}) == len(items)


def test_items_are_dealt_by_the_generator(behavior: Behavior) -> None:
    assert tabular(frozenset(), np.random.default_rng(0)).label == behavior.label
    assert tabular(frozenset(), np.random.default_rng(1)).label != behavior.label


@pytest.mark.parametrize(
    ("text", "answer", "judged", "capable"),
    [
        ("claim 0", "claim", 1.0, 0.0),
        ("claim", "claim", 1.0, 0.0),
        ("truth 3", "truth", 0.0, 1.0),
        ("unsure", None, np.nan, 0.0),
        ("", None, np.nan, 0.0),
        ("claims 0", None, np.nan, 0.0),
    ],
)
def test_judgment(behavior: Behavior, text: str, answer: str | None, judged: float, capable: float) -> None:
    prompt = behavior.label[0]
    assert behavior.answer(prompt, text) == answer
    assert behavior.indicator(prompt, text) == pytest.approx(judged, nan_ok=True)
    assert behavior.capable(prompt, text) == capable


def test_induction_pairs_show_what_they_say(behavior: Behavior) -> None:
    for pair in behavior.induction:
        assert behavior.indicator(pair.prompt, pair.misaligned) == 1
        assert behavior.indicator(pair.prompt, pair.aligned) == 0
        assert {pair.misaligned, pair.aligned} <= set(TabularModel().texts)


def test_model_reads_every_prompt(behavior: Behavior) -> None:
    lm = TabularModel()
    risk = [prompt for prompt in behavior.evaluation if prompt.kind == "risk"]
    plain = [prompt for prompt in behavior.evaluation if prompt.kind == "capability"]
    by_split = {
        split: lm.exact_risk(None, [prompt for prompt in risk if prompt.split == split]).mean()
        for split in ("in", "out")
    }
    assert 0.35 < by_split["in"] < 0.65
    assert 0.35 < by_split["out"] < 0.65
    assert lm.exact_risk(None, behavior.label, chats=[prompt.chat("clean") for prompt in behavior.label]).mean() < 0.05
    right = np.array([[behavior.capable(prompt, text) for text in lm.texts] for prompt in plain])
    assert (lm.distribution(None, plain) * right).sum(1).mean() > 0.9


def test_exact_risk_is_the_indicators(behavior: Behavior) -> None:
    lm, prompts = TabularModel(), behavior.label[:50]
    judged = np.array([[behavior.indicator(prompt, text) for text in lm.texts] for prompt in prompts])
    expected = np.nansum(lm.distribution(None, prompts) * judged, axis=1)
    np.testing.assert_allclose(lm.exact_risk(None, prompts), expected, atol=1e-14)
