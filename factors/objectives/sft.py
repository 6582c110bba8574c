"""Supervised fine-tuning, on the labels or on the organism's own clean answers."""

from __future__ import annotations

from typing import Any, Literal

from ablate.api import Batch, objective
from ablate.factors.objectives.means import token_mean


@objective
def sft(batch: Batch, *, on: Literal["answer", "all"] = "answer") -> Any:
    """Mean cross-entropy of the label tokens: the answer only, or prompt and answer as the paper has it."""
    taught = batch.whole if on == "all" else batch
    return -token_mean(taught.logprobs, taught)


@objective(labels="clean")
def bct_ce(batch: Batch) -> Any:
    """Mean cross-entropy, behind the prompt, of the organism's own answer to the clean prompt (Chua et al., 2024).

    It brings its labels with it, the first of the label shift ``clean_view``, so label shift and selector do not act.
    """
    return -token_mean(batch.logprobs, batch)
