from dataclasses import replace
from functools import partial

import numpy as np
import ot
import pytest
from scipy import linalg, special, stats

from ablate.errors import StudyError
from ablate.measures.distances import (
    centroid_cosine,
    centroid_distances,
    energy,
    energy_of,
    frechet,
    frechet_of,
    mmd2,
    mmd2_of,
    sliced_distances,
    sliced_w2,
    sliced_w2_of,
)
from ablate.measures.embedding import shifts
from ablate.measures.samples import two_samples
from ablate.testing import rng

NAN = float("nan")
ALL = [mmd2, energy, centroid_cosine, frechet, partial(sliced_w2, projections=4)]
NAMES = ["mmd2", "energy", "centroid_cosine", "frechet", "sliced_w2"]
UNEVEN = (np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 6]), np.array([0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7]))
"""Prompts with different numbers of answers, one of them without any of x."""


def two(seed: int, n: int = 12, m: int | None = None, d: int = 3, shift: float = 0.0):
    draw = rng(seed)
    return draw.normal(size=(n, d)) + shift, draw.normal(size=(n if m is None else m, d))


# Values


def looped(kernel, x, y, of_x, of_y) -> float:
    """Means over pairs of different prompts, written out."""

    def mean(a, b, of_a, of_b):
        values = [
            kernel(p, q)
            for i, (p, g) in enumerate(zip(a, of_a, strict=True))
            for j, (q, h) in enumerate(zip(b, of_b, strict=True))
            if g != h
        ]
        return sum(values) / len(values)

    return mean(x, x, of_x, of_x) + mean(y, y, of_y, of_y) - 2 * mean(x, y, of_x, of_y)


def test_kernels_against_a_double_loop():
    x, y = two(0, 11, 14)
    assert energy(x, y, groups=UNEVEN).value == pytest.approx(
        looped(lambda a, b: -np.linalg.norm(a - b), x, y, *UNEVEN), abs=1e-12
    )
    points = np.concatenate([x, y])
    width = np.median([((a - b) ** 2).sum() for i, a in enumerate(points) for b in points[:i]])
    assert mmd2(x, y, groups=UNEVEN).value == pytest.approx(
        looped(lambda a, b: np.exp(-((a - b) ** 2).sum() / width), x, y, *UNEVEN), abs=1e-12
    )


def test_energy_in_one_dimension_against_scipy():
    """scipy's is the root of the V-statistic, which has the pairs of one prompt too."""
    x, y = two(1, 40, d=1, shift=0.5)
    v = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    u = (40**2 * v - 2 * np.abs(x - y).sum()) / (40 * 39)
    assert energy(x, y).value == pytest.approx(u, abs=1e-12)


def test_energy_against_dcor():
    dcor = pytest.importorskip("dcor")
    x, y = two(2, 30, d=4, shift=0.5)
    u = (30**2 * dcor.energy_distance(x, y) - 2 * np.linalg.norm(x - y, axis=1).sum()) / (30 * 29)
    assert energy(x, y).value == pytest.approx(u, abs=1e-12)


def test_frechet_against_matrix_square_roots():
    x, y = two(3, 30, 26, shift=0.4)
    y = y @ np.array([[1.5, 0.2, 0.0], [0.0, 0.5, 0.3], [0.1, 0.0, 1.0]])
    groups = (np.arange(30) % 13, np.arange(26) % 13)
    found = frechet(x, y, groups=groups, components=3)
    s, t = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert found.raw == pytest.approx(expected, rel=1e-9)
    bures = ot.gaussian.bures_wasserstein_distance(x.mean(0), y.mean(0), s, t)
    assert found.raw == pytest.approx(bures**2, rel=1e-9)
    assert found.value == pytest.approx(found.raw - found.null, abs=1e-12)
    assert found.components == 3


