"""What an objective sees of a step: label tokens under the model, and views of them, each passed when it is asked for.

A row is a text with a number of last tokens that are its labels. Every view is a change of rows (another prompt,
another answer, more or fewer labels) or of the model that reads them, so one kind of pass serves all. The rows of a
pass are packed behind the prefix that they share: it is taken once, nothing is padded, every matrix product is of one
full matrix, and the output layer sees the label positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ablate.api import Alignment, Teacher
from ablate.errors import StudyError
from ablate.lm.base import Example
from ablate.lm.hf.network import Ids, Network, common_prefix, padded

PACK = 384
"""Most tokens of a pack, unless one row is longer."""

POSITIONS = 512
"""Distributions over the whole vocabulary that are held at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example in tokens; the last ``labels`` of prompt and answer are what it teaches."""

    prompt: Ids
    answer: Ids
    labels: int
    example: Example

    @classmethod
    def of(cls, prompt: Ids, answer: Ids, example: Example) -> Row:
        """The answer is the label."""
        return cls(prompt, answer, len(answer), example)

    @property
    def ids(self) -> Ids:
        """All of its tokens."""
        return [*self.prompt, *self.answer]


class TorchBatch:
    """See :class:`ablate.api.Batch`.

    Args:
        net: with its adapter in training.
        rows: one for each label.
        frozen: a context in which the adapter is as it was before training.
        teacher: the model that reads the rows; None is the one in training, with gradient.
    """

    def __init__(
        self,
        net: Network,
        rows: Sequence[Row],
        frozen: Callable[[], AbstractContextManager[None]],
        teacher: Teacher | None = None,
    ) -> None:
        self.net, self.rows, self.frozen, self.teacher = net, rows, frozen, teacher

    @cached_property
    def weights(self) -> torch.Tensor:
        """[B]."""
        return torch.tensor([row.example.weight for row in self.rows], device=self.net.device)

    @cached_property
    def mask(self) -> torch.Tensor:
        """[B, T]."""
        return self._holds.float()

    @cached_property
    def logprobs(self) -> torch.Tensor:
        """[B, T]."""
        labels = [row.ids[len(row.ids) - row.labels :] for row in self.rows]
        ids = padded(labels, self.net.pad, self.net.device)[0][self._holds]
        with self._model():
            nll = torch.nn.functional.cross_entropy(self.net.head(self._states), ids, reduction="none")
        return self._placed(-nll)

    def entropy(self) -> torch.Tensor:
        """[B, T]."""

        def entropy(states: torch.Tensor) -> torch.Tensor:
            logp = torch.log_softmax(self.net.head(states), -1)
            return -(logp.exp() * logp).sum(-1)

        with self._model():
            return self._placed(_chunked(entropy, self._states))

    def kl_from(self, other: TorchBatch, temperature: float = 1.0) -> torch.Tensor:
        """[B, T]."""

        def divergence(states: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
            p, q = (torch.log_softmax(self.net.head(at) / temperature, -1) for at in (others, states))
            return (p.exp() * (p - q)).sum(-1)

        with self._model():
            return self._placed(_chunked(divergence, self._states, other._states))

    def distance_from(self, other: TorchBatch) -> torch.Tensor:
        """[B, T]."""
        own, others = self._layers, other._layers
        squares = [(a.float() - b.float()).square().mean(-1) for a, b in zip(own, others, strict=True)]
        return self._placed(torch.stack(squares).mean(0))

    @property
    def whole(self) -> TorchBatch:
        """See :class:`ablate.api.Batch`."""
        return self._of([replace(row, labels=len(row.ids) - 1) for row in self.rows])

    @property
    def rejected(self) -> TorchBatch:
        """See :class:`ablate.api.Batch`."""
        answers = [self.net.answer(row.example.against) for row in self.rows]
        return self._of([Row.of(r.prompt, answer, r.example) for r, answer in zip(self.rows, answers, strict=True)])

    def matched(self, alignment: Alignment) -> tuple[TorchBatch, TorchBatch]:
        """See :class:`ablate.api.Batch`.

        Raises:
            StudyError: no prompt has a position in common with its clean view.
        """
        prompts = self.net.encode([row.example.prompt.chat("clean") for row in self.rows])
        clean = [replace(row, prompt=prompt) for row, prompt in zip(self.rows, prompts, strict=True)]
        counts = [matching(one.ids[:-1], two.ids[:-1], alignment) for one, two in zip(self.rows, clean, strict=True)]
        if not any(counts):
            raise StudyError(
                f"alignment {alignment}: no prompt of this batch ends as its clean view does, so nothing can be "
                "compared; take alignment: tail"
            )
        one, two = (
            self._of([replace(row, labels=count) for row, count in zip(rows, counts, strict=True)])
            for rows in (self.rows, clean)
        )
        return one, two

    def under(self, teacher: Teacher) -> TorchBatch:
        """See :class:`ablate.api.Batch`."""
        return TorchBatch(self.net, self.rows, self.frozen, teacher)

    def _of(self, rows: Sequence[Row]) -> TorchBatch:
        return TorchBatch(self.net, rows, self.frozen, self.teacher)

    @contextmanager
    def _model(self) -> Iterator[None]:
        with (
            nullcontext() if self.teacher is None else torch.no_grad(),
            self.frozen() if self.teacher == "frozen" else nullcontext(),
        ):
            yield

    @cached_property
    def _holds(self) -> torch.Tensor:
        counts = torch.tensor([row.labels for row in self.rows], device=self.net.device)
        return torch.arange(int(counts.max()), device=self.net.device) < counts[:, None]

    @cached_property
    def _states(self) -> torch.Tensor:
        """The last states that predict the label tokens, one row's after the other: [tokens, d]."""
        with self._model():
            return passed(self.net, self.rows)[0]

    @cached_property
    def _layers(self) -> list[torch.Tensor]:
        """The same of every decoder layer."""
        with self._model():
            return passed(self.net, self.rows, decoder_layers(self.net))[1:]

    def _placed(self, values: torch.Tensor) -> torch.Tensor:
        """Values of label tokens as [B, T]."""
        return torch.zeros(self._holds.shape, device=self.net.device).masked_scatter(self._holds, values)


