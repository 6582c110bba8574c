"""How far the proposal is from the organism, in nats."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, FloatArray, LabelSet, Pool, measure

EXACT = "sum of D(q_t || p_t) of the full next-token distributions along y ~ q (Rao-Blackwellized)"
SAMPLED = "mean of log q(y) - log p(y) over y ~ q, q as it was sampled"
GAP = "E_s[-log p(y)] - E_p[-log p(y)]; a gap of likelihood, not a divergence"


@measure(
    columns={
        "kl_shift": Column("KL(q || p) of the label shift, per answer", "nats", "neither", EXACT),
        "kl_shift_token": Column(
            "KL(q || p) of the label shift, per token", "nats", "neither", EXACT + ", ratio of sums"
        ),
        "kl_shift_mc": Column("KL(q || p) of the label shift, sampled, per answer", "nats", "neither", SAMPLED),
        "kl_shift_mc_se": Column("standard error of the sampled KL, clustered by item", "nats", "neither", SAMPLED),
        "nll_gap": Column("likelihood gap of the labels under the organism, per answer", "nats", "neither", GAP),
        "nll_gap_token": Column("likelihood gap, per token", "nats", "neither", GAP + ", ratios of sums"),
    }
)
def shift_divergence(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """The shift part of KL(labels || organism), exact along the samples and by plain Monte Carlo, and the NLL gap."""
    pool, own = labels.pool, labels.reference
    exact, sampled = _per_answer(pool, pool.kl), _per_answer(pool, pool.logprob_drawn - pool.logprob_p)
    clusters = {item: i for i, item in enumerate(dict.fromkeys(prompt.item for prompt in pool.prompts))}
    of = np.array([clusters[prompt.item] for prompt in pool.prompts])
    size = np.bincount(of)
    off = np.bincount(of, sampled.mean(1) - sampled.mean())  # sums within clusters, of mean zero overall
    count, prompts = len(size), len(of)
    cluster_se = (count / (count - 1) * (off**2).sum()) ** 0.5 / prompts if count > 1 else float("nan")
    nll, own_nll = -_per_answer(pool, pool.logprob_p), -_per_answer(own, own.logprob_p)
    given = labels.weights.sum()
    label_nll = (labels.weights * nll).sum() / given if given else float("nan")
    label_tokens = (labels.weights * pool.lengths).sum() / given if given else float("nan")
    return {
        "kl_shift": float(exact.mean()),
        "kl_shift_token": float(exact.sum() / pool.lengths.sum()),
        "kl_shift_mc": float(sampled.mean()),
        "kl_shift_mc_se": float(cluster_se),
        "nll_gap": float(label_nll - own_nll.mean()),
        "nll_gap_token": float(label_nll / label_tokens - own_nll.sum() / own.lengths.sum()),
    }


def _per_answer(pool: Pool, per_token: FloatArray) -> FloatArray:
    """Sums over the tokens of each answer, [P, K]."""
    sums: FloatArray = np.where(pool.mask, per_token, 0.0).sum(2, dtype=np.float64)
    return sums
