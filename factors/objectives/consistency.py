"""Objectives that pull the model on a prompt towards a teacher on the prompt's clean view, the label behind both."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ablate.api import Alignment, Batch, Teacher, objective
from ablate.factors.objectives.means import token_mean


@objective
def bct(
    batch: Batch,
    *,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
    alignment: Alignment = "common_suffix",
    teacher: Teacher = "frozen",
) -> Any:
    """Bias-augmented consistency on logits: T^2 KL(softmax(clean logits / T) || softmax(wrapped logits / T)).

    The mean over matched positions, nats; the paper's code has cross-entropy in the place of KL, which has the same
    gradient, alignment ``tail`` and teacher ``live``.
    """
    wrapped, clean = batch.matched(alignment)
    return temperature**2 * token_mean(wrapped.kl_from(clean.under(teacher), temperature), wrapped)


@objective(layers=True)
def act(
    batch: Batch,
    *,
    weight: Annotated[float, Field(gt=0)] = 1e-4,
    alignment: Alignment = "common_suffix",
    teacher: Teacher = "frozen",
) -> Any:
    """Activation consistency (Irpan et al., 2025): squared difference of activations on the two views, times weight.

    The mean over matched positions, all decoder layers and features; the paper's code has ``tail`` and ``live``.
    """
    wrapped, clean = batch.matched(alignment)
    return weight * token_mean(wrapped.distance_from(clean.under(teacher)), wrapped)
