from dataclasses import replace

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler

from ablate.errors import StudyError
from ablate.measures.classifier import _folds, c2st, c2st_of
from ablate.measures.samples import two_samples
from ablate.testing import rng


def two(seed: int, n: int = 20, d: int = 3, shift: float = 0.0):
    x, y = rng(seed).normal(size=(2, n, d))
    return x + shift, y


@pytest.mark.parametrize("d", [3, 100], ids=["few dimensions", "more dimensions than rows"])
def test_against_cross_val_predict(d):
    samples = two_samples(*two(0, d=d, shift=0.5), permutations=1)
    fold = _folds(samples, rng(4), 5)
    cv = PredefinedSplit(fold)
    features, labels = StandardScaler().fit_transform(samples.points), samples.labels[0]
    score = cross_val_predict(LogisticRegression(max_iter=1000), features, labels, cv=cv, method="decision_function")
    assert cv.get_n_splits() == 5
    expected = np.mean([roc_auc_score(labels[fold == k], score[fold == k]) for k in range(5)])  # of 16 pairs each
    assert c2st_of(samples, rng(4)).value == pytest.approx(expected, abs=1.1 / 80)


def test_picks_from_the_draws_they_are_compared_to():
    """The area against p is that against those left over, and 1/2 for the one in K that is the pick itself."""
    samples = two_samples(*two(1, 40, shift=0.8), permutations=1)
    lengths = np.arange(40), np.arange(40) - 10
    plain, picked = (c2st_of(replace(samples, picked_from=k), rng(0), lengths=lengths) for k in (0, 4))
    assert picked.value == pytest.approx(0.5 / 4 + 0.75 * plain.value, abs=1e-12)
    assert picked.length_auc == pytest.approx(0.5 / 4 + 0.75 * plain.length_auc, abs=1e-12)


def test_all_rows_of_a_prompt_are_in_one_fold_and_folds_are_even():
    groups = rng(0).integers(0, 12, 40)
    samples = two_samples(*two(0, 40), groups=groups, permutations=1)
    fold = _folds(samples, rng(0), 5)
    of_prompt = {(prompt, k) for prompt, k in zip(samples.groups, fold, strict=True)}
    assert len(of_prompt) == len(np.unique(groups))
    assert sorted(np.bincount([k for _, k in of_prompt])) == [2, 2, 2, 3, 3]


def test_prompts_tell_nothing():
    """Answers that share their prompt, and nothing else, are not told apart by having seen it in training."""
    prompt = 10 * np.repeat(rng(1).normal(size=(10, 30)), 3, axis=0)
    found = [
        c2st(*(points + prompt for points in two(seed, 30, 30)), groups=np.repeat(np.arange(10), 3), permutations=1)
        for seed in range(20)
    ]
    assert abs(np.mean([one.value for one in found]) - 0.5) < 0.06


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.3, 0.65), (0.7, 0.7, 0.95), (5.0, 1.0, 1.0)])
def test_area_grows_with_the_shift(shift, low, high):
    assert low <= c2st(*two(2, 60, shift=shift), permutations=1).value <= high


def test_smallest_p_is_one_in_all():
    found = c2st(*two(3, 15, shift=5.0), permutations=19)
    assert found.p == 1 / 20
    assert np.isnan(found.length_auc)


def test_what_is_found_may_be_the_length():
    draw = rng(5)
    lengths = draw.poisson(20, 60), draw.poisson(30, 60)
    x, y = (np.column_stack([length, draw.normal(size=(60, 3))]) for length in lengths)
    found = c2st(x, y, permutations=1, lengths=lengths)
    assert found.length_auc > 0.85
    assert found.value == pytest.approx(found.length_auc, abs=0.03)
    other = c2st(*two(6, 60, shift=1.0), permutations=1, lengths=(draw.poisson(20, 60), draw.poisson(20, 60)))
    assert other.value > 0.75
    assert abs(other.length_auc - 0.5) < 0.15


class Discriminant:
    """A linear classifier of little work: along the difference of the means."""

    def __init__(self, **options):
        self.w = None

    def fit(self, features, labels):
        self.w = features[labels].mean(0) - features[~labels].mean(0)
        return self

    def decision_function(self, features):
        return features @ self.w


def test_where_nothing_is_told_apart_the_area_is_a_half(monkeypatch):
    """Rows of two folds are not compared: each has helped to train the other's classifier, which made this .476."""
    monkeypatch.setattr(linear_model, "LogisticRegression", Discriminant)
    found = [c2st(*two(seed, 12, 1), rng(seed), permutations=1).value for seed in range(800)]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found, ddof=1) / 800**0.5


@pytest.mark.parametrize(
    ("quick", "sets", "permutations", "low", "high"), [(True, 300, 39, 0.02, 0.08), (False, 12, 19, 0, 0.2)]
)
def test_p_is_uniform_where_only_prompts_differ(monkeypatch, quick, sets, permutations, low, high):
    if quick:
        monkeypatch.setattr(linear_model, "LogisticRegression", Discriminant)
    ps = []
    for seed in range(sets):
        prompt = 2 * rng(10_000 + seed).normal(size=(16, 2))
        x, y = two(seed, 16, 2)
        ps.append(c2st(x + prompt, y + prompt, rng(seed), permutations=permutations, folds=2).p)
    assert low <= np.mean(np.array(ps) <= 0.05) <= high
    assert abs(np.mean(ps) - 0.5) < 3 * 12**-0.5 / sets**0.5


def test_a_shift_is_found():
    ps = [c2st(*two(seed, 30, shift=0.9), rng(seed), permutations=19, folds=2).p for seed in range(8)]
    assert np.mean(np.array(ps) <= 0.05) > 0.8


X, Y = two(0, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: c2st(X[:1], Y[:1]), "prompts with rows of both x and y: 1, and at least 2 are needed"),
        (lambda: c2st(X, Y, folds=1), "a fold of 1 leaves rows of one sample alone to train on; more prompts"),
        (lambda: c2st(X, Y, folds=0), "c2st: folds = 0 is not >= 1"),
        (lambda: c2st(X, Y, lengths=([1], [2])), r"lengths has \(1,\) of x and \(1,\) of y: one a row, 4 and 4"),
        (lambda: c2st(X, Y, lengths=([1, 2, 3, np.nan], [1, 2, 3, 4])), "lengths are not all finite"),
        (lambda: c2st(np.ones((4, 2)), np.ones((4, 2))), "all rows of x and y are alike"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(StudyError, match=message):
        call()
