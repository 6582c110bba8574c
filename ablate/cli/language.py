"""Commands about what a study may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.app import app
from ablate.errors import StudyError


@app.command("list", epilog="Example: ablate list selectors")
def list_(
    family: Annotated[str, typer.Argument(metavar="[FAMILY]", help="behaviors, label_shifts, scorers, ...")] = "",
) -> None:
    """List what can be named in a study, with options and defaults.

    Families: behaviors, label_shifts, scorers, selectors, objectives, methods, measures.
    """
    from ablate.forecast import plugins_in_words

    typer.echo(plugins_in_words(family))


@app.command(epilog="Example: ablate schema > study.schema.json")
def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from ablate.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command(epilog="Example: ablate new my_study && ablate plan my_study.yaml")
def new(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")]) -> None:
    """Write a commented study file, and its schema for editors."""
    from ablate.schema import json_schema, new_study

    target = Path(f"{name.removesuffix('.yaml')}.yaml")
    schema_file = target.with_name("study.schema.json")  # the study names it as its neighbor
    text = new_study(target.stem, schema_file.name)
    if target.exists():
        raise StudyError(f"{target} is there already; choose another name")
    try:
        schema_file.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{target} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {target} and {schema_file}; next: ablate plan {target}")
