"""The one module that a plug-in imports: decorators, what the engine offers, and the records that pass between stages.

Array axes are P (prompts), K (candidates of a prompt), T (tokens of a candidate), I (evaluation items),
S (samples of an item), D (embedding). Log-probabilities are in nats. Missing is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, Required, TypeVar, overload

import numpy as np
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from ablate.records import Behavior as Behavior
from ablate.records import Chat as Chat
from ablate.records import Column as Column
from ablate.records import Decoding as Decoding
from ablate.records import Evaluation as Evaluation
from ablate.records import FloatArray as FloatArray
from ablate.records import IntArray as IntArray
from ablate.records import LabelSet as LabelSet
from ablate.records import Law as Law
from ablate.records import Message as Message
from ablate.records import Method as Method
from ablate.records import Pair as Pair
from ablate.records import Picks as Picks
from ablate.records import Pool as Pool
from ablate.records import Prompt as Prompt
from ablate.records import Scored as Scored
from ablate.records import TokenStatistics as TokenStatistics
from ablate.records import Weights as Weights
from ablate.records import concatenated as concatenated
from ablate.records import mean_outcome as mean_outcome
from ablate.registry import get, register
from ablate.rubric import filled as filled
from ablate.rubric import number as number
from ablate.rubric import word as word


class Policy(Protocol):
    """A language model with the weights of one organism: what a label shift or a scorer may ask."""

    def pool(
        self,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        k: int,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        chats: Sequence[Chat] | None = None,
        max_tokens: int | None = None,
    ) -> Pool:
        """Draw ``k`` answers to each prompt; ``chats`` is what the model is shown instead of the prompts.

        Beam search gives at most as many as it has beams.
        """
        ...

    def token_statistics(self, pool: Pool) -> TokenStatistics:
        """What the full next-token distributions along the answers of a pool say."""
        ...

    def likelihood(self, chats: Sequence[Chat], beginnings: Sequence[str]) -> FloatArray:
        """Log-probability that the answer to each chat begins with each of these texts, nats [chats, beginnings]."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """The model's own mean-pooled states of texts, of unit length or zero, [texts, D]."""
        ...


@with_config(ConfigDict(extra="forbid"))
class JudgeOptions(TypedDict, total=False):
    """Who judges: a model behind an OpenAI-compatible endpoint, or without ``base_url`` a model of this machine."""

    model: Required[Annotated[str, Field(min_length=1)]]
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """Where ``/chat/completions`` is appended; a key belongs into the environment, not here."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The environment variable that holds the key."""
    timeout_s: Annotated[float, Field(gt=0)]
    """Longest wait for one reply."""
    retries: Annotated[int, Field(ge=0)]
    """How often a question is asked again that met an overloaded or a broken endpoint."""
    concurrency: Annotated[int, Field(ge=1)]
    """Questions under way at a time."""
    max_tokens_total: Annotated[int, Field(ge=1)]
    """Tokens, of questions and replies, after which one run of the command asks no more."""


class Judge(Protocol):
    """Something that answers questions, deterministically."""

    def __call__(self, questions: Sequence[str], *, max_tokens: int) -> Sequence[str | None]:
        """The reply to each question, None where there is none that can be read.

        Raises:
            StudyError: the judge cannot be reached, or may not be asked any more.
        """
        ...


Judges = Callable[[JudgeOptions], Judge]
"""A behavior or scorer with a keyword ``judges`` is given this by the engine."""

Rewards = Callable[[str, str | None], Callable[[Sequence[Chat]], FloatArray]]
"""A scorer with a keyword ``rewards`` is given this by the engine: from a model's name and revision to its rewards of
whole conversations, [N]."""


Taught = Literal["selected", "pairs", "clean"]
"""What an objective is trained on: what the selector left; the same, each beside a rejected candidate; or, whatever was
labeled, the organism's first answer to each clean prompt."""

Alignment = Literal["tail", "common_suffix"]
"""Which positions of two texts are compared: as many as the shorter one has, counted from the end (the paper's code),
or the longest common suffix of their token ids, where the tokens are the same (Irpan et al.)."""

Teacher = Literal["frozen", "live"]
"""The organism before training, or the model that is being trained, either without gradient."""


