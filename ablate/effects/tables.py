"""The referee's table: every swap with the rest held fixed, and the facts of its caption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.effects.block import Block, Cube, blocks, mean, root
from ablate.effects.contrasts import contrasts
from ablate.version import __version__

COUNTED = ("runs", "aliased", "failed", "blocked", "missing", "unjudged")


def fixed_table(cube: Cube, *, family: Sequence[str] | None = None) -> pd.DataFrame:
    """The null control and the simple rows of `contrasts`: one swap a row, everything else held at stated levels."""
    table = contrasts(cube, family=family)
    rows = table[table["kind"].isin(["null control", "simple"])].reset_index(drop=True)
    rows.attrs = table.attrs
    return rows


def caption(cube: Cube) -> dict[str, Any]:
    """Facts that a table needs beside it. Counts are of valid organisms' runs; a fact that is unknown is None.

    Keys: ``organisms`` (behavior -> valid organisms), ``invalid`` (names), ``runs, aliased, failed, blocked,
    missing, unjudged``, ``induction_seeds``, ``seeds`` (number), ``unparsed`` (share of answers that could not be
    judged, before and after training, mean over runs), ``pools`` (first 6 hex digits of the sha256 of the sorted pool
    keys, one a line), ``version`` of this program, and from ``cube.attrs``: ``items``, ``evaluation``, ``digest`` of
    the study, ``versions``, ``limited``. How a table was computed stands in its own ``.attrs["methods"]``.
    """
    cube = root(cube)
    found = blocks(cube)
    valid = cube["valid_organism"].values == 1
    organisms = {block.behavior: block.counts["organisms"] for block in found}
    induction = cube["induction_seed"].values[valid].tolist() if "induction_seed" in cube else []
    facts: dict[str, Any] = {key: sum(block.counts[key] for block in found) for key in COUNTED}
    return facts | {
        "organisms": organisms,
        "invalid": [str(name) for name in cube["organism"].values[~valid]],
        "induction_seeds": sorted({seed for seed in induction if seed != ""}),
        "seeds": int(cube.sizes["seed"]),
        "unparsed": _unparsed(found),
        "pools": _digest(found),
        "version": __version__,
        "versions": dict(cube.attrs.get("versions", {})),
        "limited": bool(cube.attrs.get("limited")),
        **{key: cube.attrs.get(key) for key in ("items", "evaluation", "digest")},
    }


def _unparsed(found: Sequence[Block]) -> dict[str, float] | None:
    known = [block.unjudged for block in found if block.unjudged]
    if not known:
        return None
    return {when: float(mean(np.concatenate([own[when].ravel() for own in known]), axis=0)) for when in known[0]}


def _digest(found: Sequence[Block]) -> str | None:
    keys = np.unique(np.concatenate([block.keys["key_pool"].ravel() for block in found]))
    names = [str(key) for key in keys if key]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:6] if names else None
