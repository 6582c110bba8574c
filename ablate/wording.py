"""What a validation error means, in words that name the value and the rule and nothing of the library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ablate.errors import did_you_mean
from ablate.yamlfile import Faults, Node

KNOWN_SHOWN = 12
"""So many valid names are listed where none is near what was written."""


def show(value: Any) -> str:
    """A value as a user would write it; a mapping, a list or a long text is named, not repeated."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def unknown(word: str, known: Sequence[str], noun: str = "option", *, home: str = "") -> str:
    """What to say about a key that nobody knows: the nearest name, or where it belongs, or all valid names."""
    near = did_you_mean(word, known) or (f"; did you mean {home}?" if home else "")
    if not near and known:
        more = ", ..." if len(known) > KNOWN_SHOWN else ""
        near = f"; known are {', '.join(known[:KNOWN_SHOWN])}{more}"
    return f"unknown {noun}{near}"


def report(
    error: ValidationError,
    root: Node,
    model: type[BaseModel],
    faults: Faults,
    *,
    extra: Sequence[str] = (),
    homes: Mapping[str, str] = {},
) -> None:
    """Record every error of one validation at the node that it is about.

    ``extra`` are keys of ``root`` that are valid without being fields, ``homes`` says where a
    misplaced option belongs. Several errors of one node (the branches of a union) become one mistake.
    """
    said: dict[int, tuple[Node, list[str]]] = {}
    for item in error.errors(include_url=False):
        loc = item["loc"]
        if item["type"] == "missing":
            node, _ = _locate(root, loc[:-1])
            path = node.child(str(loc[-1]))
            if not faults.silent(path):
                faults.add(node, "required, but missing", path=path)
            continue
        node, depth = _locate(root, loc)
        if faults.silent(node.path):
            continue
        if item["type"] == "extra_forbidden":
            known = [*_fields(model, loc[:-1]), *(extra if depth == 1 else ())]
            faults.add(node, _extra(str(loc[-1]), known, homes), at_key=True)
            continue
        said.setdefault(id(node), (node, []))[1].append(_phrase(item["type"], node.value, item.get("ctx", {})))
    for node, phrases in said.values():
        faults.add(node, _joined(show(node.value), list(dict.fromkeys(phrases))))


def _own_words(value: str, ctx: Mapping[str, Any]) -> str:
    """What the author of a plug-in says about a value, on one line."""
    return " ".join(str(ctx["error"]).split()) or f"{value} is not allowed here"


def _joined(value: str, phrases: Sequence[str]) -> str:
    """``1.5 is not a whole number or a text``: what the branches of a union say, without their hints."""
    if len(phrases) == 1:
        return phrases[0]
    shared = f"{value} is not "
    return shared + " or ".join(phrase.removeprefix(shared).split(";")[0] for phrase in phrases)


def _bound(bound: Any) -> str:
    return str(bound).removesuffix(".0")


def _locate(root: Node, loc: Iterable[int | str]) -> tuple[Node, int]:
    """The deepest written node on the way to ``loc`` (union branches are no nodes), and how deep it is."""
    node, depth = root, 0
    for part in loc:
        below = node.value if isinstance(node.value, dict) else {}
        below = dict(enumerate(node.value)) if isinstance(node.value, list) else below
        if part in below:
            node, depth = below[part], depth + 1
    return node, depth


def _fields(model: type[BaseModel], loc: Iterable[int | str]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _extra(word: str, known: Sequence[str], homes: Mapping[str, str]) -> str:
    if word in ("swap", "fix"):
        return f"'{word}' belongs to one option, not to a section; options here are {', '.join(known)}"
    return unknown(word, known, home=homes.get(word, ""))


_KINDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "none_required": "null",
}

_SUFFIX = re.compile("_(attributes_type|type|parsing|parsing_size|from_float)$")

_PHRASES: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "greater_than": lambda value, ctx: f"{value} is not > {_bound(ctx['gt'])}",
    "greater_than_equal": lambda value, ctx: f"{value} is not >= {_bound(ctx['ge'])}",
    "less_than": lambda value, ctx: f"{value} is not < {_bound(ctx['lt'])}",
    "less_than_equal": lambda value, ctx: f"{value} is not <= {_bound(ctx['le'])}",
    "multiple_of": lambda value, ctx: f"{value} is not a multiple of {_bound(ctx['multiple_of'])}",
    "string_too_long": lambda value, ctx: f"{value} is longer than {ctx['max_length']} characters",
    "string_pattern_mismatch": lambda value, ctx: f"{value} does not match {ctx['pattern']}",
    "too_short": lambda value, ctx: f"has {ctx['actual_length']} entries, not at least {ctx['min_length']}",
    "too_long": lambda value, ctx: f"has more than {ctx['max_length']} entries",
    "value_error": _own_words,
    "assertion_error": _own_words,
}


def _phrase(kind: str, value: Any, ctx: Mapping[str, Any]) -> str:
    if isinstance(value, dict) and value.keys() & {"swap", "fix"}:
        return "cannot be swapped or fixed"
    if kind in _PHRASES:
        return _PHRASES[kind](show(value), ctx)
    if kind == "string_too_short":
        return "is empty" if not str(value).strip() else f"{show(value)} is shorter than {ctx['min_length']} characters"
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", ctx["expected"])
        return f"{show(value)} is not {ctx['expected']}{did_you_mean(str(value), choices)}"
    wanted = _KINDS.get(kind) or _KINDS.get(_SUFFIX.sub("", kind))
    if wanted is None:
        # rare types of a plug-in's options: the kind of the fault is all that can be said without the library's words
        return f"{show(value)} does not fit ({kind.replace('_', ' ')})"
    hint = ""
    if wanted == "a text" and isinstance(value, bool | int | float):
        hint = "; put it in quotes"
    elif wanted == "a whole number" and isinstance(value, float) and value.is_integer():
        hint = f"; write {int(value)}"
    return f"{show(value)} is not {wanted}{hint}"
