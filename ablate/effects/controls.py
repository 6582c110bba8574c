"""Runs with a known answer: the null control has expected effect zero, the oracles large ones of opposite sign."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ablate.effects.block import populations
from ablate.effects.intervals import t_interval
from ablate.errors import StudyError


def controls(tree: xr.DataTree) -> pd.DataFrame:
    """Mean change of risk of each control, in pp, with a t interval over valid organisms (seeds averaged first).

    Columns ``behavior, control, effect_pp, low, high, organisms``; NaN where no organism was run.
    """
    if "controls" not in tree.children:
        raise StudyError("the cube has no group controls; give the whole cube, not a part of it")
    if "risk_delta" not in tree.children["controls"]:
        raise StudyError("controls need the measure `risk`; add it to `measures`")
    runs, root = tree.children["controls"].to_dataset(inherit=False), tree.to_dataset(inherit=False)
    valid, behavior = root["valid_organism"].values == 1, populations(root)
    delta = 100 * runs["risk_delta"].transpose("control", "organism", "seed").values
    there = np.isfinite(delta)
    seeds = np.maximum(there.sum(-1), 1)
    means = np.where(there.any(-1), np.where(there, delta, 0.0).sum(-1) / seeds, np.nan)
    rows = []
    for name in dict.fromkeys(behavior.tolist()):
        for control, values in zip(runs["control"].values.tolist(), means, strict=True):
            own = values[valid & (behavior == name)]
            own = own[np.isfinite(own)]
            found = t_interval(own) if len(own) > 1 else (own.mean() if len(own) else np.nan, np.nan, np.nan)
            rows.append((name, control, *found[:3], len(own)))
    return pd.DataFrame(rows, columns=["behavior", "control", "effect_pp", "low", "high", "organisms"])


def organisms(tree: xr.DataTree) -> pd.DataFrame:
    """Every organism with its risk before training, the unjudged share, and whether it is calibrated and valid."""
    names = ("behavior", "model", "induction_seed", "organism_risk", "organism_unparsed")
    flags = ("calibrated", "valid_organism")
    root = tree.to_dataset(inherit=False)
    frame = pd.DataFrame({name: root[name].values for name in ("organism", *names, *flags)})
    return frame.assign(**{name: frame[name] == 1 for name in flags})
