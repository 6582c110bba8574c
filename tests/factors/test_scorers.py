from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from ablate.api import Pool, TokenStatistics
from ablate.factors.scorers.behavior_oracle import behavior_oracle
from ablate.factors.scorers.certainty import entropy, self_certainty
from ablate.factors.scorers.consensus import agreement, medoid
from ablate.factors.scorers.length import length
from ablate.factors.scorers.mean_logprob import mean_logprob, sequence_logprob
from ablate.factors.scorers.shuffled import shuffled
from ablate.factors.scorers.universal import universal
from ablate.factors.selectors.scored import argmax
from ablate.testing import ScorerContract, ask, every

RATING = ("judge", "reward_model", "self_reward")
"""Scorers that need a model which can rate; they have tests of their own."""


class TestShipped(ScorerContract):
    @pytest.fixture(params=[level for level in every("scorer") if level.id not in RATING])
    def level(self, request):
        return request.param

    def test_a_score_belongs_to_its_answer_not_to_its_place(self, level, call, policy, pool):
        if level[0] == "shuffled":
            pytest.skip("a placebo: its scores belong to no answer")
        arrays = ("tokens", "lengths", "logprob_q", "logprob_p", "logprob_drawn", "kl", "outcome", "classes")
        turned = replace(
            pool,
            texts=tuple(row[::-1] for row in pool.texts),
            **{array: getattr(pool, array)[:, ::-1] for array in arrays},
        )
        np.testing.assert_allclose(call(policy, turned), np.asarray(call(policy, pool))[:, ::-1], rtol=1e-12)


def hand_made() -> Pool:
    """One prompt, two answers: two tokens and one; what stands in the padding is no number."""
    logprob_p = np.array([[[-1.0, -2.0], [-4.0, np.nan]]])
    return Pool(
        prompts=(),
        texts=(("a b", "c"),),
        tokens=np.zeros((1, 2, 2), np.int32),
        lengths=np.array([[2, 1]]),
        logprob_q=np.full((1, 2, 2), -7.0),
        logprob_p=logprob_p,
        logprob_drawn=np.full((1, 2, 2), -7.0),
        kl=np.zeros((1, 2, 2)),
        outcome=np.array([[1.0, np.nan]], np.float32),
    )


def test_mean_logprob_by_hand():
    np.testing.assert_array_equal(mean_logprob(None, hand_made()), [[-1.5, -4.0]])


def test_mean_logprob_is_that_of_the_organism_not_of_the_proposal():
    pool = hand_made()
    other = replace(pool, logprob_q=pool.logprob_q * 2, logprob_drawn=pool.logprob_drawn * 2)
    np.testing.assert_array_equal(mean_logprob(None, other), mean_logprob(None, pool))


@pytest.mark.parametrize(("outcome", "score"), [(0.0, 1.0), (1.0, 0.0), (np.nan, np.nan)])
def test_behavior_oracle(outcome, score):
    pool = replace(hand_made(), outcome=np.array([[outcome]], np.float32))
    np.testing.assert_array_equal(behavior_oracle(None, pool), [[score]])


def test_sequence_logprob_and_length_by_hand():
    np.testing.assert_array_equal(sequence_logprob(None, hand_made()), [[-3.0, -4.0]])
    np.testing.assert_array_equal(length(None, hand_made()), [[2.0, 1.0]])


@pytest.mark.parametrize("score", [mean_logprob, sequence_logprob])
def test_a_pool_without_log_probabilities_has_no_scores(score):
    pool = replace(hand_made(), logprob_p=np.full((1, 2, 2), np.nan))
    assert np.isnan(score(None, pool)).all()
    np.testing.assert_array_equal(argmax(score(None, pool), np.zeros((1, 2)), np.random.default_rng(0)), [-1])


@dataclass
class Fake:
    """A policy that answers from a table and notes what it was shown."""

    statistics: TokenStatistics | None = None
    vectors: dict = field(default_factory=dict)
    replies: dict = field(default_factory=dict)
    shown: list = field(default_factory=list)

    def token_statistics(self, pool):
        return self.statistics

    def embed(self, texts):
        return np.array([self.vectors[text] for text in texts], np.float32)

    def pool(self, prompts, rng, *, k, decoding, chats, max_tokens):
        assert (k, decoding.temperature, max_tokens) == (1, 0, 8)
        self.shown += chats
        texts = tuple((self.replies[prompt.id],) for prompt in prompts)
        return replace(hand_made(), prompts=tuple(prompts), texts=texts)


