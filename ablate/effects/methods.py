"""What a published method does as a whole, and how much of it each of its own mechanisms does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, at, mean, root
from ablate.effects.contrasts import CAUSES, degrees, flips, gather
from ablate.effects.dose import variable
from ablate.effects.intervals import mean_interval, t_interval
from ablate.effects.missing import extremes
from ablate.effects.signflip import sign_flip
from ablate.errors import StudyError
from ablate.records import METHOD_NAME

Subset = tuple[str, ...]
"""Mechanisms that are at the method's level, the others at their null level."""

Weights = Mapping[Subset, float]
"""A contrast of the cells of one method: what each cell counts; the weights sum to 0."""


def methods(cube: xr.DataTree) -> pd.DataFrame:
    """The total effect of each method: its own level of every mechanism at once, against none of them.

    Rows: one for each behavior, setting of other swapped options and method. ``effect_pp`` is the change of risk less
    that of the null control of the same setting (where methods are isolated, of the cell with every mechanism off and
    as many candidates), paired within organism and training seed, averaged over seeds, then over organisms, with 95% t
    limits ``low, high`` over organisms; ``p`` two-sided sign-flip, ``p_adjusted`` max-T over all rows of a behavior.
    ``capability_pp`` with ``capability_low, capability_high`` is the same of capability, NaN where that is not
    measured. ``organisms``: J; a single one has its numbers, but no limits and no test.

    Raises:
        StudyError: a cube without methods; what `contrasts` refuses.
    """
    _of_methods(cube)

    def rows(block: Block) -> pd.DataFrame:
        totals = {name: 100 * _whole(cube, block, name) for name in ("risk_delta", "capability_delta")}
        lines = []
        for cell in np.ndindex(block.shape[3:]):
            own = {name: at(values, cell) for name, values in totals.items()}
            found, capable = mean_interval(own["risk_delta"]), mean_interval(own["capability_delta"])
            lines.append(
                {"behavior": block.behavior, **_setting(block, cell), "effect_pp": found.estimate}
                | {"low": found.low, "high": found.high, "capability_pp": capable.estimate}
                | {"capability_low": capable.low, "capability_high": capable.high}
                | {"organisms": int(np.isfinite(own["risk_delta"]).sum())}
            )
        tested = sign_flip(totals["risk_delta"].reshape(len(block.organisms), -1))
        table = pd.DataFrame(lines).assign(p=tested.p, p_adjusted=tested.p_adjusted)
        if len(block.organisms) == 1:
            one = "one organism has no interval and no test: its numbers hold its own noise and that of training"
            table.attrs["notes"] = [f"{block.behavior}: {one}"]
        return table

    table = gather(cube, rows, least=1)
    table.attrs["methods"] = (
        f"within-organism change of risk less that of the null labels, t intervals with {degrees(table)} df, "
        f"max-T over the {_most(table)} methods and settings of a behavior from {flips(table)}, conditional on these "
        "items"
    )
    return table


