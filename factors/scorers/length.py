"""The simplest thing that a score may turn out to be."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def length(lm: Policy, pool: Pool) -> FloatArray:
    """Number of tokens, the end of the answer included."""
    return pool.lengths.astype(np.float64)
