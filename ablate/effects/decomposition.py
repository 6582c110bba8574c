"""How much of the response each mechanism carries: within-organism ANOVA and variance shares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.block import Block, Cube
from ablate.effects.components import drawn, effects, noise, noise_limits, shift_means, structural
from ablate.effects.contrasts import degrees, gather
from ablate.effects.families import benjamini_hochberg
from ablate.effects.grid import Grid, balanced
from ablate.effects.intervals import NOTHING, Interval, drawn_shares, ratio, t_interval
from ablate.errors import StudyError

TOTAL = "effects together"
STRUCTURAL = "structural interaction"


@dataclass(frozen=True, slots=True)
class Anova:
    """One line of a within-organism ANOVA: its error term is the interaction of the effect with organisms."""

    df1: float = np.nan
    df2: float = np.nan
    F: float = np.nan
    p: float = np.nan
    eps: float = np.nan
    p_corrected: float = np.nan
    ges: float = np.nan


def decomposition(cube: Cube) -> pd.DataFrame:
    """Two-way within-organism ANOVA and variance shares, for each behavior and setting of the other factors.

    Model: risk_delta ~ label_shift * selector, organism random (so label_shift is tested against
    organism:label_shift, selector against organism:selector, their interaction against the three-way);
    balanced: only organisms that have every run, ``.attrs["notes"]`` say who was left out.

    Rows (``source``): label_shift, selector, interaction; ``effects together``, their sum; ``structural
    interaction``, what the interaction over all shifts has beyond that because selection cannot act under
    some; then the random sources: organism, seed, organism x label_shift, ... , residual.

    Where selection cannot act under some label shifts, selector, interaction and the random sources are
    estimated on the shifts where it can, and label_shift compares the others with them at the null selector.

    Columns:

    - ``df1, df2, F, p, eps, p_corrected, ges``: pingouin.rm_anova; ``p_corrected`` has Greenhouse-Geisser
      degrees of freedom, ``ges`` is the generalized eta squared. NaN below three organisms.
    - ``p_adjusted``: Benjamini-Hochberg over all ``p_corrected`` of the table: no study declares its F tests.
    - ``variance_pp2, variance_low, variance_high``: unbiased variance of the row over the declared levels
      (`components.effects`) or over organisms, seeds, runs (`components.noise`), in pp^2, may be negative.
    - ``share, share_low, share_high``: of all variance of a run in the grid (effects + random sources).
    - ``effect_share, effect_low, effect_high``: of ``effects together``: a statement about the declared levels.
    - ``shapley``: order-free effect share, the row's own plus half of the interaction's.
    - ``identified``: False where the interval of ``effects together`` is not above 0; effect shares are then NaN.

    Intervals are 95%: of effects and effect shares linearized t with J - 1 df over organisms, which may leave [0, 1];
    of the random sources modified large-sample limits; of shares of all variance generalized pivotal limits (see
    `components`). The random sources hold the noise of items too: `variance` takes it out.

    Raises:
        StudyError: in every behavior fewer than two complete organisms, one level, or a constant response.
    """
    table = gather(cube, _by_stratum)
    table["p_adjusted"] = benjamini_hochberg(table["p_corrected"])
    table.attrs["methods"] = (
        "within-organism ANOVA against organism x effect (Greenhouse-Geisser, BH over the table), expected mean "
        f"squares, linearized t intervals with {degrees(table)} df (random sources, item noise included: modified "
        "large-sample limits; shares of variance: generalized pivotal limits), conditional on these items and the "
        "declared levels"
    )
    return table


def _by_stratum(block: Block) -> pd.DataFrame:
    frames, notes = [], []
    others = list(block.levels)[2:]
    for stratum in np.ndindex(block.shape[2:]):
        grid = balanced(block, [stratum])
        frame = pd.DataFrame(_rows(block.behavior, grid))
        for factor, level in reversed(list(zip(others, stratum, strict=True))):
            if factor in block.several:
                frame.insert(0, factor, block.levels[factor][level])
        frame.insert(0, "behavior", block.behavior)
        frame["organisms"] = len(grid.runs)
        frames.append(frame)
        notes += [*grid.notes, *_limits(block.behavior, grid)]
    joined = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    joined.attrs["notes"] = list(dict.fromkeys(notes))
    return joined


def _limits(behavior: str, grid: Grid) -> list[str]:
    notes = []
    if grid.active.sum() == 1:
        notes.append(f"{behavior}: selection can act under one label shift only: no interaction but the structural one")
    if len(grid.runs) < 3:
        notes.append(f"{behavior}: no F test with {len(grid.runs)} organisms")
    return notes


def _rows(behavior: str, grid: Grid) -> list[dict[str, Any]]:
    _check(behavior, grid)
    parts = effects(grid.cells, grid.active)
    total = np.sum(list(parts.values()), axis=0)
    inner = grid.runs[:, :, :, 0][:, grid.active]
    random = noise(inner) if grid.active.sum() > 1 else {}
    between = noise_limits(inner) if random else {}
    everything = total + np.sum(list(random.values()), axis=0) if random else None
    identified = t_interval(total).low > 0
    interaction = float(parts["interaction"].mean()) if "interaction" in parts else 0.0
    tests = _anova(grid)
    rows = []
    for source, part in parts.items():
        row = _row(
            source,
            tests[source],
            part,
            everything if identified else None,
            total if identified else None,
            identified,
        )
        if identified and source != "interaction":
            row["shapley"] = (float(part.mean()) + interaction / 2) / float(total.mean())
        rows.append(row)
    rows.append(_row(TOTAL, Anova(), total, everything if identified else None, None, identified))
    if not grid.active.all():
        rows.append(_row(STRUCTURAL, Anova(), structural(parts["selector"], grid.active), None, None, identified))
    found = [_row(source, Anova(), part, everything, None, identified) for source, part in random.items()]
    shares = _shares(parts, random, inner) if random else {}
    for row in (*rows, *found):
        if row["source"] in between:
            row["variance_low"], row["variance_high"] = between[row["source"]]
        if row["source"] in shares and np.isfinite(row["share"]):
            row["share_low"], row["share_high"] = shares[row["source"]]
    return rows + found


def _shares(
    parts: Mapping[str, FloatArray], random: Mapping[str, FloatArray], inner: FloatArray
) -> dict[str, tuple[float, float]]:
    """Limits of the shares of all variance of a run: effects drawn from their t limits, the rest from `drawn`."""
    draws = drawn(inner)
    count = len(next(iter(draws.values())))
    rng = np.random.default_rng(1)
    t = rng.standard_t(len(inner) - 1, (count, len(parts)))
    for column, (name, part) in zip(t.T, parts.items(), strict=True):
        draws[name] = part.mean() + part.std(ddof=1) / np.sqrt(len(part)) * column
    estimates = {name: float(part.mean()) for name, part in {**parts, **random}.items()}
    shares = {name: (own.low, own.high) for name, own in drawn_shares(draws, estimates).items()}
    return shares | _together(draws, parts)


def _together(draws: Mapping[str, FloatArray], parts: Mapping[str, FloatArray]) -> dict[str, tuple[float, float]]:
    kept = {name: np.maximum(values, 0.0) for name, values in draws.items()}
    share = sum(kept[name] for name in parts) / np.sum(list(kept.values()), axis=0)
    low, high = np.quantile(share, [0.025, 0.975])
    return {TOTAL: (float(low), float(high))}


def _row(
    source: str,
    test: Anova,
    part: FloatArray,
    everything: FloatArray | None,
    total: FloatArray | None,
    identified: bool,
) -> dict[str, Any]:
    variance = t_interval(part)
    share = _share(part, everything)
    effect_share = _share(part, total)
    return {
        "source": source,
        **{name: getattr(test, name) for name in Anova.__slots__},
        "variance_pp2": variance.estimate,
        "variance_low": variance.low,
        "variance_high": variance.high,
        "share": share.estimate,
        "share_low": share.low,
        "share_high": share.high,
        "effect_share": effect_share.estimate,
        "effect_low": effect_share.low,
        "effect_high": effect_share.high,
        "shapley": np.nan,
        "identified": identified,
    }


def _share(part: FloatArray, whole: FloatArray | None) -> Interval:
    return t_interval(ratio(part, whole)) if whole is not None and whole.mean() > 0 else NOTHING


def _check(behavior: str, grid: Grid) -> None:
    for factor, levels in (("label_shift", grid.shifts), ("selector", grid.selectors)):
        if len(levels) < 2:
            raise StudyError(
                f"{behavior}: {factor} has one level ({levels[0]}) with labels of its own, nothing to decompose"
            )
    within = grid.runs - grid.runs.mean(axis=(1, 2, 3, 4), keepdims=True)
    if np.abs(within).max() < 1e-10:
        raise StudyError(f"{behavior}: risk_delta is the same in every run of an organism, nothing to decompose")


def _anova(grid: Grid) -> dict[str, Anova]:
    tests = dict.fromkeys(("label_shift", "selector", "interaction"), Anova())
    if len(grid.runs) < 3:
        return tests
    cells = grid.cells[..., 0]
    inner = cells[:, grid.active]
    if inner.shape[1] > 1:
        tests |= dict(zip(tests, _rm_anova(inner), strict=True))
    else:
        tests["selector"] = _rm_anova(inner[:, 0])[0]
    if not grid.active.all():
        tests["label_shift"] = _rm_anova(shift_means(grid.cells, grid.active))[0]
    return tests


def _rm_anova(values: FloatArray) -> list[Anova]:
    """pingouin.rm_anova of [organism, level] or [organism, level, level]: one entry an effect."""
    import pingouin  # imports matplotlib, which takes seconds

    index = np.indices(values.shape).reshape(values.ndim, -1)
    within = ["a", "b"][: values.ndim - 1]
    data = pd.DataFrame({"organism": index[0], **dict(zip(within, index[1:], strict=True)), "y": values.ravel()})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Its pandas calls are deprecated, and Mauchly's test, which is not reported here, divides by 0
        # below as many organisms as cells. What matters is checked: a number that is not finite is NaN.
        warnings.simplefilter("ignore")
        table = pingouin.rm_anova(data, dv="y", within=within, subject="organism", correction=True, effsize="ng2")
    return [_line(row) for row in table.to_dict("records")]


def _line(row: dict[str, Any]) -> Anova:
    corrected = row.get("p_GG_corr", row["p_unc"])
    line = Anova(row["ddof1"], row["ddof2"], row["F"], row["p_unc"], row["eps"], corrected, row["ng2"])
    # An error term of rounding size gives an F without meaning.
    return line if np.isfinite(line.F) and line.F < 1e12 else Anova(line.df1, line.df2)
