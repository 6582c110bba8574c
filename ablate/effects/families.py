"""The confirmatory family that a study declares, as the contrasts that it names."""

from __future__ import annotations

from collections.abc import Sequence

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
