import numpy as np
import pytest

from ablate import registry
from ablate.factors.selectors.majority import agreement_filter, borda, majority
from ablate.factors.selectors.positional import first, random
from ablate.factors.selectors.scored import argmax, argmin, quantile, softmax, threshold
from ablate.testing import SelectorContract, every

NAN, INF = float("nan"), float("inf")


class TestShipped(SelectorContract):
    @pytest.fixture(params=every("selector", threshold={"at": 2.0}))
    def level(self, request):
        return request.param


class TestFirstViewOrNone(SelectorContract):
    @pytest.fixture
    def level(self):
        return "agreement_filter", {"at": 0.4, "take": "first"}


def picked(selector, *, scores=None, classes=None, seed=0, **options):
    """What is picked for one prompt."""
    scores = [NAN] * len(classes) if scores is None else scores
    classes = [0] * len(scores) if classes is None else classes
    picks = selector(np.array([scores]), np.array([classes]), np.random.default_rng(seed), **options)
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


@pytest.mark.parametrize("selector", [name for name in registry.names("selector") if name != "random"])
def test_the_others_draw_nothing(selector):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    options = {"at": 0.5} if selector == "threshold" else {}
    registry.get("selector", selector)(np.zeros((3, 4)), np.zeros((3, 4), int), rng, **options)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("selector", "scored", "law"),
    [
        ("first", False, "draw"),
        ("random", False, "draw"),
        ("majority", False, "plurality"),
        ("agreement_filter", False, None),  # given that it did not abstain, which is another law
        ("argmax", True, "highest"),
        ("argmin", True, "lowest"),
        ("threshold", True, None),
        ("quantile", True, "pick"),
        ("borda", True, "pick"),
        ("softmax", True, "weights"),
    ],
)
def test_who_needs_a_scorer_and_how_labels_are_distributed(selector, scored, law):
    assert registry.get("selector", selector).traits == {"scored": scored, "law": law}


@pytest.mark.parametrize(
    ("scores", "at", "pick"),
    [([0.2, 0.9], 0.9, 1), ([0.2, 0.9], 0.91, -1), ([NAN, 3.0], 1.0, 1), ([NAN, NAN], 0.0, -1), ([2.0, 2.0], 1.0, 0)],
    ids=str,
)
def test_threshold(scores, at, pick):
    assert picked(threshold, scores=scores, at=at) == pick


@pytest.mark.parametrize(
    ("scores", "q", "pick"),
    [
        ([3.0, 1.0, 2.0], 0.0, 1),
        ([3.0, 1.0, 2.0], 0.5, 2),
        ([3.0, 1.0, 2.0], 1.0, 0),
        ([3.0, 1.0, 2.0], 0.24, 1),
        ([3.0, 1.0, 2.0], 0.26, 2),
        ([3.0, NAN, 2.0], 0.5, 0),  # half way is up
        ([NAN, 5.0], 0.0, 1),
        ([NAN, NAN], 0.5, -1),
        ([1.0, 0.0, 1.0, 1.0], 0.7, 0),  # a tie goes to the first
        ([INF, -INF, 0.0], 1.0, 0),
        ([INF, -INF, 0.0], 0.0, 1),
    ],
    ids=str,
)
def test_quantile(scores, q, pick):
    assert picked(quantile, scores=scores, q=q) == pick


def test_quantiles_go_from_argmin_to_argmax():
    scores = np.random.default_rng(0).normal(size=(50, 6))
    for q, extreme in ((0.0, argmin), (1.0, argmax)):
        np.testing.assert_array_equal(quantile(scores, None, None, q=q), extreme(scores, None, None))


@pytest.mark.parametrize(
    ("scores", "tau", "weights"),
    [
        ([0.0, np.log(3)], 1.0, [0.25, 0.75]),
        ([0.0, np.log(3)], 0.5, [0.1, 0.9]),
        ([7.0, 7.0, NAN], 1.0, [0.5, 0.5, 0.0]),
        ([NAN, NAN], 1.0, [0.0, 0.0]),
        ([0.0, -INF], 1.0, [1.0, 0.0]),
        ([0.0, INF, INF], 1.0, [0.0, 0.5, 0.5]),
        ([-INF, NAN], 1.0, [1.0, 0.0]),
        ([1000.0, 0.0], 1e-9, [1.0, 0.0]),
    ],
    ids=str,
)
def test_softmax(scores, tau, weights):
    np.testing.assert_allclose(softmax(np.array([scores]), None, None, tau=tau), [weights], atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "at", "take", "pick"),
    [
        ([1, 0, 0, 2], 0.5, "majority", 1),
        ([1, 0, 0, 2], 0.51, "majority", -1),
        ([0, 1, 1], 0.6667, "majority", 1),
        ([0, 1, 1], 0.6667, "first", -1),
        ([1, 0, 1], 0.6667, "first", 0),
        ([1, -1, 1], 1.0, "first", -1),
        ([1, 1, 1], 1.0, "first", 0),
        ([-1, 1, 1], 0.3, "first", -1),  # it states nothing
        ([-1, -1], 0.1, "majority", -1),
        ([4], 1.0, "majority", 0),
    ],
    ids=str,
)
def test_agreement_filter(classes, at, take, pick):
    assert picked(agreement_filter, classes=classes, at=at, take=take) == pick


@pytest.mark.parametrize(
    ("scores", "classes", "power", "pick"),
    [
        # by hand: ranks from below 4, 1, 3, 2 cast so many votes; class 0 has 4 + 1, class 1 has 3 + 2
        ([9.0, 1.0, 5.0, 4.0], [0, 0, 1, 1], 1.0, 0),
        ([9.0, 1.0, 5.0, 4.0], [0, 0, 1, 1], 2.0, 0),  # 17 against 13
        ([9.0, 1.0, 5.0, 4.0], [0, 0, 1, 1], 0.5, 2),  # 3 against 3.15
        ([9.0, 1.0, 5.0, 4.0], [0, 1, 1, 1], 1.0, 2),  # 4 against 6
        ([9.0, 1.0, 5.0, 4.0], [0, 1, 1, 1], 50.0, 0),  # argmax
        ([9.0, 1.0, 5.0, 4.0], [0, 1, 1, 1], 0.0, 2),  # the best of the majority
        ([9.0, 1.0, 5.0, 4.0], [-1, 1, 1, 1], 1.0, 2),  # what states no answer has no vote
        ([9.0, 1.0, 5.0, 4.0], [-1, -1, -1, -1], 1.0, 0),
        ([NAN, 1.0, 5.0, 4.0], [0, 1, 1, 2], 1.0, 2),  # ranks 1 + 3 against 2
        ([NAN, NAN], [0, 0], 1.0, -1),
        ([NAN, 2.0], [0, -1], 1.0, 1),
        ([2.0, 2.0, 2.0], [0, 1, 1], 1.0, 1),  # equal scores share their rank: the majority
    ],
    ids=str,
)
def test_borda(scores, classes, power, pick):
    assert picked(borda, scores=scores, classes=classes, power=power) == pick
