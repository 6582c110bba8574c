"""The command line: thin. Every command says what went wrong in one line and exits 2 for the user's mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ablate.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

    from ablate.workflow import Ran

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


@app.command(epilog="Example: ablate study shift_vs_selector.yaml --set organism.seeds=8")
def study(
    study: StudyArg,
    out: Out = None,
    set_: Sets = [],  # noqa: B006 - typer copies it
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many prompts and items: a trial, no result.")
    ] = None,
) -> None:
    """Run a study, or go on with it: only what is missing is done."""
    from rich.console import Console

    from ablate.progress import Display
    from ablate.study import load
    from ablate.workflow import limited, run_study

    loaded = limited(load(study, set_), limit)
    folder = out or Path("runs") / loaded.name
    with _interruptible(), Display(Console(soft_wrap=True)) as display:
        ran = run_study(loaded, folder, display, limit=limit)
    typer.echo(_closing(ran))
    raise typer.Exit(1 if ran.errors else 0)


@app.command(epilog="Example: ablate isolate self_certainty --behavior sycophancy --set organism.seeds=8")
def isolate(
    methods: Annotated[list[str], typer.Argument(metavar="METHOD...", help="Methods, as `ablate list methods` has.")],
    behavior: Annotated[str, typer.Option(help="What the organisms are induced to do.")] = "sycophancy",
    out: Out = None,
    set_: Sets = [],  # noqa: B006
) -> None:
    """Split what a method does into its mechanisms: label shift, selector and objective, each off and on.

    It is the shipped study isolate_methods.yaml with other methods; a method with options is written as in a study:
    'dual_decoding: {scorer: mean_logprob}'.
    """
    import re

    name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(["isolate", *methods, behavior])).strip("_")[:80]
    written = ", ".join(f"{{{method}}}" if ":" in method else method for method in methods)
    own = [f"name={name}", f"organism.behavior={behavior}", f"factors.isolate=[{written}]"]
    study("isolate_methods.yaml", out, [*own, *set_], None)


@app.command(epilog="Example: ablate plan shift_vs_selector.yaml --json")
def plan(
    study: StudyArg,
    out: Out = None,
    set_: Sets = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    power: Annotated[bool, typer.Option("--power", help="Simulate how many organisms an effect needs.")] = False,
    effect: Annotated[float, typer.Option(help="With --power: the effect in pp.")] = 10.0,
    sd: Annotated[
        float | None, typer.Option(help="With --power: sd of a contrast over organisms in pp, else from results.")
    ] = None,
) -> None:
    """Show what a study would run: the grid, what is shared, cached and to do, and how long it takes."""
    from ablate.forecast import forecast, in_words
    from ablate.study import load

    loaded = load(study, set_)
    folder = out or Path("runs") / loaded.name
    found = forecast(loaded, folder)
    text = "" if as_json else in_words(found)
    if power:
        from ablate import sizing

        found["power"] = sizing.sized(loaded, folder, effect_pp=effect, sd_pp=sd)
        text += "" if as_json else "\n" + sizing.in_words(found["power"])
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else text)


@app.command(epilog="Example: ablate predict shift_vs_selector.yaml")
def predict(study: StudyArg, out: Out = None, set_: Sets = []) -> None:  # noqa: B006
    """Make a study's labels, train nothing, and say what training on them is expected to do."""
    from rich.console import Console

    from ablate.foresight import in_words
    from ablate.progress import Display
    from ablate.study import load
    from ablate.workflow import label_study

    loaded = load(study, set_)
    with _interruptible(), Display(Console(soft_wrap=True)) as display:
        found = label_study(loaded, out or Path("runs") / loaded.name, display)
    typer.echo(in_words(found))


@app.command(epilog="Example: ablate calibrate --simulations 1000 --out calibration.md")
def calibrate(
    simulations: Annotated[int, typer.Option(min=20, help="Simulated studies of each world and size.")] = 100,
    out: Annotated[Path | None, typer.Option(help="A Markdown file to write the table to.")] = None,
) -> None:
    """Judge the verdicts by worlds with a known answer: error rates, coverage of intervals, bias of shares."""
    from rich.progress import Progress

    from ablate.effects.acceptance import acceptance
    from ablate.reports.table import render

    with _interruptible(), Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("worlds")
        table = acceptance(simulations, progress=lambda done, total: bar.update(task, completed=done, total=total))
    text = render(table)
    if out is not None:
        out.write_text(f"# Acceptance simulations\n\n{text}", encoding="utf-8")
    typer.echo(text, nl=False)
    raise typer.Exit(0 if bool(table["passed"].all()) else 1)


@app.command(epilog="Example: ablate status runs/shift_vs_selector")
def status(folder: Dir) -> None:
    """Show how far a study got, what failed, and how large it is."""
    from ablate.forecast import progress_in_words

    typer.echo(progress_in_words(folder))


@app.command(epilog="Example: ablate table runs/shift_vs_selector --format latex > effects.tex")
def table(
    folder: Dir,
    kind: Annotated[
        Literal[
            "methods",
            "isolate",
            "fixed",
            "effects",
            "shares",
            "variance",
            "missing",
            "organisms",
            "price",
            "stability",
            "transmission",
            "dose",
            "mediation",
            "prediction",
        ],
        typer.Option(help="Which table."),
    ] = "fixed",
    format: Annotated[Literal["md", "latex", "html", "csv", "parquet"], typer.Option(help="Output format.")] = "md",
) -> None:
    """Print an ablation table with its caption."""
    from ablate.summary import table_of

    _print(table_of(folder, kind, format))


