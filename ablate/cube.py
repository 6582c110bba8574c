"""The results of a study as one labeled array: built from runs, written whole, opened lazily, unrolled into tables.

Every cell of the design has a place on ``(organism, label_shift, selector, objective, seed, ...swapped options)``,
whether its run exists or not: what is missing is NaN with status ``missing``, never 0.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from ablate.api import Column, FloatArray
from ablate.errors import StudyError
from ablate.version import SCHEMA_VERSION

STATUSES = ("missing", "ok", "failed", "blocked", "aliased")
"""What the int8 variable ``status`` counts: 0 is missing, so that an unwritten chunk reads as missing."""

FACTORS = ("label_shift", "selector", "objective")
CORE_DIMS = ("organism", *FACTORS, "seed")
NEEDED = {
    "/": ("status", "error", "valid_organism", "organism_risk", "model", "behavior", "induction_seed"),
    "/items": ("outcome_before", "outcome_after", "item_id", "kind", "split", "item_cluster"),
}
GROUPS = ("items", "labels", "controls", "induction", "analysis")
"""What may stand below the root, where no variable may have the same name."""
SHOWN_FIRST = (
    *("status", "risk_before", "risk_after", "risk_delta", "outcome_before", "outcome_after"),
    *("items", "labels", "controls", "induction", "analysis", "verdict", "gates", "fixed", "effects", "shares"),
)
"""Variables and groups in the order in which a tree is looked at; others follow by name."""
CHUNK_BYTES = 16_000_000
TEXT_BYTES = 80  # assumed of a string where only pointers can be counted: a content hash has 64 digits

Array = npt.NDArray[Any]
Scalar = str | int | float | bool | None
Attrs = dict[str, Any]
Status = Literal["missing", "ok", "failed", "blocked", "aliased"]


@dataclass(frozen=True, slots=True)
class Organism:
    """A policy before training; ``risk`` is P(M=1) there, ``options`` its swapped options by name.

    ``unparsed`` is the share of its answers that could not be judged, ``calibrated`` whether it has its target risk.
    """

    model: str
    behavior: str
    induction_seed: int
    options: Mapping[str, Scalar]
    risk: float
    valid: bool
    unparsed: float = math.nan
    calibrated: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation prompt; prompts of one ``cluster`` share the underlying fact."""

    id: str
    kind: Literal["risk", "capability"]
    split: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the design: ``organism`` counts from 0, ``point`` has the label on every axis but seed.

    ``before`` and ``after`` are mean outcomes per evaluation item, float32 [I], NaN = could not be judged.
    ``keys`` are content hashes (``pool``, ``labels``, ``train``): equal hashes prove that an input was held fixed.
    """

    organism: int
    point: Mapping[str, Scalar]
    seed: int
    status: Status
    values: Mapping[str, float]
    before: FloatArray | None = None
    after: FloatArray | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def build(
    organisms: Sequence[Organism],
    axes: Mapping[str, Sequence[Scalar]],
    seeds: Sequence[int],
    runs: Iterable[Run],
    columns: Mapping[str, Column],
    items: Sequence[Sequence[Item]],
    attrs: Mapping[str, Any],
    *,
    labels: Mapping[str, Array] | None = None,
) -> xr.DataTree:
    """The cube of a study.

    Args:
        organisms: their positions are the coordinate ``organism``.
        axes: labels by dimension: label_shift, selector, objective, then swapped options.
        seeds: labels of the dimension ``seed``.
        runs: at most one for each cell; cells without one are ``missing``.
        columns: what ``values`` of a run and ``labels`` may hold; each becomes a float64 variable.
        items: the evaluation items of each organism.
        attrs: of the root, as JSON; must hold the bool ``limited``.
        labels: by column, numbers per label prompt [*cells, prompt].

    Raises:
        ValueError: runs that do not fit the axes, the columns or each other.
    """
    if tuple(axes)[:3] != FACTORS:
        raise ValueError(f"axes start with {', '.join(FACTORS)}, not {', '.join(tuple(axes)[:3])}")
    if not isinstance(attrs.get("limited"), bool):
        raise ValueError("attrs need 'limited': whether only a part of the study was run")
    if len(items) != len(organisms):
        raise ValueError(f"items of {len(items)} organisms for {len(organisms)} organisms")
    if strange := (labels or {}).keys() - columns.keys():
        raise ValueError(f"labels have '{min(strange)}', which is no column")
    json.dumps(dict(attrs), allow_nan=False)
    options = tuple(axes)[3:]
    ordered: dict[str, Sequence[Scalar]] = {"organism": range(len(organisms)), **{dim: axes[dim] for dim in FACTORS}}
    grid = _Grid({**ordered, "seed": seeds, **{dim: axes[dim] for dim in options}})
    cells = _Cells(grid, [name for name in columns if name not in (labels or {})], [len(own) for own in items])
    for run in runs:
        cells.put(run)
    root = _root(grid, cells, organisms, columns).assign_attrs({"schema_version": SCHEMA_VERSION, **attrs})
    groups = {"/": root, "/items": _items(grid, cells, items)}
    if labels:
        groups["/labels"] = xr.Dataset(
            {name: ((*grid.dims, "prompt"), values, column_attrs(columns[name])) for name, values in labels.items()}
        )
    return xr.DataTree.from_dict(groups)


class _Grid:
    """The axes of the cube, and where a run stands on them."""

    def __init__(self, axes: Mapping[str, Sequence[Scalar]]) -> None:
        self.dims = tuple(axes)
        self.labels = {dim: _array(["null" if label is None else label for label in axes[dim]]) for dim in axes}
        self.shape = tuple(len(labels) for labels in axes.values())
        for dim, labels in self.labels.items():
            if len(set(labels.tolist())) < len(labels):
                raise ValueError(f"{dim}: two labels are the same: {', '.join(map(str, labels))}")
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        self._offsets: dict[str, dict[Hashable, int]] = {
            dim: {label: place * stride for place, label in enumerate(axes[dim])}
            for dim, stride in zip(self.dims, strides, strict=True)
        }

    def cell(self, run: Run) -> int:
        """The flat position of the run's cell."""
        point: dict[str, Scalar] = {"organism": run.organism, **run.point, "seed": run.seed}
        if point.keys() != self._offsets.keys():
            raise ValueError(f"a run stands on ({', '.join(point)}), the cube on ({', '.join(self.dims)})")
        try:
            return sum(self._offsets[dim][label] for dim, label in point.items())
        except KeyError as error:
            raise ValueError(f"a run at {point}: the axes have no {error}") from None


