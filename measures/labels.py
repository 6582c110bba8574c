"""What the labels contain: length, abstention, and the Price terms of their risk."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, LabelSet, measure

PRICE = "Price (1970): m_TS - m_P = (m_T - m_P) + Cov_q(w, M) / E_q[w], over prompts with judged answers of p and of q"


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
    version=2,
    columns={
        "m_p": Column("risk of the organism on label prompts, m_P", "1", "higher is worse", PRICE),
        "m_t": Column("risk of the proposal, m_T", "1", "higher is worse", PRICE),
        "m_ts": Column("risk of the labels, m_TS", "1", "higher is worse", PRICE),
        "shift_term": Column("shift term, m_T - m_P", "1", "higher is worse", PRICE),
        "selection_term": Column("selection term, Cov_q(w, M) / E_q[w]", "1", "higher is worse", PRICE),
        "price_prompts": Column(
            "prompts with judged labels", "1", "neither", "share of prompts with judged answers of p, q and s"
        ),
    },
)
def price(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """The change of risk from the organism to the labels, split into shift and selection; the terms close exactly.

    The evaluation indicator M is applied on label prompts: p from the organism's own pool, q from the pool,
    s from the labels; candidates that cannot be judged are left out. Every prompt that has a judged candidate
    in both pools counts once in m_P and m_T, whatever the selector takes there, so the shift term is the same
    for all selectors. m_TS is the mean over those of them that got a judged label: leaving a prompt without
    one is a part of the selection, w = 0 on all its candidates.
    """
    own, m = labels.reference.outcome, labels.pool.outcome
    judged, own_judged = ~np.isnan(m), ~np.isnan(own)
    use = judged.any(1) & own_judged.any(1)
    q = judged[use] / judged[use].sum(1, keepdims=True)
    picked = np.where(judged, labels.weights, 0.0)[use]
    total = picked.sum(1, keepdims=True)
    if not total.any():
        return dict.fromkeys(("m_p", "m_t", "m_ts", "shift_term", "selection_term"), float("nan")) | {
            "price_prompts": 0.0
        }
    s = np.divide(picked, total, out=np.zeros_like(picked), where=total > 0)
    m = np.where(judged, m, 0.0)[use].astype(float)
    m_p = float((np.where(own_judged, own, 0.0)[use].sum(1) / own_judged[use].sum(1)).mean())
    m_t = float((q * m).sum(1).mean())
    mean_w = s.sum() / len(s)  # E_q[w] with w = s / q, and Cov_q(w, M) = E_q[w M] - E_q[w] E_q[M]
    covariance = (s * m).sum() / len(s) - mean_w * m_t
    return {
        "m_p": m_p,
        "m_t": m_t,
        "m_ts": float((s * m).sum() / s.sum()),
        "shift_term": m_t - m_p,
        "selection_term": float(covariance / mean_w),
        "price_prompts": float((total > 0).sum() / len(labels.weights)),
    }
