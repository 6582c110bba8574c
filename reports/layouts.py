"""Which columns a table of `ablate.effects` is shown in, and how its numbers read there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.effects import words
from ablate.effects.intervals import Interval
from ablate.errors import StudyError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a rendered table: what it is called and how a row reads in it."""

    header: str
    cell: Callable[[Row], str]
    right: bool = False


def layout(frame: pd.DataFrame) -> list[Column]:
    """The columns that a frame of `ablate.effects` is shown in.

    Raises:
        StudyError: a frame with no layout of its own.
    """
    if "adjusted_by" in frame:
        adjusted = set(frame["adjusted_by"]) - {""}
        columns = _effects("max-T" if adjusted <= {"max-T"} else "adjusted")
    elif "effect_share" in frame:
        columns = [*_settings(frame, "source"), *_shares()]
    elif kind := next((name for name in _LAYOUTS if name in frame), None):
        columns = [*(_settings(frame, _FIRST[kind]) if kind in _FIRST else []), *_LAYOUTS[kind]()]
    else:
        raise StudyError(f"no table layout for the columns {', '.join(map(str, frame.columns))}")
    several = "behavior" in frame and frame["behavior"].nunique() > 1
    return [*_text_columns(["behavior"] if several else []), *columns]


def _text_columns(names: list[str]) -> list[Column]:
    return [Column(name, lambda row, name=name: str(row[name])) for name in names]  # type: ignore[misc]


def _settings(frame: pd.DataFrame, first: str) -> list[Column]:
    """The other swapped factors that a table has rows for: the columns between the behavior and the ``first``."""
    return _text_columns(list(frame.columns[1 : list(frame.columns).index(first)]))


def _with_limits(name: str, *, unit: str = "", plain: bool = False) -> Callable[[Row], str]:
    """An estimate with its limits, written as pp, or plainly as a share."""

    def cell(row: Row) -> str:
        interval = Interval(row[f"{name}{unit}"], row[f"{name}_low"], row[f"{name}_high"])
        if pd.isna(interval.estimate):
            return ""
        return words.share(interval) if plain else words.effect(interval).replace(" pp", "")

    return cell


def _effect(name: str) -> Callable[[Row], str]:
    return lambda row: words.effect(Interval(row[name], row["low"], row["high"])).replace(" pp", "")