class _Cells:
    """Flat arrays over all cells, filled run by run; xarray comes in once at the end."""

    def __init__(self, grid: _Grid, columns: Collection[str], item_counts: Sequence[int]) -> None:
        count = math.prod(grid.shape)
        self._grid, self._count, self._item_counts = grid, count, item_counts
        self.status = np.zeros(count, np.int8)
        self.numbers = {name: np.full(count, np.nan) for name in columns}
        self.texts = {"error": np.full(count, "", object)}
        self.after = np.full((count, max(item_counts, default=0)), np.nan, np.float32)
        self._before: dict[bytes, int] = {}  # distinct outcomes before training, numbered
        self._before_of = np.full(count, -1, np.int64)

    def put(self, run: Run) -> None:
        cell = self._grid.cell(run)
        if self.status[cell]:
            raise ValueError(f"two runs of organism {run.organism} at {dict(run.point)}, seed {run.seed}")
        self.status[cell] = STATUSES.index(run.status)
        for name, value in run.values.items():
            if name not in self.numbers:
                raise ValueError(f"a run has the value '{name}', which is no column")
            self.numbers[name][cell] = value
        error = run.error.encode(errors="backslashreplace").decode()  # half a surrogate pair cannot be stored
        for name, text in [("error", error), *((f"key_{name}", key) for name, key in run.keys.items())]:
            if name not in self.texts:
                self.texts[name] = np.full(self._count, "", object)
            self.texts[name][cell] = text
        if run.after is not None:
            outcome = self._checked(run.organism, run.after)
            self.after[cell, : len(outcome)] = outcome
        if run.before is not None:
            outcome = self._checked(run.organism, run.before)
            self._before_of[cell] = self._before.setdefault(outcome.tobytes(), len(self._before))

    def before(self) -> tuple[tuple[str, ...], Array]:
        """Outcomes before training on (organism, item), and on those other dims along which they differ."""
        dims, which = self._grid.dims, self._before_of.reshape(self._grid.shape)
        for dim in self._grid.dims[1:]:
            axis = dims.index(dim)
            one = which.max(axis=axis, keepdims=True, initial=-1)
            if ((which == one) | (which < 0)).all():
                dims, which = dims[:axis] + dims[axis + 1 :], one.squeeze(axis)
        table = np.full((len(self._before) + 1, self.after.shape[1]), np.nan, np.float32)  # the last row: no run, -1
        for row, outcome in zip(table, self._before, strict=False):
            values = np.frombuffer(outcome, np.float32)
            row[: len(values)] = values
        return (*dims, "item"), table[which]

    def _checked(self, organism: int, outcome: FloatArray) -> FloatArray:
        if outcome.shape != (self._item_counts[organism],):
            raise ValueError(
                f"organism {organism} has {self._item_counts[organism]} items, a run of it outcomes {outcome.shape}"
            )
        return outcome.astype(np.float32, copy=False)


