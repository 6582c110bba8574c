"""The search for an option's value at which something measured equals its target."""

from __future__ import annotations

from collections.abc import Callable


def tune(
    measured: Callable[[float], dict[str, float]],
    of: str,
    target: float,
    *,
    within: float,
    low: float,
    high: float,
    trials: int,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Search ``[low, high]`` for where ``measured(x)[of]`` is the target; it must rise with x.

    An optuna study whose trials bisect: a sampler that does not know that it rises needs several times as many. NaN
    counts as above the target. Stops within ``within`` of it, or after ``trials``.

    Returns:
        What was measured at the trial nearest to the target, with its ``at``, and at every trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    tried: list[dict[str, float]] = []
    left, right = low, high
    for _ in range(trials):
        study.enqueue_trial({"at": (left + right) / 2})
        trial = study.ask()
        at = trial.suggest_float("at", low, high)
        tried.append({"at": at, **measured(at)})
        value = tried[-1][of]
        left, right = (at, right) if value < target else (left, at)
        study.tell(trial, abs(value - target) if value == value else float("inf"))
        if abs(value - target) <= within:
            break
    return tried[study.best_trial.number], tried
