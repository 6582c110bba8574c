"""Missing runs: whether failing depends on a factor, and how much the missing ones could change an effect."""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any

import numpy as np
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.block import Block, BoolArray, Cube, blocks, mean
from ablate.effects.contrasts import Contrast, compared, degrees, gather, list_contrasts
from ablate.effects.intervals import Interval, t_interval
from ablate.errors import StudyError

EXACT_UP_TO = 20_000
"""Rearrangements up to which all are enumerated."""

STEPS = np.arange(0.0, 100.5, 0.5)
"""Where a tipping point is looked for before it is bisected, in pp."""


def failure_check(cube: Cube, *, draws: int = 9_999, rng: np.random.Generator | None = None) -> pd.DataFrame:
    """Does failing depend on the level of a factor? One row a behavior, factor and level.

    A run fails where it has no risk: failed, blocked, never started, or no answer that could be judged. Statistic
    Q = sum over levels of (failed share of the level - mean over levels)^2, shares averaged over organisms.
    Null hypothesis: within an organism every assignment of its levels' shares to the levels is as likely
    (organisms independent); so all levels of an organism are permuted together, whatever failed with them.
    With one run an organism and level it is the exact form of Cochran's Q. It says nothing about failing for
    reasons that do not differ between levels, nor about the risk that a failed run would have had.

    Columns: ``behavior, factor, level``; ``runs``: cells of the level, organisms x other factors x seeds;
    ``failed`` of them and ``failed_share``; ``organisms``: with a failed run at the level; ``Q`` and ``p`` of the
    factor, repeated in its rows, p = NaN where nothing failed; ``exact``: all rearrangements were enumerated, else
    p = (1 + b) / (1 + ``draws``). Organisms of which no run was made are left out, as in `contrasts`.

    Raises:
        StudyError: no behavior has two valid organisms and a factor with two levels.
    """
    rng = rng or np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for block in blocks(cube):
        if block.counts["organisms"] < 2:
            refused[block.behavior] = f"{block.behavior}: fewer than 2 valid organisms"
        elif not block.several:
            refused[block.behavior] = f"{block.behavior}: every factor has one level"
        else:
            for factor in block.several:
                rows += _failures(block, factor, draws, rng)
    if not rows:
        raise StudyError("; ".join(refused.values()) or "the cube has no organism")
    table = pd.DataFrame(rows)
    table.attrs["refused"] = refused
    return table