def _root(grid: _Grid, cells: _Cells, organisms: Sequence[Organism], columns: Mapping[str, Column]) -> xr.Dataset:
    def of_organisms(values: Sequence[Scalar], long_name: str) -> Any:
        return "organism", _array(values), text_attrs(long_name, source="study")

    def of_cells(flat: Array, attrs: Attrs) -> Any:
        return grid.dims, flat.reshape(grid.shape), attrs

    options = sorted({name for organism in organisms for name in organism.options})
    valid = np.array([organism.valid for organism in organisms], np.int8)
    in_range = flags("whether the risk before training is in [.1, .9]", ("invalid_organism", "valid"))
    calibrated = np.array([organism.calibrated for organism in organisms], np.int8)
    reached = flags("whether calibration reached the target risk", ("target_missed", "calibrated"))
    risk = np.array([organism.risk for organism in organisms], np.float64)
    unparsed = np.array([organism.unparsed for organism in organisms], np.float64)
    measured = {"units": "probability", "source": "evaluation of the organism"}
    coords = [
        *(
            (dim, (dim, labels, text_attrs(dim.replace("_", " "), source="study")))
            for dim, labels in grid.labels.items()
        ),
        ("model", of_organisms([organism.model for organism in organisms], "base model")),
        ("behavior", of_organisms([organism.behavior for organism in organisms], "induced behavior")),
        ("induction_seed", of_organisms([organism.induction_seed for organism in organisms], "seed of the induction")),
        *((name, of_organisms([own.options.get(name) for own in organisms], f"organism: {name}")) for name in options),
    ]
    variables = [
        ("status", of_cells(cells.status, flags("what became of the run", STATUSES))),
        ("valid_organism", ("organism", valid, in_range)),
        ("organism_risk", ("organism", risk, text_attrs("risk before training", **measured))),
        ("organism_unparsed", ("organism", unparsed, text_attrs("unjudged share before training", **measured))),
        ("calibrated", ("organism", calibrated, reached)),
        *((name, of_cells(values, column_attrs(columns[name]))) for name, values in cells.numbers.items()),
        *((name, of_cells(cells.texts[name], text_attrs(_text_name(name)))) for name in sorted(cells.texts)),
    ]
    used: set[str] = {"item", "prompt", *NEEDED["/items"], *GROUPS}
    for name, _ in [*coords, *variables]:
        if name in used or "/" in name:
            raise ValueError(f"'{name}' cannot be the name of an axis, option or column: it is taken or has a slash")
        used.add(name)
    return xr.Dataset(dict(variables), dict(coords))


def _text_name(name: str) -> str:
    return "why there is no result" if name == "error" else f"content hash of {name.removeprefix('key_')}"


