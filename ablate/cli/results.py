"""Commands that read what studies left: tables, figures, reports, answers, exports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ablate.cli.app import Dir, app, interruptible, names, printed
from ablate.errors import StudyError
from ablate.kinds import Figure, Table

if TYPE_CHECKING:
    import pandas as pd


@app.command(epilog="Example: ablate table runs/shift_vs_selector --format latex > effects.tex")
def table(
    folder: Dir,
    kind: Annotated[
        Table,
        typer.Option(help="Which table."),
    ] = "fixed",
    format: Annotated[Literal["md", "latex", "html", "csv", "parquet"], typer.Option(help="Output format.")] = "md",
) -> None:
    """Print an ablation table with its caption."""
    from ablate.summary import table_of

    printed(table_of(folder, kind, format))


@app.command(epilog="Example: ablate report runs/shift_vs_selector")
def report(folder: Dir) -> None:
    """Write report.html, one page that needs no network.

    Verdict, tables, figures, the hashes that prove what was held fixed, and a browser of samples.
    """
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
    """Serve the report to this machine, while a study runs too.

    The page follows the runs as they land.
    """
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
        Figure | None,
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
    frame: pd.DataFrame = queries.sql(tree, sql) if sql else queries.query(tree, where, names(by), names(value), stat)
    printed(queries.parquet(frame) if format == "parquet" else queries.render(frame, format))
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
    """Make a cube of runs that were made elsewhere.

    Every other command works on it. The result table of the paper's released code is recognized by its columns and
    needs no options. Exports of W&B and MLflow are read as they are: --factors config.lr,config.label_shift. Columns
    that are called as in a cube (behavior, model, status, key_labels, kl_shift, ...) are taken as such.
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
    """Show what changed from one cube to another.

    Design, artifacts, effects (B less A) and verdicts.
    """
    from ablate import compare as comparing

    printed(comparing.compare(one, other, format))


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
    with interruptible():
        kept = found.write(target, repo)
        typer.echo("\n".join([f"kept   {target / card}, which was edited" for card in kept] + [f"wrote  {target}"]))
        for address in upload(target, repo) if repo else ():
            typer.echo(f"pushed {address}")
