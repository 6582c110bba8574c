"""The engine of one machine: stages run in this process, one after the other, and the model stays warm."""

from __future__ import annotations

import time
from collections import deque

from ablate.engines import Done
from ablate.errors import FatalError, StudyError, printable
from ablate.plan import Stage
from ablate.stages import perform
from ablate.store import CorruptArtifactError
from ablate.workplace import Workplace


class LocalEngine:
    """See :class:`ablate.engines.Engine`."""

    slots = 1

    def __init__(self, place: Workplace) -> None:
        self.place = place
        self._taken: deque[Stage] = deque()

    def submit(self, stage: Stage) -> None:
        """Take a stage; it runs when the driver waits."""
        self._taken.append(stage)

    def wait(self) -> Done:
        """Run the stage taken first."""
        stage, began = self._taken.popleft(), time.perf_counter()
        error, corrupt = "", ""
        try:
            perform(stage, self.place)
        except FatalError:
            raise
        except StudyError as refused:
            error = printable(str(refused), keep="\n")
        except CorruptArtifactError as found:
            error, corrupt = str(found), found.key
        except Exception as failed:  # whatever a plug-in or a model raises is this stage's failure, not the study's
            error = _said(failed)
        return Done(stage, time.perf_counter() - began, error, corrupt)


def _said(error: Exception) -> str:
    text = printable(" ".join(str(error).split())[:500])
    expected = type(error).__name__ in ("LossIsNotFiniteError",)
    return text if expected and text else f"{type(error).__name__}: {text}" if text else type(error).__name__
