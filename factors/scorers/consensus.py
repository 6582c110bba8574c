"""How much a candidate has in common with the other candidates of its prompt."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, Policy, Pool, scorer


@scorer
def agreement(lm: Policy, pool: Pool) -> FloatArray:
    """Share of the candidates (or views) that state the same answer, itself among them; NaN where it states none."""
    share = (pool.classes[:, :, None] == pool.classes[:, None, :]).mean(2)
    return np.where(pool.classes >= 0, share, np.nan)


@scorer
def medoid(lm: Policy, pool: Pool) -> FloatArray:
    """Mean cosine similarity to all candidates, itself among them, of the organism's own mean-pooled states."""
    flat = lm.embed([text for row in pool.texts for text in row]).astype(np.float64)
    embedded = flat.reshape(*pool.lengths.shape, -1)
    scores: FloatArray = (embedded @ embedded.sum(1)[:, :, None])[:, :, 0] / embedded.shape[1]
    return scores
