"""Dose-response: how the effect follows a measured dose (nats of KL, embedding shift, ...), within organisms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, BoolArray, Cube, mean, root
from ablate.effects.contrasts import degrees, gather
from ablate.effects.families import benjamini_hochberg
from ablate.effects.intervals import t_interval
from ablate.effects.signflip import sign_flip
from ablate.errors import StudyError, did_you_mean

PP = "risk_delta"
"""The response that is in pp; every other one is in its own unit."""

MOST = 12
"""Measures that `lmg` takes: it fits 2^p regressions."""


def dose_response(cube: Cube, dose: str, response: str = PP) -> pd.DataFrame:
    """How much effect a unit of dose brings, one row a behavior: effects per nat where the dose is a KL.

    Effect e and dose d of a cell are relative to the null cell (the null label shift and selector at the same
    setting of the other factors), paired within organism and seed, averaged over seeds. Cells whose labels are
    identical to those of another cell count once. The dose is observed, not assigned: a slope is an association
    over the declared cells, whatever else they differ in; cells of equal dose are the design-based answer.

    Columns (the effect is in pp for ``risk_delta``, else in the unit of ``response``):

    - ``slope, low, high, p``: mean over organisms of the least-squares slope through the null cell,
      sum_c d e / sum_c d^2, per unit of dose, with 95% t interval and sign-flip p over organisms.
    - ``curvature, curvature_low, curvature_high, curvature_p``: the same for c of e = b d + c d^2; NaN where an
      organism has fewer than two different doses.
    - ``p_adjusted, curvature_p_adjusted``: Benjamini-Hochberg over all these p of the table: it explores.
    - ``spearman, spearman_low, spearman_high``: mean over organisms of the rank correlation over all cells, the null
      cells included.
    - ``r2``: of the regression of the cells' mean effects on their mean doses (with an intercept, unweighted): the
      share of the variance between cells that the dose explains, noise of the means included. ``r2_predicted``:
      1 - PRESS / SS, each cell predicted from the others; may be negative. NaN below three cells.
    - ``cells``: without the null cells; ``organisms``: with a slope; ``dose_max``: largest |mean dose|.

    Raises:
        StudyError: an unknown variable, one that is text or NaN, a dose that does not vary within two
            organisms, a response that does not vary; what `contrasts` refuses.
    """
    numeric(cube, dose)
    numeric(cube, response)

    def row(block: Block) -> pd.DataFrame:
        (d, e), null = from_null(block, variable(cube, block, dose), response_of(cube, block, response))
        slopes, curves = slope(d, e), curvature(d, e)
        if np.isfinite(slopes).sum() < 2:
            raise StudyError(f"{block.behavior}: {dose} does not vary within two organisms that have {response} too")
        if np.nanmax(np.abs(e)) < 1e-12:
            raise StudyError(f"{block.behavior}: {response} is the same in every cell of an organism")
        r2, predicted = _between(mean(d, 0), mean(e, 0))
        line: dict[str, Any] = {"behavior": block.behavior, "dose": dose, "response": response}
        for name, values in (("slope", slopes), ("curvature", curves), ("spearman", spearman(d, e))):
            interval = t_interval(values)
            prefix = "" if name == "slope" else f"{name}_"
            line |= {name: interval.estimate, f"{prefix}low": interval.low, f"{prefix}high": interval.high}
            if name != "spearman":
                line[f"{prefix}p"] = float(sign_flip(values).p[0])
        there = np.isfinite(d).any(axis=0) & ~null
        line |= {"r2": r2, "r2_predicted": predicted, "cells": int(there.sum())}
        line |= {"organisms": int(np.isfinite(slopes).sum()), "dose_max": float(np.nanmax(np.abs(mean(d, 0))))}
        return pd.DataFrame([line])

    table = adjusted(gather(cube, row))
    table.attrs["methods"] = (
        f"least-squares slopes of each organism through its null cell, t intervals with {degrees(table)} df and "
        "sign-flip tests over organisms, BH over all slopes and curvatures of the table; the dose is observed, so "
        "slopes are associations over the declared cells"
    )
    return table


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `dose_response` with their p adjusted as one family."""
    tests = benjamini_hochberg(table[["p", "curvature_p"]])
    return table.assign(p_adjusted=tests[:, 0], curvature_p_adjusted=tests[:, 1])


