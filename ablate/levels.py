"""A level: the setting of one factor, as a study names it and as the registry knows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from ablate import registry
from ablate.errors import StudyError, did_you_mean
from ablate.keys import canonical
from ablate.wording import report, show
from ablate.yamlfile import Faults, Node


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A plug-in with all of its options, defaults included. Equal when family, name and options are.

    ``scorer`` is the level that gives a selector, or a scorer of scores, its scores; None where it needs none.
    """

    family: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scorer: Level | None = None
    _key: str = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", canonical([self.family, self.plain]))
        object.__setattr__(self, "_hash", hash(self._key))

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Level) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self.label

    @property
    def plain(self) -> str | dict[str, dict[str, Any]]:
        """The level as a study file holds it, every option written out."""
        options = dict(to_jsonable_python(dict(self.options)))
        if self.scorer is not None:
            options = {"scorer": self.scorer.plain, **options}
        return {self.name: options} if options else self.name

    @property
    def label(self) -> str:
        """``nucleus(temperature=0.7, top_p=0.9)``: the scorer, then the options that are not at their defaults.

        Raises:
            StudyError: the plug-in is not installed.
        """
        parts = [self.scorer.label] if self.scorer is not None else []
        for name, option in registry.get(self.family, self.name).options.model_fields.items():
            value = self.options[name]
            if option.is_required() or value != option.get_default(call_default_factory=True):
                parts.append(f"{name}={in_label(value)}")
        return f"{self.name}({', '.join(parts)})" if parts else self.name


def in_label(value: Any) -> str:
    """The value of an option as a label shows it: a text without quotes, anything else as JSON."""
    plain = to_jsonable_python(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def plain_node(node: Node) -> Any:
    """The data of a node, without its places."""
    if isinstance(node.value, dict):
        return {key: plain_node(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain_node(child) for child in node.value]
    return node.value


def read_level(family: str, node: Node, faults: Faults) -> Level:
    """The level that a node writes: a name, or one name with its options.

    What is wrong goes to ``faults``; the level that comes back is then only a placeholder.
    """
    placeholder = Level(family, "")
    if faults.silent(node.path):
        return placeholder
    name, given = _name_and_options(family, node, faults)
    if name is None:
        return placeholder
    try:
        plugin = registry.get(family, name)
    except StudyError as error:
        faults.add(node, str(error))
        return placeholder
    before = len(faults)
    scorer = _read_scorer(plugin, node, given, faults) if family in ("selector", "scorer") else None
    own = replace(given, value=dict(given.value))
    if scorer is not None or len(faults) > before:
        own.value.pop("scorer", None)
    try:
        # as JSON, because a list of the file must do for a tuple and nothing else may be coerced
        options = plugin.options.model_validate_json(json.dumps(plain_node(own)), strict=True)
    except ValidationError as error:
        report(error, own, plugin.options, faults, extra=("scorer",) if plugin.traits.get("scored") else ())
        return placeholder
    if scorer is not None and not scorer.name:
        return placeholder
    return Level(family, name, {key: getattr(options, key) for key in plugin.options.model_fields}, scorer)


def _name_and_options(family: str, node: Node, faults: Faults) -> tuple[str | None, Node]:
    noun = family.replace("_", " ")
    article = "an" if noun[0] in "aeiou" else "a"
    empty = replace(node, value={})
    if isinstance(node.value, str):
        return node.value, empty
    if not isinstance(node.value, dict):
        hint = "; did you mean 'none'?" if node.value is None and "none" in registry.names(family) else ""
        faults.add(node, f"{show(node.value)} is not the name of {article} {noun}{hint}")
        return None, empty
    if len(node.value) != 1:
        faults.add(node, f"{article} {noun} is a name, or one name with its options: {{name: {{option: value}}}}")
        return None, empty
    name, given = next(iter(node.value.items()))
    if given.value is None and not faults.silent(given.path):
        return name, replace(given, value={})
    if not isinstance(given.value, dict):
        if not faults.silent(given.path):
            near = did_you_mean(name, ("swap", "fix")) if isinstance(given.value, list) else ""
            faults.add(given, f"{show(given.value)} is not a mapping of the options of '{name}'{near}")
        return None, empty
    return name, given


def _read_scorer(plugin: registry.Plugin, node: Node, given: Node, faults: Faults) -> Level | None:
    written = given.value.get("scorer")
    if plugin.traits.get("scored"):
        if written is not None:
            return read_level("scorer", written, faults)
        example = next(iter(registry.names("scorer")), "name")
        faults.add(node, f"'{plugin.name}' needs a scorer: {{{plugin.name}: {{scorer: {example}}}}}")
    elif written is not None and "scorer" not in plugin.options.model_fields:
        faults.add(written, f"'{plugin.name}' reads no scores; leave the scorer out", at_key=True)
    return None
