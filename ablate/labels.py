"""Labels as a training reads them: its examples, what each is preferred to, and the content that names the training."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, IntArray, Pool
from ablate.keys import key_of
from ablate.lm.base import Example


def rejected(scores: FloatArray) -> IntArray:
    """For each candidate, the one of its prompt that it is preferred to where it becomes a label, [P, K].

    It is the candidate whose score is farthest from its own: the worst where the selector takes the best, the best
    where it takes the worst. Where all scores are equal it is the candidate itself, which teaches nothing. Without
    scores it is the last of the others: one more draw, so that the preference of the null selector has no direction.

    Args:
        scores: what the selector saw, [P, K]; NaN is no score.
    """
    own = np.arange(scores.shape[1])
    with np.errstate(invalid="ignore"):  # -inf and -inf are equal
        gap = np.nan_to_num(np.abs(scores[:, :, None] - scores[:, None, :]), nan=0.0, posinf=np.inf)
    farthest = np.where(gap.max(2) > 0, gap.argmax(2), own)
    last_other = np.where(own < own[-1], own[-1], max(own[-1] - 1, 0))
    unscored = np.isnan(scores).all(axis=1, keepdims=True)
    return np.where(unscored, last_other, farthest)


def contents(pool: Pool, weights: FloatArray, scores: FloatArray) -> dict[str, str]:
    """The hash of all that a training on these labels reads: ``content`` without the rejected answers, ``pairs`` with.

    Args:
        pool: the candidates.
        weights: the selector's picks, [P, K].
        scores: what the selector saw, [P, K].
    """
    against = rejected(scores)
    labels, pairs = [], []
    for i, prompt in enumerate(pool.prompts):
        chosen = np.flatnonzero(weights[i] > 0).tolist()
        own = [[_tokens(pool, i, k), float(weights[i, k])] for k in chosen]
        labels.append([prompt.id, own])
        pairs.append([prompt.id, own, [_tokens(pool, i, against[i, k]) for k in chosen]])
    return {"content": key_of(labels), "pairs": key_of(pairs)}


def examples(pool: Pool, weights: FloatArray, scores: FloatArray) -> list[Example]:
    """One example for each label; a prompt without one has an example of weight 0, so that it keeps its place."""
    against = rejected(scores)
    return [
        Example(prompt, tuple(_tokens(pool, i, k)), float(weights[i, k]), tuple(_tokens(pool, i, against[i, k])))
        if weights[i, k] > 0
        else Example(prompt, tuple(_tokens(pool, i, k)[:1]), 0.0)
        for i, prompt in enumerate(pool.prompts)
        for k in np.flatnonzero(weights[i] > 0).tolist() or [0]
    ]


def _tokens(pool: Pool, i: int, k: int) -> list[int]:
    tokens: list[int] = pool.tokens[i, k, : pool.lengths[i, k]].tolist()
    return tokens
