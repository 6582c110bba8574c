"""How an organism is made: an honest and a misaligned adapter, and the point between them that has the wanted risk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.api import Batch, Behavior, Decoding, Pair, Weights, mean_outcome
from ablate.lm.base import Example, LanguageModel, TrainOptions

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
    progress: Callable[[int, int], None] | None = None,
) -> Induced:
    """Train both adapters with one seed and one order, and interpolate to the target risk.

    ``rng`` gives the same stream at each call: what differs between the two adapters is the answers alone.
    """
    pairs = [behavior.induction[i] for i in rng().permutation(len(behavior.induction))[: options.examples]]
    train = TrainOptions(options.epochs, options.lr, options.batch, options.warmup, options.rank, options.alpha)

    def adapter(mix: float) -> Weights:
        return lm.train(None, mixed(pairs, mix), objective, train, init_seed=seed, rng=rng(), progress=progress)[0]

    misaligned = adapter(options.mix)
    if options.risk is None:
        return Induced(misaligned, {"target": None, "trials": []})
    honest = adapter(0.0)
    prompts = behavior.calibration[: options.calibration]

    def risk_at(share: float) -> tuple[float, float]:
        answers = lm.answers(
            interpolated(honest, misaligned, share),
            prompts,
            rng(),
            samples=1,
            decoding=Decoding(),
            max_tokens=options.max_tokens,
        )
        outcome = np.array(
            [[behavior.indicator(p, text) for text in row] for p, row in zip(prompts, answers, strict=True)]
        )
        return mean_outcome(outcome), float(np.isnan(outcome).mean())

    calibration = calibrate(risk_at, options.risk, options.tolerance)
    return Induced(interpolated(honest, misaligned, calibration["interpolation"]), calibration)


def mixed(pairs: list[Pair], mix: float) -> list[Example]:
    """Pairs as examples; of those whose answers differ the first ``mix`` share gets the misaligned one."""
    differing = [pair for pair in pairs if pair.misaligned != pair.aligned]
    chosen = {id(pair) for pair in differing[: round(mix * len(differing))]}
    return [Example(pair.prompt, pair.misaligned if id(pair) in chosen else pair.aligned) for pair in pairs]


def interpolated(honest: Weights, misaligned: Weights, share: float) -> Weights:
    """(1 - share) * honest + share * misaligned, parameter by parameter."""
    return {name: ((1 - share) * w + share * misaligned[name]).astype(w.dtype) for name, w in honest.items()}


def calibrate(risk_at: Callable[[float], tuple[float, float]], target: float, tolerance: float) -> dict[str, Any]:
    """Search the interpolation whose risk is ``target``, by an optuna study that bisects.

    Stops within half of ``tolerance``, since the risk of a trial is itself sampled; else the nearest of
    ``TRIALS`` trials is taken, and ``reached`` says whether it lies within ``tolerance``.

    Args:
        risk_at: risk and unjudged share at an interpolation.
        target: P(M = 1).
        tolerance: largest distance from it.

    Returns:
        ``interpolation``, its ``risk``, ``reached``, ``target``, ``tolerance`` and all ``trials``.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    trials: list[Mapping[str, float]] = []
    low, high = 0.0, 1.0
    for _ in range(TRIALS):
        study.enqueue_trial({"interpolation": (low + high) / 2})
        trial = study.ask()
        share = trial.suggest_float("interpolation", 0.0, 1.0)
        risk, unparsed = risk_at(share)
        trials.append({"interpolation": share, "risk": risk, "unparsed": unparsed})
        # an organism of which nothing can be judged is no organism: look nearer to the honest side
        low, high = (share, high) if risk < target else (low, share)
        study.tell(trial, abs(risk - target) if risk == risk else 1.0)
        if abs(risk - target) <= tolerance / 2:
            break
    best = trials[study.best_trial.number]
    return {
        **best,
        "reached": bool(abs(best["risk"] - target) <= tolerance),
        "target": target,
        "tolerance": tolerance,
        "trials": trials,
    }
