"""The arrays and records that pass between stages; plug-ins import them from `ablate.api`.

Array axes are P (prompts), K (candidates of a prompt), T (tokens of a candidate), I (evaluation items),
S (samples of an item), D (embedding). Log-probabilities are in nats. Missing is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
Message = Mapping[str, str]
Chat = tuple[Message, ...]
"""Messages with the keys ``role`` and ``content``, as chat templates take them."""

Weights = Mapping[str, FloatArray]
"""A trained difference to the base model (an adapter, a table), by parameter name."""


METHOD_NAME = "method_name"
"""What the cube calls the factor whose levels are methods: ``method`` is a word that `xarray.Dataset.sel` keeps."""


@dataclass(frozen=True, slots=True)
class Method:
    """A published method: a level of each mechanism as a study writes it; ``candidates`` None leaves the study's."""

    label_shift: str | Mapping[str, Any] = "none"
    selector: str | Mapping[str, Any] = "first"
    objective: str | Mapping[str, Any] = "sft"
    candidates: int | None = None


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_p`` 1 truncates nothing.

    More than one of ``beams`` is beam search and draws nothing: candidate k is the kth of the ``beams`` answers found,
    by log p(y) / length^``length_penalty``. ``groups`` of them are searched one after the other, each
    paying ``penalty`` nats for a token as often as beams of the groups before it took it at that step
    (Vijayakumar et al., 2018); the first candidates are then the best of each group.

    ``strength`` 1 draws from the proposal q as it is; else each token is drawn from p^(1 - strength) q^strength,
    renormalized, with p the organism on its own prompt: a bridge on which KL(. || p) grows from 0 and on, past q.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    strength: float = 1.0
    beams: int = 1
    groups: int = 1
    penalty: float = 0.0
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature} is not >= 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not in (0, 1]")
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"strength: {self.strength} is not >= 0")
        if self.strength != 1 and self.temperature == 0:
            raise ValueError("strength: greedy decoding has no distribution between it and the organism's")
        if min(self.beams, self.groups) < 1 or self.beams % self.groups:
            raise ValueError(f"beams: {self.beams} are not {self.groups} groups of one size")
        if not 0 <= self.penalty < float("inf"):
            raise ValueError(f"penalty: {self.penalty} is not >= 0")
        if self.beams > 1 and (self.temperature, self.top_p, self.strength) != (1, 1, 1):
            raise ValueError("beams: beam search has no temperature, no nucleus and no distribution to bridge to")

    @property
    def raw(self) -> bool:
        """Whether tokens come from the distribution of what the model is shown, as it is."""
        return self.temperature == 1 and self.top_p == 1 and self.strength == 1 and self.beams == 1


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
        self,
        view: Literal["wrapped", "clean"] = "wrapped",
        *,
        system: str | None = None,
        prefix: str = "",
        suffix: str = "",
    ) -> Chat:
        """The prompt as messages; ``prefix`` and ``suffix`` stand around the user's words."""
        user = {"role": "user", "content": prefix + (self.text if view == "wrapped" else self.clean) + suffix}
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
    expect: Callable[[Sequence[tuple[Prompt, str]]], None] = lambda answers: None
    """Told of all answers that are about to be judged, so that a judge is asked about them together."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidate answers to prompts, drawn from the proposal q, with log-probabilities under q and under p.

    p is the organism at T = 1 on the prompt as it stands. ``logprob_q`` and ``logprob_p`` are of the raw model
    (no temperature, no truncation), ``logprob_drawn`` is q's with its decoding applied: what was sampled from.
    All are of the same token ids, from our own forward pass. Positions at and beyond
    ``lengths`` are padding. ``kl`` is D(q_t || p_t) of the full next-token distributions, with q's decoding
    applied; infinite never, since p has full support. What is not drawn (greedy, a beam) is a point mass:
    ``logprob_drawn`` 0, ``kl`` -log p. ``origin`` says which proposal of several each candidate is from, by number,
    and q is that one; empty where all are draws of one. ``outcome`` and ``classes`` are filled in by the
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
    origin: IntArray = field(default_factory=lambda: np.empty((0, 0), np.int32))  # [P, K]

    @property
    def exchangeable(self) -> bool:
        """Whether all candidates of a prompt are draws of one proposal; else q is a mixture whose KL is not known."""
        return not self.origin.size or bool((self.origin == self.origin[:, :1]).all())

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where a position holds a token of the answer, [P, K, T]."""
        mask: npt.NDArray[np.bool_] = np.arange(self.tokens.shape[2]) < self.lengths[:, :, None]
        return mask

    def stream(self, i: int, seed: int = 0) -> np.random.Generator:
        """A stream that belongs to the candidates of prompt ``i``, whatever their order and the other prompts."""
        content = "\x1f".join([self.prompts[i].id, *sorted(self.texts[i])])
        return np.random.default_rng([seed, *blake2b(content.encode(), digest_size=16).digest()])


def concatenated(pools: Sequence[Pool]) -> Pool:
    """One pool of the candidates of several, to the same prompts, in their order; each keeps its own densities.

    Raises:
        ValueError: no pool, or pools of other prompts.
    """
    if not pools or any(pool.prompts != pools[0].prompts for pool in pools):
        raise ValueError("concatenated: takes at least one pool, and all of the same prompts")
    longest = max(pool.tokens.shape[2] for pool in pools)
    joined: dict[str, Any] = {}
    for name in (entry.name for entry in fields(Pool) if entry.name not in ("prompts", "texts", "origin")):
        parts = [getattr(pool, name) for pool in pools]
        if parts[0].ndim == 3:
            parts = [np.pad(part, ((0, 0), (0, 0), (0, longest - part.shape[2]))) for part in parts]
        joined[name] = np.concatenate(parts, axis=1)
    origins: list[IntArray] = []
    for pool in pools:
        own = pool.origin if pool.origin.size else np.zeros_like(pool.lengths)
        origins.append(own + (1 + origins[-1].max(initial=-1) if origins else 0))
    texts = tuple(sum(rows, ()) for rows in zip(*(pool.texts for pool in pools), strict=True))
    return Pool(pools[0].prompts, texts, origin=np.concatenate(origins, axis=1), **joined)


class TokenStatistics(NamedTuple):
    """Of the organism's next-token distribution p_t, on the prompt as it stands, at every token of an answer; nats.

    ``self_certainty`` is D(U || p_t), with U uniform over the tokens that may follow: -log V - mean_v log p_t(v).
    Both are 0 beyond the lengths.
    """

    entropy: FloatArray  # [P, K, T]
    self_certainty: FloatArray  # [P, K, T]


Law = Literal["draw", "highest", "lowest", "plurality", "pick", "weights"]
"""How a selector's labels are distributed: as one draw of q, the best or worst of K by score, the answer that most of
K draws state, one of K draws by another rule, or q reweighted."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer returns that notes more than its scores: the ``log`` is stored beside them."""

    scores: FloatArray  # [P, K]
    log: Mapping[str, FloatArray]


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


@dataclass(frozen=True, slots=True)
class Column:
    """A number that a measure gives for every run: how it is called, counted and read."""

    long_name: str
    units: str
    direction: Literal["higher is worse", "higher is better", "neither"]
    source: str
