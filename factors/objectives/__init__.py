"""Objectives: how the organism is trained on the labels."""

from ablate.factors.objectives import sft

__all__ = ["sft"]
