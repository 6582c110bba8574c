"""YAML 1.2 text to a tree in which every value knows where it was written, and plain data back to text."""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode
from ruamel.yaml.representer import RoundTripRepresenter

from ablate.errors import Mistake, StudyMistakes

MAX_DEPTH = 50
MAX_VALUES = 100_000
"""A tree beyond these is no study but an accident or an attack (aliases can unfold a page into gigabytes)."""

_TAG = "tag:yaml.org,2002:"
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written; ``line`` and ``col`` count from 1, 0 on the command line."""

    source: str
    line: int = 0
    col: int = 0


@dataclass(slots=True)
class Node:
    """A value as it was written: a scalar, ``list[Node]`` or ``dict[str, Node]``, with its path and place.

    ``key`` is the place of the key that it stands under; for an item of a list, its own place.
    """

    value: Any
    path: str
    at: Place
    key: Place

    def child(self, name: str) -> str:
        """The path of a key of this mapping."""
        return f"{self.path}.{name}" if self.path else name


class Faults:
    """Collects the mistakes of one study, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self._found: dict[Mistake, None] = {}
        self._silent: set[str] = set()

    def add(self, node: Node, message: str, *, at_key: bool = False, path: str | None = None) -> None:
        """Record a mistake at the value of a node, or at its key."""
        place = node.key if at_key else node.at
        path = node.path if path is None else path
        self._found[Mistake(place.source, place.line, place.col, path, message)] = None

    def silence(self, path: str) -> None:
        """Nothing more is to be said about a path: what is wrong there was said already."""
        self._silent.add(path)

    def silent(self, path: str) -> bool:
        """Whether a path was silenced."""
        return path in self._silent

    def extend(self, error: StudyMistakes) -> None:
        """Take over what an error says."""
        self._found.update(dict.fromkeys(error.mistakes))

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raise what was found, in the order of the file (``--set`` before it).

        Raises:
            StudyMistakes: anything was found.
        """
        if self._found:
            raise StudyMistakes(sorted(self._found, key=lambda found: (found.line, found.col, found.path)))


def parse(text: str, source: str, faults: Faults, *, path: str = "", places: bool = True) -> Node:
    """Read one YAML document; ``places=False`` gives every node the place ``source`` without a line.

    Raises:
        StudyMistakes: text that is not YAML, or that unfolds without end; smaller faults go to ``faults``.
    """
    reader = _Reader(source, faults, places)
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        before = text[: unprintable.start()]
        line, col = before.count("\n"), len(before) - (before.rfind("\n") + 1)
        raise reader.fatal(line, col, path, f"control character U+{ord(unprintable[0]):04X}; a study is plain text")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML 1.2 lets an anchor be used again
            document = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise reader.malformed(error, path) from None
    except YAMLError as error:
        raise reader.fatal(0, 0, path, f"not valid YAML: {error}") from None
    except RecursionError:
        raise reader.fatal(0, 0, path, "nested too deeply to be a study") from None
    if document is None:
        return Node(None, path, reader.place(0, 0), reader.place(0, 0))
    return reader.node(document, path, document, 0)


class _Reader:
    def __init__(self, source: str, faults: Faults, places: bool) -> None:
        self.source, self.faults, self.places = source, faults, places
        self.count = 0

    def place(self, line: int, col: int) -> Place:
        return Place(self.source, line + 1, col + 1) if self.places else Place(self.source)

    def fatal(self, line: int, col: int, path: str, message: str) -> StudyMistakes:
        place = self.place(line, col)
        return StudyMistakes([Mistake(place.source, place.line, place.col, path, message)])

    def malformed(self, error: MarkedYAMLError, path: str) -> StudyMistakes:
        problem = " ".join(str(error.problem or error.context).split())
        mark = error.problem_mark or error.context_mark
        if "expected a single document" in str(error.context):
            problem = "a second document begins; a study is one document"
        elif r"'\t'" in problem:
            problem = "a tab stands here; YAML is indented with spaces"
        elif "mapping values are not allowed" in problem:
            problem = "not valid YAML: ': ' inside a text or a wrong indentation; put a text with ': ' in quotes"
        elif "block end" in problem or "block mapping start" in problem:
            problem = "not valid YAML: wrong indentation; options of one section begin in the same column"
        elif "end of stream" in problem or "stream end" in problem:
            mark = error.context_mark or mark
            problem = "not valid YAML: what begins here is not closed"
        else:
            problem = "not valid YAML: " + problem.replace(r"'\x00'", "the end")
        return self.fatal(mark.line if mark else 0, mark.column if mark else 0, path, problem)

    def node(self, raw: Any, path: str, key: Any, depth: int) -> Node:
        mark = raw.start_mark
        self.count += 1
        if depth > MAX_DEPTH:
            raise self.fatal(mark.line, mark.column, path, "nested too deeply to be a study, or an alias of itself")
        if self.count > MAX_VALUES:
            raise self.fatal(mark.line, mark.column, path, f"more than {MAX_VALUES} values; a study is a page of YAML")
        place = self.place(mark.line, mark.column)
        made = Node(None, path, place, self.place(key.start_mark.line, key.start_mark.column))
        if isinstance(raw, MappingNode):
            made.value = self.mapping(raw, made, depth) if self.tag(made, raw.tag, "map") else None
        elif isinstance(raw, SequenceNode):
            items = [self.node(item, f"{path}[{i}]", item, depth + 1) for i, item in enumerate(raw.value)]
            made.value = items if self.tag(made, raw.tag, "seq") else None
        else:
            made.value = self.scalar(raw, made)
        return made

    def mapping(self, raw: MappingNode, parent: Node, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key, value in raw.value:
            place = self.place(key.start_mark.line, key.start_mark.column)
            if not isinstance(key.value, str) or not key.value.isprintable():
                self.faults.add(Node(None, parent.path, place, place), "a key is a word")
                continue
            child = self.node(value, parent.child(key.value), key, depth + 1)
            if key.value in children:
                first = children[key.value].key.line
                self.faults.add(child, "given twice" + (f"; first on line {first}" if first else ""), at_key=True)
            children.setdefault(key.value, child)
        return children

    def tag(self, node: Node, tag: Any, allowed: str = "") -> bool:
        if tag == _TAG + allowed:
            return True
        self.wrong(node, f"the tag {tag.replace(_TAG, '!!')} means nothing in a study; leave it out")
        return False

    def wrong(self, node: Node, message: str) -> None:
        self.faults.add(node, message)
        self.faults.silence(node.path)

    def scalar(self, raw: Any, node: Node) -> Any:
        kind, text = raw.tag.removeprefix(_TAG), raw.value
        if kind not in _SCALARS:
            self.tag(node, raw.tag)
            return None
        try:
            value = _SCALARS[kind](text)
        except (ValueError, KeyError):
            # only an explicit tag (`!!int x`), a directive (`%YAML 1.1`) or thousands of digits lead here
            self.wrong(node, f"{_short(text)} cannot be read as !!{kind}")
            return None
        if isinstance(value, int) and abs(value) >= 2**63:
            self.wrong(node, f"{_short(text)} is too large a number")
        elif isinstance(value, float) and not math.isfinite(value):
            self.wrong(node, f"{value} is not a finite number; what is not set is left out")
        elif isinstance(value, str) and _UNFIT.search(value):
            self.wrong(node, "a control character or half a surrogate pair stands in this text")
        else:
            return value
        return None


def _short(text: str) -> str:
    return f"'{text}'" if len(text) <= 60 else f"'{text[:57]}...'"


def _whole(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0 if re.match(r"[-+]?0[xob]", digits) else 10)


def _number(text: str) -> float:
    return float(re.sub(r"\.(inf|nan)$", r"\1", text.replace("_", "").lower()))


_SCALARS: dict[str, Any] = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _whole,
    "float": _number,
    "str": str,
    "timestamp": str,  # a revision or a name may look like a date
    "merge": str,
}


class _Representer(RoundTripRepresenter):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_null(self, data: None) -> Any:
        return self.represent_scalar(_TAG + "null", "null")


_Representer.add_representer(type(None), _Representer.represent_null)


def to_text(data: Any) -> str:
    """Plain data as YAML 1.2, mappings in their own order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = _Representer
    yaml.width = 1_000_000  # a folded question would be hard to read and to search for
    buffer = io.StringIO()
    yaml.dump(data, buffer)
    return buffer.getvalue()