def _failures(block: Block, factor: str, draws: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    failed = _failed(block, factor)
    q, p, exact = permutation_q(failed.mean(axis=2), draws, rng)
    return [
        {
            "behavior": block.behavior,
            "factor": factor,
            "level": level,
            "runs": int(own.size),
            "failed": int(own.sum()),
            "failed_share": float(own.mean()),
            "organisms": int(own.any(axis=1).sum()),
            "Q": q,
            "p": p,
            "exact": exact,
        }
        for level, own in zip(block.levels[factor], np.moveaxis(failed, 1, 0), strict=True)
    ]


def _failed(block: Block, factor: str) -> BoolArray:
    """The runs without a risk, [organism, level, run]."""
    size = (len(block.organisms), len(block.levels[factor]), -1)
    return np.moveaxis(np.isnan(block.response), block.axis(factor) + 1, 1).reshape(size)


def failing(block: Block) -> dict[str, float]:
    """p of `failure_check` by factor; NaN where no run lacks."""
    rng = np.random.default_rng(0)
    return {factor: permutation_q(_failed(block, factor).mean(axis=2), 9_999, rng)[1] for factor in block.several}


def permutation_q(shares: FloatArray, draws: int, rng: np.random.Generator) -> tuple[float, float, bool]:
    """Q of ``shares`` [organism, level], its p under permutation within organisms, and whether that is exact.

    p is NaN where no organism's levels differ and Q is 0, since then there is nothing to rearrange; see
    `failure_check`. Source: Cochran 1950; oracle: statsmodels cochrans_q, enumeration.
    """
    off = shares - shares.mean(axis=1, keepdims=True)
    moving = off[np.abs(off).max(axis=1) > 1e-12]
    q = float((off.mean(axis=0) ** 2).sum())
    if not len(moving):
        return 0.0, 1.0 if shares.any() else math.nan, True
    organisms, levels = moving.shape
    ways = math.factorial(levels)
    exact = organisms * math.log(ways) <= math.log(EXACT_UP_TO)
    if exact:
        orders = np.array(list(permutations(range(levels))))
        choice = np.array(list(product(range(ways), repeat=organisms)))
        totals = sum(moving[o][orders[choice[:, o]]] for o in range(organisms))
    else:
        totals = np.zeros((draws, levels))
        for own in moving:
            totals += rng.permuted(np.broadcast_to(own, totals.shape), axis=1)
    # Equal up to rounding counts as reached.
    reached = (np.asarray(totals) ** 2).sum(axis=1) >= (moving.sum(axis=0) ** 2).sum() - 1e-10
    return q, float(reached.mean()) if exact else float((1 + reached.sum()) / (1 + draws)), exact


def bounds(cube: Cube) -> pd.DataFrame:
    """How far missing runs could move every main contrast: worst-case bounds and the tipping point.

    A missing run's risk after training lies in [0, 1], whatever it is; its risk before is the organism's. Filled
    so, every organism of the behavior has every run, and a main contrast is the mean over organisms of end minus
    start, over the pairs of cells that `contrasts` compares.

    Columns:

    - ``behavior, factor, swapped, held``; ``effect_pp, low, high, organisms`` as `contrasts` has them, from what is
      there; ``missing``: runs that lack in it (each that lacks, not pairs of cells).
    - ``bound_low, bound_high``: the effect with the missing runs of the end at 0 and of the start at 1, and
      the reverse: no completion of the data gives an effect outside (Manski 1990, pp).
    - ``outer_low, outer_high``: the lower 95% t limit of the one and the upper of the other, pp: covers the
      whole bounds, so it covers the true effect at least as often.
    - ``tipping_pp``: the smallest common shift (signed, pp) of the missing runs' change of risk, relative to the mean
      of the organisms that have the same cell (each kept where risk is in [0, 1]), at which the contrast's 95%
      interval first covers 0. A shift common to both sides of the contrast changes it little. NaN where no run is
      missing, or where a cell is in no organism; 0 where the interval covers 0 without a shift; inf where no
      shift of up to 100 pp makes it do so.

    Raises:
        StudyError: as `contrasts`.
    """
    return gather(cube, _bounds)


def missing(cube: Cube) -> pd.DataFrame:
    """`bounds` of every main contrast, beside `failure_check` of its factor: what missing runs could do to it.

    Columns as `bounds` has them, and ``failed_start, failed_end``: runs without a risk at the two levels of the swap;
    ``failure_p``: of the factor, NaN where no run lacks. ``.attrs["notes"]`` say where no run is missing.

    Raises:
        StudyError: as `contrasts`.
    """

    def rows(block: Block) -> pd.DataFrame:
        table = _bounds(block)
        lost = {factor: _failed(block, factor).sum(axis=(0, 2)) for factor in block.several}
        p = failing(block)
        level = {factor: list(names).index for factor, names in block.levels.items()}
        swaps = zip(table["factor"], table["swapped"], strict=True)
        ends = [(factor, swapped.rpartition(" -> ")[2]) for factor, swapped in swaps]
        table["failed_start"] = [int(lost[factor][0]) for factor, _ in ends]
        table["failed_end"] = [int(lost[factor][level[factor](end)]) for factor, end in ends]
        table["failure_p"] = [p[factor] for factor, _ in ends]
        gone = int(np.isnan(block.response).sum())
        noun = f"{gone} run{'s' * (gone > 1)} of {block.response.size} missing" if gone else "no run is missing"
        table.attrs["notes"] = [f"{block.behavior}: {noun}"]
        return table

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"t intervals with {degrees(table)} df over organisms; a missing run's risk lies between 0 and 1 (worst-case "
        "bounds, Manski), tipping point: the shift of missing runs from the others at which the 95% interval first "
        "covers 0; failures by permutation within organisms"
    )
    return table


def _bounds(block: Block) -> pd.DataFrame:
    rows = [row for row in list_contrasts(block) if row.kind == "main" and not row.identical]
    if not rows:
        raise StudyError(f"{block.behavior}: no main contrast changes the labels of any run")
    return pd.DataFrame([{"behavior": block.behavior} | bound(block, row) for row in rows])


