"""What a study would run and how far one got, in words and as data. Needs no model."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablate import registry
from ablate.errors import StudyError, did_you_mean
from ablate.methods import table
from ablate.plan import KINDS, Plan, compile_study
from ablate.store import Store
from ablate.study import Axis, Study


def forecast(study: Study, folder: Path) -> dict[str, Any]:
    """The design, its stages by kind (needed, there already, to run), what is held fixed, and the time it takes."""
    plan, store = compile_study(study), Store(folder)
    needed, there = _counts(plan, store)
    uses = _uses(plan)
    timings, timed = _timings(folder, plan)
    to_run = {kind: needed[kind] - there[kind] for kind in KINDS if needed[kind]}
    unknown = [kind for kind, count in to_run.items() if count and kind not in timings]
    organisms = len(plan.organisms)
    return {
        "name": study.name,
        "question": study.question,
        "design": [_axis(axis) for axis in study.axes],
        "model": sorted({organism.model for organism in plan.organisms}),
        "behavior": sorted({organism.behavior for organism in plan.organisms}),
        "organisms": organisms,
        "seeds": list(study.options.seeds),
        "runs": len(plan.cells),
        "controls": dict(Counter(control.name for control in plan.controls)),
        "stages": {
            kind: {
                "needed": needed[kind],
                "cached": there[kind],
                "to_run": to_run[kind],
                "shared": uses[kind] - needed[kind],
            }
            for kind in to_run
        },
        "held_fixed": _held_fixed(plan),
        "wall_s": None if unknown else round(sum(timings[kind] * count for kind, count in to_run.items() if count), 1),
        "timings": timed,
        "smallest_p": 2.0 / 2 ** min(organisms_per_verdict(plan).values()),
        "alpha": study.options.analysis.alpha,
    }


def organisms_per_verdict(plan: Plan) -> Counter[str]:
    """Organisms that a verdict can count on: those of one behavior, model and options."""
    return Counter(str((own.behavior, own.model, dict(own.options))) for own in plan.organisms)


def _axis(axis: Axis) -> dict[str, Any]:
    return {"path": axis.path, "levels": list(axis.labels), "role": "swapped" if len(axis.levels) > 1 else "fixed"}


def _held_fixed(plan: Plan) -> list[str]:
    """Which artifact each swap shares, as the keys have it."""
    swapped = {axis.path for axis in plan.axes if len(axis.levels) > 1}
    pools = len({cell.pool for cell in plan.cells})
    lines = []
    if "selector" in swapped:
        lines.append(f"every selector reads the same pool ({pools} pools, not {len(plan.cells)})")
    if "label_shift" in swapped:
        count = len(plan.organisms)
        lines.append(f"every label shift starts from the same organism ({count} organisms, not {len(plan.cells)})")
    if "objective" in swapped:
        lines.append(f"every objective is given the same labels ({len({c.labels for c in plan.cells})} label sets)")
    return lines


def _counts(plan: Plan, store: Store) -> tuple[Counter[str], Counter[str]]:
    """Stages of each kind that a study needs, and those that need not run.

    Trainings and evaluations are exact where the content of the labels is known, and otherwise at most so many.
    """
    keys = set(store.keys())
    keys -= {key for key in {cell.labels for cell in plan.runs()} & keys if not store.has(key)}  # damaged: made anew
    labels = {cell.labels for cell in plan.runs()} & keys
    known, more = plan.needed({key: store.read(key).notes for key in labels})
    return Counter(known.values()) + more, Counter(kind for key, kind in known.items() if key in keys)


def stages_of(plan: Plan, store: Store) -> list[tuple[str, int, int]]:
    """For each kind of stage that a study needs: its name, how many are there, how many it needs."""
    needed, there = _counts(plan, store)
    return [(kind, there[kind], needed[kind]) for kind in KINDS if needed[kind]]


def _uses(plan: Plan) -> Counter[str]:
    """How many runs read the stages of each kind; less the stages that are needed, that is what sharing saves."""
    uses: Counter[str] = Counter()
    for cell in plan.runs():
        measured = plan.stages[cell.measure].inputs
        uses.update(dict.fromkeys(("screen", "organism", "pool", "labels", "measure", "train"), 1))
        uses.update({"scores": cell.scores is not None, "embed": "embedding" in measured, "evaluate": 2})
    return uses


def _timings(folder: Path, plan: Plan) -> tuple[dict[str, float], int]:
    """Mean seconds of each kind of stage, from this folder's journal, else from its neighbors'."""
    models = sorted({organism.model for organism in plan.organisms})
    own = _walls([folder])
    if own:
        return _means(own)
    beside = sorted(path.parent for path in folder.parent.glob("*/journal.jsonl")) if folder.parent.is_dir() else []
    return _means(_walls(path for path in beside if _models(path) == models))


def _walls(folders: Iterable[Path]) -> dict[str, list[float]]:
    walls: dict[str, list[float]] = defaultdict(list)
    for folder in folders:
        for entry in Store(folder).entries():
            if entry.get("status") == "ok" and isinstance(entry.get("wall_s"), int | float) and "kind" in entry:
                walls[str(entry["kind"])].append(float(entry["wall_s"]))
    return walls


def _means(walls: Mapping[str, list[float]]) -> tuple[dict[str, float], int]:
    return {kind: sum(all_s) / len(all_s) for kind, all_s in walls.items()}, sum(map(len, walls.values()))


def _models(folder: Path) -> list[str]:
    return sorted({entry["name"] for entry in Store(folder).models() if isinstance(entry, dict) and "name" in entry})


def in_words(found: Mapping[str, Any]) -> str:
    """A forecast as :command:`ablate plan` prints it."""
    rows = [("model", " | ".join(found["model"]), _role(found["model"]))]
    rows.append(("organism", f"{', '.join(found['behavior'])}, {found['organisms']} organisms", "(random unit)"))
    for axis in found["design"]:
        if not axis["path"].startswith(("model", "organism")):
            rows.append(
                (axis["path"].removeprefix("factors."), " | ".join(map(str, axis["levels"])), f"({axis['role']})")
            )
    if len(found["seeds"]) > 1:
        rows.append(("seed", " | ".join(map(str, found["seeds"])), "(repeated)"))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{found['name']}: {found['question']}"]
    lines += [f"  {name:<{width}}  {text:<50} {role}".rstrip() for name, text, role in rows]
    stages = found["stages"]
    words = {"pool": "pools", "scores": "score sets", "labels": "label sets"}
    sizes = [f"{found['runs']} runs from {found['organisms']} organisms"]
    sizes += [f"{stages[kind]['needed']} {word}" for kind, word in words.items() if kind in stages]
    lines.append(f"{', '.join(sizes)}, at most {stages['train']['needed']} trainings")
    lines.append(f"  controls: {', '.join(f'{name} ({count})' for name, count in found['controls'].items())}")
    lines += [f"  held fixed by sharing: {line}" for line in found["held_fixed"]]
    lines.append(f"  {'stages':<10} {'to run':>7} {'cached':>7} {'shared':>7}")
    lines += [
        f"  {kind:<10} {stage['to_run']:>7} {stage['cached']:>7} {stage['shared']:>7}" for kind, stage in stages.items()
    ]
    cached = sum(stage["cached"] for stage in stages.values())
    to_run = sum(stage["to_run"] for stage in stages.values())
    lines.append(f"  cached {cached}, to run {to_run} stages, {_duration(found)}")
    attainable = found["smallest_p"] < found["alpha"]
    lines.append(
        f"  {found['alpha']:.0%} verdict attainable: {'yes' if attainable else 'no'} "
        f"(with so many organisms the smallest p of a sign-flip test is {found['smallest_p']:.3f})"
    )
    return "\n".join(lines)


def _role(levels: list[str]) -> str:
    return "(fixed)" if len(levels) == 1 else "(swapped)"


def _duration(found: Mapping[str, Any]) -> str:
    if found["wall_s"] is None:
        return "time unknown (no timings yet)"
    minutes = found["wall_s"] / 60
    spent = f"about {minutes:.0f} min" if minutes >= 1.5 else f"about {found['wall_s']:.0f} s"
    return f"{spent} on this machine (from {found['timings']} timings)"


def progress_in_words(folder: Path) -> str:
    """How far the study of a folder got, from its files alone."""
    from ablate.states import states
    from ablate.study import load
    from ablate.workflow import describe

    store = Store(folder)
    if imported := (store.get("provenance.json") or {}).get("imported"):
        runs = ", ".join(f"{count} {status}" for status, count in imported["runs"].items())
        source_of = f"{imported['file']} (sha256 {imported['sha256'][:12]})"
        return f"runs imported from {source_of}, not made here\n  runs  {runs}"
    source = folder / "study.resolved.yaml"
    if not source.is_file():
        raise StudyError(f"{folder}: no study has been run here (there is no study.resolved.yaml)")
    study = load(source)
    plan = compile_study(study)
    found = list(states(plan, store))
    counts = Counter(state.status for state in found[: len(plan.cells)])
    (needed, there), sizes = _counts(plan, store), store.size()
    lines = [f"{study.name}: {study.question}"]
    lines.append(
        "  runs  "
        + ", ".join(
            f"{counts[status]} {status}"
            for status in ("ok", "aliased", "failed", "blocked", "missing")
            if counts[status]
        )
    )
    lines += [
        f"  {kind:<9} {there[kind]:>4} / {needed[kind]:<4} {sizes.get(kind, 0) / 1e6:8.1f} MB"
        for kind in KINDS
        if needed[kind]
    ]
    lines += [f"  {state.status}: {describe(plan, state.cell)}: {state.error}" for state in found if state.error]
    return "\n".join(lines)


def plugins_in_words(family: str) -> str:
    """Every plug-in of a family, or of all, with its options and the first paragraph of its docstring."""
    families = {f"{name}s": name for name in registry.FAMILIES}
    if family and family not in families and family not in families.values():
        raise StudyError(f"no family called '{family}'{did_you_mean(family, families)} (known: {', '.join(families)})")
    lines = []
    for plural, name in families.items():
        if family in ("", plural, name):
            lines.append(plural)
            if name == "method":
                lines += ["", *(f"  {line}" for line in _grid_points()), ""]
            for known in registry.names(name):
                plugin = registry.get(name, known)
                lines.append(f"  {known}{_options(plugin)}")
                lines.append(f"      {plugin.doc}")
    return "\n".join(lines)


def _grid_points() -> list[str]:
    """Every method as the point of the grid that it is, as a table."""
    rows = table()
    cells = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _options(plugin: registry.Plugin) -> str:
    parts = ["scorer"] if plugin.traits.get("scored") else []
    for name, option in plugin.options.model_fields.items():
        parts.append(name if option.is_required() else f"{name}={json.dumps(option.default)}")
    return f"({', '.join(parts)})" if parts else ""
