"""Write docs/reference from the code: `make docs`. A test fails where what lies there is not what this writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from ablate import registry
from ablate.cli import app
from ablate.methods import table
from ablate.schema import json_schema

HERE = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/generate.py from the code; `make docs` writes it anew. -->\n"
WIDTH = 100
SHOWN = 50
"""Characters of a default; `ablate list` prints all of them."""

FAMILIES = {
    "behavior": "What an organism is induced to do, and how that is recognized.",
    "label_shift": "How candidate answers are proposed.",
    "scorer": "What gives every candidate a number; named as the option `scorer` of a selector.",
    "selector": "Which candidates become labels.",
    "objective": "How the organism is trained on the labels.",
    "method": "Published methods: a level of every mechanism at once.",
    "measure": "What is measured on labels or on a run.",
}


def pages() -> dict[str, str]:
    """The text of every page of the reference by its file name."""
    return {"cli.md": _cli(), "study.md": _study(), "levels.md": _levels()}


def _cli() -> str:
    group: Any = typer.main.get_command(app)
    top = group.context_class(group, info_name="ablate", terminal_width=WIDTH, max_content_width=WIDTH)
    parts = ["# The command line\n", f"{MADE}\n```\n{group.get_help(top)}\n```\n"]
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        own = command.context_class(command, info_name=name, parent=top, terminal_width=WIDTH, max_content_width=WIDTH)
        parts.append(f"\n## ablate {name}\n\n```\n{command.get_help(own)}\n```\n")
    exits = "Exit codes: 0 all well, 1 some runs failed, 2 a mistake of the user's, 130 interrupted.\n"
    return "".join([*parts, f"\n{exits}"])


def _study() -> str:
    schema = json_schema()
    lines = [
        "# The study file\n",
        MADE,
        "YAML 1.2. Everything but `question`, `model`, `organism` and `factors` has a default. Any option of `labels`,",
        "`train`, `evaluate`, `organism` and `model` may be swapped where it stands: `candidates: {swap: [1, 4]}`.",
        "`ablate schema` prints the JSON Schema of this page.\n",
    ]
    for name, own in schema["properties"].items():
        option = _resolved(own, schema)
        lines += [f"## {name}\n", f"{_said(option)}\n"]
        if rows := list(_rows(option, schema)):
            lines += ["| option | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _rows(section: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    needed = section.get("required", [])
    for name, own in section.get("properties", {}).items():
        option = _resolved(own, schema)
        default = f"`{json.dumps(option['default'])}`" if "default" in option else "required" if name in needed else "-"
        yield _row([f"`{name}`", _type(option), default, _said(option)])


def _resolved(own: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """An option with what it refers to, the alternative of null or of a swap left out."""
    found = dict(own)
    several = [part for part in found.pop("anyOf", []) if part.get("type") != "null"]
    parts = [_resolved(part, schema) for part in several if part.keys() & {"type", "enum", "anyOf", "$ref"}]
    parts = [part for part in parts if not {"swap", "fix"} & part.get("properties", {}).keys()]
    if parts:  # a mapping says more than the name that stands for one
        found = {**max(parts, key=lambda part: "properties" in part), **found}
    if "$ref" in found:
        target = schema["$defs"][found.pop("$ref").rpartition("/")[2]]
        found = {**_resolved(target, schema), **found}
    return found


def _type(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"] if value is not None)
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    said = " and ".join(f"{sign} {option[key]:g}" for key, sign in bounds.items() if key in option)
    return " ".join(filter(None, [str(option.get("type", "")), said])) or "-"


def _said(option: dict[str, Any]) -> str:
    return " ".join(str(option.get("description", "")).split()) or "-"


def _levels() -> str:
    lines = ["# What can be named in a study\n", MADE, "As `ablate list` prints it, other packages' plug-ins aside.\n"]
    for family, about in FAMILIES.items():
        lines += [f"## {family}s\n", f"{about}\n"]
        if family == "method":
            rows = table()
            lines += [_row(rows[0]), _row(["---"] * len(rows[0])), *(_row(row.values()) for row in rows), ""]
        for name in registry.names(family):
            plugin = registry.get(family, name)
            if plugin.function.__module__.startswith("ablate."):
                own = _options(plugin)
                lines.append(f"- **`{name}`**{f' ({own})' if own else ''}: {plugin.doc}")
        lines.append("")
    return "\n".join(lines)


def _options(plugin: registry.Plugin) -> str:
    said = ["`scorer`"] if plugin.traits.get("scored") else []
    for name, option in plugin.options.model_fields.items():
        default = "" if option.is_required() else json.dumps(option.default, ensure_ascii=False)
        cut = default if len(default) <= SHOWN else f"{default[:SHOWN]} ..."
        said.append(f"`{name}={cut}`" if default else f"`{name}`")
    return ", ".join(said)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
