"""A study: one YAML file, read, checked in full and frozen.

`load` is the way in. Whatever a user can get wrong in a study is found here and said at once, with its
place in the file; what comes out needs no further check. Nothing here knows how a study is planned or run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from ablate.errors import StudyError, did_you_mean
from ablate.keys import key_of
from ablate.levels import Level
from ablate.methods import METHOD, OF_METHOD, point
from ablate.options import DEFAULT_LEVELS, Model, Options, label_of
from ablate.reading import read
from ablate.records import METHOD_NAME
from ablate.yamlfile import to_text

MAX_BYTES = 1_000_000
Scalar = str | int | float | bool | None

_TAKEN = frozenset({"items", "rank"})
"""Names that `xarray.Dataset` keeps for itself, so that no dimension may have them."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An option with levels of its own.

    ``path`` is ``label_shift``, ``selector``, ``objective``, or as in the file (``labels.candidates``, ``model``);
    ``labels`` name the levels as coordinates, all of one type; ``dim`` is the name of the cube's dimension.
    """

    path: str
    levels: tuple[Level | Model | Scalar, ...]
    labels: tuple[str | int | float | bool, ...]
    dim: str

    @property
    def organism(self) -> bool:
        """Whether the levels describe different organisms rather than different runs of one."""
        return self.path.split(".")[0] in ("model", "organism")

    @property
    def setting(self) -> bool:
        """Whether the levels are conditions of a run that are no mechanism: ``labels.candidates``, ``train.lr``."""
        return not self.organism and self.path not in (*DEFAULT_LEVELS, METHOD)


@dataclass(frozen=True, eq=False)
class Study:
    """A question with everything that decides its answer. Equal when the content is.

    ``options`` hold the first level of every axis; ``axes`` begin with ``label_shift``, ``selector`` and
    ``objective``, followed by the swapped options in the order of the file.
    """

    options: Options
    axes: tuple[Axis, ...]
    _sections: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """What the folder of results is called."""
        return self.options.name

    @property
    def question(self) -> str:
        """What the study asks, in words."""
        return self.options.question

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Study) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the resolved study, hexadecimal."""
        return key_of(self.resolved())

    @cached_property
    def _slots(self) -> dict[str, tuple[str, str]]:
        """Where the level of each axis goes: section and field, no section for ``model``."""
        slots = {family: ("factors", family) for family in DEFAULT_LEVELS}
        slots["labels.candidates"] = ("labels", "candidates")  # which a method may bring
        for axis in self.axes[len(DEFAULT_LEVELS) :]:
            section, _, key = axis.path.rpartition(".")
            slots[axis.path] = (section, key)
        return slots

    def at(self, place: Mapping[str, Any]) -> Options:
        """The options with the levels of ``place`` (by axis path) put in; an axis not named keeps its first level, and
        mechanisms their null levels where methods are compared.

        Levels are those of ``axes``: they were validated there and are not validated again.

        Raises:
            KeyError: a path that is no axis of the study.
        """
        sections: dict[str, dict[str, Any]] = {}
        for path, level in self._expanded(place).items():
            section, key = self._slots[path]
            sections.setdefault(section, {})[key] = level
        update = sections.pop("", {})
        for section, fields in sections.items():
            known = (section, *fields.items())
            if known not in self._sections:
                self._sections[known] = getattr(self.options, section).model_copy(update=fields)
            update[section] = self._sections[known]
        return self.options.model_copy(update=update)

    def _expanded(self, place: Mapping[str, Any]) -> Mapping[str, Any]:
        """Levels that stand for what the run's method does, as what they are; a method's number of candidates too."""
        if METHOD not in place:
            return place
        own = point(place[METHOD])
        return {**own, **place, **{path: own[path] for path in DEFAULT_LEVELS if place.get(path) == OF_METHOD}}

    def resolved(self) -> dict[str, Any]:
        """Plain data with every option written out: as YAML it loads to an equal study."""
        data: dict[str, Any] = _plain(self.options)
        mechanisms, others = self.axes[: len(DEFAULT_LEVELS)], self.axes[len(DEFAULT_LEVELS) :]
        if others and others[0].path == METHOD:
            levels = _plain(others[0].levels)
            data["factors"] = {"isolate": levels} if len(mechanisms[0].levels) > 1 else {"method": {"swap": levels}}
            mechanisms, others = (), others[1:]
        else:
            data["factors"].pop("method")
        for axis in mechanisms:
            levels = _plain(axis.levels)
            data["factors"][axis.path] = {"swap": levels} if len(levels) > 1 else {"fix": levels[0]}
        for axis in others:
            section, key = self._slots[axis.path]
            # axes come in the order of the file, so a swapped option goes behind those swapped before it
            if section:
                data[section] = data.pop(section)
            parent = data[section] if section else data
            parent.pop(key)
            parent[key] = {"swap": _plain(axis.levels)}
        return data

    def dump(self) -> str:
        """The resolved study as YAML."""
        return to_text(self.resolved())


