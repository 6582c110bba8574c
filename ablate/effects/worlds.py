"""Cubes with planted effects, whose every answer is known: what the acceptance simulations judge the verdict by.

y = organism + shift + selector + interaction + organism:shift + organism:selector + seed + noise, in pp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ablate.api import FloatArray

SHIFTS = ("none", "greedy", "clean_view")
SELECTORS = ("first", "majority", "mean_logprob")


def world(
    seed: int = 0,
    *,
    organisms: int = 8,
    seeds: int = 1,
    shifts: Sequence[str] = SHIFTS,
    selectors: Sequence[str] = SELECTORS,
    objectives: Sequence[str] = ("sft",),
    shift: Sequence[float] = (0, 0, 0),
    selector: Sequence[float] = (0, 0, 0),
    objective: Sequence[float] = (0,),
    interaction: Mapping[tuple[int, int], float] = {},
    org: float = 3,
    org_shift: float = 2,
    org_selector: float = 2,
    run_seed: float = 1,
    noise: float = 2,
    frozen: Sequence[str] = (),
    behaviors: Sequence[str] = ("sycophancy",),
    before: float = 0.5,
    skewed: bool = False,
    missing: float = 0,
    attrs: Mapping[str, Any] = {"items": 128},
) -> xr.Dataset:
    """A cube of ``organisms`` for each behavior; effects and standard deviations in pp.

    ``frozen`` label shifts leave the same labels whatever the selector: one run, the rest aliased. ``skewed``:
    organisms differ in their effects by centered exponentials (skewness 2) instead of normals. ``missing`` is the
    share of runs, drawn at random, that were not made.
    """
    rng = np.random.default_rng(seed)

    def spread(sd: float, shape: tuple[int, ...]) -> FloatArray:
        return sd * (rng.exponential(size=shape) - 1) if skewed else rng.normal(0, sd, shape)

    total = organisms * len(behaviors)
    n_shift, n_select, n_object = len(shifts), len(selectors), len(objectives)
    size = (total, n_shift, n_select, n_object, seeds)
    both = np.zeros((n_shift, n_select))
    for cell, effect in interaction.items():
        both[cell] = effect
    y = np.asarray(shift, float)[:n_shift, None] + np.asarray(selector, float)[:n_select] + both
    y = y[None, :, :, None, None] + np.asarray(objective, float)[:, None]
    y = y + rng.normal(0, org, (total, 1, 1, 1, 1)) + rng.normal(0, run_seed, (total, 1, 1, 1, seeds))
    y = y + spread(org_shift, (total, n_shift, 1, 1, 1)) + spread(org_selector, (total, 1, n_select, 1, 1))
    y = y + rng.normal(0, noise, size)
    status = np.ones(size, np.int8)
    index = np.indices(size)
    pool = _names("pool", index[[0, 1, 4]])
    labels = _names("labels", index[[0, 1, 2, 4]])
    train = _names("train", index)
    for i in (i for i, name in enumerate(shifts) if name in frozen):
        y[:, i] = y[:, i, :1]
        labels[:, i], train[:, i] = labels[:, i, :1], train[:, i, :1]
        status[:, i, 1:] = 4
    dims = ("organism", "label_shift", "selector", "objective", "seed")
    after = np.clip(before + y / 100, 0, 1)
    if missing:
        gone = rng.random(size) < missing
        after, status = np.where(gone, np.nan, after), np.where(gone, 0, status).astype(np.int8)
    return xr.Dataset(
        {
            "risk_delta": (dims, after - before),
            "risk_before": (dims, np.full(size, before)),
            "risk_after": (dims, after),
            "status": (dims, status),
            "key_pool": (dims, pool),
            "key_labels": (dims, labels),
            "key_train": (dims, train),
            "valid_organism": ("organism", np.ones(total, np.int8)),
        },
        coords={
            "organism": [f"o{i}" for i in range(total)],
            "label_shift": list(shifts),
            "selector": list(selectors),
            "objective": list(objectives),
            "seed": list(range(seeds)),
            "behavior": ("organism", np.repeat(list(behaviors), organisms)),
            "model": ("organism", ["tabular"] * total),
            "induction_seed": ("organism", list(range(total))),
        },
        attrs=dict(attrs),
    )


def grid(cube: xr.Dataset, name: str = "risk_delta") -> FloatArray:
    """The response in pp, [organism, label_shift, selector, objective, seed]."""
    return np.asarray(100 * cube[name].values)


def _names(stage: str, index: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
    rows = index.reshape(len(index), -1).T
    names = np.array([f"{stage}-" + ".".join(map(str, row)) for row in rows.tolist()], dtype=object)
    return names.reshape(index.shape[1:])
