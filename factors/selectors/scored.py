"""Selectors that take an extreme of the scores."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, IntArray, selector


@selector(scored=True, law="highest")
def argmax(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """The candidate with the highest score, ties to the first; abstains where no candidate has one."""
    highest = scores == np.where(np.isnan(scores), -np.inf, scores).max(1, keepdims=True)  # NaN equals nothing
    return np.where(highest.any(1), highest.argmax(1), -1)


@selector(scored=True, law="lowest")
def argmin(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """The candidate with the lowest score, ties to the first; abstains where no candidate has one."""
    return argmax(-scores, classes, rng)
