"""Objectives: how the organism is trained on the labels."""

from ablate.factors.objectives import consistency, dpo, entropy_min, sft

__all__ = ["consistency", "dpo", "entropy_min", "sft"]
