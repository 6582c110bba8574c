"""How many organisms a study needs: power of its own sign-flip test by simulation, beside the noncentral t.

Model of a contrast in organism o, in pp: d_o = effect + u_o + mean over seeds of e_os, normal, with the
`Variances` of u and e. Everything depends on effect / sd(d) alone, so simulations are in units of that sd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from ablate.api import FloatArray, IntArray
from ablate.effects.block import Block, Cube, root
from ablate.effects.contrasts import Contrast, gather, list_contrasts, main_contrasts
from ablate.effects.itemnoise import samples_of
from ablate.effects.missing import weights
from ablate.effects.signflip import smallest_p
from ablate.errors import StudyError

FLIPS = 1024
"""Sign flips of one simulated test: all of them up to 11 organisms, as many drawn ones beyond."""

MOST = 999
"""Organisms beyond which nobody is told how many more."""


class Variances(NamedTuple):
    """What one contrast varies by, in pp^2.

    ``organism``: between organisms, of the true contrast (organism x factor). ``residual``: of one organism's
    contrast at one training seed, beyond that and without item noise; for a swap of two single runs twice the
    variance of a run. ``item``: its sampling variance if one answer to one item were all there is; for two single
    runs of risk p at most 2 * 10^4 p (1 - p).
    """

    organism: float
    residual: float = 0.0
    item: float = 0.0

    def of_difference(self, *, seeds: int = 1, answers: int = 1) -> float:
        """organism + (residual + item / answers) / seeds, pp^2; ``answers`` are items times samples."""
        return self.organism + (self.residual + self.item / answers) / seeds


@dataclass(frozen=True, slots=True)
class Design:
    """The sizes of a planned study that power depends on.

    ``contrasts`` counts the max-T family, whose contrasts have the common ``correlation`` (.5 for levels of one
    factor that share their null runs); all but the first have no effect. ``test`` is the study's sign-flip test, or
    a t-test, for a family at alpha / contrasts.
    """

    alpha: float = 0.05
    seeds: int = 1
    items: int = 128
    samples: int = 1
    contrasts: int = 1
    correlation: float = 0.5
    test: Literal["sign-flip", "t"] = "sign-flip"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise StudyError(f"alpha: {self.alpha} is not in (0, 1)")
        if not 0 <= self.correlation < 1:
            raise StudyError(f"correlation: {self.correlation} is not in [0, 1)")
        for name in ("seeds", "items", "samples", "contrasts"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name}: {getattr(self, name)} is not >= 1")
        if self.test not in ("sign-flip", "t"):
            raise StudyError(f"test: '{self.test}' is not sign-flip or t")

    def sd(self, variances: Variances) -> float:
        """Standard deviation over organisms of a contrast in this design, in pp.

        Raises:
            StudyError: a variance that is no number >= 0, or nothing that varies.
        """
        for name, value in variances._asdict().items():
            if not value >= 0 or np.isinf(value):
                raise StudyError(f"variance of {name}: {value} is not a number >= 0")
        variance = variances.of_difference(seeds=self.seeds, answers=self.items * self.samples)
        if variance == 0:
            raise StudyError("all variances are 0: without variation every effect has power 1")
        return float(np.sqrt(variance))


class Power(NamedTuple):
    """``power`` by simulation with its Monte Carlo standard ``error``; ``t_power`` of the t-test at
    alpha / contrasts by the noncentral t; ``smallest_p`` that the organisms can give; ``sd_pp`` of the contrast."""

    power: float
    error: float
    t_power: float
    smallest_p: float
    sd_pp: float


def power(
    variances: Variances,
    effect_pp: float,
    organisms: int,
    design: Design = Design(),
    *,
    simulations: int = 2000,
    rng: np.random.Generator | None = None,
) -> Power:
    """The probability that the study's test of a contrast whose true effect is ``effect_pp`` gives p < alpha.

    Each simulated study draws the differences of ``organisms``, flips their signs as `signflip.sign_flip` does and
    takes the max-T p of the first contrast. ``rng``: a fixed seed where None.

    Raises:
        StudyError: fewer than two organisms, an effect that is no number, or sizes out of range.
    """
    sd = design.sd(variances)
    if organisms < 2:
        raise StudyError(f"organisms: {organisms}, at least 2 are needed")
    if not np.isfinite(effect_pp):
        raise StudyError(f"effect_pp: {effect_pp} is not a number")
    found = _simulate(organisms, design, simulations, rng or np.random.default_rng(0)).power(effect_pp / sd)
    error = float(np.sqrt(found * (1 - found) / simulations))
    return Power(found, error, t_power(effect_pp / sd, organisms, design), smallest_p(organisms), sd)


def t_power(delta: float, organisms: int, design: Design = Design()) -> float:
    """Power of a two-sided one-sample t-test at alpha / contrasts for a standardized effect ``delta``.

    P(|T| > t(1 - alpha / 2m; J - 1)) with T noncentral t, noncentrality delta * sqrt(J). Exact for one contrast;
    Bonferroni, so a lower bound of max-T, for several. Oracle: pingouin.power_ttest.
    """
    return float(_t_powers(delta, np.array([organisms]), design)[0])


def _t_powers(delta: float, sizes: IntArray, design: Design) -> FloatArray:
    df, shift = sizes - 1.0, abs(delta) * np.sqrt(sizes)
    bound = special.stdtrit(df, 1 - design.alpha / design.contrasts / 2)
    # SciPy has NaN where a tail is too small for it: the lower one from a noncentrality of 6, the other from 38
    below, above = (np.nan_to_num(special.nctdtr(df, shift, edge)) for edge in (-bound, bound))
    return np.asarray(1 - above + below)


def minimum_detectable_effect(
    variances: Variances,
    organisms: int,
    design: Design = Design(),
    *,
    target: float = 0.8,
    simulations: int = 2000,
    rng: np.random.Generator | None = None,
) -> float:
    """The smallest true effect, in pp, that the study's test would see with probability ``target``.

    By bisection on one set of simulated studies (common random numbers), to a hundredth of the sd of the contrast.
    Infinite where no effect however large gives p < alpha: where 2 / 2^J >= alpha.

    Raises:
        StudyError: as `power`, or a target outside (0, 1).
    """
    _check_target(target)
    sd = design.sd(variances)
    if organisms < 2:
        raise StudyError(f"organisms: {organisms}, at least 2 are needed")
    if design.test == "sign-flip" and smallest_p(organisms) >= design.alpha:
        return float("inf")
    simulated = _simulate(organisms, design, simulations, rng or np.random.default_rng(0))
    low, high = 0.0, 1.0
    while simulated.power(high) < target:
        low, high = high, 2 * high
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if simulated.power(middle) >= target else (middle, high)
    return high * sd


def organisms_needed(
    variances: Variances,
    effect_pp: float,
    design: Design = Design(),
    *,
    target: float = 0.8,
    simulations: int = 2000,
    rng: np.random.Generator | None = None,
) -> int | None:
    """The fewest organisms with which the study's test would see ``effect_pp`` with probability ``target``.

    With the sign-flip test by bisection over simulated studies, so it may be one off where the power at two sizes is
    within its Monte Carlo error; with the t-test by `t_power`, nothing is simulated. None beyond 999 or for no effect.

    Raises:
        StudyError: as `minimum_detectable_effect`.
    """
    _check_target(target)
    delta = effect_pp / design.sd(variances)
    if not np.isfinite(delta):
        raise StudyError(f"effect_pp: {effect_pp} is not a number")
    # The noncentral t knows where to look: it is never far, and a study of 999 organisms is slow to simulate.
    sizes = np.arange(2, MOST + 1)
    powers = _t_powers(delta, sizes, design)
    enough_t = powers >= target
    first = int(sizes[enough_t.argmax()]) if enough_t.any() else MOST
    if design.test == "t":
        return first if enough_t.any() else None
    if powers.max() < target / 2:
        return None
    seed = int((rng or np.random.default_rng(0)).integers(2**32))

    def enough(organisms: int) -> bool:
        own = np.random.default_rng([seed, organisms])
        return _simulate(organisms, design, simulations, own).power(delta) >= target

    low, high = 1, first
    while not enough(high):
        if high == MOST:
            return None
        low, high = high, min(MOST, high + max(2, high // 4))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def estimated(cube: Cube, *, samples: int | None = None) -> pd.DataFrame:
    """What the main contrasts of a cube vary by, one row each: the input of a plan for the next study.

    Columns: ``behavior, factor, swapped, held, organisms`` and ``effect_pp``; ``sd_pp`` over organisms of the
    contrast as it is (seeds and the other factors averaged), with 95% chi-square limits ``sd_low, sd_high``; and its
    parts by expected mean squares, in pp^2, not below 0 (see `Variances`, and `variances` for a row):

    - ``residual_pp2``: variance between training seeds within an organism, less the item noise. NaN with one seed:
      it is then a part of ``organism_pp2``, and further seeds are not credited.
    - ``item_pp2``: the bound 10^4 p (1 - p) per run at the mean risk of its cells, summed over the runs of the
      contrast and at most what the seeds show; NaN where seeds, items or ``samples`` are not known.
    - ``organism_pp2``: what is left of sd_pp^2.

    ``seeds`` and ``answers`` (items times samples) are those of the cube, ``family`` the number of testable main
    contrasts of the behavior. ``samples`` per item: read from ``attrs["evaluation"]`` where None.

    Raises:
        StudyError: as `contrasts`; no contrast of two organisms.
    """
    samples = samples_of(cube) if samples is None else samples
    items = root(cube).attrs.get("items")

    def rows(block: Block) -> pd.DataFrame:
        count = items.get(block.behavior) if isinstance(items, dict) else items
        answers = int(count) * samples if count and samples else None
        found = [row for row in list_contrasts(block) if row.kind == "main" and row.testable]
        if not found:
            raise StudyError(f"{block.behavior}: no main contrast is there in two organisms")
        lines = (_estimate(block, row, answers) for row in found)
        return pd.DataFrame([{"behavior": block.behavior} | line | {"family": len(found)} for line in lines])

    return gather(cube, rows)


def variances(row: pd.Series[Any]) -> Variances:
    """The `Variances` of a row of `estimated`; a part that was not told apart is 0, since another part has it."""
    parts = (row["organism_pp2"], row["residual_pp2"], row["item_pp2"])
    return Variances(*(0.0 if np.isnan(part) else float(part) for part in parts))


def _estimate(block: Block, row: Contrast, answers: int | None) -> dict[str, Any]:
    there = row.differences[np.isfinite(row.differences)]
    df = there.size - 1
    variance = float(there.var(ddof=1))
    low, high = (float(np.sqrt(df * variance / special.chdtri(df, tail))) for tail in (0.025, 0.975))
    by_seed = np.column_stack(list(_by_seed(block, row)))
    by_seed = by_seed[np.isfinite(row.differences)]
    seeds = np.isfinite(by_seed).sum(axis=1)
    within, item = _within(by_seed), float("nan")
    if answers and np.isfinite(within):
        item = min(_item_bound(block, row), within * answers)
    organism = variance if np.isnan(within) else max(0.0, variance - within * float((1 / seeds).mean()))
    return {
        "factor": row.factor,
        "swapped": row.swapped,
        "held": row.held,
        "effect_pp": float(there.mean()),
        "sd_pp": float(np.sqrt(variance)),
        "sd_low": low,
        "sd_high": high,
        "organism_pp2": organism,
        "residual_pp2": within - (0.0 if np.isnan(item) else item / (answers or 1)),
        "item_pp2": item,
        "seeds": int(seeds.max()),
        "answers": answers if answers else np.nan,
        "organisms": there.size,
    }


def _by_seed(block: Block, row: Contrast) -> Iterator[FloatArray]:
    for seed in range(block.response.shape[-1]):
        one = replace(block, response=block.response[..., seed : seed + 1])
        yield next(other.differences for other in main_contrasts(one, row.factor) if other.end == row.end)


def _within(by_seed: FloatArray) -> float:
    """Pooled variance within rows, NaN where no row has two."""
    there = np.isfinite(by_seed)
    count = there.sum(axis=1, keepdims=True)
    values = np.where(there, by_seed, 0.0)
    off = np.where(there, values - values.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    df = int(np.maximum(count - 1, 0).sum())
    return float((off**2).sum() / df) if df else float("nan")


def _item_bound(block: Block, row: Contrast) -> float:
    weight = weights(block, row.factor, block.levels[row.factor].index(row.end))
    risk = np.nanmean(np.where(weight[..., None] != 0, block.after, np.nan))
    return float(1e4 * risk * (1 - risk) * (weight**2).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Simulation:
    """Studies in units of the sd. ``flipped`` [flip, study] are the sums of the first contrast's noise after each
    flip, ``signs`` [flip] of a constant 1; ``others`` the largest statistic of the other contrasts."""

    noise: FloatArray  # [organism, study]
    flipped: FloatArray
    signs: FloatArray
    others: FloatArray | None
    design: Design

    def power(self, delta: float) -> float:
        size = len(self.noise)
        values = self.noise + delta
        norm = np.sqrt((values**2).sum(axis=0))
        if self.design.test == "t":
            t = np.abs(values.mean(axis=0)) / (values.std(axis=0, ddof=1) / np.sqrt(size))
            bound = special.stdtrit(size - 1, 1 - self.design.alpha / self.design.contrasts / 2)
            return float((t > bound).mean())
        # |t| grows with |sum| / norm, and no flip changes the norm.
        statistic = np.abs(self.flipped + delta * self.signs[:, None]) / norm
        reached = statistic[0] * (1 - 1e-9)
        largest = statistic if self.others is None else np.maximum(statistic, self.others)
        return float(((largest >= reached).mean(axis=0) < self.design.alpha).mean())


def _simulate(organisms: int, design: Design, simulations: int, rng: np.random.Generator) -> _Simulation:
    shared = rng.standard_normal((organisms, simulations)) if design.contrasts > 1 else 0.0
    share = design.correlation if design.contrasts > 1 else 0.0

    def contrast() -> FloatArray:
        own = rng.standard_normal((organisms, simulations))
        return np.asarray(np.sqrt(share) * shared + np.sqrt(1 - share) * own)

    noise, signs = contrast(), _signs(organisms, rng)
    others: FloatArray | None = None
    for _ in range(design.contrasts - 1):
        values = contrast()
        statistic = np.abs(signs @ values) / np.sqrt((values**2).sum(axis=0))
        others = statistic if others is None else np.maximum(others, statistic)
    return _Simulation(noise, signs @ noise, signs.sum(axis=1), others, design)


def _signs(organisms: int, rng: np.random.Generator) -> FloatArray:
    """Row 0 is what was observed; a flip and its mirror image count once."""
    if 2 ** (organisms - 1) <= FLIPS:
        return 1.0 - 2.0 * ((np.arange(2 ** (organisms - 1))[:, None] >> np.arange(organisms)) & 1)
    return np.vstack([np.ones((1, organisms)), rng.choice([-1.0, 1.0], (FLIPS - 1, organisms))])


def _check_target(target: float) -> None:
    if not 0 < target < 1:
        raise StudyError(f"target: {target} is not in (0, 1)")
