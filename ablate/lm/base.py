"""What the engine asks of a language model, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ablate.api import Batch, Chat, Decoding, FloatArray, Policy, Prompt, Weights


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: the answer to a prompt, as text or as the token ids that were sampled."""

    prompt: Prompt
    answer: str | tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Dose and optimizer of one training; ``warmup`` is the share of steps, ``rank`` and ``alpha`` LoRA's."""

    epochs: int
    lr: float
    batch: int
    warmup: float
    rank: int
    alpha: int


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
