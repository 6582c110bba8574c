"""Direct preference optimization."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ablate.api import Batch, objective


@objective(labels="pairs")
def dpo(batch: Batch, *, beta: Annotated[float, Field(gt=0)] = 0.1) -> Any:
    """Mean over labels of -log sigmoid(beta (gain of the label - gain of the rejected)) (Rafailov et al., 2023).

    The gain is the log-probability of the answer less its log-probability under the organism before training. Rejected
    is the candidate whose score is farthest from the label's: the worst where the selector takes the best.
    """
    margin = beta * (_gain(batch) - _gain(batch.rejected))
    return (_softplus(-margin) * batch.weights).sum() / batch.weights.sum()


def _gain(batch: Batch) -> Any:
    frozen = batch.under("frozen")
    return ((batch.logprobs - frozen.logprobs) * batch.mask).sum(1)


def _softplus(x: Any) -> Any:
    """log(1 + e^x) of an array of numpy or torch, whatever its size."""
    return np.logaddexp(0.0, x) if isinstance(x, np.ndarray) else x.logaddexp(0.0 * x)
