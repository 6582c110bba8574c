"""A store that lives in memory: the same stages, driver and collector, with no folder, no disk and no bytes.

For studies of the tabular laboratory, where writing a result takes longer than making it. Nothing outlives the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate.store import Artifact, CorruptArtifactError, Draft, Store

NOWHERE = Path("memory")


@dataclass(frozen=True, slots=True)
class Page(Draft):
    """A `Draft` that keeps values as they are; what is a file in a folder is a name here."""

    contents: dict[str, Any] = field(default_factory=dict)

    def raw(self, name: str, data: bytes) -> None:
        """See `Draft`."""
        self.contents[name] = data

    def text(self, name: str, text: str) -> None:
        """See `Draft`."""
        self.contents[name] = text

    def json(self, name: str, value: Any) -> None:
        """See `Draft`."""
        self.contents[name] = value

    def lines(self, name: str, values: Iterable[Any]) -> None:
        """See `Draft`."""
        self.contents[name] = list(values)

    def arrays(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep copies that nobody can write into."""
        copies = {label: np.array(array, order="C") for label, array in arrays.items()}  # as they would be read
        for copy in copies.values():
            copy.flags.writeable = False
        self.contents[name] = copies


@dataclass(frozen=True, slots=True)
class Kept(Artifact):
    """An `Artifact` whose files are the values that were written."""

    def raw(self, name: str) -> Any:
        """The value of a name."""
        return self.files[name]

    def json(self, name: str) -> Any:
        """See `Artifact`."""
        return self.files[name]

    def text(self, name: str) -> Any:
        """See `Artifact`."""
        return self.files[name]

    def lines(self, name: str) -> list[Any]:
        """See `Artifact`; mappings are copies, as those that are read from a file."""
        return [dict(value) if isinstance(value, dict) else value for value in self.files[name]]

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """See `Artifact`; read-only."""
        return dict(self.files[name])


class MemoryStore(Store):
    """See `Store`: artifacts, journal and small files, until the process ends."""

    def __init__(self) -> None:
        super().__init__(NOWHERE)
        self._artifacts: dict[str, Kept] = {}
        self._entries: list[dict[str, Any]] = []
        self._small: dict[str, Any] = {}

    @contextmanager
    def write(self, key: str, kind: str) -> Iterator[Draft]:
        """See `Store`."""
        page = Page(NOWHERE)
        yield page
        self._artifacts.setdefault(key, Kept(key, kind, NOWHERE, page.contents, page.notes))

    def read(self, key: str) -> Artifact:
        """See `Store`."""
        if key not in self._artifacts:
            raise CorruptArtifactError(key, "artifact", "is missing")
        return self._artifacts[key]

    def has(self, key: str) -> bool:
        """See `Store`."""
        return key in self._artifacts

    def keys(self) -> list[str]:
        """See `Store`."""
        return sorted(self._artifacts)

    @contextmanager
    def trials(self, key: str) -> Iterator[None]:
        """See `Store`: a search that is stopped starts anew, as everything does here."""
        yield None

    def log(self, **entry: Any) -> None:
        """See `Store`; without the time."""
        self._entries.append(entry)

    def entries(self) -> Iterator[dict[str, Any]]:
        """See `Store`."""
        yield from self._entries

    def get(self, name: str) -> Any:
        """See `Store`."""
        return self._small.get(name)

    def put(self, name: str, value: Any) -> None:
        """See `Store`."""
        self._small[name] = value

    def models(self) -> list[Any]:
        """See `Store`."""
        return [self._small[name] for name in sorted(self._small) if name.startswith("model-")]
