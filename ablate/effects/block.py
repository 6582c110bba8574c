"""The cube as arrays: for each behavior the usable runs in percentage points, and which labels are identical."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ablate.api import FloatArray, IntArray
from ablate.errors import StudyError

TextArray = npt.NDArray[np.object_]
BoolArray = npt.NDArray[np.bool_]
Cube = xr.Dataset | xr.DataTree
"""A whole cube, or its root alone."""

NULLS: Mapping[str, str] = {"label_shift": "none", "selector": "first"}
"""The null level of a factor; the first level that the cube lists stands in where it is absent."""

OK, FAILED, BLOCKED, ALIASED = 1, 2, 3, 4
KEYS = ("key_labels", "key_pool", "key_train")
RISKS = ("risk_before", "risk_after", "risk_delta")
UNJUDGED = ("misaligned_delta", "unparsed_before", "unparsed_after")
"""What says how many answers were not judged; a cube without it has judged them all, for all that is known."""


@dataclass(frozen=True, eq=False)
class Block:
    """The runs of one behavior with its valid organisms.

    ``levels`` maps each factor to its levels, in the order of the axes, null level first: label_shift,
    selector, then the others. ``response`` is the change of risk in pp, [organism, *levels, seed], NaN
    where no usable run stands; ``before`` and ``after`` are the risks themselves, probabilities of the same
    shape. ``unjudged`` are the shares of answers that were not judged, as ``before`` and ``after``; ``counted``
    is the response with all of them counted as aligned and as misaligned; both are empty where the cube does not
    say. ``keys`` hold the content keys of each run, "" where the cube has none; ``codes`` number them, -1 for none.
    """

    behavior: str
    organisms: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    response: FloatArray
    before: FloatArray
    after: FloatArray
    unjudged: Mapping[str, FloatArray]
    counted: Mapping[str, FloatArray]
    keys: Mapping[str, TextArray]
    codes: Mapping[str, IntArray]
    counts: Mapping[str, int]

    @property
    def several(self) -> list[str]:
        """The factors that were swapped: those with more than one level."""
        return [factor for factor, levels in self.levels.items() if len(levels) > 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many levels each factor has."""
        return tuple(len(levels) for levels in self.levels.values())

    def axis(self, factor: str) -> int:
        """The axis of ``factor`` in an array over the factors alone; add 1 where organisms lead."""
        return list(self.levels).index(factor)

    def logit(self, floor: float) -> Block:
        """The same runs with logit(after) - logit(before) as response, risks clipped to [floor, 1 - floor]."""
        after, before = (np.clip(risk, floor, 1 - floor) for risk in (self.after, self.before))
        unknown = np.isnan(before).all(axis=tuple(range(1, before.ndim)), keepdims=True)
        before = np.where(unknown, 0.5, before)  # any one number: it cancels from contrasts within an organism
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(self, response=np.log(after / (1 - after)) - np.log(before / (1 - before)))

    def differences(self, factor: str, level: int) -> FloatArray:
        """Level minus null, paired within organism and seed, then averaged over seeds.

        [organism, *other factors]; NaN where no seed has both runs.
        """
        axis = self.axis(factor) + 1
        return mean(_level(self.response, axis, level) - _level(self.response, axis, 0), axis=-1)

    def identical(self, factor: str, level: int) -> BoolArray:
        """Where ``level`` left the same labels as the null level in every organism and seed: a structural zero.

        [*other factors]. Two runs are identical when they share the content key of the training, or, for a
        label shift or a selector, of the labels. Pairs of which a key is unknown (a stage failed) say nothing.
        """
        axis = self.axis(factor) + 1
        kinds = [kind for kind in ("key_train", "key_labels") if _comparable(kind, factor)]
        same = known = np.zeros(np.delete(self.response.shape, axis), bool)
        for kind in kinds:
            start, end = _level(self.codes[kind], axis, 0), _level(self.codes[kind], axis, level)
            both = (start >= 0) & (end >= 0)
            same, known = same | (both & (start == end)), known | both
        over = (0, same.ndim - 1)
        return np.asarray(known.any(axis=over) & (same | ~known).all(axis=over))

    def acts(self) -> BoolArray:
        """Where the selector takes other labels than the null selector would, [*factors]; the null selector counts."""
        acts = np.ones(self.shape, bool)
        for level in range(1, len(self.levels["selector"])):
            acts[:, level] = ~self.identical("selector", level)
        return acts


def _comparable(kind: str, factor: str) -> bool:
    # Equal trainings are equal runs unless the evaluation is what differs; equal labels are so only
    # where nothing after the labels differs.
    return factor in NULLS if kind == "key_labels" else not factor.startswith("evaluate")


def _level(array: npt.NDArray[Any], axis: int, level: int) -> npt.NDArray[Any]:
    """What stands at one level of an axis, without a copy."""
    return array[(slice(None),) * axis + (level,)]


def at(array: npt.NDArray[Any], cell: tuple[int, ...], after: int = 1) -> npt.NDArray[Any]:
    """The part of ``array`` at ``cell``, an index into the axes that follow the first ``after``."""
    index: tuple[Any, ...] = (*(slice(None),) * after, *cell)
    return np.asarray(array[index])