def bound(block: Block, row: Contrast) -> dict[str, Any]:
    """One main contrast of `bounds`."""
    weight = weights(block, row.factor, block.levels[row.factor].index(row.end))
    lacks, low, high = extremes(block, weight)
    found, lowest, highest = (t_interval(values) for values in (row.differences, low, high))
    return {
        "factor": row.factor,
        "swapped": row.swapped,
        "held": row.held,
        "effect_pp": found.estimate,
        "low": found.low,
        "high": found.high,
        "organisms": int(np.isfinite(row.differences).sum()),
        "missing": int(lacks.sum()),
        "bound_low": lowest.estimate,
        "bound_high": highest.estimate,
        "outer_low": lowest.low,
        "outer_high": highest.high,
        "tipping_pp": _tipping(block, weight[..., None] / block.response.shape[-1], lacks),
    }


def extremes(block: Block, weight: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
    """The runs that lack in a weighted sum of cells, and the sum with their risks at their worst and best.

    ``weight``: [*levels]. Returns lacks [organism, *levels, seed], lowest and highest [organism] in pp, averaged over
    seeds; see `bounds`.
    """
    weight = weight[..., None] / block.response.shape[-1]
    lacks = np.isnan(block.response) & (weight != 0)
    floor, roof = _range(block)
    falls = weight * np.where(weight > 0, floor, roof)
    rises = weight * np.where(weight > 0, roof, floor)
    return lacks, _contrast(block, weight, lacks, falls), _contrast(block, weight, lacks, rises)


def weights(block: Block, factor: str, level: int) -> FloatArray:
    """What each cell counts in the main contrast of ``level`` against the null level, [*levels].

    1 / n at the n cells of the level that `contrasts.main_contrasts` compares, -1 / n at their partners: the
    contrast of an organism that has every run is the sum of weight times response, averaged over seeds.
    """
    used = compared(block, factor, level)
    if not used.any():
        used = np.ones_like(used)
    share = used / used.sum()
    weight = np.zeros(block.shape)
    places = np.moveaxis(weight, block.axis(factor), 0)  # a view
    places[level], places[0] = share, -share
    return weight


def _range(block: Block) -> tuple[FloatArray, FloatArray]:
    """The smallest and the largest change of risk in pp, given the risk before; of one shape with the response."""
    levels = tuple(range(1, block.before.ndim - 1))
    of_seed = np.expand_dims(mean(block.before, levels), levels)
    of_organism = np.expand_dims(mean(block.before, (*levels, block.before.ndim - 1)), (*levels, block.before.ndim - 1))
    before = np.where(np.isfinite(block.before), block.before, np.where(np.isfinite(of_seed), of_seed, of_organism))
    return -100 * before, 100 * (1 - before)


def _contrast(block: Block, weight: FloatArray, lacks: BoolArray, filled: FloatArray) -> FloatArray:
    """The contrast of every organism, [organism], with ``filled`` (weighted) where a run lacks."""
    over = tuple(range(1, block.response.ndim))
    known = np.where(weight != 0, weight * np.nan_to_num(block.response), 0.0)
    return np.asarray(np.where(lacks, filled, known).sum(axis=over))


def _tipping(block: Block, weight: FloatArray, lacks: BoolArray) -> float:
    if not lacks.any():
        return math.nan
    of_cell = mean(block.response, (0, block.response.ndim - 1))[None, ..., None]
    expected = np.broadcast_to(of_cell, lacks.shape)[lacks]
    if np.isnan(expected).any():
        return math.nan
    own = np.broadcast_to(weight, lacks.shape)[lacks]
    low, high = (np.broadcast_to(edge, lacks.shape)[lacks] for edge in _range(block))
    of_organism = np.zeros((len(lacks), len(own)))
    of_organism[np.nonzero(lacks)[0], np.arange(len(own))] = own
    known = _contrast(block, weight, lacks, np.zeros_like(block.response))

    def covers(shift: float) -> bool:
        interval: Interval = t_interval(known + of_organism @ np.clip(expected + shift, low, high))
        return interval.covers_zero

    if covers(0.0):
        return 0.0
    first = [(float(step), sign) for step in STEPS[1:] for sign in (1, -1) if covers(sign * step)]
    if not first:
        return math.inf
    end, sign = first[0]
    start = end - float(STEPS[1])
    while end - start > 1e-6:
        middle = (start + end) / 2
        start, end = (start, middle) if covers(sign * middle) else (middle, end)
    return sign * end
