"""The one module that a plug-in imports: decorators, and the arrays and records that pass between stages.

Array axes are P (prompts), K (candidates of a prompt), T (tokens of a candidate), I (evaluation items),
S (samples of an item), D (embedding). Log-probabilities are in nats. Missing is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ablate.registry import register

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
Message = Mapping[str, str]
Chat = tuple[Message, ...]
"""Messages with the keys ``role`` and ``content``, as chat templates take them."""

Weights = Mapping[str, FloatArray]
"""A trained difference to the base model (an adapter, a table), by parameter name."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_p`` 1 truncates nothing.

    ``strength`` 1 draws from the proposal q as it is; else each token is drawn from p^(1 - strength) q^strength,
    renormalized, with p the organism on its own prompt: a bridge on which KL(. || p) grows from 0 and on, past q.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature} is not >= 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not in (0, 1]")
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength: {self.strength} is not >= 0")
        if self.strength != 1 and self.temperature == 0:
            raise ValueError("strength: greedy decoding has no distribution between it and the organism's")

    @property
    def raw(self) -> bool:
        """Whether tokens come from the distribution of what the model is shown, as it is."""
        return self.temperature == 1 and self.top_p == 1 and self.strength == 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question put to a model.

    ``text`` is the question as the behavior is studied (the *wrapped* view), ``clean`` the same without
    the pressure or the shortcut. ``item`` names the underlying fact or text: prompts of one item are one
    cluster. ``facts`` are what the indicator needs (``truth``, ``claim``, ...).
    """

    id: str
    text: str
    clean: str
    item: str
    facts: Mapping[str, str]
    kind: Literal["risk", "capability"] = "risk"
    split: Literal["in", "out"] = "in"

    def chat(
        self, view: Literal["wrapped", "clean"] = "wrapped", *, system: str | None = None, suffix: str = ""
    ) -> Chat:
        """The prompt as messages; ``suffix`` is appended to the user's words."""
        user = {"role": "user", "content": (self.text if view == "wrapped" else self.clean) + suffix}
        return ({"role": "system", "content": system}, user) if system is not None else (user,)


@dataclass(frozen=True, slots=True)
class Pair:
    """An induction example: one prompt with an answer that shows the behavior and one that does not."""

    prompt: Prompt
    misaligned: str
    aligned: str


@dataclass(frozen=True, slots=True)
class Behavior:
    """What an organism is induced to do, and how it is recognized.

    ``induction``, ``label``, ``calibration`` and ``evaluation`` share no ``item``. ``answer`` is the answer
    that a text states (None where it states none); candidates that state one answer are one class.
    ``indicator`` is M(prompt, text): 1 misaligned, 0 not, NaN cannot be judged. ``capable`` judges the
    evaluation prompts of kind ``capability``: 1 right, 0 not.
    """

    induction: tuple[Pair, ...]
    label: tuple[Prompt, ...]
    calibration: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    answer: Callable[[Prompt, str], str | None]
    indicator: Callable[[Prompt, str], float]
    capable: Callable[[Prompt, str], float]


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidate answers to prompts, drawn from the proposal q, with log-probabilities under q and under p.

    p is the organism at T = 1 on the prompt as it stands. ``logprob_q`` and ``logprob_p`` are of the raw model
    (no temperature, no truncation), ``logprob_drawn`` is q's with its decoding applied: what was sampled from.
    All are of the same token ids, from our own forward pass. Positions at and beyond
    ``lengths`` are padding. ``kl`` is D(q_t || p_t) of the full next-token distributions, with q's decoding
    applied; infinite never, since p has full support. ``outcome`` and ``classes`` are filled in by the
    behavior: the indicator of each candidate, and an integer that candidates stating one answer share
    (-1: states none).
    """

    prompts: tuple[Prompt, ...]
    texts: tuple[tuple[str, ...], ...]  # [P][K]
    tokens: IntArray  # [P, K, T]
    lengths: IntArray  # [P, K], the end-of-answer token included
    logprob_q: FloatArray  # [P, K, T]
    logprob_p: FloatArray  # [P, K, T]
    logprob_drawn: FloatArray  # [P, K, T]
    kl: FloatArray  # [P, K, T]
    outcome: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))  # [P, K]
    classes: IntArray = field(default_factory=lambda: np.empty((0, 0), np.int32))  # [P, K]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where a position holds a token of the answer, [P, K, T]."""
        mask: npt.NDArray[np.bool_] = np.arange(self.tokens.shape[2]) < self.lengths[:, :, None]
        return mask


