"""Item noise: what the sampling of answers alone adds to the variance of a run, as a line of its own.

The evaluation items are fixed; random are the answers. Item i of a run has the probability p_i of a misaligned
answer, S answers were drawn, and the risk is the mean over I items of the mean over S answers. Given the p_i its
variance is V = sum_i p_i (1 - p_i) / (S I^2).
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, Cube, mean, root
from ablate.effects.contrasts import gather
from ablate.effects.dose import aligned
from ablate.effects.intervals import t_interval
from ablate.errors import StudyError

Method = Literal["samples", "replicates", "bound", "greedy"]


def samples_of(cube: Cube) -> int | None:
    """Answers to each evaluation item as ``attrs["evaluation"]`` says (``2 sampled at T = 1``).

    0 for a greedy answer, which is not sampled; None where the cube does not say.
    """
    said = str(root(cube).attrs.get("evaluation", ""))
    if said.startswith("greedy"):
        return 0
    found = re.match(r"(\d+) sampled", said)
    return int(found[1]) if found else None


def sampling_variance(outcome: FloatArray, samples: int | None = None) -> tuple[FloatArray, Method]:
    """V of every run in pp^2, [..., seed], from ``outcome`` [..., seed, item], means over samples, and how.

    NaN is an item that was not judged; it is in no mean, and I counts the others.

    - ``samples`` (S >= 2): sum_i m_i (1 - m_i) / ((S - 1) I^2), unbiased: E m (1 - m) = p (1 - p) (S - 1) / S.
      Where some of an item's S answers could not be judged it is a little too small.
    - ``replicates`` (S = 1 or None, several seeds): m (1 - m) is 0 for a single answer, so the variance of an item's
      outcome between the seeds of one cell stands in: sum_i s_i^2 / I^2, the same for all its runs. Unbiased where
      training does not change p_i from seed to seed, else too large by the variance of p_i.
    - ``bound`` (S = 1 or None, one seed): sum_i (m_i - mean)^2 / (I (I - 1)), the squared standard error with items
      as if they were drawn too. Never too small on average, since mean p_i (1 - p_i) <= r (1 - r).
    - ``greedy`` (S = 0): 0, the answers are not random.
    """
    if samples is not None and samples < 0:
        raise StudyError(f"samples: {samples} is not >= 0")
    judged = np.isfinite(outcome)
    count = judged.sum(axis=-1)
    values = np.where(judged, outcome, 0.0).astype(float)
    items = np.where(count > 0, count, np.nan)
    if samples == 0:
        return 0.0 * items, "greedy"
    if samples is not None and samples > 1:
        return np.asarray(1e4 * (values * (1 - values)).sum(axis=-1) / ((samples - 1) * items**2)), "samples"
    if outcome.shape[-2] > 1:
        seeds = judged.sum(axis=-2, keepdims=True)
        off = np.where(judged, values - values.sum(axis=-2, keepdims=True) / np.maximum(seeds, 1), 0.0)
        between = (off**2).sum(axis=-2, keepdims=True) / np.where(seeds > 1, seeds - 1, np.nan)
        there = np.isfinite(between) & judged
        of_items = mean(np.where(there, between, np.nan), axis=-1)  # items with a second run speak for the others
        return np.asarray(1e4 * of_items / items), "replicates"
    off = np.where(judged, values - values.sum(axis=-1, keepdims=True) / np.maximum(count, 1)[..., None], 0.0)
    return np.asarray(1e4 * (off**2).sum(axis=-1) / (items * np.where(count > 1, count - 1, np.nan))), "bound"


def item_noise(cube: xr.DataTree, *, samples: int | None = None) -> pd.DataFrame:
    """The sampling variance of a run's risk, for each behavior before and after training.

    Effects are paired within organism, and runs of an organism and seed share one evaluation before training: it
    cancels in every contrast, so a contrast of two runs has twice the variance of the row ``after``, while the
    change of risk of one run has the sum of both rows. Answers of different runs are taken as independent;
    random numbers that they share make their contrasts less noisy than this.

    Columns: ``behavior``; ``evaluation`` (after, before); ``method`` (see `sampling_variance`); ``unbiased``: False
    where it is an upper bound; ``samples`` (NaN unknown); ``items``: mean number judged; ``runs`` (after) or
    evaluations (before; where they are one for all seeds, each counts once); ``variance_pp2`` of a run, averaged
    over the runs of an organism, then over organisms, with its 95% t interval ``low, high``; ``sd_pp``.

    Args:
        cube: a whole cube, with its group ``items``.
        samples: answers to each item; read from ``attrs["evaluation"]`` where None (`samples_of`).

    Raises:
        StudyError: no group ``items`` or no risk items; what `contrasts` refuses.
    """
    samples = samples_of(cube) if samples is None else samples

    def rows(block: Block) -> pd.DataFrame:
        lines = []
        for when in ("after", "before"):
            outcome = outcomes(cube, block, when)
            variance, method = sampling_variance(outcome, samples)
            over = tuple(range(1, variance.ndim))
            interval = t_interval(mean(variance, over))
            lines.append(
                {
                    "behavior": block.behavior,
                    "evaluation": when,
                    "method": method,
                    "unbiased": method in ("samples", "greedy"),
                    "samples": np.nan if samples is None else samples,
                    "items": float(np.isfinite(outcome).sum(axis=-1)[np.isfinite(variance)].mean()),
                    "runs": int(np.isfinite(variance).sum()),
                    "variance_pp2": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "sd_pp": float(np.sqrt(interval.estimate)),
                }
            )
        return pd.DataFrame(lines)

    return gather(cube, rows)


def outcomes(cube: xr.DataTree, block: Block, when: str) -> FloatArray:
    """Outcomes of the risk items, [organism, *levels, seed, item]; axes that they do not depend on have size 1."""
    if not isinstance(cube, xr.DataTree) or "items" not in cube.children:
        raise StudyError("the cube has no group items; give the whole cube, not its root alone")
    group = cube["items"].to_dataset()
    outcome = aligned(block, group[f"outcome_{when}"], root(cube))
    place = {str(name): i for i, name in enumerate(root(cube)["organism"].values)}
    places = [place[own] for own in block.organisms]
    kind = group["kind"].transpose("organism", "item").values[places]
    risk = (kind == "risk").reshape(len(kind), *(1,) * (outcome.ndim - 2), -1)
    if not risk.any():
        raise StudyError(f"{block.behavior}: the group items has no item of kind risk")
    outcome = np.where(risk, outcome, np.nan)
    if when == "after":
        outcome = np.where(np.isfinite(block.response)[..., None], outcome, np.nan)
    return outcome
