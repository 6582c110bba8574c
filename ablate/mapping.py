"""Which column of somebody's rows is what: declared by the user, checked against the file, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ablate import registry
from ablate.api import Column
from ablate.cube import FACTORS, STATUSES
from ablate.errors import StudyError, did_you_mean
from ablate.imported import KEYS, UNDECLARED, Axis, Label, Table
from ablate.records import METHOD_NAME
from ablate.rows import Numbers, Rows, quoted

Scale = Literal["probability", "percent", "pp"]
RANGES: Mapping[Scale, tuple[float, float]] = {"probability": (0, 1), "percent": (0, 100), "pp": (-100, 100)}

PREFIX = re.compile(r"^(config|params|summary|metrics|tags|data)[./]")
"""What W&B and MLflow put before the names of a run's settings and results."""

STATES: Mapping[str, str] = {
    **{name: name for name in STATUSES},
    **dict.fromkeys(("finished", "success", "succeeded", "completed"), "ok"),
    **dict.fromkeys(("crashed", "killed", "error"), "failed"),
    **dict.fromkeys(("running", "scheduled", "pending", "preempted"), "missing"),
}
"""What trackers call a run's end."""

NULLS = {"label_shift": "none", "selector": "first"}
LONGEST_LABEL = 200
OF_ORGANISM = ("organism_risk", "organism_unparsed", "valid_organism", "calibrated")


@dataclass(frozen=True)
class Mapped:
    """What the columns are. ``factors`` maps dimensions to columns, ``nulls`` dimensions to their null level.

    ``unit`` are the columns that tell organisms apart, together with ``behavior`` and ``model``. ``values`` are other
    columns with numbers. ``items``: the evaluation items behind each risk, 0 where it is not known.
    """

    factors: Mapping[str, str]
    unit: tuple[str, ...]
    response: str
    baseline: str = ""
    scale: Scale = "probability"
    seed: str = ""
    behavior: str = ""
    model: str = ""
    status: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    nulls: Mapping[str, str] = field(default_factory=dict)
    items: int = 0

    @property
    def response_name(self) -> str:
        """What the organisms are said to do where no column names their behavior."""
        return name_of(self.response)

    @property
    def used(self) -> dict[str, str]:
        """Every column that is used, by what it is."""
        single = {name: getattr(self, name) for name in ("response", "baseline", "seed", "behavior", "model", "status")}
        units = {f"unit {place}": name for place, name in enumerate(self.unit, 1)}
        return {**units, **{name: column for name, column in single.items() if column}, **self.factors, **self.values}


def declared(
    factors: str,
    unit: str,
    response: str,
    baseline: str,
    scale: Scale,
    seed: str,
    behavior: str,
    model: str,
    status: str,
    values: str,
    null: str,
    items: int,
) -> Mapped | None:
    """What the options of the command say; None where they say nothing, so that the file must be recognized.

    Raises:
        StudyError: only some of what is needed, or what cannot be read.
    """
    needed = {"--factors": factors, "--unit": unit, "--response": response}
    if not any((*needed.values(), baseline, seed, behavior, model, status, values, null, items)):
        return None
    if lacking := [option for option, text in needed.items() if not text.strip()]:
        raise StudyError(f"{', '.join(lacking)}: needed to say what the columns are")
    nulls = {}
    for part in null.split(",") if null else ():
        name, equals, level = (piece.strip() for piece in part.partition("="))
        if not (name and equals):
            raise StudyError(f"--null: cannot read '{part}'; write NAME=LEVEL, with commas between them")
        nulls[name] = level
    return Mapped(
        factors=pairs(factors, "--factors"),
        unit=tuple(name.strip() for name in unit.split(",")),
        response=response,
        baseline=baseline,
        scale=scale,
        seed=seed,
        behavior=behavior,
        model=model,
        status=status,
        values=pairs(values, "--values") if values else {},
        nulls=nulls,
        items=items,
    )


