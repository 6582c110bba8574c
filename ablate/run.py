"""The driver: which stage is ready, what follows from one that ended, and what a failure takes with it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

from ablate.engines import Done, Engine
from ablate.plan import KINDS, Cell, Plan, Stage
from ablate.store import Store

REPAIRS = 2
"""How often one stage may find the same input corrupt before that counts as its failure."""

# Phase by phase: organisms, pools, labels; then each training is followed by its evaluation.
RANK = {
    kind: i for i, kind in enumerate((*KINDS[:2], "evaluate", "pool", "embed", "scores", "labels", "measure", "train"))
}


class Watch(Protocol):
    """Told what happens; a progress display."""

    def begun(self, waiting: Iterable[Stage], cached: int) -> None:
        """Stages that are known to be needed, and how many more are there already."""
        ...

    def added(self, stage: Stage) -> None:
        """A stage that became known only now."""
        ...

    def ended(self, done: Done) -> None:
        """A stage that ended, well or not."""
        ...


class Unwatched:
    """A `Watch` that says nothing."""

    def begun(self, waiting: Iterable[Stage], cached: int) -> None:
        """See `Watch`."""

    def added(self, stage: Stage) -> None:
        """See `Watch`."""

    def ended(self, done: Done) -> None:
        """See `Watch`."""


class Driver:
    """Runs what a plan needs and the store does not have yet: first everything up to the labels, then the training."""

    def __init__(self, plan: Plan, store: Store, engine: Engine, watch: Watch) -> None:
        self.plan, self.store, self.engine, self.watch = plan, store, engine, watch
        self.stages: dict[str, Stage] = {}
        self._place: dict[str, int] = {}
        self.errors: dict[str, str] = {}
        self.executed = 0
        self._there: set[str] = set()
        self._missing: dict[str, set[str]] = {}
        self._users: dict[str, list[str]] = defaultdict(list)
        self._ready: list[tuple[int, int, str]] = []
        self._repairs: dict[tuple[str, str], int] = defaultdict(int)
        self._cells: dict[str, list[Cell]] = defaultdict(list)
        self._labeled: list[Stage] = []
        self._trains = False

    def run(self, before_training: Callable[[], bool] = lambda: True) -> None:
        """Until nothing more can be done. What failed is in the journal and in ``errors``.

        ``before_training`` is called once when all labels are there that can be made; where it says no, nothing is
        trained.
        """
        for cell in self.plan.runs():
            self._cells[cell.labels].append(cell)
        for stage in self.plan.stages.values():
            self._add(stage)
        self.watch.begun((self.stages[key] for key in self._missing), len(self._there))
        self._work()
        if before_training():
            self._trains = True
            for stage in self._labeled:
                self._name_trainings(stage)
            self._work()

    def _work(self) -> None:
        running = 0
        while self._ready or running:
            while self._ready and running < self.engine.slots:
                self.engine.submit(self.stages[heapq.heappop(self._ready)[2]])
                running += 1
            self._ended(self.engine.wait())
            running -= 1

    def _add(self, stage: Stage) -> bool:
        """Enter a stage once; returns whether it is still to be made."""
        if stage.key in self.stages:
            return stage.key not in self._there
        self.stages[stage.key] = stage
        self._place[stage.key] = len(self._place)
        if self.store.has(stage.key):
            self._have(stage)
            return False
        self._wait_for(stage)
        return True

    def _wait_for(self, stage: Stage) -> None:
        missing = {key for key in stage.inputs.values() if key not in self._there and not self.store.has(key)}
        self._missing[stage.key] = missing
        for key in missing:
            self._users[key].append(stage.key)
            if key in self.errors:
                self._block(stage.key, key)
        if not missing:
            self._push(stage)

    def _push(self, stage: Stage) -> None:
        """Phase by phase, and within one in the order of the plan: what is read for one stage serves the next."""
        heapq.heappush(self._ready, (RANK[stage.kind], self._place[stage.key], stage.key))

    def _have(self, stage: Stage) -> None:
        """The stage's artifact is there: what waited for it may go on."""
        self._there.add(stage.key)
        if stage.kind == "labels" and self._trains:
            self._name_trainings(stage)
        elif stage.kind == "labels":
            self._labeled.append(stage)
        for user in self._users.pop(stage.key, ()):
            missing = self._missing.get(user)
            if missing is not None and stage.key in missing:
                missing.discard(stage.key)
                if not missing:
                    self._push(self.stages[user])

    def _name_trainings(self, labels: Stage) -> None:
        notes = self.store.read(labels.key).notes
        for cell in self._cells[labels.key]:
            train = self.plan.training(cell, self.plan.content(cell, notes))
            for late in (train, self.plan.evaluation(cell, train.key)):
                if late.key not in self.stages and self._add(late):
                    self.watch.added(late)

    def _ended(self, done: Done) -> None:
        stage = done.stage
        self.executed += 1
        if done.corrupt and self._repairs[stage.key, done.corrupt] < REPAIRS:
            self._repair(stage, done.corrupt)
            return
        status = "failed" if done.error else "ok"
        self.store.log(key=stage.key, kind=stage.kind, status=status, wall_s=round(done.wall_s, 4), error=done.error)
        self._missing.pop(stage.key, None)
        if done.error:
            self.errors[stage.key] = done.error
            for user in self._users.pop(stage.key, ()):
                self._block(user, stage.key)
        else:
            self._have(stage)
        self.watch.ended(done)

    def _repair(self, stage: Stage, corrupt: str) -> None:
        """Set the corrupt artifact aside, make it again, and then the stage that met it."""
        self._repairs[stage.key, corrupt] += 1
        self.store.log(key=corrupt, kind=self.stages[corrupt].kind, status="corrupt", error="")
        self.store.discard(corrupt)
        self._there.discard(corrupt)
        if corrupt not in self._missing:
            self._wait_for(self.stages[corrupt])
            self.watch.added(self.stages[corrupt])
        self._wait_for(stage)

    def _block(self, key: str, cause: str) -> None:
        if key in self.errors:
            return
        self.errors[key] = f"blocked by {self.stages[cause].kind} {cause[:8]}"
        self._missing.pop(key, None)
        for user in self._users.pop(key, ()):
            self._block(user, key)
