"""The organism's own opinion of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Decoding, FloatArray, Policy, Pool, Prompt, scorer
from ablate.factors.scorers.rating import QUALITY, rated


@scorer
def self_reward(
    lm: Policy,
    pool: Pool,
    *,
    rubric: Annotated[str, Field(min_length=1)] = QUALITY,
    max_tokens: Annotated[int, Field(ge=1)] = 8,
) -> FloatArray:
    """The number from 0 to 5 that the organism itself gives an answer by a rubric, replying greedily (Yuan et al.,
    2024); NaN where its reply states none.
    """

    def ask(questions: Sequence[str]) -> list[str]:
        prompts = [Prompt(str(i), question, question, str(i), {}) for i, question in enumerate(questions)]
        rng = np.random.default_rng(0)  # greedy decoding draws nothing
        replies = lm.pool(prompts, rng, k=1, decoding=Decoding(temperature=0), max_tokens=max_tokens).texts
        return [reply for (reply,) in replies]

    return rated(ask, rubric, pool, (0.0, 5.0))
