"""What the labels say before anything is trained on them: frozen to a file whose name is its hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablate.keys import key_of
from ablate.plan import Plan
from ablate.records import METHOD_NAME
from ablate.states import State
from ablate.store import Store

COLUMNS = ("m_p", "m_t", "m_ts", "kl_shift")
ABSTAIN_PP = 2.0
"""Label changes smaller than this are said to change nothing."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row a run: where it stands, the content of its labels, and their measures; null where there is none."""

    file: Path
    sha256: str
    rows: tuple[Row, ...]


def frozen(plan: Plan, store: Store, found: Sequence[State]) -> Prediction | None:
    """Write the measures of all labels that are there, once; None where there are no labels.

    The file holds no outcome of training and is never written again: an added level leaves another one beside it.
    """
    rows = [_row(plan, state, store) for state in found[: len(plan.cells)] if state.content]
    rows = [row for row in rows if row]
    if not rows:
        return None
    digest = key_of(rows)
    name = f"predictions/{digest[:12]}.json"
    if store.get(name) is None:
        store.put(name, {"sha256": digest, "rows": rows})
        store.log(key=digest, kind="predictions", status="frozen", error="")
    return Prediction(store.root / name, digest, tuple(rows))


def _row(plan: Plan, state: State, store: Store) -> Row:
    cell, own = state.cell, plan.organisms[state.cell.organism]
    if not store.has(cell.measure):
        return {}
    values = store.read(cell.measure).json("values.json")
    numbers = {name: values[name] for name in COLUMNS if name in values}
    return {
        "behavior": own.behavior,
        "organism": cell.organism,
        "induction_seed": own.induction_seed,
        "seed": cell.seed,
        "point": {axis.dim: str(label) for axis, label in zip(plan.axes, cell.point, strict=True)},
        "labels": state.content,
        **{name: None if value != value else value for name, value in numbers.items()},
    }


def in_words(prediction: Prediction) -> str:
    """Each cell with the change of its labels' risk against the organism's own, and what is expected of training."""
    from ablate.effects import words
    from ablate.effects.intervals import t_interval

    cells: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in prediction.rows:
        if row.get("m_ts") is not None and row.get("m_p") is not None:
            name = " x ".join(row["point"][dim] for dim in ("label_shift", "selector", "objective"))
            name = f"{row['point'][METHOD_NAME]}: {name}" if METHOD_NAME in row["point"] else name
            kl = row.get("kl_shift")
            values = 100 * (row["m_ts"] - row["m_p"]), float("nan") if kl is None else kl
            cells[row["behavior"], name][row["organism"]].append(values)
    lines = [f"{'labels of':<52} {'their risk - the organism own':<30} {'KL, nats':>8}  expected"]
    for (behavior, name), organisms in sorted(cells.items()):
        change, kl = np.array([np.mean(values, axis=0) for values in organisms.values()]).T
        interval = t_interval(change)
        mean = float(change.mean())
        expected = "no change" if abs(mean) < ABSTAIN_PP else "risk rises" if mean > 0 else "risk falls"
        shown = words.effect(interval) if np.isfinite(interval.estimate) else f"{words.signed(mean)} pp"
        lines.append(f"{behavior + ': ' + name:<52} {shown:<30} {float(kl.mean()):>8.2f}  {expected}")
    lines.append(f"frozen  {prediction.file} (sha256 {prediction.sha256[:12]}), before any training")
    return "\n".join(lines)
