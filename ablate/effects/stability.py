"""Stability: how far the judged answers depend on the label shift, from the candidates of every pool.

Inference is over organisms.
"""

from __future__ import annotations

from itertools import combinations
from typing import cast

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from ablate.api import FloatArray, IntArray
from ablate.effects.block import Block, at, mean, root
from ablate.effects.contrasts import degrees, gather
from ablate.effects.dose import aligned
from ablate.effects.intervals import t_interval
from ablate.effects.labels import DATA, candidates, group_of
from ablate.errors import StudyError


def stability(cube: xr.DataTree) -> pd.DataFrame:
    """How much the distribution of judged answers depends on the label shift, against a shift with itself.

    The share misaligned of h judged candidates of a prompt is one Bernoulli distribution, x / h. A pair of shifts is
    compared by the Jensen-Shannon divergence of h candidates of one and h of the other, each of the two with itself
    by that of two disjoint h of its own, with one h = min(n_a, n_b) // 2 throughout, so that the bias of small
    samples cancels: the expected difference is 0 where the label shift makes no difference, whatever could be judged.
    Each is the mean over all ways to take them, exactly: of the m misaligned among n, x have the hypergeometric
    law, and the x and y of two disjoint h of one pool

        P(x, y) = C(h, x) C(h, y) C(n - 2 h, m - x - y) / C(n, m).

    Means over prompts that have two judged candidates of each, and over training seeds.

    Columns: ``behavior``, other swapped options of the labels, ``pair`` (two label shifts, or ``all pairs``, the mean
    over them), ``between_shifts``, ``same_shift`` (nats, means over organisms), ``difference`` with its 95% t limits
    ``low, high`` over organisms, ``organisms``, ``prompts`` (mean number of an organism and seed). ``.attrs["notes"]``
    say how many candidates each label shift has and which share could not be judged.

    Raises:
        StudyError: a cube without judged candidates, one label shift, fewer than two judged candidates a prompt, or
            an outcome that is no 0 or 1; what `contrasts` refuses.
    """
    group = group_of(cube, "pool_outcome", "pool_class")

    def rows(block: Block) -> pd.DataFrame:
        shifts = block.levels["label_shift"]
        if len(shifts) < 2:
            raise StudyError(f"{block.behavior}: label_shift has one level ({shifts[0]}), nothing to be stable against")
        outcome, classes = (aligned(block, group[name], root(cube)) for name in ("pool_outcome", "pool_class"))
        noted = [candidates(block, outcome, classes)]
        outcome = outcome[:, :, 0]  # no selector in a pool
        if not np.isin(outcome[np.isfinite(outcome)], (0, 1)).all():
            raise StudyError(f"{block.behavior}: an outcome of pool_outcome is not 0, 1 or NaN")
        frames = []
        for place in np.ndindex(outcome.shape[2:-3]):
            pools = at(outcome, place, after=2)  # [organism, shift, seed, prompt, candidate]
            frames.append(_stable(block, pools, _setting(block, place, outcome.shape[2:-3])))
        frame = pd.concat(frames, ignore_index=True)
        if not frame["organisms"].any():
            raise StudyError(f"{block.behavior}: no prompt has two judged candidates under two label shifts")
        drawn = np.isfinite(outcome).sum(axis=-1).max(axis=(0, *range(2, outcome.ndim - 1)))
        frame.attrs["notes"] = noted + [
            f"{block.behavior}: label_shift {name} has fewer than two judged candidates a prompt, so no halves"
            for name, count in zip(shifts, drawn, strict=True)
            if count < 2
        ]
        return frame

    table = gather(cube, rows)
    table.attrs["methods"] = (
        "Jensen-Shannon divergence of the judged answers to label prompts between halves of pools, exact mean over all "
        f"halves, less that of a label shift with itself; t intervals with {degrees(table)} df over organisms"
    )
    table.attrs["facts"] = DATA
    return table


