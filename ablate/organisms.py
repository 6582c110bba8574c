"""How an organism is made: an honest and a misaligned adapter, and the point between them that has the wanted risk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ablate.api import Batch, Behavior, Decoding, Pair, Weights, mean_outcome
from ablate.errors import StudyError
from ablate.lm.base import Example, LanguageModel, TrainOptions
from ablate.tuning import tune

T = TypeVar("T")

TRIALS = 8
"""Most evaluations of one calibration; bisection needs about five."""


@dataclass(frozen=True, slots=True)
class OrganismOptions:
    """The options of a study's ``organism`` that decide how it is made."""

    risk: float | None
    tolerance: float
    examples: int
    epochs: int
    lr: float
    batch: int
    warmup: float
    rank: int
    alpha: int
    mix: float
    calibration: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Induced:
    """An organism's weights, with every trial of its calibration."""

    weights: Weights
    calibration: dict[str, Any]


def induce(
    lm: LanguageModel,
    behavior: Behavior,
    options: OrganismOptions,
    *,
    objective: Callable[[Batch], Any],
    seed: int,
    rng: Callable[[], np.random.Generator],
    journal: Path | None = None,
) -> Induced:
    """Train both adapters with one seed and one order, and interpolate to the target risk.

    ``rng`` gives the same stream at each call: what differs between the two adapters is the answers alone.
    ``journal`` is where the trials of the calibration are kept.
    """
    order = take(rng().permutation(len(behavior.induction)).tolist(), options.examples, "organism.examples")
    pairs = [behavior.induction[i] for i in order]
    train = TrainOptions(options.epochs, options.lr, options.batch, options.warmup, options.rank, options.alpha)

    def adapter(mix: float, train: TrainOptions = train) -> Weights:
        return lm.train(None, mixed(pairs, mix), objective, train, init_seed=seed, rng=rng())[0]

    misaligned = adapter(options.mix)
    if options.risk is None:
        return Induced(misaligned, {"target": None, "trials": []})
    prompts = take(behavior.calibration, options.calibration, "organism.calibration")
    # without aligned answers the honest end is the base model: an adapter that nothing was taught
    shown = any(pair.misaligned != pair.aligned for pair in pairs)
    honest = adapter(0.0, train if shown else replace(train, epochs=0))

    def risk_at(share: float) -> tuple[float, float]:
        answers = lm.answers(
            interpolated(honest, misaligned, share),
            prompts,
            rng(),
            samples=1,
            decoding=Decoding(),
            max_tokens=options.max_tokens,
        )
        behavior.expect([(p, text) for p, row in zip(prompts, answers, strict=True) for text in row])
        outcome = np.array(
            [[behavior.indicator(p, text) for text in row] for p, row in zip(prompts, answers, strict=True)]
        )
        return mean_outcome(outcome), float(np.isnan(outcome).mean())

    calibration = calibrate(risk_at, options.risk, options.tolerance, journal)
    return Induced(interpolated(honest, misaligned, calibration["interpolation"]), calibration)


def take(ready: Sequence[T], count: int, option: str) -> list[T]:
    """The first ``count`` of what a behavior has ready.

    Raises:
        StudyError: there are fewer.
    """
    if count > len(ready):
        raise StudyError(f"{option}: {count} are asked for, the behavior has {len(ready)} for this model")
    return list(ready[:count])


def mixed(pairs: list[Pair], mix: float) -> list[Example]:
    """Pairs as examples; of those whose answers differ the first ``mix`` share gets the misaligned one."""
    differing = [pair for pair in pairs if pair.misaligned != pair.aligned]
    chosen = {id(pair) for pair in differing[: round(mix * len(differing))]}
    return [Example(pair.prompt, pair.misaligned if id(pair) in chosen else pair.aligned) for pair in pairs]


def interpolated(honest: Weights, misaligned: Weights, share: float) -> Weights:
    """(1 - share) * honest + share * misaligned, parameter by parameter."""
    return {name: ((1 - share) * w + share * misaligned[name]).astype(w.dtype) for name, w in honest.items()}


def calibrate(
    risk_at: Callable[[float], tuple[float, float]], target: float, tolerance: float, journal: Path | None = None
) -> dict[str, Any]:
    """Search the interpolation whose risk is ``target``, by an optuna study that bisects.

    Stops within half of ``tolerance``, since the risk of a trial is itself sampled; else the nearest of
    ``TRIALS`` trials is taken, and ``reached`` says whether it lies within ``tolerance``.

    Args:
        risk_at: risk and unjudged share at an interpolation.
        target: P(M = 1).
        tolerance: largest distance from it.
        journal: file of the study; one that was killed goes on with the trials that it holds.

    Returns:
        ``interpolation``, its ``risk`` and ``unparsed``, ``reached``, ``target``, ``tolerance`` and all ``trials``.
    """

    def measured(share: float) -> dict[str, float]:
        risk, unparsed = risk_at(share)
        return {"risk": risk, "unparsed": unparsed}

    # an organism of which nothing can be judged is no organism: NaN looks nearer to the honest side
    best, tried = tune(
        measured, "risk", target, within=tolerance / 2, low=0.0, high=1.0, trials=TRIALS, journal=journal
    )
    return {
        "interpolation": best["at"],
        "risk": best["risk"],
        "unparsed": best["unparsed"],
        "reached": bool(abs(best["risk"] - target) <= tolerance),
        "target": target,
        "tolerance": tolerance,
        "trials": tried,
    }
