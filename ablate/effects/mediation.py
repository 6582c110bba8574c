"""Mediation: label shift -> dose -> effect, by linear models within organisms. Model-based: see the assumptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.block import Block, Cube, root
from ablate.effects.contrasts import degrees, gather
from ablate.effects.dose import PP, lmg, numeric, response_of, variable
from ablate.effects.intervals import t_interval
from ablate.effects.missing import weights
from ablate.errors import StudyError

EFFECTS = ("total", "indirect at 0", "indirect at 1", "direct at 0", "direct at 1")
MODEL_BASED = (
    "model-based: linear models within organisms; no cause of mediator and effect that is left out, none that the "
    "label shift changes; iso-dose runs are the design-based answer"
)


class Estimates(NamedTuple):
    """Effects in the order of `EFFECTS` [..., 5], the sensitivity ``rho`` [...] and whether the interaction of
    label shift and mediator is in the model."""

    effects: FloatArray
    rho: FloatArray
    interaction: bool


def mediation(
    cube: Cube,
    mediator: str,
    response: str = PP,
    *,
    draws: int = 2000,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """How much of a label shift's effect passes through a measured mediator, one row a label shift and effect.

    X is 1 under the label shift and 0 under the null one, in the pairs of runs (organism, other factors, seed) that
    the main contrast compares. Models, with an intercept for each organism and a term for each setting of the other
    factors: M = alpha X, and Y = t1 X + t2 M + t3 X M; organisms count the same. Effects, m0 the mean M at X = 0:

    - ``total`` = mean of Y at 1 less Y at 0;
    - ``indirect at x`` (average causal mediation effect) = alpha (t2 + t3 x);
    - ``direct at x`` (natural direct effect) = t1 + t3 (m0 + alpha x);
    - total = indirect at 1 + direct at 0 = indirect at 0 + direct at 1, exactly.

    Where M does not vary at X = 0 (a KL from itself is 0) the interaction cannot be told from t2 and is left out.

    Columns: ``behavior, factor, swapped, held, mediator, effect``; ``estimate`` (pp for risk_delta);
    ``low, high``: 95% jackknife t with J - 1 df (pseudo-values over organisms); ``boot_low, boot_high``: percentile
    bootstrap of organisms, secondary, since with 4 to 8 organisms it covers too little; ``rho``: the correlation
    between the errors of the two models at which the indirect effect would be 0 (the partial correlation of M and
    Y given X, without interaction): a left-out common cause of that strength would explain it; ``interaction``;
    ``organisms``; ``pairs``.

    ``.attrs["kind"]`` is ``model-based`` and ``.attrs["methods"]`` says what has to be assumed. ``notes``: label
    shifts that were refused.

    Raises:
        StudyError: an unknown variable, one that is text or NaN; one label shift; fewer than three organisms; a
            mediator that does not vary given the label shift; what `contrasts` refuses.

    Source: Imai, Keele and Tingley 2010; Imai, Keele and Yamamoto 2010 (sensitivity); VanderWeele 2015 (interaction).
    """
    numeric(cube, mediator)
    numeric(cube, response)
    rng = rng or np.random.default_rng(0)

    def rows(block: Block) -> pd.DataFrame:
        if "label_shift" not in block.several:
            raise StudyError(f"{block.behavior}: label_shift has one level, there is nothing to mediate")
        m, y = variable(cube, block, mediator), response_of(cube, block, response)
        frames, notes = [], []
        for level, name in enumerate(block.levels["label_shift"][1:], start=1):
            swapped = f"label_shift {block.levels['label_shift'][0]} -> {name}"
            try:
                frame = _frame(*_pairs(block, level, m, y), draws, rng)
            except StudyError as fault:
                notes.append(f"{block.behavior}: {swapped}: {fault}")
                continue
            for place, (column, value) in enumerate(
                {"behavior": block.behavior, "factor": "label_shift", "swapped": swapped, "mediator": mediator}.items()
            ):
                frame.insert(place, column, value)
            frames.append(frame)
        if not frames:
            raise StudyError("; ".join(notes))
        joined = pd.concat(frames, ignore_index=True)
        joined.attrs["notes"] = notes
        return joined

    table = gather(cube, rows)
    table.attrs |= {"kind": "model-based", "methods": f"{MODEL_BASED}; jackknife t with {degrees(table)} df"}
    return table


def mediated(cube: Cube, doses: Sequence[str], *, rng: np.random.Generator | None = None) -> pd.DataFrame:
    """label shift -> dose -> effect for the first dose that mediates, and how all doses divide the effects.

    Rows: of each label shift `mediation`'s total, indirect and direct effect (``part``; at 0 and at 1 where the
    interaction of label shift and dose is in the model) through the first of ``doses`` that the cube has; then, a row
    a dose that varies, its ``LMG part of R^2`` of the effects on all of them, which hang together, and a last row
    ``all`` with that ``R^2`` (see `lmg`): a description of the declared cells.

    Columns: ``behavior, swapped, dose, part, estimate, low, high, unit`` (pp, or 1), ``rho`` (of indirect effects),
    ``organisms``. ``.attrs["kind"]`` is ``model-based``.

    Raises:
        StudyError: the cube has none of the doses, or as `mediation`.
    """
    known = [name for name in doses if name in root(cube)]
    if not known:
        raise StudyError(f"the cube has none of the doses {', '.join(doses)}; add their measures to `measures`")
    table, faults = None, []
    for dose in known:
        try:
            table = mediation(cube, dose, rng=rng)
            break
        except StudyError as fault:
            faults.append(f"{dose}: {fault}")
    if table is None:
        raise StudyError("; ".join(faults))
    once = ~table["interaction"] & table["effect"].str.endswith("at 1")
    parts = table[~once].assign(unit="pp", dose=table["mediator"])
    parts["part"] = [
        effect if both else effect.removesuffix(" at 0")
        for effect, both in zip(parts["effect"], parts["interaction"], strict=True)
    ]
    shares, why = _shares(cube, known)
    parts["rho"] = parts["rho"].where(parts["effect"].str.startswith("indirect"))
    names = ["behavior", "swapped", "dose", "part", "estimate", "low", "high", "unit", "rho", "organisms"]
    joined = pd.concat([parts[names], *([shares[names]] if shares is not None else [])], ignore_index=True)
    notes = [*table.attrs.get("notes", []), *faults, *([f"no LMG shares: {why}"] if why else [])]
    return _with_attrs(joined, {**table.attrs, "notes": notes})


def _shares(cube: Cube, doses: Sequence[str]) -> tuple[pd.DataFrame | None, str]:
    """The rows of LMG shares over the doses that vary, or why there are none."""
    used = list(doses)
    while len(used) > 1:
        try:
            found = lmg(cube, used)
        except StudyError as fault:
            # a dose that is constant, text or NaN leaves; of dependent ones the last
            alone = [name for name in used if str(fault).split(": ")[-1].startswith((f"{name} is", f"'{name}' is"))]
            used.remove(alone[0] if alone else used[-1])
            why = str(fault)
            continue
        part = np.where(found["measure"] == "all", "R^2", "LMG part of R^2")
        return found.assign(
            swapped="all cells", dose=found["measure"], part=part, estimate=found["lmg"], unit="1", rho=np.nan
        ), ""
    return None, why if len(doses) > 1 else "one dose alone"


def _with_attrs(frame: pd.DataFrame, attrs: dict[Any, Any]) -> pd.DataFrame:
    frame.attrs = attrs
    return frame


def _pairs(block: Block, level: int, m: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mediator and response at X = 0 and 1, each [2, organism, cell, seed], NaN where a pair is not whole."""
    cells = weights(block, "label_shift", level)[level] != 0
    sides = np.array([[array[:, side][:, cells] for side in (0, level)] for array in (m, y)])
    mediator, effect = np.where(np.isfinite(sides).all(axis=(0, 1)), sides, np.nan)
    return mediator, effect


