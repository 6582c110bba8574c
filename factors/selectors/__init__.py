"""Selectors: from scores and classes to picks. They see arrays only, never a model or a prompt."""

from ablate.factors.selectors import majority, positional, scored

__all__ = ["majority", "positional", "scored"]