def _items(grid: _Grid, cells: _Cells, items: Sequence[Sequence[Item]]) -> xr.Dataset:
    width = cells.after.shape[1]

    def coordinate(attribute: str, long_name: str) -> tuple[Any, ...]:
        texts = np.full((len(items), width), "", object)
        for row, own in zip(texts, items, strict=True):
            row[: len(own)] = [getattr(item, attribute) for item in own]
        return ("organism", "item"), texts, text_attrs(long_name, source="behavior")

    before_dims, before = cells.before()
    outcome = {"units": "probability", "source": "evaluation, mean over the samples of an item"}
    return xr.Dataset(
        {
            "outcome_before": (before_dims, before, text_attrs("outcome before training", **outcome)),
            "outcome_after": (
                (*grid.dims, "item"),
                cells.after.reshape(*grid.shape, width),
                text_attrs("outcome after training", **outcome),
            ),
        },
        {
            "item_id": coordinate("id", "evaluation prompt"),
            "kind": coordinate("kind", "what the outcome is: risk (M = 1) or capability (right)"),
            "split": coordinate("split", "in or out of the distribution of the induction"),
            "item_cluster": coordinate("cluster", "fact or text that prompts share"),
        },
    )


def _array(values: Sequence[Scalar]) -> Array:
    """Labels in their own type, or as text where types are mixed; None is NaN beside numbers, else empty text."""
    present = {type(value) for value in values if value is not None}
    if present == {bool} and None not in values:
        return np.array(values, bool)
    if present == {int} and None not in values:
        return np.array(values, np.int64)
    if present and present <= {int, float}:
        return np.array([math.nan if value is None else value for value in values], np.float64)
    return np.array([_text(value) for value in values], object)


def _text(value: Scalar) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def text_attrs(long_name: str, *, units: str = "1", direction: str = "neither", source: str = "journal") -> Attrs:
    """What every variable says of itself: name, unit, which way is better, where it comes from."""
    return {"long_name": long_name, "units": units, "direction": direction, "source": source}


def column_attrs(column: Column) -> Attrs:
    """What a variable of the cube says about itself."""
    return text_attrs(column.long_name, units=column.units, direction=column.direction, source=column.source)


def flags(long_name: str, meanings: Sequence[str]) -> Attrs:
    """Attributes of an int8 variable that counts ``meanings``, after the CF conventions."""
    return {
        **text_attrs(long_name),
        "flag_values": np.arange(len(meanings), dtype=np.int8),
        "flag_meanings": " ".join(meanings),
    }


