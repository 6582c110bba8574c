"""Sign-flip tests over organisms: exact, of one contrast and of a family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.errors import StudyError

EXACT_UP_TO = 14
"""Organisms up to which all 2^J flips are enumerated."""


@dataclass(frozen=True, slots=True, eq=False)
class SignFlip:
    """Two-sided p-values, one a contrast; NaN for a contrast with fewer than two organisms.

    ``flips`` is 2^J where all were enumerated, else the number drawn.
    """

    p: FloatArray
    p_adjusted: FloatArray
    flips: int
    exact: bool


def smallest_p(organisms: int) -> float:
    """2 / 2^J: the smallest two-sided p-value that J organisms can give."""
    return float(min(1.0, 2.0 ** (1 - organisms)))


def sign_flip(
    differences: npt.ArrayLike,
    *,
    exact_up_to: int = EXACT_UP_TO,
    draws: int = 10_000,
    rng: np.random.Generator | None = None,
) -> SignFlip:
    """Flip the signs of whole organisms and ask how often a contrast gets as large as it is.

    Estimand: under the null hypothesis an organism's vector of differences is as likely as its negative
    (symmetric about 0, organisms independent, any correlation between contrasts). Statistic:
    t = mean * sqrt(J) / sd with J - 1 in sd, recomputed after each flip. ``p`` is the share of flips with
    |t*| >= |t| of the same contrast; ``p_adjusted`` the share with max over contrasts of |t*| >= |t|
    (single-step max-T, controls the familywise error). The observed signs count as a flip, so the smallest
    p is 2 / 2^J. Beyond ``exact_up_to`` organisms ``draws`` random flips give (1 + b) / (1 + draws).

    Args:
        differences: [J, m], one row an organism; NaN where an organism lacks a contrast (it then rests on
            the others).
        exact_up_to: organisms up to which all flips are enumerated.
        draws: random flips beyond that.
        rng: where random flips come from; a fixed seed where None.

    Raises:
        StudyError: no organism or no contrast at all, or an infinite difference.

    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993, ch. 2; Winkler et al. 2014.
    """
    table = np.asarray(differences, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    if not table.size:
        raise StudyError(f"differences has shape {table.shape}: there is no organism or no contrast to test")
    if np.isinf(table).any():
        raise StudyError(f"{int(np.isinf(table).any(axis=1).sum())} of {len(table)} organisms have an infinite value")
    organisms = table.shape[0]
    exact = organisms <= exact_up_to
    signs = _half(organisms) if exact else _drawn(organisms, draws, rng or np.random.default_rng(0))
    t = _t(signs, table)
    # Row 0 holds the observed signs; ties are equal up to rounding, so a hair below counts as reached.
    reached = np.abs(t[0]) * (1 - 1e-9)
    p = (np.abs(t) >= reached).mean(axis=0)
    largest = np.nanmax(np.where(np.isnan(t), -1.0, np.abs(t)), axis=1)
    p_adjusted = (largest[:, None] >= reached).mean(axis=0)
    unknown = np.isfinite(table).sum(axis=0) < 2
    p[unknown] = p_adjusted[unknown] = np.nan
    return SignFlip(p, p_adjusted, 2**organisms if exact else draws, exact)


def _half(organisms: int) -> FloatArray:
    # |t| is the same for a flip and its mirror image: the first organism keeps its sign.
    codes = np.arange(2 ** max(organisms - 1, 0))[:, None] >> np.arange(organisms - 1)[None, :]
    return np.hstack([np.ones((len(codes), 1)), 1.0 - 2.0 * (codes & 1)])


def _drawn(organisms: int, draws: int, rng: np.random.Generator) -> FloatArray:
    return np.vstack([np.ones((1, organisms)), rng.choice([-1.0, 1.0], size=(draws, organisms))])


def _t(signs: FloatArray, table: FloatArray) -> FloatArray:
    there = np.isfinite(table)
    count = there.sum(axis=0)
    values = np.where(there, table, 0.0)
    square = (values**2).sum(axis=0)
    # t^2 = (J - 1) u / (1 - u) with u = J mean^2 / sum of squares, which no flip changes but for the mean.
    scale = np.sqrt(np.where(square > 0, count * square, 1.0))
    root = (signs @ values) / scale
    u = np.minimum(root**2, 1 - 1e-12)
    t = np.sign(root) * np.sqrt(np.maximum(count - 1, 0) * u / (1 - u))
    t[:, count < 2] = np.nan
    return np.asarray(t)
