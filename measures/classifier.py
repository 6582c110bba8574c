"""The classifier two-sample test: can a linear classifier tell two samples of embeddings apart?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray, IntArray
from ablate.errors import StudyError
from ablate.measures.closed_forms import count
from ablate.measures.samples import Groups, TwoSamples, two_samples


class Classified(NamedTuple):
    """``value`` is an out-of-fold AUC: .5 where nothing is told apart, 1 where everything is.

    ``length_auc`` is that of the lengths alone, NaN where none were given: a classifier that finds no more
    than it may have found the length.
    """

    value: float
    p: float
    length_auc: float


def c2st(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    *,
    groups: Groups = None,
    permutations: int = 99,
    folds: int = 5,
    lengths: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Classified:
    """Area under the ROC curve of a logistic regression that tells x from y, within folds held out, grouped by prompt.

    Features are standardized over both samples (which uses no label); the penalty is L2 with C = 1. Labels are
    permuted within prompts and the classifier is fitted again; p = (1 + b) / (1 + B) of as large an AUC.

    Args:
        x: embeddings [n, D].
        y: embeddings [m, D].
        rng: draws the permutations, then the folds; a fixed seed where None.
        groups: prompt of each row: [n] where x[i] and y[i] share it, or (of x [n], of y [m]); None pairs the rows.
        permutations: B; each costs ``folds`` fits.
        folds: at most this many, and one a prompt.
        lengths: lengths of the texts (of x [n], of y [m]), for ``length_auc``.

    Raises:
        StudyError: see `two_samples`; besides, folds that leave one sample alone to train on, other lengths.

    Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    return c2st_of(two_samples(x, y, rng, groups=groups, permutations=permutations), rng, folds=folds, lengths=lengths)


def c2st_of(
    samples: TwoSamples,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    lengths: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Classified:
    """`c2st`."""
    fold = _folds(samples, rng, count("c2st: folds", folds))
    toward_p = 1 - samples.own  # against itself x has an AUC of 1/2, and AUC is linear in what x is told from
    length_auc = float("nan")
    if lengths is not None:
        length_auc = 0.5 + toward_p * float(_areas(_lengths(samples, lengths), samples.labels[:1], fold)[0] - 0.5)
    areas = 0.5 + toward_p * (_areas(samples.points, samples.labels, fold) - 0.5)
    return Classified(*samples.shift(areas, 1.0), length_auc)


def _lengths(samples: TwoSamples, lengths: tuple[npt.ArrayLike, npt.ArrayLike]) -> FloatArray:
    """Lengths of all rows, as the only feature."""
    of_x, of_y = (np.asarray(part, dtype=float) for part in lengths)
    if of_x.shape != (samples.n,) or of_y.shape != (samples.m,):
        raise StudyError(f"lengths has {of_x.shape} of x and {of_y.shape} of y: one a row, {samples.n} and {samples.m}")
    both = np.concatenate([of_x, of_y])
    if not np.isfinite(both).all():
        raise StudyError("lengths are not all finite: every text has a length")
    return both[:, None]


def _folds(samples: TwoSamples, rng: np.random.Generator, folds: int) -> IntArray:
    """The fold of each row, the same for all rows of a prompt."""
    prompts = int(samples.groups.max()) + 1
    folds = min(folds, prompts)
    fold: IntArray = (rng.permutation(prompts) % folds)[samples.groups]
    in_train = [samples.labels[0][fold != k] for k in range(folds)]
    if not all(labels.any() and not labels.all() for labels in in_train):
        raise StudyError(
            f"c2st: a fold of {folds} leaves rows of one sample alone to train on; more prompts with rows of both are "
            "needed, or at least 2 folds"
        )
    return fold


def _standardized(features: FloatArray) -> FloatArray:
    from sklearn.preprocessing import StandardScaler

    scaler: Any = StandardScaler  # parts of scikit-learn are untyped
    scaled: FloatArray = scaler().fit_transform(features)
    if scaled.shape[1] <= len(scaled):
        return scaled
    # A rotation changes no distance and no L2 norm, so the fit is the same in as many dimensions as there are rows.
    left, size, _ = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(left * size)


def _areas(points: FloatArray, labels: npt.NDArray[np.bool_], fold: IntArray) -> FloatArray:
    """Area under the ROC curve of out-of-fold scores, for each labeling: the share of pairs held out together in order.

    Of rows held out apart, one has helped to train the classifier that scores the other, which made the area too small
    where nothing is told apart: .484 for two samples of 16 in two dimensions, .491 for two of 96.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression

    classifier: Any = LogisticRegression
    features, model = _standardized(points), classifier(max_iter=1000)
    above, pairs = np.zeros(len(labels)), 0
    for k in range(fold.max() + 1):
        train, held, is_x = features[fold != k], features[fold == k], labels[:, fold == k]
        scores = [model.fit(train, label[fold != k]).decision_function(held) for label in labels]
        n = int(is_x[0].sum())
        above += np.where(is_x, rankdata(scores, axis=1), 0.0).sum(1) - n * (n + 1) / 2  # Mann-Whitney
        pairs += n * (is_x.shape[1] - n)
    return above / pairs
