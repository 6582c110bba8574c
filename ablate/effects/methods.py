"""What a published method does as a whole, and which of its own mechanisms does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects import words
from ablate.effects.block import Block, at, mean, root
from ablate.effects.contrasts import CAUSES, degrees, gather
from ablate.effects.dose import variable
from ablate.effects.families import Family
from ablate.effects.intervals import Interval, t_interval
from ablate.effects.sentences import NOUNS, limited
from ablate.effects.signflip import sign_flip
from ablate.effects.verdict import Verdict, verdict
from ablate.errors import StudyError
from ablate.records import METHOD_NAME

Subset = tuple[str, ...]
"""Mechanisms that are at the method's level, the others at their null level."""


def methods(cube: xr.DataTree) -> pd.DataFrame:
    """The total effect of each method: its own level of every mechanism at once, against none of them.

    Rows: one for each behavior, setting of other swapped options and method. ``effect_pp`` is the change of risk less
    that of the null control (or, where methods are isolated, of the cell with every mechanism off and as many
    candidates), paired within organism and training seed, averaged over seeds, then over organisms, with 95% t limits
    ``low, high`` over organisms; ``p`` two-sided sign-flip, ``p_adjusted`` max-T over the methods of a behavior.
    ``capability_pp`` with ``capability_low, capability_high`` is the same of capability, NaN where that is not
    measured. ``organisms``: J.

    Raises:
        StudyError: a cube without methods; what `contrasts` refuses.
    """
    _of_methods(cube)

    def rows(block: Block) -> pd.DataFrame:
        totals = {name: 100 * _total(cube, block, name) for name in ("risk_delta", "capability_delta")}
        lines = []
        for cell in np.ndindex(block.shape[3:]):
            own = {name: at(values, cell) for name, values in totals.items()}
            found, capable = t_interval(own["risk_delta"]), t_interval(own["capability_delta"])
            lines.append(
                {"behavior": block.behavior, **_setting(block, cell), "effect_pp": found.estimate}
                | {"low": found.low, "high": found.high, "capability_pp": capable.estimate}
                | {"capability_low": capable.low, "capability_high": capable.high}
                | {"organisms": int(np.isfinite(own["risk_delta"]).sum())}
            )
        tested = sign_flip(totals["risk_delta"].reshape(len(block.organisms), -1))
        return pd.DataFrame(lines).assign(p=tested.p, p_adjusted=tested.p_adjusted)

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"within-organism change of risk less that of the null labels, t intervals with {degrees(table)} df, "
        "max-T over the methods of a behavior by sign-flips"
    )
    return table


def isolated(cube: xr.DataTree) -> pd.DataFrame:
    """The total effect of each method split into those of its mechanisms and of their interactions.

    v(S) is the effect with the mechanisms S at the method's levels and the others off (null label shift, selector and
    objective), against all off; the same organism, seed, prompts and number of candidates. Only mechanisms that the
    method has are swapped: what leaves the same labels, or trains the same, is none.

    Rows: for each behavior, setting of other swapped options and method the ``part``s ``total`` v(N), every mechanism,
    and every interaction. Columns: ``kind``; ``level``, what the method has there; ``effect_pp``, of a mechanism the
    average over all orders of adding mechanisms one by one (Shapley 1953; these sum to the total), of an interaction
    its own part beyond its subsets (Harsanyi dividend: with ``added_pp`` of the mechanisms they sum to the total);
    ``added_pp``, adding the mechanism to nothing, v({i}); ``removed_pp``, removing it from all, v(N) - v(N - i); each
    in pp, the mean over organisms with 95% t limits (``low, high``, ``added_low``, ...). ``p`` two-sided sign-flip of
    ``effect_pp``, ``p_adjusted`` max-T over the rows of a kind within a behavior. ``organisms``: J.

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
        lines = [line for cell in np.ndindex(block.shape[3:]) for line in _parts(block, cell)]
        for line in lines:
            line["level"] = levels.get((line["part"], line["method"]), "")
        for kind in dict.fromkeys(line["kind"] for line in lines):
            own = [line for line in lines if line["kind"] == kind]
            tested = sign_flip(np.column_stack([line["values"] for line in own]))
            for line, p, p_adjusted in zip(own, tested.p, tested.p_adjusted, strict=True):
                line |= {"p": p, "p_adjusted": p_adjusted}
        return pd.DataFrame(lines).drop(columns="values")

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"mechanisms averaged over all orders of adding them, t intervals with {degrees(table)} df over organisms, "
        "max-T over the rows of a kind by sign-flips"
    )
    return table


def method_verdicts(cube: xr.DataTree, family: Family = None, **bars: float) -> list[Verdict]:
    """A verdict for each method and behavior: its split in a sentence, then the cause by `verdict` on its own runs.

    Each method is a question of its own: the confirmatory family is that of its runs. Where methods were run as a
    whole there is no cause to name.

    Raises:
        StudyError: what `methods`, `isolated` and `verdict` refuse.
    """
    data = root(cube)
    split = data.sizes["label_shift"] > 1
    table = isolated(cube) if split else methods(cube)
    found = []
    for i, name in enumerate(data[METHOD_NAME].values.tolist()):
        rows = table[table["method"] == name]
        causes = {v.behavior: v for v in verdict(data.isel({METHOD_NAME: [i]}), family, **bars)} if split else {}
        settings = list(table.columns[: list(table.columns).index("method")])
        for place, own in rows.groupby(settings, sort=False):
            about = ", ".join([str(name), *map(str, place)])
            if not split:
                said = limited() if data.attrs.get("limited") else _whole(str(name), own.iloc[0])
                found.append(Verdict(about, "undetermined", said, ()))
                continue
            cause = causes[str(place[0])]
            found.append(Verdict(about, cause.cause, f"{_split(str(name), own)} {cause.sentence}", cause.gates))
    return found


def _of_methods(cube: xr.DataTree) -> None:
    if METHOD_NAME not in cube.dims:
        raise StudyError("the study compares no methods; name some under `method` or `isolate` in its factors")


def _total(cube: xr.DataTree, block: Block, name: str) -> FloatArray:
    """The change of a variable with every mechanism on less that with none, [organism, *others], as in the cube; NaN
    where the study does not measure it.
    """
    if name not in root(cube):
        return np.full((len(block.organisms), *block.shape[3:]), np.nan)
    values = variable(cube, block, name)
    if block.shape[:3] == (2, 2, 2):
        return mean(values[:, 1, 1, 1] - values[:, 0, 0, 0], axis=-1)
    controls = cube.children["controls"].to_dataset(inherit=False)
    runs = controls[name].sel(control="null").transpose("organism", "seed").values
    names = [str(organism) for organism in root(cube)["organism"].values]
    null = runs[[names.index(organism) for organism in block.organisms]]
    others = (1,) * (values.ndim - 5)
    return mean(values[:, 0, 0, 0] - null.reshape(len(null), *others, -1), axis=-1)


def _parts(block: Block, cell: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The lines of one method, each with its ``values`` [organism]."""
    mechanisms = tuple(factor for factor in CAUSES if not at(block.identical(factor, 1), cell, after=2).all())
    value = {subset: _value(block, cell, subset) for subset in _subsets(mechanisms)}
    setting = {"behavior": block.behavior, **_setting(block, cell)}
    nothing = Interval(np.nan, np.nan, np.nan)

    def line(part: str, kind: str, values: FloatArray, added: Interval, removed: Interval) -> dict[str, Any]:
        found = {"effect": t_interval(values), "added": added, "removed": removed}
        limits = {
            f"{'' if name == 'effect' else f'{name}_'}{side}": getattr(interval, side)
            for name, interval in found.items()
            for side in ("low", "high")
        }
        effects = {f"{name}_pp": interval.estimate for name, interval in found.items()}
        count = int(np.isfinite(values).sum())
        return {**setting, "part": part, "kind": kind, **effects, **limits, "organisms": count, "values": values}

    yield line("total", "total", value[mechanisms], nothing, nothing)
    for one in mechanisms:
        rest = tuple(other for other in mechanisms if other != one)
        removed = t_interval(value[mechanisms] - value[rest])
        yield line(one, "mechanism", _shapley(value, mechanisms, one), t_interval(value[one,]), removed)
    for subset in value:
        if len(subset) > 1:
            yield line(" x ".join(subset), "interaction", _dividend(value, subset), nothing, nothing)