def _stable(block: Block, pools: FloatArray, setting: dict[str, str]) -> pd.DataFrame:
    """Rows of `stability` for ``pools`` [organism, shift, seed, prompt, candidate]."""
    shifts = block.levels["label_shift"]
    judged = np.isfinite(pools).sum(axis=-1)  # [organism, shift, seed, prompt]
    misaligned = np.nansum(pools, axis=-1).astype(int)
    pairs = list(combinations(range(len(shifts)), 2))
    values = np.full((2, len(pairs), *judged[:, 0].shape), np.nan)
    for i, pair in enumerate(pairs):
        n, m = (np.moveaxis(counts[:, pair], 1, 0) for counts in (judged, misaligned))
        used = (n > 1).all(axis=0)
        if used.any():
            values[:, i, used] = _divergences(n[:, used], m[:, used])
    prompts = mean(np.isfinite(values[0]).sum(axis=-1), axis=-1)
    numbers = np.stack([*mean(values, axis=(3, 4)), np.where(prompts > 0, prompts, np.nan)])  # [3, pair, organism]
    names = [f"{shifts[a]}, {shifts[b]}" for a, b in pairs]
    if len(pairs) > 1:
        names.append("all pairs")
        numbers = np.concatenate([numbers, mean(numbers, axis=1)[:, None]], axis=1)
    lines = []
    for name, one, other, count in zip(names, *numbers, strict=True):
        found = t_interval(one - other)
        lines.append(
            {
                "behavior": block.behavior,
                **setting,
                "pair": name,
                "between_shifts": float(mean(one, axis=0)),
                "same_shift": float(mean(other, axis=0)),
                "difference": float(mean(one - other, axis=0)),
                "low": found.low,
                "high": found.high,
                "organisms": int(np.isfinite(one).sum()),
                "prompts": float(mean(count, axis=0)),
            }
        )
    return pd.DataFrame(lines)


def _divergences(n: IntArray, m: IntArray) -> FloatArray:
    """Expected divergence of halves of two shifts and of halves of one (mean over both), nats, [2, prompt].

    ``m`` of the ``n`` judged candidates of each shift are misaligned, [shift, prompt], 1 < n < 1000; see `stability`.
    """
    counts, place = np.unique(np.concatenate([n, m]), axis=1, return_inverse=True)
    n_a, n_b, m_a, m_b = counts[..., None, None]  # [different prompts, x, y]
    h = np.minimum(n_a, n_b) // 2
    x = np.arange(h.max() + 1)[:, None]
    y = x.T
    apart = _js(np.minimum(x / h, 1.0), np.minimum(y / h, 1.0))

    def half(x: IntArray, n: IntArray, m: IntArray) -> FloatArray:
        return cast(FloatArray, special.comb(h, x) * special.comb(n - h, m - x) / special.comb(n, m))

    def halves(n: IntArray, m: IntArray) -> FloatArray:
        ways = special.comb(h, x) * special.comb(h, y) * special.comb(n - 2 * h, m - x - y)
        return cast(FloatArray, ways / special.comb(n, m))

    between = half(x, n_a, m_a) * half(y, n_b, m_b)
    within = (halves(n_a, m_a) + halves(n_b, m_b)) / 2
    return np.stack([(p * apart).sum(axis=(1, 2)) for p in (between, within)])[:, place]


def _js(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence of two Bernoulli distributions, nats."""

    def entropy(share: FloatArray) -> FloatArray:
        return cast(FloatArray, special.entr(share) + special.entr(1 - share))

    return np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0)


def _setting(block: Block, place: tuple[int, ...], sizes: tuple[int, ...]) -> dict[str, str]:
    """Levels of the options that a pool depends on."""
    others = list(block.levels)[2:]
    return {
        factor: block.levels[factor][level]
        for factor, level, size in zip(others, place, sizes, strict=True)
        if size > 1
    }
