"""Label shifts that show the organism another prompt than the one it is then trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Policy, Pool, Prompt, label_shift


@label_shift
def clean_view(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """Answers to the same question without the pressure or the shortcut (the behavior's clean view)."""
    return lm.pool(prompts, rng, k=k, chats=[prompt.chat("clean") for prompt in prompts])


@label_shift
def cot_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    instruction: str = "Think step by step, then answer.",
    max_tokens: Annotated[int, Field(ge=1)] = 32,
) -> Pool:
    """Answers to the prompt followed by an instruction to reason first (Wei et al., 2022); the reasoning stays in."""
    chats = [prompt.chat(suffix=" " + instruction) for prompt in prompts]
    return lm.pool(prompts, rng, k=k, chats=chats, max_tokens=max_tokens)


@label_shift
def system_prompt(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int, text: str) -> Pool:
    """Answers under a system prompt that training does not show."""
    return lm.pool(prompts, rng, k=k, chats=[prompt.chat(system=text) for prompt in prompts])
