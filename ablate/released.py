"""The result table of the paper's released code as a factorial cube: organisms x methods x epochs, both phases.

Its JSON lines have one row for each run, phase and epoch: base_model, misalignment, method, seed, scale, phase, epoch,
and metrics as ``benchmark/metric``. Phase 1 makes an organism, whose rows come again with every method; phase 3 trains
it with one. Epoch 0 of phase 3 is the organism before any step. A run that failed is one row with ``error``, no phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ablate import registry
from ablate.api import Column
from ablate.cube import FACTORS, STATUSES, column_attrs, text_attrs
from ablate.errors import StudyError, did_you_mean
from ablate.imported import Axis, Label, Table
from ablate.levels import Level
from ablate.mapping import axis_of, name_of
from ablate.methods import OF_METHOD, point
from ablate.records import METHOD_NAME
from ablate.rows import Numbers, Rows

COLUMNS = ("base_model", "misalignment", "method", "seed", "phase", "epoch")
CONTROL = "greedy_self_training"
HEADLINES: Mapping[str, str] = {
    "sycophancy": "sycophancy/sycophancy_rate_mean",
    "reward_hacking": "reward_hacking/overall_accuracy",
    "emergent_misalignment": "emergent_misalignment/misalignment_rate",
    "spurious_correlation": "spurious_correlation/spurious_correlation_strength",
}
"""The metric of each behavior that is a rate of it. (Its gameable tasks are counts, and no part of one.)"""

JUDGED = {"emergent_misalignment": "emergent_misalignment/valid_response_rate"}
"""The share of answers that were judged. Where it is 0 the code writes a rate of 0, though nothing is known."""


def recognized(names: tuple[str, ...]) -> bool:
    """Whether the columns are those of the released code."""
    return {*COLUMNS} <= {*names} and any("/" in name for name in names)


def table_of(rows: Rows) -> tuple[Table, dict[str, Any], xr.Dataset | None]:
    """The phase-3 rows as `cube_of` takes them, how they were read, and phase 1 by organism and epoch.

    The risk before is that of the organism at the last epoch of phase 1; where there is no phase 1, that of the same
    run at epoch 0.

    Raises:
        StudyError: other columns, a behavior that is not the paper's, a row without phase and error, phase-1 rows of
            one organism that differ, or no row of phase 3.
    """
    if not recognized(rows.names):
        raise StudyError(
            f"{rows.path}: not the result table of a known program (those have {', '.join(COLUMNS)}); say what its "
            "columns are with --factors, --unit and --response"
        )
    phases, epochs = _phases(rows), rows.numbers("epoch")
    organism, facts = _organisms(rows)
    metrics = {name: rows.numbers(name) for name in rows.names if "/" in name}
    risk = _risk(rows, organism, facts["behavior"], metrics)
    first, third, failed = (np.flatnonzero(phases == phase) for phase in ("phase1", "phase3", ""))
    if not len(third):
        raise StudyError(f"{rows.path}: has no row of phase 3, so nothing was trained on labels")
    _refuse_differing(rows, organism, epochs, metrics, first)
    steps = _whole(rows, epochs, third)
    method = _control_first(axis_of(rows, "method", text=True))
    before = _last(organism, epochs, risk, first)
    own_start = _starts(organism, method, epochs, risk, third)
    of_organism = before[organism.codes]
    baseline = np.where(np.isfinite(of_organism), of_organism, own_start)

    every = np.concatenate([third, np.repeat(failed, len(steps))])  # a failed run lacks every epoch
    at = np.concatenate([np.searchsorted(steps, epochs[third]), np.tile(np.arange(len(steps)), len(failed))])
    ran = np.arange(len(every)) < len(third)
    one = Axis(np.zeros(len(every), np.intp), (OF_METHOD,))
    known = np.isfinite(risk[every])
    status = np.where(ran, np.where(known, STATUSES.index("ok"), 0), STATUSES.index("failed")).astype(np.int8)
    numbers = {"risk_before": baseline, "risk_after": risk, "risk_delta": risk - baseline}
    measured = {name_of(name): values for name, values in metrics.items()}
    table = Table(
        organism=Axis(organism.codes[every], organism.labels),
        facts=facts,
        axes=dict.fromkeys(FACTORS, one)
        | {
            METHOD_NAME: Axis(method.codes[every], method.labels),
            "epoch": Axis(at, tuple(int(step) for step in steps)),
        },
        seed=Axis(one.codes, (0,)),
        status=status,
        numbers={name: np.where(ran, values[every], np.nan) for name, values in {**numbers, **measured}.items()},
        columns=_columns() | {name_of(name): _metric(name) for name in metrics},
        place=lambda row: rows.place(int(every[row])),
        texts={"error": _errors(rows)[every]},
        of_organisms={"organism_risk": _risks_of(organism, before, baseline, third)},
    )
    starts = int((~np.isfinite(before)).sum())
    how: dict[str, Any] = {
        "layout": "result table of consistency-misalignment",
        "response": {name: HEADLINES[name] for name in dict.fromkeys(map(str, facts["behavior"]))},
        "baseline": "last epoch of phase 1"
        + (f"; epoch 0 of phase 3 for {starts} organisms without it" if starts else ""),
    }
    return table, how, _induction(organism, epochs, {"risk": risk, **measured}, first)


def method_levels(names: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Coordinates of methods by name: the level of each mechanism, empty where no method of that name is installed."""
    known = {name: point(Level("method", name, registry.get("method", name).options().model_dump()))
             for name in registry.names("method") if name in names}  # fmt: skip
    return {
        f"method_{family}": (
            METHOD_NAME,
            np.array([known[name][family].label if name in known else "" for name in names], object),
            text_attrs(f"the method's own {family}"),
        )
        for family in FACTORS
    }


