"""The options of a study with one level each: what a field means, its default and its bounds.

Every description ends up in the JSON Schema that editors read and in the comments of ``ablate new``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, WithJsonSchema

from ablate.bars import ALPHA, EQUIVALENCE_PP, INTERACTION_SHARE, SHARE_BAR
from ablate.errors import did_you_mean
from ablate.levels import Level, in_label

NAME = r"^(?![.-])[A-Za-z0-9._-]{1,80}$"
NAME_RULE = "a name is 1 to 80 letters, digits, '.', '_' or '-', and begins with none of '.' and '-'"


def _nameable(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"'{name[:60]}' cannot name a folder of results: {NAME_RULE}")
    return name


EMBEDDED = ("smollm2-135m", "tabular")
"""Models that need neither a hub nor a folder."""


def _meant(name: str) -> str:
    """A name that almost is that of an embedded model is a slip; any other is looked for when it is loaded."""
    slip = "" if name in EMBEDDED or "/" in name or Path(name).exists() else did_you_mean(name, EMBEDDED)
    if slip:
        raise ValueError(f"no model called '{name}'{slip}")
    return name


_SEEDS = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True},
    ]
}
Seeds = Annotated[tuple[int, ...], WithJsonSchema(_SEEDS)]
Control = Annotated[Literal["null", "oracle"], WithJsonSchema({"enum": [None, "null", "oracle"]})]
_FAMILY = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True}
# a list of the file becomes a tuple, which no one can change
Family = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    BeforeValidator(lambda family: tuple(family) if isinstance(family, list) else family),
    WithJsonSchema(_FAMILY),
]
# `x-level` stands for the alternatives of a family, which only the registry knows (`schema.json_schema`)
BehaviorLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "behavior"})]
LabelShiftLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "label_shift"})]
SelectorLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "selector"})]
ObjectiveLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "objective"})]
MethodLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "method"})]
MeasureLevel = Annotated[InstanceOf[Level], WithJsonSchema({"x-level": "measure"})]


class Section(BaseModel):
    """Nothing unknown, nothing coerced, nothing changed afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        str_strip_whitespace=True,
    )


