"""Behaviors: what organisms are induced to do, and how it is recognized."""

from ablate.factors.behaviors import (
    emergent_misalignment,
    files,
    prompts,
    reward_hacking,
    spurious_correlation,
    sycophancy,
    tabular,
)

__all__ = [
    "emergent_misalignment",
    "files",
    "prompts",
    "reward_hacking",
    "spurious_correlation",
    "sycophancy",
    "tabular",
]
