"""What the verdict rests on: for one behavior the effect, share and stability of each mechanism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ablate.api import FloatArray
from ablate.effects import words
from ablate.effects.block import Block
from ablate.effects.components import effects
from ablate.effects.contrasts import CAUSES, Contrast, list_contrasts, main_contrasts, measure
from ablate.effects.grid import Grid, balanced
from ablate.effects.intervals import NOTHING, Interval, ratio, t_interval, tost
from ablate.effects.missing import bound, failing
from ablate.effects.signflip import sign_flip
from ablate.errors import StudyError


@dataclass(frozen=True, slots=True, eq=False)
class Lead:
    """The main contrast that speaks for a factor: the largest of those below alpha, else the largest.

    ``effect`` has limits that hold for all contrasts it was chosen from at once (Bonferroni): its own 95% limits would
    cover less, since the largest of several is large by chance too. ``differences`` in pp, [organism], NaN dropped.
    ``confirmatory``: it belongs to the max-T family.
    ``p_logit`` is its sign-flip p on the logit scale and ``logit`` the mean there, NaN where a risk of 0 or 1
    met an unknown number of items. ``counted`` is the mean in pp with every answer that could not be judged counted
    as aligned, and as misaligned; empty where the cube does not say how many there were. ``bounds`` is its row of
    `missing.bounds`. ``among`` counts the contrasts that it was chosen from.
    """

    factor: str
    swapped: str
    effect: Interval
    p_adjusted: float
    confirmatory: bool
    differences: FloatArray
    logit: float
    p_logit: float
    counted: Mapping[str, float]
    bounds: Mapping[str, Any]
    among: int

    @property
    def said(self) -> str:
        """The contrast with its effect, as sentences quote it."""
        among = f", limits for the largest of {self.among}" if self.among > 1 else ""
        return f"{self.swapped} {words.effect(self.effect)}{among}"


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that the gates read. Shares are pseudo-values [organism]; see `intervals`.

    ``mains`` are the intervals of all main contrasts of the causes; ``interaction_pp`` the TOST p-values of
    all interaction contrasts against the equivalence bound. ``shares`` is empty where the effects together are not
    identified; ``no_shares`` then says why. ``inert`` are the label
    shifts under which no selector can act. ``extremes`` are the main effects with the missing runs at their worst and
    at their best, ``failing`` the p of `missing.failure_check` by factor; both empty where no run is missing.
    """

    leads: Mapping[str, Lead]
    mains: Sequence[Interval]
    interaction_pp: Sequence[float]
    shares: Mapping[str, FloatArray]
    no_shares: str
    inert: tuple[str, ...]
    extremes: Sequence[Interval]
    failing: Mapping[str, float]

    def share(self, part: str, level: float = 0.95) -> Interval:
        """The interval of a share of the effects together; the only part there is has all of it."""
        if part not in self.shares:
            return NOTHING
        return Interval(1.0, 1.0, 1.0) if len(self.shares) == 1 else t_interval(self.shares[part], level)


def collect(
    block: Block, *, alpha: float, equivalence_pp: float, items: int | None, family: Sequence[str] | None
) -> Evidence:
    """Effects, shares and stability of one behavior, averaged over the factors that are no cause.

    Raises:
        StudyError: nothing was swapped, or what `contrasts` refuses.
    """
    rows = list_contrasts(block)
    rows = rows if family is not None else [row for row in rows if row.kind == "main" and row.factor in CAUSES]
    table = measure(rows, block.behavior, family)
    leads: dict[str, Lead] = {}
    mains: list[Interval] = []
    for factor in CAUSES:
        index = [i for i, row in enumerate(rows) if row.kind == "main" and row.factor == factor and row.testable]
        if not index:
            continue
        numbers = table.iloc[index]
        mains += [Interval(*line) for line in numbers[["effect_pp", "low", "high"]].itertuples(index=False)]
        confirmatory = (numbers["adjusted_by"] == "max-T").to_numpy()
        p = numbers["p_adjusted"].to_numpy()
        passed = confirmatory & (p < alpha)
        size = np.abs(numbers["effect_pp"].to_numpy()) + np.where(passed, 1e6, 0.0)
        best = int(size.argmax())
        row = rows[index[best]]
        logit, p_logit = _on_logit(block, row.factor, row.end, items)
        there = row.differences[np.isfinite(row.differences)]
        effect = t_interval(there, 1 - 0.05 / len(index))
        leads[factor] = Lead(
            factor,
            row.swapped,
            effect,
            float(p[best]),
            bool(confirmatory[best]),
            there,
            logit,
            p_logit,
            {how: _counted(block, row, response) for how, response in block.counted.items()},
            bound(block, row),
            len(index),
        )
    shares, no_shares, interaction_pp = _shares(block, equivalence_pp)
    lacking = bool(np.isnan(block.response).any())
    extremes = [_extremes(block, row) for row in rows if lacking and row.kind == "main" and row.testable]
    return Evidence(
        leads, mains, interaction_pp, shares, no_shares, _inert(block), extremes, failing(block) if lacking else {}
    )