def pairs(text: str, option: str) -> dict[str, str]:
    """``label_shift=view,lr`` as {label_shift: view, lr: lr}; a name of its own is made from a column's.

    Raises:
        StudyError: an empty part, a name that is none, one that stands twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        column, name = (column, name) if equals else (name, name_of(name))
        name = METHOD_NAME if name == "method" else name
        if not column or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise StudyError(f"{option}: cannot read '{part}'; write COLUMN or NAME=COLUMN, with commas between them")
        if name in found:
            raise StudyError(f"{option}: '{name}' is named twice; write NAME=COLUMN for one of them")
        found[name] = column
    return found


def name_of(column: str) -> str:
    """A column's name as the cube has it: ``config.label_shift`` is label_shift, ``mmlu/accuracy`` mmlu_accuracy."""
    return re.sub(r"[^A-Za-z0-9_]", "_", PREFIX.sub("", column))


def completed(rows: Rows, mapped: Mapped) -> Mapped:
    """The mapping with the columns that are called as in a cube, every name checked.

    Raises:
        StudyError: a column that is not there, or that is two things.
    """
    for what, column in mapped.used.items():
        rows.check(column, f"--{'unit' if what.startswith('unit') else 'factors' if what in mapped.factors else what}")
    free = [name for name in rows.names if name not in mapped.used.values()]
    behavior = mapped.behavior or next((name for name in free if name == "behavior"), "")
    model = mapped.model or next((name for name in free if name == "model"), "")
    status = mapped.status or next((name for name in ("status", "Status", "State") if name in free), "")
    own = (
        set(_measured()) | {*KEYS, "error", "induction_seed", *OF_ORGANISM} if mapped.scale == "probability" else set()
    )
    taken = {name: name for name in free if name in own or name.startswith("key_")}
    mapped = replace(mapped, behavior=behavior, model=model, status=status, values={**mapped.values, **taken})
    columns = list(mapped.used.values())
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        roles = [what for what, column in mapped.used.items() if column == twice[0]]
        raise StudyError(f"column '{twice[0]}' cannot be {' and '.join(roles)} at once")
    return mapped


def _measured() -> dict[str, Column]:
    """What every installed measure gives, but the three risks that are computed here."""
    columns: dict[str, Column] = {}
    for name in registry.names("measure"):
        columns |= registry.get("measure", name).traits["columns"]
    return {name: column for name, column in columns.items() if name not in ("risk_before", "risk_after", "risk_delta")}


def table_of(rows: Rows, mapped: Mapped) -> Table:
    """The rows as `cube_of` takes them.

    Raises:
        StudyError: a field that is empty, no number or out of range, a level that cannot be one, with its place; an
            organism that contradicts itself.
    """
    organism, facts = _organisms(rows, mapped)
    factors = {
        dim: axis_of(rows, column, text=dim in (*FACTORS, METHOD_NAME)) for dim, column in mapped.factors.items()
    }
    one = Axis(np.zeros(len(rows), np.intp), (UNDECLARED,))
    axes = {dim: factors.get(dim, one) for dim in FACTORS} | factors
    axes = {dim: _null_first(dim, axis, mapped.nulls.get(dim)) for dim, axis in axes.items()}
    if unknown := [dim for dim in mapped.nulls if dim not in factors]:
        raise StudyError(f"--null: '{unknown[0]}' is no factor{did_you_mean(unknown[0], list(factors))}")
    seed = axis_of(rows, mapped.seed) if mapped.seed else Axis(one.codes, (0,))
    measured = _measured()
    texts = {
        name: _column_of_texts(rows, column)
        for name, column in mapped.values.items()
        if name.startswith("key_") or name == "error"
    }
    others = [name for name in mapped.values if name not in (*texts, "induction_seed", *OF_ORGANISM)]
    numbers = {name: rows.numbers(mapped.values[name]) for name in others}
    columns = {name: measured.get(name) or _as_it_is(rows, mapped.values[name], name) for name in others}
    risks, about = _risks(rows, mapped, organism, axes)
    status = _status(rows, mapped, np.isfinite(risks["risk_after"]) | np.isfinite(risks["risk_delta"]))
    known = {
        name: _constant(rows, organism, rows.numbers(mapped.values[name]), name)
        for name in OF_ORGANISM
        if name in mapped.values
    }
    return Table(
        organism, facts, axes, seed, status, {**risks, **numbers}, {**about, **columns}, rows.place, texts, known
    )


def _as_it_is(rows: Rows, column: str, name: str) -> Column:
    return Column(name.replace("_", " "), "as imported", "neither", f"column '{column}' of {rows.path.name}")


def _column_of_texts(rows: Rows, column: str) -> npt.NDArray[np.object_]:
    codes, labels = rows.texts(column)
    return np.array([*labels, ""], object)[codes]


