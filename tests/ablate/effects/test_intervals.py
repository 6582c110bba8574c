import numpy as np
import pingouin
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from ablate.effects import Interval, t_interval, tost
from ablate.effects.intervals import fieller, ratio, share_interval


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


def test_fieller_limits_are_what_a_t_test_does_not_refute():
    rng = np.random.default_rng(6)
    whole = rng.normal(10, 2, 7)
    part = 0.3 * whole + rng.normal(0, 1, 7)
    found = fieller(part, whole)
    assert found.estimate == pytest.approx(part.mean() / whole.mean())
    for limit in found[1:]:
        assert stats.ttest_1samp(part - limit * whole, 0).pvalue == pytest.approx(0.05)


def test_fieller_has_no_limits_where_the_whole_may_be_zero():
    found = fieller(np.array([1.0, 2.0, 3.0]), np.array([1.0, -0.8, 0.2]))
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert np.isnan(fieller(np.full(4, 2.0), np.full(4, 4.0)).low)


@pytest.mark.parametrize("organisms", [2, 5])
def test_a_share_interval_stays_in_the_unit_interval(organisms):
    rng = np.random.default_rng(organisms)
    for _ in range(200):
        counts = rng.integers(1, 20, organisms)
        found = share_interval(rng.binomial(counts, rng.beta(1, 0.3)) / counts, counts.astype(float))
        assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_a_share_interval_is_that_of_wilson():
    """Shares that differ as much as independent trials do (here exactly) are worth all trials; oracle: statsmodels."""
    rng = np.random.default_rng(4)
    shares = rng.normal(0, 1, 400)
    shares = 0.3 + (shares - shares.mean()) / shares.std(ddof=1) * np.sqrt(0.3 * 0.7 / 50)
    found = share_interval(shares, np.full(400, 50.0))
    low, high = proportion_confint(0.3 * 20_000, 20_000, method="wilson")
    assert found == pytest.approx((0.3, low, high), abs=2e-5)


def test_where_all_is_alike_an_organism_is_one_trial():
    found = share_interval(np.ones(6), np.full(6, 40.0))
    assert found.high == 1.0
    assert found.low == pytest.approx(1 / (1 + stats.t.ppf(0.975, 5) ** 2 / 6))


def test_a_share_of_one_organism_has_no_limits():
    assert share_interval(np.array([0.25]), np.array([8.0]))[0] == 0.25
    assert np.isnan(share_interval(np.array([0.25]), np.array([8.0])).low)
    assert np.isnan(share_interval(np.array([0.25]), np.array([0.0])).estimate)


@pytest.mark.parametrize(("p", "correlation"), [(0.5, 0.0), (0.8, 0.1), (0.8, 0.3)])
def test_a_share_interval_covers(p, correlation):
    rng = np.random.default_rng(5)
    spread = 1 / correlation - 1 if correlation else 0.0
    covered = 0
    for _ in range(300):
        chance = rng.beta(p * spread, (1 - p) * spread, 6) if correlation else np.full(6, p)
        found = share_interval(rng.binomial(40, chance) / 40, np.full(6, 40.0))
        covered += found.low <= p <= found.high
    assert covered / 300 > 0.91


def test_pseudo_values_of_a_ratio_are_those_of_the_jackknife():
    """With many organisms J r - (J - 1) r_-o is the linearized pseudo-value, for the spread as for the mean."""
    rng = np.random.default_rng(0)
    whole = 10 + rng.normal(size=400)
    part = 0.6 * whole + 0.3 * rng.normal(size=400)
    without = (part.sum() - part) / (whole.sum() - whole)
    jackknife = 400 * part.sum() / whole.sum() - 399 * without
    assert ratio(part, whole) == pytest.approx(jackknife, abs=1e-3)
    assert ratio(0.6 * whole, whole) == pytest.approx(0.6)  # a constant share has no error, however the whole varies
