"""LoRA training: AdamW on the loss that an objective gives each step's batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

from ablate.api import Batch, Weights
from ablate.lm.base import LossIsNotFiniteError, TrainOptions, steps
from ablate.lm.hf.network import Network
from ablate.lm.hf.views import Row, TorchBatch

CLIP = 1.0
"""Largest gradient norm of a step."""


def train(
    net: Network,
    weights: Weights,
    rows: Sequence[Row],
    objective: Callable[[Batch], Any],
    options: TrainOptions,
    rng: np.random.Generator,
) -> tuple[Weights, list[float]]:
    """Train on ``rows``, those of weight 0 skipped after shuffling, so that the order of the others is held fixed."""
    plan = steps([len(row.answer) for row in rows], [row.example.weight for row in rows], options, rng)
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
        frozen = _frozen(parameters)
        optimizer = torch.optim.AdamW(masters, lr=options.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(len(plan), options.warmup))
        for step, indices in enumerate(plan):
            loss = objective(TorchBatch(net, [rows[i] for i in indices], frozen))
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


def _frozen(parameters: Sequence[torch.nn.Parameter]) -> Callable[[], AbstractContextManager[None]]:
    """A context in which the parameters have the values that they have now."""
    start = [p.detach().clone() for p in parameters]

    def give(values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value  # not copied into: a backward pass may still need what is there

    @contextmanager
    def frozen() -> Iterator[None]:
        now = [p.data for p in parameters]
        give(start)
        try:
            yield
        finally:
            give(now)

    return frozen


def _schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Linear warmup over that share of the steps, then linear decay."""
    rise = max(1.0, warmup * steps)
    return lambda step: min((step + 1) / rise, max(0.0, (steps - step) / max(1.0, steps - rise + 1)))
