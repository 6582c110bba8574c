"""How many organisms a planned study needs, in words and as data; from given or from estimated variances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate import cube
from ablate.effects import words
from ablate.effects.contrasts import CAUSES
from ablate.effects.power import (
    Design,
    Variances,
    estimated,
    minimum_detectable_effect,
    organisms_needed,
    power,
    variances,
)
from ablate.effects.signflip import smallest_p
from ablate.errors import StudyError
from ablate.forecast import organisms_per_verdict
from ablate.plan import compile_study
from ablate.study import Study

EFFECT_PP = 10.0
"""Effect that a plan is sized for unless another is given."""


def sized(study: Study, folder: Path, *, effect_pp: float = EFFECT_PP, sd_pp: float | None = None) -> dict[str, Any]:
    """Power of the study's own test for ``effect_pp``, what it could see, and the organisms that it would need.

    ``sd_pp`` is the standard deviation over organisms of a contrast; where None it is estimated from the cube in
    ``folder``, each contrast by itself and the most variable one counting.

    Raises:
        StudyError: no variance is given and there is no cube to take it from.
    """
    options, plan = study.options, compile_study(study)
    organisms = min(organisms_per_verdict(plan).values())
    contrasts = sum(len(axis.levels) - 1 for axis in study.axes if axis.path.removeprefix("factors.") in CAUSES)
    own = Design(
        alpha=options.analysis.alpha,
        seeds=len(options.seeds),
        items=options.evaluate.items,
        samples=options.evaluate.samples,
        contrasts=max(contrasts, 1),
    )
    spread, source = _spread(folder, own, sd_pp)
    found = power(spread, effect_pp, organisms, own)
    needed = organisms_needed(spread, effect_pp, own)
    detectable = minimum_detectable_effect(spread, organisms, own)
    return {
        "organisms": organisms,
        "contrasts": own.contrasts,
        "alpha": own.alpha,
        "effect_pp": effect_pp,
        "sd_pp": found.sd_pp,
        "sd_from": source,
        "power": found.power,
        "organisms_needed": needed,
        "mde_pp": detectable if detectable < float("inf") else None,
        "smallest_p": smallest_p(organisms),
    }


def _spread(folder: Path, design: Design, sd_pp: float | None) -> tuple[Variances, str]:
    if sd_pp is not None:
        if not sd_pp > 0:
            raise StudyError(f"--sd: {sd_pp:g} is not > 0")
        # of a contrast as it is measured: nothing more is known about its parts
        return Variances(sd_pp**2), "given"
    try:
        table = estimated(cube.open_cube(folder))
    except StudyError as fault:
        raise StudyError(
            f"{fault}; say how much a contrast varies over organisms with --sd, or name a folder of results with --out"
        ) from None
    rows = [(design.sd(variances(row)), row) for _, row in table.iterrows() if row["sd_pp"] > 0]
    if not rows:
        raise StudyError(f"{folder}: no contrast varies between organisms; say how much one does with --sd")
    _, widest = max(rows, key=lambda pair: pair[0])
    return variances(widest), f"{folder}, {widest['swapped']}"


def in_words(found: dict[str, Any]) -> str:
    """The same in four lines."""
    effect, alpha = f"{found['effect_pp']:g} pp", f"{found['alpha']:.0%}"
    sd = f"sd {found['sd_pp']:.1f} pp over organisms ({found['sd_from']})"
    needed = found["organisms_needed"]
    mde = "no effect, however large" if found["mde_pp"] is None else f"an effect of {found['mde_pp']:.1f} pp"
    return "\n".join(
        [
            f"  power at {alpha}, max-T over {words.count(found['contrasts'], 'contrast')}, {sd}",
            f"    {words.count(found['organisms'], 'organism')}: power {words.fraction(found['power'])} for {effect}; "
            f"80% power for {mde}; smallest p {words.p_value(found['smallest_p'])}",
            f"    80% power for {effect} needs "
            + (words.count(needed, "organism") if needed else "more than 999 organisms"),
        ]
    )