def isolated(cube: xr.DataTree) -> pd.DataFrame:
    """The total effect of each method split into those of its mechanisms and of their interactions.

    v(S) is the effect with the mechanisms S at the method's levels and the others off (null label shift, selector and
    objective), against all off; the same organism, seed, prompts and number of candidates. Only mechanisms that the
    method has are swapped: what leaves the same labels, or trains the same, is none. An objective that brings targets
    of its own from the clean view of the prompts (`bct`, `act`) counts as an objective, though the clean view is
    elsewhere a label shift.

    Rows: for each behavior, setting of other swapped options and method the ``part``s ``total`` v(N), every mechanism,
    and every interaction. Columns: ``kind``; ``level``, what the method has there; ``effect_pp``, of a mechanism the
    average over all orders of adding mechanisms one by one (Shapley 1953; these sum to the total), of an interaction
    its own part beyond its subsets (Harsanyi dividend: with ``added_pp`` of the mechanisms they sum to the total);
    ``added_pp``, adding the mechanism to nothing, v({i}); ``removed_pp``, removing it from all, v(N) - v(N - i); each
    in pp, the mean over the organisms that have its runs (``organisms, added_organisms, removed_organisms``) with 95%
    t limits (``low, high``, ``added_low``, ...). They sum up only where these are the same organisms.
    ``p`` two-sided sign-flip of ``effect_pp``; ``p_adjusted`` max-T over the rows of a kind within a method: each
    method is a question of its own, and nothing is adjusted for their number. ``missing``: runs that lack;
    ``bound_low, bound_high``: ``effect_pp`` with those at their worst and best (see `missing.bounds`).

    Raises:
        StudyError: a cube whose methods were not isolated; what `contrasts` refuses.
    """
    _of_methods(cube)
    data = root(cube)
    levels = {
        (factor, str(method)): str(level)
        for factor in CAUSES
        if f"method_{factor}" in data.coords
        for method, level in zip(data[METHOD_NAME].values, data[f"method_{factor}"].values, strict=True)
    }

    def rows(block: Block) -> pd.DataFrame:
        if block.shape[:3] != (2, 2, 2):
            raise StudyError(
                f"{block.behavior}: methods were run as a whole, their mechanisms were not swapped; "
                "name them under `isolate` in place of `method`"
            )
        return pd.DataFrame([line for cell in np.ndindex(block.shape[3:]) for line in _split(block, cell, levels)])

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"mechanisms averaged over all orders of adding them, t intervals with {degrees(table)} df over organisms, "
        f"max-T over the mechanisms and over the interactions of a method from {flips(table)}, "
        f"{_questions(data.sizes[METHOD_NAME])}, conditional on these items"
    )
    return table


def _of_methods(cube: xr.DataTree) -> None:
    if METHOD_NAME not in cube.dims:
        raise StudyError("the study compares no methods; name some under `method` or `isolate` in its factors")


def _most(table: pd.DataFrame) -> int:
    return int(table.groupby("behavior").size().max())


def _questions(number: int) -> str:
    return f"{number} methods, each a question of its own" if number > 1 else "one method"


def _whole(cube: xr.DataTree, block: Block, name: str) -> FloatArray:
    """The change of a variable with every mechanism on less that with none, [organism, *others], as in the cube; NaN
    where the study does not measure it.
    """
    if name not in root(cube):
        return np.full((len(block.organisms), *block.shape[3:]), np.nan)
    values = variable(cube, block, name)
    if block.shape[:3] == (2, 2, 2):
        return mean(values[:, 1, 1, 1] - values[:, 0, 0, 0], axis=-1)
    others = [factor for factor in list(block.levels)[3:] if factor != METHOD_NAME]
    null = cube.children["controls"].to_dataset(inherit=False)[name].sel(control="null")
    null = null.transpose("organism", *others, "seed")
    names = [str(organism) for organism in root(cube)["organism"].values]
    runs = null.values[[names.index(organism) for organism in block.organisms]]
    return mean(values[:, 0, 0, 0] - np.expand_dims(runs, block.axis(METHOD_NAME) - 2), axis=-1)


def _setting(block: Block, cell: Sequence[int]) -> dict[str, str]:
    """The method, and before it the levels of other swapped options."""
    names = {factor: block.levels[factor][level] for factor, level in zip(list(block.levels)[3:], cell, strict=True)}
    method = names.pop(METHOD_NAME)
    return {**{factor: name for factor, name in names.items() if factor in block.several}, "method": method}


