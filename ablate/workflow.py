"""A study from its file to its folder: plan, run, collect, and what is to be said about it."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.plan import Plan, compile_study
from ablate.run import Driver, Watch
from ablate.store import CorruptArtifactError, Store
from ablate.study import Study
from ablate.version import __version__

if TYPE_CHECKING:
    from ablate.collect import Collector

PACKAGES = ("torch", "transformers", "peft", "optuna", "numpy", "scikit-learn", "pingouin", "xarray", "zarr")
REPAIRS = 3
"""How often corrupt artifacts that only the cube reads are made again."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a call of :func:`run_study` did."""

    folder: Path
    executed: int
    states: Mapping[str, int]  # runs by status
    errors: tuple[tuple[str, str], ...]  # (run, error)


def limited(study: Study, limit: int | None) -> Study:
    """The study at most so large on every side: other keys, another name, and no verdict."""
    if limit is None:
        return study
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
    from ablate.collect import Collector

    plan, store = compile_study(study), Store(folder)
    with store.locked(study.name):
        store.claim(study.digest, study.name)
        executed = 0
        for _ in range(REPAIRS):
            executed += _drive(plan, store, watch)
            collector = Collector(plan, store)
            try:
                if executed or not _current(collector, store):
                    _write(collector, store, limited=limit is not None)
                break
            except CorruptArtifactError as found:
                store.discard(found.key)
        else:
            raise StudyError(
                f"{folder}: artifacts come back corrupt from the disk; check it, then run the same command"
            )
    design = collector.states[: len(plan.cells)]
    counts: Counter[str] = Counter(state.status for state in design)
    failed = [state for state in collector.states if state.status in ("failed", "blocked")]
    return Ran(folder, executed, dict(counts), tuple((describe(plan, state.cell), state.error) for state in failed))


def _drive(plan: Plan, store: Store, watch: Watch) -> int:
    from ablate.engines.local import LocalEngine
    from ablate.stages import Workplace

    driver = Driver(plan, store, LocalEngine(Workplace(store)), watch)
    driver.run()
    return driver.executed


def _current(collector: Collector, store: Store) -> bool:
    """Whether the cube on disk is of just these results."""
    return store.get("cube.json") == {"digest": collector.digest} and (store.root / "cube.zarr").is_dir()


def _write(collector: Collector, store: Store, *, limited: bool) -> None:
    from ablate import cube, findings, summary

    study = collector.plan.study
    provenance = provenance_of(study)
    tree = collector.cube({**provenance, "resolved": study.dump(), "limited": limited})
    store.put("study.resolved.yaml", study.dump())
    store.put("provenance.json", provenance)
    found = findings.find(tree, study.options.analysis)
    summary.write_tables(tree, found, store)
    tree["analysis"] = findings.analysis(found)
    cube.write(tree, store.root / "cube.zarr")
    store.put("cube.json", {"digest": collector.digest})


def provenance_of(study: Study) -> dict[str, Any]:
    """Versions, machine and source of what was run; nothing of the environment."""
    versions = {"python": platform.python_version(), "ablate": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    sha, dirty = _git()
    return {
        "name": study.name,
        "question": study.question,
        "study": study.digest[:12],
        "items": study.options.evaluate.items,
        "evaluation": _evaluation(study),
        "seeds": list(study.options.seeds),
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "git_sha": sha,
        "git_dirty": dirty,
    }


def _evaluation(study: Study) -> str:
    options = study.options.evaluate
    return "greedy answer" if options.decoding == "greedy" else f"{options.samples} sampled at T = 1"


def _git() -> tuple[str, bool]:
    """Commit of the folder the command runs in, and whether files differ from it; empty outside a checkout."""

    def said(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        sha = said("rev-parse", "HEAD")
        return sha, bool(sha and said("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return "", False


def describe(plan: Plan, cell: Any) -> str:
    """A run in words: ``organism 3, cot_view x majority``."""
    point = " x ".join(str(label) for axis, label in zip(plan.axes, cell.point, strict=False) if len(axis.levels) > 1)
    seeds = f", seed {cell.seed}" if len(plan.study.options.seeds) > 1 else ""
    return f"organism {cell.organism}, {point or 'control'}{seeds}"
