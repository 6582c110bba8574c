"""The organism's own likelihood of an answer."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def mean_logprob(lm: Policy, pool: Pool) -> FloatArray:
    """Mean log-probability per token under the organism itself, on the prompt as it stands (nats)."""
    scores: FloatArray = sequence_logprob(lm, pool) / pool.lengths
    return scores


@scorer
def sequence_logprob(lm: Policy, pool: Pool) -> FloatArray:
    """Log-probability of the whole answer under the organism itself, on the prompt as it stands (nats)."""
    scores: FloatArray = np.where(pool.mask, pool.logprob_p, 0.0).sum(2)
    return scores
