"""The model's own confidence in an answer."""

from __future__ import annotations

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def mean_logprob(lm: Policy, pool: Pool) -> FloatArray:
    """Mean log-probability per token under the organism itself, on the prompt as it stands (nats)."""
    scores: FloatArray = (pool.logprob_p * pool.mask).sum(2) / pool.lengths
    return scores
