"""A study from its file to its folder: plan, run, collect, and what is to be said about it."""

from __future__ import annotations

import gc
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import kinds
from ablate.errors import FatalError, StudyError
from ablate.foresight import Prediction, frozen
from ablate.memory import MemoryStore
from ablate.plan import Plan, compile_study
from ablate.run import Driver, Unwatched, Watch
from ablate.states import State, digest, states
from ablate.store import CorruptArtifactError, Store
from ablate.study import Study
from ablate.version import __version__

if TYPE_CHECKING:
    import xarray as xr

    from ablate.findings import Findings
    from ablate.report import Source

PACKAGES = ("torch", "transformers", "peft", "optuna", "numpy", "scikit-learn", "pingouin", "xarray", "zarr")
REPAIRS = 3
"""How often the study is driven and read again because the cube met a corrupt artifact."""

SEALED = ("cube.zarr", "provenance.json", "summary.txt")
"""What is made of the results in one go, as its tables are; what was damaged or lost is made anew with the others."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a call of :func:`run_study` did."""

    folder: Path
    executed: int
    states: Mapping[str, int]  # runs by status
    errors: tuple[tuple[str, str], ...]  # (run, error)
    unreported: str = ""  # why there is no report
    redesigned: bool = False  # the folder held the results of another design


def limited(study: Study, limit: int | None) -> Study:
    """The study at most so large on every side: other keys, another name, and no verdict."""
    if limit is None:
        return study
    swapped = {axis.path for axis in study.axes} & {"labels.prompts", "evaluate.items", "evaluate.capability"}
    if swapped:
        raise StudyError(
            f"--limit: {', '.join(sorted(swapped))} is swapped in this study, so its size cannot be limited"
        )
    options = study.options
    sizes = {
        "name": f"{study.name}.limit{limit}",
        "labels": options.labels.model_copy(update={"prompts": min(limit, options.labels.prompts)}),
        "evaluate": options.evaluate.model_copy(
            update={"items": min(limit, options.evaluate.items), "capability": min(limit, options.evaluate.capability)}
        ),
    }
    return Study(options.model_copy(update=sizes), study.axes)


def run_study(study: Study, folder: Path, watch: Watch, *, limit: int | None = None) -> Ran:
    """Make what the folder lacks, then its cube. The same call resumes whatever was interrupted.

    Raises:
        StudyError: something only the user can mend; what was made until then is kept.
    """
    plan, store = compile_study(study), Store(folder)
    with store.locked(study.name):
        redesigned = store.claim(study.digest, study.name)
        store.put("study.resolved.yaml", study.dump())
        executed, repaired, source = 0, set[str](), None
        while True:
            try:
                executed += _drive(plan, store, watch)
                found = list(states(plan, store))
                if executed or not current(plan, found, store):
                    source = _write(plan, found, store, limited=limit is not None)
                break
            except CorruptArtifactError as corrupt:
                if corrupt.key in repaired:
                    raise FatalError(f"{corrupt}, twice; check the disk, then run the same command") from None
                repaired |= {corrupt.key, *_set_aside(store)}
        unreported = _report(store, source)
    counts: Counter[str] = Counter(state.status for state in found[: len(plan.cells)])
    failed = [state for state in found if state.status in ("failed", "blocked")]
    errors = tuple((describe(plan, state.cell), state.error) for state in failed)
    return Ran(folder, executed, dict(counts), errors, unreported, redesigned)


def cube_in_memory(study: Study) -> xr.DataTree:
    """The cube that :func:`run_study` writes, from the same stages, driver and collector, without any file.

    For the tabular laboratory, where a run takes a few ms and its files take longer. Nothing can be resumed; what
    failed is in the cube's ``status`` and ``error``.
    """
    from ablate.engines.local import LocalEngine
    from ablate.workplace import Workplace

    with _kept():
        plan, store = compile_study(study), MemoryStore()
        Driver(plan, store, LocalEngine(Workplace(store)), Unwatched()).run()
        provenance = {**provenance_of(study), "models": store.models()}
        return analyzed(plan, list(states(plan, store)), store, provenance, limited=False)[0]