def _extremes(block: Block, row: Contrast) -> Interval:
    found = bound(block, row)
    return Interval(found["effect_pp"], found["bound_low"], found["bound_high"])


def _counted(block: Block, row: Contrast, response: FloatArray) -> float:
    """The mean of the same contrast of another response."""
    rows = main_contrasts(replace(block, response=response), row.factor)
    values = next(other.differences for other in rows if other.end == row.end)
    return float(values[np.isfinite(values)].mean())


def _on_logit(block: Block, factor: str, end: str, items: int | None) -> tuple[float, float]:
    used = np.isfinite(block.response)
    edge = np.isin(block.after[used], (0, 1)).any() or np.isin(block.before[used], (0, 1)).any()
    if edge and items is None:
        return float("nan"), float("nan")
    moved = block.logit(0.0 if items is None else 0.5 / items)
    row = next(row for row in main_contrasts(moved, factor) if row.end == end)
    there = row.differences[np.isfinite(row.differences)]
    if there.size < 2:
        return float("nan"), float("nan")
    return float(there.mean()), float(sign_flip(there).p[0])


def _shares(block: Block, equivalence_pp: float) -> tuple[dict[str, FloatArray], str, list[float]]:
    strata = list(np.ndindex(block.shape[2:]))
    try:
        grid = balanced(block, strata)
    except StudyError as fault:
        return {}, str(fault), [float("nan")]
    cells = _by_objective(block, grid, strata)
    parts = effects(cells, grid.active)
    interaction = _interaction_tost(cells[:, grid.active], equivalence_pp) if grid.active.any() else []
    if not parts:
        return {}, "no level leaves labels of its own", interaction
    total = np.sum(list(parts.values()), axis=0)
    if not (whole := t_interval(total)).low > 0:
        return (
            {},
            f"all effects together may be 0 ({whole.low:.1f} to {whole.high:.1f} pp^2)",
            interaction,
        )
    return {name: ratio(part, total) for name, part in parts.items()}, "", interaction


def _inert(block: Block) -> tuple[str, ...]:
    if len(block.levels["selector"]) == 1:
        return ()
    acts = np.asarray(block.acts()[:, 1:].reshape(block.shape[0], -1).any(axis=1))
    return tuple(name for name, active in zip(block.levels["label_shift"], acts, strict=True) if not active)


def _by_objective(block: Block, grid: Grid, strata: Sequence[tuple[int, ...]]) -> FloatArray:
    """Cells with the objective as third factor, averaged over all others, [organism, shift, selector, objective]."""
    others = list(block.levels)[2:]
    if "objective" not in others:
        return np.asarray(grid.cells.mean(axis=3, keepdims=True))
    level = np.array([stratum[others.index("objective")] for stratum in strata])
    return np.stack([grid.cells[..., level == i].mean(axis=3) for i in range(len(block.levels["objective"]))], axis=3)


def _interaction_tost(cells: FloatArray, bound: float) -> list[float]:
    """TOST p of every difference of differences, for each pair of factors averaged over the third."""
    p = []
    for first, second in combinations((1, 2, 3), 2):
        third = ({1, 2, 3} - {first, second}).pop()
        table = cells.mean(axis=third)
        for i in range(1, table.shape[1]):
            for j in range(1, table.shape[2]):
                p.append(tost(table[:, i, j] - table[:, i, 0] - table[:, 0, j] + table[:, 0, 0], bound))
    return p
