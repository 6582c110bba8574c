"""Single organisms and cells behind a mean or a slope: what a plot shows beside the numbers of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, Cube, at, mean
from ablate.effects.cells import setting
from ablate.effects.contrasts import gather, main_contrasts
from ablate.effects.dose import distinct, numeric, variable
from ablate.effects.intervals import mean_interval
from ablate.errors import StudyError


def organism_effects(cube: Cube) -> pd.DataFrame:
    """Every main effect in every organism, and its mean: the differences whose mean and interval `contrasts` gives.

    A main effect is the swap of a level against the null level of its factor, paired within organism and averaged over
    the other factors, as in the ``main`` rows of `contrasts`; structural zeros have no row. Columns: ``behavior,
    factor, end, swapped``; ``organism``, empty in the row of the mean, which is the last of its effect; ``effect_pp``
    (NaN where the organism lacks the runs), in the row of the mean with its 95% t limits ``low, high`` and
    ``organisms``, the number that it is over. ``.attrs["invalid"]`` are the names of the organisms that are not valid.

    Raises:
        StudyError: no behavior has a valid organism and a main effect.
    """

    def rows(block: Block) -> pd.DataFrame:
        lines: list[dict[str, Any]] = []
        for contrast in (own for factor in block.several for own in main_contrasts(block, factor)):
            if contrast.identical:
                continue
            about = {"behavior": block.behavior, "factor": contrast.factor, "end": contrast.end}
            about["swapped"] = contrast.swapped
            found = mean_interval(contrast.differences)
            count = int(np.isfinite(contrast.differences).sum())
            lines += [
                {**about, "organism": name, "effect_pp": float(value), "low": np.nan, "high": np.nan, "organisms": 1}
                for name, value in zip(block.organisms, contrast.differences, strict=True)
            ]
            lines.append({**about, "organism": "", **_effect(found), "organisms": count})
        if not lines:
            raise StudyError(f"{block.behavior}: no factor has two levels that differ, there is no effect to show")
        return pd.DataFrame(lines)

    table = gather(cube, rows, least=1)
    data = cube if isinstance(cube, xr.Dataset) else cube.to_dataset()
    table.attrs["invalid"] = [str(name) for name in data["organism"].values[data["valid_organism"].values != 1]]
    table.attrs["methods"] = "within-organism main effects, 95% t interval over organisms"
    return table


def cells_by(cube: Cube, name: str) -> pd.DataFrame:
    """Effect and dose of every cell, each relative to the null cell of its organism: what `dose_response` fits.

    ``name`` is a variable of the cube, or ``g``: the labels' risk less the organism's own on the same prompts,
    m_TS - m_P in pp, known before training (see `prediction`). The null cell has the null label shift and selector at
    the same setting of the other factors; differences are within organism and training seed, averaged over seeds.
    Cells whose labels are those of a null level have no row, nor have the null cells, which are 0 and 0.

    Rows: a cell in an organism; ``organism`` is empty in the row of the cell's mean over organisms, the last of its
    cell. Columns: ``behavior``, other swapped factors, ``label_shift, selector, organism, dose, effect_pp``, in the
    row of the mean with the 95% t limits of the effect, ``low, high``, and ``organisms``.

    Raises:
        StudyError: an unknown variable, one that is text, NaN or infinite, or one level of every factor.
    """
    for column in ("m_ts", "m_p") if name == "g" else (name,):
        numeric(cube, column)

    def rows(block: Block) -> pd.DataFrame:
        values = 100 * (variable(cube, block, "m_ts") - variable(cube, block, "m_p")) if name == "g" else None
        dose, effect = _from_null(block, variable(cube, block, name) if values is None else values)
        own = distinct(block)
        own[:1, :1] = False
        lines = [line for cell in np.argwhere(own) for line in _cell(block, tuple(cell), dose, effect)]
        if not lines:
            raise StudyError(f"{block.behavior}: no cell beside the null one has both an effect and {name}")
        return pd.DataFrame(lines)

    return gather(cube, rows, least=1)


def _cell(block: Block, cell: tuple[int, ...], dose: FloatArray, effect: FloatArray) -> list[dict[str, Any]]:
    x, y = (at(values, cell) for values in (dose, effect))
    there = np.isfinite(x) & np.isfinite(y)
    if not there.any():
        return []
    names = [block.levels[factor][level] for factor, level in zip(block.levels, cell, strict=True)]
    about = {"behavior": block.behavior, **setting(block, cell[2:]), "label_shift": names[0], "selector": names[1]}
    lines = [
        {**about, "organism": block.organisms[i], "dose": x[i], "effect_pp": y[i], "low": np.nan, "high": np.nan}
        for i in np.flatnonzero(there)
    ]
    total = {**about, "organism": "", "dose": float(x[there].mean()), **_effect(mean_interval(y[there]))}
    return [{**line, "organisms": 1} for line in lines] + [{**total, "organisms": int(there.sum())}]


def _from_null(block: Block, dose: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Dose and effect less those of the null cell, [organism, *levels], over the seeds that have all four numbers."""
    there = np.isfinite(dose) & np.isfinite(block.response)
    there = there & there[:, :1, :1]
    pair = (np.where(there, values - values[:, :1, :1], np.nan) for values in (dose, block.response))
    own, effect = (mean(values, axis=-1) for values in pair)
    return own, effect


def _effect(found: Any) -> dict[str, float]:
    return {"effect_pp": found.estimate, "low": found.low, "high": found.high}
