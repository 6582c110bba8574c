"""The report of a study's folder: gathers what its cube, its findings and its artifacts say, for one page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import cube
from ablate.effects import caption
from ablate.effects.words import count
from ablate.errors import StudyError
from ablate.findings import KINDS, OF_METHODS, Findings, find
from ablate.options import Analysis
from ablate.plan import Plan, compile_study
from ablate.proof import proof
from ablate.records import METHOD_NAME
from ablate.reports.html import Page, Progress, Table, render_page
from ablate.samples import samples
from ablate.states import State, digest, states
from ablate.store import Store
from ablate.study import load

if TYPE_CHECKING:
    import xarray as xr

Draw = Callable[["xr.DataTree"], Mapping[str, bytes | str]]
"""Draws the figures of a cube that can be drawn: SVG by kind, or what went wrong with it in words."""

NAME = "report.html"
UNCAPTIONED = {"organisms", "controls"}
"""Tables that are there before there is any run to make a caption of."""


def drawn(tree: xr.DataTree) -> dict[str, bytes | str]:
    """Every figure that the cube allows; `ablate figure` says why there is none of a kind."""
    from ablate.reports import figures  # takes a while to import

    made: dict[str, bytes | str] = {}
    for kind in figures.KINDS:
        try:
            made[kind] = figures.save(figures.draw(tree, kind), "svg")
        except StudyError:
            continue
        except Exception as error:  # one broken figure costs no report, and the report says so
            made[kind] = f"{type(error).__name__}: {error}"
    return made


@dataclass(frozen=True, slots=True)
class Source:
    """A study as far as it got: its cube and what was found in it; of an imported cube there is no ``plan``."""

    tree: xr.DataTree
    found: Findings
    plan: Plan | None
    store: Store
    states: tuple[State, ...]


def opened(folder: Path) -> Source:
    """What a folder holds: the cube on disk if it is of the results that are there, else one made from them.

    Raises:
        StudyError: neither a study nor a cube, or an artifact that is not as it was written.
    """
    store, resolved = Store(folder), folder / "study.resolved.yaml"
    if not resolved.is_file():
        tree = cube.loaded(folder)
        return Source(tree, find(tree, Analysis()), None, store, ())
    study = load(resolved)
    plan = compile_study(study)
    found = list(states(plan, store))
    seal = store.get("cube.json")
    if isinstance(seal, dict) and seal.get("digest") == digest(plan, found):
        tree = cube.loaded(folder)  # every table reads the same arrays
        return Source(tree, find(tree, study.options.analysis), plan, store, tuple(found))
    from ablate.workflow import analyzed, provenance_of

    provenance = {**provenance_of(study), "models": store.models()}
    limited = re.search(r"\.limit\d+\Z", study.name) is not None
    with store.intact():
        tree, said = analyzed(plan, found, store, provenance, limited=limited)
    return Source(tree, said, plan, store, tuple(found))


def write(source: Source, draw: Draw = drawn) -> Path:
    """Write ``report.html`` into the folder, whole or not at all."""
    source.store.put(NAME, page(source, draw))
    return source.store.root / NAME


def page(source: Source, draw: Draw = drawn, *, version: str = "") -> str:
    """The report as HTML; see `ablate.reports.html.render_page`.

    Raises:
        StudyError: an artifact whose samples cannot be shown because it is not as it was written.
    """
    if (plan := source.plan) is None:
        return render_page(_page(source, draw), None, version=version)
    read = partial(samples, plan, source.store, source.states)
    with source.store.intact():
        return render_page(_page(source, draw), read, version=version)


def _page(source: Source, draw: Draw) -> Page:
    tree, found = source.tree, source.found
    attrs = {str(name): value for name, value in tree.attrs.items()}
    figures = draw(tree)
    facts = caption(tree) if found.frames.keys() - UNCAPTIONED else {}
    shown = {kind: Table(kind, frame, None if kind in UNCAPTIONED else facts) for kind, frame in found.frames.items()}
    of_methods = METHOD_NAME in map(str, tree.dims)
    main = [shown[kind] for kind in (("isolate", "methods") if of_methods else ("fixed",)) if kind in shown]
    rest = [kind for kind in KINDS if kind in shown and kind not in ("organisms", *(own.kind for own in main))]
    return Page(
        name=str(attrs.get("name", source.store.root.name)),
        question=str(attrs.get("question") or "What changed the behavior?"),
        subject=_subject(tree),
        limited=bool(attrs.get("limited")),
        progress=_progress(source),
        verdicts=found.verdicts,
        refused={kind: why for kind, why in found.refused.items() if of_methods or kind not in OF_METHODS},
        main=main,
        controls=shown.get("controls"),
        organisms=shown.get("organisms"),
        tables=[shown[kind] for kind in rest],
        figures={kind: figure for kind, figure in figures.items() if isinstance(figure, bytes)},
        undrawn={kind: fault for kind, fault in figures.items() if isinstance(fault, str)},
        proof=proof(tree),
        provenance=_provenance(attrs),
        resolved=str(attrs.get("resolved", "")),
    )


def _subject(tree: xr.DataTree) -> str:
    data = tree.to_dataset()
    models = dict.fromkeys(map(str, data["model"].values.tolist()))
    behaviors = dict.fromkeys(str(name).replace("_", " ") for name in data["behavior"].values.tolist())
    parts = [", ".join(models), ", ".join(behaviors), count(data.sizes["organism"], "organism")]
    return " · ".join([*parts, count(int(data["status"].size), "run"), count(data.sizes["seed"], "training seed")])


def _progress(source: Source) -> Progress:
    from ablate.forecast import stages_of
    from ablate.workflow import describe

    statuses = Counter(cube.read(source.tree.to_dataset(), "status").ravel().tolist())
    counts = {str(status): number for status, number in statuses.items()}
    if source.plan is None:
        return Progress(counts, [])
    errors = [(describe(source.plan, state.cell), state.error) for state in source.states if state.error]
    return Progress(counts, errors, stages_of(source.plan, source.store) if counts.get("missing") else ())


def _provenance(attrs: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("study", " ".join(str(attrs[name]) for name in ("name", "digest") if name in attrs))]
    for model in attrs.get("models") or ():
        rows.append(
            (f"model {model.get('name', '')}".strip(), ", ".join(f"{k} {v}" for k, v in model.items() if k != "name"))
        )
    if "evaluation" in attrs:
        rows.append(("evaluation", str(attrs["evaluation"])))
    if attrs.get("seeds"):
        rows.append(("training seeds", ", ".join(map(str, attrs["seeds"]))))
    if attrs.get("git_sha"):
        rows.append(("commit", f"{attrs['git_sha']}{' with changes' if attrs.get('git_dirty') else ''}"))
    if versions := attrs.get("versions"):
        rows.append(("packages", ", ".join(f"{name} {version}" for name, version in versions.items())))
    rows.append(("cube schema", str(attrs["schema_version"])))
    return [*rows, ("machine", str(attrs["platform"]))] if attrs.get("platform") else rows
