from dataclasses import dataclass, field

import numpy as np
import pytest

from ablate import registry
from ablate.api import Decoding
from ablate.factors.label_shifts.decodings import greedy, none, nucleus
from ablate.lm.tabular import TabularModel
from ablate.testing import LabelShiftContract, ask, every, rng

STRICT = "Be strict."
PROMPTS = tuple(map(ask, range(30)))
LM = TabularModel()
POLICY = LM.policy(None, max_tokens=8)


class TestShipped(LabelShiftContract):
    @pytest.fixture(params=every("label_shift", system_prompt={"text": STRICT}))
    def level(self, request):
        return request.param


class TestNarrowNucleus(LabelShiftContract):
    """Half of the probability: most tokens are cut off."""

    @pytest.fixture
    def level(self):
        return "nucleus", {"temperature": 0.7, "top_p": 0.5}


def of(name, **options):
    return registry.get("label_shift", name)(POLICY, PROMPTS, rng(), k=6, **options)


def sums(pool, values):
    return np.where(pool.mask, values, 0).sum(2)


@dataclass
class Recorder:
    """A policy that notes what it is asked."""

    asked: list = field(default_factory=list)

    def pool(self, prompts, rng, **options):
        self.asked.append((prompts, options))
        return POLICY.pool(prompts, rng, **options)


def asked(name, **options):
    policy = Recorder()
    registry.get("label_shift", name)(policy, PROMPTS, rng(), k=6, **options)
    ((prompts, given),) = policy.asked
    assert prompts == PROMPTS
    return given


def test_none_is_the_organism_itself():
    pool = of("none")
    np.testing.assert_allclose(pool.kl, 0, atol=1e-15)
    np.testing.assert_array_equal(pool.logprob_q, pool.logprob_p)
    np.testing.assert_allclose(pool.logprob_drawn, pool.logprob_p, atol=1e-14)
    assert asked("none") == {"k": 6}


def test_greedy_has_one_candidate_and_it_is_the_mode():
    pool = of("greedy")
    assert pool.lengths.shape == (len(PROMPTS), 1)
    assert pool.texts == POLICY.pool(PROMPTS, rng(5), k=1, decoding=Decoding(temperature=0)).texts
    np.testing.assert_array_equal(sums(pool, pool.logprob_drawn), 0)
    np.testing.assert_allclose(sums(pool, pool.kl), -sums(pool, pool.logprob_p), atol=1e-12)
    for i, chat in enumerate(prompt.chat() for prompt in PROMPTS):
        assert pool.tokens[i, 0, 0] == LM.logprobs(None, [chat])[0, 0].argmax()


def test_greedy_takes_no_chances():
    assert greedy(POLICY, PROMPTS, rng(0), k=4).texts == greedy(POLICY, PROMPTS, rng(1), k=1).texts


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (1.0, 0.4), (0.5, 1.0), (0.7, 0.8), (2.0, 0.95)])
def test_nucleus_by_hand(temperature, top_p):
    """The first token: temperature, then the fewest tokens that hold top_p, then the sum is 1 again."""
    pool = nucleus(POLICY, PROMPTS, rng(), k=20, temperature=temperature, top_p=top_p)
    raw = LM.logprobs(None, [prompt.chat() for prompt in PROMPTS])[:, 0]
    for i, logits in enumerate(raw):
        p = np.exp(logits / temperature)
        p /= p.sum()
        ranked = np.argsort(-p)
        kept = ranked[: 1 + int((p[ranked].cumsum() < top_p).sum())]
        expected = np.full(len(p), -np.inf)
        kept = kept[p[kept] > 0]
        expected[kept] = np.log(p[kept] / p[kept].sum())
        token = pool.tokens[i, :, 0]
        assert set(token.tolist()) <= set(kept.tolist())
        np.testing.assert_allclose(pool.logprob_drawn[i, :, 0], expected[token], atol=1e-12)
        q = np.exp(expected[kept])
        np.testing.assert_allclose(pool.kl[i, :, 0], (q * (expected[kept] - logits[kept])).sum(), atol=1e-12)
    np.testing.assert_array_equal(pool.logprob_q, pool.logprob_p)  # raw: the decoding is in logprob_drawn alone


def test_nucleus_without_truncation_is_none():
    np.testing.assert_array_equal(
        nucleus(POLICY, PROMPTS, rng(), k=6, temperature=1.0, top_p=1.0).tokens,
        none(POLICY, PROMPTS, rng(), k=6).tokens,
    )
    assert asked("nucleus") == {"k": 6, "decoding": Decoding(1.0, 0.9)}


@pytest.mark.parametrize(
    ("name", "options", "chats", "more"),
    [
        ("clean_view", {}, [p.chat("clean") for p in PROMPTS], {}),
        ("cot_view", {}, [p.chat(suffix=" Think step by step, then answer.") for p in PROMPTS], {"max_tokens": 32}),
        (
            "cot_view",
            {"instruction": "Why?", "max_tokens": 5},
            [p.chat(suffix=" Why?") for p in PROMPTS],
            {"max_tokens": 5},
        ),
        ("system_prompt", {"text": STRICT}, [p.chat(system=STRICT) for p in PROMPTS], {}),
    ],
)
def test_views_show_another_chat_and_decode_as_the_organism_does(name, options, chats, more):
    assert asked(name, **options) == {"k": 6, "chats": chats, **more}


@pytest.mark.parametrize("name", ["clean_view", "cot_view", "system_prompt"])
def test_views_have_the_exact_divergence(name):
    options = {"text": STRICT} if name == "system_prompt" else {}
    chats = asked(name, **options)["chats"]
    pool = registry.get("label_shift", name)(POLICY, PROMPTS, rng(), k=200, **options)
    exact = LM.exact_kl(None, PROMPTS, chats=chats).mean()
    per_answer = sums(pool, pool.kl)
    error = per_answer.mean() - exact
    assert exact > 0.01
    assert abs(error) < 3 * per_answer.std(axis=1, ddof=1).mean() / np.sqrt(per_answer.size) + 1e-12


@pytest.mark.parametrize("name", ["none", "nucleus", "clean_view", "cot_view", "system_prompt"])
def test_candidates_are_as_many_as_asked_for_and_fewer_are_a_prefix(name):
    options = {"text": STRICT} if name == "system_prompt" else {}
    few, many = (registry.get("label_shift", name)(POLICY, PROMPTS, rng(), k=k, **options) for k in (2, 5))
    assert many.lengths.shape == (len(PROMPTS), 5)
    assert few.texts == tuple(row[:2] for row in many.texts)
