"""The search for an option's value at which something measured equals its target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def tune(
    measured: Callable[[float], dict[str, float]],
    of: str,
    target: float,
    *,
    within: float,
    low: float,
    high: float,
    trials: int,
    journal: Path | None = None,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Search ``[low, high]`` for where ``measured(x)[of]`` is the target; it must rise with x.

    An optuna study whose trials bisect: a sampler that does not know that it rises needs several times as many. NaN
    counts as above the target. Stops within ``within`` of it, or after ``trials``.

    Args:
        measured: What is measured at an x; the same each time.
        of: Which of it is to be the target.
        target: The wanted value.
        within: How near is near enough.
        low: Least x.
        high: Largest x.
        trials: Most measurements.
        journal: The study's file. A search that was killed goes on with the trials that it holds.

    Returns:
        What was measured at the trial nearest to the target, with its ``at``, and at every trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _opened(journal) if journal else None
    study = optuna.create_study(storage=storage, study_name=of, direction="minimize", load_if_exists=True)
    known: dict[float, dict[str, float]] = {trial.params["at"]: trial.user_attrs for trial in study.trials}
    distance: list[float] = []
    tried: list[dict[str, float]] = []
    left, right = low, high
    for _ in range(trials):
        at = (left + right) / 2
        found = known.get(at) or measured(at)
        value = found[of]
        distance.append(abs(value - target) if value == value else float("inf"))
        tried.append({"at": at, **found})
        if at not in known:
            ranges: dict[str, optuna.distributions.BaseDistribution] = {
                "at": optuna.distributions.FloatDistribution(low, high)
            }
            study.add_trial(
                optuna.trial.create_trial(
                    params={"at": at}, distributions=ranges, value=distance[-1], user_attrs=dict(found)
                )
            )
        left, right = (at, right) if value < target else (left, at)
        if distance[-1] <= within:
            break
    return tried[distance.index(min(distance))], tried


def _opened(journal: Path) -> BaseStorage:
    """The storage of this file, without what a process that was killed left half done: a line, a lock."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if journal.exists():
        whole = journal.read_bytes()
        journal.write_bytes(whole[: whole.rfind(b"\n") + 1])
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)  # a stage is worked on by one process alone
    return JournalStorage(JournalFileBackend(str(journal)))
