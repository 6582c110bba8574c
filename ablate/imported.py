"""Runs that were made elsewhere as a cube: columns of rows become axes, organisms and numbers; nothing is filled in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ablate import cube as cubes
from ablate.api import Column
from ablate.errors import StudyError

Codes = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.float64]
Label = str | int | float | bool

UNDECLARED = "undeclared"
"""The only level of a mechanism that an import does not name: nothing is known of it."""
VALID_RISK = (0.1, 0.9)  # as for organisms that are made here: outside there is no room to move
MAX_CELLS = 20_000_000
KEYS = ("key_labels", "key_pool", "key_train")
"""Content hashes that every cube has; of imported runs they are known where a column says them."""


@dataclass(frozen=True)
class Axis:
    """The level of every row: ``codes`` [rows] number ``labels``."""

    codes: Codes
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Table:
    """Rows with their place in a cube: ``axes`` start with the three mechanisms, ``numbers`` and ``texts`` [rows].

    ``facts`` are coordinates of the organisms by name (model, behavior, induction_seed, and what else tells them
    apart); ``columns`` say what each of ``numbers`` is. ``status`` [rows] counts `cube.STATUSES`. ``place`` says where
    a row stands in its file.
    """

    organism: Axis
    facts: Mapping[str, tuple[Label | None, ...]]
    axes: Mapping[str, Axis]
    seed: Axis
    status: npt.NDArray[np.int8]
    numbers: Mapping[str, Numbers]
    columns: Mapping[str, Column]
    place: Callable[[int], str]
    texts: Mapping[str, npt.NDArray[np.object_]] = field(default_factory=dict)
    of_organisms: Mapping[str, Numbers] = field(default_factory=dict)
    """Known of organisms: ``organism_risk``, ``organism_unparsed``, ``valid_organism``, ``calibrated``, [organism]."""


def cube_of(table: Table, attrs: Mapping[str, Any]) -> xr.DataTree:
    """The cube of a table; a cell without a row is ``missing``, and so is one whose row has no number.

    Raises:
        StudyError: two rows in one cell, a grid that is out of all proportion, a factor that tells organisms apart, or
            a name that cannot stand beside the others.
    """
    _refuse_between(table)
    cells, shape = _cells(table)
    risk = table.of_organisms.get("organism_risk")
    risk = _mean_by(table.organism, table.numbers["risk_before"]) if risk is None else risk
    valid = table.of_organisms.get("valid_organism", _in_range(risk))
    unparsed = table.of_organisms.get("organism_unparsed", np.full(len(risk), np.nan))
    calibrated = table.of_organisms.get("calibrated", np.zeros(len(risk)))
    own = {name: values for name, values in table.facts.items() if name not in ("model", "behavior", "induction_seed")}
    organisms = [
        cubes.Organism(
            str(table.facts["model"][i]),
            str(table.facts["behavior"][i]),
            table.facts["induction_seed"][i],  # type: ignore[arg-type]
            {name: values[i] for name, values in own.items()},
            float(risk[i]),
            bool(valid[i]),
            float(unparsed[i]),
            bool(calibrated[i]),
        )
        for i in range(len(risk))
    ]
    axes = {dim: axis.labels for dim, axis in table.axes.items()}
    seeds: Any = table.seed.labels
    try:
        tree = cubes.build(organisms, axes, seeds, [], table.columns, [[]] * len(organisms), attrs)
    except ValueError as error:
        raise StudyError(f"factors: {error}; rename it: --factors NAME=COLUMN") from None
    root = tree.to_dataset(inherit=False)
    made = np.isin(table.status, (1, cubes.STATUSES.index("aliased")))
    root["status"].values.reshape(-1)[cells] = table.status
    for name, values in table.numbers.items():
        root[name].values.reshape(-1)[cells[made]] = values[made]
    for name in dict.fromkeys(("error", *KEYS, *table.texts)):
        flat = np.full(math.prod(shape), "", object)
        if name in table.texts:
            flat[cells] = table.texts[name]
        about = "why there is no result" if name == "error" else f"content hash of {name.removeprefix('key_')}"
        root[name] = (root["status"].dims, flat.reshape(shape), cubes.text_attrs(about, source="import"))
    if "calibrated" not in table.of_organisms:
        root = root.drop_vars("calibrated")
    names = np.array(table.organism.labels, np.int64 if _whole(table.organism.labels) else object)
    tree.dataset = root.assign_coords(organism=("organism", names, root["organism"].attrs))
    return tree


def _whole(labels: tuple[Label, ...]) -> bool:
    return all(type(label) is int for label in labels)


def _in_range(risk: Numbers) -> npt.NDArray[np.bool_]:
    """An organism whose risk before training is not known is not known to be invalid."""
    return np.isnan(risk) | ((risk >= VALID_RISK[0]) & (risk <= VALID_RISK[1]))


def _mean_by(axis: Axis, values: Numbers) -> Numbers:
    """The mean of what is there, [labels]; NaN where nothing is."""
    there = np.isfinite(values)
    count = np.bincount(axis.codes[there], minlength=len(axis.labels))
    total = np.bincount(axis.codes[there], values[there], minlength=len(axis.labels))
    mean: Numbers = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean


def _cells(table: Table) -> tuple[Codes, tuple[int, ...]]:
    """The flat position of every row in the cube, and the cube's shape."""
    mechanisms = dict(list(table.axes.items())[:3])
    options = dict(list(table.axes.items())[3:])
    order = {"organism": table.organism, **mechanisms, "seed": table.seed, **options}
    shape = tuple(len(axis.labels) for axis in order.values())
    if math.prod(shape) > MAX_CELLS:
        sizes = " x ".join(f"{len(axis.labels)} {dim}" for dim, axis in order.items() if len(axis.labels) > 1)
        raise StudyError(
            f"factors: {sizes} are {math.prod(shape):,} cells for {len(table.status):,} rows, more than "
            f"{MAX_CELLS:,}; is each of them a factor?"
        )
    cells = np.ravel_multi_index([axis.codes for axis in order.values()], shape)
    by_cell = np.argsort(cells, kind="stable")
    twice = np.flatnonzero(np.diff(cells[by_cell]) == 0)
    if len(twice):
        at = min(twice, key=lambda i: int(by_cell[i + 1]))  # the first row of the file that comes a second time
        one, other = int(by_cell[at]), int(by_cell[at + 1])
        point = ", ".join(
            f"{dim} = {axis.labels[axis.codes[one]]}"
            for dim, axis in order.items()
            if len(axis.labels) > 1 or dim == "organism"
        )
        raise StudyError(
            f"{table.place(other)}: a second run of {point}; the first is at {table.place(one)}. If they are "
            "replicates, name the column that tells them apart: --seed COLUMN; if another option differs, --factors"
        )
    return cells, shape


def _refuse_between(table: Table) -> None:
    """Refuse a factor that never varies within an organism: nothing would be left to compare within one."""
    organisms = len(table.organism.labels)
    for dim, axis in table.axes.items():
        if len(axis.labels) < 2 or organisms < 2:
            continue
        pairs = np.unique(table.organism.codes * len(axis.labels) + axis.codes)
        if len(pairs) == len(np.unique(table.organism.codes)):
            raise StudyError(
                f"factors: every organism has one level of '{dim}' only: it tells organisms apart, and nothing can be "
                "compared within one; if --unit is right, name it with --model or --behavior"
            )
