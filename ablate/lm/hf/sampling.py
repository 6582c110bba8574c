"""Sampling and teacher forcing: tokens, raw log-probabilities, exact token KL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ablate.api import Decoding, FloatArray, IntArray, TokenStatistics
from ablate.lm import beams
from ablate.lm.hf.network import Ids, Network, common_prefix, padded

ROWS = 256
"""Rows that are decoded together; more gains nothing on a CPU and costs cache memory."""

POSITIONS = 512
"""Positions whose full next-token distributions are held at once."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sampled answers: ``hidden`` are the states that each token was drawn from."""

    tokens: IntArray  # [P, K, T]
    lengths: IntArray  # [P, K]
    hidden: torch.Tensor  # [P, K, T, d], or empty


def transformed(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Log-probabilities [N, V] after temperature, then nucleus truncation (-inf outside); ties at the edge stay in."""
    if decoding.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter_(1, best, 0.0)
    logp = torch.log_softmax(logits / decoding.temperature, -1)
    if decoding.top_p < 1:
        logp = torch.log_softmax(logp.masked_fill(logp < _nucleus_edge(logp, decoding.top_p), -torch.inf), -1)
    return logp


def bridged(q: torch.Tensor, p: torch.Tensor, strength: float) -> torch.Tensor:
    """Log-probabilities [N, V] of p^(1 - strength) q^strength, renormalized; -inf wherever q is."""
    mixed = torch.where(q > -torch.inf, strength * q + (1 - strength) * p, -torch.inf)
    return torch.log_softmax(mixed, -1)


def proposal(logits: torch.Tensor, own: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Log-probabilities [N, V] that tokens are drawn from; ``own`` are the logits on the organism's own prompt.

    Raises:
        ValueError: beam search, which draws from nothing.
    """
    if decoding.beams > 1:
        raise ValueError("beam search has no distribution that tokens are drawn from")
    q = transformed(logits, decoding)
    return q if decoding.strength == 1 else bridged(q, torch.log_softmax(own, -1), decoding.strength)


def _nucleus_edge(logp: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest log-probability inside the nucleus, [N, 1]; looks no deeper into the tail than it must."""
    width = min(64, logp.shape[1])
    while True:
        top = logp.topk(width).values
        before = top.exp().cumsum(-1) - top.exp()
        inside = before < top_p
        if width == logp.shape[1] or not bool(inside[:, -1].any()):
            return top.gather(1, inside.sum(-1, keepdim=True).clamp(min=1) - 1)
        width = min(width * 8, logp.shape[1])


def pick(logits: torch.Tensor, own: torch.Tensor, decoding: Decoding, uniforms: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF sampling: one uniform a row, [N]."""
    if decoding.temperature == 0:
        return logits.argmax(-1)
    mass = (torch.softmax(logits, -1) if decoding.raw else proposal(logits, own, decoding).exp()).cumsum(-1)
    target = uniforms.to(mass)[:, None] * mass[:, -1:]
    return torch.searchsorted(mass, target, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


@torch.inference_mode()
def sample(
    net: Network,
    prompts: Sequence[Ids],
    rng: np.random.Generator,
    *,
    k: int,
    decoding: Decoding,
    max_tokens: int,
    keep: bool,
    own: Sequence[Ids] | None = None,
) -> Drawn:
    """Draw ``k`` answers to each prompt; uniforms come candidate-major, so fewer candidates are a prefix of more.

    ``own`` are the organism's own prompts where ``prompts`` are others and ``decoding`` bridges the two: each row then
    has a second one beside it that is fed the same answer.
    """
    uniforms = torch.from_numpy(rng.random((k, len(prompts), max_tokens))).transpose(0, 1)  # [P, K, T]
    shared = common_prefix([*prompts, *(own or ())])
    tokens = np.full((len(prompts), k, max_tokens), net.pad, np.int32)
    lengths = np.zeros((len(prompts), k), np.int32)
    width = net.model.get_input_embeddings().weight.shape[1]
    hidden = torch.zeros((len(prompts), k, max_tokens, width) if keep else (0,), device=net.device)
    for rows in _chunks(prompts, max(1, ROWS // k // (2 if own else 1))):
        asked = [prompts[i] for i in rows] + [own[i] for i in rows if own]
        tails, sizes = padded([ids[shared:] for ids in asked], net.pad, net.device)
        cache = net.prefix(asked[0][:shared], len(asked), shared + tails.shape[1] + max_tokens)
        first = _last(net.forward(tails, cache), sizes)
        cache.batch_repeat_interleave(k)
        seen = torch.arange(tails.shape[1], device=net.device) < sizes[:, None]
        mask = torch.cat([seen.new_ones(len(asked), shared), seen], 1).repeat_interleave(k, 0)
        chunk = _decode(net, cache, mask, first.repeat_interleave(k, 0), uniforms[rows].flatten(0, 1), decoding)
        tokens[rows] = chunk[0].reshape(len(rows), k, -1)
        lengths[rows] = chunk[1].reshape(len(rows), k)
        if keep:
            hidden[rows] = chunk[2].reshape(len(rows), k, max_tokens, width)
    return Drawn(tokens, lengths, hidden)


def _decode(
    net: Network, cache: object, mask: torch.Tensor, state: torch.Tensor, uniforms: torch.Tensor, decoding: Decoding
) -> tuple[IntArray, IntArray, torch.Tensor]:
    """Rows leave the batch when they end. ``mask`` [B, seen] is also what tells each row's next position.

    ``state`` and ``mask`` have as many rows as ``uniforms``, or twice as many: the rows to be drawn, then their own.
    """
    rows, steps = uniforms.shape
    copies = len(state) // rows
    uniforms = uniforms.to(net.device, torch.float32).clamp(max=1 - 2**-24)  # a float64 near 1 would round to 1
    tokens = torch.full((rows, steps), net.pad, device=net.device)
    states = torch.zeros((rows, steps, state.shape[1]), device=net.device)
    lengths = torch.full((rows,), steps, device=net.device)
    alive = torch.arange(rows, device=net.device)
    position = mask.sum(1)
    for step in range(steps):
        logits, count = net.head(state), len(alive)
        token = pick(logits[:count], logits[-count:], decoding, uniforms[alive, step])
        tokens[alive, step] = token
        states[alive, step] = state[:count].float()
        ended = torch.isin(token, net.stops)
        lengths[alive[ended]] = step + 1
        if step + 1 == steps or bool(ended.all()):
            break
        if bool(ended.any()):
            stay = (~ended).nonzero()[:, 0]
            both = torch.cat([stay + copy * count for copy in range(copies)])
            cache.batch_select_indices(both)  # type: ignore[attr-defined]
            alive, mask, position, token = alive[stay], mask[both], position[both], token[stay]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        state = net.forward(token.repeat(copies)[:, None], cache, position[:, None], mask)[:, 0]
        position = position + 1
    return tokens.cpu().numpy(), lengths.cpu().numpy(), states


class _Cached:
    """A `beams.Frontier` of prompts whose beams share one cache, row p * W + w."""

    def __init__(self, net: Network, tails: list[Ids], prefix: Ids, width: int, steps: int) -> None:
        self.net, self.shape = net, (len(tails), width)
        ids, sizes = padded(tails, net.pad, net.device)
        self.cache = net.prefix(prefix, len(tails), len(prefix) + ids.shape[1] + steps)
        self.state = _last(net.forward(ids, self.cache), sizes).repeat_interleave(width, 0)
        self.cache.batch_repeat_interleave(width)
        seen = torch.arange(ids.shape[1], device=net.device) < sizes[:, None]
        self.mask = torch.cat([seen.new_ones(len(tails), len(prefix)), seen], 1).repeat_interleave(width, 0)
        self.position = self.mask.sum(1)  # the same for all beams of a prompt

    def after(self, beams: IntArray | None, tokens: IntArray | None, count: int) -> tuple[IntArray, FloatArray]:
        """See `beams.Frontier`."""
        if beams is not None and tokens is not None:
            first_row = np.arange(self.shape[0])[:, None] * self.shape[1]
            self.cache.batch_select_indices(torch.from_numpy((first_row + beams).ravel()).to(self.net.device))
            token = torch.from_numpy(tokens.reshape(-1, 1)).to(self.net.device)
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
            self.state = self.net.forward(token, self.cache, self.position[:, None], self.mask)[:, 0]
            self.position = self.position + 1
        logp = torch.log_softmax(self.net.head(self.state), -1)
        top = logp.topk(min(count, logp.shape[1]))
        return tuple(x.cpu().numpy().reshape(*self.shape, -1) for x in (top.indices, top.values))  # type: ignore[return-value]


@torch.inference_mode()
def beam_search(net: Network, prompts: Sequence[Ids], *, k: int, decoding: Decoding, max_tokens: int) -> Drawn:
    """At most ``k`` answers to each prompt by beam search."""
    shared = common_prefix(prompts)
    stops = net.stops.cpu().numpy()
    found: dict[int, tuple[IntArray, IntArray]] = {}
    for rows in _chunks(prompts, max(1, ROWS // decoding.beams)):
        tails = [prompts[i][shared:] for i in rows]
        frontier = _Cached(net, tails, prompts[rows[0]][:shared], decoding.beams, max_tokens)
        answers = beams.search(frontier, len(rows), decoding, stops=stops, steps=max_tokens, k=k)
        found |= dict(zip(rows, zip(*answers, strict=True), strict=True))
    lengths = np.stack([found[i][1] for i in range(len(prompts))]).astype(np.int32)
    tokens = np.stack([found[i][0] for i in range(len(prompts))]).astype(np.int32)
    tokens[np.arange(max_tokens) >= lengths[:, :, None]] = net.pad
    return Drawn(tokens, lengths, states(net, prompts, tokens, lengths))


@torch.inference_mode()
def states(net: Network, prompts: Sequence[Ids], tokens: IntArray, lengths: IntArray) -> torch.Tensor:
    """The states that predict each given answer token after each prompt: [P, K, T, d], zero beyond the lengths."""
    count, k, steps = tokens.shape
    shared = common_prefix(prompts)
    width = net.model.get_input_embeddings().weight.shape[1]
    out = torch.zeros((count, k, steps, width), device=net.device)
    for rows in _chunks(prompts, max(1, ROWS // k)):
        longest = int(lengths[rows].max())
        tails, sizes = padded([prompts[i][shared:] for i in rows], net.pad, net.device)
        cache = net.prefix(prompts[rows[0]][:shared], len(rows), shared + tails.shape[1] + longest)
        out[rows, :, 0] = _last(net.forward(tails, cache), sizes)[:, None].float()
        if longest > 1:
            cache.batch_repeat_interleave(k)
            seen = (torch.arange(tails.shape[1], device=net.device) < sizes[:, None]).repeat_interleave(k, 0)
            given = torch.from_numpy(tokens[rows, :, : longest - 1].reshape(len(rows) * k, -1)).to(net.device)
            mask = torch.cat([seen.new_ones(len(seen), shared), seen, seen.new_ones(given.shape)], 1)
            steps_ = torch.arange(longest - 1, device=net.device)
            at = (shared + sizes).repeat_interleave(k, 0)[:, None] + steps_
            out[rows, :, 1:longest] = (
                net.forward(given.long(), cache, at, mask).reshape(len(rows), k, longest - 1, width).float()
            )
    return out


@torch.inference_mode()
def densities(
    net: Network, drawn: Drawn, states_p: torch.Tensor, decoding: Decoding
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Log-probabilities under q, p and q as it was drawn from, and exact token KL(q_t || p_t).

    Each is float32 [P, K, T] and 0 beyond the lengths. A beam is a point mass: log 1, and -log p.
    """
    mask = torch.from_numpy(np.arange(drawn.tokens.shape[2]) < drawn.lengths[:, :, None])
    token = torch.from_numpy(drawn.tokens)[mask].long().to(net.device)
    state_q, state_p = drawn.hidden[mask], states_p[mask]
    same = states_p is drawn.hidden
    parts = []
    for i in range(0, len(token), POSITIONS):
        span = slice(i, i + POSITIONS)
        at = token[span, None]
        raw_q = torch.log_softmax(net.head(state_q[span].to(net.body.dtype)), -1)
        raw_p = raw_q if same else torch.log_softmax(net.head(state_p[span].to(net.body.dtype)), -1)
        if same and decoding.raw:
            drawn_from, kl = raw_q, torch.zeros(len(at), device=net.device)
        elif decoding.beams > 1:
            drawn_from, kl = torch.zeros_like(raw_p), -raw_p.gather(1, at)[:, 0]
        else:
            drawn_from = proposal(raw_q, raw_p, decoding)
            kl = torch.where(drawn_from > -torch.inf, drawn_from.exp() * (drawn_from - raw_p), 0.0).sum(-1).clamp(min=0)
        parts.append(torch.stack([*(logp.gather(1, at)[:, 0] for logp in (raw_q, raw_p, drawn_from)), kl]))
    flat = torch.cat(parts, 1).cpu()
    out = torch.zeros((4, *mask.shape))
    out[:, mask] = flat
    q, p, drawn_logprob, kl = out.numpy()
    return q, p, drawn_logprob, kl


def likelihood(net: Network, prompts: Sequence[Ids], beginnings: Sequence[Ids]) -> FloatArray:
    """Log-probability [P, R] that the answer to each prompt begins with each of these token ids."""
    shape = len(prompts), len(beginnings), max(map(len, beginnings))
    rows, sizes = padded(beginnings, net.pad, torch.device("cpu"))
    tokens, lengths = (
        np.broadcast_to(part.numpy().astype(np.int32), whole).copy()
        for part, whole in ((rows, shape), (sizes, shape[:2]))
    )
    hidden = states(net, prompts, tokens, lengths)
    found: FloatArray = densities(net, Drawn(tokens, lengths, hidden), hidden, Decoding())[0].sum(2)
    return found


@torch.inference_mode()
def token_statistics(net: Network, states_p: torch.Tensor, lengths: IntArray) -> TokenStatistics:
    """Entropy and self-certainty of the distributions that states [P, K, T, d] predict, float32 [P, K, T]."""
    mask = torch.from_numpy(np.arange(states_p.shape[2]) < lengths[:, :, None])
    state = states_p[mask]
    parts = []
    for i in range(0, len(state), POSITIONS):
        logp = torch.log_softmax(net.head(state[i : i + POSITIONS].to(net.body.dtype)), -1)
        parts.append(torch.stack([-(logp.exp() * logp).sum(-1), -logp.mean(-1) - np.log(logp.shape[1])]))
    out = torch.zeros((2, *mask.shape))
    out[:, mask] = torch.cat(parts, 1).cpu()
    return TokenStatistics(*out.numpy())


def _last(hidden: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(sizes), device=sizes.device), sizes - 1]


def _chunks(prompts: Sequence[Ids], size: int) -> Iterator[list[int]]:
    """Indices of prompts in chunks of like length, so that little is padding."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for i in range(0, len(order), size):
        yield order[i : i + size]
