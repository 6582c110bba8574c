"""What all commands share: the application, arguments of one kind, and how mistakes and interruptions end."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ablate.errors import StudyError, printable

app = typer.Typer(
    name="ablate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A mechanism-isolation ablation engine: was it the labels' distribution, their selection, both, or noise?",
    epilog="Begin with: ablate study smoke.yaml",
)

Sets = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change one option, e.g. train.epochs=2.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; runs/NAME unless given.")]
StudyArg = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a shipped study.")]
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study, e.g. runs/shift_vs_selector.")]


@contextmanager
def interruptible() -> Iterator[None]:
    """A command that Ctrl-C may stop: what was made stays."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def printed(content: str | bytes) -> None:
    """Text, or a file of bytes, which a terminal cannot show."""
    if isinstance(content, bytes) and sys.stdout.isatty():
        raise StudyError("parquet is no text; send it to a file: ... --format parquet > table.parquet")
    typer.echo(content, nl=False)


def fitted(text: str) -> str:
    """On a terminal its lines broken between words; elsewhere a line stays one line, for other programs."""
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, 40)
    fit = partial(textwrap.wrap, width=width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return "\n".join(part for line in text.splitlines() for part in (fit(line) or [""]))


def names(text: str) -> list[str]:
    """Names that were written with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _version(wanted: bool) -> None:
    if wanted:
        from ablate.version import __version__

        typer.echo(f"ablate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """The entry point: 0 all well, 1 some runs failed, 2 the user's mistake, 130 interrupted."""
    try:
        app(arguments)
    except StudyError as error:
        typer.echo(printable(str(error), keep="\n"), err=True)
        sys.exit(2)