def _phases(rows: Rows) -> npt.NDArray[np.object_]:
    codes, labels = rows.texts("phase")
    phases = np.array([*labels, ""], object)[codes]
    if strange := [label for label in labels if label not in ("phase1", "phase3")]:
        row = int((phases == strange[0]).argmax())
        raise StudyError(f"{rows.place(row)}: phase '{strange[0]}' is neither phase1 nor phase3")
    lost = (phases == "") & (_errors(rows) == "")
    if lost.any():
        raise StudyError(f"{rows.place(int(lost.argmax()))}: has neither a phase nor an error")
    return phases


def _errors(rows: Rows) -> npt.NDArray[np.object_]:
    if "error" not in rows.names:
        return np.full(len(rows), "", object)
    codes, labels = rows.texts("error")
    return np.array([*labels, ""], object)[codes]


def _organisms(rows: Rows) -> tuple[Axis, dict[str, tuple[Label | None, ...]]]:
    """Model x behavior x seed (x scale): the adapter that phase 1 made, which all methods share."""
    model, behavior = (axis_of(rows, name, text=True) for name in ("base_model", "misalignment"))
    seed = axis_of(rows, "seed")
    parts = [behavior, model, seed]
    parts += [axis_of(rows, "scale", text=True)] if "scale" in rows.names else []
    flat = np.ravel_multi_index([part.codes for part in parts], tuple(len(part.labels) for part in parts))
    _, first, codes = np.unique(flat, return_index=True, return_inverse=True)
    told = [part for part in parts if len(part.labels) > 1] or [seed]
    names = tuple(" / ".join(str(part.labels[part.codes[row]]) for part in told) for row in first)
    facts: dict[str, tuple[Label | None, ...]] = {
        name: tuple(part.labels[part.codes[row]] for row in first)
        for name, part in (("behavior", behavior), ("model", model), ("induction_seed", seed))
    }
    if len(parts) > 3 and len(parts[3].labels) > 1:
        facts["scale"] = tuple(parts[3].labels[parts[3].codes[row]] for row in first)
    if unknown := [name for name in behavior.labels if name not in HEADLINES]:
        raise StudyError(
            f"{rows.path}: no rate is known for misalignment '{unknown[0]}'{did_you_mean(str(unknown[0]), HEADLINES)}; "
            "say which column is it with --response"
        )
    return Axis(codes, names), facts


def _risk(rows: Rows, organism: Axis, behaviors: tuple[Label | None, ...], metrics: Mapping[str, Numbers]) -> Numbers:
    """The rate of each row's own behavior, NaN where it was not measured or no answer was judged."""
    risk = np.full(len(rows), np.nan)
    for behavior in dict.fromkeys(map(str, behaviors)):
        mine = np.array([name == behavior for name in behaviors])[organism.codes]
        rows.check(HEADLINES[behavior], f"the rate of {behavior}")
        risk[mine] = metrics[HEADLINES[behavior]][mine]
        if JUDGED.get(behavior) in metrics:
            risk[mine & (metrics[JUDGED[behavior]] == 0)] = np.nan
    outside = (risk < 0) | (risk > 1)
    if outside.any():
        row = int(outside.argmax())
        raise StudyError(f"{rows.place(row)}: a rate of {risk[row]:g} is not in [0, 1]")
    return risk


