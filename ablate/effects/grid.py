"""The complete, balanced part of a block: the organisms that have every run, the levels that are levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.effects.block import Block, BoolArray, at
from ablate.errors import StudyError


@dataclass(frozen=True, eq=False)
class Grid:
    """Runs in pp, [organism, label_shift, selector, objective, seed], with no gap.

    ``active`` marks the label shifts under which selection can act, all where one selector is left. ``notes`` say
    what was left out.
    """

    runs: FloatArray
    shifts: tuple[str, ...]
    selectors: tuple[str, ...]
    active: BoolArray
    notes: tuple[str, ...]

    @property
    def cells(self) -> FloatArray:
        """Averaged over seeds, [organism, label_shift, selector, objective]."""
        return np.asarray(self.runs.mean(axis=-1))


def balanced(block: Block, strata: Sequence[tuple[int, ...]]) -> Grid:
    """The balanced grid of some ``strata``: settings of the factors after label_shift and selector.

    Each stratum is one level of the ``objective`` axis of the grid. Levels that leave the same labels as
    their null level everywhere are no levels and drop out; organisms that lack a run drop out.

    Raises:
        StudyError: fewer than two complete organisms, naming runs that lack.
    """
    acts = np.stack([at(block.acts(), stratum, after=2) for stratum in strata])
    moves = np.ones_like(acts)
    for level in range(1, block.shape[0]):
        same = block.identical("label_shift", level)
        moves[:, level] = [~at(same, stratum) for stratum in strata]
    shifts, selectors = _distinct(moves.any(axis=(0, 2))), _distinct(acts.any(axis=(0, 1)))
    names = {"label_shift": _kept(block, "label_shift", shifts), "selector": _kept(block, "selector", selectors)}
    notes = [
        f"{block.behavior}: {factor} {name} leaves the same labels as {block.levels[factor][0]} everywhere"
        for factor, kept in names.items()
        for name in block.levels[factor]
        if name not in kept
    ]
    runs = np.stack([at(block.response, stratum, after=3) for stratum in strata], axis=3)
    runs = runs[:, shifts][:, :, selectors]
    complete = np.isfinite(runs).all(axis=(1, 2, 3, 4))
    if not complete.all():
        have = f"{complete.sum()} of {len(complete)} organisms have every run"
        found = f"{block.behavior}: {have}; {_gaps(block, runs, names)}"
        if complete.sum() < 2:
            raise StudyError(f"{found}; at least 2 are needed")
        notes.append(found)
    active = np.ones(len(shifts), bool)  # where no selector is compared, none is lost under any label shift
    if len(selectors) > 1:
        active = np.asarray(acts[:, shifts][:, :, selectors][:, :, 1:].any(axis=(0, 2)))
    return Grid(runs[complete], names["label_shift"], names["selector"], active, tuple(notes))


def _distinct(levels: npt.ArrayLike) -> list[int]:
    return [i for i, distinct in enumerate(np.asarray(levels).tolist()) if distinct or i == 0]


def _kept(block: Block, factor: str, index: list[int]) -> tuple[str, ...]:
    return tuple(block.levels[factor][i] for i in index)


def _gaps(block: Block, runs: FloatArray, names: dict[str, tuple[str, ...]], shown: int = 3) -> str:
    lacking = [
        f"{block.organisms[o]} {names['label_shift'][i]} x {names['selector'][j]}"
        for o, i, j, *_ in np.argwhere(np.isnan(runs))
    ]
    unique = list(dict.fromkeys(lacking))
    more = f" and {len(unique) - shown} more" if len(unique) > shown else ""
    return f"without a usable run: {', '.join(unique[:shown])}{more}"
