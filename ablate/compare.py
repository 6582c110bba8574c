"""What changed from one folder to another: design, artifacts, effects and verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import xarray as xr

from ablate.cube import open_cube, refuse_damage
from ablate.effects.comparison import compared, require_common, shared_keys
from ablate.errors import StudyError
from ablate.reports.comparison import markdown
from ablate.yamlfile import Faults, Node, parse

Format = Literal["md", "csv", "json"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Four tables, and what limits their comparison, in sentences."""

    design: pd.DataFrame
    keys: pd.DataFrame
    effects: pd.DataFrame
    verdicts: pd.DataFrame
    notes: tuple[str, ...]


def compare(one: Path, other: Path, format: Format = "md") -> str:
    """What changed from the cube of folder A to that of folder B, as text that ends in a newline.

    Raises:
        StudyError: a folder without a cube that can be read.
    """
    trees = open_cube(one), open_cube(other)
    try:
        found = comparison(*trees)
    except StudyError:
        raise
    except Exception:
        for tree in trees:
            refuse_damage(tree)
        raise
    if format == "md":
        return markdown(str(one), str(other), found.design, found.keys, found.effects, found.verdicts, found.notes)
    from ablate.query import render  # takes a while to import

    parts = {"design": found.design, "keys": found.keys, "effects": found.effects, "verdicts": found.verdicts}
    if format == "csv":
        joined = [frame.assign(part=name) for name, frame in parts.items() if len(frame)]
        columns = ["part", *dict.fromkeys(column for frame in joined for column in frame if column != "part")]
        return render(pd.concat([frame.astype(object) for frame in joined], ignore_index=True)[columns], "csv")
    records = {name: json.loads(render(frame, "json")) for name, frame in parts.items()}
    said = {"a": str(one), "b": str(other), "notes": list(found.notes), **records}
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def comparison(one: xr.DataTree, other: xr.DataTree) -> Comparison:
    """The comparison of two cubes; what they have in common may be nothing, and the notes say so."""
    notes = list(_origins(one, other))
    try:
        effects = compared(one, other)
        require_common(effects)
    except StudyError as error:
        notes.append(str(error))
    keys = shared_keys(one, other)
    if len(keys) and not keys["in_both"].any():
        notes.append("no artifact is in both, so nothing proves that anything was the same")
    return Comparison(_design(one, other), keys, effects, _verdicts(one, other), tuple(notes))


def _origins(one: xr.DataTree, other: xr.DataTree) -> Iterator[str]:
    sources = [tree.attrs.get("imported") for tree in (one, other)]
    for name, source in zip("AB", sources, strict=True):
        if source:
            yield f"{name} was imported from {source['file']}, not made here"
    if all(sources) and len({source["sha256"] for source in sources if source}) == 1:
        yield "both were imported from the same file"
    for name, tree in zip("AB", (one, other), strict=True):
        if tree.attrs.get("limited"):
            yield f"{name} is a limited study: not a result"


def _design(one: xr.DataTree, other: xr.DataTree) -> pd.DataFrame:
    """Every axis with its levels, every size and every option that is not the same in both.

    Options are those of the resolved studies; imported runs state none, and then there is one line for all.
    """
    sides = [dict(_facts(tree)) for tree in (one, other)]
    resolved = [tree.attrs.get("resolved") for tree in (one, other)]
    for side, text, both in zip(sides, resolved, reversed(resolved), strict=True):
        if text and both:
            side |= dict(_options(parse(str(text), "study.resolved.yaml", Faults())))
        elif text or both:
            side["options"] = "those of its study" if text else "not stated"
    rows = [
        {"changed": name, "a": sides[0].get(name, "-"), "b": sides[1].get(name, "-")}
        for name in dict.fromkeys([*sides[0], *sides[1]])
        if sides[0].get(name) != sides[1].get(name)
    ]
    return pd.DataFrame(rows, columns=["changed", "a", "b"])


def _facts(tree: xr.DataTree) -> Iterator[tuple[str, str]]:
    data = tree.to_dataset(inherit=False)
    for dim in map(str, data["status"].dims):
        levels = [str(level) for level in data[dim].values]
        yield f"{dim}: levels", ", ".join(levels) if dim != "organism" else f"{len(levels)}"
    yield "behaviors", ", ".join(dict.fromkeys(map(str, data["behavior"].values)))
    yield "models", ", ".join(dict.fromkeys(map(str, data["model"].values)))
    yield "runs", str(int((data["status"].values > 0).sum()))
    yield "evaluation", str(tree.attrs.get("evaluation", "not stated"))
    yield "version of ablate", str(tree.attrs.get("versions", {}).get("ablate", "not stated"))


def _options(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """Every option of a resolved study by its path; lists as they read."""
    value: Any = node.value
    if isinstance(value, dict) and value and path.count(".") < 2:
        for name, inner in value.items():
            if path or name != "name":
                yield from _options(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, _plain(node)


def _plain(node: Node) -> str:
    value: Any = node.value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_plain(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _verdicts(one: xr.DataTree, other: xr.DataTree) -> pd.DataFrame:
    sides = [_said(tree) for tree in (one, other)]
    rows = [
        {
            "behavior": name,
            "cause_a": a[0],
            "cause_b": b[0],
            "same": a[0] == b[0],
            "sentence_a": a[1],
            "sentence_b": b[1],
        }
        for name in dict.fromkeys([*sides[0], *sides[1]])
        for a, b in [tuple(side.get(name, ("-", "no verdict")) for side in sides)]
    ]
    return pd.DataFrame(rows, columns=["behavior", "cause_a", "cause_b", "same", "sentence_a", "sentence_b"])


def _said(tree: xr.DataTree) -> dict[str, tuple[str, str]]:
    """Cause and sentence of every verdict by what it is about."""
    found = tree.children.get("analysis")
    verdict = found.children.get("verdict") if found is not None else None
    if verdict is None or "cause" not in verdict:
        return {}
    data = verdict.to_dataset()
    names, causes, sentences = (map(str, data[name].values) for name in ("behavior", "cause", "sentence"))
    return {name: (cause, sentence) for name, cause, sentence in zip(names, causes, sentences, strict=True)}
