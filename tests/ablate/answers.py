"""Whole cubes whose answers were drawn item by item, so that what their sampling adds is known."""

import numpy as np
import xarray as xr

from ablate.effects.worlds import world

DIMS = ("organism", "label_shift", "selector", "objective", "seed")
ITEMS = 40


def answered(seed=0, samples=2, organisms=6, seeds=2, training=0.3, copies=1, before_of_seed=True, **options):
    """A whole cube whose answers were drawn: item logits plus effects of run and ``training`` of run and item."""
    rng = np.random.default_rng([seed, 3])
    names = tuple(f"b{i}" for i in range(copies))
    cube = world(seed, organisms=organisms, seeds=seeds, behaviors=names, **options)
    shape = cube.risk_delta.shape
    items = rng.normal(0, 1.5, (shape[0], 1, 1, 1, 1, ITEMS))
    logit = items + rng.normal(0, 0.3, (*shape, 1)) + training * rng.normal(0, 1, (*shape, ITEMS))
    p_after, p_before = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-items[:, 0, 0, 0]))
    after = rng.binomial(samples, p_after) / samples
    p_before = np.broadcast_to(p_before, (shape[0], seeds if before_of_seed else 1, ITEMS))
    before = rng.binomial(samples, p_before) / samples
    expanded = before[:, None, None, None] if before_of_seed else before[:, None, None, None, :1]
    risk = np.broadcast_to(expanded.mean(-1), shape)
    cube = cube.assign(
        risk_after=(DIMS, after.mean(-1)), risk_before=(DIMS, risk.copy()), risk_delta=(DIMS, after.mean(-1) - risk)
    )
    cube = cube.assign_attrs(evaluation=f"{samples} sampled at T = 1")
    dims = ("organism", "seed", "item") if before_of_seed else ("organism", "item")
    padded = {name: np.concatenate([values, np.full((*values.shape[:-1], 3), 0.5)], axis=-1) for name, values in
              (("after", after), ("before", before if before_of_seed else before[:, 0]))}  # fmt: skip
    kind = np.array([["risk"] * ITEMS + ["capability", "capability", ""]] * shape[0], object)
    group = xr.Dataset(
        {"outcome_after": ((*DIMS, "item"), padded["after"]), "outcome_before": (dims, padded["before"])},
        {"kind": (("organism", "item"), kind)},
    )
    truth = 1e4 * (p_after * (1 - p_after)).sum(-1) / (samples * ITEMS**2)
    return xr.DataTree.from_dict({"/": cube, "/items": group}), truth, p_after
