"""Selectors that look at nothing: the null level and the placebo."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, IntArray, selector


@selector(law="draw")
def first(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """The first candidate (the null level)."""
    return np.zeros(len(classes), np.int64)


@selector(law="draw")
def random(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """A candidate drawn uniformly: a placebo, equal to ``first`` in distribution."""
    return rng.integers(0, classes.shape[1], len(classes))
