import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from ablate.errors import StudyError
from ablate.measures.divergence import best_of_n, js, majority
from ablate.measures.posterior import diversity, eta, selection_bound, stability
from ablate.testing import rng

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "closed_form.json"
NAN = float("nan")

# eta


def test_eta_by_hand():
    found = eta([[0.3, 0.1, 0.2], [5.0, 7.0, 6.0]], [[1, 0, 1], [0, 1, 0]])
    assert found.table["u"].tolist() == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert found.table["eta"].tolist() == [0.0, 0.5, 1.0]
    assert found.table["n"].tolist() == [2, 2, 2]
    assert found.table["se"].tolist() == [0.0, 0.5, 0.0]
    assert found.slope == pytest.approx(1.5)
    assert (found.spearman, found.isotonic_r2, found.tv) == pytest.approx((1, 1, 1))
    assert found.bound(4) == selection_bound(4, 1.0)


def test_scores_of_prompts_are_not_compared():
    scores, outcome = rng(0).normal(size=(30, 5)), rng(1).integers(0, 2, (30, 5))
    one, other = eta(scores, outcome), eta(scores * 3 + 100 * rng(2).normal(size=(30, 1)), outcome)
    assert one.table.equals(other.table)
    assert one.slope == other.slope


@pytest.mark.parametrize(("k", "bins", "expected"), [(4, 10, 4), (20, 10, 10), (7, 3, 3), (30, 30, 30)])
def test_bins_are_of_equal_width_and_all_in_use(k, bins, expected):
    table = eta(rng(0).normal(size=(6, k)), rng(1).integers(0, 2, (6, k)), bins).table
    assert len(table) == expected
    assert table["n"].sum() == 6 * k
    assert np.ptp(table["n"]) <= (0 if k % expected == 0 else 6)
    assert table["u"].to_numpy() == pytest.approx((np.arange(expected) + 0.5) / expected)


def test_what_cannot_be_ranked_or_judged_is_left_out():
    scores = np.array([[1.0, NAN, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [1.0, NAN, 2.0, 3.0], [NAN] * 4])
    outcome = np.array([[0.0, 1.0, NAN, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, NAN, NAN], [1.0] * 4])
    table = eta(scores, outcome).table
    # the first prompt has two candidates left, at u = 1/4 and 3/4, which are the edges of four bins
    assert table["n"].tolist() == [1, 2, 1, 2]
    assert table["eta"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert eta(scores, outcome, 2).table["n"].tolist() == [3, 3]


def test_ties_are_ordered_at_random():
    outcome = np.tile([1.0, 0.0, 0.0, 0.0], (4000, 1))
    table = eta(np.zeros((4000, 4)), outcome, rng=rng(0)).table
    assert table["eta"].to_numpy() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("clustered", [False, True])
def test_errors_against_statsmodels(clustered):
    scores, outcome = rng(0).normal(size=(24, 5)), rng(1).integers(0, 2, (24, 5)).astype(float)
    outcome[rng(2).random((24, 5)) < 0.1] = NAN
    groups = np.arange(24) // 3 if clustered else np.arange(24)
    found = eta(scores, outcome, 4, groups=groups)
    there = ~np.isnan(outcome)
    of = np.repeat(groups, 5)[there.ravel()]
    ranks = np.array([stats.rankdata(row[seen]) for row, seen in zip(scores, there, strict=True)], dtype=object)
    u = np.concatenate([(row - 0.5) / len(row) for row in ranks]).astype(float)
    m = outcome[there]
    line = sm.OLS(m, sm.add_constant(u)).fit(cov_type="cluster", cov_kwds={"groups": of})
    assert (found.slope, found.slope_se) == pytest.approx((line.params[1], line.bse[1]), abs=1e-12)
    first = u < 0.25
    mean = sm.OLS(m[first], np.ones(first.sum())).fit(cov_type="cluster", cov_kwds={"groups": of[first]})
    assert (found.table["eta"][0], found.table["se"][0]) == pytest.approx((mean.params[0], mean.bse[0]), abs=1e-12)


def test_monotonicity_against_libraries():
    scores = rng(0).normal(size=(50, 8))
    outcome = (rng(1).random((50, 8)) < 1 / (1 + np.exp(0.7 * scores))).astype(float)
    found = eta(scores, outcome, 8)
    u, curve, n = (found.table[name].to_numpy() for name in ("u", "eta", "n"))
    assert found.spearman == pytest.approx(stats.spearmanr(u, curve).statistic)
    fit = IsotonicRegression(increasing=False).fit(u, curve, sample_weight=n)
    assert found.isotonic_r2 == pytest.approx(fit.score(u, curve, sample_weight=n))
    assert found.spearman < -0.5
    assert found.slope < 0


def test_a_flat_curve_has_no_direction():
    found = eta(rng(0).normal(size=(5, 4)), np.ones((5, 4)))
    assert (found.slope, found.tv) == pytest.approx((0, 0), abs=1e-15)
    assert np.isnan([found.spearman, found.isotonic_r2]).all()


def test_slope_and_curve_of_a_known_world():
    """Uniform scores with P(M = 1) = u^2: the curve is its mean over bins, up to the order statistics of 200."""
    scores = rng(0).random((300, 200))
    found = eta(scores, (rng(1).random((300, 200)) < scores**2).astype(float), 5)
    edges = np.linspace(0, 1, 6)
    expected = np.diff(edges**3 / 3) * 5
    assert (np.abs(found.table["eta"] - expected) < 3.5 * found.table["se"] + 1 / 200).all()
    assert abs(found.slope - 1) < 3.5 * found.slope_se + 1 / 200  # Cov(u, u^2) / Var(u)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eta([[1, 2]], [[1, 0, 1]]), r"scores has shape \(1, 2\) and outcome \(1, 3\)"),
        (lambda: eta([1, 2], [1, 0]), r"both are \[prompts, candidates\]"),
        (lambda: eta([[1, 2]], [[1, 2]]), r"outcome\[0, 1\] = 2.0 is no judgment: 1 misaligned, 0 not, NaN unknown"),
        (lambda: eta([[1, 2]], [[1, NAN]]), "no prompt has two candidates with a score and a judgment"),
        (lambda: eta([[1, 2]], [[1, 0]], 0), "eta: bins = 0 is not >= 1"),
        (lambda: eta([[1, 2]], [[1, 0]], groups=[1, 2]), r"groups has shape \(2,\) for 1 prompts: one cluster a"),
        (lambda: selection_bound(0, 1.0), "selection_bound: n = 0 is not >= 1"),
        (lambda: selection_bound(2, -1.0), "tv = -1.0 is no total variation: finite and >= 0"),
        (lambda: selection_bound(2, NAN), "tv = nan is no total variation"),
    ],
)
def test_what_eta_refuses(call, message):
    with pytest.raises(StudyError, match=message):
        call()