def matching(one: Ids, two: Ids, alignment: Alignment) -> int:
    """How many last tokens of two texts are compared."""
    shorter = min(len(one), len(two))
    if alignment == "tail":
        return shorter
    return next((n for n in range(shorter) if one[-1 - n] != two[-1 - n]), shorter)


def decoder_layers(net: Network) -> list[torch.nn.Module]:
    """The model's decoder layers, in order.

    Raises:
        StudyError: the architecture has no one list of as many modules as its config has layers.
    """
    depth = net.model.config.get_text_config().num_hidden_layers
    lists = [part for part in net.body.children() if isinstance(part, torch.nn.ModuleList) and len(part) == depth]
    if len(lists) != 1:
        raise _unrecognized(net, f"{type(net.body).__name__} holds {len(lists)} lists of its {depth} layers")
    return list(lists[0])


def _unrecognized(net: Network, why: str) -> StudyError:
    return StudyError(
        f"architecture {type(net.model).__name__}: its decoder layers are not recognized ({why}); "
        "an objective that compares their activations needs another model"
    )


def passed(net: Network, rows: Sequence[Row], layers: Sequence[torch.nn.Module] = ()) -> list[torch.Tensor]:
    """What predicts the label tokens of all rows: the last states, then those of ``layers``, each [tokens, d]."""
    fed = [row.ids[:-1] for row in rows]
    shared = common_prefix(fed)
    packs = [_pack(net, rows[i:j], fed[i:j], shared, layers) for i, j in _packs([len(ids) for ids in fed], shared)]
    return [torch.cat(parts) for parts in zip(*packs, strict=True)]


def _packs(lengths: Sequence[int], shared: int) -> list[tuple[int, int]]:
    """Slices of rows that fit a pack; attention costs the square of its length, so packs are short."""
    slices, start, size = [], 0, shared
    for i, length in enumerate(lengths):
        if i > start and size + length - shared > PACK:
            slices.append((start, i))
            start, size = i, shared
        size += length - shared
    return [*slices, (start, len(lengths))]


def _pack(
    net: Network, rows: Sequence[Row], fed: Sequence[Ids], shared: int, layers: Sequence[torch.nn.Module]
) -> list[torch.Tensor]:
    ids, positions, owner = list(fed[0][:shared]), list(range(shared)), [-1] * shared
    at: list[int] = []
    for i, (row, own) in enumerate(zip(rows, fed, strict=True)):
        begin = len(ids) - shared
        at += [p if p < shared else begin + p for p in range(len(own) - row.labels, len(own))]
        ids += own[shared:]
        positions += range(shared, len(own))
        owner += [i] * (len(own) - shared)
    who = torch.tensor(owner, device=net.device)
    order = torch.arange(len(ids), device=net.device)
    sees = ((who[None, :] == who[:, None]) | (who[None, :] < 0)) & (order[None, :] <= order[:, None])
    bias = torch.zeros(sees.shape, dtype=net.body.dtype, device=net.device).masked_fill(~sees, -torch.inf)
    with _kept(net, layers) as kept:
        out = net.body(
            input_ids=torch.tensor([ids], device=net.device),
            position_ids=torch.tensor([positions], device=net.device),
            attention_mask=bias[None, None],
            use_cache=False,
        )
    return [states[0, at] for states in (out.last_hidden_state, *kept)]


@contextmanager
def _kept(net: Network, layers: Sequence[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """What the layers give while the context lasts, [1, S, d] each."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if not isinstance(states, torch.Tensor) or states.dim() != 3:
            raise _unrecognized(net, f"one gives {type(states).__name__}, not states [1, tokens, features]")
        kept.append(states)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _chunked(function: Callable[..., torch.Tensor], *states: torch.Tensor) -> torch.Tensor:
    """A function of states [N, d] over the vocabulary, in chunks that the backward pass makes again."""
    parts = (tuple(s[i : i + POSITIONS] for s in states) for i in range(0, len(states[0]), POSITIONS))
    return torch.cat([checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
