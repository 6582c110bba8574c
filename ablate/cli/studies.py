"""Commands that plan and run studies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.app import Dir, Out, Sets, StudyArg, app, fitted, interruptible

if TYPE_CHECKING:
    from ablate.workflow import Ran


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
    with interruptible(), Display(Console(soft_wrap=True)) as display:
        ran = run_study(loaded, folder, display, limit=limit)
    typer.echo(fitted(closing(ran)))
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
    with interruptible(), Display(Console(soft_wrap=True)) as display:
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

    with interruptible(), Progress(disable=not sys.stderr.isatty()) as bar:
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


def closing(ran: Ran) -> str:
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
    if ran.redesigned:
        out.append(f"they replace those of another design that were in {ran.folder}; --out would have kept both")
    out += [f"failed: {run}: {error}" for run, error in ran.errors[:10]]
    out += [f"{len(ran.errors)} runs failed or are blocked; the same command tries them again"] if ran.errors else []
    return "\n".join(out)