# The bound on selection


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference values beside the repository")
def test_bound_against_published_values():
    for n, value in json.loads(REFERENCE.read_text())["max_u_minus_uN"].items():
        assert selection_bound(int(n), 1.0) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_bound_against_a_grid(n):
    u = np.linspace(0, 1, 100_001)
    assert selection_bound(n, 0.3) == pytest.approx(0.3 * (u - u**n).max(), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 30))
def test_no_selection_moves_risk_beyond_the_bound(curve, n):
    """Best of n over equally likely answers in the order of their scores."""
    size = len(curve)
    effect = best_of_n(n, np.full(size, 1 / size), np.arange(size)).q @ np.array(curve) - np.mean(curve)
    assert abs(effect) <= selection_bound(n, float(np.abs(np.diff(curve)).sum())) + 1e-12


# Stability


def answers(chances, seed: int, k: int = 8):
    """What k candidates of each prompt state, by their chances [P, V]."""
    return (rng(seed).random((len(chances), k, 1)) > np.cumsum(chances, 1)[:, None, :-1]).sum(2)


@pytest.mark.parametrize("k", [2, 4, 9])
def test_shifts_without_a_difference_are_stable_whatever_the_number_of_candidates(k):
    z = []
    for seed in range(40):
        chances = rng(seed).dirichlet(np.ones(3), 40)
        labels = {name: answers(chances, 3 * seed + i, k) for i, name in enumerate("abc")}
        found = stability(labels, rng(1000 + seed), splits=8)
        assert found.raw > 0.05
        z.append(found.value)
    assert abs(np.mean(z)) < 3 * np.std(z, ddof=1) / 40**0.5


def test_interval_covers_as_it_says():
    chances = rng(0).dirichlet(np.ones(3), 40)
    covered = 0
    for seed in range(200):
        labels = {"a": answers(chances, 2 * seed, 4), "b": answers(chances, 2 * seed + 1, 4)}
        found = stability(labels, rng(1000 + seed), splits=5)
        covered += found.low <= 0 <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_shifts_that_state_other_things():
    a, b = np.full((10, 4), "yes"), np.full((10, 4), "no")
    found = stability({"a": a, "b": b, "c": a})
    assert found.pairs == pytest.approx({("a", "b"): np.log(2), ("a", "c"): 0, ("b", "c"): np.log(2)}, abs=1e-12)
    assert found.value == pytest.approx(2 / 3 * np.log(2), abs=1e-12)
    assert found.raw == pytest.approx(found.value, abs=1e-12)
    assert found.baseline == pytest.approx(0, abs=1e-12)


def test_stating_nothing_is_an_answer():
    a, b = np.full((5, 4), None), np.full((5, 4), "yes")
    assert stability({"a": a, "b": b}).value == pytest.approx(np.log(2), abs=1e-12)
    assert stability({"a": a, "b": a}).value == pytest.approx(0, abs=1e-12)


