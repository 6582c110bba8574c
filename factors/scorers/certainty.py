"""How peaked the organism's next-token distributions are along an answer, whichever tokens it has."""

from __future__ import annotations

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def self_certainty(lm: Policy, pool: Pool) -> FloatArray:
    """Mean over tokens of KL(U || p_t), U uniform over the vocabulary (Kang et al., 2025; nats, higher is surer)."""
    scores: FloatArray = lm.token_statistics(pool).self_certainty.sum(2) / pool.lengths
    return scores


@scorer
def entropy(lm: Policy, pool: Pool) -> FloatArray:
    """Mean over tokens of the entropy of p_t (nats, higher is less sure: argmin takes the surest answer)."""
    scores: FloatArray = lm.token_statistics(pool).entropy.sum(2) / pool.lengths
    return scores
