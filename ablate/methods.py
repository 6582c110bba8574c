"""A published method as a point of the grid: its own level of every mechanism, in place of the study's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ablate import registry
from ablate.levels import Level, read_level
from ablate.options import DEFAULT_LEVELS
from ablate.records import Method
from ablate.yamlfile import Faults, Node, Place

OF_METHOD = "method"
"""The level of a mechanism that stands for what the method of the run does."""

METHOD = "factors.method"
"""The path of the factor whose levels are methods."""


@cache
def point(method: Level) -> dict[str, Any]:
    """The levels of a method by mechanism, and ``labels.candidates`` where it has a number of its own.

    Raises:
        StudyMistakes: an option of the method that is no level.
    """
    written: Method = registry.get("method", method.name)(**method.options)
    faults, place = Faults(), Place(method.label)
    levels: dict[str, Any] = {
        family: read_level(family, _node(getattr(written, family), family, place), faults) for family in DEFAULT_LEVELS
    }
    faults.raise_any()
    return levels if written.candidates is None else {**levels, "labels.candidates": written.candidates}


def _node(data: Any, path: str, place: Place) -> Node:
    if isinstance(data, Mapping):
        data = {str(key): _node(value, f"{path}.{key}", place) for key, value in data.items()}
    elif isinstance(data, list | tuple):
        data = [_node(value, f"{path}[{i}]", place) for i, value in enumerate(data)]
    return Node(data, path, place, place)


def table() -> list[dict[str, str]]:
    """Every method that is installed, at its defaults, with the level of each mechanism and the candidates."""
    rows = []
    for name in registry.names("method"):
        plugin = registry.get("method", name)
        own = point(Level("method", name, plugin.options().model_dump()))
        selector = own["selector"]
        rows.append(
            {
                "method": name,
                "label shift": own["label_shift"].label,
                "candidates": str(own.get("labels.candidates", "-")),
                "scorer": selector.scorer.label if selector.scorer else "-",
                "selector": replace(selector, scorer=None).label,
                "objective": own["objective"].label,
            }
        )
    return rows
