"""How far every run of a plan got, from the folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ablate.keys import key_of
from ablate.plan import Cell, Plan, level, measures_of
from ablate.store import Store
from ablate.version import SCHEMA_VERSION, __version__

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
            content = plan.content(cell, store.read(cell.labels).notes)
            train = plan.training(cell, content).key
            after = plan.evaluation(cell, train).key
        if after and has(after) and has(cell.measure) and has(cell.before):
            status: Status = "aliased" if (control := cell.point == (), after) in seen else "ok"
            seen.add((control, after))
            yield State(cell, status, content, train, after)
            continue
        measured = plan.stages[cell.measure].inputs
        above = [key for name, key in measured.items() if name != "labels"]
        above += [*plan.stages[cell.before].inputs.values(), cell.before]
        above += [key for key in (cell.scores, cell.clean) if key]
        blocked = next((failed[key] for key in above if key in failed and not has(key)), "")
        error = next(
            (failed[key] for key in (cell.labels, cell.measure, train, after) if key in failed and not has(key)), ""
        )
        yield State(
            cell, "blocked" if blocked else "failed" if error else "missing", content, train, "", blocked or error
        )


def _failed(store: Store) -> dict[str, str]:
    """The error of every stage whose last entry in the journal is a failure."""
    last = {entry["key"]: entry for entry in store.entries() if "key" in entry}
    return {key: str(entry.get("error")) for key, entry in last.items() if entry.get("status") == "failed"}


def digest(plan: Plan, found: Sequence[State]) -> str:
    """What a cube is made of: equal digests, equal cubes."""
    ends = [[state.status, state.after, state.cell.measure, state.error] for state in found]
    measures = [level(measure) for measure in measures_of(plan.study.options, "run")]
    return key_of([__version__, SCHEMA_VERSION, plan.study.digest, measures, ends])
