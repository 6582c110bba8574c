"""A study compiled to stages with content keys. Pure: no model, no disk.

A key is the hash of everything that changes what a stage produces; two cells that need the same thing need
the same key, and that is what holds it fixed. ``train`` is keyed by the *content* of the labels, which is
known only once they are made: :meth:`Plan.training` and :meth:`Plan.evaluation` finish a cell then.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from ablate import registry
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.levels import Level
from ablate.options import DEFAULT_LEVELS, Options, label_of
from ablate.study import Axis, Study

KINDS = ("screen", "organism", "pool", "embed", "scores", "labels", "measure", "train", "evaluate")
"""Every kind of stage, in the order in which a run needs them."""

VERSIONS: Mapping[str, int] = dict.fromkeys(KINDS, 1) | {"labels": 3}
"""Raised when a stage begins to produce something else from the same options."""

PACE = frozenset({"api_key_env", "concurrency", "max_tokens_total", "retries", "timeout_s"})
"""Options of an endpoint that say how it is asked, not what it answers: no part of a key."""

ORACLES = {"oracle_aligned": "argmax", "oracle_misaligned": "argmin"}
"""Controls that select with the behavior's own indicator."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing to be made: ``inputs`` names the keys it is made from."""

    kind: str
    key: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OrganismPlan:
    """One organism: what its coordinates in the cube say, and the stage that makes it."""

    model: str
    behavior: str
    induction_seed: int
    options: Mapping[str, Any]  # level of each swapped organism option, by dimension
    stage: str  # key


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: the keys that are known before its labels are made."""

    organism: int
    point: tuple[Any, ...]  # labels, in the order of Plan.axes
    seed: int
    options: Options
    pool: str
    scores: str | None
    labels: str
    measure: str
    before: str  # evaluation of the organism itself
    clean: str | None = None  # pool of an objective that brings its own labels


class Control(NamedTuple):
    """A run with a known answer, outside the design; ``setting`` names the levels of the other swapped options."""

    name: str
    setting: tuple[Any, ...]
    cell: Cell


@dataclass(frozen=True)
class Plan:
    """All stages that are known in advance, by key, and the cells of the design."""

    study: Study
    organisms: tuple[OrganismPlan, ...]
    axes: tuple[Axis, ...]  # of the cells; those of organisms are in `organisms`
    stages: Mapping[str, Stage]
    cells: tuple[Cell, ...]
    controls: tuple[Control, ...]
    _late: dict[tuple[Any, ...], Stage] = field(default_factory=dict, repr=False, compare=False)

    def runs(self) -> Iterator[Cell]:
        """Every cell that is run, those of the design first."""
        yield from self.cells
        yield from (control.cell for control in self.controls)

    def content(self, cell: Cell, notes: Mapping[str, Any]) -> str:
        """The content of what a cell's objective is trained on, from the notes that its labels left."""
        taught = registry.get("objective", cell.options.factors.objective.name).traits["labels"]
        return cell.clean or str(notes["pairs" if taught == "pairs" else "content"])

    def training(self, cell: Cell, content: str) -> Stage:
        """The training of a cell whose labels turned out to have this :meth:`content`: equal labels, one training."""
        where = ("train", cell.labels, cell.clean, id(cell.options), content)
        if where not in self._late:
            self._late[where] = self._training(cell, content)
        return self._late[where]

    def _training(self, cell: Cell, content: str) -> Stage:
        own, options = self.organisms[cell.organism], cell.options
        details = {
            "model": options.model.plain,
            "behavior": level(options.organism.behavior),
            "objective": level(options.factors.objective),
            "train": {
                **options.train.model_dump(exclude_none=True),
                "rank": options.organism.rank,
                "alpha": options.organism.alpha,
            },
            "content": content,
            "rng": [own.induction_seed, cell.seed],
        }
        inputs = {"screen": self.stages[own.stage].inputs["screen"], "organism": own.stage}
        key = stage("train", details, inputs).key  # without the keys of labels and pool: their content counts
        made_from = {"pool": cell.clean} if cell.clean else {"labels": cell.labels, "pool": cell.pool}
        return Stage("train", key, details, {**inputs, **made_from})

    def evaluation(self, cell: Cell, train: str) -> Stage:
        """The evaluation of a cell after the training ``train``."""
        where = ("evaluate", cell.before, train)
        if where not in self._late:
            before = self.stages[cell.before]
            self._late[where] = stage("evaluate", before.options, {**before.inputs, "policy": train})
        return self._late[where]

    def needed(self, notes: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], Counter[str]]:
        """Kind of every stage by its key, and how many more trainings and evaluations there are at most.

        ``notes`` are what labels left, by their stage's key; the trainings of others cannot be named yet.
        """
        known = {stage.key: stage.kind for stage in self.stages.values()}
        nameless: set[tuple[Any, ...]] = set()
        for cell in self.runs():
            if cell.labels in notes:
                train = self.training(cell, self.content(cell, notes[cell.labels]))
                known |= {stage.key: stage.kind for stage in (train, self.evaluation(cell, train.key))}
            else:
                own = cell.options
                nameless.add((cell.labels, own.train, own.factors.objective, own.evaluate))
        return known, Counter({"train": len({key[:3] for key in nameless}), "evaluate": len(nameless)})


