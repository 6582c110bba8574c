"""What is measured on a run. A measure knows no factor names."""

from ablate.measures import behavior, divergence, embedding, labels

__all__ = ["behavior", "divergence", "embedding", "labels"]
