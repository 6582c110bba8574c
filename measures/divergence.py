"""How far the proposal is from the organism, in nats; the divergences of plain arrays are found here too."""

from __future__ import annotations

import numpy as np

from ablate.api import Column, FloatArray, LabelSet, Pool, measure
from ablate.measures.closed_forms import Filtered as Filtered
from ablate.measures.closed_forms import Selected as Selected
from ablate.measures.closed_forms import best_of_n as best_of_n
from ablate.measures.closed_forms import cross_entropy as cross_entropy
from ablate.measures.closed_forms import entropy as entropy
from ablate.measures.closed_forms import filtered as filtered
from ablate.measures.closed_forms import js as js
from ablate.measures.closed_forms import kl as kl
from ablate.measures.closed_forms import kl_gaussian as kl_gaussian
from ablate.measures.closed_forms import majority as majority
from ablate.measures.closed_forms import reweighted as reweighted
from ablate.measures.closed_forms import total_variation as total_variation
from ablate.measures.estimators import Estimate as Estimate
from ablate.measures.estimators import clustered_mean as clustered_mean
from ablate.measures.estimators import kl_gaussian_mc as kl_gaussian_mc
from ablate.measures.estimators import kl_mc as kl_mc

EXACT = "sum of D(q_t || p_t) of the full next-token distributions along y ~ q (Rao-Blackwellized)"
SAMPLED = "mean of log q(y) - log p(y) over y ~ q, q as it was sampled"
GAP = "E_s[-log p(y)] - E_p[-log p(y)] over prompts that got a label; a gap of likelihood, not a divergence"


JENSEN = "log 2 - E_q[log(1 + r) + r log(1 + 1/r)] / 2, r = p(y) / q(y), q as it was sampled; at most log 2 (Lin, 1991)"
COVERED = "P(answers q can give): E_q[p(y) / q(y)] where no ratio exceeds 1; 1 where q cuts nothing"

RAW = 1e-4
"""Nats by which an answer's log-probability may differ between two passes over the same logits."""


@measure(
    version=3,
    columns={
        "kl_shift": Column("KL(q || p) of the label shift, per answer", "nats", "neither", EXACT),
        "kl_shift_se": Column("standard error of KL(q || p), clustered by item", "nats", "neither", EXACT),
        "kl_shift_token": Column(
            "KL(q || p) of the label shift, per token", "nats", "neither", EXACT + ", ratio of sums"
        ),
        "kl_shift_mc": Column("KL(q || p) of the label shift, sampled, per answer", "nats", "neither", SAMPLED),
        "kl_shift_mc_se": Column("standard error of the sampled KL, clustered by item", "nats", "neither", SAMPLED),
        "js_shift": Column("Jensen-Shannon divergence of q and p, of answers", "nats", "neither", JENSEN),
        "coverage": Column("share of the organism's answers that q can give", "1", "neither", COVERED),
        "nll_gap": Column("likelihood gap of the labels under the organism, per answer", "nats", "neither", GAP),
        "nll_gap_token": Column("likelihood gap, per token", "nats", "neither", GAP + ", ratios of sums"),
    },
)
def shift_divergence(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """How far the proposal q is from the organism p, prompt by prompt, whatever was selected; and the NLL gap.

    KL(q || p) is exact along the samples and by plain Monte Carlo. JS(q, p) and the coverage of p by q are means over
    draws of q alone, unbiased for any q: sum_y p log(1 + q/p) = E_q[r log(1 + 1/r)], terms that lie in [0, 1].

    A pool whose candidates come from several proposals, as beams do, is a sample of their mixture; the divergence of a
    mixture does not follow from those of its parts, so it is NaN.
    """
    pool, own = labels.pool, labels.reference
    items = [prompt.item for prompt in pool.prompts]
    known = 0.0 if pool.exchangeable else np.nan
    log_ratio = _per_answer(pool, pool.logprob_drawn - pool.logprob_p + known)
    exact, sampled = clustered_mean(_per_answer(pool, pool.kl + known), items), clustered_mean(log_ratio, items)
    nll, own_nll = -_per_answer(pool, pool.logprob_p), -_per_answer(own, own.logprob_p)
    row = labels.weights.sum(1)
    given = row.sum()
    label_nll, label_tokens, reference_nll, reference_tokens = (
        float(total / given) if given else float("nan")
        for total in (
            (labels.weights * nll).sum(),
            (labels.weights * pool.lengths).sum(),
            (row * own_nll.mean(1)).sum(),
            (row * own.lengths.mean(1)).sum(),
        )
    )
    return {
        "kl_shift": exact.value,
        "kl_shift_se": exact.se,
        "kl_shift_token": exact.value / float(pool.lengths.mean()),
        "kl_shift_mc": sampled.value,
        "kl_shift_mc_se": sampled.se,
        "js_shift": _js(log_ratio),
        "coverage": _coverage(pool, log_ratio),
        "nll_gap": label_nll - reference_nll,
        "nll_gap_token": label_nll / label_tokens - reference_nll / reference_tokens,
    }


def _js(log_ratio: FloatArray) -> float:
    """JS(q, p) from log q - log p of draws of q, log 2 - E_q[log(1 + r) + r log(1 + 1/r)] / 2 with r = p / q."""
    if np.isnan(log_ratio).any():  # text without a density
        return float("nan")
    log_ratio = np.maximum(log_ratio, -700.0)  # where r log(1 + 1/r) is 1 and r is still finite
    above = np.logaddexp(0.0, -log_ratio) + np.exp(-log_ratio) * np.logaddexp(0.0, log_ratio)
    return float(np.log(2) - above.mean() / 2)


def _coverage(pool: Pool, log_ratio: FloatArray) -> float:
    """P(answers that q can give) under p, per prompt; NaN where q may cut and its draws do not settle how much.

    A softmax cuts nothing. What top-p leaves of p itself, or greedy decoding of anything, is E_q[p/q] of ratios that
    are at most 1. Ratios above 1 are those of a reshaped q: their mean is unbiased too, but it hangs on answers that
    are too rare under q to be drawn.
    """
    cut = _per_answer(pool, pool.logprob_drawn - pool.logprob_q)
    if (np.abs(cut) <= RAW).all():
        return 1.0
    return float(np.exp(-log_ratio).mean()) if (log_ratio >= -RAW).all() else float("nan")


def _per_answer(pool: Pool, per_token: FloatArray) -> FloatArray:
    """Sums over the tokens of each answer, [P, K]."""
    sums: FloatArray = np.where(pool.mask, per_token, 0.0).sum(2, dtype=np.float64)
    return sums
