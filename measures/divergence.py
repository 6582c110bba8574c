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


@measure(
    version=2,
    columns={
        "kl_shift": Column("KL(q || p) of the label shift, per answer", "nats", "neither", EXACT),
        "kl_shift_token": Column(
            "KL(q || p) of the label shift, per token", "nats", "neither", EXACT + ", ratio of sums"
        ),
        "kl_shift_mc": Column("KL(q || p) of the label shift, sampled, per answer", "nats", "neither", SAMPLED),
        "kl_shift_mc_se": Column("standard error of the sampled KL, clustered by item", "nats", "neither", SAMPLED),
        "nll_gap": Column("likelihood gap of the labels under the organism, per answer", "nats", "neither", GAP),
        "nll_gap_token": Column("likelihood gap, per token", "nats", "neither", GAP + ", ratios of sums"),
    },
)
def shift_divergence(before: None, labels: LabelSet, after: None, rng: np.random.Generator) -> dict[str, float]:
    """The shift part of KL(labels || organism), exact along the samples and by plain Monte Carlo, and the NLL gap.

    A pool whose candidates come from several proposals, as beams do, is a sample of their mixture; the divergence of a
    mixture does not follow from those of its parts, so it is NaN.
    """
    pool, own = labels.pool, labels.reference
    known = 0.0 if pool.exchangeable else np.nan
    exact = _per_answer(pool, pool.kl + known)
    sampled = _per_answer(pool, pool.logprob_drawn - pool.logprob_p + known)
    monte_carlo = clustered_mean(sampled, [prompt.item for prompt in pool.prompts])
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
        "kl_shift": float(exact.mean()),
        "kl_shift_token": float(exact.sum() / pool.lengths.sum()),
        "kl_shift_mc": monte_carlo.value,
        "kl_shift_mc_se": monte_carlo.se,
        "nll_gap": label_nll - reference_nll,
        "nll_gap_token": label_nll / label_tokens - reference_nll / reference_tokens,
    }


def _per_answer(pool: Pool, per_token: FloatArray) -> FloatArray:
    """Sums over the tokens of each answer, [P, K]."""
    sums: FloatArray = np.where(pool.mask, per_token, 0.0).sum(2, dtype=np.float64)
    return sums