@app.command(epilog="Example: ablate report runs/shift_vs_selector")
def report(folder: Dir) -> None:
    """Write report.html, one page without network: verdict, tables, figures, hashes, and a browser of samples."""
    from ablate.report import opened, write

    typer.echo(f"report  {write(opened(folder))}")


@app.command(epilog="Example: ablate view runs/shift_vs_selector --open")
def view(
    folder: Dir,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let --host be reached by others.")] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
) -> None:
    """Serve the report to this machine, while the study runs too: the page follows the runs as they land."""
    from ablate.view import server

    with server(folder, host=host, port=port, allow_remote=allow_remote) as serving:
        typer.echo(f"{serving.url}  (Ctrl-C ends)")
        if open_:
            typer.launch(serving.url)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended", err=True)


@app.command(epilog="Example: ablate figure runs/shift_vs_selector --kind interaction")
def figure(
    folder: Dir,
    kind: Annotated[
        Literal[
            "interaction",
            "organisms",
            "shares",
            "prediction",
            "dose",
            "eta",
            "diversity",
            "embedding",
            "scaling",
            "methods",
            "isolate",
        ]
        | None,
        typer.Option(help="Which figure; every one that the study allows unless given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; DIR/figures unless given.")] = None,
) -> None:
    """Draw figures for a paper: each as SVG, PNG and PDF."""
    from ablate.summary import write_figures

    written, refused = write_figures(folder, kind, out)
    for name, path in written.items():
        typer.echo(f"{name:<12} {path}.svg, .png, .pdf")
    for name, reason in refused.items():
        typer.echo(f"no {name}: {reason}")


@app.command(
    epilog="Example: ablate query runs/shift_vs_selector --where selector=first --by label_shift --value risk_delta"
)
def query(
    folder: Dir,
    where: Annotated[list[str], typer.Option(help="Conditions: selector=first,majority or 'kl_shift < 1'.")] = [],  # noqa: B006
    by: Annotated[str, typer.Option(help="Columns to group by, with commas.")] = "",
    value: Annotated[str, typer.Option(help="Columns to average, with commas.")] = "risk_delta",
    stat: Annotated[Literal["mean", "median", "min", "max"], typer.Option(help="What to take of each group.")] = "mean",
    sql: Annotated[str, typer.Option(help="A query over the views runs and items instead.")] = "",
    format: Annotated[Literal["table", "csv", "json", "parquet"], typer.Option(help="Output format.")] = "table",
) -> None:
    """Ask the cube: group and average runs, or SQL over the views runs and items."""
    from ablate import cube
    from ablate import query as queries

    tree = cube.open_cube(folder)
    frame: pd.DataFrame = queries.sql(tree, sql) if sql else queries.query(tree, where, _names(by), _names(value), stat)
    _print(queries.parquet(frame) if format == "parquet" else queries.render(frame, format))
    if excluded := frame.attrs.get("excluded"):
        typer.echo(
            f"{excluded} runs of invalid organisms left out (ask for them with --where valid_organism=0)", err=True
        )


@app.command("list", epilog="Example: ablate list selectors")
def list_(
    family: Annotated[str, typer.Argument(metavar="[FAMILY]", help="behaviors, label_shifts, scorers, ...")] = "",
) -> None:
    """List what can be named in a study: behaviors, label shifts, scorers, selectors, objectives, methods, measures."""
    from ablate.forecast import plugins_in_words

    typer.echo(plugins_in_words(family))


@app.command(epilog="Example: ablate schema > study.schema.json")
def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from ablate.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command(epilog="Example: ablate new my_study && ablate plan my_study.yaml")
def new(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")]) -> None:
    """Write a commented study file, and the schema beside it that an editor completes it from."""
    from ablate.schema import json_schema, new_study

    target, schema_file = Path(f"{name.removesuffix('.yaml')}.yaml"), Path("study.schema.json")
    text = new_study(target.stem, schema_file.name)
    if target.exists():
        raise StudyError(f"{target} is there already; choose another name")
    schema_file.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    target.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {target} and {schema_file}; next: ablate plan {target}")


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def _closing(ran: Ran) -> str:
    """What was found, where it lies, what failed."""
    out = [] if ran.executed else ["nothing to do: the study is finished"]
    out.append((ran.folder / "summary.txt").read_text(encoding="utf-8"))
    tables = [ran.folder / "tables" / f"{kind}.md" for kind in ("isolate", "methods", "fixed")]
    out += [f"table   {table}" for table in tables if table.is_file()][:1]
    report = ran.folder / "report.html"
    out.append(
        f"report  {report}" if not ran.unreported else f"no report: {ran.unreported}; `ablate report` tries again"
    )
    out.append(f"cube    {ran.folder / 'cube.zarr'}")
    out += [f"failed: {run}: {error}" for run, error in ran.errors[:10]]
    out += [f"{len(ran.errors)} runs failed or are blocked; the same command tries them again"] if ran.errors else []
    return "\n".join(out)


def _print(content: str | bytes) -> None:
    """Text, or a file of bytes, which a terminal cannot show."""
    if isinstance(content, bytes) and sys.stdout.isatty():
        raise StudyError("parquet is no text; send it to a file: ... --format parquet > table.parquet")
    typer.echo(content, nl=False)


def _names(text: str) -> list[str]:
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
        typer.echo(str(error), err=True)
        sys.exit(2)
