"""Candidates rated by a rubric: one question each, the number in the reply is the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ablate.api import FloatArray, Pool, filled, number

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
    questions = [
        [filled(rubric, question=prompt.text, answer=text) for text in row]
        for prompt, row in zip(pool.prompts, pool.texts, strict=True)
    ]
    different = list(dict.fromkeys(question for row in questions for question in row))
    scores = {question: number(reply, *scale) for question, reply in zip(different, ask(different), strict=True)}
    return np.array([[scores[question] for question in row] for row in questions], np.float64)
