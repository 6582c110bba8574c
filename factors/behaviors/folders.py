"""Folders of JSON lines that a user brings: read whole, with everything that is wrong with them said at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ablate.errors import StudyError

SHOWN = 40
"""So many faults of a folder are shown, and how many more there are."""

T = TypeVar("T")


class Line(NamedTuple):
    """One object of a file, and where it stands (from 1)."""

    file: str
    number: int
    data: dict[str, Any]


class Folder:
    """The files of one folder as they were read. Faults are collected; :meth:`done` raises them all."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        self._faults: list[str] = []
        self._hash = hashlib.sha256()
        if not self.path.is_dir():
            raise StudyError(f"{path}: no such folder (a behavior's files are looked for from where the command runs)")

    @property
    def content(self) -> str:
        """16 hexadecimal digits of the hash of what was read so far, names and contents."""
        return self._hash.hexdigest()[:16]

    def fault(self, line: Line, message: str) -> None:
        """Note what is wrong with a line."""
        self._note(line.file, line.number, message)

    def _note(self, file: str, number: int, message: str) -> None:
        self._faults.append(f"{self.path / file}:{number}: {message}")

    def text(self, file: str) -> str:
        """A file that is text as a whole, empty where it is missing."""
        try:
            raw = (self.path / file).read_bytes()
        except OSError as error:
            self._note(file, 1, "the file is missing" if isinstance(error, FileNotFoundError) else str(error.strerror))
            return ""
        self._hash.update(f"{file} {len(raw)} ".encode() + raw)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self._note(file, raw[: error.start].count(b"\n") + 1, "is not UTF-8 text")
            return ""
        if not text.strip():
            self._note(file, 1, "the file is empty")
        return text

    def lines(self, file: str) -> list[Line]:
        """The objects of a file, one a line; blank lines are skipped."""
        found: list[Line] = []
        for number, text in enumerate(self.text(file).split("\n"), 1):
            if not text.strip():
                continue
            try:
                data = json.loads(text)
            except (ValueError, RecursionError) as error:
                why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
                self._note(file, number, f"is not JSON ({why})")
                continue
            if isinstance(data, dict):
                found.append(Line(file, number, data))
            else:
                self._note(file, number, "is not an object of JSON")
        return found

    def take(self, line: Line, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key, of that kind; without it ``default``, and where there is none that is a fault."""
        value = line.data.get(key, default)
        if isinstance(value, kind):
            return value
        said = f"'{key}' is missing" if key not in line.data else f"'{key}' is not {_KINDS[kind]}"
        self.fault(line, said)
        return kind()

    def words(self, line: Line, key: str, default: str | None = None) -> str:
        """A text that is not blank."""
        value = self.take(line, key, str, default)
        if key in line.data and isinstance(line.data[key], str) and not value.strip():
            self.fault(line, f"'{key}' is blank")
        return value

    def done(self) -> None:
        """Raise what was found to be wrong.

        Raises:
            StudyError: one line for each fault, ``file:line: message``.
        """
        if self._faults:
            more = [f"... and {len(self._faults) - SHOWN} more"] if len(self._faults) > SHOWN else []
            raise StudyError("\n".join([*self._faults[:SHOWN], *more]))


_KINDS: dict[Any, str] = {
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
}


def pinned(content: str | None, folder: str | None, read: Callable[[str], str]) -> str | None:
    """The hash of a folder's content: the one that is given, else that of the files as they are now."""
    return content if content is not None or folder is None else read(folder)


def unchanged(content: str | None, found: str, folder: str) -> None:
    """Refuse files that are not those that the study was read with.

    Raises:
        StudyError: they changed.
    """
    if content is not None and content != found:
        raise StudyError(
            f"{folder}: the files changed since the study was read (content {content}, now {found}); "
            "run the command again, and what depends on them is made anew"
        )


def texts(values: Sequence[Any]) -> bool:
    """Whether all values are texts."""
    return all(isinstance(value, str) for value in values)
