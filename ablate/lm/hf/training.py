"""LoRA training: the loss and the output layer only where labels stand, the shared prefix once a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ablate.api import Batch, Weights
from ablate.lm.base import LossIsNotFiniteError, TrainOptions
from ablate.lm.hf.network import Ids, Network, common_prefix, padded

PACK = 384
"""Most tokens of a pack, unless one row is longer."""

CLIP = 1.0
"""Largest gradient norm of a step."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example in tokens."""

    prompt: Ids
    answer: Ids
    weight: float


@dataclass(frozen=True, slots=True)
class TorchBatch:
    """What an objective sees of a batch; see :class:`ablate.api.Batch`."""

    logprobs: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor


def train(
    net: Network,
    weights: Weights,
    rows: Sequence[Row],
    objective: Callable[[Batch], Any],
    options: TrainOptions,
    rng: np.random.Generator,
) -> tuple[Weights, list[float]]:
    """Train on ``rows``, those of weight 0 skipped after shuffling, so that the order of the others is held fixed."""
    plan = _steps(rows, options, rng)
    scaling = options.alpha / options.rank
    losses: list[float] = []
    if not plan:
        return weights, losses
    with net.adapter(weights, scaling) as adapter:
        parameters = list(adapter.values())
        masters = [
            p if p.dtype == torch.float32 else m
            for p, m in zip(parameters, net.masters(weights, adapter, scaling), strict=True)
        ]
        optimizer = torch.optim.AdamW(masters, lr=options.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(len(plan), options.warmup))
        for step, batch in enumerate(plan):
            loss = objective(_forward(net, batch))
            value = float(loss.detach())
            if not np.isfinite(value):
                raise LossIsNotFiniteError(f"loss became {value} at step {step + 1} of {len(plan)}")
            loss.backward()
            for master, parameter in zip(masters, parameters, strict=True):
                if master is not parameter and parameter.grad is not None:
                    master.grad, parameter.grad = parameter.grad.float(), None
            torch.nn.utils.clip_grad_norm_(masters, CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            with torch.no_grad():
                for master, parameter in zip(masters, parameters, strict=True):
                    if master is not parameter:
                        parameter.copy_(master)
            losses.append(value)
        trained = net.trained(adapter, masters, scaling)
    if not all(np.isfinite(value).all() for value in trained.values()):
        raise LossIsNotFiniteError(f"weights became not finite at step {len(plan)} of {len(plan)}")
    return trained, losses


def _steps(rows: Sequence[Row], options: TrainOptions, rng: np.random.Generator) -> list[list[Row]]:
    steps = []
    for _ in range(options.epochs):
        order = [rows[i] for i in rng.permutation(len(rows)) if rows[i].weight > 0]
        steps += [order[i : i + options.batch] for i in range(0, len(order), options.batch)]
    return steps


def _schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Linear warmup over that share of the steps, then linear decay."""
    rise = max(1.0, warmup * steps)
    return lambda step: min((step + 1) / rise, max(0.0, (steps - step) / max(1.0, steps - rise + 1)))


def _forward(net: Network, rows: Sequence[Row]) -> TorchBatch:
    """Log-probabilities of the label tokens, [B, T].

    The rows are packed behind the prefix that they share, so the prefix is taken once, nothing is padded, and
    every matrix product is of one full matrix; the output layer sees the label positions alone.
    """
    answers, lengths = padded([row.answer for row in rows], net.pad, net.device)
    mask = torch.arange(answers.shape[1], device=net.device) < lengths[:, None]
    shared = common_prefix([row.prompt for row in rows])
    states = torch.cat([_packed_states(net, rows[i:j], shared) for i, j in _packs(rows, shared)])
    nll = torch.nn.functional.cross_entropy(net.head(states), answers[mask], reduction="none")
    logprobs = torch.zeros(mask.shape, device=net.device).masked_scatter(mask, -nll)
    weights = torch.tensor([row.weight for row in rows], device=net.device)
    return TorchBatch(logprobs, mask.float(), weights)


def _packs(rows: Sequence[Row], shared: int) -> list[tuple[int, int]]:
    """Slices of rows that fit a pack; attention costs the square of its length, so packs are short."""
    slices, start, size = [], 0, shared
    for i, row in enumerate(rows):
        own = len(row.prompt) - shared + len(row.answer) - 1
        if i > start and size + own > PACK:
            slices.append((start, i))
            start, size = i, shared
        size += own
    return [*slices, (start, len(rows))]


def _packed_states(net: Network, rows: Sequence[Row], shared: int) -> torch.Tensor:
    """The states that predict the label tokens of these rows, one after the other: [tokens, d]."""
    ids, positions, owner = list(rows[0].prompt[:shared]), list(range(shared)), [-1] * shared
    at: list[int] = []
    for i, row in enumerate(rows):
        tail = [*row.prompt[shared:], *row.answer[:-1]]
        first = len(ids) + len(row.prompt) - shared - 1
        at += range(first, first + len(row.answer))
        ids += tail
        positions += range(shared, shared + len(tail))
        owner += [i] * len(tail)
    who = torch.tensor(owner, device=net.device)
    order = torch.arange(len(ids), device=net.device)
    sees = ((who[None, :] == who[:, None]) | (who[None, :] < 0)) & (order[None, :] <= order[:, None])
    bias = torch.zeros(sees.shape, dtype=net.body.dtype, device=net.device).masked_fill(~sees, -torch.inf)
    out = net.body(
        input_ids=torch.tensor([ids], device=net.device),
        position_ids=torch.tensor([positions], device=net.device),
        attention_mask=bias[None, None],
        use_cache=False,
    )
    states: torch.Tensor = out.last_hidden_state[0, at]
    return states