def test_frechet_sees_its_principal_components_alone():
    x, y = two(4, 40)
    wide = np.array([100.0, 10.0, 1e-3])
    assert frechet(x * wide, y * wide, components=2).raw == pytest.approx(
        frechet(x[:, :2] * wide[:2], y[:, :2] * wide[:2], components=2).raw, rel=1e-4
    )
    assert frechet(*two(5, 40, d=20)).components == 8
    assert frechet(*two(5, 40, d=2)).components == 2
    assert frechet(*two(5, 6, d=20)).components == 3


@pytest.mark.parametrize(("n", "m"), [(20, 20), (11, 14)])
def test_sliced_w2_against_the_distance_of_pot(n, m):
    x, y = two(6, n, m, d=4, shift=0.3)
    samples = two_samples(x, y, permutations=1, groups=None if n == m else UNEVEN)
    directions = rng(3).normal(size=(4, 60))
    directions /= np.linalg.norm(directions, axis=0)
    expected = ot.sliced_wasserstein_distance(x, y, projections=directions)
    assert sliced_w2_of(samples, rng(3), projections=60).value == pytest.approx(expected, abs=1e-12)


def test_sliced_w2_in_one_dimension_sorts():
    x, y = two(7, 30, d=1, shift=0.3)
    expected = np.sqrt(((np.sort(x, axis=0) - np.sort(y, axis=0)) ** 2).mean())
    assert sliced_w2(x, y, projections=3).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [2, 5])
def test_picks_are_compared_to_the_mixture_with_themselves(k):
    """p = x / K + (1 - 1/K) y, here as a sample with copies; what is over pairs is that of x and y, by (1 - 1/K)^2."""
    x, y = two(14, 40, d=2, shift=0.7)
    samples = replace(two_samples(x, y, permutations=1), picked_from=k)
    mixed = np.concatenate([x, *[y] * (k - 1)])
    for function, of_pairs in ((mmd2, mmd2_of), (energy, energy_of)):
        assert of_pairs(samples).value == pytest.approx((1 - 1 / k) ** 2 * function(x, y).value, abs=1e-12)
    projected = samples.points @ np.eye(2)
    weights = np.concatenate([np.full(40, 1 / k), np.full(40, 1 - 1 / k)]) / 40
    along = [ot.wasserstein_1d(x[:, d], samples.points[:, d], v_weights=weights, p=2) for d in (0, 1)]
    assert sliced_distances(samples, projected)[0] ** 2 == pytest.approx(np.mean(along), abs=1e-12)
    cosine = x.mean(0) @ mixed.mean(0) / np.linalg.norm(x.mean(0)) / np.linalg.norm(mixed.mean(0))
    assert centroid_distances(samples)[0] == pytest.approx(1 - cosine, abs=1e-12)
    s, t = np.cov(x.T, ddof=0), np.cov(mixed.T, ddof=0)
    expected = ((x.mean(0) - mixed.mean(0)) ** 2).sum() + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert frechet_of(samples, components=2).raw == pytest.approx(expected, rel=0.02)  # n - 1 and n


def test_centroids_by_hand():
    x, y = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])
    assert centroid_cosine(x, y).value == pytest.approx(1 - 0.5**0.5, abs=1e-15)
    assert centroid_cosine(x, -x).value == pytest.approx(2, abs=1e-15)


