"""Scorers: a number for every candidate; a scorer may call the model."""

from ablate.factors.scorers import (
    behavior_oracle,
    certainty,
    consensus,
    judge,
    length,
    mean_logprob,
    reward_model,
    self_reward,
    shuffled,
    universal,
)

__all__ = [
    "behavior_oracle",
    "certainty",
    "consensus",
    "judge",
    "length",
    "mean_logprob",
    "reward_model",
    "self_reward",
    "shuffled",
    "universal",
]
