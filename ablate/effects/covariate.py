"""Effects at equal covariates: Freedman-Lane tests with whole organisms as the unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.block import Block, Cube
from ablate.effects.contrasts import Contrast, gather, list_contrasts
from ablate.effects.dose import numeric, variable
from ablate.effects.intervals import NOTHING, t_interval
from ablate.effects.missing import weights
from ablate.effects.signflip import sign_flip
from ablate.errors import StudyError

COLLINEAR = 1e-6
"""Tolerance (1 - R^2 of the factor on the covariates) below which an effect cannot be told from them."""


class Fit(NamedTuple):
    """A coefficient with what its inference rests on: ``scores`` [organism] of the reduced model, ``values``
    [organism], the coefficient's pseudo-values, and its ``tolerance``."""

    coefficient: float
    scores: FloatArray
    values: FloatArray
    tolerance: float


def freedman_lane(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    z: npt.ArrayLike,
    groups: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    permutations: int = 10_000,
    *,
    within: npt.ArrayLike | None = None,
) -> tuple[float, float]:
    """The effect of ``x`` on ``y`` given covariates ``z``, and its sign-flip p over organisms.

    Model: y = intercept[within] + beta x + z delta + error. Estimand: beta, the change of y for a unit of x at equal
    z, one slope delta for all organisms; beta may differ between organisms, then it is their mean (weighted by how
    much x varies given z).

    Freedman and Lane: fit the reduced model without x, rearrange its residuals e, add them back, refit. Here the
    rearrangement flips the sign of all residuals of an organism together. Exchangeability: under beta = 0 the
    vector of an organism's errors is as likely as its negative, organisms independent; anything goes within an
    organism (seeds, cells, its own response to x). With x~ = x less its fit on z, the coefficient after flips s is
    sum_g s_g (x~_g . e_g) / x~.x~ , since x~ is orthogonal to the reduced model: so the test is `sign_flip` of the
    organisms' scores x~_g . e_g, exact given delta and asymptotic in that delta is estimated.

    Args:
        y: [n], x: [n], z: [n, covariates] or [n]; rows with a NaN are left out.
        groups: [n], the organism of each row.
        rng, permutations: for random flips, beyond 14 organisms.
        within: [n], rows that share an intercept, each within one organism; the organisms where None.

    Returns:
        The coefficient and p; the smallest p is 2 / 2^J.

    Raises:
        StudyError: fewer than two organisms, a y or an x that does not vary within organisms, an x that the
            covariates determine; no more rows than parameters.

    Source: Freedman and Lane 1983; Winkler et al. 2014 (whole-block sign flips).
    """
    found = fit(y, x, z, groups, within=within)
    return found.coefficient, float(sign_flip(found.scores, draws=permutations, rng=rng).p[0])


def fit(
    y: npt.ArrayLike, x: npt.ArrayLike, z: npt.ArrayLike, groups: npt.ArrayLike, *, within: npt.ArrayLike | None = None
) -> Fit:
    """Least squares of `freedman_lane` and what each organism brings to it; the same arguments and errors.

    Pseudo-values: J beta - (J - 1) beta_-g, beta_-g from the other organisms, moved so that their mean is beta. (With
    one pair an organism intervals of the linearized coefficient covered 89-93% at J = 6..12.)
    """
    y, x = np.asarray(y, float), np.asarray(x, float)
    z = np.asarray(z, float).reshape(len(y), -1)
    used = np.isfinite(y) & np.isfinite(x) & np.isfinite(z).all(axis=1)
    codes, names = pd.factorize(np.asarray(groups)[used])
    strata, intercepts = (codes, names) if within is None else pd.factorize(np.asarray(within)[used])
    if len(names) < 2:
        raise StudyError(f"{len(names)} organisms have every covariate, at least 2 are needed")
    y, x, z = _centered(y[used], strata), _centered(x[used], strata), _centered(z[used], strata)
    if y.size <= len(intercepts) + z.shape[1] + 1:
        raise StudyError(f"{y.size} rows for {len(intercepts)} intercepts, {z.shape[1]} covariates and one effect")
    if (square := float(x @ x)) < 1e-12:
        raise StudyError("the factor does not vary within organisms")
    if float(y @ y) < 1e-20:
        raise StudyError("the response does not vary within organisms: there is no effect to tell")
    rest, e = _residual(x, z), _residual(y, z)
    tolerance = float(rest @ rest) / square
    if tolerance < COLLINEAR:
        raise StudyError("the covariates determine the level of the factor: no effect is left at equal covariates")
    count, scores = len(names), np.zeros(len(names))
    np.add.at(scores, codes, rest * e)
    without = np.array([_coefficient(y[codes != g], x[codes != g], z[codes != g]) for g in range(count)])
    beta = float(scores.sum()) / float(rest @ rest)
    return Fit(beta, scores, beta - (count - 1) * (without - without.mean()), tolerance)