def _transmission() -> list[Column]:
    return [
        Column("swapped", lambda row: str(row["swapped"])),
        Column("effect, pp", _effect("effect_pp")),
        Column("labels, pp", lambda row: words.signed(row["label_change_pp"]), right=True),
        Column("transmitted, pp", _with_limits("transmitted", unit="_pp")),
        Column("residual, pp", _with_limits("residual", unit="_pp")),
        Column("p of the residual (max-T)", lambda row: words.p_value(row["residual_p_adjusted"]), right=True),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _dose() -> list[Column]:
    return [
        Column("dose", lambda row: str(row["dose"])),
        Column("effect, pp per unit", _effect("slope")),
        Column("p (BH)", lambda row: words.p_value(row["p_adjusted"]), right=True),
        Column("p of curvature (BH)", lambda row: words.p_value(row["curvature_p_adjusted"]), right=True),
        Column("rank correlation", _with_limits("spearman", plain=True)),
        Column("R2 of cells", lambda row: words.fraction(row["r2"]), right=True),
        Column("predicted", lambda row: words.fraction(row["r2_predicted"]), right=True),
        Column("cells", lambda row: str(row["cells"]), right=True),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _prediction() -> list[Column]:
    return [
        Column("left out", lambda row: f"{row['fold']}: {row['level']}"),
        Column("predictor", lambda row: str(row["predictor"])),
        Column("cells", lambda row: str(row["cells"]), right=True),
        Column("predicted", lambda row: str(row["predicted"]), right=True),
        Column("sign right", _with_limits("accuracy", plain=True)),
        Column("error, pp", _with_limits("error", unit="_pp")),
        Column("calibration slope", _with_limits("slope", plain=True)),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _variance() -> list[Column]:
    return [
        Column("source of variance", lambda row: str(row["term"])),
        Column("variance, pp^2", lambda row: _number(row, "variance_pp2", "low", "high")),
        Column("share", _with_limits("share", plain=True)),
        Column("method", lambda row: str(row["method"])),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
        Column("runs", lambda row: str(row["runs"]), right=True),
    ]


def _missing() -> list[Column]:
    return [
        Column("swapped", lambda row: str(row["swapped"])),
        Column("effect, pp", _effect("effect_pp")),
        Column("missing", lambda row: str(row["missing"]), right=True),
        Column("worst to best case, pp", lambda row: _range(row, "bound_low", "bound_high")),
        Column("with t limits", lambda row: _range(row, "outer_low", "outer_high")),
        Column("tipping point, pp", _tipping, right=True),
        Column("p (failing by level)", lambda row: _blank(words.p_value(row["failure_p"])), right=True),
    ]


def _range(row: Row, low: str, high: str) -> str:
    return "" if not row["missing"] else f"{words.signed(row[low])} to {words.signed(row[high])}"


def _tipping(row: Row) -> str:
    if pd.isna(row["tipping_pp"]):
        return ""
    return "none" if math.isinf(row["tipping_pp"]) else words.signed(row["tipping_pp"])


def _price() -> list[Column]:
    terms = {
        "labels' change, pp": "label_change",
        "shift term": "shift_term",
        "selection term": "selection_term",
        "interaction": "interaction",
        "shift, order-free": "shift_shapley",
        "selection, order-free": "selection_shapley",
        "selection, split-half": "split_half",
    }
    return [
        Column("label_shift", lambda row: str(row["label_shift"])),
        Column("selector", lambda row: str(row["selector"])),
        *(Column(header, _with_limits(name, unit="_pp")) for header, name in terms.items()),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
        Column("prompts", _prompts, right=True),
    ]


def _prompts(row: Row) -> str:
    return "-" if pd.isna(row["prompts"]) else f"{row['prompts']:.0f}"


def _stability() -> list[Column]:
    def nats(name: str) -> Callable[[Row], str]:
        return lambda row: words.fraction(row[name], 3)

    return [
        Column("label shifts", lambda row: str(row["pair"])),
        Column("JS between, nats", nats("between_shifts"), right=True),
        Column("within one", nats("same_shift"), right=True),
        Column("difference", _difference),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
        Column("prompts", _prompts, right=True),
    ]


def _difference(row: Row) -> str:
    interval = Interval(row["difference"], row["low"], row["high"])
    return "-" if pd.isna(interval.estimate) else words.share(interval, 3)


def _mediation() -> list[Column]:
    def estimate(row: Row) -> str:
        interval = Interval(row["estimate"], row["low"], row["high"])
        return words.effect(interval) if row["unit"] == "pp" else words.share(interval)

    return [
        Column("swapped", lambda row: str(row["swapped"])),
        Column("dose", lambda row: str(row["dose"])),
        Column("part (model-based)", lambda row: str(row["part"])),
        Column("estimate", estimate),
        Column("indirect vanishes at rho", lambda row: _blank(words.fraction(row["rho"])), right=True),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _compared() -> list[Column]:
    def number(name: str) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            found = Interval(*(row[f"{name}_{part}"] for part in ("pp", "low", "high")))
            return f"{words.signed(found.estimate)} {words.limits(found)}".strip()

        return cell

    return [
        Column("held fixed", lambda row: str(row["held"])),
        Column("swapped", lambda row: str(row["swapped"])),
        Column("A, pp", number("a")),
        Column("B, pp", number("b")),
        Column("B less A, pp", number("difference")),
        Column("difference is", lambda row: str(row["estimand"])),
        Column("organisms A, B, both", lambda row: f"{row['organisms_a']}, {row['organisms_b']}, {row['shared']}"),
    ]


def _shared() -> list[Column]:
    return [
        Column("artifacts", lambda row: str(row["artifact"])),
        *(Column(name.replace("_", " "), _count(name), right=True) for name in ("in_a", "in_b", "in_both")),
        Column("runs at one place with the same", lambda row: f"{row['same_runs']} of {row['runs']}", right=True),
        Column("label shifts that never have the same", lambda row: str(row["differs"])),
    ]


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])


def _organism_rows() -> list[Column]:
    return [
        Column("organism", lambda row: str(row["organism"])),
        Column("model", lambda row: str(row["model"])),
        Column("seed", lambda row: str(row["induction_seed"]), right=True),
        Column("risk", lambda row: words.fraction(row["organism_risk"]), right=True),
        Column("unjudged", lambda row: words.fraction(row["organism_unparsed"]), right=True),
        Column("target risk", lambda row: {True: "reached", False: "missed", None: "-"}[row.get("calibrated")]),
        Column("note", lambda row: "" if row["valid_organism"] else "invalid_organism"),
    ]


def _methods() -> list[Column]:
    return [
        Column("method", lambda row: str(row["method"])),
        Column("effect, pp", _effect("effect_pp")),
        Column("p (max-T)", lambda row: words.p_value(row["p_adjusted"]), right=True),
        Column("capability, pp", _with_limits("capability", unit="_pp")),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _isolate() -> list[Column]:
    return [
        Column("method", lambda row: str(row["method"])),
        Column("part", lambda row: " ".join(filter(None, (str(row["part"]), str(row["level"]))))),
        Column("effect, pp", _effect("effect_pp")),
        Column("p (max-T)", lambda row: words.p_value(row["p_adjusted"]), right=True),
        Column("added to nothing, pp", _with_limits("added", unit="_pp")),
        Column("removed from all, pp", _with_limits("removed", unit="_pp")),
        Column("organisms", _each_count, right=True),
    ]


def _each_count(row: Row) -> str:
    """Organisms of the effect; where another column has others, theirs too."""
    counts = [row["organisms"]]
    if row["kind"] == "mechanism":
        counts += [row["added_organisms"], row["removed_organisms"]]
    return " / ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))


def _controls() -> list[Column]:
    return [
        Column("control", lambda row: str(row["control"]).replace("_", " ")),
        Column("effect, pp", _effect("effect_pp")),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _acceptance() -> list[Column]:
    return [
        Column("world", lambda row: str(row["world"])),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
        Column("quantity", lambda row: str(row["quantity"])),
        Column("found", lambda row: words.share(Interval(row["value"], row["low"], row["high"]), 3)),
        Column("allowed", lambda row: f"{words.fraction(row['allowed_low'])} to {words.fraction(row['allowed_high'])}"),
        Column("", lambda row: "" if row["passed"] else "FAILED"),
    ]


def _effects(adjusted: str) -> list[Column]:
    return [
        Column("held fixed", lambda row: str(row["held"])),
        Column("swapped", lambda row: str(row["swapped"])),
        Column("effect, pp", lambda row: "0" if row["identical"] else words.signed(row["effect_pp"]), right=True),
        Column("95% CI", _interval),
        Column(f"p ({adjusted})", _p, right=True),
        Column("organisms", lambda row: str(row["organisms"]), right=True),
    ]


def _interval(row: Row) -> str:
    limits = words.limits(Interval(row["effect_pp"], row["low"], row["high"]))
    return "; ".join(part for part in (limits, str(row["note"])) if part)


def _p(row: Row) -> str:
    if row["kind"] == "null control" and not pd.isna(row["p"]):
        return f"{words.p_value(row['p'])} (one test)"
    if row["identical"]:
        return ""
    return words.p_value(row["p_adjusted"]) + (" (BH)" if row["adjusted_by"] == "BH" else "")


def _shares() -> list[Column]:
    return [
        Column("source", lambda row: str(row["source"])),
        Column("F (df)", _f, right=True),
        Column("p (GG, BH)", lambda row: _blank(words.p_value(row["p_adjusted"])), right=True),
        Column("variance, pp^2", lambda row: _number(row, "variance_pp2", "variance_low", "variance_high")),
        Column("share of variance", lambda row: _share(row, "share", "share_low", "share_high")),
        Column("share of effects", lambda row: _share(row, "effect_share", "effect_low", "effect_high")),
        Column("order-free", lambda row: _blank(words.fraction(row["shapley"])), right=True),
    ]


_LAYOUTS: Mapping[str, Callable[[], list[Column]]] = {
    "transmitted_pp": _transmission,
    "rho": _mediation,
    "dose": _dose,
    "tipping_pp": _missing,
    "split_half_pp": _price,
    "same_shift": _stability,
    "term": _variance,
    "predictor": _prediction,
    "removed_pp": _isolate,
    "capability_pp": _methods,
    "organism_risk": _organism_rows,
    "allowed_low": _acceptance,
    "difference_pp": _compared,
    "in_both": _shared,
    "changed": lambda: _text_columns(["changed", "a", "b"]),
    "cause_b": lambda: _text_columns(["behavior", "cause_a", "cause_b"]),
    "control": _controls,
}
"""The layout of a frame by the column that only it has."""

_FIRST = {
    "split_half_pp": "label_shift",
    "same_shift": "pair",
    "term": "term",
    "removed_pp": "method",
    "capability_pp": "method",
    "control": "control",
}
"""The first column of a layout's own; those before it are settings of other factors."""


def _f(row: Row) -> str:
    return "" if pd.isna(row["F"]) else f"{row['F']:.2f} ({row['df1']:.0f}, {row['df2']:.0f})"


def _number(row: Row, estimate: str, low: str, high: str) -> str:
    number = words.signed(row[estimate]).removeprefix("+")
    limits: str = (
        "" if pd.isna(row[low]) else f" [{words.signed(row[low])}, {words.signed(row[high])}]".replace("+", "")
    )
    return number + limits


def _share(row: Row, estimate: str, low: str, high: str) -> str:
    if pd.isna(row[estimate]):
        effect = row["source"] in ("label_shift", "selector", "objective", "interaction")
        return "not identified" if effect and not row["identified"] else ""
    return words.share(Interval(row[estimate], row[low], row[high]))


def _blank(text: str) -> str:
    return "" if text == "-" else text
