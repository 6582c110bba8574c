"""The cells of a design: the mean change of risk in each, with intervals for its size and for comparing cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.block import NULLS, Block, BoolArray, Cube, at, mean
from ablate.effects.contrasts import gather
from ablate.effects.dose import distinct
from ablate.effects.intervals import Interval, mean_interval
from ablate.errors import StudyError

TAKEN = frozenset({"organism", "effect_pp", "low", "high", "within_low", "within_high", "organisms", "identical",
                   "dose", "u", "eta", "scored", "what", "low_edge", "high_edge", "share", "count", "x", "y",
                   "centroid", "pooled"})  # fmt: skip
"""Columns of tables of cells, which no factor can be called."""


def cell_means(cube: Cube) -> pd.DataFrame:
    """Mean change of risk of every cell, one row a label shift and selector at each setting of the other factors.

    A cell's value in an organism is its risk_delta (after training minus before, so paired within organism) averaged
    over training seeds. Columns: ``behavior``, other swapped factors, ``label_shift``, ``selector``, and

    - ``effect_pp, low, high``: mean over organisms with its 95% t interval: how large the change is.
    - ``within_low, within_high``: the within-organism interval of the same mean, for comparing cells: each organism's
      mean over the cells of the setting is taken off, and the variance multiplied by C / (C - 1) for C cells
      (Morey 2008, after Cousineau 2005). Only organisms with all of these cells count; cells whose labels are
      identical to those of another count once. The paired interval of the difference of two cells is sqrt(2) times
      as long, exactly so where there are two.
    - ``organisms`` with the cell, and ``identical``: whether its labels are those of the null label shift or selector.

    NaN where no organism has the cell; no limits with one organism.

    Raises:
        StudyError: no behavior has a valid organism and a risk that varies.
    """
    table = gather(cube, _rows, least=1)
    table.attrs["methods"] = "mean change of risk within organism, 95% t interval over organisms"
    return table


def setting(block: Block, cell: tuple[int, ...]) -> dict[str, str]:
    """Levels of the swapped factors other than label shift and selector; ``cell`` has an index for each other factor.

    They are what splits a table of cells into one a setting.

    Raises:
        StudyError: a factor is called like a column of such a table.
    """
    others = zip(list(block.levels)[2:], cell, strict=True)
    found = {factor: block.levels[factor][level] for factor, level in others if factor in block.several}
    if taken := sorted(TAKEN & found.keys()):
        raise StudyError(f"a factor is called '{taken[0]}', like a number of this table; rename it")
    return found


def _rows(block: Block) -> pd.DataFrame:
    cells, own = mean(block.response, axis=-1), distinct(block, list(NULLS))
    lines: list[dict[str, Any]] = []
    for other in np.ndindex(block.shape[2:]):
        values, once = at(cells, other, after=3), at(own, other, after=2)
        compared = _normed(values, once)
        count = int(once.sum())
        for shift, selector in np.ndindex(values.shape[1:]):
            found = mean_interval(values[:, shift, selector])
            within = mean_interval(compared[:, shift, selector])
            half = (within.high - within.estimate) * np.sqrt(count / (count - 1)) if count > 1 else np.nan
            lines.append(
                {
                    "behavior": block.behavior,
                    **setting(block, other),
                    "label_shift": block.levels["label_shift"][shift],
                    "selector": block.levels["selector"][selector],
                    **_limits(found),
                    "within_low": found.estimate - half,
                    "within_high": found.estimate + half,
                    "organisms": int(np.isfinite(values[:, shift, selector]).sum()),
                    "identical": not once[shift, selector],
                }
            )
    return pd.DataFrame(lines)


def _normed(values: FloatArray, once: BoolArray) -> FloatArray:
    """Cells [organism, label_shift, selector] less their mean over an organism, of organisms that lack none."""
    there = once & np.isfinite(values).any(axis=0)
    complete = np.asarray(np.isfinite(values[:, there]).all(axis=1))
    level = mean(values, axis=(1, 2), where=np.broadcast_to(there, values.shape))
    return np.where(complete[:, None, None], values - level[:, None, None], np.nan)


def _limits(found: Interval) -> dict[str, float]:
    return {"effect_pp": found.estimate, "low": found.low, "high": found.high}
