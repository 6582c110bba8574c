"""From a plan and its folder to the cube: every cell's state, its numbers, and the hashes that prove what was fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import xarray as xr

from ablate import cube as cubes
from ablate import registry
from ablate.api import Column, Evaluation, FloatArray, mean_outcome
from ablate.keys import key_of
from ablate.plan import Cell, Plan, level, measures_of
from ablate.stages import checked, generator, read_evaluation
from ablate.store import Store
from ablate.version import __version__

VALID_RISK = (0.1, 0.9)
"""An organism whose risk before training lies outside has no room to move: `invalid_organism`."""

Status = Literal["missing", "ok", "failed", "blocked", "aliased"]


@dataclass(frozen=True, slots=True)
class State:
    """How far a cell got: the keys that its labels named, and why it got no further."""

    cell: Cell
    status: Status
    content: str = ""
    train: str = ""
    after: str = ""
    error: str = ""


def states(plan: Plan, store: Store) -> Iterator[State]:
    """The state of every run, in the order of :meth:`Plan.runs`.

    A run of the design whose training and evaluation an earlier one has is aliased. A run failed if a stage
    of its own did, and is blocked if one did that others need too.
    """
    failed = _failed(store)
    has = cache(store.has)
    seen: set[tuple[bool, str]] = set()
    for cell in plan.runs():
        content = train = after = ""
        if has(cell.labels):
            content = store.read(cell.labels).notes["content"]
            train = plan.training(cell, content).key
            after = plan.evaluation(cell, train).key
        if after and has(after) and has(cell.measure) and has(cell.before):
            status: Status = "aliased" if (control := cell.point == (), after) in seen else "ok"
            seen.add((control, after))
            yield State(cell, status, content, train, after)
            continue
        measured = plan.stages[cell.measure].inputs
        above = [key for name, key in measured.items() if name != "labels"]
        above += [*plan.stages[cell.before].inputs.values(), cell.before, cell.scores or ""]
        blocked = next((failed[key] for key in above if key in failed and not has(key)), "")
        error = next((failed[key] for key in (cell.labels, cell.measure, train, after) if key in failed), "")
        yield State(
            cell, "blocked" if blocked else "failed" if error else "missing", content, train, "", blocked or error
        )


def _failed(store: Store) -> dict[str, str]:
    """The error of every stage whose last entry in the journal is a failure."""
    last = {entry["key"]: entry for entry in store.entries() if "key" in entry}
    return {key: entry["error"] for key, entry in last.items() if entry["status"] == "failed"}


class Collector:
    """Reads every evaluation once, measures the runs, and puts the cube together."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.measures = [level(m) for m in measures_of(plan.study.options, "run")]
        names = [m["name"] for m in (*self.measures, *(level(m) for m in measures_of(plan.study.options, "labels")))]
        self.columns: dict[str, Column] = {}
        for name in names:
            self.columns |= registry.get("measure", name).traits["columns"]
        self.states = list(states(plan, store))
        self._before: dict[str, Evaluation] = {}

    @property
    def digest(self) -> str:
        """What the cube is made of: equal digests, equal cubes."""
        ends = [[state.status, state.after, state.cell.measure, state.error] for state in self.states]
        return key_of([cubes.SCHEMA_VERSION, __version__, self.plan.study.digest, self.measures, ends])

    def cube(self, attrs: Mapping[str, Any]) -> xr.DataTree:
        """The cube of the study as far as it got."""
        design = self.states[: len(self.plan.cells)]
        runs = [self._run(state) for state in design]
        tree = cubes.build(
            [self._organism(i, design) for i in range(len(self.plan.organisms))],
            {axis.dim: axis.labels for axis in self.plan.axes},
            self.plan.study.options.seeds,
            runs,
            self.columns,
            [self._items(i, design) for i in range(len(self.plan.organisms))],
            attrs,
        )
        tree["controls"] = self._controls(self.states[len(self.plan.cells) :])
        return tree

    def _evaluation(self, key: str) -> Evaluation:
        """The evaluation of an organism, which many runs are compared to."""
        if key not in self._before:
            self._before[key] = read_evaluation(self.store.read(key))
        return self._before[key]

    def _values(self, state: State) -> tuple[dict[str, float], FloatArray | None, FloatArray | None]:
        if not state.after:
            return {}, None, None
        before, after = self._evaluation(state.cell.before), read_evaluation(self.store.read(state.after))
        values = {name: float(value) for name, value in self.store.read(state.cell.measure).json("values.json").items()}
        for measure in self.measures:
            plugin = registry.get("measure", measure["name"])
            rng = generator("measure", self.plan.organisms[state.cell.organism].induction_seed, state.cell.seed)
            values |= checked(plugin, plugin(before, None, after, rng, **measure["options"]))
        return values, item_means(before), item_means(after)

    def _run(self, state: State) -> cubes.Run:
        cell = state.cell
        values, before, after = self._values(state)
        keys = {"organism": self.plan.organisms[cell.organism].stage, "pool": cell.pool}
        keys |= {name: key for name, key in (("labels", state.content), ("train", state.train)) if key}
        point = dict(zip((axis.dim for axis in self.plan.axes), cell.point, strict=True))
        return cubes.Run(cell.organism, point, cell.seed, state.status, values, before, after, keys, state.error)

    def _organism(self, i: int, design: list[State]) -> cubes.Organism:
        own = self.plan.organisms[i]
        before = {
            state.cell.before for state in design if state.cell.organism == i and self.store.has(state.cell.before)
        }
        risks = [mean_outcome(_risk_items(self._evaluation(key))) for key in sorted(before)]
        risk = float(np.mean(risks)) if risks else float("nan")
        valid = VALID_RISK[0] <= risk <= VALID_RISK[1]
        return cubes.Organism(own.model, own.behavior, own.induction_seed, own.options, risk, valid)

    def _items(self, i: int, design: list[State]) -> list[cubes.Item]:
        key = next((s.cell.before for s in design if s.cell.organism == i and self.store.has(s.cell.before)), None)
        prompts = self._evaluation(key).prompts if key else ()
        return [cubes.Item(prompt.id, prompt.kind, prompt.split, prompt.item) for prompt in prompts]

    def _controls(self, found: list[State]) -> xr.Dataset:
        """Runs with a known answer, outside the design: dims (control, organism, seed)."""
        names = [name for name, _ in self.plan.controls]
        order = {name: i for i, name in enumerate(dict.fromkeys(names))}
        seeds = {seed: i for i, seed in enumerate(self.plan.study.options.seeds)}
        shape = (len(order), len(self.plan.organisms), len(seeds))
        values = {name: np.full(shape, np.nan) for name in self.columns}
        status = np.zeros(shape, np.int8)
        for name, state in zip(names, found, strict=True):
            at = order[name], state.cell.organism, seeds[state.cell.seed]
            status[at] = cubes.STATUSES.index(state.status)
            for column, value in self._values(state)[0].items():
                values[column][at] = value
        dims = ("control", "organism", "seed")
        data = {name: (dims, array, cubes.column_attrs(self.columns[name])) for name, array in values.items()}
        data["status"] = (dims, status, cubes.flags("how far the control got", cubes.STATUSES))
        coords = {"control": np.array(list(order), object), "organism": range(shape[1]), "seed": list(seeds)}
        return xr.Dataset(data, coords)


def item_means(evaluation: Evaluation) -> FloatArray:
    """Mean outcome of each item over its judged samples, float32 [I]; NaN where none was."""
    judged = ~np.isnan(evaluation.outcome)
    total = np.where(judged, evaluation.outcome, 0.0).sum(1)
    means: FloatArray = np.divide(total, judged.sum(1), out=np.full(len(total), np.nan), where=judged.any(1))
    return means.astype(np.float32)


def _risk_items(evaluation: Evaluation) -> FloatArray:
    return evaluation.outcome[[i for i, prompt in enumerate(evaluation.prompts) if prompt.kind == "risk"]]