def write(tree: xr.DataTree, path: Path) -> None:
    """Write the cube whole beside ``path``, then swap it in. One writer at a time (the study's lock sees to it).

    A crash leaves, at any moment, ``path`` or a complete sibling ``.new`` or ``.old`` that `open_cube` finds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, new, old = (_sibling(path, end) for end in ("partial", "new", "old"))
    if not path.exists() and (left := next((copy for copy in (new, old) if copy.exists()), None)):
        left.rename(path)  # ends the swap that a crash interrupted
    for stale in (partial, new, old):
        if stale.exists():
            shutil.rmtree(stale)
    try:
        encoding = _encoding(tree)
        tree.to_zarr(
            partial,
            mode="w-",
            zarr_format=3,
            consolidated=False,
            write_inherited_coords=True,
            write_empty_chunks=True,  # so that a chunk which is not there was lost, see `_lost`
            encoding=encoding,
        )
        _consolidate(partial)
        _sync(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk is not kept full; the fault itself goes on
        raise
    partial.rename(new)
    _fsync(path.parent)
    if path.exists():
        path.rename(old)
    new.rename(path)
    _fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)  # what a reader holds open goes with the next write


def _sibling(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}.{end}")


def _encoding(tree: xr.DataTree) -> dict[str, dict[str, Any]]:
    # The checksum makes a flipped bit an error instead of a number.
    codec = ZstdCodec(level=1, checksum=True)
    return {
        node.path: {
            str(name): {"chunks": _chunks(variable), "compressors": (codec,)}
            for name, variable in node.to_dataset().variables.items()
        }
        for node in tree.subtree
    }


def _chunks(variable: xr.Variable) -> tuple[int, ...]:
    """The whole array below CHUNK_BYTES, else cut along the first axis, then the next."""
    chunks = [max(size, 1) for size in variable.shape]
    itemsize = variable.dtype.itemsize if variable.dtype.kind in "biuf" else TEXT_BYTES
    for axis, size in enumerate(chunks):
        slice_bytes = math.prod(chunks) // size * itemsize
        chunks[axis] = min(size, max(1, CHUNK_BYTES // slice_bytes))
    return tuple(chunks)


def _consolidate(path: Path) -> None:
    """Repeat the metadata at the root: without it a plain ``xr.open_zarr(path)`` warns (xarray 2026.9).

    It cannot become stale, since a cube is only ever written whole.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part in the Zarr format 3")
        zarr.consolidate_metadata(str(path), zarr_format=3)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_cube(path: Path) -> xr.DataTree:
    """The cube of a study folder, or the ``cube.zarr`` itself; arrays are read when they are used.

    After a crash in the middle of a swap the complete sibling is opened where it lies: reading moves nothing,
    because the folder may belong to a driver that is just swapping.

    Raises:
        StudyError: no cube yet, not a zarr store, another schema, or a part that is missing.
    """
    path = Path(path)
    cube = path if path.suffix == ".zarr" else path / "cube.zarr"
    copies = (cube, _sibling(cube, "new"), _sibling(cube, "old"))
    found = next((copy for copy in copies if copy.exists()), None)
    if found is None:
        raise StudyError(f"{cube}: no cube yet; `ablate study` writes it")
    try:
        tree = xr.open_datatree(found, engine="zarr", consolidated=False)
    except Exception as error:  # whatever broken bytes make zarr raise
        raise StudyError(f"{found}: not a readable zarr store ({_reason(error)}); `ablate study` rebuilds it") from None
    if fault := _fault(tree) or _lost(tree, found):
        raise StudyError(f"{found}: {fault}")
    return tree


def _again(tree: xr.DataTree) -> str:
    return "`ablate import` makes it anew" if "imported" in tree.attrs else "`ablate study` rebuilds it"