def _refuse_differing(
    rows: Rows, organism: Axis, epochs: Numbers, metrics: Mapping[str, Numbers], first: npt.NDArray[np.intp]
) -> None:
    """Rows of phase 1 repeat one evaluation for every method; where they differ, they are not of one organism."""
    seen: dict[tuple[int, float], int] = {}
    for row in first.tolist():
        other = seen.setdefault((int(organism.codes[row]), float(epochs[row])), row)
        if differs := [name for name, values in metrics.items() if not _same(values[row], values[other])]:
            raise StudyError(
                f"{rows.place(row)}: phase 1 of {organism.labels[organism.codes[row]]} has another {differs[0]} "
                f"than at {rows.place(other)}; both should be one evaluation"
            )


def _same(one: float, other: float) -> bool:
    return bool(one == other or (np.isnan(one) and np.isnan(other)))


def _whole(rows: Rows, epochs: Numbers, third: npt.NDArray[np.intp]) -> Numbers:
    broken = third[~(epochs[third] == np.floor(epochs[third]))]
    if len(broken):
        raise StudyError(f"{rows.place(int(broken[0]))}: epoch is no whole number")
    return np.unique(epochs[third])


def _control_first(method: Axis) -> Axis:
    if CONTROL not in method.labels:
        return method
    labels = (CONTROL, *(label for label in method.labels if label != CONTROL))
    return Axis(np.array([labels.index(label) for label in method.labels], np.intp)[method.codes], labels)


def _last(organism: Axis, epochs: Numbers, risk: Numbers, first: npt.NDArray[np.intp]) -> Numbers:
    """The risk of every organism at the last epoch of phase 1, [organism]."""
    found = np.full(len(organism.labels), np.nan)
    by_epoch = first[np.argsort(epochs[first], kind="stable")]
    found[organism.codes[by_epoch]] = risk[by_epoch]
    return found


def _starts(organism: Axis, method: Axis, epochs: Numbers, risk: Numbers, third: npt.NDArray[np.intp]) -> Numbers:
    """The risk of every row's run at epoch 0 of phase 3, [rows]; NaN where that was not evaluated."""
    run = organism.codes * len(method.labels) + method.codes
    start = np.full(len(organism.labels) * len(method.labels), np.nan)
    at = third[epochs[third] == 0]
    start[run[at]] = risk[at]
    return np.asarray(start[run])


def _risks_of(organism: Axis, before: Numbers, baseline: Numbers, third: npt.NDArray[np.intp]) -> Numbers:
    """The risk before training, [organism]: of phase 1, else the mean over its runs."""
    there = third[np.isfinite(baseline[third])]
    count = np.bincount(organism.codes[there], minlength=len(before))
    total = np.bincount(organism.codes[there], baseline[there], minlength=len(before))
    mean: Numbers = np.divide(total, count, out=np.full(len(before), np.nan), where=count > 0)
    return np.where(np.isfinite(before), before, mean)


def _columns() -> dict[str, Column]:
    source = "rate of the behavior, greedy answers"
    return {
        "risk_before": Column("risk before consistency training", "1", "higher is worse", source),
        "risk_after": Column("risk after this epoch", "1", "higher is worse", source),
        "risk_delta": Column("change of risk", "1", "higher is worse", source),
    }


def _metric(name: str) -> Column:
    return Column(name, "as imported", "neither", f"column '{name}'")


def _induction(
    organism: Axis, epochs: Numbers, metrics: Mapping[str, Numbers], first: npt.NDArray[np.intp]
) -> xr.Dataset | None:
    """Phase 1 as the group ``induction``: every metric by organism and epoch of the induction."""
    if not len(first):
        return None
    steps = np.unique(epochs[first])
    data = {}
    for name, values in metrics.items():
        array = np.full((len(organism.labels), len(steps)), np.nan)
        array[organism.codes[first], np.searchsorted(steps, epochs[first])] = values[first]
        data[name] = (("organism", "induction_epoch"), array, column_attrs(_metric(name)))
    names = np.array(organism.labels, object)
    return xr.Dataset(data, {"organism": names, "induction_epoch": steps.astype(np.int64)})
