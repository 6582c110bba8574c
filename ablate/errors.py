"""What a user did wrong, said once, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class StudyError(Exception):
    """A mistake of the user: the command prints the message and exits 2."""


class FatalError(StudyError):
    """Nothing more can be done until the user mends it: no room on the disk, no such model."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One fault in a study file; ``line`` and ``col`` count from 1, 0 where there is no file position."""

    source: str
    line: int
    col: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.col}" if self.line else self.source
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class StudyMistakes(StudyError):
    """Every mistake of one study, in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        noun = "mistake" if count == 1 else "mistakes"
        lines = [str(mistake) for mistake in self.mistakes]
        super().__init__("\n".join([*lines, f"{count} {noun}, nothing was run or written."]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'greedy'?"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def printable(text: str, keep: str = "") -> str:
    """Control characters and half surrogate pairs escaped, but for those of ``keep``: what a model or a file says must
    not steer a terminal, and can be encoded.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
