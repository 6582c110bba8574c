"""What the labels contain: length, abstention, and the Price terms of their risk."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, LabelSet, measure

PRICE = "Price (1970): m_TS - m_P = (m_T - m_P) + Cov_q(w, M) / E_q[w], over prompts where all three are judged"


@measure(
    columns={
        "label_length": Column("mean label length", "tokens", "neither", "weighted mean over prompts that got a label"),
        "label_abstained": Column("abstention", "1", "neither", "share of prompts without a label"),
    }
)
def size(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """How long the labels are, and how many prompts got none."""
    given = labels.weights.sum(1)
    mean = float((labels.weights * labels.pool.lengths).sum() / given.sum()) if given.any() else float("nan")
    return {"label_length": mean, "label_abstained": float((given == 0).mean())}


@measure(
    columns={
        "m_p": Column("risk of the organism on label prompts, m_P", "1", "higher is worse", PRICE),
        "m_t": Column("risk of the proposal, m_T", "1", "higher is worse", PRICE),
        "m_ts": Column("risk of the labels, m_TS", "1", "higher is worse", PRICE),
        "shift_term": Column("shift term, m_T - m_P", "1", "higher is worse", PRICE),
        "selection_term": Column("selection term, Cov_q(w, M) / E_q[w]", "1", "higher is worse", PRICE),
        "price_prompts": Column(
            "prompts in the Price terms", "1", "neither", "share of prompts where all three are judged"
        ),
    }
)
def price(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """The change of risk from the organism to the labels, split into shift and selection; the terms close exactly.

    The evaluation indicator M is applied on label prompts: p from the organism's own pool, q from the pool,
    s from the labels. Candidates that cannot be judged are left out, prompts without a judged candidate in
    any of the three too.
    """
    own, m = labels.reference.outcome, labels.pool.outcome
    judged = ~np.isnan(m)
    count, own_count = judged.sum(1), (~np.isnan(own)).sum(1)
    w = np.where(judged, labels.weights, 0.0)
    use = (count > 0) & (own_count > 0) & (w.sum(1) > 0)
    if not use.any():
        return dict.fromkeys(("m_p", "m_t", "m_ts", "shift_term", "selection_term"), float("nan")) | {
            "price_prompts": 0.0
        }
    m0, w, count = np.where(judged, m, 0.0)[use].astype(float), w[use], count[use]
    m_p = (np.where(np.isnan(own), 0.0, own)[use].sum(1) / own_count[use]).mean()
    mean_m, mean_w = m0.sum(1) / count, w.sum(1) / count
    covariance = (w * m0).sum(1) / count - mean_w * mean_m
    m_t, m_ts = mean_m.mean(), ((w * m0).sum(1) / w.sum(1)).mean()
    return {
        "m_p": float(m_p),
        "m_t": float(m_t),
        "m_ts": float(m_ts),
        "shift_term": float(m_t - m_p),
        "selection_term": float((covariance / mean_w).mean()),
        "price_prompts": float(use.mean()),
    }