def _organisms(rows: Rows, mapped: Mapped) -> tuple[Axis, dict[str, tuple[Label | None, ...]]]:
    """Every organism by its unit, behavior and model; what else is known of it."""
    parts = [axis_of(rows, column) for column in mapped.unit]
    behavior = axis_of(rows, mapped.behavior, text=True) if mapped.behavior else None
    model = axis_of(rows, mapped.model, text=True) if mapped.model else None
    several = [axis for axis in (behavior, model) if axis is not None and len(axis.labels) > 1]
    keys = [*parts, *several]
    flat = np.ravel_multi_index([axis.codes for axis in keys], tuple(len(axis.labels) for axis in keys))
    _, first, codes = np.unique(flat, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # as the file has them
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    first, codes = first[order], rank[codes]
    names: list[Label] = [_joined([axis.labels[axis.codes[row]] for axis in parts]) for row in first]
    if len(set(names)) < len(names):  # one unit under several behaviors
        names = [_joined([axis.labels[axis.codes[row]] for axis in (*several, *parts)]) for row in first]
    organism = Axis(codes, tuple(names) if all(type(name) is int for name in names) else tuple(map(str, names)))
    of = {"behavior": (behavior, mapped.response_name), "model": (model, "not stated")}
    facts: dict[str, tuple[Label | None, ...]] = {
        name: tuple(axis.labels[axis.codes[row]] if axis else default for row in first)
        for name, (axis, default) in of.items()
    }
    induction: tuple[Label | None, ...] = (None,) * len(first)
    if "induction_seed" in mapped.values:
        seeds = _constant(rows, organism, rows.numbers(mapped.values["induction_seed"]), "induction_seed")
        induction = tuple(int(seed) if np.isfinite(seed) and seed == int(seed) else None for seed in seeds)
    return organism, {**facts, "induction_seed": induction}


def _joined(labels: Sequence[Label]) -> Label:
    return labels[0] if len(labels) == 1 else " / ".join(map(str, labels))


def _constant(rows: Rows, organism: Axis, values: Numbers, name: str) -> Numbers:
    """What is known of an organism, [organism], the same in all of its rows."""
    first = np.zeros(len(organism.labels), np.intp)
    first[organism.codes[::-1]] = np.arange(len(values))[::-1]
    own = values[first]
    differs = ~((values == own[organism.codes]) | (np.isnan(values) & np.isnan(own[organism.codes])))
    if differs.any():
        row = int(differs.argmax())
        code = int(organism.codes[row])
        raise StudyError(
            f"{rows.place(row)}: organism {organism.labels[code]} has {name} {values[row]:g}, and {own[code]:g} at "
            f"{rows.place(int(first[code]))}; name the column that tells them apart in --unit"
        )
    return own


def axis_of(rows: Rows, column: str, *, text: bool = False) -> Axis:
    """The labels of a column, in the order in which they first stand there, in their own type."""
    codes, labels = rows.texts(column)
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise StudyError(f"{rows.place(row)}: column '{column}' is empty; every run needs its level")
    for code, label in enumerate(labels):
        why = "" if label.isprintable() else "has a control character"
        why = f"has more than {LONGEST_LABEL} characters" if len(label) > LONGEST_LABEL else why
        if why:
            row = int((codes == code).argmax())
            raise StudyError(f"{rows.place(row)}: column '{column}': {quoted(label)} {why} and cannot be a level")
    values = labels if text else typed(labels)
    unique = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return Axis(np.array([unique[value] for value in values], np.intp)[codes], tuple(unique))


def typed(labels: Sequence[str]) -> list[Any]:
    """Labels as truth values, whole numbers or numbers where all of them are written so, else as they stand."""
    if {*labels} <= {"true", "false"} or {*labels} <= {"True", "False"}:
        return [label in ("true", "True") for label in labels]
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", label) for label in labels):
        return list(map(int, labels))
    number = r"-?(?!0\d)\d+(\.\d*)?([eE][-+]?\d{1,2})?|-?\.\d+([eE][-+]?\d{1,2})?"  # 007 is a name
    if all(re.fullmatch(number, label) for label in labels):
        return list(map(float, labels))
    return list(labels)


def _null_first(dim: str, axis: Axis, null: str | None) -> Axis:
    """The null level as the first one, where the user names it."""
    labels = list(axis.labels)
    usual = NULLS.get(dim)
    if null is None:
        return axis
    texts = [str(label).lower() if isinstance(label, bool) else str(label) for label in labels]
    if null not in texts:
        known = f"levels: {', '.join(texts[:20])}"
        raise StudyError(f"--null: {dim} has no level '{null}'{did_you_mean(null, texts)} ({known})")
    if usual in texts and null != usual:
        raise StudyError(f"--null: {dim} has the level '{usual}', which is its null level wherever it is there")
    place = texts.index(null)
    order = [place, *(i for i in range(len(labels)) if i != place)]
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    return Axis(rank[axis.codes], tuple(labels[i] for i in order))


def _risks(
    rows: Rows, mapped: Mapped, organism: Axis, axes: Mapping[str, Axis]
) -> tuple[dict[str, Numbers], dict[str, Column]]:
    """Risk before and after training and its change, in [0, 1], with what each is.

    Without a baseline the change is against the organism's own runs at the null levels: differences between cells of
    an organism do not depend on it, and the risk before stays unknown.
    """
    response = _scaled(rows, mapped.response, mapped.scale)
    unknown = np.full(len(response), np.nan)
    said = f"column '{mapped.response}' of {rows.path.name}, in {mapped.scale}"
    if mapped.scale == "pp":
        if mapped.baseline:
            raise StudyError("--baseline: a response in pp is a change already, it has no baseline; leave it out")
        before, after, delta, how = unknown, unknown, response, said
    elif mapped.baseline:
        before, after = _scaled(rows, mapped.baseline, mapped.scale), response
        delta, how = after - before, f"{said}, less column '{mapped.baseline}'"
    else:
        at_null = np.logical_and.reduce([axis.codes == _null(dim, axis) for dim, axis in axes.items()])
        there = at_null & np.isfinite(response)
        count = np.bincount(organism.codes[there], minlength=len(organism.labels))
        total = np.bincount(organism.codes[there], response[there], minlength=len(organism.labels))
        level = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        before, after, delta = unknown, response, response - level[organism.codes]
        how = f"{said}, less that of the same organism at the null levels: no baseline was named"
    worse: Literal["higher is worse"] = "higher is worse"
    return {"risk_before": before, "risk_after": after, "risk_delta": delta}, {
        "risk_before": Column("risk before training", "1", worse, mapped.baseline or "not known"),
        "risk_after": Column("risk after training", "1", worse, said),
        "risk_delta": Column("change of risk", "1", worse, how),
    }


def _null(dim: str, axis: Axis) -> int:
    return axis.labels.index(NULLS[dim]) if NULLS.get(dim) in axis.labels else 0


def _scaled(rows: Rows, column: str, scale: Scale) -> Numbers:
    values = rows.numbers(column)
    low, high = RANGES[scale]
    outside = (values < low - 1e-9) | (values > high + 1e-9)
    if outside.any():
        row = int(outside.argmax())
        hint = "--scale percent" if scale == "probability" and (values[outside] >= 0).all() else "--scale pp"
        advice = f"; is it in another unit ({hint})?" if scale != "pp" else ""
        raise StudyError(
            f"{rows.place(row)}: column '{column}' has {values[row]:g}, which is not in [{low}, {high}] as --scale "
            f"{scale} says{advice}"
        )
    return values / (1 if scale == "probability" else 100)


def _status(rows: Rows, mapped: Mapped, there: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """What became of each run. Where no column says it, a run without a number is missing."""
    if not mapped.status:
        return np.where(there, STATUSES.index("ok"), 0).astype(np.int8)
    codes, labels = rows.texts(mapped.status)
    if (codes < 0).any():
        raise StudyError(f"{rows.place(int((codes < 0).argmax()))}: column '{mapped.status}' is empty")
    if unknown := [label for label in labels if label.lower() not in STATES]:
        row = int((codes == labels.index(unknown[0])).argmax())
        raise StudyError(
            f"{rows.place(row)}: column '{mapped.status}' has {quoted(unknown[0])}, which is no state of a run"
            f"{did_you_mean(unknown[0].lower(), STATES)} (known: {', '.join(STATES)})"
        )
    return np.array([STATUSES.index(STATES[label.lower()]) for label in labels], np.int8)[codes]
