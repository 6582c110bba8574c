"""Studies of the tabular laboratory that take a second or two, and how tests run, count and compare them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from ablate import registry
from ablate.cube import open_cube
from ablate.engines import Done
from ablate.engines.local import LocalEngine
from ablate.plan import Plan, Stage, compile_study
from ablate.run import Driver
from ablate.store import Store
from ablate.study import Study, loads
from ablate.workflow import Ran, run_study
from ablate.workplace import Workplace

WHOLE = """\
question: does the engine work?
model: tabular
organism: {behavior: tabular, seeds: 6, examples: 32}
factors:
  label_shift: {swap: [none, greedy, clean_view]}
  selector: {swap: [first, majority, {argmax: {scorer: mean_logprob}}]}
labels: {prompts: 12, candidates: 3}
train: {epochs: 2, batch: 4, lr: 0.002}
evaluate: {items: 12, capability: 4}
controls: [null, oracle]
"""
"""Six organisms, so that a verdict is attainable: 54 runs."""

SMALL = """\
question: does the engine work?
model: tabular
organism: {behavior: tabular, seeds: 2, examples: 32}
factors:
  label_shift: {swap: [none, greedy]}
  selector: {swap: [first, {argmax: {scorer: mean_logprob}}]}
labels: {prompts: 12, candidates: 3}
train: {epochs: 2, batch: 4, lr: 0.002}
evaluate: {items: 12, capability: 4}
measures: [risk, capability, price, {embedding_shift: {permutations: 19}}]
"""
"""Two organisms and 8 runs: for faults, which are tried many times. It has every kind of stage."""


def study(*sets: str, text: str = SMALL, name: str = "small") -> Study:
    """The study with some options set as ``--set`` does."""
    return loads(text, source=f"{name}.yaml", sets=sets)


class Quiet:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.waiting: list[Stage] = []
        self.cached = 0
        self.late: list[Stage] = []
        self.done: list[Done] = []

    def begun(self, waiting: Iterable[Stage], cached: int) -> None:
        self.waiting, self.cached = list(waiting), cached

    def added(self, stage: Stage) -> None:
        self.late.append(stage)

    def ended(self, done: Done) -> None:
        self.done.append(done)


class Counting:
    """An engine that remembers what it was given."""

    slots = 1

    def __init__(self, store: Store) -> None:
        self.engine = LocalEngine(Workplace(store))
        self.given: list[Stage] = []

    def submit(self, stage: Stage) -> None:
        self.given.append(stage)
        self.engine.submit(stage)

    def wait(self) -> Done:
        return self.engine.wait()


_SYNC = os.fsync


@contextmanager
def unsynced() -> Iterator[None]:
    """Without waiting for the disk: no test cuts the power, and a killed process loses nothing by it."""
    with pytest.MonkeyPatch.context() as patch:
        if os.fsync is _SYNC:  # a test may have put something of its own in its place
            patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def drive(own: Study, folder: Path) -> tuple[Plan, Counting, Driver]:
    """Run the stages of a study without making its cube."""
    plan, store = compile_study(own), Store(folder)
    engine = Counting(store)
    driver = Driver(plan, store, engine, Quiet())
    with unsynced():
        driver.run()
    return plan, engine, driver


def run(own: Study, folder: Path, **options: Any) -> Ran:
    """Run a study with its cube, quietly."""
    with unsynced():
        return run_study(own, folder, Quiet(), **options)


def cube_of(folder: Path) -> xr.DataTree:
    """The cube of a folder, read into memory."""
    tree = open_cube(folder).load()
    tree.close()
    return tree


def assert_same_cube(one: xr.DataTree, two: xr.DataTree) -> None:
    """Equal groups with equal variables; NaN equals NaN. Root attributes may name another commit."""
    assert sorted(one.groups) == sorted(two.groups)
    for group in one.groups:
        left, right = (tree[group].to_dataset(inherit=False).drop_attrs(deep=False) for tree in (one, two))
        xr.testing.assert_identical(left, right)


@contextmanager
def with_plugins(*functions: Any) -> Iterator[None]:
    """Decorated plug-ins that exist for one test: pass functions that register something."""
    registry.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_plugins", dict(registry._plugins))
        for function in functions:
            function()
        yield
