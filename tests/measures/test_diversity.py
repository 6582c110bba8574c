from dataclasses import replace

import numpy as np
import pytest

from ablate.api import LabelSet, Pool
from ablate.lm.tabular import TabularModel
from ablate.measures.diversity import answer_diversity
from ablate.testing import MeasureContract, ask, judged, rng

NAN = float("nan")
LM = TabularModel()


class TestContract(MeasureContract):
    @pytest.fixture
    def level(self):
        return "answer_diversity", {}


def measured(pool: Pool, picks: int = 0) -> dict[str, float]:
    nothing = np.zeros((*pool.lengths.shape, 0))
    weights = np.eye(pool.lengths.shape[1])[np.full(len(pool.lengths), picks)]
    return answer_diversity(None, LabelSet(pool, pool, weights, nothing, nothing), None, rng())


def pool_of(outcome, classes=None, items=None) -> Pool:
    outcome = np.asarray(outcome, np.float32)
    zeros = np.zeros((*outcome.shape, 1))
    classes = np.full(outcome.shape, -1) if classes is None else np.asarray(classes)
    prompts = tuple(map(ask, items or range(len(outcome))))
    ones = np.ones(outcome.shape, int)
    return Pool(prompts, (), zeros.astype(int), ones, zeros, zeros, zeros, zeros, outcome, classes)


def test_by_hand():
    # pairs that differ: 3 of 6, none of 1, none there; threes with a majority of 1: 1 of 4 at p = 1/4
    values = measured(
        pool_of([[1, 0, 0, 0], [1, 1, NAN, NAN], [0, NAN, NAN, NAN]], [[0, 1, 1, 2], [-1, 3, 3, -1], [-1] * 4])
    )
    assert values == pytest.approx(
        {"outcome_disagreement": (3 / 6 + 0) / 2, "sharpening": -0.25, "sharpening_se": NAN, "distinct_answers": 2.0},
        nan_ok=True,
    )


def test_sharpening_moves_away_from_one_half():
    low, high = measured(pool_of([[1, 0, 0, 0]] * 5)), measured(pool_of([[0, 1, 1, 1]] * 5))
    assert low["sharpening"] == pytest.approx(-0.25)
    assert high["sharpening"] == pytest.approx(0.25)
    assert measured(pool_of([[0, 1, 0, 1]] * 5))["sharpening"] == pytest.approx(0)


def test_standard_error_is_clustered_by_item():
    rows = [[1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
    once, twice = measured(pool_of(rows)), measured(pool_of(rows * 2, items=[0, 1, 2] * 2))
    assert once["sharpening_se"] == pytest.approx(np.std([-0.25, 0.25, 0], ddof=1) / 3**0.5)
    assert twice["sharpening_se"] == pytest.approx(once["sharpening_se"])


@pytest.mark.parametrize(
    ("outcome", "missing"),
    [
        ([[NAN, NAN, NAN]], ["outcome_disagreement", "sharpening", "sharpening_se", "distinct_answers"]),
        ([[1.0], [0.0]], ["outcome_disagreement", "sharpening", "sharpening_se", "distinct_answers"]),
        ([[1.0, 0.0], [0.0, 0.0]], ["sharpening", "sharpening_se", "distinct_answers"]),
    ],
    ids=["nothing judged", "one candidate", "two candidates"],
)
def test_what_too_few_do_not_say_is_missing(outcome, missing):
    assert [name for name, value in measured(pool_of(outcome)).items() if np.isnan(value)] == missing


def test_unbiased_in_a_world_of_known_shares():
    """p_x of judged answers is claim / (claim + truth); nearly every prompt has three of them."""
    prompts = tuple(map(ask, range(40)))
    by_text = LM.distribution(None, prompts)
    claim, truth = (by_text[:, [t.startswith(form) for t in LM.texts]].sum(1) for form in ("claim", "truth"))
    p = claim / (claim + truth)
    rows = [measured(judged(LM.policy(None, max_tokens=8).pool(prompts, rng(s), k=6))) for s in range(200)]
    for name, exact in (("outcome_disagreement", 2 * p * (1 - p)), ("sharpening", 3 * p**2 - 2 * p**3 - p)):
        found = np.array([row[name] for row in rows])
        assert abs(found.mean() - exact.mean()) < 3 * found.std(ddof=1) / 200**0.5, name


def test_the_same_for_all_selectors():
    pool = judged(LM.policy(None, max_tokens=8).pool(tuple(map(ask, range(20))), rng(0), k=4))
    assert measured(pool, 0) == measured(pool, 3)


def test_classes_are_counted_whatever_their_numbers():
    pool = pool_of([[1, 0, 1, 0]] * 2, [[7, 3, 7, -1], [0, 0, 0, 0]])
    assert measured(pool)["distinct_answers"] == 1.5
    assert measured(replace(pool, classes=pool.classes[:, ::-1]))["distinct_answers"] == 1.5
