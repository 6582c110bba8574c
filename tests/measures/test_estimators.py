import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from ablate.errors import StudyError
from ablate.measures.divergence import clustered_mean, filtered, kl, kl_gaussian, kl_gaussian_mc, kl_mc
from ablate.testing import rng

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "closed_form.json"
NAN, INF = float("nan"), float("inf")


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference values beside the repository")
def test_estimators_against_published_moments():
    """Schulman's example, q = N(0, 1) and p = N(1, 1), whose KL is 1/2 in both directions."""
    expected = json.loads(REFERENCE.read_text())["k_estimators_mu1"]
    n = 1_000_000
    found = kl_gaussian_mc(0, 1, 1, 1, n, rng(0))
    assert abs(found["k1"].value - 0.5) < 3 * found["k1"].se
    assert abs(found["k2"].value - expected["k2_mean"]) < 3 * found["k2"].se
    assert abs(found["k3"].value - 0.5) < 3 * found["k3"].se
    for name, estimate in found.items():
        assert estimate.se * n**0.5 / 0.5 == pytest.approx(expected[f"{name}_sd_over_true"], rel=0.02), name


@pytest.mark.parametrize("parameters", [(0, 1, 0.3, 0.8), (1, 2, 0.5, 1), (0, 1, -0.5, 1)])
def test_unbiased_estimators_of_gaussians(parameters):
    found = kl_gaussian_mc(*parameters, 100_000, rng(1))
    for name in ("k1", "k3"):
        assert abs(found[name].value - kl_gaussian(*parameters)) < 3.5 * found[name].se, name
    assert found["k3"].se < found["k1"].se


def test_k3_needs_all_of_p():
    """After a truncation that keeps Z, p / q is Z at every draw: k1 is exact and k3 short by 1 - Z."""
    p = np.array([0.7, 0.2, 0.1])
    q, divergence, coverage = filtered(p, [True, True, False])
    draws = rng(0).choice(3, 50, p=q)
    logq, logp = np.log(q[draws]), np.log(p[draws])
    assert kl_mc(logq, logp, truncated=True).value == pytest.approx(divergence, abs=1e-12)
    assert kl_mc(logq, logp, "k3").value == pytest.approx(divergence - (1 - coverage), abs=1e-12)
    with pytest.raises(StudyError, match=r"k3 needs supp\(p\) inside supp\(q\), and a truncated q lacks answers"):
        kl_mc(logq, logp, "k3", truncated=True)


def worlds(draw, prompts):
    """Prompts with answers by p and q, [P, 4]; half of them are not shifted at all."""
    p = draw.dirichlet(np.ones(4), prompts)
    other = draw.dirichlet(np.ones(4), prompts)
    return p, np.where(draw.random((prompts, 1)) < 0.5, p, 0.5 * p + 0.5 * other)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_answers_to_one_prompt_are_a_cluster(estimator):
    """Over fresh prompts, whose answers share how far they are shifted, errors are those that are claimed."""
    p, q = worlds(rng(99), 200_000)
    truth, rows = kl(q, p).mean(), np.arange(60)[:, None]
    z = []
    for seed in range(300):
        draw = rng(seed)
        p, q = worlds(draw, 60)
        answers = (draw.random((60, 6, 1)) > q.cumsum(1)[:, None, :3]).sum(2)
        found = kl_mc(np.log(q[rows, answers]), np.log(p[rows, answers]), estimator)
        z.append((found.value - truth) / found.se)
    assert abs(np.mean(z)) < 0.35
    assert 0.85 < np.std(z) < 1.2


@pytest.mark.parametrize("shape", [(30,), (30, 4)])
def test_cluster_errors_against_statsmodels(shape):
    values = rng(0).normal(size=shape)
    groups = rng(1).integers(0, 7, 30)
    flat = np.repeat(groups, values[0].size)
    fit = sm.OLS(values.ravel(), np.ones(values.size)).fit(cov_type="cluster", cov_kwds={"groups": flat})
    assert clustered_mean(values, groups) == pytest.approx((fit.params[0], fit.bse[0]), abs=1e-12)
    assert clustered_mean(values, np.array(list("abcdefg"))[groups]) == pytest.approx(clustered_mean(values, groups))


def test_single_values_have_the_textbook_error():
    values = rng(0).normal(size=12)
    assert clustered_mean(values) == pytest.approx((values.mean(), values.std(ddof=1) / 12**0.5), abs=1e-12)
    assert np.isnan(clustered_mean(values, np.zeros(12)).se)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl_mc([0.0], [0.0], "k4"), "'k4' is no estimator of KL: k1, k2, k3"),
        (lambda: kl_mc([0.0], [0.0, 0.0]), r"logq has shape \(1,\) and logp \(2,\): both hold the same draws"),
        (lambda: kl_mc([], []), r"logq has shape \(0,\)"),
        (lambda: kl_mc([[0.0, NAN]], [[0.0, 0.0]]), r"logq\[0, 1\] is NaN: a draw without a density has no KL"),
        (lambda: kl_mc([0.0], [NAN]), r"logp\[0\] is NaN"),
        (lambda: kl_mc([-1.0, -2.0], [-1.0, -INF]), r"logp\[1\] is infinite: q drew what p cannot give"),
        (lambda: kl_mc([-INF], [-1.0]), r"logq\[0\] is infinite: q cannot have drawn it"),
        (lambda: kl_mc([0.0], [0.0], groups=[1, 2]), r"groups has shape \(2,\) for 1 rows: one cluster a row"),
        (lambda: kl_gaussian_mc(0, 1, 0, 1, 0, rng()), "kl_gaussian_mc: n = 0 is not >= 1"),
        (lambda: kl_gaussian_mc(0, -1, 0, 1, 10, rng()), "var_q = -1 is no variance"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(StudyError, match=message):
        call()