def mean(values: npt.ArrayLike, axis: int | tuple[int, ...], where: BoolArray | None = None) -> FloatArray:
    """The mean of what is there: NaN is skipped, and is the answer where nothing is there."""
    values = np.asarray(values)
    there = np.isfinite(values) if where is None else np.isfinite(values) & where
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def root(cube: Cube) -> xr.Dataset:
    """The root of a cube.

    From a whole cube it learns ``attrs["items"]``: by behavior, the fewest risk items of an organism.
    """
    if isinstance(cube, xr.Dataset):
        return cube
    data = cube.to_dataset()
    if "items" not in data.attrs and "items" in cube.children:
        risk = (cube["items"]["kind"] == "risk").sum("item").values
        counts = pd.Series(risk).groupby(populations(data)).min()
        data = data.assign_attrs(items={str(name): int(count) for name, count in counts.items() if count})
    return data


def blocks(cube: Cube) -> list[Block]:
    """One block for each behavior, in the order in which the cube lists them.

    Raises:
        StudyError: a variable or a dimension that is missing, a name that stands twice, an organism that is a copy of
            another, or a risk that is no probability.
    """
    cube = root(cube)
    if "key_after" in cube:  # equal evaluations are equal runs, while one training may be evaluated in two ways
        cube = cube.assign(key_train=cube["key_after"])
    _validate(cube)
    others = [str(name) for name in cube["risk_delta"].dims if name not in ("organism", "seed", *NULLS)]
    factors = [*NULLS, *others]
    levels = {factor: [str(level) for level in cube[factor].values] for factor in factors}
    order = {factor: _null_first(factor, names) for factor, names in levels.items()}
    known = UNJUDGED if all(name in cube for name in UNJUDGED) else ()
    runs = cube[[*RISKS, *known, *KEYS, "status"]].broadcast_like(cube["risk_delta"])
    runs = runs.transpose("organism", *factors, "seed").isel({factor: order[factor] for factor in factors})
    arrays = {name: runs[name].values for name in (*RISKS, *known, "status")} | {key: _text(runs[key]) for key in KEYS}
    arrays |= {f"{key} codes": _codes(arrays[key]) for key in KEYS}
    named = {factor: tuple(names[i] for i in order[factor]) for factor, names in levels.items()}
    behavior = populations(cube)
    valid = cube["valid_organism"].values == 1
    organisms = np.array([str(name) for name in cube["organism"].values])
    return [
        _block(name, behavior == name, valid, organisms, named, arrays) for name in dict.fromkeys(behavior.tolist())
    ]


def populations(cube: xr.Dataset) -> TextArray:
    """What each organism is a draw of, [organism]: its behavior, and model and options where those are swapped.

    Two organisms of one induction seed under two models or tolerances are no independent draws of one
    population, so inference is within each.
    """
    names = [str(name) for name in cube["behavior"].values]
    known = {"organism", "behavior", "induction_seed"}
    for name, variable in cube.coords.items():
        values = [str(value) for value in variable.values.ravel()]
        if variable.dims == ("organism",) and name not in known and len(set(values)) > 1:
            names = [f"{own}, {name} {value}" for own, value in zip(names, values, strict=True)]
    return np.array(names)


