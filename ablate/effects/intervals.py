"""Intervals, equivalence and sample size for a mean over organisms, all with J - 1 degrees of freedom.

Every function takes one value per organism, [J]. A statistic that is no plain mean (a variance, a share)
comes as pseudo-values: estimate + influence of each organism, whose mean is the estimate and whose standard
error is that of the linearized estimate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from ablate.api import FloatArray


class Interval(NamedTuple):
    """An estimate with its limits; limits are NaN where organisms do not vary or are fewer than two."""

    estimate: float
    low: float
    high: float

    def within(self, bound: float) -> bool:
        """Whether the whole interval lies strictly inside +-bound."""
        return bool(-bound < self.low and self.high < bound)

    @property
    def covers_zero(self) -> bool:
        """Whether 0 cannot be excluded; so it is where there are no limits."""
        return not (self.low > 0 or self.high < 0)


NOTHING = Interval(np.nan, np.nan, np.nan)


def t_interval(values: FloatArray, level: float = 0.95) -> Interval:
    """mean +- t(1 - (1 - level) / 2; J - 1) * sd / sqrt(J) over the values that are not NaN."""
    there = values[np.isfinite(values)]
    if there.size < 2:
        return NOTHING
    estimate, error = float(there.mean()), _standard_error(there)
    if error == 0:
        return Interval(estimate, np.nan, np.nan)
    half = _quantile(there.size - 1, 0.5 + level / 2) * error
    return Interval(estimate, estimate - half, estimate + half)


def tost(values: FloatArray, bound: float) -> float:
    """Two one-sided t-tests: the p-value against |mean| >= bound, the larger of the two sides.

    Equivalent at level a when it is below a, which is when the 1 - 2a interval lies inside +-bound. NaN
    where organisms do not vary or are fewer than two. Source: Schuirmann 1987; oracle: pingouin.tost.
    """
    there = values[np.isfinite(values)]
    if there.size < 2 or (error := _standard_error(there)) == 0:
        return float("nan")
    estimate, df = float(there.mean()), there.size - 1
    return float(max(special.stdtr(df, (estimate - bound) / error), special.stdtr(df, (-estimate - bound) / error)))


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Pseudo-values of mean(part) / mean(whole): r + (part_o - r whole_o) / mean(whole) (delta method)."""
    r = part.mean() / whole.mean()
    return np.asarray(r + (part - r * whole) / whole.mean())


def organisms_needed(values: FloatArray, distance: float, *, alpha: float, power: float = 0.8) -> int | None:
    """Organisms with which a one-sided t-test at ``alpha`` would see ``distance`` with that power.

    Smallest J with (t(1 - alpha; J - 1) + t(power; J - 1)) * sd / sqrt(J) <= |distance|, sd as estimated now
    (an approximation to the noncentral t). None beyond 999.
    """
    there = values[np.isfinite(values)]
    if there.size < 2 or not np.isfinite(distance) or distance == 0:
        return None
    sizes = np.arange(2, 1000)
    quantiles = special.stdtrit(sizes - 1, 1 - alpha) + special.stdtrit(sizes - 1, power)
    enough = quantiles * there.std(ddof=1) / np.sqrt(sizes) <= abs(distance)
    return int(sizes[enough][0]) if enough.any() else None


def _standard_error(there: FloatArray) -> float:
    # Differences of equal numbers leave rounding, not variation.
    deviation = float(there.std(ddof=1))
    return deviation / np.sqrt(there.size) if deviation > 1e-10 * max(1e-3, float(np.abs(there).max())) else 0.0


def _quantile(df: int, probability: float) -> float:
    return float(special.stdtrit(df, probability))