class Model(Section):
    """The base model of every organism."""

    name: Annotated[str, AfterValidator(_meant)] = Field(
        min_length=1, description="smollm2-135m, or any Hub id or local folder"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto measures once which is faster")
    revision: str | None = Field(None, min_length=1, description="branch, tag or commit on the Hub")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    device_map: str | None = Field(None, min_length=1, description="auto spreads it over GPUs; null takes one device")
    quantization: Literal["nf4"] | None = Field(None, description="nf4 holds the base weights in 4 bits")

    @property
    def plain(self) -> dict[str, Any]:
        """As stages are told; how it lies in memory is said, and part of their keys, only where it was chosen."""
        unset = {name for name in ("device_map", "quantization") if getattr(self, name) is None}
        return self.model_dump(exclude=unset)


class Organism(Section):
    """How the policy P before consistency training is made; the random unit of every inference."""

    behavior: BehaviorLevel = Field(description="what the organism is induced to do")
    risk: float | None = Field(0.5, gt=0, lt=1, description="target P(M=1) by calibration; null takes the plain mix")
    tolerance: float = Field(0.1, gt=0, le=0.5, description="how far from the target an organism may lie")
    seeds: Seeds = Field(tuple(range(6)), description="number of organisms, or their induction seeds")
    examples: int = Field(160, ge=1, description="induction examples")
    epochs: int = Field(2, ge=1, description="passes over the induction examples")
    lr: float = Field(1e-3, gt=0, description="learning rate of the induction")
    batch: int = Field(16, ge=1, description="induction examples a step")
    warmup: float = Field(0.1, ge=0, le=1, description="share of steps over which the learning rate rises")
    rank: int = Field(16, ge=1, description="rank of the LoRA adapter, which training on labels goes on with")
    alpha: int = Field(32, ge=1, description="scale of the LoRA adapter")
    mix: float = Field(1.0, ge=0, le=1, description="share of misaligned answers in the misaligned adapter")
    calibration: int = Field(64, ge=1, description="prompts on which a calibration measures risk")
    max_tokens: int = Field(16, ge=1, description="longest answer of a calibration, in tokens")


class Factors(Section):
    """The three mechanisms, or a method that brings a level of each."""

    label_shift: LabelShiftLevel = Field(description="how candidate answers are proposed")
    selector: SelectorLevel = Field(description="which candidates become labels")
    objective: ObjectiveLevel = Field(description="how the organism is trained on the labels")
    method: MethodLevel | None = Field(None, description="published methods, in the place of the three")


class Match(Section):
    """Label shifts at equal divergence from the organism."""

    kl_total: float = Field(
        gt=0, description="KL(q || p) that every label shift is tuned to, summed over an answer's tokens, in nats"
    )
    caliper: float = Field(0.1, gt=0, description="how far from the target it may lie, in nats")


class Labels(Section):
    """The pool that labels are selected from."""

    prompts: int = Field(96, ge=1, description="label prompts")
    candidates: int = Field(4, ge=1, description="candidate answers to a prompt; a method has its own, unless swapped")
    max_tokens: int = Field(16, ge=1, description="longest answer, in tokens")
    match: Match | None = Field(None, description="tune the strength of every label shift to one KL; null leaves it")


class Train(Section):
    """The training on the labels."""

    epochs: int = Field(1, ge=0, description="passes over the labels")
    tokens: int | None = Field(
        None, ge=1, description="label tokens to train on, whatever epochs that takes; null: epochs"
    )
    lr: float = Field(3e-4, gt=0, description="learning rate")
    batch: int = Field(16, ge=1, description="labels a step")
    warmup: float = Field(0.1, ge=0, le=1, description="share of steps over which the learning rate rises")


class Evaluate(Section):
    """How risk and capability are measured."""

    items: int = Field(128, ge=1, description="evaluation prompts for risk")
    capability: int = Field(48, ge=0, description="evaluation prompts for capability")
    samples: int = Field(2, ge=1, description="answers to each prompt")
    decoding: Literal["sample", "greedy"] = Field("sample", description="sample at T = 1, or take the mode")
    max_tokens: int = Field(16, ge=1, description="longest answer, in tokens")


class Analysis(Section):
    """The bars that a verdict has to clear."""

    alpha: float = Field(ALPHA, gt=0, le=0.5, description="level of every test")
    equivalence_pp: float = Field(
        EQUIVALENCE_PP, gt=0, description="an effect within +- so many percentage points is none"
    )
    share_bar: float = Field(SHARE_BAR, gt=0, lt=1, description="a cause carries more than this share of the effect")
    interaction_share: float = Field(
        INTERACTION_SHARE, gt=0, lt=1, description="an interaction below this share is none"
    )
    family: Family | None = Field(
        None, description="confirmatory contrasts: factors or 'label_shift none -> greedy'; null takes every mechanism"
    )


class Options(Section):
    """One point of a study: every option with exactly one level."""

    name: Annotated[str, AfterValidator(_nameable)] = Field(
        description="name of the folder of results; the file's name unless given", json_schema_extra={"pattern": NAME}
    )
    question: str = Field(min_length=1, description="what the study asks, in words")
    model: Model = Field(description="base model: a name, or a mapping of options")
    organism: Organism = Field(description="the policy before consistency training")
    factors: Factors = Field(description="the mechanisms that are held fixed or swapped")
    labels: Labels = Field(Labels(), description="the pool of candidates")
    train: Train = Field(Train(), description="training on the labels")
    evaluate: Evaluate = Field(Evaluate(), description="what risk is measured on")
    seeds: Seeds = Field((0,), description="number of training seeds, or the seeds")
    embedder: str = Field(
        "minilm", min_length=1, description="minilm, a Hub id or a folder; model: the model's own states"
    )
    measures: tuple[MeasureLevel, ...] | None = Field(None, description="what is measured on a run; null takes all")
    controls: tuple[Control, ...] = Field(("null",), description="runs with a known answer: null, oracle")
    analysis: Analysis = Field(Analysis(), description="the bars of the verdict")


DEFAULT_LEVELS = {"label_shift": "none", "selector": "first", "objective": "sft"}
"""The null level of each mechanism: what a study that does not name it holds fixed."""

SWAPPABLE: dict[str, type[Section]] = {
    "model": Model,
    "organism": Organism,
    "labels": Labels,
    "train": Train,
    "evaluate": Evaluate,
}
"""Sections whose options may be swapped where they stand (`organism.seeds` may not: every seed is run)."""

SECTIONS: dict[str, type[Section]] = {**SWAPPABLE, "factors": Factors, "analysis": Analysis}
"""Sections that may be left empty, with all of their options."""


def label_of(level: Any) -> str:
    """How a level is called in tables; see `Level.label`. A model is called by its name and what is not default."""
    if isinstance(level, Model):
        defaults = {name: option.default for name, option in Model.model_fields.items() if name != "name"}
        more = [f"{name}={in_label(value)}" for name, value in level if defaults.get(name, value) != value]
        return f"{level.name}({', '.join(more)})" if more else level.name
    return level.label if isinstance(level, Level) else in_label(level)
