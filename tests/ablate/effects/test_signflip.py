from itertools import product

import numpy as np
import pytest
from scipy import stats

from ablate.effects import sign_flip, smallest_p
from ablate.effects.signflip import _t
from ablate.errors import StudyError


def brute(table):
    """All 2^J flips, one by one, with the textbook t."""

    def t(values):
        values = values[np.isfinite(values)]
        return abs(values.mean()) / (values.std(ddof=1) / np.sqrt(values.size))

    observed = np.array([t(column) for column in table.T])
    flips = [
        np.array([t(column) for column in (table * np.array(s)[:, None]).T])
        for s in product([1, -1], repeat=len(table))
    ]
    close = 1 - 1e-9
    p = np.mean([flip >= observed * close for flip in flips], axis=0)
    adjusted = np.mean([flip.max() >= observed * close for flip in flips], axis=0)
    return p, adjusted


@pytest.mark.parametrize("organisms", [2, 3, 6, 8])
@pytest.mark.parametrize("gap", [False, True])
def test_agrees_with_enumeration_by_hand(organisms, gap):
    table = np.random.default_rng(organisms).normal([0, 1, 3], 1, (organisms, 3))
    if gap and organisms > 3:
        table[1, 0] = np.nan
    result = sign_flip(table)
    p, adjusted = brute(table)
    np.testing.assert_allclose(result.p, p)
    np.testing.assert_allclose(result.p_adjusted, adjusted)
    assert (result.flips, result.exact) == (2**organisms, True)


@pytest.mark.parametrize("organisms", [2, 5, 6, 14])
def test_smallest_p_is_reached_and_not_passed(organisms):
    values = 5 + np.random.default_rng(0).normal(0, 0.1, organisms)
    assert sign_flip(values).p == pytest.approx([2 / 2**organisms])
    assert smallest_p(organisms) == 2 / 2**organisms


def test_equal_differences_have_the_smallest_p():
    assert sign_flip(np.full((6, 2), 3.0)).p_adjusted == pytest.approx([2 / 64, 2 / 64])


def test_nothing_but_zeros_is_no_effect():
    assert sign_flip(np.zeros(6)).p == pytest.approx([1.0])


def test_sign_unit_and_order_do_not_matter():
    table = np.random.default_rng(3).normal(0.5, 1, (7, 4))
    p = sign_flip(table).p_adjusted
    np.testing.assert_allclose(sign_flip(-table).p_adjusted, p)
    np.testing.assert_allclose(sign_flip(table * [1, 10, 1e-3, 5]).p_adjusted, p)
    np.testing.assert_allclose(sign_flip(table[::-1]).p_adjusted, p)


def test_a_family_costs_and_never_pays():
    result = sign_flip(np.random.default_rng(4).normal(0.7, 1, (8, 5)))
    assert (result.p_adjusted >= result.p).all()
    assert (result.p_adjusted > result.p).any()


def test_one_organism_has_no_p():
    table = np.array([[1.0, 2.0], [np.nan, 1.0], [np.nan, 3.0]])
    result = sign_flip(table)
    assert np.isnan(result.p[0])
    assert np.isfinite(result.p[1])


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ([], r"^differences has shape \(0, 1\): there is no organism or no contrast to test$"),
        (np.empty((6, 0)), r"^differences has shape \(6, 0\): there is no organism or no contrast to test$"),
        ([1.0, np.inf, 2.0], "^1 of 3 organisms have an infinite value"),
        (np.array([[1.0, -np.inf], [np.inf, np.nan], [1.0, 2.0]]), "^2 of 3 organisms have an infinite value"),
    ],
)
def test_what_cannot_be_flipped_is_refused(differences, message):
    with pytest.raises(StudyError, match=message):
        sign_flip(differences)


def test_many_organisms_are_drawn_with_a_seed():
    values = np.random.default_rng(5).normal(0.4, 1, (20, 2))
    first, again = sign_flip(values), sign_flip(values)
    assert (first.flips, first.exact) == (10_000, False)
    np.testing.assert_array_equal(first.p_adjusted, again.p_adjusted)
    other = sign_flip(values, rng=np.random.default_rng(99))
    assert abs(other.p - first.p).max() < 0.02
    assert sign_flip(np.full(30, 2.0)).p[0] >= 1 / 10_001


def test_exact_and_drawn_agree():
    values = np.random.default_rng(6).normal(0.5, 1, (10, 3))
    drawn = sign_flip(values, exact_up_to=5, draws=20_000)
    np.testing.assert_allclose(drawn.p_adjusted, sign_flip(values).p_adjusted, atol=0.015)


def test_statistic_is_the_t_of_the_contrast():
    table = np.random.default_rng(8).normal(1, 1, (6, 3))
    table[0, 1] = np.nan
    expected = stats.ttest_1samp(table, 0, nan_policy="omit").statistic
    np.testing.assert_allclose(_t(np.ones((1, 6)), table)[0], expected)


def test_familywise_error_under_the_null_is_below_the_level():
    rng = np.random.default_rng(7)
    worlds = rng.normal(0, 1, (400, 8, 1)) + rng.standard_t(3, (400, 8, 4))  # correlated, heavy tails
    false = np.mean([sign_flip(world).p_adjusted.min() < 0.05 for world in worlds])
    assert 0.02 < false < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    raw = np.mean([sign_flip(world).p.min() < 0.05 for world in worlds])
    assert raw > 0.08  # without the adjustment the same four tests are too many
