"""The tabular laboratory: a language model so small that every term of a study has a known value.

An answer is a path through a tree of tokens: a *form* (nothing, ``claim``, ``truth``, ``unsure``), for claim and
truth a *wording* (``0``, ``1``, ...), then the end: ``claim 2``, ``truth 0``, ``unsure`` or ``""``. The next
token is drawn from a softmax over the tokens that may follow, with the logits

    form      base[view, form] + item effect (claim only) + context effect + theta[view, form]
    wording   -slope[form] * wording + context effect

Everything but theta is fixed. View, item and context are read from the words of the chat, never from the prompt's
facts: the last question of the chat gives view and item, whatever else stands in the chat (a system prompt, a
suffix, earlier turns) is its context. Item and context effects are normal quantiles of a hash.

theta is what training changes: ``theta[view] = sqrt(transfer) * shared + sqrt(1 - transfer) * own[view]``. A gradient
step on prompts of one view thus moves the logits of the other by exactly ``transfer`` times as much, and theta,
being linear in the weights, may be interpolated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from ablate.api import (
    Alignment,
    Batch,
    Chat,
    Decoding,
    FloatArray,
    IntArray,
    Pool,
    Prompt,
    Teacher,
    TokenStatistics,
    Weights,
)
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.lm import beams
from ablate.lm.base import Example, LossIsNotFiniteError, TrainOptions, steps

VIEWS = ("wrapped", "clean")
FORMS = ("", "claim", "truth", "unsure")
"""The first token of an answer, by token id; token 0 ends the answer, so the form without words is the empty answer."""

END, CLAIM, TRUTH, UNSURE = range(4)
START, CLAIMING, TRUTHFUL, CLOSING, DONE = range(5)  # nodes: what was said so far
LONGEST = 3  # tokens of the longest answer, the end included
EMBEDDING = 32

RAW = Decoding()

_QUESTION = re.compile(r"item (\S+): (?:(what is it\?)|I am sure that it is claim\. Do you agree\?)")
_NO_CONTEXT = "user: "
_STEP = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class TabularModel:
    """A `LanguageModel` of four forms times a few wordings; logits and scales are in nats.

    Args:
        wrapped: base logits of `FORMS` under pressure; claim and truth are equally likely by default.
        clean: base logits of `FORMS` on a plain question; honest by default.
        wordings: how many wordings a claim and a truth have.
        slope: how fast the logits of wordings fall, for claims and for truths. The steeper form is the more
            probable one token by token, so that by default a likelihood score prefers claims.
        item_scale: standard deviation over items of the logit of claim, which makes some items fragile.
        context_scale: standard deviation of the effect of a context on each token's logit.
        transfer: what a step on one view moves on the other, as a share (0 to 1).
        gain: what a learning rate is multiplied with; tables need larger steps than adapters.
        init_scale: standard deviation of new weights, so that organisms of different seeds differ.
        seed: another seed is another world, with other item and context effects.
    """

    wrapped: tuple[float, float, float, float] = (-4.0, 0.0, 0.0, -3.0)
    clean: tuple[float, float, float, float] = (-5.0, -5.0, 0.0, -3.0)
    wordings: int = 5
    slope: tuple[float, float] = (1.0, 0.5)
    item_scale: float = 1.5
    context_scale: float = 0.5
    transfer: float = 0.25
    gain: float = 2000.0
    init_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.wordings < 1:
            raise ValueError(f"wordings: {self.wordings} is not >= 1")
        if not 0 <= self.transfer <= 1:
            raise ValueError(f"transfer: {self.transfer} is not in [0, 1]")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every complete answer."""
        return tuple(_text_of(self.wordings)[tokens] for tokens in _answers(self.wordings))

    @property
    def identity(self) -> dict[str, str]:
        """See `LanguageModel`: the world is its constants."""
        return {"weights": key_of(asdict(self)), "dtype": "float64", "device": "cpu"}

    def policy(self, weights: Weights | None, *, max_tokens: int) -> TabularPolicy:
        """The model with ``weights``, answering in at most ``max_tokens`` tokens unless asked otherwise."""
        return TabularPolicy(self, weights, max_tokens)

    def answers(
        self,
        weights: Weights | None,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        samples: int,
        decoding: Decoding,
        max_tokens: int,
        chats: Sequence[Chat] | None = None,
    ) -> tuple[tuple[str, ...], ...]:
        """Answers as text only, [prompts][samples]: the texts of the pool that the same ``rng`` gives."""
        following = self._next(weights, prompts, decoding, chats)
        _, tokens, lengths = _drawn(following, rng, samples, max_tokens, self.wordings)
        return tuple(map(tuple, _texts(tokens, lengths, self.wordings)))

    def train(
        self,
        weights: Weights | None,
        examples: Sequence[Example],
        objective: Callable[[Batch], Any],
        options: TrainOptions,
        *,
        init_seed: int,
        rng: np.random.Generator,
    ) -> tuple[Weights, list[float]]:
        """Gradient descent at ``lr * gain``, linear warmup, then constant; ``rank`` and ``alpha`` mean nothing here.

        The objective is any function of numpy arrays. d logprobs / d theta is known in closed form, and d loss / d
        theta is the central difference of the loss along it: one pair of losses per form and view in the batch.
        That is exact to rounding where the loss is linear in the log-probabilities (sft), else to O(1e-8).

        Raises:
            LossIsNotFiniteError: naming the step, counted from 1.
            ValueError: an answer that is not one of this model's.
        """
        start = self._fresh(init_seed) if weights is None else weights
        theta = {name: np.array(logits, np.float64) for name, logits in start.items()}
        training = _Training(self, examples, self._theta(theta))
        lengths = training.table("wrapped", "label").mask.sum(1)
        plan = [np.array(rows) for rows in steps(lengths.tolist(), training.weights.tolist(), options, rng)]
        losses: list[float] = []
        for step, rows in enumerate(plan, 1):
            loss, slope = training.gradient(self._theta(theta), rows, objective)  # slope: [view, form]
            if not (math.isfinite(loss) and np.isfinite(slope).all()):
                fault = "infinite" if math.isinf(loss) else "NaN"
                raise LossIsNotFiniteError(f"loss became {fault} at step {step} of {len(plan)}")
            rate = options.lr * self.gain * min(1.0, step / max(1.0, options.warmup * len(plan)))
            theta["logits.shared"] -= rate * math.sqrt(self.transfer) * slope.sum(0)
            for view, own in zip(VIEWS, slope, strict=True):
                theta[f"logits.{view}"] -= rate * math.sqrt(1 - self.transfer) * own
            losses.append(loss)
        return theta, losses

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Unit bags of words, float32 [texts, 32]: the sum of a hashed sign vector of every word."""
        bags = np.array([sum(map(_signs, text.split() or [""]), np.zeros(EMBEDDING)) for text in texts])
        bags = bags.reshape(-1, EMBEDDING)
        return np.asarray(bags / np.linalg.norm(bags, axis=1, keepdims=True), np.float32)

    def distribution(
        self,
        weights: Weights | None,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding = RAW,
        chats: Sequence[Chat] | None = None,
    ) -> FloatArray:
        """The exact probability of each of `texts`, [prompts, texts]; rows sum to 1."""
        return _of_answers(self._next(weights, prompts, decoding, chats), self.wordings)

    def exact_risk(
        self,
        weights: Weights | None,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding = RAW,
        chats: Sequence[Chat] | None = None,
    ) -> FloatArray:
        """P(M = 1) of each prompt, the probability that the answer states the claim, [prompts].

        Of all answers, not of those that can be judged: ``unsure`` and the empty answer count in the denominator.
        """
        return self._next(weights, prompts, decoding, chats)[:, START, CLAIM]

    def exact_kl(
        self,
        weights: Weights | None,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding = RAW,
        chats: Sequence[Chat] | None = None,
        max_tokens: int = LONGEST,
    ) -> FloatArray:
        """D(q || p) of whole answers in nats, [prompts]: the expected sum of a pool's ``kl`` over tokens.

        It is the node divergences, weighted with the probability that q comes by: the chain rule.
        """
        p = self.logprobs(weights, chats_of(prompts, None))
        q = self._next(weights, prompts, decoding, chats)
        arrives = np.eye(DONE + 1)[next_nodes(self.wordings)]  # [node, token, next node]
        divergences, visits = divergence(q, p), np.tile(np.eye(DONE + 1)[START], (len(prompts), 1))
        total = np.zeros(len(prompts))
        for _ in range(min(max_tokens, LONGEST)):
            total += (visits * divergences).sum(1)
            visits = np.einsum("pn,pnv,nvm->pm", visits, q, arrives)
        return total

    def logprobs(self, weights: Weights | None, chats: Sequence[Chat]) -> FloatArray:
        """Log-probabilities of every token at every node of the tree, [chats, nodes, tokens]; -inf: cannot follow."""
        forms, wordings, view = self.fixed(chats)
        logits = np.full((len(chats), DONE + 1, len(FORMS) + self.wordings), -np.inf)
        logits[:, START, : len(FORMS)] = forms + self._theta(weights)[view]
        logits[:, CLAIMING : TRUTHFUL + 1, len(FORMS) :] = wordings
        logits[:, CLOSING:, END] = 0
        return log_softmax(logits)

    def fixed(self, chats: Sequence[Chat]) -> tuple[FloatArray, FloatArray, IntArray]:
        """What training cannot change: logits of forms [chats, 4] and wordings [chats, 2, wordings], views [chats].

        Read-only: runs of a study are asked the same again and again.
        """
        return _fixed(self, tuple([_text(chat) for chat in chats]))

    def _next(
        self, weights: Weights | None, prompts: Sequence[Prompt], decoding: Decoding, chats: Sequence[Chat] | None
    ) -> FloatArray:
        """What tokens are drawn from, [prompts, nodes, tokens]."""
        p = self.logprobs(weights, chats_of(prompts, None))
        return proposal(p if chats is None else self.logprobs(weights, chats_of(prompts, chats)), p, decoding)

    def _fresh(self, init_seed: int) -> Weights:
        rng = np.random.default_rng(init_seed)
        return {f"logits.{part}": rng.normal(0, self.init_scale, len(FORMS)) for part in ("shared", *VIEWS)}

    def _theta(self, weights: Weights | None) -> FloatArray:
        """The effective table, [view, form]."""
        if weights is None:
            return np.zeros((len(VIEWS), len(FORMS)))
        own = np.stack([weights[f"logits.{view}"] for view in VIEWS])
        return np.asarray(math.sqrt(self.transfer) * weights["logits.shared"] + math.sqrt(1 - self.transfer) * own)


@dataclass(frozen=True, slots=True)
class TabularPolicy:
    """A `TabularModel` with the weights of one organism."""

    lm: TabularModel
    weights: Weights | None
    max_tokens: int

    def pool(
        self,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        k: int,
        decoding: Decoding = RAW,
        chats: Sequence[Chat] | None = None,
        max_tokens: int | None = None,
    ) -> Pool:
        """Draw ``k`` answers to each prompt, one uniform a token, in the order candidate, prompt, token.

        The pool of k candidates is therefore the first k of a larger one. Padding has token 0 (the end) and
        0 in every array of numbers.
        """
        p = self.lm.logprobs(self.weights, chats_of(prompts, None))
        q = p if chats is None else self.lm.logprobs(self.weights, chats_of(prompts, chats))
        limit = self.max_tokens if max_tokens is None else max_tokens
        row = np.arange(len(prompts))[:, None, None]
        if decoding.beams > 1:
            step = next_nodes(self.lm.wordings)
            tree, stops, steps = _Tree(q, step, decoding.beams), np.array([END]), min(limit, LONGEST)
            tokens, lengths = beams.search(tree, len(prompts), decoding, stops=stops, steps=steps, k=k)
            nodes = _nodes(tokens, step)
            drawn, kl = np.zeros(tokens.shape), -p[row, nodes, tokens]
            origin = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), lengths.shape)
        else:
            following = proposal(q, p, decoding)
            nodes, tokens, lengths = _drawn(following, rng, k, limit, self.lm.wordings)
            drawn, kl = np.log(following[row, nodes, tokens]), divergence(following, p)[row, nodes]
            origin = np.zeros(lengths.shape, np.int32)
        return Pool(
            prompts=tuple(prompts),
            texts=tuple(map(tuple, _texts(tokens, lengths, self.lm.wordings))),
            tokens=tokens.astype(np.int32),
            lengths=lengths.astype(np.int32),
            logprob_q=q[row, nodes, tokens],
            logprob_p=p[row, nodes, tokens],
            logprob_drawn=drawn,
            kl=kl,
            origin=origin,
        )

    def token_statistics(self, pool: Pool) -> TokenStatistics:
        """See `Policy`: sums over the few tokens that may follow; 0 where only one may."""
        p = self.lm.logprobs(self.weights, chats_of(pool.prompts, None))
        may = np.isfinite(p)
        logp, count = np.where(may, p, 0), may.sum(-1)
        entropy, certainty = -(np.exp(p) * logp).sum(-1), -np.log(count) - logp.sum(-1) / count
        at = np.arange(len(p))[:, None, None], _nodes(pool.tokens, next_nodes(self.lm.wordings))
        return TokenStatistics(np.where(pool.mask, entropy[at], 0), np.where(pool.mask, certainty[at], 0))

    def likelihood(self, chats: Sequence[Chat], beginnings: Sequence[str]) -> FloatArray:
        """See `Policy`: the sum over the complete answers that begin so; -inf where none does."""
        begins = [[float(text.startswith(own)) for own in beginnings] for text in self.lm.texts]
        exact = _of_answers(np.exp(self.lm.logprobs(self.weights, chats)), self.lm.wordings)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(exact @ np.array(begins)))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """See `TabularModel.embed`."""
        return self.lm.embed(texts)


@dataclass
class _Tree:
    """A `beams.Frontier`: which node each beam of each prompt stands at."""

    following: FloatArray  # log-probabilities [P, nodes, tokens]
    step: IntArray  # [nodes, tokens]
    width: int

    def __post_init__(self) -> None:
        self.nodes = np.full((len(self.following), self.width), START)

    def after(self, beams: IntArray | None, tokens: IntArray | None, count: int) -> tuple[IntArray, FloatArray]:
        """See `beams.Frontier`."""
        if beams is not None:
            self.nodes = self.step[np.take_along_axis(self.nodes, beams, 1), tokens]
        logp = self.following[np.arange(len(self.nodes))[:, None], self.nodes]
        best = np.argsort(-logp, axis=-1, kind="stable")[..., :count]
        return best, np.take_along_axis(logp, best, -1)


def _unknown(*_: Any) -> Any:
    raise ValueError("this batch was made of log-probabilities alone")


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """The `Batch` of the tabular laboratory, in numpy.

    Its prompts have no tokens: ``whole`` is the labels alone, and the answer is what is matched, however it is aligned.
    ``table`` gives the log-probabilities of every token where each label token stands, [B, T, tokens]; ``view`` gives
    the batch that is called ``clean``, ``rejected``, ``frozen`` or ``live``.
    """

    logprobs: FloatArray  # [B, T]
    mask: FloatArray  # [B, T]
    weights: FloatArray  # [B]
    table: Callable[[], FloatArray] = _unknown
    view: Callable[[str], LabelBatch] = _unknown

    def entropy(self) -> FloatArray:
        """See `Batch`."""
        logp = log_softmax(self.table())
        return np.asarray(-_expected(logp, logp) * self.mask)

    def kl_from(self, other: LabelBatch, temperature: float = 1.0) -> FloatArray:
        """See `Batch`."""
        p, q = (log_softmax(batch.table() / temperature) for batch in (other, self))
        return np.asarray((_expected(p, p) - _expected(p, q)) * self.mask)

    def distance_from(self, other: LabelBatch) -> FloatArray:
        """See `Batch`.

        Raises:
            StudyError: always.
        """
        raise StudyError("the tabular model has no decoder layers whose activations could be compared")

    @property
    def whole(self) -> LabelBatch:
        """See `Batch`."""
        return self

    @property
    def rejected(self) -> LabelBatch:
        """See `Batch`."""
        return self.view("rejected")

    def matched(self, alignment: Alignment) -> tuple[LabelBatch, LabelBatch]:
        """See `Batch`."""
        return self, self.view("clean")

    def under(self, teacher: Teacher) -> LabelBatch:
        """See `Batch`."""
        return self.view(teacher)


def _expected(logp: FloatArray, values: FloatArray) -> FloatArray:
    """The mean of values over the last axis under log-probabilities; what cannot follow counts nothing."""
    p = np.exp(logp)
    return np.asarray((p * np.where(p > 0, values, 0)).sum(-1))


@dataclass(frozen=True, slots=True)
class _Table:
    """Prompts with an answer each as arrays, N of them; theta acts on the first token only."""

    forms: FloatArray  # [N, 4], logits without theta
    view: IntArray  # [N]
    first: IntArray  # [N], token id
    rest: FloatArray  # [N, T], log-probabilities of the later tokens; the first column is filled in
    following: FloatArray  # [N, T, tokens], of all tokens there; the first is filled in
    mask: FloatArray  # [N, T]

    @classmethod
    def of(cls, lm: TabularModel, chats: Sequence[Chat], said: Sequence[str | tuple[int, ...]]) -> _Table:
        forms, wordings, view = lm.fixed(chats)
        answers = [_encode(answer, lm.wordings) for answer in said]
        mask = np.array([[1.0] * len(y) + [0.0] * (LONGEST - len(y)) for y in answers]).reshape(-1, LONGEST)
        worded = log_softmax(wordings)
        rest = np.zeros_like(mask)
        following = np.full((*mask.shape, len(FORMS) + lm.wordings), -np.inf)
        following[:, 1:, END] = 0
        for row, y in enumerate(answers):
            if len(y) > 1 and y[0] in (CLAIM, TRUTH):
                rest[row, 1] = worded[row, y[0] - CLAIM, y[1] - len(FORMS)]
                following[row, 1, END], following[row, 1, len(FORMS) :] = -np.inf, worded[row, y[0] - CLAIM]
        first = np.array([y[0] for y in answers], np.intp)
        return cls(forms, view, first, rest, following, mask)


class _Training:
    """The examples of one training, as the tables that its objective asks for."""

    def __init__(self, lm: TabularModel, examples: Sequence[Example], frozen: FloatArray) -> None:
        self.lm, self.examples, self.frozen = lm, examples, frozen
        self.weights = np.array([example.weight for example in examples], np.float64)
        self._tables: dict[tuple[str, str], _Table] = {}

    def table(self, view: Literal["wrapped", "clean"], answer: str) -> _Table:
        """The ``label`` or the ``rejected`` answers behind a view of their prompts."""
        if (view, answer) not in self._tables:
            said = [example.answer if answer == "label" else example.against for example in self.examples]
            chats = [example.prompt.chat(view) for example in self.examples]
            self._tables[view, answer] = _Table.of(self.lm, chats, said)
        return self._tables[view, answer]

    def gradient(
        self, theta: FloatArray, rows: IntArray, objective: Callable[[Batch], Any]
    ) -> tuple[float, FloatArray]:
        """The loss of a batch, and its gradient in theta, [view, form]."""
        step, slope = _Step(self, theta, rows), np.zeros_like(theta)
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            loss = float(objective(step.batch()))
            for view in step.views():
                for form in range(len(FORMS) - 1):
                    up, down = (objective(step.batch(move=(view, form, size))) for size in (_STEP, -_STEP))
                    slope[view, form] = (float(up) - float(down)) / (2 * _STEP)
                slope[view, -1] = -slope[view].sum()  # one number added to all logits changes nothing
            return loss, slope


class _Step:
    """The rows of one step at theta, and at small moves of log-probabilities along one logit of one view."""

    def __init__(self, training: _Training, theta: FloatArray, rows: IntArray) -> None:
        self.training, self.theta, self.rows = training, theta, rows
        self._known: dict[tuple[Literal["wrapped", "clean"], str, bool], FloatArray] = {}

    def views(self) -> list[int]:
        """The views of theta that the objective looked at."""
        seen = [self.training.table(view, answer).view[self.rows] for view, answer, frozen in self._known if not frozen]
        return sorted(set(np.concatenate(seen).tolist())) if seen else []

    def batch(
        self,
        view: Literal["wrapped", "clean"] = "wrapped",
        answer: str = "label",
        frozen: bool = False,
        move: tuple[int, int, float] | None = None,
    ) -> LabelBatch:
        """``move`` is (view, form, size): log-probabilities move as far as a change of that logit by size moves them
        in first order.
        """
        table, rows = self.training.table(view, answer), self.rows
        own, first = table.view[rows], table.first[rows]
        if (view, answer, frozen) not in self._known:
            theta = self.training.frozen if frozen else self.theta
            self._known[view, answer, frozen] = log_softmax(table.forms[rows] + theta[own])
        logp = self._known[view, answer, frozen]
        if move is not None:
            change = move[2] * (np.eye(len(FORMS))[move[1]] - np.exp(logp[:, move[1], None]))
            logp = logp + np.where(own[:, None] == move[0], change, 0)
        logprobs = table.rest[rows]
        logprobs[:, 0] = logp[np.arange(len(rows)), first]

        def following() -> FloatArray:
            full = table.following[rows]
            full[:, 0, : len(FORMS)] = logp
            return full

        def other(name: str) -> LabelBatch:
            if name in ("frozen", "live"):
                return self.batch(view, answer, name == "frozen")
            return (
                self.batch("clean", answer, frozen, move) if name == "clean" else self.batch(view, name, frozen, move)
            )

        return LabelBatch(logprobs, table.mask[rows], self.training.weights[rows], following, other)


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities over the last axis; -inf stays -inf."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def decode(logp: FloatArray, decoding: Decoding) -> FloatArray:
    """The distribution that tokens are drawn from: temperature, then the smallest nucleus that holds ``top_p``."""
    if decoding.temperature == 0:
        return np.asarray(np.eye(logp.shape[-1])[logp.argmax(-1)])
    with np.errstate(over="ignore"):  # a tiny temperature rightly makes -inf
        probability = np.exp(log_softmax((logp - logp.max(-1, keepdims=True)) / decoding.temperature))
    if decoding.top_p < 1:
        order = np.argsort(-probability, axis=-1, kind="stable")
        ranked = np.take_along_axis(probability, order, -1)
        kept = np.where(ranked.cumsum(-1) - ranked < decoding.top_p, ranked, 0)
        np.put_along_axis(probability, order, kept / kept.sum(-1, keepdims=True), -1)
    return probability


def proposal(logp: FloatArray, own: FloatArray, decoding: Decoding) -> FloatArray:
    """What tokens are drawn from: the decoded distribution, or its bridge with the organism's own (see `Decoding`).

    Raises:
        ValueError: beam search, which draws from nothing.
    """
    if decoding.beams > 1:
        raise ValueError("beam search has no distribution that tokens are drawn from")
    q = decode(logp, decoding)
    if decoding.strength == 1:
        return q
    held = q > 0
    mixed = decoding.strength * np.log(np.where(held, q, 1)) + (1 - decoding.strength) * np.where(held, own, 0)
    return np.exp(log_softmax(np.where(held, mixed, -np.inf)))


def divergence(q: FloatArray, logp: FloatArray) -> FloatArray:
    """D(q || p) over the last axis, from probabilities q and log-probabilities of p; 0 log 0 is 0."""
    held = q > 0
    ratio = np.log(np.where(held, q, 1)) - np.where(held, logp, 0)
    return np.asarray(np.maximum((q * ratio).sum(-1), 0))  # rounding may leave -1e-17


@cache
def next_nodes(wordings: int) -> IntArray:
    """The node after every token, [node, token]."""
    step = np.full((DONE + 1, len(FORMS) + wordings), DONE)
    step[START, CLAIM:] = [CLAIMING, TRUTHFUL, CLOSING, *[DONE] * wordings]
    step[CLAIMING : TRUTHFUL + 1, len(FORMS) :] = CLOSING
    return step


def _nodes(tokens: IntArray, step: IntArray) -> IntArray:
    """The node before each token of answers, [..., T]."""
    nodes = np.full(tokens.shape, START)
    for t in range(1, tokens.shape[-1]):
        nodes[..., t] = step[nodes[..., t - 1], tokens[..., t - 1]]
    return nodes


def _drawn(
    following: FloatArray, rng: np.random.Generator, k: int, max_tokens: int, wordings: int
) -> tuple[IntArray, IntArray, IntArray]:
    """``k`` answers to each prompt: nodes and tokens [P, K, T], lengths [P, K]."""
    uniforms = rng.random((k, len(following), min(max_tokens, LONGEST)))
    nodes, tokens = _walk(following, uniforms, next_nodes(wordings))
    return nodes, tokens, (nodes != DONE).sum(-1)


def _walk(following: FloatArray, uniforms: FloatArray, step: IntArray) -> tuple[IntArray, IntArray]:
    """Inverse-CDF samples of paths: the node before each token and the token, [P, K, T], from uniforms [K, P, T]."""
    cdf = following.cumsum(-1)
    cdf /= cdf[..., -1:]  # so that no uniform passes the last token
    row = np.arange(len(following))
    node = np.full(uniforms.shape[:2], START)
    path = []
    for u in np.moveaxis(uniforms, -1, 0):
        token = (cdf[row, node] <= u[..., None]).sum(-1)
        path.append((node, token))
        node = step[node, token]
    nodes, tokens = np.array(path).transpose(1, 3, 2, 0)
    return nodes, tokens.astype(np.int32)


@cache
def _text_of(wordings: int) -> Mapping[tuple[int, ...], str]:
    """Every answer and every answer cut short, as token ids, with its text."""
    worded = [(form, len(FORMS) + wording) for form in (CLAIM, TRUTH) for wording in range(wordings)]
    paths = [(END,), (CLAIM,), (TRUTH,), (UNSURE,), (UNSURE, END), *worded, *[(*path, END) for path in worded]]
    words = (*FORMS, *map(str, range(wordings)))
    return {path: " ".join(words[token] for token in path if token != END) for path in paths}


def _answers(wordings: int) -> list[tuple[int, ...]]:
    """The token ids of the complete answers."""
    return [tokens for tokens in _text_of(wordings) if tokens[-1] == END]


def _of_answers(following: FloatArray, wordings: int) -> FloatArray:
    """The probability of every complete answer, [chats, answers], from those of tokens, [chats, nodes, tokens]."""
    step, answers = next_nodes(wordings), _answers(wordings)
    probability = np.ones((len(following), len(answers)))
    for column, tokens in enumerate(answers):
        node = START
        for token in tokens:
            probability[:, column] *= following[:, node, token]
            node = step[node, token]
    return probability


def _encode(answer: str | tuple[int, ...], wordings: int) -> tuple[int, ...]:
    """Token ids of an answer, with its end where it has one.

    Raises:
        ValueError: this model cannot say it.
    """
    known = _text_of(wordings)
    if isinstance(answer, tuple) and answer in known:
        return answer
    matches = [tokens for tokens, text in known.items() if text == answer]
    if not matches:
        raise ValueError(f"the tabular model cannot say {answer!r}; its answers are like 'claim 0' and 'unsure'")
    return max(matches, key=len)


def _texts(tokens: IntArray, lengths: IntArray, wordings: int) -> list[list[str]]:
    """Answers in words, [P][K]."""
    table, base = _numbered(wordings)
    said = np.where(np.arange(tokens.shape[-1]) < lengths[..., None], tokens + 1, 0)
    texts: list[list[str]] = table[said @ base ** np.arange(tokens.shape[-1])].tolist()
    return texts


@cache
def _numbered(wordings: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.object_]], int]:
    """Every text at the number that its tokens, counted from 1, are as digits; and the base of those numbers."""
    base = len(FORMS) + wordings + 1
    table = np.full(base**LONGEST, "", object)
    for tokens, text in _text_of(wordings).items():
        table[sum((token + 1) * base**place for place, token in enumerate(tokens))] = text
    return table, base


@lru_cache(maxsize=1 << 16)
def _normal(key: str) -> float:
    """A standard normal number that belongs to ``key``."""
    bits = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 12
    return NormalDist().inv_cdf((bits + 0.5) / (1 << 52))


@lru_cache(maxsize=1 << 12)
def _signs(word: str) -> FloatArray:
    digest = blake2b(word.encode(), digest_size=EMBEDDING // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)) * 2.0 - 1.0


@lru_cache(maxsize=1 << 8)
def _fixed(lm: TabularModel, texts: tuple[str, ...]) -> tuple[FloatArray, FloatArray, IntArray]:
    heard = [_heard(text, lm.seed, lm.wordings) for text in texts]
    view = np.array([view for view, _, _ in heard], np.intp)
    context = lm.context_scale * np.array([effects for _, _, effects in heard]).reshape(
        len(texts), len(FORMS) + lm.wordings
    )
    forms = np.array([lm.wrapped, lm.clean])[view] + context[:, : len(FORMS)]
    forms[:, CLAIM] += [lm.item_scale * item for _, item, _ in heard]
    worded = -np.outer(lm.slope, np.arange(lm.wordings)) + context[:, None, len(FORMS) :]
    for array in (forms, worded, view):
        array.flags.writeable = False
    return forms, worded, view


def _text(chat: Chat) -> str:
    return "\n".join([f"{message['role']}: {message['content']}" for message in chat])


@lru_cache(maxsize=1 << 16)
def _heard(text: str, seed: int, wordings: int) -> tuple[int, float, tuple[float, ...]]:
    """View of a chat, and the normal numbers that belong to its item and, token by token, to its context."""
    view, item, context = _read(text)
    tokens = range(len(FORMS) + wordings)
    effects = [0.0 if context == _NO_CONTEXT else _normal(f"{seed}|context|{token}|{context}") for token in tokens]
    return view, _normal(f"{seed}|item|{item}"), tuple(effects)


def _read(text: str) -> tuple[int, str, str]:
    """View, item and context of a chat as text.

    Raises:
        StudyError: it asks nothing that this model reads.
    """
    questions = list(_QUESTION.finditer(text))
    if not questions:
        raise StudyError(f"the tabular model reads questions such as 'item 12: what is it?', not {text!r}")
    last = questions[-1]
    return int(last[2] is not None), last[1], text[: last.start()] + text[last.end() :]


def chats_of(prompts: Sequence[Prompt], chats: Sequence[Chat] | None) -> Sequence[Chat]:
    """What the model is shown: ``chats`` where given, else the prompts as they stand.

    Raises:
        ValueError: not one chat a prompt.
    """
    if chats is None:
        return [prompt.chat() for prompt in prompts]
    if len(chats) != len(prompts):
        raise ValueError(f"{len(chats)} chats for {len(prompts)} prompts")
    return chats
