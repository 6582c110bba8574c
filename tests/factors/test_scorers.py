from dataclasses import replace

import numpy as np
import pytest

from ablate.api import Pool
from ablate.factors.scorers.behavior_oracle import behavior_oracle
from ablate.factors.scorers.mean_logprob import mean_logprob
from ablate.testing import ScorerContract, every


class TestShipped(ScorerContract):
    @pytest.fixture(params=every("scorer"))
    def level(self, request):
        return request.param

    def test_a_score_belongs_to_its_answer_not_to_its_place(self, call, policy, pool):
        arrays = ("tokens", "lengths", "logprob_q", "logprob_p", "logprob_drawn", "kl", "outcome", "classes")
        turned = replace(
            pool,
            texts=tuple(row[::-1] for row in pool.texts),
            **{array: getattr(pool, array)[:, ::-1] for array in arrays},
        )
        np.testing.assert_array_equal(call(policy, turned), np.asarray(call(policy, pool))[:, ::-1])


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
