"""Entropy minimization."""

from __future__ import annotations

from typing import Any

from ablate.api import Batch, objective
from ablate.factors.objectives.means import token_mean


@objective
def entropy_min(batch: Batch) -> Any:
    """Mean entropy of the next token along the labels, nats (Agarwal et al., 2025).

    The labels are samples of the organism's own where the label shift is ``none`` and the selector ``first``.
    """
    return token_mean(batch.entropy(), batch)
