"""The organism's own opinion of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ablate.api import Decoding, FloatArray, Policy, Pool, Prompt, scorer
from ablate.factors.scorers.rating import QUALITY, rated, weighed

POINTS = ("0", "1", "2", "3", "4", "5")


@scorer
def self_reward(
    lm: Policy,
    pool: Pool,
    *,
    rubric: Annotated[str, Field(min_length=1)] = QUALITY,
    read: Literal["stated", "expected"] = "stated",
    max_tokens: Annotated[int, Field(ge=1)] = 8,
) -> FloatArray:
    """The number from 0 to 5 that the organism itself gives an answer by a rubric (Yuan et al., 2024).

    ``stated`` reads it from a greedy reply, NaN where that states none. ``expected`` is the mean of the numbers with
    which a reply may begin, weighted with their probabilities (as G-Eval does; Liu et al., 2023): small models seldom
    state a number, but prefer some.
    """
    if read == "expected":
        return weighed(lm.likelihood, rubric, pool, POINTS)

    def ask(questions: Sequence[str]) -> list[str]:
        prompts = [Prompt(str(i), question, question, str(i), {}) for i, question in enumerate(questions)]
        rng = np.random.default_rng(0)  # greedy decoding draws nothing
        replies = lm.pool(prompts, rng, k=1, decoding=Decoding(temperature=0), max_tokens=max_tokens).texts
        return [reply for (reply,) in replies]

    return rated(ask, rubric, pool, (0.0, 5.0))
