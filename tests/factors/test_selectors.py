import numpy as np
import pytest

from ablate import registry
from ablate.factors.selectors.majority import majority
from ablate.factors.selectors.positional import first, random
from ablate.factors.selectors.scored import argmax, argmin
from ablate.testing import SelectorContract, every

NAN, INF = float("nan"), float("inf")


class TestShipped(SelectorContract):
    @pytest.fixture(params=every("selector"))
    def level(self, request):
        return request.param


def picked(selector, *, scores=None, classes=None, seed=0):
    """What is picked for one prompt."""
    scores = [NAN] * len(classes) if scores is None else scores
    classes = [0] * len(scores) if classes is None else classes
    picks = selector(np.array([scores]), np.array([classes]), np.random.default_rng(seed))
    assert picks.shape == (1,)
    assert np.issubdtype(picks.dtype, np.integer)
    return picks[0]


@pytest.mark.parametrize(
    ("classes", "pick"),
    [
        ([0, 1, 1, 2], 1),
        ([0, 0, 0], 0),
        ([2, 1, 1, 2], 0),  # a tie goes to the first
        ([0, 1, 2, 3], 0),
        ([3, 1, 2, 2, 1], 1),
        ([-1, -1, -1, 0], 3),  # what states no answer has no vote
        ([-1, 0, -1, 1], 1),
        ([-1, 5, 4, 4], 2),
        ([-1, -1], 0),  # nothing is stated: the first
        ([7], 0),
        ([-1], 0),
    ],
    ids=str,
)
def test_majority(classes, pick):
    assert picked(majority, classes=classes) == pick


@pytest.mark.parametrize(
    ("scores", "highest", "lowest"),
    [
        ([1.0, 3.0, 2.0], 1, 0),
        ([2.0, 2.0, 1.0, 1.0], 0, 2),  # ties to the first
        ([0.0, 0.0], 0, 0),
        ([NAN, 1.0, 2.0], 2, 1),
        ([5.0, NAN, NAN], 0, 0),
        ([NAN, -3.0, NAN], 1, 1),
        ([NAN, NAN], -1, -1),
        ([NAN], -1, -1),
        ([4.0], 0, 0),
        ([NAN, -INF], 1, 1),  # the lowest score there is beats none
        ([NAN, INF], 1, 1),
        ([-INF, NAN, INF], 2, 0),
        ([NAN, -INF, -INF], 1, 1),
    ],
    ids=str,
)
def test_extremes(scores, highest, lowest):
    assert picked(argmax, scores=scores) == highest
    assert picked(argmin, scores=scores) == lowest


def test_extremes_do_not_look_at_classes():
    for classes in ([0, 0, 0], [-1, -1, -1], [2, 1, 0]):
        assert picked(argmax, scores=[0.0, 1.0, 0.5], classes=classes) == 1


def test_first():
    picks = first(np.full((5, 3), NAN), np.full((5, 3), -1), np.random.default_rng(0))
    np.testing.assert_array_equal(picks, np.zeros(5))


def test_random_is_uniform():
    picks = random(np.full((4000, 4), NAN), np.zeros((4000, 4)), np.random.default_rng(0))
    counts = np.bincount(picks, minlength=4)
    assert counts.size == 4
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)


def test_random_draws_from_its_generator():
    one, other = (random(np.zeros((50, 4)), np.zeros((50, 4)), np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("selector", ["first", "majority", "argmax", "argmin"])
def test_the_others_draw_nothing(selector):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    registry.get("selector", selector)(np.zeros((3, 4)), np.zeros((3, 4), int), rng)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("selector", "scored"),
    [("first", False), ("random", False), ("majority", False), ("argmax", True), ("argmin", True)],
)
def test_who_needs_a_scorer(selector, scored):
    assert registry.get("selector", selector).traits["scored"] is scored
