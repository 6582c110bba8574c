import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, spatial, stats

from ablate.errors import StudyError
from ablate.measures.divergence import (
    best_of_n,
    cross_entropy,
    entropy,
    filtered,
    js,
    kl,
    kl_gaussian,
    majority,
    reweighted,
    total_variation,
)
from ablate.testing import rng

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "closed_form.json"
NAN = float("nan")
LOG2 = np.log(2)


@pytest.fixture(scope="module")
def published():
    if not REFERENCE.is_file():
        pytest.skip("no reference values beside the repository")
    return json.loads(REFERENCE.read_text())


def random_distribution(seed: int, shape=(5,)):
    return rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


# Published values


def test_temperature_against_published_values(published):
    p = np.array(published["categorical_P"])
    q = p**2 / (p**2).sum()  # temperature 1/2
    found = {
        "KL_QP": kl(q, p),
        "KL_PQ": kl(p, q),
        "JS": js(q, p),
        "TV": total_variation(q, p),
        "CE_QP": cross_entropy(q, p),
        "H_P": entropy(p),
        "H_Q": entropy(q),
    }
    expected = published["T0.5"]
    assert q == pytest.approx(expected.pop("Q"), abs=1e-6)
    assert found == pytest.approx(expected, abs=1e-6)


def test_truncation_against_published_values(published):
    p = np.array(published["categorical_P"])
    assert kl([1, 0, 0], p) == pytest.approx(published["greedy_KL"], abs=1e-6)
    assert filtered(p, [True, False, False]).kl == pytest.approx(published["greedy_KL"], abs=1e-6)
    assert filtered(p, [True, True, False]).kl == pytest.approx(published["top_p_0.9_KL"], abs=1e-6)


def test_selection_against_published_values(published):
    for n, value in published["best_of_n_continuous"].items():
        assert best_of_n(int(n)) == pytest.approx(value, abs=1e-6)
    assert best_of_n(4, [0.5, 0.5], [0, 1]).kl == pytest.approx(published["best_of_4_binary_uniform"], abs=1e-6)
    for n, (share, divergence) in published["majority_p0.6"].items():
        found = majority([0.6, 0.4], int(n))
        assert found.q == pytest.approx([share, 1 - share], abs=1e-6)
        assert found.kl == pytest.approx(divergence, abs=1e-6)


def test_gaussians_against_published_values(published):
    assert kl_gaussian(0, 1, 1, 1) == pytest.approx(published["kl_gauss_0_1__1_1"], abs=1e-12)
    assert kl_gaussian(0, 1, 0, 4) == pytest.approx(published["kl_gauss_var1_var4"], abs=1e-12)
    assert kl_gaussian(0, 4, 0, 1) == pytest.approx(published["kl_gauss_var4_var1"], abs=1e-12)


# Divergences


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 50)])
def test_divergences_against_scipy(shape):
    q, p = random_distribution(0, shape), random_distribution(1, shape)
    assert kl(q, p) == pytest.approx(stats.entropy(q, p, axis=-1), abs=1e-12)
    assert js(q, p) == pytest.approx(spatial.distance.jensenshannon(q, p, axis=-1) ** 2, abs=1e-12)
    assert entropy(p) == pytest.approx(stats.entropy(p, axis=-1), abs=1e-12)
    assert cross_entropy(q, p) == pytest.approx(kl(q, p) + entropy(q), abs=1e-12)
    assert np.shape(kl(q, p)) == np.shape(js(q, p)) == shape[:-1]
    assert isinstance(kl(q.reshape(-1, shape[-1])[0], p.reshape(-1, shape[-1])[0]), float)


def test_one_distribution_meets_many():
    q, p = random_distribution(0, (3, 4)), random_distribution(1, (4,))
    for function in (kl, js, total_variation):
        assert function(q, p) == pytest.approx([function(row, p) for row in q], abs=1e-15)


def test_nothing_has_no_weight():
    assert kl([1, 0], [0.5, 0.5]) == pytest.approx(LOG2, abs=1e-15)
    assert kl([0, 1, 0], [0, 1, 0]) == 0
    assert js([1, 0], [0, 1]) == pytest.approx(LOG2, abs=1e-15)
    assert total_variation([1, 0], [0, 1]) == 1


CHANCES = arrays(float, 4, elements=st.sampled_from([0.0, 5e-324, 1e-300, 1e-9, 0.3, 1.0, 7.0])).filter(np.any)


