"""What the engine asks of a language model, whatever it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from platformdirs import user_cache_path

from ablate.api import Batch, Chat, Decoding, FloatArray, Policy, Prompt, Weights


def cache_folder() -> Path:
    """Where models and judges' replies are kept: ``ABLATE_CACHE``, or the platform's cache folder."""
    return Path(os.environ.get("ABLATE_CACHE") or user_cache_path("ablate"))


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: the answer to a prompt, as text or as the token ids that were sampled."""

    prompt: Prompt
    answer: str | tuple[int, ...]
    weight: float = 1.0
    rejected: str | tuple[int, ...] | None = None

    @property
    def against(self) -> str | tuple[int, ...]:
        """The answer that this one is preferred to.

        Raises:
            ValueError: there is none.
        """
        if self.rejected is None:
            raise ValueError("no answer was rejected for this label: register the objective with labels='pairs'")
        return self.rejected


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Dose and optimizer of one training; ``warmup`` is the share of steps, ``rank`` and ``alpha`` LoRA's.

    ``tokens`` is the number of label tokens to train on, in as many epochs as that takes.
    """

    epochs: int
    lr: float
    batch: int
    warmup: float
    rank: int
    alpha: int
    tokens: int | None = None


def steps(
    lengths: Sequence[float], weights: Sequence[float], options: TrainOptions, rng: np.random.Generator
) -> list[list[int]]:
    """The examples of every step, by index.

    Those of weight 0 are left out after shuffling, so that the order of the others is held fixed. Where ``tokens`` are
    asked for, epoch follows epoch until the labels that were taken have so many, and the answer that reaches the
    number is the last: label sets of any length get the same dose to within one answer.
    """
    plan: list[list[int]] = []
    left: float = float("inf") if options.tokens is None else options.tokens
    for _ in range(options.epochs) if options.tokens is None else count():
        order = [i for i in rng.permutation(len(weights)).tolist() if weights[i] > 0]
        if not order or left <= 0:
            break
        seen = np.cumsum([lengths[i] for i in order])
        order = order[: int((seen < left).sum()) + 1]
        plan += [order[i : i + options.batch] for i in range(0, len(order), options.batch)]
        left -= seen[len(order) - 1]
    return plan


class LossIsNotFiniteError(RuntimeError):
    """Training met a NaN or infinite loss; the run fails, the study goes on."""


class LanguageModel(Protocol):
    """A base model. ``weights`` are what training added to it; None is the base model itself."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Of the model as it was loaded: ``weights`` (a hash), ``dtype``, ``device``."""
        ...

    def policy(self, weights: Weights | None, *, max_tokens: int) -> Policy:
        """The model with ``weights``, answering in at most ``max_tokens`` tokens unless asked otherwise."""
        ...

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
        """Answers as text only, [prompts][samples]."""
        ...

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
        """Train ``weights`` further, or new ones drawn with ``init_seed``; returns them with the loss of each step.

        Raises:
            LossIsNotFiniteError: naming the step.
        """
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Mean-pooled embeddings of texts, float32 [texts, D]."""
        ...
