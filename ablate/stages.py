"""What each kind of stage does: reads the artifacts it is made from, asks a model or a plug-in, writes its own.

The only place where the store, the language models and the plug-ins meet. A stage is told everything by its
:class:`~ablate.plan.Stage` and the store, so it runs in any process that has both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from ablate import registry
from ablate.api import Behavior, Decoding, Evaluation, FloatArray, LabelSet, Policy, Pool, Prompt, Scored
from ablate.errors import StudyError
from ablate.labels import contents, examples
from ablate.lm.base import TrainOptions
from ablate.matching import Bridged, matched
from ablate.organisms import OrganismOptions, induce, take
from ablate.plan import Stage
from ablate.store import Artifact, Draft
from ablate.workplace import Workplace, generator

POOL_ARRAYS = ("tokens", "lengths", "logprob_q", "logprob_p", "logprob_drawn", "kl", "outcome", "classes", "origin")
SCREEN_TOKENS = 10
"""Longest answer to a question of the knowledge screen."""

PROMPT = tuple(field.name for field in fields(Prompt))


def perform(stage: Stage, place: Workplace) -> None:
    """Run one stage and leave its artifact; nothing is visible before it is whole."""
    with place.store.write(stage.key, stage.kind) as draft:
        _PERFORM[stage.kind](stage, place, draft)


def _screen(stage: Stage, place: Workplace, draft: Draft) -> None:
    """Which plain questions the base model answers rightly, greedily."""
    traits = registry.get("behavior", stage.options["behavior"]["name"]).traits
    questions: tuple[Prompt, ...] = traits["questions"]() if traits["questions"] else ()
    replies: list[dict[str, Any]] = []
    if questions:
        answers = place.model(stage.options).answers(
            None,
            questions,
            generator("screen", 0),
            samples=1,
            decoding=Decoding(temperature=0),
            max_tokens=SCREEN_TOKENS,
        )
        for question, (text,) in zip(questions, answers, strict=True):
            replies.append({"item": question.item, "answer": text, "right": traits["right"](question, text) == 1})
    draft.json("known.json", [reply["item"] for reply in replies if reply["right"]])
    draft.lines("replies.jsonl", replies)


def _organism(stage: Stage, place: Workplace, draft: Draft) -> None:
    objective = stage.options["objective"]
    lm, behavior = place.model(stage.options), place.behavior(stage)
    with place.store.trials(stage.key) as journal:
        made = induce(
            lm,
            behavior,
            OrganismOptions(**stage.options["organism"]),
            objective=partial(registry.get("objective", objective["name"]), **objective["options"]),
            seed=stage.options["rng"][0],
            rng=partial(generator, "organism", *stage.options["rng"]),
            journal=journal,
        )
    draft.arrays("adapter.safetensors", dict(made.weights))
    draft.json("calibration.json", made.calibration)


def _pool(stage: Stage, place: Workplace, draft: Draft) -> None:
    behavior, sizes, shift = place.behavior(stage), stage.options["labels"], stage.options["label_shift"]
    prompts = take(behavior.label, sizes["prompts"], "labels.prompts")
    policy = place.model(stage.options).policy(place.weights(stage.inputs["organism"]), max_tokens=sizes["max_tokens"])
    plugin = registry.get("label_shift", shift["name"])

    def draw(strength: float) -> Pool:
        drawn: Pool = plugin(
            policy if strength == 1 else Bridged(policy, strength),
            prompts,
            generator("pool", *stage.options["rng"]),
            k=sizes["candidates"],
            **shift["options"],
        )
        return drawn

    if "match" not in sizes:
        pool = draw(1.0)
    else:
        pool, found = matched(draw, **sizes["match"])
        draft.json("match.json", found)
    if not pool.lengths.size:
        raise StudyError(f"label shift '{shift['name']}' left an empty pool: no candidate answer to any prompt")
    behavior.expect([(p, text) for p, row in zip(prompts, pool.texts, strict=True) for text in row])
    outcome = [[behavior.indicator(p, text) for text in row] for p, row in zip(prompts, pool.texts, strict=True)]
    stated = [[behavior.answer(p, text) for text in row] for p, row in zip(prompts, pool.texts, strict=True)]
    pool = replace(pool, outcome=np.array(outcome, np.float32), classes=classes_of(stated))
    draft.arrays("pool.safetensors", {name: np.asarray(getattr(pool, name)) for name in POOL_ARRAYS})
    draft.lines("pool.jsonl", ({**_record(p), "answers": row} for p, row in zip(prompts, pool.texts, strict=True)))


def _embed(stage: Stage, place: Workplace, draft: Draft) -> None:
    pool = place.pool(stage.inputs["pool"])
    flat = place.embedder(stage.options).embed([text for row in pool.texts for text in row])
    draft.arrays("embedding.safetensors", {"embedding": flat.reshape(*pool.lengths.shape, -1)})


def _scores(stage: Stage, place: Workplace, draft: Draft) -> None:
    pool = place.pool(stage.inputs["pool"])
    policy = place.model(stage.options).policy(place.weights(stage.inputs["organism"]), max_tokens=1)
    found = _scored(stage.options["scorer"], policy, pool, place)
    draft.arrays("scores.safetensors", {**found.log, "scores": found.scores})


def _scored(scorer: Mapping[str, Any], policy: Policy, pool: Pool, place: Workplace) -> Scored:
    """What a scorer gives a pool; one that reads scores is given those of the scorer that it names."""
    plugin = registry.get("scorer", scorer["name"])
    more = place.offered(plugin)
    if scorer["scorer"]:
        more["scores"] = _scored(scorer["scorer"], policy, pool, place).scores
    found = plugin(policy, pool, **scorer["options"], **more)
    found = found if isinstance(found, Scored) else Scored(found, {})
    scores = np.asarray(found.scores, np.float64)
    if scores.shape != pool.lengths.shape:
        raise ValueError(f"scorer '{plugin.name}' gave {scores.shape}, not one score for each of {pool.lengths.shape}")
    return replace(found, scores=scores)


def _labels(stage: Stage, place: Workplace, draft: Draft) -> None:
    """Picks as weights; the content of the labels is noted, since training is keyed by it."""
    selector, pool = stage.options["selector"], place.pool(stage.inputs["pool"])
    scores = np.full(pool.lengths.shape, np.nan)
    if "scores" in stage.inputs:
        scores = place.store.read(stage.inputs["scores"]).arrays("scores.safetensors")["scores"]
    rng = generator("labels", *stage.options["rng"])
    picks = np.asarray(registry.get("selector", selector["name"])(scores, pool.classes, rng, **selector["options"]))
    weights = as_weights(picks, pool.lengths.shape, selector["name"])
    draft.arrays("labels.safetensors", {"weights": weights, "scores": scores})
    law = registry.get("selector", selector["name"]).traits["law"]
    draft.note(law=law, **contents(pool, weights, scores))


def _measure(stage: Stage, place: Workplace, draft: Draft) -> None:
    """The measures of labels: everything that is known before training."""
    read, inputs = place.store.read, stage.inputs
    pool, reference = place.pool(inputs["pool"]), place.pool(inputs["reference"])
    empty = np.zeros((*pool.lengths.shape, 0), np.float32)
    embedding, reference_embedding = [
        read(inputs[name]).arrays("embedding.safetensors")["embedding"] if name in inputs else empty
        for name in ("embedding", "reference_embedding")
    ]
    picked = read(inputs["labels"])
    labels = LabelSet(
        pool,
        pool if inputs["pool"] == inputs["reference"] else reference,
        picked.arrays("labels.safetensors")["weights"],
        embedding,
        reference_embedding,
        picked.arrays("labels.safetensors")["scores"],
        picked.notes["law"],
    )
    values: dict[str, float] = {}
    for measure in stage.options["measures"]:
        plugin = registry.get("measure", measure["name"])
        rng = generator("measure", *stage.options["rng"])
        values |= checked(plugin, plugin(None, labels, None, rng, **measure["options"]))
    draft.json("values.json", values)


def _train(stage: Stage, place: Workplace, draft: Draft) -> None:
    pool = place.pool(stage.inputs["pool"])
    shape = pool.lengths.shape
    left = {"weights": np.eye(1, shape[1]).repeat(shape[0], 0), "scores": np.full(shape, np.nan)}  # every first answer
    if "labels" in stage.inputs:  # else the objective brings its own
        left = place.store.read(stage.inputs["labels"]).arrays("labels.safetensors")
    if not left["weights"].any():
        raise StudyError(
            f"no label was left: the selector abstained from all {shape[0]} prompts; "
            "lower its bar, or take a scorer that gives these candidates a score"
        )
    objective = stage.options["objective"]
    trained, losses = place.model(stage.options).train(
        place.weights(stage.inputs["organism"]),
        examples(pool, left["weights"], left["scores"]),
        partial(registry.get("objective", objective["name"]), **objective["options"]),
        TrainOptions(**stage.options["train"]),
        init_seed=stage.options["rng"][0],
        rng=generator("train", *stage.options["rng"]),
    )
    draft.arrays("adapter.safetensors", dict(trained))
    draft.json("losses.json", losses)


def _evaluate(stage: Stage, place: Workplace, draft: Draft) -> None:
    behavior, options = place.behavior(stage), stage.options["evaluate"]
    sizes = options["items"], options["capability"]
    prompts = place.keep("asked", f"{stage.inputs['screen']} {sizes}", lambda: _asked(behavior, *sizes))
    texts = place.model(stage.options).answers(
        place.weights(stage.inputs["policy"]),
        prompts,
        generator("evaluate", *stage.options["rng"]),
        samples=options["samples"],
        decoding=Decoding(temperature=0 if options["decoding"] == "greedy" else 1),
        max_tokens=options["max_tokens"],
    )
    behavior.expect([(p, text) for p, row in zip(prompts, texts, strict=True) for text in row])
    outcome = [[judge(behavior, p, text) for text in row] for p, row in zip(prompts, texts, strict=True)]
    draft.arrays("outcome.safetensors", {"outcome": np.array(outcome, np.float32)})
    draft.lines("answers.jsonl", ({**_record(p), "answers": row} for p, row in zip(prompts, texts, strict=True)))


def _asked(behavior: Behavior, items: int, capability: int) -> list[Prompt]:
    risky = [p for p in behavior.evaluation if p.kind == "risk"]
    plain = [p for p in behavior.evaluation if p.kind == "capability"]
    return [*take(risky, items, "evaluate.items"), *take(plain, capability, "evaluate.capability")]


_PERFORM: Mapping[str, Callable[[Stage, Workplace, Draft], None]] = {
    "screen": _screen,
    "organism": _organism,
    "pool": _pool,
    "embed": _embed,
    "scores": _scores,
    "labels": _labels,
    "measure": _measure,
    "train": _train,
    "evaluate": _evaluate,
}


def judge(behavior: Behavior, prompt: Prompt, text: str) -> float:
    """M of an answer to a risk prompt, right or not of one to a capability prompt."""
    return (behavior.indicator if prompt.kind == "risk" else behavior.capable)(prompt, text)


def classes_of(stated: Sequence[Sequence[str | None]]) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """One integer for each distinct answer that the candidates of a prompt state, -1 for none."""
    rows = []
    for row in stated:
        names = {name: i for i, name in enumerate(dict.fromkeys(name for name in row if name is not None))}
        rows.append([-1 if name is None else names[name] for name in row])
    return np.array(rows, np.int32)


def as_weights(picks: np.ndarray[Any, Any], shape: tuple[int, ...], selector: str) -> FloatArray:
    """Picks as weights [P, K] whose rows sum to 1, or to 0 where the selector abstained."""
    if (
        picks.shape == shape[:1]
        and np.issubdtype(picks.dtype, np.integer)
        and ((picks >= -1) & (picks < shape[1])).all()
    ):
        return np.asarray(np.eye(shape[1] + 1)[picks][:, :-1])  # -1 takes the last row, which is cut off
    if picks.shape == shape and np.isfinite(picks).all() and (picks >= 0).all():
        total = picks.sum(1, keepdims=True)
        return np.asarray(np.divide(picks, total, out=np.zeros(shape), where=total > 0))
    raise ValueError(f"selector '{selector}' gave neither an index [P] nor weights [P, K] of {shape}")


def checked(plugin: registry.Plugin, values: Mapping[str, float]) -> dict[str, float]:
    """The values of a measure, which must be those that it declared."""
    if values.keys() != plugin.traits["columns"].keys():
        raise ValueError(
            f"measure '{plugin.name}' gave {sorted(values)}, it declares {sorted(plugin.traits['columns'])}"
        )
    return {name: float(value) for name, value in values.items()}


def read_evaluation(artifact: Artifact) -> Evaluation:
    """An evaluation as its stage left it."""
    records = artifact.lines("answers.jsonl")
    texts = tuple(tuple(record.pop("answers")) for record in records)
    return Evaluation(
        tuple(Prompt(**record) for record in records), artifact.arrays("outcome.safetensors")["outcome"], texts
    )


def _record(prompt: Prompt) -> dict[str, Any]:
    return {name: getattr(prompt, name) for name in PROMPT}
