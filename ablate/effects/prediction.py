"""Prediction before training: what the labels alone say about the effect, scored on cells that were left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ablate.api import FloatArray, IntArray
from ablate.effects.block import Block, BoolArray, Cube, blocks, mean, require
from ablate.effects.contrasts import degrees
from ablate.effects.dose import distinct, numeric, variable
from ablate.effects.intervals import NOTHING, Interval, mean_interval, share_interval, t_interval
from ablate.errors import StudyError

PREDICTORS = ("g", "g, fitted", "majority sign", "mean effect", "KL x sign")
FOLDS = ("label_shift", "selector", "behavior")


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Cells, flat: effect and g in pp, KL in nats; one row for each of an organism.

    ``labels`` number the labels of an organism: equal where they are the same. ``own`` marks the cells that count:
    each training once, and none that trained on the labels of the null cell.
    """

    behavior: FloatArray  # code, [N]
    organism: FloatArray  # code over all behaviors, [N]
    label_shift: FloatArray  # code, [N]
    selector: FloatArray  # code, [N]
    labels: FloatArray  # [N]
    own: BoolArray  # [N]
    effect: FloatArray  # [N]
    g: FloatArray  # [N]
    kl: FloatArray  # [N]


class _Score(NamedTuple):
    cells: int
    predicted: int
    organisms: int
    accuracy: Interval
    error: Interval
    slope: Interval


def prediction(cube: Cube, *, abstain_pp: float = 2.0) -> pd.DataFrame:
    """How well the labels, before any training, predict what training on them does.

    A cell's effect is its risk_delta, averaged over seeds, minus that of its organism's null cell (label_shift none,
    selector first, of the same other factors); g is m_TS - m_P of its labels, likewise minus that of the null cell's.
    Cells with the labels of the null cell are left out: nothing is to be predicted there. Of cells with the same
    labels (greedy under every selector) the first counts alone: they are one training.

    Predictions of a left-out cell, in pp, each fitted on the cells that stay: the same organisms, other levels, and
    other labels than those of any left-out cell (greedy labels are those of a left-out selector too):

    - ``g``: g itself, nothing is fitted. ``g, fitted``: gamma g, gamma by least squares through the origin.
    - ``majority sign``: the sign that most cells of its behavior have, with their mean absolute effect.
    - ``mean effect``: the mean of its behavior's cells (of all cells where the behavior is left out).
    - ``KL x sign``: b KL(q || p), b by least squares through the origin: the shift's size with the behavior's sign.

    Rows: ``fold`` (what is left out: one ``label_shift``, ``selector`` or ``behavior`` at a time), ``level``
    (``all``, or the one left out) and ``predictor``. Columns: ``cells``; ``predicted``, those where it did not abstain
    (|prediction| >= ``abstain_pp``), and ``organisms``, those with such cells; ``accuracy``, the share of these cells
    whose sign is right, ``error_pp`` the mean absolute error over all cells (an abstention predicts 0), and ``slope``,
    the calibration slope of the effect on the prediction through the origin (1 is calibrated), each with 95% limits
    over organisms (``_low``, ``_high``): t, and Wilson's of `intervals.share_interval` for the accuracy.

    Raises:
        StudyError: no organism, no null cell, no Price terms in the cube, or nothing that could be left out.
    """
    if not abstain_pp >= 0:
        raise StudyError(f"abstain_pp: {abstain_pp} is not >= 0")
    cells, names = _cells(cube)
    rows = []
    for fold in FOLDS:
        code = getattr(cells, fold)
        levels = np.unique(code[cells.own])
        if len(levels) < 2:
            continue
        guesses = {name: np.full(len(code), np.nan) for name in PREDICTORS}
        for level in levels:
            left = code == level
            for name, values in _predict(cells, left, across=fold == "behavior").items():
                guesses[name][left] = values[left]
        for level in (None, *levels):
            of = np.ones(len(code), bool) if level is None else code == level
            for name, guess in guesses.items():
                label = "all" if level is None else names[fold][int(level)]
                rows.append(_row(fold, label, name, _score(cells, guess, of, abstain_pp)))
    if not rows:
        raise StudyError("nothing can be left out: the study swaps no label shift, selector or behavior")
    frame = pd.DataFrame(rows)
    frame.attrs["methods"] = (
        f"leave-one-out by level and its labels, identical labels counted once, abstaining below {abstain_pp:g} pp; "
        f"intervals over organisms with {degrees(frame)} df (t; Wilson's for the share right); g = m_TS - m_P from the "
        "labels alone"
    )
    return frame


def _cells(cube: Cube) -> tuple[_Cells, Mapping[str, Sequence[str]]]:
    for name in ("m_ts", "m_p", "kl_shift"):
        numeric(cube, name)
    parts: list[FloatArray] = []
    found = blocks(cube)
    organisms = 0
    for code, block in enumerate(found):
        require(block)
        parts.append(_of_block(cube, block, code, organisms))
        organisms += len(block.organisms)
    if not parts:
        raise StudyError("the cube has no organism")
    behavior, organism, shift, selector, labels, own, *values = np.concatenate(parts, axis=1)
    if not own.any():
        raise StudyError("no cell beside the null one has an effect and Price terms, there is nothing to predict")
    names = {
        "behavior": [block.behavior for block in found],
        "label_shift": found[0].levels["label_shift"],
        "selector": found[0].levels["selector"],
    }
    return _Cells(behavior, organism, shift, selector, labels, own > 0, *values), names


