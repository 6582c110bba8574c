"""What the selection can have done to the labels: a bound on its divergence, and how risk goes with the score."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, LabelSet, measure
from ablate.measures.closed_forms import best_of_n
from ablate.measures.posterior import eta

BOUND = (
    "the most that KL(s || q) of picking one of K draws of q can be: log K - (K - 1)/K for the best by a score (equal "
    "where scores have no ties), log K for any other pick or from several proposals, 0 for a plain draw; NaN where the "
    "selector has no known law"
)
ALONG = "mean of log q(y) - log p(y) over the labels, q as it was sampled"
POSTERIOR = "P(M = 1 | quantile of the score within its prompt), over judged candidates"


@measure(
    columns={
        "kl_labels": Column("shift part of KL(s || p), along the labels, per answer", "nats", "neither", ALONG),
        "kl_selection_max": Column("bound on the selection part KL(s || q), per answer", "nats", "neither", BOUND),
        "kl_total_max": Column("bound on KL(s || p), per answer", "nats", "neither", "kl_labels + kl_selection_max"),
    }
)
def selection_divergence(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """KL(labels || organism): the shift part along the labels, and the most that the selection can add to it.

    The selection part itself follows from the distribution of scores under q, which K draws of a prompt do not give:
    plug-in estimates from a pool were up to a third too large in worlds of known value, so the bound stands alone.
    Where candidates come from several proposals, q is that of each: what was picked among is part of the selection.
    """
    pool, k = labels.pool, labels.weights.shape[1]
    given = labels.weights.sum(1)
    ratio = np.where(pool.mask, pool.logprob_drawn - pool.logprob_p, 0.0).sum(2, dtype=np.float64)
    along = float((labels.weights * ratio).sum() / given.sum()) if given.any() else float("nan")
    best = best_of_n(k) if pool.exchangeable else float(np.log(k))
    bounds = {None: float("nan"), "draw": 0.0, "highest": best, "lowest": best}
    bound = bounds.get(labels.law, float(np.log(k)))
    return {"kl_labels": along, "kl_selection_max": bound, "kl_total_max": along + bound}


@measure(
    columns={
        "eta_slope": Column("slope of risk in the score quantile", "1", "neither", POSTERIOR),
        "eta_tv": Column("total variation of risk over score quantiles", "1", "neither", POSTERIOR),
        "selection_bound": Column(
            "bound on the effect of selecting by this score on label risk", "1", "neither", "max_u (u - u^K) * eta_tv"
        ),
    }
)
def score_posterior(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """Whether the selector's score knows of misalignment at all, and the most that selecting by it can change.

    NaN where the selector saw no scores, or where fewer than two candidates of every prompt are scored and judged.
    """
    usable = np.isfinite(labels.scores) & np.isfinite(labels.pool.outcome) if labels.scores.size else np.zeros((0, 0))
    if not (usable.sum(1) >= 2).any():
        return dict.fromkeys(("eta_slope", "eta_tv", "selection_bound"), float("nan"))
    found = eta(labels.scores, labels.pool.outcome, groups=[prompt.item for prompt in labels.pool.prompts], rng=rng)
    bound = found.bound(labels.weights.shape[1]) if labels.weights.shape[1] > 1 else 0.0
    return {"eta_slope": found.slope, "eta_tv": found.tv, "selection_bound": bound}