@given(CHANCES, CHANCES)
def test_js_is_bounded_and_symmetric(one, other):
    one, other = one / one.sum(), other / other.sum()
    value = js(one, other)
    assert 0 <= value <= LOG2
    assert value == pytest.approx(js(other, one), abs=1e-15)
    assert js(one, one) == 0
    middle = (one + other) / 2
    if ((middle > 0) >= (one + other > 0)).all():
        assert value == pytest.approx((kl(one, middle) + kl(other, middle)) / 2, abs=1e-12)
    assert value <= total_variation(one, other) * LOG2 + 1e-12  # Lin, 1991, theorem 3


@pytest.mark.parametrize("function", [kl, cross_entropy])
def test_an_infinite_divergence_names_the_answer(function):
    with pytest.raises(StudyError, match=r"infinite, because supp\(q\) is not inside supp\(p\): q\[1\] = 0.5 where p"):
        function([0.5, 0.5, 0], [0.5, 0, 0.5])
    with pytest.raises(StudyError, match=r"q\[0, 2\] = 1 where p is 0; js\(q, p\) is finite"):
        function([[0, 0, 1], [1, 0, 0]], [1, 0, 0])
    assert js([0.5, 0.5, 0], [0.5, 0, 0.5]) == pytest.approx(LOG2 / 2, abs=1e-15)


@pytest.mark.parametrize(
    ("q", "p", "message"),
    [
        ([1.5, -0.5], [0.5, 0.5], r"q\[1\] = -0.5 is no probability"),
        ([0.5, 0.5], [NAN, 1], r"p\[0\] = nan is no probability"),
        ([0.5, 0.5], [0.5, 0.4], r"p sums to 0.9, not to 1 within 1e-09: divide by the sum"),
        ([[0.5, 0.5], [0.5, 0.5 + 2e-9]], [0.5, 0.5], r"q\[1\] sums to 1.000000002, not to 1"),
        ([0.5, 0.5], [1.0], r"q is over 2 answers and p over 1: align them first"),
        (np.full((2, 2), 0.5), np.full((3, 2), 0.5), r"q has shape \(2, 2\) and p \(3, 2\): the leading axes"),
        (1.0, [1.0], r"q: probabilities \[..., V\] are needed, this has shape \(\)"),
        ([], [], r"q: probabilities \[..., V\] are needed, this has shape \(0,\)"),
    ],
)
@pytest.mark.parametrize("function", [kl, js, total_variation, cross_entropy])
def test_what_is_no_distribution(function, q, p, message):
    with pytest.raises(StudyError, match=message):
        function(q, p)


# Selection


def drawn(p, n, winner):
    """The distribution of what ``winner`` (the set that ties) makes of every sequence of draws, in fractions."""
    q = [Fraction(0)] * len(p)
    for draws in itertools.product(range(len(p)), repeat=n):
        chance = Fraction(1)
        for y in draws:
            chance *= p[y]
        best = winner(draws)
        for y in best:
            q[y] += chance / len(best)
    return [float(share) for share in q]


CASES = [([1, 2, 3], [0.1, 0.5, 0.2]), ([2, 1, 1, 3], [1, 0, 1, 0]), ([0, 1, 4], [5, 5, 5]), ([1, 0, 1], [0, 1, 2])]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("sizes", "scores"), CASES)
def test_best_of_n_against_every_sequence_of_draws(sizes, scores, n):
    p = [Fraction(size, sum(sizes)) for size in sizes]

    def winner(draws):  # of tied draws, each is as likely; a repeated answer counts as often as it was drawn
        top = max(scores[y] for y in draws)
        return [y for y in draws if scores[y] == top]

    found = best_of_n(n, [float(share) for share in p], scores)
    assert found.q == pytest.approx(drawn(p, n, winner), abs=1e-14)
    assert found.kl == pytest.approx(kl(found.q, [float(share) for share in p]), abs=1e-14)
    assert found.kl <= best_of_n(n) + 1e-14


def test_many_answers_come_near_the_bound():
    found = best_of_n(4, np.full(100_000, 1e-5), np.arange(100_000))
    assert best_of_n(4) - 1e-4 < found.kl < best_of_n(4)


def test_a_rare_best_answer_is_not_lost_to_rounding():
    rare = Fraction(1, 2**50)
    q = best_of_n(3, [float(1 - rare), float(rare)], [0, 1]).q
    assert q[1] == pytest.approx(float(1 - (1 - rare) ** 3), rel=1e-12)


def test_nothing_is_gained_by_one_draw_or_by_tied_scores():
    p = random_distribution(3)
    for found in (best_of_n(1, p, np.arange(5)), best_of_n(7, p, np.zeros(5)), majority(p, 1), majority(p, 2)):
        assert found.q == pytest.approx(p, abs=1e-12)
        assert found.kl == pytest.approx(0, abs=1e-12)
    assert best_of_n(1) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("sizes", [[3, 2], [1, 2, 3], [1, 0, 1, 2], [1, 1, 1, 1], [1]])
