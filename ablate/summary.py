"""What a study found, as it is said at its end and written into its folder: controls, effects, verdict, tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.console import Console

    from ablate.effects import Verdict
    from ablate.options import Analysis
    from ablate.store import Store
    from ablate.workflow import Ran

Kind = Literal["fixed", "effects", "shares"]
Format = Literal["md", "latex", "csv"]
SUFFIX: dict[Format, str] = {"md": ".md", "latex": ".tex", "csv": ".csv"}


@dataclass(frozen=True, slots=True)
class Findings:
    """Tables of numbers and verdicts; ``refused`` says why a table could not be made."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)


def find(tree: xr.DataTree, bars: Analysis) -> Findings:
    """Everything that is said about a cube; what cannot be computed is refused with its reason."""
    from ablate import effects

    found = Findings()
    for name, compute in {
        "organisms": effects.organisms,
        "controls": effects.controls,
        "effects": lambda cube: effects.contrasts(flat(cube)),
        "shares": lambda cube: effects.decomposition(flat(cube)),
    }.items():
        try:
            found.frames[name] = compute(tree)
        except StudyError as error:
            found.refused[name] = str(error)
    try:
        return Findings(found.frames, tuple(effects.verdict(flat(tree), **bars.model_dump())), found.refused)
    except StudyError as error:
        found.refused["verdict"] = str(error)
        return found


def flat(tree: xr.DataTree) -> xr.Dataset:
    """The run-level variables of a cube."""
    return tree.to_dataset(inherit=False)


def frame_of(tree: xr.DataTree, kind: Kind) -> pd.DataFrame:
    """The numbers of a table."""
    from ablate import effects

    compute = {"fixed": effects.fixed_table, "effects": effects.contrasts, "shares": effects.decomposition}[kind]
    frame: pd.DataFrame = compute(flat(tree))
    return frame


def table_text(folder: Path, kind: Kind, format: Format) -> str:
    """A table of a study's folder with its caption, computed from the cube."""
    from ablate import cube

    return rendered(cube.open_cube(folder), kind, format)


def rendered(tree: xr.DataTree, kind: Kind, format: Format) -> str:
    """A table of a cube with its caption."""
    from ablate.effects import caption
    from ablate.reports.table import render

    return render(frame_of(tree, kind), caption(flat(tree)), format)


def analysis(found: Findings) -> xr.DataTree:
    """Findings as the group ``analysis`` of a cube."""
    import numpy as np
    import xarray as xr

    from ablate.cube import text_attrs

    def dataset(frame: pd.DataFrame, dim: str) -> xr.Dataset:
        columns = {}
        for name, column in frame.items():
            values = column.to_numpy()
            plain = (
                values.astype(np.int8)
                if values.dtype == bool
                else values
                if values.dtype.kind in "if"
                else values.astype(str).astype(object)
            )
            columns[str(name)] = (dim, plain, text_attrs(str(name), source=f"effects.{dim}"))
        return xr.Dataset(columns)

    groups = {f"/{name}": dataset(frame, name) for name, frame in found.frames.items()}
    verdicts = {
        name: (
            "behavior",
            np.array([getattr(verdict, name) for verdict in found.verdicts], object),
            text_attrs(name, source="effects.verdict"),
        )
        for name in ("cause", "sentence")
    }
    behaviors = np.array([verdict.behavior for verdict in found.verdicts], object)
    groups["/"] = xr.Dataset(attrs={"refused": found.refused})
    groups["/verdict"] = xr.Dataset(verdicts, {"behavior": behaviors}) if found.verdicts else xr.Dataset()
    return xr.DataTree.from_dict(groups)


def write_tables(tree: xr.DataTree, store: Store) -> list[str]:
    """Every table in every format under ``tables/``; returns why some could not be made."""
    refused = []
    for kind in ("fixed", "effects", "shares"):
        try:
            for format, suffix in SUFFIX.items():
                store.put(f"tables/{kind}{suffix}", rendered(tree, kind, format))
        except StudyError as error:
            refused.append(f"tables/{kind}: {error}")
    return refused


def after_study(ran: Ran, found: Findings, command: str, console: Console) -> None:
    """Say what was found, where it lies, and what failed."""

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False)

    if ran.executed == 0:
        say("nothing to do: the study is finished")
    for line in lines(found):
        say(line)
    for verdict in found.verdicts:
        say()
        say(
            f"VERDICT  {verdict.cause}: {verdict.sentence}"
            if len(found.verdicts) == 1
            else f"VERDICT  {verdict.behavior}: {verdict.cause}: {verdict.sentence}"
        )
    for name, why in found.refused.items():
        say(f"no {name}: {why}")
    say()
    if (ran.folder / "tables" / "fixed.md").is_file():
        say(f"table   {ran.folder / 'tables' / 'fixed.md'}")
    say(f"cube    {ran.folder / 'cube.zarr'}")
    for run, error in ran.errors[:10]:
        say(f"failed: {run}: {error}")
    if ran.errors:
        say(f"{len(ran.errors)} runs failed or are blocked; `ablate study {command}` tries them again.")


def lines(found: Findings) -> list[str]:
    """The main numbers, one a line: organisms, controls, the largest effect of each factor, the interaction."""
    from ablate.effects import words
    from ablate.effects.intervals import Interval

    def effect(row: Any) -> str:
        return words.effect(Interval(row.effect_pp, row.low, row.high))

    out = []
    if "organisms" in found.frames:
        own = found.frames["organisms"]
        invalid = own[~own["valid_organism"]]
        risks = " ".join(words.fraction(risk) for risk in own["organism_risk"])
        state = (
            "all valid"
            if invalid.empty
            else f"{len(invalid)} invalid_organism: {', '.join(map(str, invalid['organism']))}"
        )
        out.append(f"{'organisms':<21} risk {risks}   {state}")
    if "controls" in found.frames:
        for row in found.frames["controls"].itertuples():
            expected = "   as expected" if row.control == "null" and row.low <= 0 <= row.high else ""
            expected = expected or (
                "   NOT as expected: its interval leaves 0 out" if row.control == "null" and row.organisms > 1 else ""
            )
            out.append(f"{row.control + ' control':<21} {row.behavior:<29} {effect(row)}{expected}")
    if "effects" in found.frames:
        table = found.frames["effects"]
        main = table[(table["kind"] == "main") & table["effect_pp"].notna()]
        for (behavior, factor), rows in main.groupby(["behavior", "factor"], sort=False):
            largest = rows.loc[rows["effect_pp"].abs().idxmax()]
            name = f"largest: {largest['end']}" + (f" ({behavior})" if table["behavior"].nunique() > 1 else "")
            out.append(f"{factor:<21} {name:<29} {effect(largest)}")
    if "shares" in found.frames:
        table = found.frames["shares"]
        for row in table[table["source"] == "interaction"].itertuples():
            share = words.share(Interval(row.effect_share, row.effect_low, row.effect_high))
            out.append(f"{'interaction':<21} {'':<29} share {share if row.identified else 'not identified'}")
    return out