class Policy(Protocol):
    """A language model with the weights of one organism: what a label shift or a scorer may ask."""

    def pool(
        self,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        k: int,
        decoding: Decoding = Decoding(),
        chats: Sequence[Chat] | None = None,
        max_tokens: int | None = None,
    ) -> Pool:
        """Draw ``k`` answers to each prompt; ``chats`` is what the model is shown instead of the prompts."""
        ...


Law = Literal["draw", "highest", "lowest", "plurality", "weights"]
"""How a selector's labels are distributed: as one draw of q, the best or worst of K by score, the answer that most of
K draws state, or q reweighted."""

Picks = IntArray | FloatArray
"""What a selector returns: the index of the taken candidate int[P] (-1 abstains), or weights float[P, K]."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels with everything a measure may compare them to.

    ``reference`` is the organism's own unshifted pool for the same prompts (``label_shift: none``).
    ``weights`` are the selector's picks as weights over candidates: rows sum to 1, or are all 0 where it
    abstained. Embeddings are of each candidate's text; they have no columns where nothing asked for them.
    ``scores`` are what the selector saw, NaN where it saw none; ``law`` is how its picks are distributed.
    """

    pool: Pool
    reference: Pool
    weights: FloatArray  # [P, K]
    embedding: FloatArray  # [P, K, D]
    reference_embedding: FloatArray  # [P, K of the reference, D]
    scores: FloatArray = field(default_factory=lambda: np.empty((0, 0)))  # [P, K]
    law: Law | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Answers of one policy to the evaluation prompts, judged: M for kind ``risk``, right for ``capability``."""

    prompts: tuple[Prompt, ...]
    outcome: FloatArray  # [I, S], NaN = cannot be judged
    texts: tuple[tuple[str, ...], ...]  # [I][S]


def mean_outcome(outcome: FloatArray) -> float:
    """Mean over items of the mean over judged samples [I, S]; NaN where no item was judged."""
    judged = ~np.isnan(outcome)
    count = judged.sum(1)
    rows = np.where(judged, outcome, 0.0).sum(1)[count > 0] / count[count > 0]
    return float(rows.mean()) if len(rows) else float("nan")


class Batch(Protocol):
    """Labels under training, as the objective sees them. Arrays are of the training framework."""

    @property
    def logprobs(self) -> Any:
        """[B, T] of the label tokens under the model that is trained."""

    @property
    def mask(self) -> Any:
        """[B, T], 1 where a label token stands."""

    @property
    def weights(self) -> Any:
        """[B], the weight of each label."""


@dataclass(frozen=True, slots=True)
class Column:
    """A number that a measure gives for every run: how it is called, counted and read."""

    long_name: str
    units: str
    direction: Literal["higher is worse", "higher is better", "neither"]
    source: str


F = TypeVar("F", bound=Callable[..., Any])


@overload
def behavior(function: F) -> F: ...
@overload
def behavior(
    *, questions: Callable[[], tuple[Prompt, ...]], right: Callable[[Prompt, str], float], version: int = 1
) -> Callable[[F], F]: ...
def behavior(function: Any = None, *, questions: Any = None, right: Any = None, version: int = 1) -> Any:
    """Register ``(known, rng, *, ...) -> Behavior``.

    ``questions`` lists plain questions for the knowledge screen, ``right`` judges their answers (1 right);
    ``known`` is then the frozenset of items that the base model answers rightly. Without them it is empty.
    """
    return _decorate("behavior", function, version=version, questions=questions, right=right)


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
def scorer(*, version: int = 1) -> Callable[[F], F]: ...
def scorer(function: Any = None, *, version: int = 1) -> Any:
    """Register ``(lm: Policy, pool, *, ...) -> float[P, K]``: a number for every candidate, NaN = none."""
    return _decorate("scorer", function, version=version)


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
def objective(*, version: int = 1) -> Callable[[F], F]: ...
def objective(function: Any = None, *, version: int = 1) -> Any:
    """Register ``(batch: Batch, *, ...) -> loss``: what training minimizes."""
    return _decorate("objective", function, version=version)


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
