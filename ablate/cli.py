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
    """Split what a method does into its mechanisms, each off and on.

    Mechanisms are the label shift, the selector and the objective. It is the shipped study isolate_methods.yaml with
    other methods; a method with options is written as in a study: 'dual_decoding: {scorer: mean_logprob}'.
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
    """Show what a study would run, and how long that takes.

    The grid, what is held fixed by sharing, what is there already and what is to do.
    """
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
    """Make a study's labels, train nothing, say what to expect."""
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
    """Judge the verdicts by worlds with a known answer.

    Error rates of verdicts, coverage of intervals and bias of shares, each beside what is allowed.
    """
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
    """Ask the cube: group and average runs, or SQL.

    The views of --sql are runs and items.
    """
    from ablate import cube
    from ablate import query as queries

    if sql and (where or by or value != "risk_delta" or stat != "mean"):
        raise StudyError("--sql: takes the place of --where, --by, --value and --stat; write them into the statement")
    tree = cube.open_cube(folder)
    frame: pd.DataFrame = queries.sql(tree, sql) if sql else queries.query(tree, where, _names(by), _names(value), stat)
    _print(queries.parquet(frame) if format == "parquet" else queries.render(frame, format))
    if excluded := frame.attrs.get("excluded"):
        typer.echo(
            f"{excluded} runs of invalid organisms left out (ask for them with --where valid_organism=0)", err=True
        )


@app.command(
    "import",
    epilog="Example: ablate import rows.csv --factors label_shift=view,selector --unit organism --response risk_after",
)
def import_(
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="A .csv, .tsv, .jsonl or .parquet file, a run a row.")],
    factors: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            help="Columns that were varied within units, as COLUMN or NAME=COLUMN, with commas. What is called "
            "label_shift, selector or objective is that mechanism, any other a setting of its own.",
        ),
    ] = "",
    unit: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Columns that tell organisms, the random unit, apart.")
    ] = "",
    response: Annotated[str, typer.Option(metavar="COLUMN", help="The outcome after training.")] = "",
    baseline: Annotated[str, typer.Option(metavar="COLUMN", help="The outcome before training.")] = "",
    scale: Annotated[
        Literal["probability", "percent", "pp"],
        typer.Option(help="Unit of response and baseline: 0 to 1, 0 to 100, or a change in percentage points."),
    ] = "probability",
    seed: Annotated[str, typer.Option(metavar="COLUMN", help="What tells repetitions of a run apart.")] = "",
    behavior: Annotated[str, typer.Option(metavar="COLUMN", help="What organisms do; inference is within each.")] = "",
    model: Annotated[str, typer.Option(metavar="COLUMN", help="The base model; inference is within each.")] = "",
    status: Annotated[str, typer.Option(metavar="COLUMN", help="What became of a run: ok, finished, failed, ...")] = "",
    values: Annotated[str, typer.Option(metavar="COLUMNS", help="Other columns with numbers to keep.")] = "",
    null: Annotated[
        str,
        typer.Option(
            metavar="NAME=LEVEL,...", help="Levels to compare with; else none, first, or the first of the file."
        ),
    ] = "",
    items: Annotated[int, typer.Option(min=0, help="Evaluation items behind each outcome; 0: not known.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder to make; runs/NAME of the file unless given.")] = None,
) -> None:
    """Make a cube of runs that were made elsewhere; every other command works on it.

    The result table of the paper's released code is recognized by its columns and needs no options. Exports of W&B and
    MLflow are read as they are: --factors config.lr,config.label_shift. Columns that are called as in a cube (behavior,
    model, status, key_labels, kl_shift, ...) are taken as such.
    """
    from ablate import mapping
    from ablate.importing import import_rows

    declared = mapping.declared(
        factors, unit, response, baseline, scale, seed, behavior, model, status, values, null, items
    )
    made = import_rows(rows, declared, out or Path("runs") / rows.stem)
    counts = ", ".join(f"{count} {status}" for status, count in made.runs.items())
    typer.echo(f"imported {made.rows} rows as {counts}\n" + "\n".join(made.notes))
    summary = (made.folder / "summary.txt").read_text(encoding="utf-8").splitlines()
    more = f"... {len(summary) - 40} more lines in {made.folder / 'summary.txt'}" if len(summary) > 40 else ""
    typer.echo("\n".join([*summary[:40], more, f"cube    {made.folder / 'cube.zarr'}"]))


@app.command(epilog="Example: ablate compare runs/shift_vs_selector runs/k_scaling")
def compare(
    one: Annotated[Path, typer.Argument(metavar="DIR_A", help="A folder with a cube.")],
    other: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one.")],
    format: Annotated[Literal["md", "csv", "json"], typer.Option(help="Output format.")] = "md",
) -> None:
    """Show what changed from one cube to another: design, artifacts, effects (B less A) and verdicts."""
    from ablate import compare as comparing

    _print(comparing.compare(one, other, format))


@app.command(epilog="Example: ablate export runs/shift_vs_selector --adapters all")
def export(
    folder: Dir,
    out: Annotated[Path | None, typer.Option(help="Folder to write; DIR/export unless given.")] = None,
    adapters: Annotated[
        Literal["none", "organisms", "all"], typer.Option(help="Of organisms before training; all: of runs too.")
    ] = "organisms",
    license: Annotated[
        str, typer.Option(metavar="ID", help="License of the cards, e.g. mit; that of an embedded model unless given.")
    ] = "",
    push: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Upload it to the Hugging Face Hub, new repositories as private.")
    ] = "",
) -> None:
    """Write a study as folders for the Hugging Face Hub.

    Labels, items and the cube as a data set, adapters as a model, each with its card. Nothing is uploaded unless --push
    says so; the token is HF_TOKEN or that of `hf auth login`.
    """
    from ablate.export import Export, in_words
    from ablate.hub import checked_repo
    from ablate.hub import push as upload

    repo, target = checked_repo(push) if push else "", out or folder / "export"
    found = Export(folder, adapters, license)
    typer.echo(in_words(found))
    with _interruptible():
        kept = found.write(target, repo)
        typer.echo("\n".join([f"kept   {target / card}, which was edited" for card in kept] + [f"wrote  {target}"]))
        for address in upload(target, repo) if repo else ():
            typer.echo(f"pushed {address}")


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
