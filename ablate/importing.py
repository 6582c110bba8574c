"""From a file of rows to a folder with a cube, tables and verdicts, as a study leaves one; only no artifacts."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate import cube, findings, released, summary
from ablate.cube import STATUSES
from ablate.errors import StudyError, printable
from ablate.imported import Table, cube_of
from ablate.keys import key_of
from ablate.mapping import Mapped, completed, table_of
from ablate.options import Analysis
from ablate.records import METHOD_NAME
from ablate.rows import Rows, open_rows
from ablate.store import Store
from ablate.workflow import software

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made; ``notes`` say what was not used, and what is not known."""

    folder: Path
    rows: int
    runs: Mapping[str, int]
    notes: tuple[str, ...]


def import_rows(path: Path, mapped: Mapped | None, folder: Path) -> Imported:
    """Make a folder with the cube of the rows of a file; it appears whole or not at all.

    ``mapped`` is None for a table that is recognized by its columns (`released`).

    Raises:
        StudyError: whatever is wrong with the file, the mapping or the folder; nothing is written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder}: is there already; choose another folder with --out")
    rows = open_rows(path)
    tree, about, notes = imported(rows, mapped)
    said = findings.find(tree, Analysis())
    tree["analysis"] = findings.analysis(said)
    draft = folder.resolve().with_name(f"{folder.resolve().name}.{uuid.uuid4().hex[:8]}.partial")
    store = Store(draft)
    try:
        draft.mkdir(parents=True)
        cube.write(tree, draft / "cube.zarr")
        summary.write_tables(tree, said, store)
        store.put("summary.txt", summary.text(said))
        store.put("provenance.json", about)
        store.claim(about["digest"], f"import of {path.name}")  # so that no study writes here
        shutil.rmtree(store.artifacts)  # where the store puts its drafts
        if folder.exists():
            folder.rmdir()  # it is empty
        draft.rename(folder)
    except OSError as error:
        raise StudyError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another with --out"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Imported(folder, len(rows), about["imported"]["runs"], notes)


def imported(rows: Rows, mapped: Mapped | None) -> tuple[xr.DataTree, dict[str, Any], tuple[str, ...]]:
    """The cube of rows, its provenance, and what is to be said about it.

    Raises:
        StudyError: see `import_rows`.
    """
    if mapped is None:
        table, how, extra = released.table_of(rows)
        used: set[str] = set(rows.names)
    else:
        mapped = completed(rows, mapped)
        table, how, extra = table_of(rows, mapped), {"layout": "declared", **asdict(mapped)}, None
        used = set(mapped.used.values())
    source = {"file": rows.path.name, "sha256": rows.sha256, "bytes": rows.path.stat().st_size, "rows": len(rows)}
    about = {
        "name": rows.path.stem,
        "question": f"runs imported from {rows.path.name}",
        "digest": key_of({"sha256": rows.sha256, "mapping": how})[:12],
        "seeds": list(table.seed.labels),
        "imported": {**source, "mapping": how, "note": "these runs were imported, not made here"},
        **software(),
    }
    items = {str(name): mapped.items for name in set(table.facts["behavior"])} if mapped and mapped.items else {}
    tree = cube_of(table, {**about, "limited": False, **({"items": items} if items else {})})
    about["imported"]["runs"] = tree.attrs["imported"]["runs"] = _counts(tree)
    if extra is not None:
        tree["induction"] = extra
    if METHOD_NAME in tree.dims:
        root = tree.to_dataset(inherit=False)
        names = tuple(map(str, root[METHOD_NAME].values))
        tree.dataset = root.assign_coords(released.method_levels(names))
    return tree, about, (*_notes(table, mapped), *_unused(rows, used))


def _counts(tree: xr.DataTree) -> dict[str, int]:
    codes, counts = np.unique(tree.to_dataset(inherit=False)["status"].values, return_counts=True)
    return {STATUSES[code]: int(count) for code, count in zip(codes, counts, strict=True)}


def _unused(rows: Rows, used: set[str]) -> list[str]:
    left = [name for name in rows.names if name not in used]
    more = f" and {len(left) - 20} more" if len(left) > 20 else ""
    return [f"not used: {printable(', '.join(left[:20]))}{more}"] if left else []


def _notes(table: Table, mapped: Mapped | None) -> list[str]:
    notes = []
    empty = np.isin(table.status, (1, 4)) & ~np.isfinite(table.numbers["risk_delta"])
    dropped = ~np.isin(table.status, (1, 4)) & np.isfinite(table.numbers["risk_delta"])
    if mapped is not None and not mapped.baseline and mapped.scale != "pp":
        notes.append(
            "no --baseline: the change of risk is against the organism's own runs at the null levels, and there is no "
            "null control"
        )
    if empty.any():
        notes.append(f"{empty.sum()} runs have no change of risk (first: {table.place(int(empty.argmax()))})")
    if dropped.any():
        notes.append(
            f"{dropped.sum()} runs that did not finish have a number, which is not used (first: "
            f"{table.place(int(dropped.argmax()))})"
        )
    return notes