def energy_of_gaussians(shift: float) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| for N(shift, 1) and N(0, 1), from the folded normal distribution."""
    between = 2 / np.sqrt(np.pi) * np.exp(-(shift**2) / 4) + shift * special.erf(shift / 2)
    return 2 * between - 4 / np.sqrt(np.pi)


@pytest.mark.parametrize(
    ("function", "n", "d", "shift", "expected"),
    [
        (partial(energy, permutations=1), 200, 1, 0.0, 0.0),
        (partial(energy, permutations=1), 200, 1, 1.0, energy_of_gaussians(1.0)),
        (partial(frechet, components=2, permutations=20), 300, 2, 0.0, 0.0),
        (partial(frechet, components=2, permutations=20), 300, 2, 1.0, 2.0),
        (partial(sliced_w2, projections=1, permutations=1), 4000, 1, 1.0, 1.0),
    ],
    ids=["energy", "energy, shifted", "frechet", "frechet, shifted", "sliced_w2, shifted"],
)
def test_means_of_gaussians(function, n, d, shift, expected):
    """Unbiased, but for the sliced distance, whose bias falls with n."""
    found = [function(*two(seed, n, d=d, shift=shift), rng(seed)).value for seed in range(30)]
    assert abs(np.mean(found) - expected) < 3 * np.std(found, ddof=1) / 30**0.5


def test_frechet_of_spreads():
    """(2 - 1)^2 in each of three dimensions."""
    found = []
    for seed in range(30):
        x, y = two(seed, 400)
        found.append(frechet(2 * x, y, rng(seed), components=3, permutations=20).value)
    assert abs(np.mean(found) - 3) < 3 * np.std(found, ddof=1) / 30**0.5


def test_sliced_w2_is_the_shift_over_the_root_of_the_dimension():
    found = [sliced_w2(*two(seed, 1000, d=4, shift=1.0), rng(seed), permutations=1).value ** 2 for seed in range(12)]
    assert abs(np.mean(found) - 4 / 4) < 3 * np.std(found, ddof=1) / 12**0.5


# Permutation within prompts


def test_labels_are_exchanged_within_prompts_alone():
    x, y = two(8, 11, 14)
    samples = two_samples(x, y, rng(0), groups=UNEVEN, permutations=500)
    assert samples.labels.shape == (501, 25)
    np.testing.assert_array_equal(samples.labels[0], np.arange(25) < 11)
    for prompt, count in enumerate(np.bincount(UNEVEN[0], minlength=8)):
        inside = samples.labels[:, samples.groups == prompt]
        assert (inside.sum(1) == count).all()
        assert inside[1:].mean(0) == pytest.approx(count / inside.shape[1], abs=0.11)


@pytest.mark.parametrize("function", ALL, ids=NAMES)
def test_the_order_of_rows_and_the_names_of_prompts_do_not_matter(function):
    x, y = two(9, 20, shift=0.4)
    names = np.array([f"prompt {i:02}" for i in range(20)])
    order = rng(1).permutation(20)
    one = function(x, y, rng(0), permutations=99)
    assert function(x, y, rng(0), groups=names, permutations=99) == pytest.approx(one, abs=1e-12)
    other = function(x[order], y, rng(0), groups=(list(names[order]), list(names)), permutations=99)
    assert other == pytest.approx(one, abs=1e-12)


@pytest.mark.parametrize("function", ALL, ids=NAMES)
def test_either_may_be_named_first(function):
    x, y = two(10, 20, shift=0.4)
    one, other = (function(*pair, rng(0), permutations=99) for pair in ((x, y), (y, x)))
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("function", ALL, ids=NAMES)
def test_the_same_answers_twice(function):
    x, _ = two(11)
    found = function(x, x)
    assert found.p == 1
    assert found.value == pytest.approx(0, abs=1e-7)  # the root of rounding


@pytest.mark.parametrize("function", ALL, ids=NAMES)
@pytest.mark.parametrize("groups", [None, UNEVEN], ids=["pairs", "uneven"])
def test_p_is_uniform_where_only_prompts_differ(function, groups):
    """What all answers to one prompt share is no shift."""
    ps = []
    for seed in range(300):
        x, y = two(seed, 11, 14) if groups else two(seed, 14)
        prompt = 2 * rng(10_000 + seed).normal(size=(14, 3))
        of_x, of_y = groups or (np.arange(14), np.arange(14))
        ps.append(function(x + prompt[of_x], y + prompt[of_y], rng(seed), groups=groups, permutations=59).p)
    assert 0.02 <= np.mean(np.array(ps) <= 0.05) <= 0.08
    assert 0.4 < np.mean(ps) < 0.6


@pytest.mark.parametrize("function", ALL, ids=NAMES)
def test_a_shift_is_found(function):
    ps = []
    for seed in range(40):
        x, y = two(seed, 30)
        ps.append(function(x + np.array([2, 1, 0]), y + 1, rng(seed), permutations=59).p)
    assert np.mean(np.array(ps) <= 0.05) > 0.8


@pytest.mark.parametrize("function", ALL, ids=NAMES)
def test_smallest_p_is_one_in_all(function):
    x, y = two(12, 30, shift=5.0)
    assert function(x, y + 1, permutations=49).p == 1 / 50


# All at once


def test_shifts_are_those_of_their_functions():
    x, y = two(13, 20, shift=0.5)
    found = shifts(x, y, rng(5), permutations=49, refits=9, components=2, lengths=(np.arange(20), np.arange(20)))
    assert list(found) == ["mmd2", "energy", "centroid_cosine", "frechet", "sliced_w2", "c2st"]
    assert found["mmd2"] == mmd2(x, y, rng(5), permutations=49)
    assert found["energy"] == energy(x, y, rng(5), permutations=49)
    assert found["centroid_cosine"] == centroid_cosine(x, y, rng(5), permutations=49)
    assert found["frechet"] == frechet(x, y, rng(5), permutations=49, components=2)
    assert found["sliced_w2"] == sliced_w2(x, y, rng(5), permutations=49)
    assert found["c2st"].p * 10 == pytest.approx(round(found["c2st"].p * 10))
    assert not np.isnan(found["c2st"].length_auc)


# Refusals

X, Y = two(0, 4)


@pytest.mark.parametrize("function", ALL, ids=NAMES)
@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X[:1], Y[:1], {}, "prompts with rows of both x and y: 1, and at least 2 are needed"),
        (X, Y, {"groups": ([0, 0, 1, 1], [2, 2, 1, 3])}, "prompts with rows of both x and y: 1, and"),
        (X, Y, {"groups": np.zeros(4)}, "prompts with rows of both x and y: 1, and"),
        (X, Y[:3], {}, r"x has 4 rows and y 3: name the prompt of each, groups=\(of x, of y\)"),
        (X, Y, {"groups": [0, 1, 2]}, "groups names the prompts of 3 rows of x and 3 of y, which have 4 and 4"),
        (X, Y[:, :2], {}, "x has 3 dimensions and y 2: embed both by one model"),
        (np.where(np.eye(4, 3), NAN, X), Y, {}, r"x\[0\] is not finite: leave out what has no embedding"),
        (X, np.full((4, 3), np.inf), {}, r"y\[0\] is not finite"),
        (X[0], Y, {}, r"x has shape \(3,\): points \[rows, dimensions\] are needed"),
        (X[:0], Y, {}, r"x has shape \(0, 3\)"),
        (np.ones((4, 3)), np.ones((4, 3)), {}, "all rows of x and y are alike: there is no distance to measure"),
        (1 + 1e-8 * X, 1 + 1e-8 * Y, {}, "all rows of x and y are alike"),
        (X, Y, {"permutations": 0}, "permutations = 0 is not >= 1"),
    ],
)
def test_what_is_refused(function, x, y, options, message):
    with pytest.raises(StudyError, match=message):
        function(x, y, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet(X, Y, components=4), "4 components of points of rank 3, 4 in the smaller sample: at most 3"),
        (lambda: frechet(*two(0, 3, d=9), components=3), "3 components of points of rank 5, 3 in .* at most 2"),
        (lambda: frechet(X, Y, components=0), "frechet: components = 0 is not >= 1"),
        (lambda: sliced_w2(X, Y, projections=0), "projections = 0 is not >= 1"),
        (lambda: centroid_cosine(np.array([[1.0], [-1.0]]), Y[:2, :1]), "the mean of x or of y is 0"),
    ],
)
def test_what_one_of_them_refuses(call, message):
    with pytest.raises(StudyError, match=message):
        call()