def _lost(tree: xr.DataTree, cube: Path) -> str:
    """The first array of which a chunk is not on disk: zarr would read it as missing values."""
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            chunks = variable.encoding.get("chunks") or variable.shape
            wanted = math.prod(-(-size // chunk) for size, chunk in zip(variable.shape, chunks, strict=True) if size)
            folder = cube / node.path.strip("/") / str(name) / "c"
            there = sum(file.is_file() for file in folder.rglob("*")) if variable.ndim else folder.is_file()
            if there < wanted and variable.size:
                return (
                    f"{node.path.rstrip('/')}/{name} has lost {wanted - there} of its {wanted} chunks; {_again(tree)}"
                )
    return ""


def _fault(tree: xr.DataTree) -> str:
    again, version = _again(tree), tree.attrs.get("schema_version")
    if version is None:
        return "not a cube of ablate: it has no schema_version"
    if version != SCHEMA_VERSION:
        return f"cube schema {version}, but this ablate reads {SCHEMA_VERSION}; {again}"
    for group, names in NEEDED.items():
        if group != "/" and group.removeprefix("/") not in tree.children:
            return f"the cube has no group '{group.removeprefix('/')}'; {again}"
        if missing := [name for name in names if name not in tree[group].variables]:
            return f"the cube has no {', '.join(missing)} in {group}; {again}"
    dims = tree.to_dataset()["status"].dims
    if dims[: len(CORE_DIMS)] != CORE_DIMS:
        return f"the cube lies on ({', '.join(map(str, dims))}) instead of ({', '.join(CORE_DIMS)}, ...)"
    return ""


def read(data: xr.Dataset, name: str) -> Array:
    """The values of one variable; ``status`` as text, flags as bool, text as objects.

    Raises:
        StudyError: the bytes on disk are damaged.
    """
    try:
        values = data[name].to_numpy()
        if name == "status":
            values = np.array(STATUSES, object)[values]
    except Exception as error:  # whatever broken bytes make zarr and its codecs raise
        raise StudyError(f"cube: cannot read '{name}' ({_reason(error)}); `ablate study` rebuilds the cube") from None
    kind = bool if name == "valid_organism" else values.dtype if values.dtype.kind in "biuf" else object
    return np.asarray(values, kind)


def loaded(path: Path) -> xr.DataTree:
    """The cube of a study folder, read into memory.

    Raises:
        StudyError: as `open_cube`, or the bytes on disk are damaged.
    """
    tree = open_cube(path)
    try:
        return tree.load()
    except Exception:
        refuse_damage(tree)  # else it is no fault of the disk
        raise


def refuse_damage(tree: xr.DataTree) -> None:
    """Read everything, to say of a fault whether the bytes on disk are to blame.

    Raises:
        StudyError: the first variable that cannot be read.
    """
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        for name in data.variables:
            read(data, str(name))


def arranged(tree: xr.DataTree) -> xr.DataTree:
    """The same tree to be looked at: the risks first, hashes and errors last; verdicts and main tables before others.

    Files are listed in whatever order the disk has them.
    """
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        names: list[str] = sorted(map(str, data.data_vars), key=_rank)
        node.dataset = data[names]
        node.children = {name: node.children[name] for name in sorted(map(str, node.children), key=_rank)}
    return tree


def _rank(name: str) -> tuple[int, str]:
    last = name == "error" or name.startswith("key_")
    return (SHOWN_FIRST.index(name) if name in SHOWN_FIRST else len(SHOWN_FIRST) + last, name)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def run_columns(tree: xr.DataTree) -> list[str]:
    """The columns of `runs_frame`: the organism and what belongs to it, the other axes, then results by name."""
    data = tree.to_dataset()
    dims = [str(dim) for dim in data["status"].dims]
    names = [str(name) for name in data.variables if set(data[name].dims) <= set(dims)]
    of_organism = sorted(name for name in names if data[name].dims == ("organism",) and name != "organism")
    rest = sorted({*names} - {*dims, *of_organism, "status", "error"})
    return [dims[0], *of_organism, *dims[1:], "status", *rest, "error"]


def runs_frame(tree: xr.DataTree, columns: Collection[str] | None = None) -> pd.DataFrame:
    """One row for each run (a cell whose status is not ``missing``); ``columns`` limits what is read."""
    data = tree.to_dataset()
    places = _places(data)
    names = [name for name in run_columns(tree) if columns is None or name in columns]
    return pd.DataFrame({name: read(data, name)[_at(data[name], places)] for name in names})


def items_frame(tree: xr.DataTree) -> pd.DataFrame:
    """One row for each run and evaluation item; text columns are categorical, since there can be 10^7 rows."""
    root, group = tree.to_dataset(), tree["items"].to_dataset()
    places = _places(root)
    real = read(group, "item_id")[places["organism"]] != ""  # [runs, items]; organisms with fewer items are padded
    full = bool(real.all())
    wanted = [
        "organism",
        "model",
        "behavior",
        "induction_seed",
        "valid_organism",
        *map(str, list(places)[1:]),
        "status",
    ]
    columns: dict[str, Any] = {}
    for name in [*wanted, "item_id", "kind", "split", "item_cluster", "outcome_before", "outcome_after"]:
        data = root if name in root.variables else group
        values = read(data, name)
        levels: Any = None
        if values.dtype.kind == "O":
            codes, levels = pd.factorize(values.ravel())
            values = codes.reshape(values.shape).astype(np.min_scalar_type(-max(len(levels), 1)))
        long = values[_at(data[name], places)]
        long = np.broadcast_to(long if long.ndim == 2 else long[:, None], real.shape)
        long = long.ravel() if full else long[real]
        columns[name] = long if levels is None else pd.Categorical.from_codes(long, levels)
    return pd.DataFrame(columns, copy=False)


def _places(data: xr.Dataset) -> dict[str, Array]:
    """The position of every run on each dimension."""
    cells = np.nonzero(read(data, "status") != "missing")
    return dict(zip(map(str, data["status"].dims), cells, strict=True))


def _at(variable: xr.DataArray, places: Mapping[str, Array]) -> tuple[Array, ...]:
    return tuple(places[str(dim)] for dim in variable.dims if dim in places)