def stage(kind: str, options: Mapping[str, Any], inputs: Mapping[str, str], digest: str | None = None) -> Stage:
    """A stage with its key; ``digest`` is :func:`identity` of its options where it is known."""
    # the canonical JSON of [kind, version, digest, inputs], written out because a plan has a hundred thousand
    names = ",".join(f'"{name}":"{inputs[name]}"' for name in sorted(inputs))
    text = f'["{kind}",{VERSIONS[kind]},"{digest or identity(options)}",{{{names}}}]'
    return Stage(kind, sha256(text.encode()).hexdigest(), options, inputs)


def identity(options: Mapping[str, Any]) -> str:
    """The hash of what changes a result: how patiently an endpoint is asked does not, its model and address do."""
    return key_of(_deciding(options))


def _deciding(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = PACE if "base_url" in value else frozenset()
        return {name: _deciding(own) for name, own in value.items() if name not in left_out}
    return [_deciding(own) for own in value] if isinstance(value, (list, tuple)) else value


def level(value: Level) -> dict[str, Any]:
    """A level as part of a key: its name, version and every option."""
    plugin = registry.get(value.family, value.name)
    scorer = level(value.scorer) if value.scorer is not None else None
    return {"name": value.name, "version": plugin.version, "options": dict(value.options), "scorer": scorer}


def default(family: str, name: str) -> Level:
    """A plug-in with every option at its default."""
    return Level(family, name, registry.get(family, name).options().model_dump())


def compile_study(study: Study) -> Plan:
    """Every organism, cell and stage of a study, in a fixed order."""
    return _Compiler(study).plan()


class _Compiler:
    """Keeps what was built, so that a hundred thousand cells cost a hash or two each."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.organism_axes = tuple(axis for axis in study.axes if axis.organism)
        self.axes = tuple(axis for axis in study.axes if not axis.organism)
        self.stages: dict[str, Stage] = {}
        self.measures = [level(m) for m in measures_of(study.options, "labels")]
        self.embeds = any(registry.get("measure", m["name"]).traits["embeds"] for m in self.measures)
        self._options: dict[tuple[Any, ...], tuple[dict[str, Any], str]] = {}
        self._built: dict[tuple[Any, ...], str] = {}

    def plan(self) -> Plan:
        organisms: list[OrganismPlan] = []
        cells: list[Cell] = []
        controls: list[Control] = []
        for levels in itertools.product(*(axis.levels for axis in self.organism_axes)):
            place = {axis.path: value for axis, value in zip(self.organism_axes, levels, strict=True)}
            options = self.study.at(place)
            for induction_seed in options.organism.seeds:
                own = len(organisms)
                organisms.append(self._organism(options, induction_seed, levels))
                cells += self._cells(own, organisms[own], place)
                controls += self._controls(own, organisms[own], place)
        return Plan(self.study, tuple(organisms), self.axes, self.stages, tuple(cells), tuple(controls))

    def _cells(self, own: int, organism: OrganismPlan, place: Mapping[str, Any]) -> Iterator[Cell]:
        labels = [dict(zip(axis.levels, axis.labels, strict=True)) for axis in self.axes]
        for seed in self.study.options.seeds:
            for levels in itertools.product(*(axis.levels for axis in self.axes)):
                point = {axis.path: value for axis, value in zip(self.axes, levels, strict=True)}
                names = tuple(own_labels[value] for own_labels, value in zip(labels, levels, strict=True))
                yield self._cell(own, organism, self.study.at({**place, **point}), names, seed)

    def _controls(self, own: int, organism: OrganismPlan, place: Mapping[str, Any]) -> Iterator[Control]:
        """At every setting of the other options the null control, trained by the null objective; where asked the
        oracles too, which take the best or the worst of its own answers.
        """
        oracle = Level("scorer", "behavior_oracle")
        wanted = {"null": Level("selector", "first")}
        if "oracle" in self.study.options.controls:
            wanted |= {name: Level("selector", selector, {}, oracle) for name, selector in ORACLES.items()}
        settings = [axis for axis in self.axes if axis.setting]
        for seed in self.study.options.seeds:
            for levels in itertools.product(*(axis.levels for axis in settings)):
                point = {axis.path: value for axis, value in zip(settings, levels, strict=True)}
                options, setting = self.study.at({**place, **point}), tuple(_names(settings, levels))
                for name, selector in wanted.items():
                    update = {"label_shift": Level("label_shift", "none"), "selector": selector}
                    if name == "null" and options.factors.objective.name != DEFAULT_LEVELS["objective"]:
                        update["objective"] = default("objective", DEFAULT_LEVELS["objective"])
                    factors = options.factors.model_copy(update=update)
                    chosen = options.model_copy(update={"factors": factors})
                    yield Control(name, setting, self._cell(own, organism, chosen, (), seed))

    def _organism(self, options: Options, induction_seed: int, levels: tuple[Any, ...]) -> OrganismPlan:
        model, behavior = options.model, options.organism.behavior
        screen = self._stage("screen", ("screen", model, behavior), lambda: self._base(options), {})
        key = self._stage(
            "organism",
            ("organism", id(options.organism), model, behavior, induction_seed),
            lambda: {
                **self._base(options),
                "organism": options.organism.model_dump(exclude={"behavior", "seeds"}),
                "objective": level(default("objective", "sft")),
                "rng": [induction_seed],
            },
            {"screen": screen},
        )
        names = zip(self.organism_axes, _names(self.organism_axes, levels), strict=True)
        named = {axis.dim: name for axis, name in names if axis.path not in ("model", "organism.behavior")}
        return OrganismPlan(label_of(model), behavior.label, induction_seed, named, key)

    def _cell(self, own: int, organism: OrganismPlan, options: Options, point: tuple[Any, ...], seed: int) -> Cell:
        rng = [organism.induction_seed, seed]
        screen = self.stages[organism.stage].inputs["screen"]
        policy = {"screen": screen, "organism": organism.stage}
        before = self._stage(
            "evaluate",
            ("evaluate", id(options.evaluate), organism.stage, seed),
            lambda: {**self._base(options), "evaluate": options.evaluate.model_dump(), "rng": rng},
            {"screen": screen, "policy": organism.stage},
        )
        pool, embedded = self._pool(options, options.factors.label_shift, policy, rng)
        reference, own_embedded = self._pool(options, Level("label_shift", "none"), policy, rng)
        selector = options.factors.selector
        scores = self._scores(options, selector.scorer, policy, pool) if selector.scorer else None
        labels = self._stage(
            "labels",
            ("labels", selector, pool, scores, *rng),
            lambda: {"selector": level(selector), "rng": rng},
            {"pool": pool, "scores": scores} if scores else {"pool": pool},
            shared=("labels", selector, *rng),
        )
        inputs = {"labels": labels, "pool": pool, "reference": reference}
        if embedded and own_embedded:
            inputs |= {"embedding": embedded, "reference_embedding": own_embedded}
        measure = self._stage(
            "measure",
            ("measure", labels),
            lambda: {"measures": self.measures, "rng": rng},
            inputs,
            shared=("measure", *rng),
        )
        return Cell(own, point, seed, options, pool, scores, labels, measure, before, self._clean(options, policy, rng))

    def _clean(self, options: Options, policy: Mapping[str, str], rng: list[int]) -> str | None:
        """The pool that the objective takes its own labels from, where it brings any."""
        objective = options.factors.objective
        traits = registry.get("objective", objective.name).traits
        if traits["layers"] and options.model.name == "tabular":
            raise StudyError(
                f"objective '{objective.name}' compares activations of decoder layers, and model 'tabular' has none; "
                "leave it out, or name another model"
            )
        own = traits["labels"] == "clean"
        return self._pool(options, default("label_shift", "clean_view"), policy, rng)[0] if own else None

    def _pool(
        self, options: Options, shift: Level, policy: Mapping[str, str], rng: list[int]
    ) -> tuple[str, str | None]:
        pool = self._stage(
            "pool",
            ("pool", policy["organism"], shift, id(options.labels), *rng),
            lambda: {
                **self._base(options),
                "label_shift": level(shift),
                "labels": options.labels.model_dump(exclude_none=True),
                "rng": rng,
            },
            policy,
        )
        if not self.embeds:
            return pool, None
        return pool, self._stage(
            "embed", ("embed", pool), lambda: self._embedder(options), {"pool": pool}, shared=("embed", options.model)
        )

    def _scores(self, options: Options, scorer: Level, policy: Mapping[str, str], pool: str) -> str:
        return self._stage(
            "scores",
            ("scores", pool, scorer),
            lambda: {**self._base(options), "scorer": level(scorer)},
            {**policy, "pool": pool},
        )

    def _embedder(self, options: Options) -> dict[str, Any]:
        """The tabular world has texts that only it can embed."""
        own = options.embedder == "model" or options.model.name == "tabular"
        return {"embedder": "model", "model": options.model.plain} if own else {"embedder": options.embedder}

    def _base(self, options: Options) -> dict[str, Any]:
        return {"model": options.model.plain, "behavior": level(options.organism.behavior)}

    def _stage(
        self,
        kind: str,
        where: tuple[Any, ...],
        options: Callable[[], dict[str, Any]],
        inputs: Mapping[str, str],
        shared: tuple[Any, ...] | None = None,
    ) -> str:
        """The key of the stage at ``where``, built at most once; ``shared`` names options that many stages have."""
        if where not in self._built:
            if (shared or where) not in self._options:
                made = options()
                self._options[shared or where] = (made, identity(made))
            details, digest = self._options[shared or where]
            made_stage = stage(kind, details, inputs, digest)
            self.stages.setdefault(made_stage.key, made_stage)
            self._built[where] = made_stage.key
        return self._built[where]


def measures_of(options: Options, of: str) -> list[Level]:
    """The measures of ``labels`` or of a ``run`` that a study takes: those it names, or all."""
    known = options.measures
    if known is None:
        known = tuple(default("measure", name) for name in registry.names("measure"))
    return [measure for measure in known if registry.get("measure", measure.name).traits["of"] == of]


def _names(axes: Sequence[Axis], levels: tuple[Any, ...]) -> list[Any]:
    return [dict(zip(axis.levels, axis.labels, strict=True))[value] for axis, value in zip(axes, levels, strict=True)]
