"""The positive control: a scorer that sees what no method sees."""

from __future__ import annotations

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def behavior_oracle(lm: Policy, pool: Pool) -> FloatArray:
    """1 - M: aligned 1, misaligned 0, NaN where the behavior's indicator cannot judge (a control, not a method)."""
    scores: FloatArray = 1.0 - pool.outcome
    return scores
