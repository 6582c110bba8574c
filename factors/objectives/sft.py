"""Supervised fine-tuning."""

from __future__ import annotations

from typing import Any

from ablate.api import Batch, objective


@objective
def sft(batch: Batch) -> Any:
    """Mean cross-entropy of the label tokens, the answer only."""
    weight = batch.mask * batch.weights[:, None]
    return -(batch.logprobs * weight).sum() / weight.sum()
