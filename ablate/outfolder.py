"""A folder that is written under another name and renamed when it is whole, and that no secret gets into."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from ablate.errors import FatalError, StudyError

MARK = "export.json"
CARDS = ("data/README.md", "model/README.md")
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "APIKEY", "CREDENTIAL")
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON allows in a text, but some readers take for the end of a line, or UTF-8 does not have."""
SECRET_LENGTH = 8
"""Shorter values of such variables occur in texts by chance."""


@contextmanager
def rewritten(out: Path, name: str, size: int) -> Iterator[OutFolder]:
    """The folder ``out`` of the study ``name``, about ``size`` bytes large: it appears when the block ends well.

    Raises:
        StudyError: ``out`` holds something else, or what the disk refused, in words.
    """
    out = out.resolve()  # a link is followed, '.' has a name
    if not out.name:
        raise StudyError(f"{out}: is no folder to export to; choose another one (--out)")
    partial, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
    if not out.exists() and (old / MARK).is_file():
        os.rename(old, out)  # ends the swap that a crash interrupted: it may hold edited cards
    edited = _replaceable(out, name)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in (partial, old):  # of an export that was killed
            shutil.rmtree(left, ignore_errors=True)
        if (free := shutil.disk_usage(out.parent).free) < size:
            raise StudyError(f"{out}: needs about {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free there")
        folder = OutFolder(partial, edited)
        yield folder
        folder.json(MARK, {"export_of": name, "cards": folder.cards})
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(partial, out)
        except OSError:
            if old.exists():
                os.rename(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise FatalError(
            f"{error.filename or out}: {error.strerror or error}; choose another folder (--out)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class OutFolder:
    """Writes files, and nothing that holds a secret of the environment."""

    def __init__(self, path: Path, edited: Mapping[str, str]) -> None:
        self.path, self._edited = path, edited
        self.kept: list[str] = []
        self.cards: dict[str, str] = {}
        words = ((name, value) for name, value in os.environ.items() if any(w in name.upper() for w in SECRET_WORDS))
        self._secrets = {name: _forms(value) for name, value in words if len(value) >= SECRET_LENGTH}

    def check(self, name: str, text: str) -> None:
        """Refuse a text that holds the value of a variable that is called like a secret."""
        for variable, forms in self._secrets.items():
            if any(form in text for form in forms):
                raise StudyError(
                    f"{name} would hold the value of the environment variable {variable}; nothing was exported. "
                    "Take it out of the study and run that anew, or unset the variable if it is no secret"
                )

    def card(self, name: str, text: str) -> None:
        """Write a card, or keep it as a person edited it."""
        self.cards[name] = _digest(text)
        self.kept += [name] if name in self._edited else []
        self.text(name, self._edited.get(name, text))

    def raw(self, name: str, data: bytes) -> None:
        """Write bytes."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def text(self, name: str, text: str) -> None:
        """Write text as UTF-8."""
        self.check(name, text)
        self.raw(name, text.encode())

    def json(self, name: str, value: Any) -> None:
        """Write one JSON value."""
        self.text(name, json.dumps(value, indent=2) + "\n")

    def lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON object a line."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        with open(self.path / name, "w", encoding="utf-8") as file:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False)
                self.check(name, line)
                file.write(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n")


def _replaceable(out: Path, name: str) -> dict[str, str]:
    """The cards that a person edited in the export that lies there, if one does.

    Raises:
        StudyError: something else lies there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    try:
        mark = json.loads((out / MARK).read_text(encoding="utf-8"))
        of, cards = mark["export_of"], mark["cards"]
    except (OSError, ValueError, LookupError, TypeError):
        raise StudyError(f"{out} is there and is no export; choose another folder (--out)") from None
    if of != name:
        raise StudyError(f"{out} holds the export of study '{of}', not '{name}'; choose another folder (--out)")
    there = {card: (out / card).read_text(encoding="utf-8") for card in CARDS if (out / card).is_file()}
    return {card: text for card, text in there.items() if _digest(text) != cards.get(card)}


def _forms(value: str) -> set[str]:
    """A value as it stands, and as JSON and Python escape its quotes and line breaks."""
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