def _frame(m: FloatArray, y: FloatArray, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    products, m0 = cross_products(m, y)
    organisms = len(products)
    if organisms < 3:
        raise StudyError(f"{organisms} organisms have both runs with the mediator, at least 3 are needed")
    whole = estimate(products, m0, np.ones((1, organisms)))
    without = estimate(products, m0, 1 - np.eye(organisms), whole.interaction)
    pseudo = organisms * whole.effects - (organisms - 1) * without.effects
    resampled = rng.multinomial(organisms, np.full(organisms, 1 / organisms), draws)
    drawn = estimate(products, m0, resampled[(resampled > 0).sum(axis=1) > 1].astype(float), whole.interaction)
    low, high = np.quantile(drawn.effects, [0.025, 0.975], axis=0)
    lines: list[dict[str, Any]] = []
    for i, name in enumerate(EFFECTS):
        estimated = float(whole.effects[0, i])
        interval = t_interval(pseudo[:, i])
        half = (
            interval.high - interval.low
        ) / 2  # the jackknife's spread around the estimate itself, so that it closes
        line = {"effect": name, "estimate": estimated, "low": estimated - half, "high": estimated + half}
        lines.append({**line, "boot_low": float(low[i]), "boot_high": float(high[i])})
    pairs = int(np.isfinite(y[0]).sum())
    return pd.DataFrame(lines).assign(
        rho=float(whole.rho[0]), interaction=whole.interaction, organisms=organisms, pairs=pairs
    )


def cross_products(m: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What each organism brings to the regressions: [organism, k, k] and its mean M at X = 0, [organism].

    ``m, y``: [2, organism, cell, seed]. Columns X, M, X M, the settings of the other factors but the first, Y, each
    centered within the organism; mean products, so that an organism counts the same however many pairs it has.
    """
    sides, _, cells, seeds = m.shape
    own = np.isfinite(y[0]).any(axis=(1, 2))
    rows = (own.sum(), sides * cells * seeds)
    m, y = (np.moveaxis(array[:, own], 0, -1).reshape(rows) for array in (m, y))  # [organism, row]
    x = np.broadcast_to(np.tile([0.0, 1.0], cells * seeds), m.shape)
    settings = np.repeat(np.arange(cells), seeds * sides)
    dummies = [np.broadcast_to(settings == cell, m.shape) for cell in range(1, cells)]
    there = np.isfinite(y)
    table = np.stack([x, m, x * m, *dummies, y], axis=-1)
    count = there.sum(axis=1)[:, None, None]
    table = np.where(there[..., None], table, 0.0)
    m0 = (table[..., 1] * (1 - x)).sum(axis=1) / (count[:, 0, 0] / 2)
    centered = np.where(there[..., None], table - table.sum(axis=1, keepdims=True) / count, 0.0)
    return np.einsum("orj,ork->ojk", centered, centered) / count, m0


def estimate(products: FloatArray, m0: FloatArray, weight: FloatArray, interaction: bool | None = None) -> Estimates:
    """The effects for each set of organism weights [..., organism].

    ``interaction``: whether X M is in the model; where it can be told from M (for the first weights) if None.

    Raises:
        StudyError: M does not vary given X.
    """
    total = np.einsum("bo,ojk->bjk", weight, products)
    base = weight @ m0 / weight.sum(axis=1)
    dummies = list(range(3, total.shape[-1] - 1))
    if interaction is None:
        if not _free(total[0], 1, [0, *dummies]):
            raise StudyError("the mediator does not vary given the label shift: its effect cannot be told apart")
        interaction = _free(total[0], 2, [0, 1, *dummies])
    alpha = total[:, 0, 1] / total[:, 0, 0]
    model = [0, 1, *([2] if interaction else []), *dummies]
    t = np.einsum("bij,bj->bi", _inverse(total, model), total[:, model, -1])
    t1, t2 = t[:, 0], t[:, 1]
    t3 = t[:, 2] if interaction else np.zeros_like(t1)
    effects = [
        total[:, 0, -1] / total[:, 0, 0],
        alpha * t2,
        alpha * (t2 + t3),
        t1 + t3 * base,
        t1 + t3 * (base + alpha),
    ]
    return Estimates(np.stack(effects, axis=-1), _partial(total, [0, *dummies]), interaction)


def _partial(total: FloatArray, given: list[int]) -> FloatArray:
    """The correlation of M and Y given other columns."""
    rest = _given(total, [1, total.shape[-1] - 1], given)
    scale = np.sqrt(np.maximum(rest[:, 0, 0] * rest[:, 1, 1], 0.0))
    return np.where(scale > 0, rest[:, 0, 1] / np.where(scale > 0, scale, 1.0), np.nan)


def _free(total: FloatArray, column: int, given: list[int]) -> bool:
    """Whether a column varies once others are given."""
    rest = _given(total[None], [column], given)
    return bool(rest[0, 0, 0] > 1e-9 * max(float(total[column, column]), 1e-300))


def _given(total: FloatArray, columns: list[int], given: list[int]) -> FloatArray:
    """Cross-products of the columns that are left of a regression on others."""
    cross = total[:, columns][:, :, given]
    return np.asarray(total[:, columns][:, :, columns] - cross @ _inverse(total, given) @ np.swapaxes(cross, 1, 2))


def _inverse(total: FloatArray, columns: list[int]) -> FloatArray:
    """Inverse cross-products, of columns in units of their spread; a column that others determine takes nothing."""
    part = total[:, columns][:, :, columns]
    scale = np.sqrt(np.diagonal(part, axis1=1, axis2=2))
    both = np.where(scale > 0, scale, 1.0)
    both = both[:, :, None] * both[:, None, :]
    return np.asarray(np.linalg.pinv(part / both, rcond=1e-10, hermitian=True) / both)
