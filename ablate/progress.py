"""What a person sees while a study runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ablate.engines import Done
from ablate.plan import Stage

PHASES = {"screen": "organisms", "organism": "organisms", "pool": "pools", "embed": "pools", "scores": "pools"}
"""Which bar a stage counts for; all others are parts of runs."""

EVERY_S = 15.0
"""Seconds between plain lines."""


class Display:
    """A :class:`~ablate.run.Watch` that draws; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.totals: Counter[str] = Counter()
        self.ended_: Counter[str] = Counter()
        self.failed = 0
        self._told: set[str] = set()
        self._bars: dict[str, TaskID] = {}
        self._last = time.monotonic()
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("stages"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begun(self, waiting: Iterable[Stage], cached: int) -> None:
        """See :class:`~ablate.run.Watch`."""
        for stage in waiting:
            self.totals[_phase(stage)] += 1
        if cached:
            self.console.print(f"{cached} stages are there already", highlight=False)
        todo = [(phase, self.totals[phase]) for phase in ("organisms", "pools", "runs") if self.totals[phase]]
        if todo and not self.console.is_terminal:
            stages = ", ".join(f"{phase} {count}" for phase, count in todo)
            self.console.print(f"stages to run: {stages} (an organism takes longest)", highlight=False)
        for phase, count in todo:
            self._bars[phase] = self._progress.add_task(phase, total=count, note="")

    def added(self, stage: Stage) -> None:
        """See :class:`~ablate.run.Watch`."""
        phase = _phase(stage)
        self.totals[phase] += 1
        if phase not in self._bars:
            self._bars[phase] = self._progress.add_task(phase, total=0, note="")
        self._progress.update(self._bars[phase], total=self.totals[phase])

    def ended(self, done: Done) -> None:
        """See :class:`~ablate.run.Watch`."""
        phase = _phase(done.stage)
        self.ended_[phase] += 1
        if done.error:
            self.failed += 1
            self._complain(done)
        note = f"{self.failed} failed" if self.failed else ""
        if phase in self._bars:
            self._progress.update(self._bars[phase], advance=1, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self._last >= EVERY_S or self.ended_[phase] == self.totals[phase]):
            self._last = now
            self.console.print(
                f"{phase} {self.ended_[phase]}/{self.totals[phase]} stages{', ' + note if note else ''}",
                highlight=False,
            )

    def _complain(self, done: Done) -> None:
        """Each error once; the end of the study lists the runs that it cost."""
        if done.error not in self._told:
            self._told.add(done.error)
            text = f"{done.stage.kind} {done.stage.key[:8]} failed: {done.error}"
            self.console.print(text, highlight=False, markup=False)


def _phase(stage: Stage) -> str:
    return PHASES.get(stage.kind, "runs")
