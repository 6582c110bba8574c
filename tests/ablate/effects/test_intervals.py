import numpy as np
import pingouin
import pytest
from scipy import stats

from ablate.effects import Interval, t_interval, tost
from ablate.effects.intervals import organisms_needed, ratio


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_is_the_textbook_one(level):
    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert t_interval(np.append(values, np.nan), level) == pytest.approx((values.mean(), expected.low, expected.high))


def test_no_limits_without_variation_or_with_one_organism():
    same = t_interval(np.full(6, 0.1) * 3)
    assert same.estimate == pytest.approx(0.3)
    assert np.isnan(same.low)
    assert np.isnan(t_interval(np.array([1.0])).estimate)
    assert np.isnan(t_interval(np.array([np.nan, 1.0])).estimate)


def test_an_interval_without_limits_excludes_nothing():
    unknown = Interval(0.0, np.nan, np.nan)
    assert unknown.covers_zero
    assert not unknown.within(100)


@pytest.mark.parametrize(("low", "high", "inside"), [(-2, 2.9, True), (-2, 3, False), (-3.1, 0, False)])
def test_within_is_strict(low, high, inside):
    assert Interval(0, low, high).within(3) is inside


@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.7])
def test_tost_agrees_with_pingouin(shift):
    values = np.random.default_rng(1).normal(shift, 1, 9)
    table = pingouin.tost(values, np.zeros(9), bound=1.5, paired=True)
    assert tost(values, 1.5) == pytest.approx(float(table[next(c for c in table if c.startswith("p"))].iloc[0]))


def test_tost_is_the_90_percent_interval():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.5, 1, 8)
        assert (tost(values, 1.0) < 0.05) == t_interval(values, 0.9).within(1.0)


def test_tost_without_variation_shows_nothing():
    assert np.isnan(tost(np.zeros(6), 1.0))
    assert np.isnan(tost(np.array([0.0]), 1.0))


def test_ratio_has_the_delta_error():
    rng = np.random.default_rng(2)
    draws = rng.multivariate_normal([3, 10], [[1, 0.5], [0.5, 2]], (4000, 40))
    estimates = draws[..., 0].mean(1) / draws[..., 1].mean(1)
    values = np.array([ratio(d[:, 0], d[:, 1]) for d in draws[:500]])
    np.testing.assert_allclose(values.mean(axis=1), estimates[:500])
    assert values.std(axis=1, ddof=1).mean() / np.sqrt(40) == pytest.approx(estimates.std(), rel=0.05)


def test_organisms_needed_is_the_power_of_a_t_test():
    values = np.random.default_rng(3).normal(2, 3, 6)
    needed = organisms_needed(values, 4.0, alpha=0.025)
    d, df = 4.0 / values.std(ddof=1), needed - 1
    power = stats.nct.sf(stats.t.ppf(0.975, df), df, d * np.sqrt(needed))
    assert power == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("distance", [0.0, np.nan, 1e-6])
def test_no_number_of_organisms_is_said_where_there_is_none(distance):
    assert organisms_needed(np.array([1.0, 5.0, -3.0]), distance, alpha=0.05) is None
