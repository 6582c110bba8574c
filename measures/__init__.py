"""What is measured on a run. A measure knows no factor names."""

from ablate.measures import (
    behavior,
    classifier,
    closed_forms,
    distances,
    divergence,
    diversity,
    embedding,
    estimators,
    labels,
    posterior,
    samples,
    selection,
)

__all__ = [
    "behavior",
    "classifier",
    "closed_forms",
    "distances",
    "divergence",
    "diversity",
    "embedding",
    "estimators",
    "labels",
    "posterior",
    "samples",
    "selection",
]
