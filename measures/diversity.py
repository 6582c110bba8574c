"""How divided the proposal's answers to a prompt are, and where sharpening them would push the risk."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, FloatArray, IntArray, LabelSet, measure
from ablate.measures.posterior import diversity

SIMPSON = "Gini-Simpson index of M, 2 p_x (1 - p_x), unbiased: over pairs of judged candidates; .5 at p_x = 1/2"
SHARPER = "E[majority_3(p_x) - p_x], unbiased: three of the judged candidates without replacement; its sign is the push"


@measure(
    columns={
        "outcome_disagreement": Column("chance that two answers to a prompt differ in M", "1", "neither", SIMPSON),
        "sharpening": Column("change of risk by a majority of three", "1", "higher is worse", SHARPER),
        "sharpening_se": Column("standard error of it, clustered by item", "1", "neither", SHARPER),
        "distinct_answers": Column(
            "distinct stated answers to a prompt", "1", "neither", "among K candidates, mean over prompts that have any"
        ),
    }
)
def answer_diversity(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """What a selector has to choose from, in the pool that it saw; the same for all selectors of a label shift.

    With p_x = P(M = 1 | x) under q: stable prompts have p_x at 0 or 1, fragile ones near 1/2. A share of prompts near
    1/2 would need p_x itself, which a few candidates do not give (of 4, a fair coin looks settled every eighth time);
    the mean of 2 p_x (1 - p_x) is estimated without bias by pairs of candidates, and so is the push of a majority by
    threes. NaN where no prompt has two (three) judged candidates, or none states an answer.
    """
    pool = labels.pool
    judged = ~np.isnan(pool.outcome)
    push = (
        diversity(pool.outcome, n=3, groups=[prompt.item for prompt in pool.prompts]).unbiased if judged.any() else None
    )
    return {
        "outcome_disagreement": _disagreement(pool.outcome, judged.sum(1)),
        "sharpening": push.value if push else float("nan"),
        "sharpening_se": push.se if push else float("nan"),
        "distinct_answers": _distinct(pool.classes),
    }


def _disagreement(outcome: FloatArray, k: IntArray) -> float:
    """Share of pairs of judged candidates [P, K], k of them a prompt, that differ in M, mean over prompts."""
    pairs = k > 1
    ones = np.nansum(outcome, axis=1)[pairs]
    k = k[pairs]
    return float((2 * ones * (k - ones) / (k * (k - 1))).mean()) if len(k) else float("nan")


def _distinct(classes: IntArray) -> float:
    """Mean number of distinct classes of a row [P, K], of rows that have any; -1 is none."""
    ranked = np.sort(classes, axis=1)
    distinct = ((np.diff(ranked, axis=1, prepend=-1) > 0) & (ranked >= 0)).sum(1)
    return float(distinct[distinct > 0].mean()) if distinct.any() else float("nan")
