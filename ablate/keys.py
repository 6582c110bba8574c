"""Canonical JSON, and the keys that are its hashes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablate.errors import StudyError


def canonical(value: Any) -> str:
    """JSON in which equal values, and only they, have equal texts.

    Names are sorted, there are no spaces, floats are written by ``repr`` with -0.0 as 0.0, so that 1, 1.0 and
    true stay apart. Tuples are lists; numpy scalars are the numbers they hold.

    Raises:
        StudyError: NaN or an infinity, a name that is not text, text that is not Unicode (a lone surrogate), any
            other type; with the place where it stands.
    """
    try:
        text = _encode(value)
        text.encode()
    except _RefusedError as refused:
        raise StudyError(str(refused)) from None
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise StudyError(f"{half!r} cannot be part of a key: it is half of a character") from None
    return text


def key_of(payload: Any) -> str:
    """The sha256 of ``canonical(payload)``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()


class _RefusedError(Exception):
    """A value that has no canonical text, and the names and indices that lead to it."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.where = ""

    def __str__(self) -> str:
        return f"{self.where.removeprefix('.')}: {self.why}" if self.where else self.why


_string = json.JSONEncoder(ensure_ascii=False).encode
_CONSTANTS = {None: "null", True: "true", False: "false"}


def _encode(value: Any) -> str:
    kind = type(value)  # exact types first: a plan makes a hundred thousand keys
    if kind is str or isinstance(value, str):
        return _string(value)
    if kind is int:
        return repr(value)
    if kind is dict:
        return _encode_mapping(value)
    if kind is float and math.isfinite(value):
        return repr(value + 0.0)  # -0.0 + 0.0 is 0.0
    if isinstance(value, (list, tuple)):
        return _encode_list(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _RefusedError(f"{float(value)} cannot be part of a key, numbers there are finite")
        return float.__repr__(value + 0.0)
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return _encode(value.item())
    raise _RefusedError(f"{kind.__name__} cannot be part of a key; text, numbers, lists and mappings can")


def _encode_list(values: Sequence[Any]) -> str:
    texts: list[str] = []
    try:
        for value in values:
            texts.append(_encode(value))  # its length is the index of a value that is refused
    except _RefusedError as refused:
        refused.where = f"[{len(texts)}]{refused.where}"
        raise
    return f"[{','.join(texts)}]"


def _encode_mapping(values: Mapping[Any, Any]) -> str:
    for name in values:
        if not isinstance(name, str):
            raise _RefusedError(f"the name {name!r} is not text")
    texts: list[str] = []
    name = ""
    try:
        for name in sorted(values):
            texts.append(f"{_string(name)}:{_encode(values[name])}")
    except _RefusedError as refused:
        refused.where = f".{name}{refused.where}"
        raise
    return f"{{{','.join(texts)}}}"


# Data as JSON: the caller's order, NaN as NaN. Escaped to ASCII, so that any generated text fits on one line.
