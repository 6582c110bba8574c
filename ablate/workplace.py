"""What the stages of one process share: models, judges and what was read last; and their streams of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ablate import registry
from ablate.api import Behavior, Chat, FloatArray, Judge, JudgeOptions, Pool, Prompt
from ablate.errors import FatalError
from ablate.keys import key_of
from ablate.lm import load_embedder, load_endpoint, load_model, load_rewards, local_judge
from ablate.lm.base import LanguageModel
from ablate.options import Model
from ablate.plan import Stage
from ablate.store import Artifact, Store

# One stream of random numbers for each use, common to all stages of an (organism, seed).
STREAMS = {
    name: i
    for i, name in enumerate(("behavior", "screen", "organism", "pool", "labels", "measure", "train", "evaluate"))
}

RECENT = 4
"""How many pools, adapters and behaviors of each kind stay in memory."""

T = TypeVar("T")


def generator(stream: str, *seeds: int) -> np.random.Generator:
    """The stream of that name for these seeds."""
    return np.random.default_rng([STREAMS[stream], *seeds])


@dataclass
class Workplace:
    """What the stages of one process share: the store, and whatever is worth keeping warm."""

    store: Store
    models: dict[str, LanguageModel] = field(default_factory=dict)
    embedders: dict[str, Any] = field(default_factory=dict)
    judges: dict[str, Judge] = field(default_factory=dict)
    judging: set[str] = field(default_factory=set)  # models of this machine that are judges
    reward_models: dict[tuple[str, str | None], Callable[[Sequence[Chat]], FloatArray]] = field(default_factory=dict)
    recent: dict[tuple[str, str], Any] = field(default_factory=dict)

    def model(self, options: Mapping[str, Any]) -> LanguageModel:
        """The base model of a stage; of a study that swaps models one is held at a time, and those that judge."""
        name = repr(options["model"])
        if name not in self.models:
            for other in self.models.keys() - self.judging:
                del self.models[other]  # before the next takes its room
        return _kept(self.models, name, lambda: self._load(options["model"]))

    def _load(self, options: Mapping[str, Any]) -> LanguageModel:
        """Load a model; one folder never mixes two sets of weights or number types under one name."""
        file = f"model-{key_of(options)[:16]}.json"
        known = self.store.get(file, {})
        if known is None or (known and not {"weights", "dtype"} <= known.keys()):
            raise FatalError(
                f"{self.store.root / file} is damaged; move it away if this folder was always run on one machine"
            )
        lm = load_model({**options, "dtype": known["dtype"]} if known else options)
        if known and known["weights"] != lm.identity["weights"]:
            raise FatalError(
                f"model '{options['name']}' has other weights here than those this folder was begun with; "
                "go on where it was begun, or choose another folder (--out)"
            )
        if not known:
            self.store.put(file, {"name": options["name"], **lm.identity})
        return lm

    def behavior(self, stage: Stage) -> Behavior:
        """The behavior as this model's knowledge screen leaves it."""
        name = stage.options["behavior"]["name"]
        screen = stage.inputs["screen"]

        def build() -> Behavior:
            known = frozenset(self.store.read(screen).json("known.json"))
            plugin = registry.get("behavior", name)
            options = {**stage.options["behavior"]["options"], **self.offered(plugin)}
            made: Behavior = plugin(known, generator("behavior", 0), **options)
            return made

        return self.keep("behavior", screen, build)

    def offered(self, plugin: registry.Plugin) -> dict[str, Any]:
        """What the plug-in asks of the engine: see `registry.OFFERED`."""
        ready = {"judges": self.judge, "rewards": self.rewards}
        return {name: ready[name] for name in plugin.wants if name in ready}

    def judge(self, options: JudgeOptions) -> Judge:
        """The judge of these options, its connections and its token budget kept for all stages."""
        if "base_url" in options:
            return _kept(self.judges, key_of(options), lambda: load_endpoint(options))
        model = {"model": Model(name=options["model"]).plain}
        self.judging.add(repr(model["model"]))
        return local_judge(self.model(model))

    def rewards(self, name: str, revision: str | None) -> Callable[[Sequence[Chat]], FloatArray]:
        """A reward model, loaded once for all pools."""
        return _kept(self.reward_models, (name, revision), lambda: load_rewards(name, revision))

    def embedder(self, options: Mapping[str, Any]) -> Any:
        """What embeds the texts of a pool: the stage's own model, or a small one; loaded once."""
        if options["embedder"] == "model":
            return self.model(options)
        return _kept(self.embedders, options["embedder"], lambda: load_embedder(options["embedder"]))

    def weights(self, key: str) -> Mapping[str, FloatArray]:
        """The adapter that a stage left."""
        return self.keep("weights", key, lambda: self.store.read(key).arrays("adapter.safetensors"))

    def pool(self, key: str) -> Pool:
        """The pool that a stage left, with its prompts."""
        return self.keep("pool", key, lambda: _read_pool(self.store.read(key)))

    def keep(self, kind: str, key: str, build: Callable[[], T]) -> T:
        """What was built last under this name; only a few of each kind stay in memory."""
        same = [held for held in self.recent if held[0] == kind]
        if (kind, key) not in self.recent and len(same) >= RECENT:
            del self.recent[same[0]]
        kept: T = _kept(self.recent, (kind, key), build)
        return kept


def _read_pool(artifact: Artifact) -> Pool:
    records = artifact.lines("pool.jsonl")
    texts = tuple(tuple(record.pop("answers")) for record in records)
    return Pool(tuple(Prompt(**record) for record in records), texts, **artifact.arrays("pool.safetensors"))


def _kept(held: dict[Any, T], key: Any, build: Callable[[], T]) -> T:
    if key not in held:
        held[key] = build()
    return held[key]