@contextmanager
def _kept() -> Iterator[None]:
    """Without the search for unreachable cycles: all is kept, and it would walk through all again and again."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def label_study(study: Study, folder: Path, watch: Watch) -> Prediction:
    """Make what a study needs up to its labels, train nothing, and freeze what they say.

    Raises:
        StudyError: something only the user can mend, or no labels could be made.
    """
    plan, store = compile_study(study), Store(folder)
    with store.locked(study.name):
        store.claim(study.digest, study.name)
        store.put("study.resolved.yaml", study.dump())
        _drive(plan, store, watch, train=False)
        found = frozen(plan, store, list(states(plan, store)))
    if found is None:
        errors = [entry["error"] for entry in store.entries() if entry.get("status") == "failed"]
        raise StudyError(f"{study.name}: no labels could be made ({errors[-1] if errors else 'see the journal'})")
    return found


def _drive(plan: Plan, store: Store, watch: Watch, *, train: bool = True) -> int:
    from ablate.engines.local import LocalEngine
    from ablate.workplace import Workplace

    def before_training() -> bool:
        if train:
            frozen(plan, store, list(states(plan, store)))
        return train

    driver = Driver(plan, store, LocalEngine(Workplace(store)), watch)
    driver.run(before_training)
    return driver.executed


def _set_aside(store: Store) -> Iterator[str]:
    """Discard every artifact that is not as it was written: where one is damaged, others may be."""
    for key in store.keys():
        try:
            store.verify(key)
        except CorruptArtifactError:
            store.discard(key)
            yield key


def current(plan: Plan, found: list[State], store: Store) -> bool:
    """Whether the cube on disk, and what is said of it beside it, are whole and of just these results."""
    return bool(store.get("cube.json") == _seal(plan, found, store))


def _seal(plan: Plan, found: list[State], store: Store) -> dict[str, str]:
    return {"digest": digest(plan, found), "files": _fingerprint(store.root)}


def _fingerprint(root: Path) -> str:
    """The hash of all files that are sealed, names and contents."""
    total = sha256()
    paths = [*(path for name in SEALED for path in (root / name, *(root / name).rglob("*"))), *kinds.tables_of(root)]
    for file in sorted(path for path in paths if path.is_file()):
        total.update(str(file.relative_to(root)).encode() + sha256(file.read_bytes()).digest())
    return total.hexdigest()


def analyzed(
    plan: Plan, found: list[State], store: Store, provenance: Mapping[str, Any], *, limited: bool
) -> tuple[xr.DataTree, Findings]:
    """The cube with its group ``analysis``, and the same as tables; ``found`` learns which measures raised."""
    from ablate import findings
    from ablate.collect import Collector

    collector = Collector(plan, store, found)
    tree = collector.cube({**provenance, "resolved": plan.study.dump(), "limited": limited})
    found[:] = collector.states
    said = findings.find(tree, plan.study.options.analysis)
    tree["analysis"] = findings.analysis(said)
    return tree, said


def _write(plan: Plan, found: list[State], store: Store, *, limited: bool) -> Source:
    from ablate import cube, summary
    from ablate.report import NAME, Source

    for told in (store.root / NAME, *kinds.tables_of(store.root), *kinds.figures_of(store.root)):
        told.unlink(missing_ok=True)  # it tells of other results

    provenance = {**provenance_of(plan.study), "models": store.models()}
    tree, said = analyzed(plan, found, store, provenance, limited=limited)
    summary.write_tables(tree, said, store)
    store.put("summary.txt", summary.text(said))
    store.put("provenance.json", provenance)
    try:
        cube.write(tree, store.root / "cube.zarr")
    except OSError as error:
        raise FatalError(
            f"{store.root / 'cube.zarr'}: cannot be written ({error.strerror or error}); "
            "make room there or choose another folder, and the same command resumes"
        ) from error
    store.put("cube.json", _seal(plan, found, store))
    return Source(tree, said, plan, store, tuple(found))


def _report(store: Store, source: Source | None) -> str:
    """Write the report of new results, or one that is not there, and say why that could not be done: it costs none.

    A report that is there beside new results is that of a reader who began before them.
    """
    from ablate import report

    if source is None and (store.root / report.NAME).is_file():
        return ""
    try:
        report.write(source or report.opened(store.root))
    except Exception as error:  # whatever a page of any study makes a renderer raise
        return f"{type(error).__name__}: {error}"
    return ""


def provenance_of(study: Study) -> dict[str, Any]:
    """Versions, machine and source of what was run; nothing of the environment."""
    return {
        "name": study.name,
        "question": study.question,
        "digest": study.digest[:12],
        "evaluation": _evaluation(study),
        "seeds": list(study.options.seeds),
        **software(),
    }


def software() -> dict[str, Any]:
    """What computed something: versions, platform, commit."""
    versions = {"python": platform.python_version(), "ablate": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    sha, dirty = _git()
    return {
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "git_sha": sha,
        "git_dirty": dirty,
    }


def _evaluation(study: Study) -> str:
    options = study.options.evaluate
    return "greedy answer" if options.decoding == "greedy" else f"{options.samples} sampled at T = 1"


def _git() -> tuple[str, bool]:
    """Commit of the checkout that this code runs from, and whether it differs from it; empty where it is installed."""
    here = Path(__file__).resolve()

    def said(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not said("ls-files", here.name):  # installed below a repository that is not ours
            return "", False
        return said("rev-parse", "HEAD"), bool(said("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return "", False


def describe(plan: Plan, cell: Any) -> str:
    """A run in words: ``organism 3, cot_view x majority``."""
    point = " x ".join(str(label) for axis, label in zip(plan.axes, cell.point, strict=False) if len(axis.levels) > 1)
    seeds = f", seed {cell.seed}" if len(plan.study.options.seeds) > 1 else ""
    return f"organism {cell.organism}, {point or 'control'}{seeds}"