def test_majority_against_every_sequence_of_draws(sizes, n):
    p = [Fraction(size, sum(sizes)) for size in sizes]

    def winner(draws):
        most = max(map(draws.count, draws))
        return [y for y in set(draws) if draws.count(y) == most]

    found = majority([float(share) for share in p], n)
    assert found.q == pytest.approx(drawn(p, n, winner), abs=1e-13)
    assert found.kl == pytest.approx(kl(found.q, [float(share) for share in p]), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 31, 64])
def test_majority_of_two_answers_is_binomial(n):
    expected = stats.binom.sf(n / 2, n, 0.3) + (stats.binom.pmf(n // 2, n, 0.3) / 2 if n % 2 == 0 else 0)
    assert majority([0.3, 0.7], n).q[0] == pytest.approx(expected, rel=1e-10)


def test_a_majority_that_takes_too_long_is_refused():
    with pytest.raises(StudyError, match=r"majority: 100 draws of 10 answers give 4,263,421,511,271 tables of counts"):
        majority(np.full(10, 0.1), 100)
    assert majority([*np.full(2, 0.5), *np.zeros(98)], 100).q[0] == pytest.approx(0.5)  # the impossible cost nothing


def test_filter():
    p = random_distribution(5)
    found = filtered(p, np.array([True, False, True, True, False]))
    assert found.coverage == pytest.approx(p[[0, 2, 3]].sum(), abs=1e-15)
    assert found.q == pytest.approx(np.array([p[0], 0, p[2], p[3], 0]) / found.coverage, abs=1e-15)
    assert found.kl == pytest.approx(kl(found.q, p), abs=1e-14)
    assert filtered(p, np.ones(5, bool)).kl == pytest.approx(0, abs=1e-15)


def test_weights():
    q = random_distribution(6)
    best = best_of_n(4, q, [3, 1, 4, 1, 5])
    for scale in (1.0, 1e-6, 40.0):
        found = reweighted(scale * best.q / q, q)
        assert found.q == pytest.approx(best.q, abs=1e-14)
        assert found.kl == pytest.approx(best.kl, abs=1e-13)
    kept = reweighted([1, 0, 1, 0, 0], q)
    assert kept.kl == pytest.approx(filtered(q, [True, False, True, False, False]).kl, abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of_n(0), "best_of_n: n = 0 is not >= 1"),
        (lambda: best_of_n(2.5), "best_of_n: n = 2.5 is no integer"),
        (lambda: best_of_n(2, p=[1.0]), "p and scores are given together, or neither for the bound"),
        (lambda: best_of_n(2, [0.5, 0.5], [1.0]), r"scores has shape \(1,\), p has \(2,\): one score an answer"),
        (lambda: best_of_n(2, [0.5, 0.5], [1, NAN]), r"scores\[1\] is NaN: leave out answers without a score"),
        (lambda: best_of_n(2, [[1.0]], [[1.0]]), r"p: one distribution \[V\] is needed, this has shape \(1, 1\)"),
        (lambda: majority([0.5, 0.5], -1), "majority: n = -1 is not >= 1"),
        (lambda: filtered([0.5, 0.5], [1, 0]), r"keep holds one True or False an answer, \(2,\); this is int64 \(2,\)"),
        (lambda: filtered([0.5, 0.5], [True]), r"this is bool \(1,\)"),
        (lambda: filtered([1.0, 0.0], [False, True]), "no answer of positive probability is kept"),
        (lambda: reweighted([1.0], [0.5, 0.5]), r"w has shape \(1,\), q has \(2,\): one weight an answer"),
        (lambda: reweighted([1.0, -1.0], [0.5, 0.5]), r"w\[1\] = -1.0 is no weight: finite and >= 0"),
        (lambda: reweighted([NAN, 1.0], [0.5, 0.5]), r"w\[0\] = nan is no weight"),
        (lambda: reweighted([0, 1], [1.0, 0.0]), r"E_q\[w\] = 0, nothing is selected"),
        (lambda: kl_gaussian(0, 0, 0, 1), "var_q = 0 is no variance: finite and > 0"),
        (lambda: kl_gaussian(0, 1, 0, NAN), "var_p = nan is no variance"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(StudyError, match=message):
        call()


def test_gaussians_against_quadrature():
    q, p = stats.norm(0.3, 1.7**0.5), stats.norm(-1, 0.6**0.5)
    value, _ = integrate.quad(lambda y: q.pdf(y) * (q.logpdf(y) - p.logpdf(y)), -15, 15)
    assert kl_gaussian(0.3, 1.7, -1, 0.6) == pytest.approx(value, rel=1e-8)