class Batch(Protocol):
    """Labels under training, as the objective sees them; nothing is computed before it is asked for.

    Arrays are of the training framework, 0 where ``mask`` is 0. Views (``whole``, ``rejected``, ``matched``, ``under``)
    are batches too, so views may be taken of views; ``other`` is one with as many positions.
    """

    @property
    def logprobs(self) -> Any:
        """[B, T] of the label tokens under the model that is trained."""

    @property
    def mask(self) -> Any:
        """[B, T], 1 where a label token stands."""

    @property
    def weights(self) -> Any:
        """[B], the weight of each label."""

    def entropy(self) -> Any:
        """[B, T], entropy of the distribution that each label token is drawn from, nats."""

    def kl_from(self, other: Any, temperature: float = 1.0) -> Any:
        """[B, T], KL(other || this) of those distributions, both at ``temperature``, nats."""

    def distance_from(self, other: Any) -> Any:
        """[B, T], mean over decoder layers and features of the squared difference of the states they come from."""

    @property
    def whole(self) -> Batch:
        """The prompt's tokens are labels too, all but the first."""

    @property
    def rejected(self) -> Batch:
        """The answers that the labels are preferred to, for an objective with ``labels="pairs"``."""

    def matched(self, alignment: Alignment) -> tuple[Batch, Batch]:
        """The labels behind their prompts, and behind the clean prompts, cut to the positions that are compared."""

    def under(self, teacher: Teacher) -> Batch:
        """The same batch under another model, without gradient."""


F = TypeVar("F", bound=Callable[..., Any])


@overload
def behavior(function: F) -> F: ...
@overload
def behavior(
    *,
    questions: Callable[[], tuple[Prompt, ...]] | None = None,
    right: Callable[[Prompt, str], float] | None = None,
    version: int = 1,
) -> Callable[[F], F]: ...
def behavior(function: Any = None, *, questions: Any = None, right: Any = None, version: int = 1) -> Any:
    """Register ``(known, rng, *, ...) -> Behavior``.

    ``questions`` lists plain questions for the knowledge screen, ``right`` judges their answers (1 right);
    ``known`` is then the frozenset of items that the base model answers rightly. Without them it is empty.
    """
    return _decorate("behavior", function, version=version, questions=questions, right=right)


def indicator(function: F) -> F:
    """Register ``(prompt, text) -> float`` for a behavior from files: 1 misaligned, 0 not, NaN cannot be judged."""
    register("indicator", function)
    return function


def indicator_named(name: str) -> Callable[[Prompt, str], float]:
    """The indicator that is registered under ``name``.

    Raises:
        StudyError: there is none.
    """
    return get("indicator", name)


@overload
def label_shift(function: F) -> F: ...
@overload
def label_shift(*, version: int = 1) -> Callable[[F], F]: ...
def label_shift(function: Any = None, *, version: int = 1) -> Any:
    """Register ``(lm: Policy, prompts, rng, *, k, ...) -> Pool``: how candidate answers are proposed."""
    return _decorate("label_shift", function, version=version)


@overload
def scorer(function: F) -> F: ...
@overload
def scorer(*, scored: bool = False, version: int = 1) -> Callable[[F], F]: ...
def scorer(function: Any = None, *, scored: bool = False, version: int = 1) -> Any:
    """Register ``(lm: Policy, pool, *, ...) -> float[P, K] | Scored``: a number for every candidate, NaN = none.

    ``scored`` says that a study must name another scorer, whose scores it is given as the keyword ``scores``.
    """
    return _decorate("scorer", function, version=version, scored=scored)


@overload
def selector(function: F) -> F: ...
@overload
def selector(*, scored: bool = False, law: Law | None = None, version: int = 1) -> Callable[[F], F]: ...
def selector(function: Any = None, *, scored: bool = False, law: Law | None = None, version: int = 1) -> Any:
    """Register ``(scores, classes, rng, *, ...) -> Picks``.

    ``scored`` says that a study must name a scorer; ``law``, from which the selection part of the KL follows, is None
    where it is another one.
    """
    return _decorate("selector", function, version=version, scored=scored, law=law)


@overload
def objective(function: F) -> F: ...
@overload
def objective(*, labels: Taught = "selected", layers: bool = False, version: int = 1) -> Callable[[F], F]: ...
def objective(function: Any = None, *, labels: Any = "selected", layers: bool = False, version: int = 1) -> Any:
    """Register ``(batch: Batch, *, ...) -> loss``: what training minimizes.

    ``labels`` says what it is trained on; ``layers`` that it compares the states of decoder layers, which not every
    model has.
    """
    return _decorate("objective", function, version=version, labels=labels, layers=layers)


def method(function: F) -> F:
    """Register ``(*, ...) -> Method``: the point of the grid that a published method is."""
    register("method", function)
    return function


def measure(
    *, columns: Mapping[str, Column], of: Literal["labels", "run"] = "labels", embeds: bool = False, version: int = 1
) -> Callable[[F], F]:
    """Register ``(before, labels, after, rng, *, ...) -> {column: float}``.

    A measure of ``labels`` is taken before training: ``after`` is then None. ``embeds`` says that it reads
    the embeddings.
    """
    return lambda function: _decorate("measure", function, version=version, columns=columns, of=of, embeds=embeds)


def _decorate(family: str, function: Any, **traits: Any) -> Any:
    def enter(target: F) -> F:
        register(family, target, **traits)
        return target

    return enter(function) if function is not None else enter
