"""What an editor needs: the JSON Schema of a study file, and a commented study to begin with."""

from __future__ import annotations

import math
import re
from typing import Any

from ablate import registry
from ablate.errors import StudyError
from ablate.options import DEFAULT_LEVELS, NAME, NAME_RULE, SECTIONS, SWAPPABLE, Options, Section
from ablate.yamlfile import to_text

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LEVEL_FAMILIES = ("behavior", "label_shift", "scorer", "selector", "objective", "method", "measure")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a study file, with the levels and options of every installed plug-in."""
    schema = _linked(Options.model_json_schema())
    schema = {"$schema": DRAFT, **schema, "title": "ablate study", "description": "One question, as a factorial study."}
    sections, properties = schema["$defs"], schema["properties"]
    # the name is the file's, and a mechanism that is not named is at its null level
    schema["required"] = [key for key in schema["required"] if key not in ("name", "factors")]
    sections["Factors"].pop("required")
    for section, model in {**SWAPPABLE, "factors": SECTIONS["factors"]}.items():
        own = sections[model.__name__]["properties"]
        for key, leaf in own.items():
            if (section, key) != ("organism", "seeds"):
                own[key] = _with_settings(leaf, default=DEFAULT_LEVELS.get(key) if section == "factors" else None)
    _add_methods(sections["Factors"])
    for section in ("labels", "train", "evaluate", "analysis", "factors"):
        properties[section] = {"anyOf": [properties[section], {"type": "null"}]}
    either = [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/Model"}]
    properties["model"] = _with_settings({"anyOf": either, "description": properties["model"]["description"]})
    for family in LEVEL_FAMILIES:
        sections[family] = _levels(family, sections)
    return schema


def _add_methods(factors: dict[str, Any]) -> None:
    """Methods stand in the place of the three mechanisms: as a factor, or each taken apart."""
    level = {"$ref": "#/$defs/method"}
    described = {"description": factors["properties"]["method"]["description"]}
    factors["properties"]["method"] = _with_settings({**level, **described})
    factors["properties"]["isolate"] = {
        "anyOf": [level, {"type": "array", "items": level, "minItems": 1, "uniqueItems": True}],
        "description": "methods to take apart: each of their mechanisms off and on",
    }
    alone = [{"required": [word], "maxProperties": 1} for word in ("method", "isolate")]
    factors["anyOf"] = [*alone, {"not": {"anyOf": [{"required": [word]} for word in ("method", "isolate")]}}]


def _linked(schema: Any) -> Any:
    """The schema with a reference wherever `options` marked a level, and without infinities, which are no JSON."""
    if isinstance(schema, dict):
        return {
            ("$ref" if key == "x-level" else key): (f"#/$defs/{rule}" if key == "x-level" else _linked(rule))
            for key, rule in schema.items()
            if not (isinstance(rule, float) and math.isinf(rule))
        }
    return [_linked(rule) for rule in schema] if isinstance(schema, list) else schema


def _with_settings(leaf: dict[str, Any], *, default: str | None = None) -> dict[str, Any]:
    """A leaf, or ``{swap: [leaf, ...]}``, or ``{fix: leaf}``."""
    notes: dict[str, Any] = {key: leaf[key] for key in ("title", "description", "default") if key in leaf}
    value = {key: rule for key, rule in leaf.items() if key not in notes}
    if default is not None:
        notes["default"] = default
    swap = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    return {**notes, "anyOf": [value, _only("swap", swap), _only("fix", value)]}


def _only(key: str, rule: dict[str, Any], **notes: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {key: rule}, "required": [key], "additionalProperties": False, **notes}


def _levels(family: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """One alternative per plug-in and way to write it: the bare name, or the name with options."""
    bare: list[dict[str, Any]] = []
    spelled: list[dict[str, Any]] = []
    for name in registry.names(family):
        plugin = registry.get(family, name)
        options = _linked(plugin.options.model_json_schema(ref_template=f"#/$defs/{family}.{name}.{{model}}"))
        for inner, rule in options.pop("$defs", {}).items():
            definitions[f"{family}.{name}.{inner}"] = rule
        options = {key: rule for key, rule in options.items() if key != "title"}
        if plugin.traits.get("scored"):
            options["properties"] = {"scorer": {"$ref": "#/$defs/scorer"}, **options.get("properties", {})}
            options["required"] = ["scorer", *options.get("required", [])]
        if not options.get("required"):
            bare.append({"const": name, "description": plugin.doc})
            options = {"anyOf": [options, {"type": "null"}]}
        spelled.append(_only(name, options, description=plugin.doc))
    return {"anyOf": [*bare, *spelled]} if bare or spelled else {"not": {}}


_BEGINNING = """\
# yaml-language-server: $schema={schema}
#
# Did the labels' distribution or their selection change the behavior?
# A level is a name, or one name with options: {{nucleus: {{temperature: 0.7, top_p: 0.9}}}} (`ablate list`).
# `swap` makes a factor of any option below, `fix` or a plain value holds it.
{name}
question: did the labels' distribution or their selection change sycophancy?
model: smollm2-135m  # or {{name: an id on the Hub or a folder, dtype: float32}}
factors:
  label_shift: {{swap: [none, greedy, clean_view]}}  # how candidate answers are proposed; none is the null level
  selector: {{swap: [first, majority, {{argmax: {{scorer: mean_logprob}}}}]}}  # which of them become labels
  objective: {{fix: sft}}  # how the organism is trained on them
"""

_GIVEN = {"organism.behavior": "sycophancy", "organism.seeds": 6}


def new_study(name: str, schema_path: str) -> str:
    """A commented study with every option at its default; editors complete it by the schema at ``schema_path``.

    Raises:
        StudyError: a name that cannot name a folder of results.
    """
    if not re.fullmatch(NAME, name):
        raise StudyError(f"'{name[:60]}' cannot name a study: {NAME_RULE}")
    # the dumper quotes a name that would be read as a number or as null
    lines = [_BEGINNING.format(schema=" ".join(schema_path.split()), name=to_text({"name": name}).strip())]
    for section in ("organism", "labels", "train", "evaluate"):
        lines += [f"{section}:\n", *_commented(section, SECTIONS[section], "  ")]
    for key in ("seeds", "measures", "controls"):
        lines.append(_line(key, Options.model_fields[key].default, Options.model_fields[key].description, ""))
    lines += ["analysis:\n", *_commented("analysis", SECTIONS["analysis"], "  ")]
    return "".join(lines)


def _commented(section: str, model: type[Section], indent: str) -> list[str]:
    return [
        _line(key, _GIVEN.get(f"{section}.{key}", option.default), option.description, indent)
        for key, option in model.model_fields.items()
    ]


def _line(key: str, default: Any, description: str | None, indent: str) -> str:
    return f"{indent}{key}: {_inline(default)}  # {description}\n"


def _inline(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_inline(item) for item in value)}]"
    return "null" if value is None else str(value)
