"""Selectors that go by the scores alone; a candidate without a score is never taken, a prompt without any abstains."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

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


@selector(scored=True)
def threshold(scores: FloatArray, classes: IntArray, rng: np.random.Generator, *, at: float) -> IntArray:
    """The candidate with the highest score, where that is at least ``at``; abstains elsewhere (Sohn et al., 2020)."""
    return argmax(np.where(scores >= at, scores, np.nan), classes, rng)


@selector(scored=True, law="pick")
def quantile(
    scores: FloatArray, classes: IntArray, rng: np.random.Generator, *, q: Annotated[float, Field(ge=0, le=1)] = 0.5
) -> IntArray:
    """The candidate of rank q (n - 1) from below, to the nearest, of the n that have a score; ties to the first."""
    count = (~np.isnan(scores)).sum(1)
    rank = np.floor(q * (count - 1) + 0.5).astype(np.int64).clip(0)
    value = np.take_along_axis(np.sort(scores, axis=1), rank[:, None], 1)  # NaN comes last
    found = scores == value
    return np.where(found.any(1), found.argmax(1), -1)


@selector(scored=True, law="weights")
def softmax(
    scores: FloatArray, classes: IntArray, rng: np.random.Generator, *, tau: Annotated[float, Field(gt=0)] = 1.0
) -> FloatArray:
    """Every candidate, with weight exp(score / ``tau``), normalized within the prompt; near 0 it is argmax."""
    held = np.where(np.isnan(scores), -np.inf, scores)
    best = held.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf, where the best is infinite
        weights = np.where(held == best, 1.0, np.exp((held - best) / tau))
    weights = np.where(np.isnan(scores), 0.0, weights)
    return np.asarray(weights / np.maximum(weights.sum(1, keepdims=True), 1.0))  # the sum is 0 or at least 1
