"""What the labels themselves say, before any training: Price terms of every cell, and their stability over shifts.

All numbers are of the cube's group ``labels``: the judged outcome of every candidate of every pool, and of each run the
labels that its selector left. Inference is over organisms.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from ablate.api import FloatArray
from ablate.effects.block import Block, BoolArray, at, mean, root
from ablate.effects.contrasts import degrees, gather
from ablate.effects.dose import aligned
from ablate.effects.intervals import t_interval
from ablate.effects.transmission import half_terms
from ablate.errors import StudyError

TERMS = (
    "label_change",
    "shift_term",
    "selection_term",
    "interaction",
    "shift_shapley",
    "selection_shapley",
    "split_half",
)
SPLITS = 20
CHUNK = 1_000_000
"""Candidates whose splits are taken at a time."""


class _Law(NamedTuple):
    """How a selector's class is found: by the ``sign`` times score (0: every candidate has one vote)."""

    by: str
    sign: int


_BY = {"highest": _Law("max", 1), "lowest": _Law("max", -1), "plurality": _Law("sum", 0)}


class _Labels(NamedTuple):
    """A block's labels, first axes [organism, label_shift, selector, *others, seed]; axes that do not matter have
    size 1. ``risk`` [..., prompt] of the label; [..., prompt, candidate] ``outcome``, ``classes`` and ``scores``."""

    risk: FloatArray
    outcome: FloatArray
    classes: FloatArray
    scores: FloatArray
    laws: list[str]


def label_terms(cube: xr.DataTree, *, splits: int = SPLITS, rng: np.random.Generator | None = None) -> pd.DataFrame:
    """The Price decomposition of the labels' risk, one row a label shift and selector (and setting of other options).

    For an organism: p are its own answers (the null label shift's pool), q those of the label shift, s the labels of
    the selector; m_ps are the labels that the same selector takes from p. Prompts with judged answers of p and
    of q count, whatever the selector takes there; labels that a prompt lacks or that cannot be judged have w = 0.
    Averaged over training seeds, then over organisms; terms in pp, each with 95% t limits over organisms
    (``_low``, ``_high``):

    - ``label_change`` m_TS - m_P = ``shift_term`` m_T - m_P + ``selection_term`` Cov_q(w, M) / E_q[w], exactly.
    - ``interaction``: m_TS - m_T - m_PS + m_P, what selecting does more under the label shift than without it.
    - ``shift_shapley``, ``selection_shapley``: the terms averaged over both orders; they sum to the change too.
    - ``split_half``: the selection term with the class picked on one half of the candidates and judged on the
      other (`split_half_selection`), so without the luck of the draw that decides and counts at once; for selectors
      by score or plurality, 0 for one draw, NaN for others and below four candidates. Prompts that half of the
      candidates do not decide count less, so it is that of a selector that sees half as many.

    Other columns: ``behavior``, other swapped factors, ``label_shift``, ``selector``; ``closure``: the largest
    error of the two sums over organisms, pp; ``organisms``; ``prompts``: mean number that counts.

    Raises:
        StudyError: a cube without judged candidates or without the null label shift; what `contrasts` refuses.
    """
    rng = rng or np.random.default_rng(0)
    group = _group(cube, "pool_outcome", "pool_class", "label_score", "label_risk")

    def rows(block: Block) -> pd.DataFrame:
        _comparable(block)
        labels = _labels(cube, group, block)
        terms, prompts = _terms(labels)
        halves = np.broadcast_to(_split_half(labels, splits, rng), terms.shape[1:])
        terms = np.concatenate([terms, halves[None]])
        frame = pd.DataFrame([_line(block, cell, terms, prompts) for cell in np.ndindex(terms.shape[2:-1])])
        if not frame["organisms"].any():
            raise StudyError(f"{block.behavior}: no organism has labels of two label shifts that could be judged")
        return frame

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"Price terms of the labels' risk on label prompts, exact in the pools drawn, t intervals with "
        f"{degrees(table)} df over organisms; split-half selection over all cuts of the candidates, at most {splits}"
    )
    return table


