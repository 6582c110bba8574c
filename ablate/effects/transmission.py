"""The transmission line: how much of a change in the labels' risk arrives in the risk of the trained organism.

effect = gamma * (label change) + residual, within organism, where the label change g is m_TS - m_P of a run and
both are relative to the null cell. gamma = 1: training passes the labels' risk on; 0: it does not arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.api import FloatArray, IntArray
from ablate.effects.block import Block, BoolArray, Cube
from ablate.effects.contrasts import gather, list_contrasts, main_contrasts
from ablate.effects.dose import from_null, numeric, slope, variable
from ablate.effects.intervals import NOTHING, Interval, ratio, t_interval
from ablate.effects.signflip import sign_flip
from ablate.errors import StudyError


def transmission(cube: Cube, *, before: str = "m_p", after: str = "m_ts") -> pd.DataFrame:
    """gamma, one row a behavior: pp of risk after training for each pp of risk in the labels.

    Over the cells with labels of their own, paired with the null cell (null label shift and selector, same level of
    every other factor), g_oc and e_oc in pp. g is measured on the label prompts; where those are few its sampling
    error pulls gamma toward 0.

    Columns:

    - ``gamma, low, high, p``: mean over organisms of sum_c g e / sum_c g^2, 95% t interval, sign-flip p.
    - ``pooled, pooled_low, pooled_high, pooled_p``: sum_oc g e / sum_oc g^2, organisms weighted by how far their
      labels moved; linearized t interval, J - 1 df; sign-flip p of sum_c g e.
    - ``r2``: 1 - sum (e - pooled g)^2 / sum e^2, over all cells: what the line has of the squared effects.
    - ``change_sd_pp``: root mean square of g. ``cells`` without the null ones, ``organisms`` whose labels move.

    Raises:
        StudyError: an unknown variable, or one that is text or NaN; labels whose risk moves within fewer than two
            organisms; what `contrasts` refuses.
    """

    def row(block: Block) -> pd.DataFrame:
        (g, e), null = from_null(block, _label_change(cube, block, before, after), block.response)
        part, whole = _products(g, e)
        slopes = slope(g, e)
        interval = t_interval(slopes)
        pooled = t_interval(ratio(part, whole))
        used = np.isfinite(g) & ~null
        rest = (e - pooled.estimate * g)[used]
        return pd.DataFrame(
            [
                {
                    "behavior": block.behavior,
                    "gamma": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "p": float(sign_flip(slopes).p[0]),
                    "pooled": pooled.estimate,
                    "pooled_low": pooled.low,
                    "pooled_high": pooled.high,
                    "pooled_p": float(sign_flip(part).p[0]),
                    "r2": float(1 - (rest**2).sum() / (e[used] ** 2).sum()),
                    "change_sd_pp": float(np.sqrt((g[used] ** 2).mean())),
                    "cells": int(used.any(axis=0).sum()),
                    "organisms": int(np.isfinite(slopes).sum()),
                }
            ]
        )

    for name in (before, after):
        numeric(cube, name)
    return gather(cube, row)


def transmitted(cube: Cube, *, before: str = "m_p", after: str = "m_ts") -> pd.DataFrame:
    """Every main contrast's effect as what the labels transmit and what is left: the objective's own share.

    For organism o the transmitted part is gamma_-o g_o: the pooled gamma of the *other* organisms times the same
    contrast of its label change, so that no organism's noise is in both. Effects, parts and their
    intervals close exactly: effect = transmitted + residual.

    Columns, in pp: ``behavior, factor, swapped, held, organisms``; ``effect_pp, low, high``;
    ``label_change_pp``: the contrast of g; ``transmitted_pp, transmitted_low, transmitted_high`` and ``residual_pp,
    residual_low, residual_high``: 95% linearized t with J - 1 df, the error of gamma included; ``residual_p,
    residual_p_adjusted``: sign-flip of the residual's pseudo-values, max-T over the rows of a behavior;
    ``residual_share, residual_share_low, residual_share_high``: residual / effect, NaN where the effect's interval
    covers 0. Where a swap leaves the labels as they are (an objective), all of its effect is residual.

    Raises:
        StudyError: as `transmission`, and below three organisms whose labels move.
    """

    def rows(block: Block) -> pd.DataFrame:
        change = _label_change(cube, block, before, after)
        (g, e), _ = from_null(block, change, block.response)
        part, whole = _products(g, e)
        if (count := int((whole > 0).sum())) < 3:
            raise StudyError(
                f"{block.behavior}: the labels' risk moves within {count} organisms, at least 3 are needed"
            )
        there = np.isfinite(change) & np.isfinite(block.response)
        moved, shown = (replace(block, response=np.where(there, values, np.nan)) for values in (change, block.response))
        lines, residuals = [], []
        for row in list_contrasts(shown):
            if row.kind != "main" or not row.testable:
                continue
            own = next(other for other in main_contrasts(moved, row.factor) if other.end == row.end)
            line, residual = _line(row.differences, own.differences, part, whole)
            named = {"factor": row.factor, "swapped": row.swapped, "held": row.held}
            lines.append({"behavior": block.behavior, **named, **line})
            residuals.append(residual)
        if not lines:
            raise StudyError(f"{block.behavior}: no main contrast is there in two organisms")
        tests = sign_flip(np.column_stack(residuals))
        return pd.DataFrame(lines).assign(residual_p=tests.p, residual_p_adjusted=tests.p_adjusted)

    for name in (before, after):
        numeric(cube, name)
    return gather(cube, rows)


def _label_change(cube: Cube, block: Block, before: str, after: str) -> FloatArray:
    return 100 * (variable(cube, block, after) - variable(cube, block, before))


def _products(g: FloatArray, e: FloatArray) -> tuple[FloatArray, FloatArray]:
    """sum_c g e and sum_c g^2 of each organism, [organism]; an organism without a cell has 0 of both."""
    used = np.isfinite(g) & np.isfinite(e)
    g, e = np.where(used, g, 0.0), np.where(used, e, 0.0)
    part, whole = (g * e).sum(axis=1), (g**2).sum(axis=1)
    if (count := int((whole > 0).sum())) < 2:
        raise StudyError(f"the labels' risk moves within {count} organisms, at least 2 are needed")
    return part, whole


def _line(e: FloatArray, g: FloatArray, part: FloatArray, whole: FloatArray) -> tuple[dict[str, Any], FloatArray]:
    """One contrast's numbers, and the pseudo-values of its residual, [organism]."""
    there = np.isfinite(e) & np.isfinite(g)
    gamma = part.sum() / whole.sum()
    without = (part.sum() - part) / (whole.sum() - whole)
    cross = without * g
    # Influence of an organism on mean(g) gamma: through its own label change, and through gamma.
    influence = (part - gamma * whole) / whole.mean()
    pseudo = gamma * g + np.nanmean(g) * influence
    pseudo = np.where(there, pseudo - pseudo[there].mean() + cross[there].mean(), np.nan)
    residual = np.where(there, e - pseudo, np.nan)
    effect = t_interval(np.where(there, e, np.nan))
    intervals = {"transmitted": t_interval(pseudo), "residual": t_interval(residual)}
    share = NOTHING if effect.covers_zero else t_interval(ratio(residual[there], e[there]))
    line = {
        "organisms": int(there.sum()),
        "effect_pp": effect.estimate,
        "low": effect.low,
        "high": effect.high,
        "label_change_pp": float(g[there].mean()),
        **{key: value for name, own in intervals.items() for key, value in _named(name, own, "_pp").items()},
        **_named("residual_share", share, ""),
    }
    return line, residual


