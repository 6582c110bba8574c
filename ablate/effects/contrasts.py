"""Effects with everything else held fixed: one row for each swap of a level against its null level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ablate.api import FloatArray
from ablate.effects import words
from ablate.effects.block import NULLS, Block, BoolArray, Cube, at, blocks, mean, require
from ablate.effects.intervals import Interval, t_interval
from ablate.effects.signflip import EXACT_UP_TO, sign_flip
from ablate.errors import StudyError, did_you_mean

Kind = Literal["null control", "simple", "main", "interaction"]
NULL_OBJECTIVE = "sft"
CAUSES = ("label_shift", "selector", "objective")
"""The factors that a verdict can name; any other swapped option is a condition, not a mechanism."""

DRIFT_PP = 1e-6
"""Runs with identical labels may differ by rounding, not by more."""


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """One swap ``start -> end`` of ``factor`` with the rest ``held``; ``differences`` in pp, [organism].

    ``identical``: the same labels on both sides in every organism. ``missing`` counts the pairs of cells
    that an organism lacks. ``pools`` are the content keys of the pools that both sides read.
    """

    kind: Kind
    factor: str
    start: str
    end: str
    held: str
    differences: FloatArray
    identical: bool = False
    missing: int = 0
    pools: str = ""
    note: str = ""

    @property
    def swapped(self) -> str:
        """The swap in words: ``label_shift none -> greedy``."""
        if self.kind == "null control":
            return "null control"
        if self.kind == "interaction":
            first, second = self.factor.split(" x ")
            return f"{first} {self.start} x {second} {self.end}"
        return f"{self.factor} {self.start} -> {self.end}"

    @property
    def testable(self) -> bool:
        """Whether it is no structural zero and at least two organisms have it."""
        return not self.identical and int(np.isfinite(self.differences).sum()) > 1


def contrasts(cube: Cube, *, family: Sequence[str] | None = None) -> pd.DataFrame:
    """Every effect of a swap, with its interval over organisms and its sign-flip test.

    Rows, for each behavior:

    - ``null control``: mean risk_delta of label_shift none x selector first x objective sft itself, for each setting
      of the other factors; its expected value is 0.
    - ``simple``: for every factor with several levels, from its null level (the first listed where the null
      is absent) to each other level, at every combination of levels of the other factors.
    - ``main``: the same swap averaged over the other factors, over those combinations only where the swap is
      what differs: pairs with identical labels are left out, and so are, for a label shift, selectors that
      cannot act on one of its sides. (Greedy labels know no selection; compared with a *selected* cell they
      would also lose the selection, and that is not an effect of the label shift.)
    - ``interaction``: for every two factors, how much the effect of the one swap differs between the two levels of the
      other, averaged over the other factors, where both swaps can act; no row where they never can.

    Columns:

    - ``behavior, kind, factor, start, end, held, swapped``: what is compared.
    - ``effect_pp``: mean over organisms of the within-organism difference of risk_delta, each first averaged
      over the training seeds (and combinations) of which the organism has both sides.
    - ``low, high``: its 95% t interval, effect +- t(.975; J - 1) sd / sqrt(J).
    - ``p``: two-sided sign-flip p over organisms; ``p_adjusted`` corrected as ``adjusted_by`` says.
    - ``organisms``: J, those with the contrast; ``missing``: pairs of cells (organism x combination) that lack.
    - ``identical``: structural zero: effect 0 by construction, no interval, no p, in no family.
    - ``note``: why a number is not there, or what else differs. ``hashes``: the pools that both sides of a
      selector swap read.

    Families, each within one behavior: without ``family`` the main rows of label_shift, selector and objective
    are one max-T family, those of other options another, the simple rows a third, the interactions a fourth. ``family``
    declares the confirmatory rows (``"label_shift none -> greedy"`` is the main row,
    ``"selector = first | label_shift none -> greedy"`` a simple one): those are the max-T family, the rest
    is Benjamini-Hochberg.

    ``.attrs`` hold ``counts`` (behavior -> organisms, invalid, runs, failed, ...), ``refused`` (behavior ->
    why no number is given) and ``methods``.

    Raises:
        StudyError: no behavior has two valid organisms and a risk that varies; a declared row that does
            not exist; pools that differ where they are said to be shared.
    """
    table = gather(cube, lambda block: measure(list_contrasts(block), block.behavior, family))
    adjusted = "max-T over the declared rows and BH over the rest" if family else "max-T over the rows of a kind"
    table.attrs["methods"] = (
        f"within-organism contrasts, t intervals with {degrees(table)} df, {adjusted} from {flips(table)}, "
        "conditional on these items"
    )
    return table


def degrees(table: pd.DataFrame) -> str:
    """J - 1 of the rows of a table: ``5``, or ``4 to 5``."""
    counts = sorted({int(count) for count in table["organisms"] if count > 1})
    return " to ".join(dict.fromkeys(str(count - 1) for count in (counts[0], counts[-1]))) if counts else "no"


def flips(table: pd.DataFrame) -> str:
    """What the tests of a table rest on: ``2^6 sign-flips``."""
    counts = [count for count in sorted(table["organisms"]) if count > 1]
    drawn = (f"2^{count}" if count <= EXACT_UP_TO else "10,000 random" for count in counts)
    return f"{words.listed(list(dict.fromkeys(drawn)) or ['no'])} sign-flips"


def gather(cube: Cube, table: Callable[[Block], pd.DataFrame], least: int = 2) -> pd.DataFrame:
    """The tables of all behaviors with ``least`` valid organisms in one, those that were refused in ``.attrs``.

    Raises:
        StudyError: every behavior was refused.
    """
    frames: list[pd.DataFrame] = []
    refused: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    for block in blocks(cube):
        counts[block.behavior] = dict(block.counts)
        try:
            require(block, least)
            frames.append(table(block))
        except StudyError as fault:
            refused[block.behavior] = str(fault)
    if not frames:
        raise StudyError("; ".join(refused.values()) or "the cube has no organism")
    joined = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    joined.attrs = {
        "counts": counts,
        "refused": refused,
        "notes": [note for f in frames for note in f.attrs.get("notes", [])],
    }
    return joined


def list_contrasts(block: Block) -> list[Contrast]:
    """Every contrast of a block, without any statistic: null control, simple, main and interaction rows.

    Raises:
        StudyError: no factor has two levels; see also `contrasts`.
    """
    if not block.several:
        fixed = ", ".join(f"{factor} = {levels[0]}" for factor, levels in block.levels.items())
        raise StudyError(f"{block.behavior}: every factor has one level ({fixed}), there is no swap to measure")
    simple = [contrast for factor in block.several for contrast in _simple(block, factor)]
    main = [contrast for factor in block.several for contrast in main_contrasts(block, factor)]
    crossed = [c for first, second in combinations(block.several, 2) for c in _interactions(block, first, second)]
    return [*_null_control(block), *simple, *main, *crossed]


def measure(rows: Sequence[Contrast], behavior: str, family: Sequence[str] | None = None) -> pd.DataFrame:
    """Intervals and tests of ``rows``, one line each; see `contrasts` for the columns."""
    p, p_adjusted, method = _tests(rows, family)
    tests = zip(rows, p, p_adjusted, method, strict=True)
    return pd.DataFrame([{"behavior": behavior} | _line(row, *test) for row, *test in tests])


def _line(row: Contrast, p: float, p_adjusted: float, adjusted_by: str) -> dict[str, Any]:
    interval = Interval(0.0, np.nan, np.nan) if row.identical else t_interval(row.differences)
    return {
        "kind": row.kind,
        "factor": row.factor,
        "start": row.start,
        "end": row.end,
        "held": row.held,
        "swapped": row.swapped,
        "effect_pp": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": p,
        "p_adjusted": p_adjusted,
        "adjusted_by": adjusted_by,
        "organisms": int(np.isfinite(row.differences).sum()),
        "missing": row.missing,
        "identical": row.identical,
        "note": _note(row, interval),
        "hashes": row.pools,
    }


def _note(row: Contrast, interval: Interval) -> str:
    if row.identical:
        return "identical labels"
    if not row.testable:
        return "fewer than 2 organisms have both runs"
    return "no variation between organisms" if np.isnan(interval.low) else row.note


def _tests(rows: Sequence[Contrast], family: Sequence[str] | None) -> tuple[FloatArray, FloatArray, list[str]]:
    p, p_adjusted = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    method = [""] * len(rows)
    kinds = [_family(row) for row in rows] if family is None else _declared(rows, family)
    for kind in dict.fromkeys(kinds):
        index = [i for i, row in enumerate(rows) if kinds[i] == kind and row.testable]
        if not index:
            continue
        result = sign_flip(np.column_stack([rows[i].differences for i in index]))
        p[index] = result.p
        if kind == "rest":
            p_adjusted[index], name = stats.false_discovery_control(result.p), "BH"
        elif kind != "null control":
            p_adjusted[index], name = result.p_adjusted, "max-T"
        else:
            continue
        for i in index:
            method[i] = name
    return p, p_adjusted, method


def _family(row: Contrast) -> str:
    return "main of options" if row.kind == "main" and row.factor not in CAUSES else row.kind


def _declared(rows: Sequence[Contrast], family: Sequence[str]) -> list[str]:
    names = [row.swapped if row.kind in ("main", "interaction") else f"{row.held} | {row.swapped}" for row in rows]
    for name in family:
        if name not in names:
            raise StudyError(f"analysis.family: there is no contrast '{name}'{did_you_mean(name, names)}")
    return [
        row.kind if row.kind == "null control" else "declared" if name in family else "rest"
        for row, name in zip(rows, names, strict=True)
    ]


def _null_control(block: Block) -> Iterator[Contrast]:
    if any(block.levels[factor][0] != null for factor, null in NULLS.items()):
        return
    if np.isfinite(block.after).any() and not np.isfinite(block.before).any():
        return  # without a risk before training there is no change from it
    others = list(block.levels)[2:]
    for cell in np.ndindex(block.shape[2:]):
        place = {name: block.levels[name][level] for name, level in zip(others, cell, strict=True)}
        if place.get("objective", NULL_OBJECTIVE) != NULL_OBJECTIVE:
            continue  # another objective is a treatment, whatever its labels are
        tau = mean(at(block.response, (0, 0, *cell)), axis=-1)
        yield Contrast("null control", "", "", "", _held(block, "", (0, 0, *cell)), tau)


def _simple(block: Block, factor: str) -> Iterator[Contrast]:
    start, *ends = block.levels[factor]
    for level, end in enumerate(ends, start=1):
        differences, identical = block.differences(factor, level), block.identical(factor, level)
        lost = _selection_lost(block, level) if factor == "label_shift" else set()
        for cell in np.ndindex(identical.shape):
            d = at(differences, cell)
            held = _held(block, factor, cell)
            same = bool(identical[cell])
            _check_same(block, d, same, f"{held} | {factor} {start} -> {end}")
            missing = int(np.isnan(d).sum())
            pools = _shared_pools(block, level, cell, held) if factor == "selector" else ""
            note = "also takes away the selection, which cannot act on one side" if cell in lost else ""
            yield Contrast("simple", factor, start, end, held, d, same, missing, pools, note)


def compared(block: Block, factor: str, level: int) -> BoolArray:
    """Where a swap to ``level`` is what differs, [*other factors]: other labels, a selector that acts on both sides."""
    eligible = ~block.identical(factor, level)
    if factor == "label_shift":
        acts = block.acts()
        eligible &= acts[0] & acts[level]
    return eligible


def main_contrasts(block: Block, factor: str) -> Iterator[Contrast]:
    """The main rows of one factor."""
    start, *ends = block.levels[factor]
    for level, end in enumerate(ends, start=1):
        differences, eligible = block.differences(factor, level), compared(block, factor, level)
        same = not eligible.any()
        over = tuple(range(1, differences.ndim))
        used = np.broadcast_to(eligible | same, differences.shape)
        missing = int((np.isnan(differences) & used).sum())
        held, average = _averaged(block, (factor,), used[0]), mean(differences, over, used)
        yield Contrast("main", factor, start, end, held, average, same, missing)


def _interactions(block: Block, first: str, second: str) -> Iterator[Contrast]:
    """The difference between two levels of the one factor of the effect of the other, paired within training seed."""
    over = tuple(range(1, len(block.levels) - 1))
    for i, one in enumerate(block.levels[first][1:], start=1):
        for j, other in enumerate(block.levels[second][1:], start=1):
            corners = {(a, b): _corner(block.response, block, {first: a, second: b}) for a in (0, i) for b in (0, j)}
            d = mean(corners[i, j] - corners[i, 0] - corners[0, j] + corners[0, 0], axis=-1)
            acting = _both_act(block, first, i, second, j)
            if not acting.any():
                continue
            used = np.broadcast_to(acting, d.shape)
            swapped = [f"{block.levels[name][0]} -> {end}" for name, end in ((first, one), (second, other))]
            yield Contrast(
                "interaction",
                f"{first} x {second}",
                swapped[0],
                swapped[1],
                _averaged(block, (first, second), used[0]),
                mean(d, over, used),
                missing=int((np.isnan(d) & used).sum()),
            )


def _corner(values: FloatArray, block: Block, levels: dict[str, int]) -> FloatArray:
    """[organism, *other factors, seed] at some levels of two factors."""
    index = tuple(levels.get(factor, slice(None)) for factor in block.levels)
    return values[(slice(None), *index)]


def _both_act(block: Block, first: str, i: int, second: str, j: int) -> BoolArray:
    """Where neither swap leaves the same labels at both levels of the other, [*other factors]; a selector acts under
    both label shifts, or a shift to one where it cannot would take the selection away.
    """

    def same(factor: str, level: int, other: str, end: int) -> list[BoolArray]:
        axis = [name for name in block.levels if name != factor].index(other)
        identical = block.identical(factor, level)
        return [np.asarray(identical.take(place, axis)) for place in (0, end)]

    sides = same(first, i, second, j), same(second, j, first, i)
    acting = ~(sides[0][0] & sides[0][1]) & ~(sides[1][0] & sides[1][1])
    if {first, second} == {"label_shift", "selector"}:
        acting &= ~(sides[1][0] | sides[1][1])
    return np.asarray(acting)


def _selection_lost(block: Block, level: int) -> set[tuple[int, ...]]:
    """Where the selector acts on one side of a label shift only, as cells of the other factors."""
    acts = block.acts()
    return {tuple(cell) for cell in np.argwhere(acts[0] != acts[level]).tolist()}


def _held(block: Block, factor: str, cell: tuple[int, ...]) -> str:
    others = [name for name in block.levels if name != factor]
    shown = [
        f"{name} = {block.levels[name][i]}"
        for name, i in zip(others, cell, strict=True)
        if name in NULLS or name in block.several
    ]
    return ", ".join(shown)


def _averaged(block: Block, swapped: tuple[str, ...], used: BoolArray) -> str:
    words = []
    for axis, name in enumerate(other for other in block.levels if other not in swapped):
        levels = block.levels[name]
        kept = [level for i, level in enumerate(levels) if used.take(i, axis).any()]
        if len(levels) == 1 and name not in NULLS:
            continue
        if len(kept) == 1:
            words.append(f"{name} = {kept[0]}")
        else:
            words.append(f"mean over {name}" + ("" if len(kept) == len(levels) else f" ({', '.join(kept)})"))
    return ", ".join(words)


def _check_same(block: Block, d: FloatArray, same: bool, name: str) -> None:
    there = d[np.isfinite(d)]
    if same and there.size and np.abs(there).max() > DRIFT_PP:
        worst = block.organisms[int(np.nanargmax(np.abs(d)))]
        raise StudyError(
            f"{block.behavior}: {name}: the labels are identical, but risk differs by {np.nanmax(np.abs(d)):.3g} pp in "
            f"organism {worst}; the cube contradicts itself"
        )


def _shared_pools(block: Block, level: int, cell: tuple[int, ...], held: str) -> str:
    axis = block.axis("selector")
    start, end = (at(block.codes["key_pool"], (*cell[:axis], i, *cell[axis:])) for i in (0, level))
    both = (start >= 0) & (end >= 0)
    if (start != end)[both].any():
        organism = block.organisms[int(np.argwhere(both & (start != end))[0][0])]
        raise StudyError(
            f"{block.behavior}: {held}: selector {block.levels['selector'][level]} read another pool than "
            f"{block.levels['selector'][0]} in organism {organism}; nothing was held fixed"
        )
    names = at(block.keys["key_pool"], (*cell[:axis], 0, *cell[axis:]))[both]
    return " ".join(names[np.diff(start[both], prepend=-1) != 0].tolist())