def _block(
    behavior: str,
    mine: BoolArray,
    valid: BoolArray,
    organisms: TextArray,
    levels: Mapping[str, tuple[str, ...]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Block:
    cells = tuple(range(1, arrays["risk_delta"].ndim))
    made = np.isfinite(arrays["risk_delta"].astype(float)).any(axis=cells)
    rows = mine & valid & (made if (mine & valid & made).any() else True)
    status = arrays["status"][mine & valid]
    lost = {
        name: int((status == code).sum()) for name, code in (("failed", FAILED), ("blocked", BLOCKED), ("missing", 0))
    }
    status = arrays["status"][rows]
    ran = (status == OK) | (status == ALIASED)
    delta, before, after = (
        np.where(ran, arrays[name][rows].astype(float), np.nan) for name in ("risk_delta", "risk_before", "risk_after")
    )
    usable = np.isfinite(delta)
    unjudged, counted = _unjudged({name: arrays[name][rows] for name in UNJUDGED if name in arrays}, usable)
    counts = {
        "organisms": int(rows.sum()),
        "invalid": int((mine & ~valid).sum()),
        "runs": int(usable.sum()),
        "aliased": int((usable & (status == ALIASED)).sum()),
        **lost,
        "unjudged": int((ran & ~usable).sum()),
    }
    names = tuple(str(name) for name in organisms[rows])
    keys = {key: arrays[key][rows] for key in KEYS}
    codes = {key: arrays[f"{key} codes"][rows] for key in KEYS}
    return Block(behavior, names, levels, 100 * delta, before, after, unjudged, counted, keys, codes, counts)


def _unjudged(
    arrays: Mapping[str, npt.NDArray[Any]], usable: BoolArray
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    if not arrays:
        return {}, {}
    misaligned, before, after = (np.where(usable, arrays[name].astype(float), np.nan) for name in UNJUDGED)
    as_misaligned = misaligned + after - before
    return {"before": before, "after": after}, {"aligned": 100 * misaligned, "misaligned": 100 * as_misaligned}


def require(block: Block, least: int = 2) -> None:
    """Refuse a block from which no number about organisms can come.

    Raises:
        StudyError: fewer than ``least`` valid organisms, no usable run, or one and the same number everywhere.
    """
    count, invalid = block.counts["organisms"], block.counts["invalid"]
    dropped = f" ({invalid} not valid)" if invalid else ""
    if count < least:
        noun = "organism" if count == 1 else "organisms"
        needed = f"at least {least} {'is' if least == 1 else 'are'} needed"
        raise StudyError(f"{block.behavior}: {count} valid {noun}{dropped}, {needed}")
    there = block.response[np.isfinite(block.response)]
    if not there.size:
        raise StudyError(f"{block.behavior}: risk_delta is missing in every run ({describe(block.counts)})")
    if there.size > 1 and np.ptp(there) == 0:
        raise StudyError(f"{block.behavior}: risk_delta is {there[0] / 100:g} in every run, nothing to tell apart")


def describe(counts: Mapping[str, int]) -> str:
    """What was left out, in words; ``nothing left out`` where all runs are usable."""
    words = {"failed": "failed", "blocked": "blocked", "missing": "missing", "unjudged": "without a risk"}
    parts = [f"{counts[key]} run{'s' * (counts[key] > 1)} {word}" for key, word in words.items() if counts[key]]
    return ", ".join(parts) or "nothing left out"


def _validate(cube: xr.Dataset) -> None:
    wanted = [*RISKS, *KEYS, "status", "valid_organism", "behavior"]
    if absent := [name for name in wanted if name not in cube]:
        raise StudyError(f"the cube has no variable {', '.join(absent)}; `ablate study` writes it anew")
    dims = cube["risk_delta"].dims
    if absent := [dim for dim in ("organism", *NULLS, "seed") if dim not in dims]:
        raise StudyError(f"risk_delta has no dimension {', '.join(absent)}; it has {', '.join(map(str, dims))}")
    for dim in dims:
        _once(cube, str(dim))
    refuse_copies(cube)
    for name in RISKS:
        if cube[name].dtype.kind not in "fiu":
            raise StudyError(f"{name} holds {cube[name].dtype}, not numbers")
    for name, low in (("risk_before", 0.0), ("risk_after", 0.0), ("risk_delta", -1.0)):
        values = cube[name].values
        outside = values[np.isfinite(values) & ((values < low - 1e-9) | (values > 1 + 1e-9))]
        if outside.size or np.isinf(values).any():
            shown = float(outside.flat[0]) if outside.size else math.inf
            raise StudyError(f"{name}: {shown:g} is not in [{low:g}, 1]; the cube holds probabilities, not percentages")


def refuse_copies(cube: xr.Dataset) -> None:
    """Refuse what only looks like more organisms: a name that stands twice, and a copy under another name.

    A copy has the content key of another organism, or of its training. Inference counts organisms, so that each copy
    would shrink every interval. Cells of one organism may share a training: equal labels are trained on once.

    Raises:
        StudyError: the name, or the names of the two.
    """
    _once(cube, "organism")
    names = [str(name) for name in cube["organism"].values]
    for key in ("key_organism", "key_train"):
        if key not in cube:
            continue
        keys = _text(cube[key].transpose("organism", ...))
        keys = keys.reshape(len(names), keys[:1].size)
        own = [set(row) - {""} for row in keys.tolist()]
        if len(set().union(*own)) < sum(map(len, own)):
            one, other = next(pair for pair in combinations(range(len(own)), 2) if own[pair[0]] & own[pair[1]])
            raise StudyError(
                f"organisms {names[one]} and {names[other]} are one organism under two names, with one {key}: copies "
                "are not replicates; leave one of them out, or induce another organism with a seed of its own"
            )


def _once(cube: xr.Dataset, dim: str) -> None:
    names = [str(name) for name in cube[dim].values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StudyError(f"{dim}: {', '.join(twice)} stands twice; it would be counted as two")


def _null_first(factor: str, levels: list[str]) -> list[int]:
    null = levels.index(NULLS[factor]) if NULLS.get(factor) in levels else 0
    return [null, *(i for i in range(len(levels)) if i != null)]


def _codes(keys: TextArray) -> IntArray:
    """Equal keys, equal numbers; -1 where there is none. Numbers compare a hundred times as fast as hashes."""
    codes, names = pd.factorize(keys.ravel())
    none = names.tolist().index("") if "" in names else -1
    return np.where(codes == none, -1, codes).reshape(keys.shape)


def _text(variable: xr.DataArray) -> TextArray:
    values = np.asarray(variable.values, dtype=object)  # a fixed width would copy every hash, 256 bytes each
    return np.where(pd.isna(values), "", values)