def _named(name: str, interval: Interval, unit: str) -> dict[str, float]:
    return {f"{name}{unit}": interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


class SplitHalf(NamedTuple):
    """The selection term by split halves (``estimate``) with its standard ``error`` over prompts, in units of the
    outcome; ``naive``: with the same candidates on both sides; ``prompts`` that could be split."""

    estimate: float
    error: float
    naive: float
    prompts: int


def split_half_selection(
    scores: FloatArray,
    outcome: FloatArray,
    classes: IntArray,
    rng: np.random.Generator,
    *,
    by: Literal["mean", "sum", "max"] = "mean",
    splits: int = 20,
) -> SplitHalf:
    """The selection term Cov_q(w, M) / E_q[w] with picks made on one half of the candidates and judged on the other.

    Selector: for each prompt the class (stated answer) of candidates with the largest mean score, the largest sum
    (``sum`` of equal scores is majority), or the highest single score (``max``); ties to the first. Its weight is
    w(y) = 1 where y states that class, else 0. Estimand: sum_x E[Cov_q(w, M | x)] / sum_x E[E_q[w | x]], expectation
    over what the selector saw, K // 2 candidates: by how much *fresh* answers of the picked classes differ in M from
    all answers.

    Within each prompt the candidates are cut in two, in every way where there are at most ``splits`` ways, else in so
    many random ones. Half A picks the class; on half B, Cov_q is the unbiased sample covariance (n - 1) of w and M
    and E_q[w] the mean of w, both summed over prompts, both directions and all cuts before they are divided. Given
    the pick the candidates of B are independent draws of q, so each sum is unbiased, and the ratio is up to
    O(1 / prompts).

    What that removes: where score and outcome come of the same draws (a judge that is both, a vote count), the
    winning class wins in part by luck, and the same candidates then overstate its outcome and its probability
    (winner's curse). What it does not: a selector that saw all K candidates picks better than one that saw half.
    The error is of one pool's prompts; inference about a study stays over organisms.

    Args:
        scores: [P, K], NaN has no vote.
        outcome: M, [P, K], NaN was not judged and is left out.
        classes: [P, K], -1 states nothing: it is never picked, but belongs to q.

    Raises:
        StudyError: shapes that differ, fewer than 4 candidates, or no prompt with two judged ones in a half.
    """
    scores, outcome, classes = np.asarray(scores, float), np.asarray(outcome, float), np.asarray(classes)
    if scores.ndim != 2 or not scores.shape == outcome.shape == classes.shape:
        raise StudyError(f"scores {scores.shape}, outcome {outcome.shape} and classes {classes.shape} differ in shape")
    if (k := scores.shape[1]) < 4:
        raise StudyError(f"{k} candidates a prompt: halves need at least 4 to have a covariance")
    total, able = half_terms(scores, outcome, classes, rng, by=by, splits=splits)
    if not total[1].any():
        raise StudyError("no prompt has a class to pick in one half and two judged candidates in the other")
    judged = np.isfinite(outcome)
    naive = _terms(_picked(scores, _alike(classes), judged, by), outcome, judged, ddof=0)
    values = ratio(total[0, able], total[1, able])
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return SplitHalf(float(values.mean()), error, float(naive[0].sum() / naive[1].sum()), int(able.sum()))


def half_terms(
    scores: FloatArray, outcome: FloatArray, classes: IntArray, rng: np.random.Generator, *, by: str, splits: int
) -> tuple[FloatArray, BoolArray]:
    """Sums over all cuts of the covariance and of the mean of the pick of each prompt, [2, P], and which had both.

    Arguments are those of `split_half_selection`.
    """
    judged, same = np.isfinite(outcome), _alike(classes)
    prompts, k = scores.shape
    total, able = np.zeros((2, prompts)), np.zeros(prompts, bool)
    for first in _cuts(prompts, k, splits, rng):
        for half in (first, ~first):
            total += _terms(_picked(scores, same, half & judged, by), outcome, ~half & judged, ddof=1)
            able |= (~half & judged).sum(axis=1) > 1
    return total, able


def _cuts(prompts: int, k: int, splits: int, rng: np.random.Generator) -> Iterator[BoolArray]:
    """Which candidates are the first k // 2, [P, k]: every way to cut them, or ``splits`` random ways."""
    ways = comb(k, k // 2) // (1 if k % 2 else 2)  # of an even number a cut and its mirror image are one
    if ways <= splits:
        for half in islice(combinations(range(k), k // 2), ways):
            yield np.broadcast_to(np.isin(np.arange(k), half), (prompts, k))
    else:
        for _ in range(splits):
            yield rng.permuted(np.broadcast_to(np.arange(k), (prompts, k)), axis=1) < k // 2


def _alike(classes: IntArray) -> BoolArray:
    """Whether two candidates state one answer, [P, K, K]; what states nothing is like nothing."""
    return np.asarray((classes[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, :, None])


def _picked(scores: FloatArray, same: BoolArray, among: BoolArray, by: str) -> BoolArray:
    """Which candidates state the class that wins ``among`` some of them, [P, K]."""
    votes = among & np.isfinite(scores) & same.any(axis=2)
    weight: npt.NDArray[np.float64] = (same & votes[:, None, :]).astype(float)
    total = np.einsum("pkl,pl->pk", weight, np.where(votes, scores, 0.0))
    statistic = total / np.maximum(weight.sum(axis=2), 1) if by == "mean" else total
    if by == "max":
        statistic = np.where(same & votes[:, None, :], scores[:, None, :], -np.inf).max(axis=2)
    winner = np.where(votes, statistic, -np.inf).argmax(axis=1)
    rows = np.arange(len(scores))
    chosen: BoolArray = np.asarray(same[rows, winner])
    return chosen & votes.any(axis=1, keepdims=True)


def _terms(picked: BoolArray, outcome: FloatArray, among: BoolArray, ddof: int) -> FloatArray:
    """Covariance of pick and outcome and mean of the pick within each prompt, [2, P]; 0 of both where undefined."""
    count = among.sum(axis=1)
    enough = count > 1
    size = np.maximum(count, 2)
    w, m = np.where(among, picked, 0.0), np.where(among, outcome, 0.0)
    mean_w = w.sum(axis=1) / size
    covariance = ((w * m).sum(axis=1) - mean_w * m.sum(axis=1)) / (size - ddof)
    return np.where(enough, [covariance, mean_w], 0.0)
