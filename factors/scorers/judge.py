"""Another model's opinion of an answer."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from ablate.api import FloatArray, JudgeOptions, Judges, Policy, Pool, scorer
from ablate.errors import StudyError
from ablate.factors.scorers.rating import QUALITY, rated


def _rising(scale: tuple[float, float]) -> tuple[float, float]:
    if not scale[0] < scale[1]:
        raise ValueError("a scale rises: [lowest score, highest score]")
    return scale


@scorer
def judge(
    lm: Policy,
    pool: Pool,
    *,
    judges: Judges,
    by: JudgeOptions,
    rubric: Annotated[str, Field(min_length=1)] = QUALITY,
    scale: Annotated[tuple[float, float], AfterValidator(_rising)] = (0.0, 5.0),
    max_tokens: Annotated[int, Field(ge=1)] = 64,
) -> FloatArray:
    """The number on a scale that a judge gives an answer by a rubric; NaN where its reply states none.

    ``by`` names the judge: a model of this machine (``{model: smollm2-135m}``), or one behind an OpenAI-compatible
    endpoint (``base_url``, ``api_key_env``). The rubric shows it ``{question}`` and ``{answer}``; ``max_tokens`` leaves
    room for a critique before the score.

    Raises:
        StudyError: no reply at all states a number, or the judge cannot be asked.
    """
    scores = rated(partial(judges(by), max_tokens=max_tokens), rubric, pool, scale)
    if np.isnan(scores).all():
        raise StudyError(
            f"judge '{by['model']}' gave no answer a number from {scale[0]:g} to {scale[1]:g}; "
            "ask for one in the rubric ('Final Score: ...'), or take another judge"
        )
    return scores