def _of_block(cube: Cube, block: Block, code: int, first: int) -> FloatArray:
    label_change = 100 * (variable(cube, block, "m_ts") - variable(cube, block, "m_p"))
    kl = variable(cube, block, "kl_shift")
    effect, g, dose = (
        values - values[:, :1, :1] for values in (mean(of, axis=-1) for of in (block.response, label_change, kl))
    )
    labels = _labels(block)
    once = np.zeros(effect.size, bool)
    once[np.unique(labels, return_index=True)[1]] = True
    own = once.reshape(effect.shape) & distinct(block)
    own[:, 0, 0] = False
    there = np.isfinite(effect) & np.isfinite(g) & np.isfinite(dose)
    index = np.indices(effect.shape)
    numbers = (np.full(effect.shape, code), first + index[0], index[1], index[2], first * own[0].size + labels)
    return np.stack([row[there].astype(float) for row in (*numbers, own, effect, g, dose)])


def _labels(block: Block) -> IntArray:
    """A number for the labels of each cell, [organism, *levels]: equal where they are the same in every seed.

    Within an organism and setting of the factors other than label shift and selector; unknown labels are their own.
    """
    codes = block.codes["key_labels"]
    shape = codes.shape[:-1]
    index = np.indices(shape)
    unknown = np.where((codes < 0).all(axis=-1), np.arange(codes[..., 0].size).reshape(shape), -1)
    rows = np.stack([index[0], *index[3:], unknown, *np.moveaxis(codes, -1, 0)])
    return np.unique(rows.reshape(len(rows), -1), axis=1, return_inverse=True)[1].reshape(shape)


def _predict(cells: _Cells, left: BoolArray, *, across: bool) -> dict[str, FloatArray]:
    """Predictions for every cell from those that share no labels with one that is ``left`` out.

    ``across``: the behavior itself is left out.
    """
    train = cells.own & ~np.isin(cells.labels, cells.labels[left])
    groups = np.zeros(len(train)) if across else cells.behavior
    guesses = {name: np.full(len(train), np.nan) for name in PREDICTORS}
    guesses["g"] = cells.g
    for group in np.unique(groups):
        own = groups == group
        seen = own & train
        if not seen.any():
            continue
        effect = cells.effect[seen]
        sign = np.sign(np.sign(effect).sum())
        guesses["g, fitted"][own] = _through_origin(cells.g[seen], effect) * cells.g[own]
        guesses["majority sign"][own] = sign * np.abs(effect).mean()
        guesses["mean effect"][own] = effect.mean()
        guesses["KL x sign"][own] = _through_origin(cells.kl[seen], effect) * cells.kl[own]
    return guesses


def _through_origin(x: FloatArray, y: FloatArray) -> float:
    square = float((x * x).sum())
    return float((x * y).sum()) / square if square else 0.0


def _score(cells: _Cells, guess: FloatArray, of: BoolArray, abstain_pp: float) -> _Score:
    of = of & cells.own & np.isfinite(guess)
    speaks = of & (np.abs(guess) >= abstain_pp)
    right = (np.sign(guess) == np.sign(cells.effect)).astype(float)
    error = np.abs(cells.effect - np.where(speaks, guess, 0.0))
    return _Score(
        int(of.sum()),
        int(speaks.sum()),
        len(np.unique(cells.organism[speaks])),
        share_interval(*_by_organism(cells.organism, right, speaks)),
        mean_interval(_by_organism(cells.organism, error, of)[0]),
        t_interval(np.array(list(_slopes(cells, guess, speaks)))) if speaks.any() else NOTHING,
    )


def _by_organism(organism: FloatArray, values: FloatArray, of: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Mean and number of the values of each organism that has any."""
    own = [values[of & (organism == one)] for one in np.unique(organism[of])]
    return np.array([part.mean() for part in own]), np.array([float(part.size) for part in own])


def _slopes(cells: _Cells, guess: FloatArray, of: BoolArray) -> Iterator[float]:
    for one in np.unique(cells.organism[of]):
        own = of & (cells.organism == one)
        if (guess[own] ** 2).sum() > 0:
            yield _through_origin(guess[own], cells.effect[own])


def _row(fold: str, level: str, predictor: str, score: _Score) -> dict[str, object]:
    row: dict[str, object] = {
        "fold": fold,
        "level": level,
        "predictor": predictor,
        "cells": score.cells,
        "predicted": score.predicted,
        "organisms": score.organisms,
    }
    for name, unit, interval in (
        ("accuracy", "", score.accuracy),
        ("error", "_pp", score.error),
        ("slope", "", score.slope),
    ):
        row |= {f"{name}{unit}": interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row
