"""Everything that a cube says: the tables of `ablate.effects` and the verdicts, or why there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr

from ablate import effects
from ablate.cube import refuse_damage, text_attrs
from ablate.effects import Verdict
from ablate.effects.dose import adjusted
from ablate.effects.families import declared
from ablate.errors import StudyError, did_you_mean
from ablate.kinds import Table
from ablate.options import Analysis
from ablate.records import METHOD_NAME

KINDS: tuple[Table, ...] = get_args(Table)
OF_METHODS = ("methods", "isolate")
"""Tables of studies that compare methods."""
DOSES = ("kl_shift", "kl_labels", "mmd2", "nll_gap", "label_length")
"""What the effect may follow, where the cube has it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Tables of numbers and verdicts; ``refused``: why a table could not be made; ``dims`` are those of the cube."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    dims: tuple[str, ...] = ()


def find(tree: xr.DataTree, bars: Analysis) -> Findings:
    """Everything that is said about a cube; what cannot be computed is refused with its reason."""
    found = Findings(dims=tuple(map(str, tree.dims)))
    for name in ("controls", *(kind for kind in KINDS if kind not in OF_METHODS or METHOD_NAME in tree.dims)):
        try:
            found.frames[name] = frame_of(tree, name)
        except StudyError as error:
            found.refused[name] = str(error)
    judge = effects.method_verdicts if METHOD_NAME in tree.dims else effects.verdict
    try:
        return replace(found, verdicts=tuple(judge(tree, **bars.model_dump())))
    except StudyError as error:
        found.refused["verdict"] = str(error)
        return found


def frame_of(tree: xr.DataTree, kind: str) -> pd.DataFrame:
    """The numbers of a table: one of `KINDS`, or controls.

    Raises:
        StudyError: another kind, or what the cube lacks for it.
    """
    compute: dict[str, Callable[[xr.DataTree], pd.DataFrame]] = {
        "organisms": effects.organisms,
        "controls": effects.controls,
        "methods": effects.methods,
        "isolate": effects.isolated,
        "fixed": lambda cube: effects.fixed_table(cube, family=_family(cube)),
        "effects": lambda cube: effects.contrasts(cube, family=_family(cube)),
        "shares": effects.decomposition,
        "variance": effects.variance,
        "missing": effects.missing,
        "price": effects.label_terms,
        "stability": effects.stability,
        "transmission": effects.transmitted,
        "dose": _doses,
        "mediation": lambda cube: effects.mediated(cube, DOSES),
        "prediction": effects.prediction,
    }
    if kind not in compute:
        raise StudyError(f"no table '{kind}'{did_you_mean(kind, list(compute))}; known: {', '.join(compute)}")
    try:
        return compute[kind](tree)
    except StudyError:
        raise
    except Exception:
        refuse_damage(tree)  # else it is no fault of the disk
        raise


def _family(tree: xr.DataTree) -> tuple[str, ...] | None:
    """What the study declared confirmatory: p-values of tables are those of the verdict."""
    return declared(tree, tree.attrs.get("family"))


def _doses(tree: xr.DataTree) -> pd.DataFrame:
    """The dose-response on every dose of `DOSES` that the cube has and that varies, p adjusted over all of them."""
    frames, refused = [], {}
    for dose in DOSES:
        try:
            frames.append(effects.dose_response(tree, dose))
        except StudyError as error:
            refused[dose] = str(error)
    if not frames:
        raise StudyError("; ".join(refused.values()))
    joined = adjusted(pd.concat(frames, ignore_index=True))
    joined.attrs = {**frames[0].attrs, **joined.attrs, "refused": {**frames[0].attrs.get("refused", {}), **refused}}
    return joined


def analysis(found: Findings) -> xr.DataTree:
    """Findings as the group ``analysis`` of a cube: one group a table, one row a coordinate.

    A column that is called like a dimension of the cube would be hidden by it: it is called ``TABLE_COLUMN`` there.
    """
    groups = {
        f"/{name}": _dataset(frame.rename(columns={dim: f"{name}_{dim}" for dim in found.dims}), name)
        for name, frame in found.frames.items()
    }
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