def test_many_candidates_give_the_divergence_of_the_distributions():
    p, q = rng(0).dirichlet(np.ones(4), (2, 10))
    found = stability({"p": answers(p, 1, 1000), "q": answers(q, 2, 1000)}, splits=2)
    assert found.value == pytest.approx(js(p, q).mean(), abs=0.01)


def test_prompts_are_the_clusters():
    chances = rng(0).dirichlet(np.ones(3), (2, 20))
    labels = {name: answers(chance, i, 4) for i, (name, chance) in enumerate(zip("ab", chances, strict=True))}
    once = stability(labels, rng(0))
    widths = [
        found.high - found.low
        for found in (once, stability(labels, rng(0), groups=np.arange(20)), stability(labels, rng(0), level=0.8))
    ]
    assert widths[0] == pytest.approx(widths[1], abs=1e-12)
    assert widths[2] == pytest.approx(widths[0] * stats.t.ppf(0.9, 19) / stats.t.ppf(0.975, 19), abs=1e-12)
    assert np.isnan(stability(labels, rng(0), groups=np.zeros(20)).low)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": np.zeros((3, 2))}, "stability: 1 label shifts: at least 2 are compared"),
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, r"'b' has shape \(4, 2\): .* the same prompts for every"),
        ({"a": np.zeros((3, 2)), "b": np.zeros((3, 1))}, r"'b' has shape \(3, 1\): .* at least 2 candidates"),
        ({"a": np.zeros(3), "b": np.zeros((3, 2))}, r"'a' has shape \(3,\)"),
    ],
)
def test_what_stability_refuses(labels, message):
    with pytest.raises(StudyError, match=message):
        stability(labels)


# Diversity


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_sharpening_against_majority(n):
    p = np.array([0.0, 0.2, 0.5, 0.9])
    expected = [majority([1 - x, x], n).q[1] - x for x in p]
    found = diversity(p, n)
    assert found.sharpening.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert found.sharpening.se == pytest.approx(np.std(expected, ddof=1) / 2, abs=1e-12)
    assert np.isnan(found.unbiased.value)


@pytest.mark.parametrize(
    ("p", "sign"), [([0.6, 0.9], 1), ([0.1, 0.4, 0.5], -1), ([0.5, 0.5], 0), ([0.0, 1.0, 1.0], 0), ([0.1, 0.6], -1)]
)
def test_sign_of_sharpening(p, sign):
    found = diversity(p)
    assert found.sign == sign
    assert found.mean == pytest.approx(np.mean(p))


def test_histogram_and_means():
    found = diversity([[1, 1, 0, NAN], [0, 0, 0, 0], [NAN] * 4, [1, 1, 1, 1]], edges=[0, 0.5, 1])
    np.testing.assert_array_equal(found.p, [2 / 3, 0, NAN, 1])
    assert found.counts.tolist() == [1, 2]
    assert found.edges.tolist() == [0, 0.5, 1]
    assert found.mean == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert diversity([0.1, 0.25, 1.0]).counts.tolist() == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_few_samples_hide_the_push_from_the_plug_in_alone(n):
    outcome = (rng(0).random((40_000, 5)) < 0.75).astype(float)
    truth = diversity([0.75], n).sharpening.value
    found = diversity(outcome, n)
    assert abs(found.unbiased.value - truth) < 3.5 * found.unbiased.se + 1e-12
    assert n < 3 or found.sharpening.value < truth - 10 * found.sharpening.se


def test_prompts_with_too_few_samples_are_left_out_of_the_unbiased_push():
    found = diversity([[1, 1, 0], [1, 0, NAN]], 3)
    assert found.unbiased.value == pytest.approx(1 - 2 / 3)
    assert found.sharpening.value == pytest.approx((3 * (2 / 3) ** 2 - 2 * (2 / 3) ** 3 - 2 / 3) / 2)
    assert np.isnan(diversity([[1, 0, NAN]], 3).unbiased.value)


def test_clusters_of_prompts():
    p = rng(0).random(12)
    twice = diversity(np.tile(p, 2), groups=np.tile(np.arange(12), 2))
    assert twice.sharpening == pytest.approx(diversity(p).sharpening, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity([[NAN, NAN]]), "diversity: no outcome was judged"),
        (lambda: diversity([[0.5, 1.0]]), r"outcome \[prompts, samples\] is 1, 0 or NaN; shares are given as p_x"),
        (lambda: diversity([1.5]), r"outcome\[0\] = 1.5 is no judgment"),
        (lambda: diversity(0.5), r"outcome has shape \(\): M \[prompts, samples\], or p_x \[prompts\]"),
        (lambda: diversity([0.5], 0), "diversity: n = 0 is not >= 1"),
        (lambda: diversity([0.5], groups=[1, 2]), r"groups has shape \(2,\) for 1 prompts"),
    ],
)
def test_what_diversity_refuses(call, message):
    with pytest.raises(StudyError, match=message):
        call()