def _subsets(mechanisms: Subset) -> list[Subset]:
    return [subset for size in range(len(mechanisms) + 1) for subset in combinations(mechanisms, size)]


def _value(block: Block, cell: tuple[int, ...], on: Subset) -> FloatArray:
    """v(S) in pp, [organism]: paired within seed, then averaged over seeds."""
    place = tuple(int(factor in on) for factor in CAUSES)
    return mean(at(block.response, (*place, *cell)) - at(block.response, (0, 0, 0, *cell)), axis=-1)


def _shapley(value: Mapping[Subset, FloatArray], mechanisms: Subset, one: str) -> FloatArray:
    total = np.zeros_like(value[()])
    n = len(mechanisms)
    for subset in _subsets(tuple(other for other in mechanisms if other != one)):
        weight = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n)
        joined = tuple(other for other in mechanisms if other in (*subset, one))
        total = total + weight * (value[joined] - value[subset])
    return total


def _dividend(value: Mapping[Subset, FloatArray], subset: Subset) -> FloatArray:
    total = np.zeros_like(value[()])
    for inner in _subsets(subset):
        total = total + (-1) ** (len(subset) - len(inner)) * value[inner]
    return total


def _setting(block: Block, cell: Sequence[int]) -> dict[str, str]:
    """The method, and before it the levels of other swapped options."""
    names = {factor: block.levels[factor][level] for factor, level in zip(list(block.levels)[3:], cell, strict=True)}
    method = names.pop(METHOD_NAME)
    return {**{factor: name for factor, name in names.items() if factor in block.several}, "method": method}


def _whole(method: str, row: pd.Series) -> str:
    change = words.effect(Interval(row["effect_pp"], row["low"], row["high"]))
    return (
        f"undetermined: the effect of {method} on {_words(row['behavior'])} is {change} ({_tested(row)}); its "
        f"mechanisms were not swapped. `ablate isolate {method.partition('(')[0]}` would tell which does it."
    )


def _split(method: str, rows: pd.DataFrame) -> str:
    """The sentence that a reader may quote of one method and behavior."""
    total, *parts = (row for _, row in rows[rows["kind"] != "interaction"].iterrows())
    change = words.effect(Interval(total["effect_pp"], total["low"], total["high"]))
    if not parts:
        return f"{method} has no mechanism that acts here."
    shown = [
        f"{words.effect(Interval(row['effect_pp'], row['low'], row['high'])).replace(' pp', '')} is "
        f"{NOUNS[row['part']]} ({words.p_equals(row['p_adjusted'])})"
        for row in parts
    ]
    return (
        f"Of {method}'s {change} on {_words(total['behavior'])}, {words.listed(shown)} "
        f"(averages over the orders of adding them; {words.count(int(total['organisms']), 'organism')})."
    )


def _tested(row: pd.Series) -> str:
    count = words.count(int(row["organisms"]), "organism")
    return f"{count}, max-T sign-flip {words.p_equals(row['p_adjusted'])}"


def _words(behavior: object) -> str:
    return str(behavior).replace("_", " ")
