"""Scorers: a number for every candidate; a scorer may call the model."""

from ablate.factors.scorers import behavior_oracle, mean_logprob

__all__ = ["behavior_oracle", "mean_logprob"]
