"""Self-consistency."""

from __future__ import annotations

import numpy as np

from ablate.api import FloatArray, IntArray, selector


@selector(law="plurality")
def majority(scores: FloatArray, classes: IntArray, rng: np.random.Generator) -> IntArray:
    """A candidate of the most frequent stated answer, ties to the first (Wang et al., 2023).

    A candidate that states no answer (class -1) has no vote; where none states one the first is taken.
    """
    votes = (classes[:, :, None] == classes[:, None, :]).sum(2)
    picks: IntArray = np.where(classes >= 0, votes, 0).argmax(1)
    return picks
