"""Everything that a cube says: the tables of `ablate.effects` and the verdicts, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from ablate import effects
from ablate.cube import text_attrs
from ablate.effects import Verdict
from ablate.errors import StudyError
from ablate.options import Analysis

Kind = Literal["fixed", "effects", "shares", "organisms", "transmission", "dose", "prediction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DOSES = ("kl_shift", "kl_labels", "mmd2", "nll_gap", "label_length")
"""What the effect may follow, where the cube has it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Tables of numbers and verdicts; ``refused`` says why a table could not be made."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)


def find(tree: xr.DataTree, bars: Analysis) -> Findings:
    """Everything that is said about a cube; what cannot be computed is refused with its reason."""
    found = Findings()
    for name in ("controls", *KINDS):
        try:
            found.frames[name] = frame_of(tree, name)
        except StudyError as error:
            found.refused[name] = str(error)
    try:
        return Findings(found.frames, tuple(effects.verdict(tree, **bars.model_dump())), found.refused)
    except StudyError as error:
        found.refused["verdict"] = str(error)
        return found


def frame_of(tree: xr.DataTree, kind: str) -> pd.DataFrame:
    """The numbers of a table: one of `KINDS`, or controls."""
    compute: Any = {
        "organisms": effects.organisms,
        "controls": effects.controls,
        "fixed": effects.fixed_table,
        "effects": effects.contrasts,
        "shares": effects.decomposition,
        "transmission": effects.transmitted,
        "dose": _doses,
        "prediction": effects.prediction,
    }
    frame: pd.DataFrame = compute[kind](tree)
    return frame


def _doses(tree: xr.DataTree) -> pd.DataFrame:
    """The dose-response on every dose of `DOSES` that the cube has and that varies."""
    frames, refused = [], {}
    for dose in DOSES:
        try:
            frames.append(effects.dose_response(tree, dose))
        except StudyError as error:
            refused[dose] = str(error)
    if not frames:
        raise StudyError("; ".join(refused.values()))
    joined = pd.concat(frames, ignore_index=True)
    joined.attrs = {**frames[0].attrs, "refused": {**frames[0].attrs.get("refused", {}), **refused}}
    return joined


def analysis(found: Findings) -> xr.DataTree:
    """Findings as the group ``analysis`` of a cube: one group a table, one row a coordinate."""
    groups = {f"/{name}": _dataset(frame, name) for name, frame in found.frames.items()}
    columns = {
        name: [getattr(verdict, name) for verdict in found.verdicts] for name in ("behavior", "cause", "sentence")
    }
    groups["/verdict"] = _dataset(pd.DataFrame(columns), "verdict")
    gates = [{"behavior": verdict.behavior, **gate._asdict()} for verdict in found.verdicts for gate in verdict.gates]
    groups["/gates"] = _dataset(pd.DataFrame(gates), "gate")
    groups["/"] = xr.Dataset(attrs={"refused": found.refused})
    return xr.DataTree.from_dict(groups)


def _dataset(frame: pd.DataFrame, name: str) -> xr.Dataset:
    columns = {
        str(column): (name, _plain(values.to_numpy()), text_attrs(str(column), source=f"ablate.effects, {name}"))
        for column, values in frame.items()
    }
    return xr.Dataset(columns)


def _plain(values: Any) -> Any:
    """Numbers as they are, flags as int8, everything else as object strings."""
    if values.dtype.kind in "if":
        return values
    return values.astype(np.int8) if values.dtype.kind == "b" else np.array([str(value) for value in values], object)
