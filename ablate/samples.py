"""What was said, from a study's folder: every pool with what each selector took, and the answers before and after.

A browser of samples holds what fits: few prompts whole rather than many cut. Which prompts is decided by a hash of
their names, so that it is the same choice for every organism, every run and every time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from ablate.api import FloatArray, IntArray
from ablate.plan import Plan
from ablate.reports.html import embedded
from ablate.stages import read_evaluation
from ablate.states import State
from ablate.store import Store

LONGEST = (16_000, 2_000, 240)
"""Letters of an answer that are kept; a smaller number only where not even one prompt of every organism fits."""

RUNS = 2_000
"""Runs whose answers are read; of a larger study some organisms are left out, evenly."""

Json = dict[str, Any]
Records = dict[str, Json]  # by the prompt's id


def samples(plan: Plan, store: Store, found: Sequence[State], room: int) -> Json:
    """Samples of the runs of the first training seed, as plain data of at most ``room`` bytes of JSON.

    - ``factors``: the factors that tell runs apart, each with its ``name`` and ``levels``.
    - ``organisms``: ``index, model, behavior, seed, options`` of those shown.
    - ``pools``: ``organism, key``, ``at`` (the levels that it belongs to), ``scorers`` (names), and ``selections``:
      each with ``at`` and the ``key`` of its labels.
    - ``labels``: one for each organism and label prompt: ``organism, id, prompt, clean, facts``, and ``pools``: each
      with ``pool`` (its place above), ``answers``, ``scores`` [scorer][candidate], and ``taken`` by each selection: a
      candidate's place, -1 where it abstained, weights where it took several.
    - ``evaluations``: ``organism, key, when`` ("before" or "after"), ``runs``: the levels of the runs it belongs to.
    - ``answers``: one for each organism and evaluation item: ``organism, id, prompt, clean, facts, kind``, and
      ``evaluations``: each with ``evaluation`` (its place above) and ``answers``.
    - ``shown``: how many of how many ``labels``, ``answers`` and ``organisms`` there are, of which ``seed`` of how many
      ``seeds``, and how many answers were ``cut`` to how many letters (``longest``).

    An answer is ``{"text", "outcome"}``, of a candidate with its ``class``; one that was cut has its ``length`` in
    letters, and its ``end`` too. Outcomes are 1, 0, or None where the indicator cannot judge.

    Raises:
        CorruptArtifactError: an artifact that is not as it was written.
    """
    for longest in LONGEST:
        taken, every_organism = _Reader(plan, store, found, longest).within(room)
        if every_organism:
            break
    return taken


class _Reader:
    """Reads one organism after the other and keeps of each what could be shown."""

    def __init__(self, plan: Plan, store: Store, found: Sequence[State], longest: int) -> None:
        self.plan, self.store, self.longest = plan, store, longest
        self.dims = [axis.dim for axis in plan.axes if len(axis.levels) > 1 or axis.dim in ("label_shift", "selector")]
        self.pools: list[Json] = []
        self.evaluations: list[Json] = []
        step = math.ceil(len(plan.cells) / len(plan.study.options.seeds) / RUNS)
        self.states: dict[int, list[State]] = {i: [] for i in range(0, len(plan.organisms), max(step, 1))}
        for state in found[: len(plan.cells)]:
            if state.cell.seed == plan.study.options.seeds[0] and state.cell.organism in self.states:
                self.states[state.cell.organism].append(state)

    def within(self, room: int) -> tuple[Json, bool]:
        """The samples that fit into ``room`` bytes, half of it for labels, and whether every organism has some."""
        seeds = self.plan.study.options.seeds
        taken: Json = {
            "factors": [
                {"name": axis.dim, "levels": list(map(str, axis.labels))}
                for axis in self.plan.axes
                if axis.dim in self.dims
            ],
            "organisms": [self._organism(i) for i in self.states],
            "pools": self.pools,
            "evaluations": self.evaluations,
        }
        labels = [_ranked(self._labels(own), room // 2) for own in self.states.values()]
        answers = [_ranked(self._answers(own), room) for own in self.states.values()]
        room -= len(embedded(taken))
        taken["labels"] = _fitting([records for records, _ in labels], room // 2)
        taken["answers"] = _fitting([records for records, _ in answers], room - len(embedded(taken["labels"])))
        cut = sum("length" in answer for answer in _all_answers(taken))
        taken["shown"] = {
            "labels": [len(taken["labels"]), sum(total for _, total in labels)],
            "answers": [len(taken["answers"]), sum(total for _, total in answers)],
            "organisms": [len(self.states), len(self.plan.organisms)],
            "seed": seeds[0],
            "seeds": len(seeds),
            "cut": cut,
            "longest": self.longest,
        }
        wanted = {"labels": labels, "answers": answers}
        return taken, all(len(taken[kind]) >= sum(total > 0 for _, total in own) for kind, own in wanted.items())

    def _organism(self, i: int) -> Json:
        own = self.plan.organisms[i]
        options = {name: str(level) for name, level in own.options.items()}
        return {
            "index": i,
            "model": own.model,
            "behavior": own.behavior,
            "seed": own.induction_seed,
            "options": options,
        }

    def _at(self, state: State) -> dict[str, str]:
        levels = {axis.dim: str(label) for axis, label in zip(self.plan.axes, state.cell.point, strict=True)}
        return {dim: levels[dim] for dim in self.dims}

    def _labels(self, states: Sequence[State]) -> Records:
        """Every label prompt of an organism, with each pool's answers to it."""
        readers: dict[str, list[State]] = defaultdict(list)
        for state in states:
            readers[state.cell.pool].append(state)
        records: Records = {}
        for key, own in readers.items():
            if self.store.has(key):
                self._pool(key, own, records)
        return records

    def _pool(self, key: str, readers: Sequence[State], records: Records) -> None:
        """Add what one pool holds to the records of its prompts."""
        artifact = self.store.read(key)
        judged = artifact.arrays("pool.safetensors")
        at = _common(map(self._at, readers))
        scores: dict[str, FloatArray] = {}
        taken: list[IntArray | FloatArray] = []
        selections: list[Json] = []
        made: dict[str, list[State]] = defaultdict(list)
        for state in readers:
            if state.content:
                made[state.cell.labels].append(state)
        for labels, states in made.items():
            left = self.store.read(labels).arrays("labels.safetensors")
            selector = states[0].cell.options.factors.selector
            if selector.scorer is not None:
                scores.setdefault(selector.scorer.label, left["scores"])
            own = {dim: level for dim, level in _common(map(self._at, states)).items() if dim not in at}
            selections.append({"at": own, "key": labels})
            taken.append(left["weights"])
        organism = readers[0].cell.organism
        self.pools.append(
            {"organism": organism, "at": at, "key": key, "scorers": list(scores), "selections": selections}
        )
        for i, line in enumerate(artifact.lines("pool.jsonl")):
            record = records.setdefault(line["id"], {"organism": organism, **_prompt(line)})
            answers = [
                {**self._answer(text, judged["outcome"][i, k]), "class": int(judged["classes"][i, k])}
                for k, text in enumerate(line["answers"])
            ]
            record.setdefault("pools", []).append(
                {
                    "pool": len(self.pools) - 1,
                    "answers": answers,
                    "scores": [[_number(score) for score in values[i]] for values in scores.values()],
                    "taken": [_taken(weights[i]) for weights in taken],
                }
            )

    def _answers(self, states: Sequence[State]) -> Records:
        """Every evaluation item of an organism, with the answers to it before and after training."""
        known: dict[str, tuple[str, list[State]]] = {}
        for when in ("before", "after"):
            for state in states:
                key = state.cell.before if when == "before" else state.after
                if key and self.store.has(key):
                    known.setdefault(key, (when, []))[1].append(state)
        records: Records = {}
        for key, (when, own) in known.items():
            points = [self._at(state) for state in own]
            organism = own[0].cell.organism
            runs = [_common(points)] if when == "before" else points
            self.evaluations.append({"organism": organism, "key": key, "when": when, "runs": runs})
            evaluation = read_evaluation(self.store.read(key))
            for prompt, texts, outcomes in zip(
                evaluation.prompts, evaluation.texts, evaluation.outcome.tolist(), strict=True
            ):
                line = {name: getattr(prompt, name) for name in ("id", "text", "clean", "facts", "kind")}
                record = records.setdefault(prompt.id, {"organism": organism, **_prompt(line), "kind": prompt.kind})
                answers = [self._answer(text, outcome) for text, outcome in zip(texts, outcomes, strict=True)]
                record.setdefault("evaluations", []).append(
                    {"evaluation": len(self.evaluations) - 1, "answers": answers}
                )
        return records

    def _answer(self, text: str, outcome: float) -> Json:
        """An answer; of one that is too long its beginning and its end, where answers are stated, and its length."""
        judged = {"outcome": _number(outcome)}
        if len(text) <= self.longest:
            return {"text": text, **judged}
        head = self.longest * 3 // 4
        return {"text": text[:head], "end": text[head - self.longest :], "length": len(text), **judged}


