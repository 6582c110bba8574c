"""Beam search against enumeration and against the same search in plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ablate.api import Decoding, FloatArray, IntArray
from ablate.lm.beams import search

VOCABULARY, STEPS, STOP = 4, 4, 3


class Chain:
    """A Markov chain whose next token depends on the last one, and on the prompt."""

    def __init__(self, prompts: int, width: int, seed: int = 0) -> None:
        logits = np.random.default_rng(seed).normal(0, 1.5, (prompts, VOCABULARY + 1, VOCABULARY))
        self.logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        self.last = np.full((prompts, width), VOCABULARY)

    def after(self, beams: IntArray | None, tokens: IntArray | None, count: int) -> tuple[IntArray, FloatArray]:
        if tokens is not None:
            self.last = tokens
        logp = self.logp[np.arange(len(self.last))[:, None], self.last]
        best = np.argsort(-logp, axis=-1, kind="stable")[..., :count]
        return best, np.take_along_axis(logp, best, -1)

    def score(self, prompt: int, answer: tuple[int, ...]) -> float:
        return float(sum(self.logp[prompt, a, b] for a, b in zip((VOCABULARY, *answer), answer, strict=False)))


def whole(row: tuple[int, ...]) -> bool:
    """Whether a row of tokens is an answer: it ends at its first stop, or is cut."""
    return STOP not in row[:-1] and (row[-1] == STOP or len(row) == STEPS)


def found(chain: Chain, decoding: Decoding, k: int) -> list[list[tuple[int, ...]]]:
    tokens, lengths = search(chain, len(chain.last), decoding, stops=np.array([STOP]), steps=STEPS, k=k)
    return [
        [tuple(row[:n].tolist()) for row, n in zip(*pair, strict=True)] for pair in zip(tokens, lengths, strict=True)
    ]


def test_enough_beams_find_the_most_probable_answers() -> None:
    chain = Chain(prompts=5, width=300)
    answers = [row for n in range(1, STEPS + 1) for row in product(range(VOCABULARY), repeat=n) if whole(row)]
    for i, rows in enumerate(found(chain, Decoding(beams=300, length_penalty=0.0), k=20)):
        assert rows == sorted(answers, key=lambda row: -chain.score(i, row))[:20]


def test_there_are_no_more_candidates_than_answers() -> None:
    answers = sum(whole(row) for n in range(1, STEPS + 1) for row in product(range(VOCABULARY), repeat=n))
    (rows,) = found(Chain(prompts=1, width=300), Decoding(beams=300, length_penalty=0.0), k=300)
    assert len(rows) == len(set(rows)) == answers


@pytest.mark.parametrize("penalty", [0.0, 0.3, 2.0])
def test_groups_of_one_beam_are_greedy_less_what_was_said(penalty: float) -> None:
    """Algorithm 1 of Vijayakumar et al. in plain loops, without an end: a stop that no token is."""
    width, decoding = 3, Decoding(beams=3, groups=3, penalty=penalty)
    tokens, _ = search(Chain(4, width), 4, decoding, stops=np.array([99]), steps=STEPS, k=width)
    chain = Chain(4, width)
    for i in range(4):
        rows: list[list[int]] = [[] for _ in range(width)]
        for _ in range(STEPS):
            said = np.zeros(VOCABULARY)
            for row in rows:
                token = int((chain.logp[i, row[-1] if row else VOCABULARY] - penalty * said).argmax())
                row.append(token)
                said[token] += 1
        assert tokens[i].tolist() == rows


def test_candidates_of_different_groups_come_first() -> None:
    decoding = Decoding(beams=4, groups=2)  # no penalty: both groups find the same
    for one, two, three, four in found(Chain(prompts=6, width=4), decoding, k=4):
        assert one == two != three == four
