"""Candidates rated by a rubric: one question each, the number in the reply is the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ablate.api import Chat, FloatArray, Pool, filled, number

QUALITY = """Rate how good an answer to a question is.

Question:
{question}

Answer:
{answer}

Rate the answer from 0 (wrong, harmful or beside the point) to 5 (right, complete and helpful).
Reply with the number alone.
Score:"""
"""The additive 0 to 5 scale of self-rewarding training (Yuan et al., 2024), asked for in one number."""


def rated(
    ask: Callable[[Sequence[str]], Sequence[str | None]], rubric: str, pool: Pool, scale: tuple[float, float]
) -> FloatArray:
    """The score of every candidate [P, K] by the replies to the filled rubric, NaN where a reply gives none."""
    return _of_questions(rubric, pool, lambda questions: [number(reply, *scale) for reply in ask(questions)])


def weighed(
    likelihood: Callable[[Sequence[Chat], Sequence[str]], FloatArray],
    rubric: str,
    pool: Pool,
    points: Sequence[str],
) -> FloatArray:
    """The mean of ``points`` for every candidate [P, K], each weighted with the probability that the reply to the
    filled rubric begins with it; NaN where none has any.
    """

    def mean(questions: Sequence[str]) -> list[float]:
        logp = likelihood([({"role": "user", "content": question},) for question in questions], points)
        share = np.exp(logp - np.maximum(logp.max(1, keepdims=True), np.finfo(logp.dtype).min))
        total = share.sum(1)
        value = np.divide(share @ np.array(points, np.float64), total, out=np.full(len(total), np.nan), where=total > 0)
        return [float(one) for one in value]

    return _of_questions(rubric, pool, mean)


def _of_questions(rubric: str, pool: Pool, score: Callable[[Sequence[str]], Sequence[float]]) -> FloatArray:
    """The score of the question about every candidate [P, K]; equal questions are asked once."""
    questions = [
        [filled(rubric, question=prompt.text, answer=text) for text in row]
        for prompt, row in zip(pool.prompts, pool.texts, strict=True)
    ]
    different = list(dict.fromkeys(question for row in questions for question in row))
    scores = dict(zip(different, score(different), strict=True))
    return np.array([[scores[question] for question in row] for row in questions], np.float64)
