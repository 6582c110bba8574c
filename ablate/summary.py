"""What a study found, as it is said at its end and written into its folder: controls, effects, verdict, tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ablate import cube
from ablate.effects import caption, words
from ablate.effects.intervals import Interval
from ablate.errors import StudyError
from ablate.findings import KINDS, Findings, frame_of
from ablate.kinds import SUFFIXES, Table
from ablate.records import METHOD_NAME
from ablate.reports.table import caption_text, render

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ablate.store import Store

Format = Literal["md", "latex", "html", "csv"]
Row = Mapping[str, Any]
MAIN = ("controls", "fixed", "effects", "shares", "verdict")
"""What the summary misses where it could not be made; the other tables say themselves why they were refused."""
MANY = 12
"""Verdicts that are all told; of more, those that name no cause are counted."""


def table_of(folder: Path, kind: Table, format: Format | Literal["parquet"]) -> str | bytes:
    """A table of a study's folder with its caption, computed from the cube; as parquet the caption is metadata."""
    tree = cube.open_cube(folder)
    frame = frame_of(tree, kind)
    if format != "parquet":
        return rendered(tree, frame, format)
    from ablate.query import parquet  # takes a while to import

    return parquet(frame, caption_text(caption(tree), frame.attrs.get("methods", "")))


def rendered(tree: xr.DataTree, frame: pd.DataFrame, format: Format) -> str:
    """A table with the caption of its cube; what is known of organisms needs none, and may be all there is."""
    return render(frame, None if "organism_risk" in frame else caption(tree), format)


def write_tables(tree: xr.DataTree, found: Findings, store: Store) -> None:
    """Every table that could be made, in every format, under ``tables/``."""
    frames = {kind: found.frames[kind] for kind in KINDS if kind in found.frames}
    needed = any("organism_risk" not in frame for frame in frames.values())
    facts = caption(tree) if needed else {}  # once: a large cube is read for it
    for kind, frame in frames.items():
        for format, suffix in SUFFIXES.items():
            store.put(f"tables/{kind}{suffix}", render(frame, None if "organism_risk" in frame else facts, format))


