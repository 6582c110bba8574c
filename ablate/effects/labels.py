"""What the labels themselves say, before any training: the Price terms of every cell.

All numbers are of the cube's group ``labels``: the judged outcome of every candidate of every pool, and of each run the
labels that its selector left. Inference is over organisms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, at, mean, root
from ablate.effects.contrasts import degrees, gather
from ablate.effects.dose import aligned
from ablate.effects.intervals import t_interval
from ablate.effects.transmission import EXACT_UP_TO, SPLITS, half_terms
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
CHUNK = 1_000_000
"""Candidates whose splits are taken at a time."""

DATA = {"items": None, "unparsed": None}
"""Facts of a caption that are not of these tables: nothing in them was evaluated after training."""


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


def label_terms(cube: xr.DataTree, *, rng: np.random.Generator | None = None) -> pd.DataFrame:
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
    ``.attrs["notes"]`` say how many candidates each label shift has and which share could not be judged.

    Args:
        cube: a whole cube, with its group ``labels``.
        rng: cuts of more than 8 candidates, see `split_half_selection`; a fixed seed where None.

    Raises:
        StudyError: a cube without judged candidates or without the null label shift; what `contrasts` refuses.
    """
    rng = rng or np.random.default_rng(0)
    group = group_of(cube, "pool_outcome", "pool_class", "label_score", "label_risk")

    def rows(block: Block) -> pd.DataFrame:
        _comparable(block)
        labels = _labels(cube, group, block)
        terms, prompts = _terms(labels)
        halves = np.broadcast_to(_split_half(labels, rng), terms.shape[1:])
        terms = np.concatenate([terms, halves[None]])
        frame = pd.DataFrame([_line(block, cell, terms, prompts) for cell in np.ndindex(terms.shape[2:-1])])
        if not frame["organisms"].any():
            raise StudyError(f"{block.behavior}: no organism has labels of two label shifts that could be judged")
        frame.attrs["notes"] = [candidates(block, labels.outcome, labels.classes)]
        return frame

    table = gather(cube, rows)
    drawn = f", {SPLITS} random ones of more" if group.sizes["candidate"] > EXACT_UP_TO else ""
    table.attrs["methods"] = (
        "Price terms of the labels' risk on label prompts, exact in the pools drawn; split-half selection over "
        f"all cuts of up to {EXACT_UP_TO} candidates{drawn}; t intervals with {degrees(table)} df over organisms"
    )
    table.attrs["facts"] = DATA
    return table


def group_of(cube: xr.DataTree, *names: str) -> xr.Dataset:
    """The group ``labels`` of a cube.

    Raises:
        StudyError: it lacks one of ``names``.
    """
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


def candidates(block: Block, outcome: FloatArray, classes: FloatArray) -> str:
    """Label prompts, and by label shift the candidates of each and the share of these that could not be judged."""
    there = np.isfinite(classes)  # what states nothing has class -1
    count = there.sum(axis=-1)
    words = []
    for shift, name in enumerate(block.levels["label_shift"]):
        own, drawn = count[:, shift], there[:, shift]
        if drawn.any():
            sizes = dict.fromkeys((own[drawn.any(axis=-1)].min(), own.max()))
            unjudged = np.isnan(outcome[:, shift][drawn]).mean()
            words.append(f"{name} {' to '.join(map(str, sizes))} ({unjudged:.0%})")
    prompts = (count > 0).sum(axis=-1).max()
    return f"{block.behavior}: {prompts} label prompts, candidates of each (not judged): {', '.join(words)}"


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


def _split_half(labels: _Labels, rng: np.random.Generator) -> FloatArray:
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
        if law not in _BY:
            continue
        votes = _BY[law].sign * scores[:, :, selector] if _BY[law].sign else np.ones(stated.shape)
        size = np.isfinite(stated).sum(axis=-1)
        sums = np.zeros((2, *size.shape))
        for k in np.unique(size[size > 3]):  # pools of fewer candidates are filled up with NaN
            own = size == k
            flat = [array[own][:, :k] for array in (votes, outcome[:, :, selector], stated)]
            chunks = zip(*(np.array_split(array, 1 + array.size // CHUNK) for array in flat), strict=True)
            terms = [half_terms(one, m, of.astype(int), rng, by=_BY[law].by)[0] for one, m, of in chunks]
            sums[:, own] = np.concatenate(terms, axis=1)
        covariance, weight = sums.sum(axis=-1)
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