def load(path: str | PurePath, sets: Sequence[str] = ()) -> Study:
    """Read a study file, or a shipped study by its name; ``sets`` are ``path=value`` with values in YAML.

    Raises:
        StudyError: no such file, or none that can be read.
        StudyMistakes: every mistake that is in it.
    """
    source = str(path).encode("utf-8", "replace").decode()
    return loads(_text(path, source), source=source, sets=sets)


def loads(text: str, *, source: str, sets: Sequence[str] = ()) -> Study:
    """Read a study from text; ``source`` is what mistakes call it, its stem the name of the study.

    Raises:
        StudyMistakes: every mistake that is in it.
    """
    options, levels = read(text, source, _stem(source), sets)
    dims = _dims(levels)
    return Study(options, tuple(Axis(path, tuple(own), _labels(own), dims[path]) for path, own in levels.items()))


def shipped() -> list[str]:
    """The names of the studies that come with the engine, sorted."""
    return sorted(_stem(file.name) for file in files("ablate.studies").iterdir() if file.name.endswith(".yaml"))


def _text(path: str | PurePath, source: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        data = _shipped_bytes(str(path), source)
    except IsADirectoryError:
        raise StudyError(f"{source}: is a folder; name the study file in it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StudyError(f"{source}: cannot be read ({reason}); give the path of a study file") from None
    if len(data) > MAX_BYTES:
        raise StudyError(f"{source}: is larger than 1 MB; a study is a page of YAML, so this is another file")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StudyError(f"{source}: is UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise StudyError(f"{source}: is a binary file; a study is a text file in YAML")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StudyError(
            f"{source}: is not UTF-8 (byte 0x{data[error.start]:02x} on line {line}); save it as UTF-8"
        ) from None


def _shipped_bytes(path: str, source: str) -> bytes:
    names = shipped()
    if _stem(path) in names and path in (_stem(path), f"{_stem(path)}.yaml"):
        return files("ablate.studies").joinpath(f"{_stem(path)}.yaml").read_bytes()
    known = f" (shipped: {', '.join(names)})" if names else ""
    raise StudyError(
        f"{source}: no such file, and no study of that name is shipped{did_you_mean(_stem(path), names)}{known}"
    )


def _stem(path: str) -> str:
    return PurePath(path).name.removesuffix(".yaml").removesuffix(".yml")


def _dims(paths: Iterable[str]) -> dict[str, str]:
    """The last part of each path, or the whole path where that part is taken."""
    last = {path: METHOD_NAME if path == METHOD else path.rsplit(".", 1)[-1] for path in paths}
    counts = Counter(last.values())
    return {path: path.replace(".", "_") if counts[dim] > 1 or dim in _TAKEN else dim for path, dim in last.items()}


def _labels(levels: Sequence[Any]) -> tuple[str | int | float | bool, ...]:
    if all(isinstance(level, bool | int | float) for level in levels):
        return tuple(levels)
    return tuple(label_of(level) for level in levels)


def _plain(value: Any) -> Any:
    if isinstance(value, Level):
        return value.plain
    if isinstance(value, BaseModel):
        return {key: _plain(option) for key, option in value}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
