"""Label shifts at equal KL: the strength of each is tuned until its divergence from the organism is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablate.api import Chat, Decoding, Policy, Pool, Prompt
from ablate.errors import StudyError
from ablate.tuning import tune

STRONGEST = 4.0
"""How far past the proposal a bridge may go."""

ROUNDING = 1e-9
"""A KL below this is that of equal distributions."""

TRIALS = 10
"""Most pools that are drawn in the search for one target."""


@dataclass(frozen=True, slots=True)
class Bridged:
    """A policy whose answers are drawn from the bridge between its own distribution and a label shift's."""

    policy: Policy
    strength: float

    def pool(
        self,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        k: int,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        chats: Sequence[Chat] | None = None,
        max_tokens: int | None = None,
    ) -> Pool:
        """See :class:`~ablate.api.Policy`."""
        bridged = replace(decoding, strength=self.strength)
        return self.policy.pool(prompts, rng, k=k, decoding=bridged, chats=chats, max_tokens=max_tokens)


def kl_of(pool: Pool) -> float:
    """KL(q || p) of a pool in nats per answer, exact along its samples; NaN where q is a mixture, or not known."""
    if not pool.exchangeable:
        return float("nan")
    return float(np.where(pool.mask, pool.kl, 0.0).sum(2, dtype=np.float64).mean())


def matched(draw: Callable[[float], Pool], kl_total: float, caliper: float) -> tuple[Pool, dict[str, Any]]:
    """The pool of a label shift at the strength at which its KL is ``kl_total``, and how that was found.

    KL(q_s || p) does not fall with the strength s, so the search bisects. The organism's own distribution has no
    strength: it stays as it is.

    Args:
        draw: the pool at a strength, from one stream of random numbers.
        kl_total: target, nats per answer.
        caliper: largest distance from it.

    Raises:
        StudyError: a decoding with nothing between it and the organism, or a target out of reach.
    """
    whole = draw(1.0)
    if np.isnan(kl_of(whole)):
        raise StudyError(
            "labels.match: the KL of this label shift is not known (beams and pools of several decodings have no "
            "density of their own); leave it out"
        )
    if kl_of(whole) < ROUNDING:
        return whole, {"strength": None, "kl_total": 0.0, "trials": []}
    pools = {1.0: whole}

    def measured(strength: float) -> dict[str, float]:
        try:
            pools[strength] = draw(strength)
        except ValueError as error:
            raise StudyError(f"labels.match: {error}") from None
        return {"kl_total": kl_of(pools[strength])}

    best, tried = {"at": 1.0, "kl_total": kl_of(whole)}, list[dict[str, float]]()
    if abs(best["kl_total"] - kl_total) > caliper:
        low, high = (0.0, 1.0) if best["kl_total"] > kl_total else (1.0, STRONGEST)
        best, tried = tune(measured, "kl_total", kl_total, within=caliper, low=low, high=high, trials=TRIALS)
    if abs(best["kl_total"] - kl_total) > caliper:
        raise StudyError(
            f"labels.match: {kl_total:g} +- {caliper:g} nats is out of reach, the nearest is {best['kl_total']:.3g} "
            f"at strength {best['at']:.3g}; choose another target or leave this label shift out"
        )
    return pools[best["at"]], {"strength": best["at"], "kl_total": best["kl_total"], "trials": tried}