def write_figures(folder: Path, kind: str | None, out: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Figures of a study's folder, each in every format, into ``out`` (``figures`` in the folder where None).

    ``kind`` is one figure, or None for every one that the cube allows. Returns where each was written, a path without
    suffix, and why the others could not be drawn.

    Raises:
        StudyError: no cube, a ``kind`` that the cube does not allow, no figure at all, or nowhere to write.
    """
    from ablate.reports import figures  # takes a while to import

    tree = cube.loaded(folder)
    home = folder.parent if folder.suffix == ".zarr" else folder
    out = home / "figures" if out is None else out
    written: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for name in figures.KINDS if kind is None else (kind,):
        try:
            figure = figures.draw(tree, name)
        except StudyError as error:
            if kind is not None:
                raise
            refused[name] = str(error)
            continue
        written[name] = out / name
        for format in figures.FORMATS:
            _write(out / f"{name}.{format}", figures.save(figure, format))
    if not written:
        raise StudyError("; ".join(f"no {name}: {reason}" for name, reason in refused.items()))
    return written, refused


def _write(path: Path, content: bytes) -> None:
    """A file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        if scratch.exists():
            scratch.unlink()


def text(found: Findings) -> str:
    """What the study found: numbers, verdicts, and why a table could not be made."""
    out = lines(found)
    told = [verdict for verdict in found.verdicts if len(found.verdicts) <= MANY or verdict.cause != "undetermined"]
    for verdict in told:
        about = f"{verdict.behavior}: " if len(found.verdicts) > 1 else ""
        out += ["", f"VERDICT  {about}{verdict.sentence}"]
    if untold := len(found.verdicts) - len(told):
        out += [
            "",
            f"VERDICT  undetermined: {untold} of {len(found.verdicts)}; the report and analysis/verdict say why each.",
        ]
    main = [name for name in MAIN if name != "shares" or METHOD_NAME not in found.dims]  # a method has its own split
    return "\n".join([*out, *(f"no {name}: {found.refused[name]}" for name in main if name in found.refused)]) + "\n"


def lines(found: Findings) -> list[str]:
    """The main numbers, one a line: organisms, controls, the largest effect of each factor, the interaction; or
    the effect of each method.
    """
    out = [_organisms(found)] if "organisms" in found.frames else []
    for row in _rows(found, "controls"):
        out.append(_line(f"{row['control']} control", _about(row, "control"), _effect(row) + _expected(row)))
    if "methods" in found.frames:
        return out + (_isolated(found) if "isolate" in found.frames else _whole(found))
    largest: dict[tuple[str, str], Row] = {}
    for row in _rows(found, "effects"):
        key = (row["behavior"], row["factor"])
        if row["kind"] == "main" and abs(row["effect_pp"]) > abs(largest.get(key, {}).get("effect_pp", 0.0)):
            largest[key] = row
    several = len({behavior for behavior, _ in largest}) > 1
    for (behavior, factor), row in largest.items():
        about = f" ({behavior})" if several else ""
        p = (
            ""
            if row["p_adjusted"] != row["p_adjusted"]
            else f"   {words.p_equals(row['p_adjusted'])} ({row['adjusted_by']})"
        )
        out.append(_line(factor, f"largest: {row['end']}{about}", _effect(row) + p))
    for row in _rows(found, "shares"):
        if row["source"] == "interaction":
            share = words.share(Interval(row["effect_share"], row["effect_low"], row["effect_high"]))
            share = share if row["identified"] else "not identified"
            out.append(_line("interaction", _about(row, "source"), f"share {share}"))
    return out


def _whole(found: Findings) -> list[str]:
    """The effect of each method, a line each."""
    out = []
    for row in _rows(found, "methods"):
        p = f"   {words.p_equals(row['p_adjusted'])} (max-T)" if row["p_adjusted"] == row["p_adjusted"] else ""
        out.append(_line(row["method"], row["behavior"], _effect(row) + p))
    return out


def _isolated(found: Findings) -> list[str]:
    """The effect of each method, and below it what each of its mechanisms does alone and averaged over orders."""
    out: list[str] = []
    for row in _rows(found, "isolate"):
        if row["kind"] == "total":
            about = f"{row['method']} on {str(row['behavior']).replace('_', ' ')}: {_effect(row)}"
            out += ["", f"{about}   {words.p_equals(row['p'])}; its parts"]
        elif row["kind"] == "mechanism":
            alone = words.effect(Interval(row["added_pp"], row["added_low"], row["added_high"])).replace(" pp", "")
            numbers = f"alone {alone:<22} order-free {_effect(row)}   {words.p_equals(row['p_adjusted'])} (max-T)"
            out.append(f"  {row['part']:<12} {row['level']:<44} {numbers}")
    return out


def _rows(found: Findings, name: str) -> list[Row]:
    return cast("list[Row]", found.frames[name].to_dict("records")) if name in found.frames else []


def _line(name: str, what: str, number: str) -> str:
    return f"{name:<26} {what:<30} {number}"


def _about(row: Row, until: str) -> str:
    """The behavior and the setting: the columns before ``until``, as ``tabular, candidates 3``."""
    names = list(row)
    return ", ".join([row["behavior"], *(f"{name} {row[name]}" for name in names[1 : names.index(until)])])


def _effect(row: Row) -> str:
    return words.effect(Interval(row["effect_pp"], row["low"], row["high"]))


def _expected(row: Row) -> str:
    """The null control is the one whose answer is known to be zero."""
    if row["control"] != "null" or not row["low"] <= row["high"]:
        return ""
    if row["low"] > 0 or row["high"] < 0:
        return "   NOT as expected: 0 is excluded"
    return "   as expected: 0 is not excluded"


def _organisms(found: Findings) -> str:
    rows = _rows(found, "organisms")
    risks = " ".join(words.fraction(row["organism_risk"]) for row in rows)
    invalid = [str(row["organism"]) for row in rows if not row["valid_organism"]]
    missed = [str(row["organism"]) for row in rows if not row.get("calibrated", True)]
    state = f"not valid: {words.count(len(invalid), 'organism')} ({', '.join(invalid)})" if invalid else "all valid"
    state += f"   target risk missed: {', '.join(missed)}" if missed else ""
    unjudged = [row["organism_unparsed"] for row in rows if row["organism_unparsed"] == row["organism_unparsed"]]
    share = f"   unjudged {words.fraction(sum(unjudged) / len(unjudged))}" if unjudged else ""
    return f"{'organisms':<26} risk {risks}   {state}{share}"
