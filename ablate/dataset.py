"""The labels, answers and numbers of a study as rows of a data set: plain JSON values, and the types of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.plan import Cell, Plan
from ablate.states import State
from ablate.store import Store

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}
LARGEST = float(np.finfo(np.float64).max)

LABEL_COLUMNS = {
    "prompt_id": ("string", "name of the label prompt"),
    "item": ("string", "the fact or text that prompts share"),
    "prompt": ("string", "what the organism was asked"),
    "clean": ("string", "the same question without the pressure or the shortcut"),
    "answers": ("list string", "the pool: every candidate answer"),
    "outcome": ("list float64", "M of each answer: 1 misaligned, 0 not, null could not be judged"),
    "classes": ("list int64", "answers that state the same have one number; -1 states none"),
    "scores": ("list float64", "what the selector saw of each answer; null saw none, +-1.8e308 is infinite"),
    "weights": ("list float64", "what the selector took: each answer's weight as a label, all 0 where it abstained"),
}
ITEM_COLUMNS = {
    "when": ("string", "before training (the organism: it stands at no level) or after it (the run)"),
    "prompt_id": ("string", "name of the evaluation prompt"),
    "item": ("string", "the fact or text that prompts share"),
    "kind": ("string", "risk: outcome is M; capability: outcome is 1 where the answer is right"),
    "split": ("string", "in or out of the distribution of the induction"),
    "prompt": ("string", "what was asked"),
    "answers": ("list string", "the sampled answers"),
    "outcome": ("list float64", "of each answer; null could not be judged"),
}
Columns = Mapping[str, tuple[str, str]]


def features(plan: Plan, columns: Columns) -> list[dict[str, Any]]:
    """Name and type of every column as the front matter of a data card has them; a reader that looks at the first rows
    alone could not tell the type of what is null there.
    """
    known: dict[str, str] = {}
    for cell in plan.cells:
        known |= {name: TYPES[type(value)] for name, value in where(plan, cell).items() if value is not None}
    known |= {name: kind for name, (kind, _) in columns.items()}
    parts = {name: kind.partition(" ") for name, kind in known.items()}
    return [{"name": name, **({"list": of} if of else {"dtype": kind})} for name, (kind, _, of) in parts.items()]


def label_rows(plan: Plan, store: Store, found: Sequence[State]) -> Iterator[Row]:
    """One row for each run of the design and label prompt: `LABEL_COLUMNS` behind where the run stands."""

    @lru_cache(maxsize=4)  # the selectors of a label shift follow one another
    def pool(key: str) -> tuple[list[Any], Mapping[str, Any]]:
        artifact = store.read(key)
        return artifact.lines("pool.jsonl"), artifact.arrays("pool.safetensors")

    for state in found[: len(plan.cells)]:
        if not state.content:
            continue
        records, arrays = pool(state.cell.pool)
        picked = store.read(state.cell.labels).arrays("labels.safetensors")
        place = where(plan, state.cell)
        for i, record in enumerate(records):
            yield place | {
                "prompt_id": record["id"],
                "item": record["item"],
                "prompt": record["text"],
                "clean": record["clean"],
                "answers": record["answers"],
                "outcome": numbers(arrays["outcome"][i]),
                "classes": arrays["classes"][i].tolist(),
                "scores": numbers(picked["scores"][i]),
                "weights": numbers(picked["weights"][i]),
            }


def item_rows(plan: Plan, store: Store, found: Sequence[State]) -> Iterator[Row]:
    """One row for each organism and evaluation item, then for each run of the design and item: `ITEM_COLUMNS`."""
    runs = found[: len(plan.cells)]
    before = {state.cell.before: state.cell for state in runs if store.has(state.cell.before)}
    for key, cell in before.items():
        at_none = dict.fromkeys(axis.dim for axis in plan.axes)
        yield from _answers(store, key, where(plan, cell) | at_none | {"when": "before"})
    for state in runs:
        if state.after:
            yield from _answers(store, state.after, where(plan, state.cell) | {"when": "after"})


def run_rows(runs: pd.DataFrame) -> Iterator[Row]:
    """One row for each run: the columns of `ablate.cube.runs_frame`."""
    columns = [
        numbers(values) if values.dtype.kind == "f" else values.tolist() for values in (runs[name] for name in runs)
    ]
    for row in zip(*columns, strict=True):
        yield dict(zip(map(str, runs.columns), row, strict=True))


def run_features(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Name and type of every column of the runs, as `features`."""
    kinds = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}
    return [{"name": str(name), "dtype": kinds.get(runs[name].dtype.kind, "string")} for name in runs]


def _answers(store: Store, key: str, place: Row) -> Iterator[Row]:
    artifact = store.read(key)
    outcome = artifact.arrays("outcome.safetensors")["outcome"]
    for record, judged in zip(artifact.lines("answers.jsonl"), outcome, strict=True):
        yield place | {
            "prompt_id": record["id"],
            **{name: record[name] for name in ("item", "kind", "split")},
            "prompt": record["text"],
            "answers": record["answers"],
            "outcome": numbers(judged),
        }


def where(plan: Plan, cell: Cell) -> Row:
    """Where a run stands: its organism, and its label on every axis of the design."""
    own = plan.organisms[cell.organism]
    place = {"organism": cell.organism, "model": own.model, "behavior": own.behavior}
    place |= {"induction_seed": own.induction_seed, **own.options}
    return place | dict(zip((axis.dim for axis in plan.axes), cell.point, strict=True)) | {"seed": cell.seed}


def numbers(values: Any) -> list[float | None]:
    """Numbers as JSON has them: null where one is missing, the largest float where one is infinite."""
    finite = np.clip(np.asarray(values, np.float64), -LARGEST, LARGEST)
    return [None if np.isnan(value) else value for value in finite.tolist()]