def _split(block: Block, cell: tuple[int, ...], levels: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """The lines of one method at one setting, tested."""
    setting = _setting(block, cell)
    method = setting["method"]
    has = tuple(factor for factor in CAUSES if _swaps(block, cell, factor, levels.get((factor, method))))
    lines, values = [], []
    for part, kind, weights in _parts(has):
        found = {name: _values(block, cell, own) for name, own in weights.items()}
        about = {"behavior": block.behavior, **setting, "part": part, "kind": kind}
        about["level"] = levels.get((part, method), "")
        bounds = _bounds(block, cell, weights["effect"])
        lines.append({**about, **_numbers(found), **bounds, "p": np.nan, "p_adjusted": np.nan})
        values.append(found["effect"])
    for kind in dict.fromkeys(line["kind"] for line in lines if has):
        own = [i for i, line in enumerate(lines) if line["kind"] == kind]
        tested = sign_flip(np.column_stack([values[i] for i in own]))
        for i, p, p_adjusted in zip(own, tested.p, tested.p_adjusted, strict=True):
            lines[i] |= {"p": p, "p_adjusted": p_adjusted}
    return lines


def _swaps(block: Block, cell: tuple[int, ...], factor: str, level: str | None) -> bool:
    """Whether a method has a mechanism: a level that is not the null one, and that is not the same runs."""
    return level != block.levels[factor][0] and not at(block.identical(factor, 1), cell, after=2).all()


def _parts(has: Subset) -> Iterator[tuple[str, str, dict[str, Weights]]]:
    """Part, kind, and its contrasts: the effect and, of a mechanism, added to nothing and removed from all."""
    yield "total", "total", {"effect": _less(has, ())}
    for one in has:
        rest = tuple(other for other in has if other != one)
        yield one, "mechanism", {"effect": _shapley(has, one), "added": _less((one,), ()), "removed": _less(has, rest)}
    for subset in _subsets(has):
        if len(subset) > 1:
            signs = {inner: (-1.0) ** (len(subset) - len(inner)) for inner in _subsets(subset)}
            yield " x ".join(subset), "interaction", {"effect": signs}


def _less(on: Subset, off: Subset) -> Weights:
    return {on: 1.0, off: -1.0} if on != off else {}


def _subsets(mechanisms: Subset) -> list[Subset]:
    return [subset for size in range(len(mechanisms) + 1) for subset in combinations(mechanisms, size)]


def _shapley(has: Subset, one: str) -> Weights:
    weights: dict[Subset, float] = {}
    for subset in _subsets(tuple(other for other in has if other != one)):
        share = factorial(len(subset)) * factorial(len(has) - len(subset) - 1) / factorial(len(has))
        weights |= {tuple(other for other in has if other in (*subset, one)): share, subset: -share}
    return weights


def _values(block: Block, cell: tuple[int, ...], weights: Weights) -> FloatArray:
    """A contrast in pp, [organism]: paired within seed, then averaged over seeds; NaN where no seed has its runs."""
    total = np.zeros((len(block.organisms), block.response.shape[-1]))
    for subset, weight in weights.items():
        total = total + weight * at(block.response, _place(subset, cell))
    return mean(total, axis=-1)


def _place(subset: Subset, cell: tuple[int, ...]) -> tuple[int, ...]:
    return (*(int(factor in subset) for factor in CAUSES), *cell)


def _numbers(found: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Estimate, limits and organisms of an effect, and of what was added and removed where there is such a thing."""
    numbers: dict[str, Any] = {}
    for name in ("effect", "added", "removed"):
        values = found.get(name, np.array([np.nan]))
        interval = t_interval(values)
        limits = "" if name == "effect" else f"{name}_"
        numbers |= {f"{name}_pp": interval.estimate, f"{limits}low": interval.low, f"{limits}high": interval.high}
        numbers |= {f"{limits}organisms": int(np.isfinite(values).sum())}
    return numbers


def _bounds(block: Block, cell: tuple[int, ...], weights: Weights) -> dict[str, Any]:
    weight = np.zeros(block.shape)
    for subset, own in weights.items():
        weight[_place(subset, cell)] = own
    lacks, low, high = extremes(block, weight)
    return {"missing": int(lacks.sum()), "bound_low": float(low.mean()), "bound_high": float(high.mean())}