def stability(cube: xr.DataTree, *, splits: int = SPLITS, rng: np.random.Generator | None = None) -> pd.DataFrame:
    """How much the distribution of judged answers depends on the label shift, against a shift with itself.

    For each prompt the share misaligned of a half of a shift's candidates is one Bernoulli distribution. A pair of
    shifts is compared by the Jensen-Shannon divergence of a half of one and a half of the other, a shift with itself
    by that of its two halves, so that the bias of small samples cancels; means over prompts that have two judged
    candidates of each, over ``splits`` random halvings, and over training seeds. The difference is 0 where the
    label shift makes no difference.

    Columns: ``behavior``, other swapped options of the labels, ``pair`` (two label shifts, or ``all pairs``, the mean
    over them), ``between_shifts``, ``same_shift`` (nats, means over organisms), ``difference`` with its 95% t limits
    ``low, high`` over organisms, ``organisms``.

    Raises:
        StudyError: a cube without judged candidates, one label shift, or fewer than two judged candidates a prompt;
            what `contrasts` refuses.
    """
    rng = rng or np.random.default_rng(0)
    group = _group(cube, "pool_outcome")

    def rows(block: Block) -> pd.DataFrame:
        shifts = block.levels["label_shift"]
        if len(shifts) < 2:
            raise StudyError(f"{block.behavior}: label_shift has one level ({shifts[0]}), nothing to be stable against")
        outcome = aligned(block, group["pool_outcome"], root(cube))[:, :, 0]  # no selector in a pool
        frames = []
        for place in np.ndindex(outcome.shape[2:-3]):
            pools = at(outcome, place, after=2)  # [organism, shift, seed, prompt, candidate]
            frames.append(_stable(block, pools, _setting(block, place, outcome.shape[2:-3]), splits, rng))
        frame = pd.concat(frames, ignore_index=True)
        if not frame["organisms"].any():
            raise StudyError(f"{block.behavior}: no prompt has two judged candidates under two label shifts")
        drawn = np.isfinite(outcome).sum(axis=-1).max(axis=(0, *range(2, outcome.ndim - 1)))
        frame.attrs["notes"] = [
            f"{block.behavior}: label_shift {name} has fewer than two judged candidates a prompt, so no halves"
            for name, count in zip(shifts, drawn, strict=True)
            if count < 2
        ]
        return frame

    table = gather(cube, rows)
    table.attrs["methods"] = (
        f"Jensen-Shannon divergence of judged answers between halves of pools, {splits} halvings, less that of a "
        f"label shift with itself; t intervals with {degrees(table)} df over organisms"
    )
    return table


def _group(cube: xr.DataTree, *names: str) -> xr.Dataset:
    there = isinstance(cube, xr.DataTree) and "labels" in cube.children
    group = cube["labels"].to_dataset() if there else xr.Dataset()
    if lacking := [name for name in names if name not in group]:
        raise StudyError(f"the cube has no {', '.join(lacking)} in its group labels; `ablate study` rebuilds it")
    return group


def _comparable(block: Block) -> None:
    if block.shape[:2] == (1, 1):
        raise StudyError(f"{block.behavior}: label_shift and selector have one level each, there is nothing to compare")
    if block.levels["label_shift"][0] != "none":
        raise StudyError(f"{block.behavior}: no label shift 'none', whose pool is the organism's own answers")


def _labels(cube: xr.DataTree, group: xr.Dataset, block: Block) -> _Labels:
    risk, outcome, classes, scores = (
        aligned(block, group[name], root(cube)) for name in ("label_risk", "pool_outcome", "pool_class", "label_score")
    )
    law = dict(zip(map(str, root(cube)["selector"].values), map(str, group["law"].values), strict=True))
    return _Labels(risk, outcome, classes, scores, [law[name] for name in block.levels["selector"]])


def _terms(labels: _Labels) -> tuple[FloatArray, FloatArray]:
    """The first six of `TERMS` in pp, [term, organism, *levels, seed], and the number of prompts that count."""
    q = mean(labels.outcome, axis=-1)  # [organism, shift, 1, *others, seed, prompt]
    p = q[:, :1]
    use = np.isfinite(p) & np.isfinite(q)
    own = labels.risk[:, :1]  # what the same selector takes from p

    def over(values: FloatArray) -> FloatArray:
        shape = np.broadcast_shapes(values.shape, use.shape)
        return 100 * mean(np.broadcast_to(values, shape), axis=-1, where=np.broadcast_to(use, shape))

    m_p, m_q, m_s, m_ps = np.broadcast_arrays(over(p), over(q), over(labels.risk), over(own))
    shift, selection, interaction = m_q - m_p, m_s - m_q, m_s - m_q - m_ps + m_p
    terms = [
        m_s - m_p,
        shift,
        selection,
        interaction,
        (shift + (m_s - m_ps)) / 2,
        (selection + (m_ps - m_p)) / 2,
    ]
    there = np.isfinite(m_s) & np.isfinite(m_q)
    counted = np.where(there, np.broadcast_to(use.sum(axis=-1), m_s.shape), np.nan)
    return np.where(there, np.stack(terms), np.nan), counted


