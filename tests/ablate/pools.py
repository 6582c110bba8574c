"""Whole cubes with judged pools: two answers a prompt, and the labels that selectors pick from them."""

import numpy as np
import xarray as xr

from ablate.effects.worlds import world

PROMPTS, K = 40, 4
SHIFTS, SELECTORS = ("none", "clean_view", "cot_view"), ("first", "majority", "argmax(judge)")
LAWS = ("draw", "plurality", "highest")


def labeled(seed=0, risks=(0.5, 0.2, 0.7), k=K, unjudged=0.1, organisms=6, **options):
    """A whole cube whose scores know M a little, with labels as selectors pick them."""
    rng = np.random.default_rng(seed)
    shifts = SHIFTS[: len(risks)]
    cube = world(seed, organisms=organisms, shifts=shifts, selectors=SELECTORS, shift=(0, -9, 9), **options)
    p = np.asarray(risks)[None, :, None, None] + 0.2 * rng.normal(size=(organisms, 1, 1, PROMPTS))
    outcome = (rng.random((organisms, len(risks), 1, PROMPTS, k)) < np.clip(p, 0.02, 0.98)[..., None]).astype(float)
    classes = outcome.copy()
    scores = 0.5 * outcome + rng.normal(size=outcome.shape)
    outcome[rng.random(outcome.shape) < unjudged] = np.nan
    votes = (classes[..., :, None] == classes[..., None, :]).sum(-1)
    picks = {
        "first": np.zeros(outcome.shape[:-1], int),
        "majority": votes.argmax(-1),
        "argmax(judge)": scores.argmax(-1),
    }
    risk = np.stack([np.take_along_axis(outcome, picks[name][..., None], -1)[..., 0] for name in SELECTORS], axis=2)
    own = ("organism", "label_shift", "seed", "prompt", "candidate")
    cells = ("organism", "label_shift", "selector", "objective", "seed", "prompt")
    group = xr.Dataset(
        {
            "pool_outcome": (own, outcome),
            "pool_class": (own, classes),
            "label_score": ((*cells, "candidate"), with_scores(scores)),
            "label_risk": (cells, risk[:, :, :, None]),
            "law": ("selector", np.array(LAWS, object)),
        }
    )
    return xr.DataTree.from_dict({"/": cube, "/labels": group})


def with_scores(scores):
    """[organism, shift, selector, objective, seed, prompt, candidate]: only the last selector sees scores."""
    table = np.full((*scores.shape[:2], len(SELECTORS), 1, *scores.shape[2:]), np.nan)
    table[:, :, 2, 0] = scores
    return table


def replaced(tree, **arrays):
    """The cube with other values in its group labels; None takes the variable out."""
    group = tree["labels"].to_dataset(inherit=False)
    gone = [name for name, values in arrays.items() if values is None]
    there = {name: (group[name].dims, values) for name, values in arrays.items() if values is not None}
    return xr.DataTree.from_dict({"/": tree.to_dataset(), "/labels": group.drop_vars(gone).assign(there)})


def unjudged(tree):
    return replaced(tree, pool_outcome=np.full(tree["labels"]["pool_outcome"].shape, np.nan))