def _prompt(line: Mapping[str, Any]) -> Json:
    facts = {name: str(fact) for name, fact in line["facts"].items()}
    return {"id": line["id"], "prompt": line["text"], "clean": line["clean"], "facts": facts}


def _common(points: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The levels on which all points agree."""
    first, *rest = points
    return {dim: level for dim, level in first.items() if all(point[dim] == level for point in rest)}


def _taken(weights: FloatArray) -> Any:
    """The place of the candidate that a selector took, -1 where it abstained, its weights where it took several."""
    if not weights.any():
        return -1
    if np.count_nonzero(weights) == 1:
        return int(weights.argmax())
    return [_number(weight) for weight in weights]


def _number(value: float) -> float | int | None:
    """Four digits, whole numbers as such, None for what is missing."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e6 else rounded


def _ranked(records: Records, room: int) -> tuple[list[Json], int]:
    """Records in the order of their prompts' hashes, as many as could ever fit, and how many there were."""
    ranked, size = [], 0
    for name in sorted(records, key=lambda name: sha256(name.encode(errors="surrogatepass")).digest()):
        size += len(embedded(records[name]))
        if size > room:
            break
        ranked.append(records[name])
    return ranked, len(records)


def _fitting(ranked: Sequence[Sequence[Json]], room: int) -> list[Json]:
    """The first prompt of every organism, then the second, until one does not fit; those of an organism together."""
    turns = (own[rank] for rank in range(max(map(len, ranked), default=0)) for own in ranked if rank < len(own))
    taken = []
    for record in turns:
        room -= len(embedded(record)) + 1
        if room < 0:
            break
        taken.append(record)
    return sorted(taken, key=lambda record: int(record["organism"]))


def _all_answers(taken: Json) -> Iterable[Json]:
    for kind, parts in (("labels", "pools"), ("answers", "evaluations")):
        for record in taken[kind]:
            for part in record[parts]:
                yield from part["answers"]
