"""Where a ready stage executes. The driver owns the graph; an engine takes stages and says how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ablate.plan import Stage


@dataclass(frozen=True, slots=True)
class Done:
    """How a stage ended: well, with an error of its own, or on a corrupt artifact that has to be made again."""

    stage: Stage
    wall_s: float
    error: str = ""
    corrupt: str = ""  # key


class Engine(Protocol):
    """Executes stages whose inputs are all there."""

    slots: int  # how many stages it takes at once

    def submit(self, stage: Stage) -> None:
        """Take a stage."""
        ...

    def wait(self) -> Done:
        """Block until one of the stages taken has ended.

        Raises:
            FatalError: something that only the user can mend (no such model, no room on the disk).
        """
        ...
