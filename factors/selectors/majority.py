"""Selectors that let the candidates vote: what states one answer is of one class."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ablate.api import FloatArray, IntArray, selector
from ablate.factors.selectors.scored import argmax


@selector(law="plurality")
def majority(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """A candidate of the most frequent stated answer, ties to the first (Wang et al., 2023).

    A candidate that states no answer (class -1) has no vote; where none states one the first is taken.
    """
    picks: IntArray = _votes(classes, np.ones(classes.shape)).argmax(1)
    return picks


@selector
def agreement_filter(
    scores: FloatArray,
    classes: IntArray,
    rng: np.random.Generator,
    *,
    at: Annotated[float, Field(gt=0, le=1)] = 0.5,
    take: Literal["majority", "first"] = "majority",
) -> IntArray:
    """A candidate of the most frequent stated answer, where at least a share ``at`` of the candidates state it.

    ``take: first`` asks that of the first candidate's own answer and takes no other one: with `multi_view` and two
    thirds, the greedy answer where another view agrees. Abstains elsewhere.
    """
    votes = _votes(classes, np.ones(classes.shape))
    picks = votes.argmax(1) if take == "majority" else np.zeros(len(classes), np.int64)
    enough = votes[np.arange(len(picks)), picks] >= at * classes.shape[1] - 1e-3  # .6667 means two thirds
    return np.where(enough, picks, -1)


@selector(scored=True, law="pick")
def borda(
    scores: FloatArray, classes: IntArray, rng: np.random.Generator, *, power: Annotated[float, Field(ge=0)] = 1.0
) -> IntArray:
    """The best candidate of the stated answer with most votes, the rth best of n casting (n - r + 1)^``power``.

    Borda voting by confidence (Kang et al., 2025): power 0 is the majority of those that have a score, a large one
    argmax. Equal scores share their mean rank. Where none that has a score states an answer, the best is taken.
    """
    own, other = scores[:, :, None], scores[:, None, :]
    rank = ((own > other).sum(2) + (own >= other).sum(2) + 1) / 2  # from below: n is the best
    cast = np.where(np.isnan(scores), 0.0, rank**power)
    total = _votes(classes, cast)
    most = total.max(1, keepdims=True)
    won = (total == most) | (most == 0)
    return argmax(np.where(won, scores, np.nan), classes, rng)


def _votes(classes: IntArray, cast: FloatArray) -> FloatArray:
    """The votes cast for the answer that each candidate states, [P, K]; 0 where it states none."""
    votes = ((classes[:, :, None] == classes[:, None, :]) * cast[:, None, :]).sum(2)
    return np.where(classes >= 0, votes, 0.0)
