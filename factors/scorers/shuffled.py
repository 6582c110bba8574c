"""The placebo of a scorer: its values, but not where they belong."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer(scored=True)
def shuffled(lm: Policy, pool: Pool, *, scores: FloatArray, seed: Annotated[int, Field(ge=0)] = 0) -> FloatArray:
    """The scores of another scorer, permuted among the candidates of each prompt; another ``seed``, another placebo."""
    return np.array([pool.stream(i, seed).permutation(row) for i, row in enumerate(scores)])
