"""What scores know of misalignment, and how divided answers are: curves and histograms of candidates and items.

Candidates and items are averaged within an organism; inference is over organisms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, mean, root
from ablate.effects.cells import setting
from ablate.effects.contrasts import gather
from ablate.effects.dose import aligned
from ablate.effects.intervals import mean_interval
from ablate.effects.labels import DATA, group_of
from ablate.errors import StudyError

BINS = 10
"""Bins of the score quantile, at most one a candidate."""

FIFTHS = np.linspace(0, 1, 6)
"""Edges of the histograms of p_x."""


def eta_curves(cube: xr.DataTree) -> pd.DataFrame:
    """eta(u) = P(M = 1 | score at quantile u of the scores of its prompt), by label shift and selector.

    Of the n candidates of a prompt that have a score and a judgment, the r-th lowest stands at u = (r - 1/2) / n;
    candidates of equal score share their places, each at the mean outcome of all of them. eta of an organism is the
    mean outcome at the places of a bin, over prompts and training seeds; prompts with fewer than two such
    candidates are left out. A selector that reads no score has no rows.

    Columns: ``behavior``, swapped options of the labels, ``label_shift, selector``, ``u`` (middle of the bin),
    ``eta`` (mean over organisms, probability) with 95% t limits ``low, high``, ``organisms``, ``scored`` (mean
    number of candidates in the bin, of an organism).

    Raises:
        StudyError: a cube without judged and scored candidates; what `contrasts` refuses.
    """
    group = group_of(cube, "pool_outcome", "label_score")

    def rows(block: Block) -> pd.DataFrame:
        outcome, scores = (aligned(block, group[name], root(cube)) for name in ("pool_outcome", "label_score"))
        lines: list[dict[str, Any]] = []
        for other, (m, s) in settings(block, outcome, scores):
            most = int((np.isfinite(m) & np.isfinite(s)).sum(axis=-1).max(initial=0))
            bins = max(1, min(BINS, most))
            for shift, selector in np.ndindex(block.shape[:2]):
                curve, count = _eta(s[:, shift, selector], m[:, shift, 0], bins)
                about = {"behavior": block.behavior, **other, "label_shift": block.levels["label_shift"][shift]}
                about["selector"] = block.levels["selector"][selector]
                for place in np.flatnonzero(np.isfinite(curve).any(axis=0)):
                    found = mean_interval(curve[:, place])
                    line = {"u": (place + 0.5) / bins, "eta": found.estimate, "low": found.low, "high": found.high}
                    line |= {"organisms": int(np.isfinite(curve[:, place]).sum())}
                    lines.append({**about, **line, "scored": float(mean(count[:, place], axis=0))})
        if not lines:
            raise StudyError(
                f"{block.behavior}: no selector reads a score, or no prompt has two candidates with a score and a "
                "judgment"
            )
        return pd.DataFrame(lines)

    table = gather(cube, rows, least=1)
    table.attrs["facts"] = DATA
    return table


def p_histograms(cube: xr.DataTree) -> pd.DataFrame:
    """How the chance of misalignment p_x is spread over prompts and items: shares of an organism's in five bins.

    Rows by ``what``:

    - ``pool``: label prompts by the share of a prompt's judged candidates with M = 1, under each label shift;
      ``selector`` is empty.
    - ``before`` and ``after``: risk items of the evaluation by their mean outcome, before and after training, by label
      shift and selector (``before`` is of the same items and runs).

    Columns: ``behavior``, other swapped factors, ``label_shift, selector, what, low_edge, high_edge`` of the bin
    (closed below; the last one above too), ``share`` (mean over organisms of the share of its prompts or items,
    averaged over training seeds) with 95% t limits ``low, high``, ``organisms``, and ``count``, the mean number of
    prompts or items of an organism. With few candidates or samples p_x is coarse: of 4 draws, 0, 1/4, ..., 1.

    Raises:
        StudyError: a cube without its group items or without judged candidates; what `contrasts` refuses.
    """
    group = group_of(cube, "pool_outcome")
    if "items" not in cube.children:
        raise StudyError("the cube has no group items; `ablate study` rebuilds it")
    items = cube.children["items"].to_dataset(inherit=False)
    risky = items["kind"] == "risk"

    def rows(block: Block) -> pd.DataFrame:
        pool = mean(aligned(block, group["pool_outcome"], root(cube)), axis=-1)  # [..., seed, prompt]
        before, after = (
            aligned(block, items[name].where(risky), root(cube)) for name in ("outcome_before", "outcome_after")
        )
        before = np.where(np.isfinite(after), before, np.nan)
        lines: list[dict[str, Any]] = []
        for cell in np.ndindex(block.shape):
            names = [block.levels[factor][level] for factor, level in zip(block.levels, cell, strict=True)]
            about = {"behavior": block.behavior, **setting(block, cell[2:]), "label_shift": names[0]}
            if cell[1] == 0:
                lines += _histogram({**about, "selector": "", "what": "pool"}, _at(pool, cell))
            for what, values in (("before", before), ("after", after)):
                lines += _histogram({**about, "selector": names[1], "what": what}, _at(values, cell))
        if not lines:
            raise StudyError(f"{block.behavior}: nothing was judged")
        return pd.DataFrame(lines)

    return gather(cube, rows, least=1)


def _histogram(about: Mapping[str, Any], p: FloatArray) -> Iterator[dict[str, Any]]:
    """The lines of one histogram of ``p`` [organism, seed, prompt]; none where nothing was judged."""
    place = np.clip(np.searchsorted(FIFTHS, p, side="right") - 1, 0, len(FIFTHS) - 2)
    count = np.isfinite(p).sum(axis=-1)
    for bin_ in range(len(FIFTHS) - 1):
        hits = (np.isfinite(p) & (place == bin_)).sum(axis=-1)
        shares = mean(np.where(count > 0, hits / np.maximum(count, 1), np.nan), axis=-1)
        found = mean_interval(shares)
        if np.isfinite(found.estimate):
            line = {**about, "low_edge": float(FIFTHS[bin_]), "high_edge": float(FIFTHS[bin_ + 1])}
            line |= {"share": found.estimate, "low": found.low, "high": found.high}
            line |= {"organisms": int(np.isfinite(shares).sum())}
            yield {**line, "count": float(mean(np.where(count > 0, count, np.nan), axis=(0, 1)))}


def _at(values: FloatArray, cell: tuple[int, ...]) -> FloatArray:
    """[organism, seed, ...] at a cell; an axis of size 1 does not depend on the factor."""
    index = tuple(min(level, values.shape[axis] - 1) for axis, level in enumerate(cell, start=1))
    return np.asarray(values[(slice(None), *index)])


def settings(block: Block, outcome: FloatArray, scores: FloatArray) -> Iterator[tuple[dict[str, str], Any]]:
    """Outcome and scores [organism, label_shift, selector, seed, prompt, candidate] by the options that a pool depends
    on; of factors that come after the labels the first level that has a score stands for all, which have the same.
    """
    others = list(block.levels)[2:]
    sizes = outcome.shape[3 : 3 + len(others)]
    for place in np.ndindex(sizes):
        m, s = outcome, scores
        for level, size in zip(place, sizes, strict=True):
            m = m[:, :, :, level]
            s = s[:, :, :, level] if size > 1 else _first(s)
        kept = [name for name, size in zip(others, sizes, strict=True) if size > 1]
        yield {name: level for name, level in setting(block, place).items() if name in kept}, (m, s)


def _first(scores: FloatArray) -> FloatArray:
    """Along axis 3, the first number that is there."""
    there = np.isfinite(scores).argmax(axis=3, keepdims=True)
    return np.take_along_axis(scores, there, axis=3).squeeze(3)


def _eta(scores: FloatArray, outcome: FloatArray, bins: int) -> tuple[FloatArray, FloatArray]:
    """eta and number of candidates of each bin, [organism, bin], of arrays [organism, seed, prompt, candidate]."""
    scores, outcome = np.broadcast_arrays(scores, outcome)
    organisms, last = len(scores), scores.shape[-1]
    valid = np.isfinite(scores) & np.isfinite(outcome)
    valid = valid & (valid.sum(axis=-1, keepdims=True) > 1)
    order = np.argsort(np.where(valid, scores, np.inf), axis=-1, kind="stable")
    s, m, used = (np.take_along_axis(a, order, axis=-1) for a in (np.where(valid, scores, np.inf), outcome, valid))
    m = _shared(s.reshape(-1, last), np.where(used, m, 0.0).reshape(-1, last)).reshape(m.shape)
    odd, n = 2 * np.arange(last) + 1, used.sum(axis=-1, keepdims=True)  # no rounding decides on the edge of a bin
    place = np.where(used, odd * bins // np.maximum(2 * n, 1), bins)
    flat = np.arange(organisms)[:, None] * (bins + 1) + place.reshape(organisms, -1)
    total, count = (
        np.bincount(flat.ravel(), weights.ravel(), organisms * (bins + 1)).reshape(organisms, bins + 1)[:, :bins]
        for weights in (np.where(used, m, 0.0), used.astype(float))
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), np.where(count > 0, count, np.nan)


def _shared(scores: FloatArray, outcome: FloatArray) -> FloatArray:
    """Outcomes [row, place] of sorted scores with those of one score in their mean."""
    new = np.ones(scores.shape, bool)
    new[:, 1:] = scores[:, 1:] != scores[:, :-1]
    tie = new.ravel().cumsum() - 1
    means = np.bincount(tie, outcome.ravel()) / np.bincount(tie)
    return np.asarray(means[tie].reshape(scores.shape))
