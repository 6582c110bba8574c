"""A store that lives in memory: the same stages, driver and collector, with no folder and no disk.

For studies of the tabular laboratory, where writing a result takes longer than making it. Nothing outlives the process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy.typing as npt

from ablate.errors import StudyError
from ablate.keys import canonical
from ablate.store import Artifact, CorruptArtifactError, Draft, Store, as_json, checked_name, now, packed, storable

NOWHERE = Path(os.devnull)
"""No folder: below it there is nothing, and nothing can be made."""


@dataclass(frozen=True, slots=True)
class Page(Draft):
    """A `Draft` that keeps bytes and arrays; what is a file in a folder is a name here."""

    contents: dict[str, Any] = field(default_factory=dict)

    def raw(self, name: str, data: bytes) -> None:
        """See `Draft`."""
        self._keep(name, bytes(data), len(data))

    def arrays(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep copies; to pack and unpack them would take longer than many a stage."""
        copies = {label: array.copy() for label, array in storable(name, arrays).items()}
        self._keep(name, copies, sum(copy.nbytes for copy in copies.values()))

    def _keep(self, name: str, content: Any, size: int) -> None:
        if checked_name(name) in self.contents:
            raise StudyError(f"{name}: is there already, and a file of an artifact is written once")
        self.contents[name] = content
        self.stamps[name] = {"bytes": size}


@dataclass(frozen=True, slots=True)
class Kept(Artifact):
    """An `Artifact` without files, so that nothing can damage it: no sha256."""

    contents: Mapping[str, Any]

    def raw(self, name: str) -> bytes:
        """See `Artifact`."""
        self.stamp(name)
        content = self.contents[name]
        return content if isinstance(content, bytes) else packed(content)

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """See `Artifact`."""
        self.stamp(name)
        return {label: array.copy() for label, array in self.contents[name].items()}


class MemoryStore(Store):
    """See `Store`: artifacts, journal and small files, until the process ends."""

    def __init__(self) -> None:
        super().__init__(NOWHERE)
        self._artifacts: dict[str, Kept] = {}
        self._lines: list[str] = []
        self._small: dict[str, bytes] = {}
        self._lock = Lock()

    @contextmanager
    def write(self, key: str, kind: str) -> Iterator[Draft]:
        """See `Store`."""
        page = Page(NOWHERE / checked_name(key))
        yield page
        notes = json.loads(canonical({"notes": page.notes}))["notes"] if page.notes else {}
        self._artifacts.setdefault(key, Kept(key, kind, page.path, page.stamps, notes, page.contents))

    def read(self, key: str) -> Artifact:
        """See `Store`."""
        if not self.has(key):
            raise CorruptArtifactError(key, "artifact", "is missing")
        return self._artifacts[key]

    def has(self, key: str) -> bool:
        """See `Store`."""
        return checked_name(key) in self._artifacts

    def discard(self, key: str) -> bool:
        """Forget an artifact, if there is one."""
        return self._artifacts.pop(checked_name(key), None) is not None

    def keys(self) -> list[str]:
        """See `Store`."""
        return sorted(self._artifacts)

    @contextmanager
    def trials(self, key: str) -> Iterator[None]:
        """See `Store`: a search that is stopped starts anew, as everything does here."""
        yield None

    def log(self, **entry: Any) -> None:
        """See `Store`."""
        self._lines.append(as_json(dict(at=now(), **entry)))

    def entries(self) -> Iterator[dict[str, Any]]:
        """See `Store`."""
        yield from map(json.loads, self._lines)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise StudyError(self._in_use())
        try:
            yield
        finally:
            self._lock.release()

    def get(self, name: str, default: Any = None) -> Any:
        """See `Store`."""
        try:
            return json.loads(self._small[name]) if name in self._small else default
        except ValueError:
            return None

    def put(self, name: str, value: Any) -> None:
        """See `Store`."""
        self._small[name] = (value if isinstance(value, str) else as_json(value)).encode()

    def models(self) -> list[Any]:
        """See `Store`."""
        return [self.get(name) for name in sorted(self._small) if name.startswith("model-")]
