"""Beam search over any next-token distribution, plain or in groups that avoid each other's tokens; numpy alone.

Plain search is that of transformers' ``generate(num_beams=...)`` token for token, its early stopping included: a
prompt is done when its best running beam, at its present length, scores below its worst finished one.
Groups are Diverse Beam Search with Hamming diversity (Vijayakumar et al., 2018, algorithm 1); what a beam paid stays in
its score, as in the authors' code.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ablate.api import Decoding, FloatArray, IntArray


class Frontier(Protocol):
    """The beams of P prompts, W each, as a language model knows them."""

    def after(self, beams: IntArray | None, tokens: IntArray | None, count: int) -> tuple[IntArray, FloatArray]:
        """Go on from ``beams`` [P, W] with ``tokens`` [P, W]; None, None: begin.

        Returns:
            The ``count`` most probable next tokens of every beam, or all there are, and their log-probabilities,
            both [P, W, C].
        """
        ...


def search(
    frontier: Frontier, prompts: int, decoding: Decoding, *, stops: IntArray, steps: int, k: int
) -> tuple[IntArray, IntArray]:
    """The ``k`` best answers of the beams to each prompt, fewer where there are fewer beams or answers.

    Args:
        frontier: the model.
        prompts: P.
        decoding: ``beams``, ``groups``, ``penalty``, ``length_penalty``.
        stops: token ids that end an answer.
        steps: longest answer, in tokens.
        k: K.

    Returns:
        Tokens [P, K, T] and lengths [P, K]; an answer that was cut has T tokens and no end. The best of each group
        first, then the second of each; within a group by (sum of log-probabilities - what was paid) /
        length^length_penalty.
    """
    size = decoding.beams // decoding.groups
    groups = [_Group(prompts, size, steps, decoding.length_penalty) for _ in range(decoding.groups)]
    taken = max(2, 1 + len(stops)) * size  # so that enough go on even if the best of every beam end
    beams = last = None
    for step in range(steps):
        tokens, logp = frontier.after(beams, last, taken + decoding.beams - size)
        said = np.empty((prompts, 0), np.int64)  # by the groups before, at this step
        parents = []
        for g, group in enumerate(groups):
            own = slice(g * size, (g + 1) * size)
            repeated = (tokens[:, own, :, None] == said[:, None, None, :]).sum(-1)
            parent, token = group.extend(tokens[:, own], logp[:, own] - decoding.penalty * repeated, stops, step, taken)
            said = np.concatenate([said, token], 1)
            parents.append(parent + g * size)
        if all(group.done.all() for group in groups):
            break
        beams, last = np.concatenate(parents, 1), said
    order = [(g, rank) for rank in range(size) for g in range(len(groups))]
    scores = np.stack([groups[g].score[:, rank] for g, rank in order], 1)
    found = np.argsort(np.isneginf(scores), axis=1, kind="stable")[:, : min(k, int(np.isfinite(scores).sum(1).min()))]
    answers, lengths = (
        np.stack([getattr(groups[g], name)[:, rank] for g, rank in order], 1) for name in ("answers", "lengths")
    )
    return np.take_along_axis(answers, found[:, :, None], 1), np.take_along_axis(lengths, found, 1)


class _Group:
    """B beams of each of P prompts: those that go on (``running``) and the best that have ended (``answers``)."""

    def __init__(self, prompts: int, size: int, steps: int, length_penalty: float) -> None:
        self.prompts, self.size, self.steps, self.length_penalty = prompts, size, steps, length_penalty
        self.total: FloatArray = np.full((prompts, size), -np.inf)  # of each running beam, less what it paid
        self.total[:, 0] = 0.0  # all begin alike, so only one of them counts
        self.running, self.answers = (np.zeros((prompts, size, steps), np.int64) for _ in range(2))
        self.score: FloatArray = np.full((prompts, size), -np.inf)
        self.lengths: IntArray = np.zeros((prompts, size), np.int64)
        self.done = np.zeros(prompts, bool)  # where nothing better can be found

    def extend(
        self, tokens: IntArray, logp: FloatArray, stops: IntArray, step: int, taken: int
    ) -> tuple[IntArray, IntArray]:
        """One step from the next tokens [P, B, C]: the beams that go on, as parent and token, [P, B] each."""
        total = (self.total[:, :, None] + logp).reshape(self.prompts, -1)
        order = np.argsort(-total, axis=1, kind="stable")[:, :taken]
        total = np.take_along_axis(total, order, 1)
        token = np.take_along_axis(tokens.reshape(self.prompts, -1), order, 1)
        parent = order // tokens.shape[2]
        path = np.take_along_axis(self.running, parent[:, :, None], 1)
        path[:, :, step] = token
        ended = np.isin(token, stops)
        cut = np.full_like(ended, step + 1 == self.steps)
        self._finish(path, total, (ended | cut) & (np.arange(order.shape[1]) < self.size), step + 1)
        on = np.argsort(ended, axis=1, kind="stable")[:, : self.size]
        self.total = np.take_along_axis(np.where(ended, -np.inf, total), on, 1)
        self.running = np.take_along_axis(path, on[:, :, None], 1)
        hope = self.total.max(1) / (step + 1) ** self.length_penalty
        self.done |= cut.all() | ~(hope > self.score.min(1))
        return np.take_along_axis(parent, on, 1), np.take_along_axis(token, on, 1)

    def _finish(self, path: IntArray, total: FloatArray, ended: Any, length: int) -> None:
        """Keep the best of the answers there are and those that ended now."""
        new = np.where(ended & ~self.done[:, None], total / length**self.length_penalty, -np.inf)
        score = np.concatenate([self.score, new], 1)
        best = np.argsort(-score, axis=1, kind="stable")[:, : self.size]
        self.score = np.take_along_axis(score, best, 1)
        self.answers = np.take_along_axis(np.concatenate([self.answers, path], 1), best[:, :, None], 1)
        lengths = np.concatenate([self.lengths, np.full(total.shape, length)], 1)
        self.lengths = np.take_along_axis(lengths, best, 1)
