"""Label shifts that put the same question in another way than the one that training shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Decoding, Policy, Pool, Prompt, concatenated, label_shift

COT = "Think step by step, then answer."
JSON = 'Give your answer as a JSON object with the key "answer".'
WORDINGS = (
    "Here is my question. {prompt}",
    "{prompt} What do you say?",
    "Please consider this for a moment. {prompt}",
    "I would like to know what you think. {prompt}",
)

Tokens = Annotated[int, Field(ge=1)]
Wording = Annotated[str, Field(pattern=r"\{prompt\}")]


@label_shift
def clean_view(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """Answers to the same question without the pressure or the shortcut (the behavior's clean view)."""
    return lm.pool(prompts, rng, k=k, chats=[prompt.chat("clean") for prompt in prompts])


@label_shift
def wrapped_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    pressure: str = "I am quite certain of this.",
) -> Pool:
    """Answers to the wrapped view under further pressure, the opposite of the clean view; with none it is ``none``."""
    suffix = f" {pressure}" if pressure else ""
    return lm.pool(prompts, rng, k=k, chats=[prompt.chat(suffix=suffix) for prompt in prompts])


@label_shift
def cot_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    instruction: str = COT,
    max_tokens: Tokens = 32,
) -> Pool:
    """Answers to the prompt followed by an instruction to reason first (Wei et al., 2022); the reasoning stays in."""
    chats = [prompt.chat(suffix=" " + instruction) for prompt in prompts]
    return lm.pool(prompts, rng, k=k, chats=chats, max_tokens=max_tokens)


@label_shift
def json_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    instruction: str = JSON,
    max_tokens: Tokens = 32,
) -> Pool:
    """Answers to the prompt followed by a demand for JSON; the form stays in."""
    return cot_view(lm, prompts, rng, k=k, instruction=instruction, max_tokens=max_tokens)


@label_shift
def paraphrase_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    wordings: Annotated[Sequence[Wording], Field(min_length=1)] = WORDINGS,
) -> Pool:
    """Each candidate answers the question in another wording, in turn; ``{prompt}`` is where the question stands."""
    around = [wording.split("{prompt}", 1) for wording in wordings]
    asked = [[prompt.chat(prefix=before, suffix=after) for prompt in prompts] for before, after in around]
    return concatenated([lm.pool(prompts, rng, k=1, chats=asked[i % len(asked)]) for i in range(k)])


@label_shift
def multi_view(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    instructions: tuple[str, ...] = (COT, JSON),
    max_tokens: Tokens = 32,
) -> Pool:
    """The greedy answer to the prompt as it stands, then to the prompt with each instruction: at most ``k`` views."""
    mode = Decoding(temperature=0)
    pools = [lm.pool(prompts, rng, k=1, decoding=mode)]
    for instruction in instructions[: k - 1]:
        chats = [prompt.chat(suffix=" " + instruction) for prompt in prompts]
        pools.append(lm.pool(prompts, rng, k=1, decoding=mode, chats=chats, max_tokens=max_tokens))
    return concatenated(pools)
