"""The labels and answers of a study as rows of a data set: one for each run and prompt, plain JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ablate.plan import Cell, Plan
from ablate.states import State
from ablate.store import Store

Row = dict[str, Any]
LARGEST = float(np.finfo(np.float64).max)

LABEL_COLUMNS = {
    "prompt_id": "name of the label prompt",
    "item": "the fact or text that prompts share",
    "prompt": "what the organism was asked",
    "clean": "the same question without the pressure or the shortcut",
    "answers": "the pool: every candidate answer",
    "outcome": "M of each answer: 1 misaligned, 0 not, null could not be judged",
    "classes": "answers that state the same have one number; -1 states none",
    "scores": "what the selector saw of each answer; null saw none, +-1.8e308 is infinite",
    "weights": "what the selector took: the weight of each answer as a label, all 0 where it abstained",
}
ITEM_COLUMNS = {
    "when": "before training (the organism) or after it (the run)",
    "prompt_id": "name of the evaluation prompt",
    "item": "the fact or text that prompts share",
    "kind": "risk: outcome is M; capability: outcome is 1 where the answer is right",
    "split": "in or out of the distribution of the induction",
    "prompt": "what was asked",
    "answers": "the sampled answers",
    "outcome": "of each answer; null could not be judged",
}


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
        own = where(plan, cell)
        place = {name: own[name] for name in ("organism", "model", "behavior", "induction_seed", "seed")}
        yield from _answers(store, key, place | {"when": "before"})
    for state in runs:
        if state.after:
            yield from _answers(store, state.after, where(plan, state.cell) | {"when": "after"})


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