def slope(x: FloatArray, y: FloatArray) -> FloatArray:
    """Least-squares slope through 0 of every row, [organism], of [organism, cell]; NaN where x is 0 throughout."""
    used = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(used, x, 0.0), np.where(used, y, 0.0)
    square = (x**2).sum(axis=1)
    return np.where(square > 0, (x * y).sum(axis=1) / np.where(square > 0, square, 1.0), np.nan)


def curvature(x: FloatArray, y: FloatArray) -> FloatArray:
    """c of y = b x + c x^2 by least squares in every row, [organism]; NaN without two different x that are not 0."""
    used = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(used, x, 0.0), np.where(used, y, 0.0)
    s2, s3, s4 = ((x**power).sum(axis=1) for power in (2, 3, 4))
    determinant = s2 * s4 - s3**2
    known = determinant > 1e-10 * s2 * s4
    top = s2 * (x**2 * y).sum(axis=1) - s3 * (x * y).sum(axis=1)
    return np.where(known, top / np.where(known, determinant, 1.0), np.nan)


def _between(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """R2 and predicted R2 of a straight line through the cells' means; oracle: statsmodels OLSInfluence."""
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if x.size < 3 or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return float("nan"), float("nan")
    x, y = x - x.mean(), y - y.mean()
    rest = y - (x @ y) / (x @ x) * x
    leverage = 1 / x.size + x**2 / (x @ x)
    # A cell that fixes the slope alone cannot be predicted from the others.
    left_out = np.where(leverage < 1 - 1e-9, rest / np.where(leverage < 1 - 1e-9, 1 - leverage, 1.0), np.nan)
    return float(1 - rest @ rest / (y @ y)), float(1 - (left_out**2).sum() / (y @ y))


def spearman(x: FloatArray, y: FloatArray) -> FloatArray:
    """Rank correlation of every row, [organism], of [organism, cell]; NaN below three cells or for a constant."""
    used = np.isfinite(x) & np.isfinite(y)
    rx, ry = (pd.DataFrame(np.where(used, values, np.nan)).rank(axis=1).to_numpy() for values in (x, y))
    rx, ry = (np.where(used, ranks - mean(ranks, 1)[:, None], 0.0) for ranks in (rx, ry))
    scale = np.sqrt((rx**2).sum(axis=1) * (ry**2).sum(axis=1))
    known = (scale > 0) & (used.sum(axis=1) > 2)
    return np.where(known, (rx * ry).sum(axis=1) / np.where(known, scale, 1.0), np.nan)


def lmg(cube: Cube, measures: Sequence[str], response: str = PP) -> pd.DataFrame:
    """How the variance of the response within organisms divides among correlated measures, for each behavior.

    LMG (Shapley value of R^2): the increase of R^2 when a measure enters, averaged over all orders in which the
    measures can enter (Lindeman, Merenda and Gold 1980; Groemping 2007, R package relaimpo). Runs are cells averaged
    over seeds, centered within organism; cells with identical labels count once. A description of the declared
    cells, not of causes; R^2 is not adjusted, so a measure of nothing has a small positive share.

    Columns: ``behavior, measure``; ``lmg, low, high``: part of R^2 (95% linearized t interval over organisms, J - 1
    df; covered 91-96% at J = 4 to 12 in simulation); ``share``: lmg / R^2; ``alone``: R^2 of the measure alone;
    ``last``: what it adds to all others; ``coefficient`` of the full regression, response unit (pp for risk_delta)
    per unit; ``organisms, cells`` (rows of the regression).
    A last row ``all`` has R^2 as ``lmg``: the parts sum to it exactly.

    Raises:
        StudyError: no measure, one twice or more than 12; unknown, text, NaN or constant within organisms; measures
            that are linearly dependent; what `contrasts` refuses.
    """
    if not measures or len(set(measures)) < len(measures) or len(measures) > MOST:
        raise StudyError(f"measures: 1 to {MOST} different names are needed, not {', '.join(measures) or 'none'}")
    for name in (*measures, response):
        numeric(cube, name)

    def rows(block: Block) -> pd.DataFrame:
        arrays = [variable(cube, block, name) for name in measures]
        x, y = _cell_means(block, arrays, response_of(cube, block, response))
        try:
            table = lmg_arrays(x, y, measures)
        except StudyError as fault:
            raise StudyError(f"{block.behavior}: {fault}") from None
        table.insert(0, "behavior", block.behavior)
        return table

    return gather(cube, rows)


def lmg_arrays(x: FloatArray, y: FloatArray, measures: Sequence[str]) -> pd.DataFrame:
    """`lmg` of ``x`` [organism, cell, measure] and ``y`` [organism, cell]; a cell with a NaN is left out."""
    used = np.isfinite(x).all(axis=2) & np.isfinite(y)
    table = np.where(used[..., None], np.concatenate([x, y[..., None]], axis=2), np.nan)
    own = used.sum(axis=1) > 1
    table, used = table[own], used[own]
    if len(table) < 2:
        raise StudyError(f"{len(table)} organisms have two cells with {', '.join(measures)}; at least 2 are needed")
    centered = np.where(used[..., None], table - mean(table, 1)[:, None], 0.0)
    products = np.einsum("oci,ocj->oij", centered, centered)
    _check_varies(products.sum(axis=0), [*measures, "the response"])
    count = len(measures)
    fits = {subset: _r2(products, subset) for size in range(count + 1) for subset in combinations(range(count), size)}
    whole = fits[tuple(range(count))]
    lines = []
    for i, name in enumerate(measures):
        part = _shapley(fits, i, count)
        interval = t_interval(part)
        lines.append(
            {
                "measure": name,
                "lmg": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "share": interval.estimate / float(whole.mean()),
                "alone": float(fits[(i,)].mean()),
                "last": float((whole - fits[tuple(j for j in range(count) if j != i)]).mean()),
            }
        )
    interval = t_interval(whole)
    lines.append({"measure": "all", "lmg": interval.estimate, "low": interval.low, "high": interval.high, "share": 1.0})
    total = products.sum(axis=0)
    coefficients = np.linalg.solve(total[:count, :count], total[:count, count])
    found = pd.DataFrame(lines).assign(coefficient=[*coefficients, np.nan])
    return found.assign(organisms=len(table), cells=int(used.sum()))


def _r2(products: FloatArray, subset: tuple[int, ...]) -> FloatArray:
    """Pseudo-values of R^2, [organism]: the mean is R^2 of all organisms, the spread its linearized error.

    With the cross-products A of x, c of x and y, v of y summed over organisms and b = A^-1 c, R^2 = c.b / v; the
    derivative in the direction of one organism is (2 b.c_o - b.A_o b - R^2 v_o) / v.
    """
    organisms = len(products)
    index = np.array(subset, int)
    v_o = products[:, -1, -1]
    if not subset:
        return np.zeros(organisms)
    a_o, c_o = products[:, index[:, None], index], products[:, index, -1]
    a, c, v = a_o.sum(axis=0), c_o.sum(axis=0), float(v_o.sum())
    b = np.linalg.solve(a, c)
    r2 = float(c @ b) / v
    influence = 2 * c_o @ b - np.einsum("i,oij,j->o", b, a_o, b) - r2 * v_o
    return np.asarray(r2 + organisms * influence / v)


def _shapley(fits: dict[tuple[int, ...], FloatArray], i: int, count: int) -> FloatArray:
    part = np.zeros_like(fits[()])
    for subset, without in fits.items():
        if i not in subset:
            weight = factorial(len(subset)) * factorial(count - len(subset) - 1) / factorial(count)
            part = part + weight * (fits[tuple(sorted((*subset, i)))] - without)
    return part


def _check_varies(products: FloatArray, names: list[str]) -> None:
    square = np.diag(products)
    for name, value in zip(names, square, strict=True):
        if value < 1e-20:
            raise StudyError(f"{name} is the same in every cell of an organism")
    scale = np.sqrt(square[:-1])
    if np.linalg.matrix_rank(products[:-1, :-1] / np.outer(scale, scale), tol=1e-9) < len(scale):
        raise StudyError(f"{', '.join(names[:-1])} are linearly dependent within organisms; leave one out")


# What a block's cells are, and other variables of the cube on its axes


def numeric(cube: Cube, name: str) -> None:
    """Refuse what is no variable of numbers for every run.

    Raises:
        StudyError: unknown (with the nearest name), text, NaN everywhere, or infinite somewhere.
    """
    data = root(cube)
    known = [str(own) for own, values in data.data_vars.items() if values.dtype.kind in "fiub" and own != "status"]
    if name not in known:
        what = f"'{name}' is text" if name in data else f"the cube has no variable '{name}'"
        raise StudyError(f"{what}{did_you_mean(name, known)}")
    values = data[name].values.astype(float)
    if np.isnan(values).all():
        raise StudyError(f"'{name}' is NaN in every run")
    if (count := int(np.isinf(values).sum())) > 0:
        raise StudyError(
            f"'{name}' is infinite in {count} of {values.size} runs, so nothing can be averaged over it: leave out the "
            "level that has answers which the organism cannot give, or take a measure that is finite"
        )


def aligned(block: Block, array: xr.DataArray, axes: xr.Dataset) -> FloatArray:
    """``array`` on the axes of a block, [organism, *levels, seed, ...]; of size 1 where it does not depend on one.

    ``axes`` has the coordinates; axes that a block does not have come last, in their order.
    """
    wanted = {"organism": block.organisms, **block.levels, "seed": ()}
    array = array.expand_dims([dim for dim in wanted if dim not in array.dims]).transpose(*wanted, ...)
    values = np.asarray(array.values, float)
    for axis, (dim, names) in enumerate(wanted.items()):
        if values.shape[axis] > 1 and names:
            labels = [str(label) for label in axes[dim].values]
            values = values.take([labels.index(name) for name in names], axis)
    return values


def variable(cube: Cube, block: Block, name: str) -> FloatArray:
    """A variable of the cube at every usable run of a block, [organism, *levels, seed]; NaN at the others."""
    data = root(cube)
    values = np.broadcast_to(aligned(block, data[name], data), block.response.shape)
    return np.where(np.isfinite(block.response), values, np.nan)


def response_of(cube: Cube, block: Block, name: str) -> FloatArray:
    """The block's own response in pp for ``risk_delta``, else the variable as it stands."""
    return block.response if name == PP else variable(cube, block, name)


def distinct(block: Block, factors: Sequence[str] | None = None) -> BoolArray:
    """The cells with labels of their own, [*levels]: those that the null level of none of ``factors`` (all where None)
    gives just so.
    """
    own = np.ones(block.shape, bool)
    for factor in block.several if factors is None else factors:
        places = np.moveaxis(own, block.axis(factor), 0)  # a view
        for level in range(1, len(places)):
            places[level] &= ~block.identical(factor, level)
    return own


def from_null(block: Block, *arrays: FloatArray) -> tuple[tuple[FloatArray, ...], BoolArray]:
    """Arrays [organism, *levels, seed] relative to the null cell, each [organism, cell], and which cells are null.

    The null cell has the null label shift and selector and the same level of every other factor. Differences are
    within organism and seed, averaged over the seeds where all arrays have both runs; NaN where there is none.
    """
    there = np.isfinite(arrays[0])
    for array in arrays[1:]:
        there = there & np.isfinite(array)
    there = there & there[:, :1, :1]
    own = distinct(block)
    null = np.zeros(block.shape, bool)
    null[0, 0] = True
    found = tuple(mean(np.where(there, array - array[:, :1, :1], np.nan), -1)[:, own] for array in arrays)
    return found, null[own]


def _cell_means(block: Block, arrays: list[FloatArray], response: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Measures [organism, cell, measure] and response [organism, cell], over the seeds that have all of them."""
    table: npt.NDArray[Any] = np.stack([*arrays, response], axis=-1)
    table = np.where(np.isfinite(table).all(axis=-1, keepdims=True), table, np.nan)
    means = mean(table, -2)[:, distinct(block)]
    return means[..., :-1], means[..., -1]
