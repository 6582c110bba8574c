"""Label shifts that change how tokens are drawn, not what the model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Decoding, Policy, Pool, Prompt, label_shift


@label_shift
def none(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """The organism's own answers to the prompts as they stand, at T = 1 without truncation (the null level)."""
    return lm.pool(prompts, rng, k=k)


@label_shift
def greedy(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """The most probable token at every step: one candidate, whatever number is asked for."""
    return lm.pool(prompts, rng, k=1, decoding=Decoding(temperature=0))


@label_shift
def nucleus(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9,
) -> Pool:
    """Temperature, then the smallest set of tokens that holds ``top_p`` of the probability (Holtzman et al., 2020)."""
    return lm.pool(prompts, rng, k=k, decoding=Decoding(temperature, top_p))
