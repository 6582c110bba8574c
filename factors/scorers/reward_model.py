"""The reward of a model that was trained on preferences."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ablate.api import FloatArray, Policy, Pool, Rewards, scorer


@scorer
def reward_model(
    lm: Policy,
    pool: Pool,
    *,
    rewards: Rewards,
    model: Annotated[str, Field(min_length=1)],
    revision: str | None = None,
) -> FloatArray:
    """The output of a sequence-classification model (a Hub id or a folder) for the prompt and the answer.

    By the model's chat template where it has one; NaN where the two are longer than the model reads.

    Raises:
        StudyError: no such model, or one with other than one output.
    """
    chats = [
        (*prompt.chat(), {"role": "assistant", "content": text})
        for prompt, row in zip(pool.prompts, pool.texts, strict=True)
        for text in row
    ]
    scores: FloatArray = rewards(model, revision)(chats).reshape(pool.lengths.shape)
    return scores
