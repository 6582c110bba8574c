"""Whole cubes in memory that have what every figure needs: effects, doses, pools with scores and places, items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from answers import DIMS

from ablate.effects.worlds import SELECTORS, SHIFTS, world

PROMPTS, K, ITEMS = 12, 4, 40


def gallery(
    seed: int = 0,
    *,
    organisms: int = 6,
    shifts: Sequence[str] = SHIFTS,
    selectors: Sequence[str] = SELECTORS,
    candidates: Sequence[int] = (),
    **options: Any,
) -> xr.DataTree:
    """A cube with a planted effect of every label shift but the first; the first selector has no scorer.

    Labels are risky where the effect is positive; the scores of the other selectors know of misalignment. With
    ``candidates`` their number is swapped: so many are in a pool, and the selectors' effect grows with it.
    """
    if candidates:
        parts = [gallery(seed, organisms=organisms, shifts=shifts, selectors=selectors, **options) for _ in candidates]
        return _joined(parts, candidates)
    rng = np.random.default_rng([seed, 5])
    planted = {"shift": [-12.0 * i for i in range(len(shifts))], "selector": [4.0 * i for i in range(len(selectors))]}
    root = world(seed, organisms=organisms, shifts=shifts, selectors=selectors, **{**planted, **options})
    noise = rng.normal(0, 0.02, root.risk_delta.shape)
    values = {
        "m_p": np.full(root.risk_delta.shape, 0.5),
        "m_ts": np.clip(0.5 + root.risk_delta.values + noise, 0, 1),
        "kl_shift": np.abs(root.risk_delta.values) * 3 + rng.random(root.risk_delta.shape) / 5,
        "organism_risk": root.risk_before.values.mean(axis=(1, 2, 3, 4)),
        "organism_unparsed": np.zeros(len(root.organism)),
        "calibrated": np.ones(len(root.organism), np.int8),
    }
    root = root.assign({name: (DIMS[: value.ndim], value) for name, value in values.items()})
    pools, cells = (DIMS[0], DIMS[1], DIMS[4], "prompt", "candidate"), (*DIMS, "prompt")
    sizes = {**root.sizes, "prompt": PROMPTS, "candidate": K}
    outcome = rng.integers(0, 2, [sizes[dim] for dim in pools]).astype(np.float32)
    scores = np.full([sizes[dim] for dim in (*cells, "candidate")], np.nan)
    scores[:, :, 1:] = (outcome + rng.normal(size=outcome.shape))[:, :, None, None]
    labels = xr.Dataset(
        {
            "pool_outcome": (pools, outcome),
            "pool_class": (pools, outcome),
            "pool_x": (pools, rng.normal(np.arange(len(shifts))[None, :, None, None, None], 1, outcome.shape)),
            "pool_y": (pools, rng.normal(0, 1, outcome.shape)),
            "label_score": ((*cells, "candidate"), scores),
            "label_risk": (cells, rng.random([sizes[dim] for dim in cells])),
            "law": ("selector", np.array(["draw", *["highest"] * (len(selectors) - 1)], object)),
        }
    )
    kind = np.full((len(root.organism), ITEMS + 2), "risk", object)
    kind[:, ITEMS:] = "capability"
    after, before = root.risk_after.values[..., None], root.risk_before.values[:, 0, 0, 0, 0, None]
    items = xr.Dataset(
        {
            "outcome_after": (
                (*DIMS, "item"),
                rng.binomial(2, np.broadcast_to(after, (*after.shape[:-1], ITEMS + 2))) / 2,
            ),
            "outcome_before": (("organism", "item"), rng.binomial(2, np.broadcast_to(before, kind.shape)) / 2),
        },
        {"kind": (("organism", "item"), kind)},
    )
    return xr.DataTree.from_dict({"/": root, "/items": items, "/labels": labels})


def changed(tree: xr.DataTree, **variables: Any) -> xr.DataTree:
    """The cube with other variables in its root, each a function of the one that is there."""
    root = tree.to_dataset(inherit=False).copy(deep=True)
    for name, change in variables.items():
        root[name] = root[name].copy(data=change(root[name].values.copy()))
    groups = {f"/{name}": child.to_dataset(inherit=False) for name, child in tree.children.items()}
    return xr.DataTree.from_dict({"/": root, **groups})


def _joined(parts: Sequence[xr.DataTree], candidates: Sequence[int]) -> xr.DataTree:
    roots, labels, items = [], [], []
    for i, part in enumerate(parts):
        root = part.to_dataset(inherit=False)
        keys = {name: root[name] + f" of {candidates[i]}" for name in ("key_pool", "key_labels", "key_train")}
        gain = 0.01 * i * xr.DataArray(np.arange(root.sizes["selector"]), dims="selector")
        moved = {name: (root[name] + gain).transpose(*DIMS) for name in ("risk_after", "risk_delta")}
        roots.append(root.assign(keys).assign(moved))
        labels.append(part["labels"].to_dataset(inherit=False))
        items.append(part["items"].to_dataset(inherit=False))
    dim = xr.DataArray(list(candidates), dims="candidates", name="candidates")
    fixed = [name for name in roots[0] if "seed" not in roots[0][name].dims]
    root = xr.concat([one.drop_vars(fixed) for one in roots], dim).transpose(*DIMS, "candidates")
    label = xr.concat([one.drop_vars("law") for one in labels], "candidates").transpose(..., "prompt", "candidate")
    item = xr.concat([one[["outcome_after"]] for one in items], "candidates").transpose(..., "item")
    groups = {
        "/": root.assign({name: roots[0][name] for name in fixed}).assign_attrs(roots[0].attrs),
        "/labels": label.assign(law=labels[0]["law"]),
        "/items": item.assign(outcome_before=items[0]["outcome_before"], kind=items[0]["kind"]),
    }
    return xr.DataTree.from_dict(groups)


def of_methods(names: Sequence[str] = ("m0", "m1"), *, isolated: bool = True, organisms: int = 6) -> xr.DataTree:
    """A cube that compares methods: taken apart into label shift, selector and objective, or whole."""
    rng = np.random.default_rng(2)
    levels = {"label_shift": ["none", "method"], "selector": ["first", "method"], "objective": ["sft", "method"]}
    coords = {name: own if isolated else own[1:] for name, own in levels.items()}
    dims = (*DIMS[:4], "method_name", "seed")
    shape = (organisms, *map(len, coords.values()), len(names), 1)
    index = np.indices(shape) + (0 if isolated else np.array([0, 1, 1, 1, 0, 0]).reshape(-1, *[1] * 6))
    effect = 10.0 * index[1] - 6.0 * index[2] + 3.0 * index[3] + 2.0 * index[1] * index[2] * (1 + index[4])
    delta = (effect + rng.normal(0, 1, (organisms, *[1] * 5)) + rng.normal(0, 1, shape)) / 100
    keys = {"key_train": index, "key_labels": index[[0, 1, 2, 4, 5]], "key_pool": index[[0, 1, 4, 5]]}
    data = {"risk_delta": delta, "risk_before": np.full(shape, 0.5), "risk_after": 0.5 + delta}
    data |= {"capability_delta": delta / 5, "status": np.ones(shape, np.int8)}
    data |= {name: np.array(["".join(map(str, key)) for key in own.reshape(len(own), -1).T], object).reshape(shape)
             for name, own in keys.items()}  # fmt: skip
    root = xr.Dataset(
        {name: (dims, values) for name, values in data.items()}
        | {"valid_organism": ("organism", np.ones(organisms, np.int8))},
        {**coords, "organism": list(range(organisms)), "method_name": list(names), "seed": [0],
         "behavior": ("organism", ["sycophancy"] * organisms)},
    )  # fmt: skip
    null = dict.fromkeys(
        ("risk_delta", "capability_delta"), (("control", "organism", "seed"), np.zeros((1, organisms, 1)))
    )
    return xr.DataTree.from_dict({"/": root, "/controls": xr.Dataset(null, {"control": ["null"]})})
