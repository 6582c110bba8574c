"""How losses of tokens become the loss of a batch."""

from __future__ import annotations

from typing import Any

from ablate.api import Batch


def token_mean(values: Any, batch: Batch) -> Any:
    """Mean of [B, T] over the label tokens, each with the weight of its label."""
    weight = batch.mask * batch.weights[:, None]
    return (values * weight).sum() / weight.sum()
