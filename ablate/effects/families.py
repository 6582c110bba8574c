"""The confirmatory family that a study declares, as the contrasts that it names; p-values of what explores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.effects.block import Cube, blocks

Family = Sequence[str] | str | None
"""Factors (``label_shift`` stands for all its main contrasts) and single contrasts as `contrasts` names them."""


def declared(cube: Cube, family: Family) -> tuple[str, ...] | None:
    """The rows that ``family`` names; a name that is no swapped factor is left for `contrasts` to find.

    A text is one name, or factors with commas: ``"label_shift,selector"``. None stays None.
    """
    if family is None:
        return None
    levels = {factor: own for block in blocks(cube)[:1] for factor, own in block.levels.items() if len(own) > 1}
    if isinstance(family, str):
        parts = [part.strip() for part in family.split(",")]
        family = parts if set(parts) <= levels.keys() else [family]
    rows: list[str] = []
    for name in family:
        start, *ends = levels.get(name, (name,))
        rows += [f"{name} {start} -> {end}" for end in ends] or [name]
    return tuple(dict.fromkeys(rows))


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """p-values adjusted for the false discovery rate, of any shape; NaN was no test and stays."""
    from scipy import stats  # takes a while to import

    values = np.array(p, float)
    known = np.isfinite(values)
    values[known] = stats.false_discovery_control(values[known])
    return values
