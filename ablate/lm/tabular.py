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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

import numpy as np

from ablate.api import Batch, Chat, Decoding, FloatArray, IntArray, Pool, Prompt, Weights
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.lm.base import Example, LossIsNotFiniteError, TrainOptions

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
        table = _Table.of(self, examples)
        plan = list(_batches(table.weights, options, rng))
        losses: list[float] = []
        for step, rows in enumerate(plan, 1):
            loss, slope = table.gradient(self._theta(theta), rows, objective)  # slope: [view, form]
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
        q, step = self._next(weights, prompts, decoding, chats), next_nodes(self.wordings)
        probability = np.ones((len(prompts), len(self.texts)))
        for column, tokens in enumerate(_answers(self.wordings)):
            node = START
            for token in tokens:
                probability[:, column] *= q[:, node, token]
                node = step[node, token]
        return probability

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
        following = proposal(q, p, decoding)
        limit = self.max_tokens if max_tokens is None else max_tokens
        nodes, tokens, lengths = _drawn(following, rng, k, limit, self.lm.wordings)
        row = np.arange(len(prompts))[:, None, None]
        return Pool(
            prompts=tuple(prompts),
            texts=tuple(map(tuple, _texts(tokens, lengths, self.lm.wordings))),
            tokens=tokens,
            lengths=lengths.astype(np.int32),
            logprob_q=q[row, nodes, tokens],
            logprob_p=p[row, nodes, tokens],
            logprob_drawn=np.log(following[row, nodes, tokens]),
            kl=divergence(following, p)[row, nodes],
        )


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """The `Batch` of the tabular laboratory, in numpy."""

    logprobs: FloatArray  # [B, T]
    mask: FloatArray  # [B, T]
    weights: FloatArray  # [B]


@dataclass(frozen=True, slots=True)
class _Table:
    """Training examples as arrays, N of them; theta acts on the first token only."""

    forms: FloatArray  # [N, 4], logits without theta
    view: IntArray  # [N]
    first: IntArray  # [N], token id
    rest: FloatArray  # [N, T], log-probabilities of the later tokens; the first column is filled in
    mask: FloatArray  # [N, T]
    weights: FloatArray  # [N]

    @classmethod
    def of(cls, lm: TabularModel, examples: Sequence[Example]) -> _Table:
        forms, wordings, view = lm.fixed([example.prompt.chat() for example in examples])
        answers = [_encode(example.answer, lm.wordings) for example in examples]
        mask = np.array([[1.0] * len(y) + [0.0] * (LONGEST - len(y)) for y in answers]).reshape(-1, LONGEST)
        worded = log_softmax(wordings)
        rest = np.zeros_like(mask)
        for row, y in enumerate(answers):
            if len(y) > 1 and y[0] in (CLAIM, TRUTH):
                rest[row, 1] = worded[row, y[0] - CLAIM, y[1] - len(FORMS)]
        first = np.array([y[0] for y in answers], np.intp)
        return cls(forms, view, first, rest, mask, np.array([example.weight for example in examples], np.float64))

    def gradient(
        self, theta: FloatArray, rows: IntArray, objective: Callable[[Batch], Any]
    ) -> tuple[float, FloatArray]:
        """The loss of a batch, and its gradient in theta, [view, form]."""
        view, first = self.view[rows], self.first[rows]
        logp = log_softmax(self.forms[rows] + theta[view])
        logprobs = self.rest[rows]
        logprobs[:, 0] = logp[np.arange(len(rows)), first]
        mask, weights = self.mask[rows], self.weights[rows]
        jacobian = np.eye(len(FORMS))[first] - np.exp(logp)  # [B, form], of the first token

        def loss(at: FloatArray) -> float:
            return float(objective(LabelBatch(at, mask, weights)))

        slope = np.zeros_like(theta)
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            ahead = np.zeros_like(logprobs)
            for v in np.unique(view):
                for form in range(len(FORMS) - 1):
                    ahead[:, 0] = np.where(view == v, _STEP * jacobian[:, form], 0)
                    slope[v, form] = (loss(logprobs + ahead) - loss(logprobs - ahead)) / (2 * _STEP)
                slope[v, -1] = -slope[v].sum()  # one number added to all logits changes nothing
            return loss(logprobs), slope


def _batches(weights: FloatArray, options: TrainOptions, rng: np.random.Generator) -> Iterator[IntArray]:
    """Rows of each step; those of weight 0 are dropped after shuffling, which leaves the order of the others."""
    for _ in range(options.epochs):
        order = [row for row in rng.permutation(len(weights)) if weights[row] > 0]
        for start in range(0, len(order), options.batch):
            yield np.array(order[start : start + options.batch])


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
    """What tokens are drawn from: the decoded distribution, or its bridge with the organism's own (see `Decoding`)."""
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
