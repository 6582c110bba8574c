"""What the selection did to the labels: its divergence and a bound on it, and how risk goes with the score."""

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
TOTAL = (
    "kl_labels + KL(s || q), which is 0 for a plain draw or a proposal with one answer, and log K - (K - 1)/K for the "
    "best of K by a score where no two candidates of a prompt are the same or tie; NaN elsewhere, and where candidates "
    "come from several proposals"
)
SINGLE = 1e-4
"""Nats from 0 at which an answer's log-probability is that of the only answer."""

POSTERIOR = "P(M = 1 | quantile of the score within its prompt), over judged candidates"


@measure(
    version=2,
    columns={
        "kl_labels": Column("shift part of KL(s || p), along the labels, per answer", "nats", "neither", ALONG),
        "kl_total": Column("KL(s || p) of the labels, per answer, where it is known", "nats", "neither", TOTAL),
        "kl_selection_max": Column("bound on the selection part KL(s || q), per answer", "nats", "neither", BOUND),
        "kl_total_max": Column("bound on KL(s || p), per answer", "nats", "neither", "kl_labels + kl_selection_max"),
    },
)
def selection_divergence(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """KL(labels || organism): the shift part along the labels, the most that selection can add, and what it adds.

    KL(s || p) = E_s[log q/p] + KL(s || q). The first is a mean over labels. The second follows from the law of the
    selector and the distribution of its scores under q, which K draws of a prompt do not give in general: plug-in
    estimates from a pool were up to a third too large in worlds of known value. So it is given where it is known, see
    `selection_part`, and is NaN elsewhere; the bound holds always. Where candidates come from several proposals, q is
    that of each: what was picked among is part of the selection.
    """
    pool, k = labels.pool, labels.weights.shape[1]
    given = labels.weights.sum(1)
    ratio = np.where(pool.mask, pool.logprob_drawn - pool.logprob_p, 0.0).sum(2, dtype=np.float64)
    along = float((labels.weights * ratio).sum() / given.sum()) if given.any() else float("nan")
    best = best_of_n(k) if pool.exchangeable else float(np.log(k))
    bounds = {None: float("nan"), "draw": 0.0, "highest": best, "lowest": best}
    bound = bounds.get(labels.law, float(np.log(k)))
    return {
        "kl_labels": along,
        "kl_total": along + selection_part(labels),
        "kl_selection_max": bound,
        "kl_total_max": along + bound,
    }


def selection_part(labels: LabelSet) -> float:
    """KL(s || q) of selecting one of K draws, mean over prompts, in nats; NaN where it is not known.

    - One draw that is always taken, a plain draw, or a prompt on which q has a single answer: 0.
    - The highest or lowest of K by a score of the answer, where no answer was drawn twice and no two tie:
      log K - (K - 1)/K, exact where no answer has probability. An answer of probability d takes about
      d^3 K (K - 1)^2 F^(K - 3) / 24 off it, F being the share of answers that score lower, and none being drawn twice
      on P prompts bounds the mean sum of d^2 by 6 / (P K (K - 1)) at 95%: at P = 96, K = 4 less than .01 nats.
    - Any other law, a missing score, candidates of several proposals, or a prompt with candidates that are the same or
      tie: NaN. That all answers of q were drawn, so that q is known, would not help: it is more likely of some pools
      than of others, and the labels of those are not distributed as s.
    """
    pool, k = labels.pool, labels.weights.shape[1]
    if not pool.exchangeable:
        return float("nan")
    single = (np.where(pool.mask, pool.logprob_drawn, 0.0).sum(2, dtype=np.float64) >= -SINGLE).all(1)
    taken = k == 1 and bool(labels.weights.any(1).all())
    if taken or labels.law == "draw" or single.all():
        return 0.0
    if labels.law not in ("highest", "lowest") or np.isnan(labels.scores).any():
        return float("nan")
    answers = np.where(pool.mask, pool.tokens, -1)
    same = (answers[:, :, None] == answers[:, None]).all(-1) | (labels.scores[:, :, None] == labels.scores[:, None])
    ordered = same.sum((1, 2)) == k  # each candidate is the same as itself alone
    return best_of_n(k) * float((~single).mean()) if (ordered | single).all() else float("nan")


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