def test_certainty_is_the_mean_over_tokens():
    lm = Fake(TokenStatistics(np.array([[[1.0, 3.0], [5.0, 0.0]]]), np.array([[[2.0, 4.0], [6.0, 0.0]]])))
    np.testing.assert_array_equal(entropy(lm, hand_made()), [[2.0, 5.0]])
    np.testing.assert_array_equal(self_certainty(lm, hand_made()), [[3.0, 6.0]])


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([0, 0, 1, -1], [0.5, 0.5, 0.25, np.nan]),
        ([2, 2, 2, 2], [1.0] * 4),
        ([-1, -1, -1, -1], [np.nan] * 4),
        ([3], [1.0]),
    ],
    ids=str,
)
def test_agreement(classes, expected):
    pool = replace(hand_made(), classes=np.array([classes]))
    np.testing.assert_array_equal(agreement(None, pool), [expected])


def test_medoid_by_hand():
    """Two answers of one direction and one across: 1, 1 and 0 to each other, and 1 to themselves."""
    lm = Fake(vectors={"a": [1, 0], "b": [1, 0], "c": [0, 1]})
    pool = replace(hand_made(), texts=(("a", "c", "b"),), lengths=np.ones((1, 3), int))
    np.testing.assert_allclose(medoid(lm, pool), [[2 / 3, 1 / 3, 2 / 3]], rtol=1e-12)


def test_medoid_of_one_candidate_is_that_candidate():
    pool = replace(hand_made(), texts=(("a",),), lengths=np.ones((1, 1), int))
    np.testing.assert_array_equal(medoid(Fake(vectors={"a": [1, 0]}), pool), [[1.0]])


def many(texts, prompts=400):
    """A pool of the same candidates to many prompts."""
    return replace(
        hand_made(),
        prompts=tuple(map(ask, range(prompts))),
        texts=(texts,) * prompts,
        lengths=np.ones((prompts, len(texts)), int),
    )


def test_shuffled_scores_are_permuted_within_their_prompt():
    pool = many(("a", "b", "c"))
    scores = np.arange(1200.0).reshape(400, 3)
    found = shuffled(None, pool, scores=scores)
    np.testing.assert_array_equal(np.sort(found, axis=1), scores)
    counts = np.bincount((found.argmax(1)), minlength=3)
    assert np.abs(counts - 400 / 3).max() < 4 * np.sqrt(400 * 2 / 9)
    assert not np.array_equal(shuffled(None, pool, scores=scores, seed=1), found)
    other = replace(pool, texts=(("a", "b", "d"),) * 400)
    assert not np.array_equal(shuffled(None, other, scores=scores), found), "another pool, another permutation"


def test_universal_shows_all_candidates_and_takes_the_named_one():
    pool = many(("x", "y", "z"), prompts=60)
    lm = Fake(replies={prompt.id: "2." for prompt in pool.prompts})
    found = universal(lm, pool)
    for chat, row, shown in zip(lm.shown, found.scores, found.log["shown"], strict=True):
        at = int(row.argmax())
        assert row.tolist() == [float(i == at) for i in range(3)]
        assert sorted(shown) == [1, 2, 3]
        assert shown[at] == 2
        assert f"\n2. {pool.texts[0][at]}\n" in chat[0]["content"]
    np.testing.assert_array_equal(found.log["named"], np.full(60, 2.0))
    assert len(set(found.scores.argmax(1))) == 3, "the order is shuffled for each prompt"


@pytest.mark.parametrize("reply", ["", "the first", "0", "4", "77"])
def test_universal_abstains_where_no_candidate_is_named(reply):
    pool = many(("x", "y", "z"), prompts=2)
    found = universal(Fake(replies={prompt.id: reply for prompt in pool.prompts}), pool)
    assert np.isnan(found.scores).all()
    assert np.isnan(found.log["named"]).all()


def test_universal_asks_nothing_where_all_are_one():
    found = universal(Fake(), many(("x", "x"), prompts=2))
    np.testing.assert_array_equal(found.scores, 1.0)
    assert np.isnan(found.log["shown"]).all()


def test_universal_names_equal_candidates_together():
    pool = many(("x", "y", "x"), prompts=20)
    found = universal(Fake(replies={prompt.id: "Number 1" for prompt in pool.prompts}), pool)
    assert {tuple(row) for row in found.scores} == {(1.0, 0.0, 1.0), (0.0, 1.0, 0.0)}