def adjusted_contrasts(
    cube: Cube, covariates: Sequence[str], *, rng: np.random.Generator | None = None, permutations: int = 10_000
) -> pd.DataFrame:
    """Every main contrast at equal covariates (label length, KL, ...), beside the same contrast without them.

    Rows are the pairs that `contrasts` compares (organism, cell, seed), each with an intercept of its own, so the
    regression is of differences in risk on differences in the covariates. Covariates that the swap itself changes
    are on the way from swap to effect: the adjusted contrast is then a direct effect under a linear model without
    unmeasured causes of both, not the effect of the swap.

    Columns: ``behavior, factor, swapped, held, covariates``; ``effect_pp``: mean over pairs without covariates;
    ``adjusted_pp, low, high``: at equal covariates, 95% jackknife t with J - 1 df; ``p`` (`freedman_lane`) and
    ``p_adjusted``, max-T over the rows of a behavior; ``tolerance``: share of the swap's variation that the
    covariates leave; ``organisms``; ``pairs``; ``note``: why a number is not there.

    Raises:
        StudyError: no covariate, or one that is unknown, text or NaN; what `contrasts` refuses.
    """
    if not covariates or len(set(covariates)) < len(covariates):
        raise StudyError(f"covariates: different names are needed, not {', '.join(covariates) or 'none'}")
    for name in covariates:
        numeric(cube, name)

    def rows(block: Block) -> pd.DataFrame:
        arrays = [variable(cube, block, name) for name in covariates]
        found = [row for row in list_contrasts(block) if row.kind == "main" and row.testable]
        if not found:
            raise StudyError(f"{block.behavior}: no main contrast is there in two organisms")
        lines, scores = zip(*(_adjusted(block, row, arrays) for row in found), strict=True)
        tests = sign_flip(np.column_stack(scores), draws=permutations, rng=rng)
        table = pd.DataFrame(lines).assign(p=tests.p, p_adjusted=tests.p_adjusted, covariates=", ".join(covariates))
        table.insert(0, "behavior", block.behavior)
        return table

    return gather(cube, rows)


def _adjusted(block: Block, row: Contrast, covariates: Sequence[FloatArray]) -> tuple[dict[str, Any], FloatArray]:
    level, axis = block.levels[row.factor].index(row.end), block.axis(row.factor)
    cells = np.take(weights(block, row.factor, level), level, axis) != 0
    both = [
        [np.take(array, side, axis + 1)[:, cells].reshape(-1) for side in (0, level)]
        for array in (block.response, *covariates)
    ]
    start, end = np.array(both).transpose(1, 0, 2)
    there = np.isfinite(start).all(axis=0) & np.isfinite(end).all(axis=0)
    organism = np.repeat(np.arange(len(block.organisms)), there.size // len(block.organisms))[there]
    start, end = start[:, there], end[:, there]
    table = np.concatenate([start, end], axis=1)
    x = np.repeat([0.0, 1.0], start.shape[1])
    pair, groups = np.tile(np.arange(start.shape[1]), 2), np.tile(organism, 2)
    scores = np.full(len(block.organisms), np.nan)
    coefficient, tolerance, interval, note = np.nan, np.nan, NOTHING, ""
    try:
        found = fit(table[0], x, table[1:].T, groups, within=pair)
    except StudyError as fault:
        note = str(fault)
    else:
        coefficient, tolerance, interval = found.coefficient, found.tolerance, t_interval(found.values)
        scores[np.unique(organism)] = found.scores
    line = {
        "factor": row.factor,
        "swapped": row.swapped,
        "held": row.held,
        "effect_pp": float((end - start)[0].mean()) if there.any() else np.nan,
        "adjusted_pp": coefficient,
        "low": interval.low,
        "high": interval.high,
        "tolerance": tolerance,
        "organisms": len(np.unique(organism)),
        "pairs": int(there.sum()),
        "note": note,
    }
    return line, scores


def _centered(values: FloatArray, strata: npt.NDArray[np.intp]) -> FloatArray:
    table = pd.DataFrame(values)
    return np.asarray(table - table.groupby(strata).transform("mean")).reshape(values.shape)


def _coefficient(y: FloatArray, x: FloatArray, z: FloatArray) -> float:
    rest = _residual(x, z)
    square = float(rest @ rest)
    return float(rest @ y) / square if square > COLLINEAR * float(x @ x) else float("nan")


def _residual(values: FloatArray, z: FloatArray) -> FloatArray:
    if not z.size:
        return values
    scale = np.sqrt((z**2).sum(axis=0))
    scaled = z / np.where(scale > 0, scale, 1.0)
    return np.asarray(values - scaled @ np.linalg.lstsq(scaled, values, rcond=1e-10)[0])