def _split_half(labels: _Labels, splits: int, rng: np.random.Generator) -> FloatArray:
    """The split-half selection term in pp, [organism, *levels, seed]; see `label_terms`."""
    shape = np.broadcast_shapes(labels.scores.shape, labels.outcome.shape)
    scores, outcome, classes = (
        np.broadcast_to(array, shape) for array in (labels.scores, labels.outcome, labels.classes)
    )
    found = np.full(shape[:-2], np.nan)
    for selector, law in enumerate(labels.laws):
        stated = classes[:, :, selector]  # [organism, shift, *others, seed, prompt, candidate]
        drawn = np.isfinite(stated).any(axis=(-2, -1))
        if law == "draw":
            found[:, :, selector] = np.where(drawn, 0.0, np.nan)
        if law not in _BY or shape[-1] < 4:
            continue
        votes = _BY[law].sign * scores[:, :, selector] if _BY[law].sign else np.ones(stated.shape)
        flat = (
            array.reshape(-1, shape[-1]) for array in (votes, outcome[:, :, selector], np.nan_to_num(stated, nan=-1))
        )
        chunks = zip(*(np.array_split(array, 1 + stated.size // CHUNK) for array in flat), strict=True)
        sums = [half_terms(one, m, of.astype(int), rng, by=_BY[law].by, splits=splits)[0] for one, m, of in chunks]
        covariance, weight = np.concatenate(sums, axis=1).reshape(2, *stated.shape[:-1]).sum(axis=-1)
        found[:, :, selector] = np.where(weight > 0, 100 * covariance / np.where(weight > 0, weight, 1.0), np.nan)
    return found


def _line(block: Block, cell: tuple[int, ...], terms: FloatArray, prompts: FloatArray) -> dict[str, Any]:
    own = mean(at(terms, cell, after=2), axis=-1)  # over seeds, [term, organism]
    change, shift, selection, _, shift_shapley, selection_shapley, _ = own
    off = np.concatenate([change - shift - selection, change - shift_shapley - selection_shapley])
    levels = [block.levels[factor][level] for factor, level in zip(block.levels, cell, strict=True)]
    others = list(zip(block.levels, levels, strict=True))[2:]
    setting = {factor: name for factor, name in others if factor in block.several}
    line: dict[str, Any] = {"behavior": block.behavior, **setting, "label_shift": levels[0], "selector": levels[1]}
    for name, values in zip(TERMS, own, strict=True):
        found = t_interval(values)
        estimate = float(mean(values, axis=0))
        line |= {f"{name}_pp": estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    return line | {
        "closure": float(np.nanmax(np.abs(off))) if np.isfinite(off).any() else np.nan,
        "organisms": int(np.isfinite(change).sum()),
        "prompts": float(mean(at(prompts, cell), axis=(0, 1))),
    }


def _stable(
    block: Block, pools: FloatArray, setting: dict[str, str], splits: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of `stability` for ``pools`` [organism, shift, seed, prompt, candidate]."""
    shifts = block.levels["label_shift"]
    pairs = list(combinations(range(len(shifts)), 2))
    judged = np.isfinite(pools)
    able = judged.sum(axis=-1) > 1  # [organism, shift, seed, prompt]
    between, within = (np.zeros((len(pairs), *able[:, 0].shape)) for _ in range(2))
    for _ in range(splits):
        halves = _halves(pools, judged, rng)
        same = _js(halves[0], halves[1])
        for i, (a, b) in enumerate(pairs):
            between[i] += _js(halves[0][:, a], halves[1][:, b]) / splits
            within[i] += (same[:, a] + same[:, b]) / 2 / splits
    used = np.stack([able[:, a] & able[:, b] for a, b in pairs])
    apart, alike = (mean(np.where(used, values, np.nan), axis=(2, 3)) for values in (between, within))
    lines = []
    names = [f"{shifts[a]}, {shifts[b]}" for a, b in pairs]
    every = [*zip(names, apart, alike, strict=True), ("all pairs", mean(apart, axis=0), mean(alike, axis=0))]
    for name, one, other in every if len(pairs) > 1 else every[:1]:
        found = t_interval(one - other)
        lines.append(
            {
                "behavior": block.behavior,
                **setting,
                "pair": name,
                "between_shifts": float(mean(one, axis=0)),
                "same_shift": float(mean(other, axis=0)),
                "difference": float(mean(one - other, axis=0)),
                "low": found.low,
                "high": found.high,
                "organisms": int(np.isfinite(one).sum()),
            }
        )
    return pd.DataFrame(lines)


def _halves(pools: FloatArray, judged: BoolArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Share misaligned of two random halves of the judged candidates, [organism, shift, seed, prompt] each.

    Of an odd number one candidate is left out, so that both halves are of one size.
    """
    order = np.where(judged, rng.random(pools.shape), 2.0).argsort(axis=-1).argsort(axis=-1)
    size = judged.sum(axis=-1, keepdims=True) // 2
    first, second = order < size, (order >= size) & (order < 2 * size)
    return mean(pools, axis=-1, where=first), mean(pools, axis=-1, where=second)


def _js(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence of two Bernoulli distributions, nats; 0 where one is NaN (it is in no mean)."""
    p, q = (np.nan_to_num(share) for share in (p, q))

    def entropy(share: FloatArray) -> FloatArray:
        return cast(FloatArray, special.entr(share) + special.entr(1 - share))

    return np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0)


def _setting(block: Block, place: tuple[int, ...], sizes: tuple[int, ...]) -> dict[str, str]:
    """Levels of the options that a pool depends on."""
    others = list(block.levels)[2:]
    return {
        factor: block.levels[factor][level]
        for factor, level, size in zip(others, place, sizes, strict=True)
        if size > 1
    }
