"""Runs with a known answer: the null control has expected effect zero, the oracles large ones of opposite sign."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ablate.effects.block import mean, populations, refuse_copies
from ablate.effects.intervals import Interval, t_interval
from ablate.errors import StudyError


def controls(tree: xr.DataTree) -> pd.DataFrame:
    """Mean change of risk of each control, in pp, with a t interval over valid organisms (seeds averaged first).

    Columns ``behavior``, the settings of other swapped options, ``control, effect_pp, low, high, organisms``; NaN where
    no organism was run.
    """
    if "controls" not in tree.children:
        raise StudyError("the cube has no group controls: no run with a known answer, or it is a part of a cube")
    if "risk_delta" not in tree.children["controls"]:
        raise StudyError("controls need the measure `risk`; add it to `measures`")
    runs, root = tree.children["controls"].to_dataset(), tree.to_dataset(inherit=False)
    refuse_copies(root)
    valid, behavior = root["valid_organism"].values == 1, populations(root)
    settings = [str(dim) for dim in runs["risk_delta"].dims if dim not in ("control", "organism", "seed")]
    delta = 100 * runs["risk_delta"].transpose(*settings, "control", "organism", "seed").values
    means = mean(delta, axis=-1)
    rows = []
    for name in dict.fromkeys(behavior.tolist()):
        for place in np.ndindex(means.shape[:-1]):
            own = means[place][valid & (behavior == name)]
            own = own[np.isfinite(own)]
            found = t_interval(own) if len(own) > 1 else Interval(float(mean(own, axis=0)), np.nan, np.nan)
            levels = [str(runs[dim].values[i]) for dim, i in zip((*settings, "control"), place, strict=True)]
            rows.append((name, *levels, *found, len(own)))
    columns = ["behavior", *settings, "control", "effect_pp", "low", "high", "organisms"]
    return pd.DataFrame(rows, columns=columns).drop(columns=[dim for dim in settings if runs.sizes[dim] == 1])


def organisms(tree: xr.DataTree) -> pd.DataFrame:
    """Every organism with its risk before training, the unjudged share, and whether it is calibrated and valid.

    Imported runs say nothing of a calibration, and the column ``calibrated`` is then not there.
    """
    names = ("behavior", "model", "induction_seed", "organism_risk", "organism_unparsed")
    root = tree.to_dataset(inherit=False)
    flags = [name for name in ("calibrated", "valid_organism") if name in root]
    refuse_copies(root)
    frame = pd.DataFrame({name: root[name].values for name in ("organism", *names, *flags)})
    return frame.assign(**{name: frame[name] == 1 for name in flags})
