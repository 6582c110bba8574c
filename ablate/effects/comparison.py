"""Two cubes side by side: every contrast of the one with that of the other, and which inputs are the same artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from ablate.api import FloatArray
from ablate.effects.block import Cube, blocks, root
from ablate.effects.contrasts import Contrast, list_contrasts
from ablate.effects.intervals import Interval, t_interval
from ablate.errors import StudyError

Estimand = Literal["paired", "independent", "only in A", "only in B"]
KINDS: Mapping[str, str] = {
    "key_organism": "organisms",
    "key_pool": "pools",
    "key_labels": "label sets",
    "key_train": "trainings",
    "key_after": "evaluations",
}
"""What the content keys of a run are keys of."""


def compared(one: Cube, other: Cube) -> pd.DataFrame:
    """Each contrast of the table ``fixed`` in both cubes A and B, and B less A.

    Contrasts are the same where behavior, what is held fixed and what is swapped read the same. Columns:
    ``behavior, held, swapped``; ``a_pp, a_low, a_high, b_pp, ...``, the effects with their 95% t intervals;
    ``difference_pp, difference_low, difference_high``, B less A in pp, and what it is (``estimand``):

    - ``paired``: at least two organisms of B are organisms of A, by their content keys; the mean over those of (effect
      in B less effect in A), t interval with J - 1 df.
    - ``independent``: no such organisms; the difference of the mean effects of two samples of organisms, Welch's t
      interval with Satterthwaite's df. Organisms without a content key (imported runs) are not known to be the same.
    - ``only in A``, ``only in B``: no difference.

    ``organisms_a, organisms_b, shared``: how many organisms each number rests on. No interval is adjusted for the
    number of rows. Rows are in the order of A, then those that only B has. Empty where neither cube swaps anything.

    Raises:
        StudyError: what `blocks` refuses.
    """
    first, second = _rows(one), _rows(other)
    lines = [_line(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]
    table = pd.DataFrame(lines, columns=_COLUMNS)
    estimands = set(table["estimand"])
    parts = ["within-organism contrasts, B less A"]
    parts += ["paired over the organisms that both have, t intervals"] if "paired" in estimands else []
    parts += ["two samples of organisms, Welch's t intervals"] if "independent" in estimands else []
    table.attrs["methods"] = "; ".join([*parts, "not adjusted for the number of rows"])
    return table


_COLUMNS = [
    *("behavior", "held", "swapped", "a_pp", "a_low", "a_high", "b_pp", "b_low", "b_high"),
    *("difference_pp", "difference_low", "difference_high", "estimand", "organisms_a", "organisms_b", "shared"),
]
Name = tuple[str, str, str]
Found = tuple[Contrast, dict[str, float]]
"""A contrast and its differences by organism: by content key where there is one."""


def _rows(cube: Cube) -> dict[Name, Found]:
    data = root(cube)
    identity = _identities(data)
    rows: dict[Name, Found] = {}
    for block in blocks(data):
        if not block.several:
            continue
        for row in list_contrasts(block):
            if row.kind in ("null control", "simple"):
                values = zip(block.organisms, row.differences.tolist(), strict=True)
                own = {identity[name]: value for name, value in values if np.isfinite(value)}
                rows[block.behavior, row.held, row.swapped] = row, own
    return rows


def _identities(data: xr.Dataset) -> dict[str, str]:
    """By organism its content key; where there is none a name that no other cube has."""
    names = [str(name) for name in data["organism"].values]
    if "key_organism" not in data:
        return {name: f"{id(data)} {name}" for name in names}
    keys = data["key_organism"].transpose("organism", ...).values.reshape(len(names), -1)
    own = [next((str(key) for key in row if key), "") for row in keys.tolist()]
    return {name: key or f"{id(data)} {name}" for name, key in zip(names, own, strict=True)}


def _line(name: Name, one: Found | None, other: Found | None) -> dict[str, Any]:
    effects = [_effect(found) for found in (one, other)]
    a, b = ({} if found is None else found[1] for found in (one, other))
    both = [organism for organism in a if organism in b]
    estimand: Estimand
    if one is None or other is None:
        difference, estimand = Interval(np.nan, np.nan, np.nan), "only in B" if one is None else "only in A"
    elif len(both) > 1:
        difference = t_interval(np.array([b[organism] - a[organism] for organism in both]))
        estimand = "paired"
    else:
        difference, estimand = welch(np.array(list(a.values())), np.array(list(b.values()))), "independent"
    values = [*name, *effects[0], *effects[1], *difference, estimand, len(a), len(b), len(both)]
    return dict(zip(_COLUMNS, values, strict=True))


def _effect(found: Found | None) -> Interval:
    if found is None:
        return Interval(np.nan, np.nan, np.nan)
    row, own = found
    return Interval(0.0, np.nan, np.nan) if row.identical else t_interval(np.array(list(own.values())))


def welch(one: FloatArray, other: FloatArray, level: float = 0.95) -> Interval:
    """mean(other) - mean(one) of two independent samples, with Welch's t interval.

    Limits are NaN where a sample has fewer than two values or neither varies. Source: Welch 1947; oracle:
    scipy.stats.ttest_ind(equal_var=False).confidence_interval.
    """
    if not (one.size and other.size):
        return Interval(np.nan, np.nan, np.nan)
    estimate = float(other.mean() - one.mean())
    if min(one.size, other.size) < 2:
        return Interval(estimate, np.nan, np.nan)
    parts = np.array([values.var(ddof=1) / values.size for values in (one, other)])
    if not parts.any():
        return Interval(estimate, np.nan, np.nan)
    total = parts.sum()
    df = 1 / ((parts / total) ** 2 / [one.size - 1, other.size - 1]).sum()
    half = float(special.stdtrit(df, 0.5 + level / 2) * np.sqrt(total))
    return Interval(estimate, estimate - half, estimate + half)


def shared_keys(one: xr.DataTree, other: xr.DataTree) -> pd.DataFrame:
    """Which artifacts two cubes share, by content key: equal keys are the same organism, pool, labels or training.

    Columns: ``artifact``; ``in_a``, ``in_b``, ``in_both``, distinct keys; ``runs``, the runs that stand at the same
    place of both grids (same behavior, model, induction seed, levels and training seed) and know their key;
    ``same_runs``, how many of them have the same; ``differs``, the label shifts under which all of them differ. Runs
    are only compared where both cubes have the same dimensions.
    """
    datasets = [root(cube) for cube in (one, other)]
    rows = []
    for key, artifact in KINDS.items():
        if not all(key in data for data in datasets):
            continue
        sets = [set(np.asarray(data[key].values, object).ravel().tolist()) - {""} for data in datasets]
        runs = _same_place(datasets[0], datasets[1], key)
        same = runs["a"] == runs["b"] if len(runs) else pd.Series(dtype=bool)
        never = (
            [] if not len(runs) else [str(level) for level, own in same.groupby(runs["label_shift"]) if not own.any()]
        )
        rows.append(
            {"artifact": artifact, "in_a": len(sets[0]), "in_b": len(sets[1]), "in_both": len(sets[0] & sets[1])}
            | {"runs": len(runs), "same_runs": int(same.sum()), "differs": ", ".join(never)}
        )
    return pd.DataFrame(rows, columns=["artifact", "in_a", "in_b", "in_both", "runs", "same_runs", "differs"])


def _same_place(one: xr.Dataset, other: xr.Dataset, key: str) -> pd.DataFrame:
    """Keys ``a`` and ``b`` of the runs that stand at the same place of both grids and know theirs."""
    dims = [str(dim) for dim in one["status"].dims]
    if set(dims) != {str(dim) for dim in other["status"].dims}:
        return pd.DataFrame()
    place = ["behavior", "model", "induction_seed", *(dim for dim in dims if dim != "organism")]
    frames = []
    for data, name in ((one, "a"), (other, "b")):
        values = np.asarray(data[key].broadcast_like(data["status"]).transpose(*dims).values, object)
        at = np.nonzero(values != "")
        columns = {dim: data[dim].values[index] for dim, index in zip(dims, at, strict=True)}
        columns |= {fact: data[fact].values[at[0]] for fact in place[:3]}
        frame = pd.DataFrame({**{name: columns[name] for name in place}, name: values[at]})
        frames.append(frame.astype(dict.fromkeys(place, str)).drop_duplicates(place))
    return frames[0].merge(frames[1], on=place)


def require_common(table: pd.DataFrame) -> None:
    """Refuse a comparison of which no row is in both.

    Raises:
        StudyError: naming one contrast of each.
    """
    if len(table) and not (table["estimand"].isin(["paired", "independent"])).any():
        sides = [table[table["estimand"] == f"only in {side}"] for side in "AB"]
        shown = [
            f"{side}: {own['behavior'].iloc[0]}, {own['held'].iloc[0]} | {own['swapped'].iloc[0]}" if len(own) else
            f"{side}: nothing is swapped"
            for side, own in zip("AB", sides, strict=True)
        ]  # fmt: skip
        raise StudyError(f"no contrast is in both; {'; '.join(shown)}")
