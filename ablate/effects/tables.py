"""The referee's table: every swap with the rest held fixed, and the facts of its caption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.effects.block import Block, Cube, blocks, root
from ablate.effects.contrasts import contrasts
from ablate.effects.signflip import EXACT_UP_TO
from ablate.version import __version__

COUNTED = ("runs", "aliased", "failed", "blocked", "missing", "unjudged")


def fixed_table(cube: Cube, *, family: Sequence[str] | None = None) -> pd.DataFrame:
    """The null control and the simple rows of `contrasts`: one swap a row, everything else held at stated levels."""
    table = contrasts(cube, family=family)
    rows = table[table["kind"] != "main"].reset_index(drop=True)
    rows.attrs = table.attrs
    return rows


def caption(cube: Cube) -> dict[str, Any]:
    """Facts that a table needs beside it. Counts are of valid organisms' runs; a fact that is unknown is None.

    Keys: ``organisms`` (behavior -> valid organisms), ``invalid`` (names), ``runs, aliased, failed, blocked,
    missing, unjudged``, ``induction_seeds``, ``seeds`` (number), ``df`` (behavior -> J - 1), ``tests``, ``pools``
    (first 6 hex digits of the sha256 of the sorted pool keys, one a line), ``version`` of this program, and from
    ``cube.attrs``: ``items``, ``evaluation``, ``digest`` of the study, ``versions``, ``limited``.
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
        "induction_seeds": sorted(set(induction)),
        "seeds": int(cube.sizes["seed"]),
        "df": {behavior: count - 1 for behavior, count in organisms.items()},
        "tests": " and ".join(dict.fromkeys(_flips(count) for count in organisms.values())),
        "pools": _digest(found),
        "version": __version__,
        "versions": dict(cube.attrs.get("versions", {})),
        "limited": bool(cube.attrs.get("limited")),
        **{key: cube.attrs.get(key) for key in ("items", "evaluation", "digest")},
    }


def _flips(organisms: int) -> str:
    return f"max-T over 2^{organisms} sign-flips" if organisms <= EXACT_UP_TO else "max-T over 10,000 random sign-flips"


def _digest(found: Sequence[Block]) -> str | None:
    keys = np.unique(np.concatenate([block.keys["key_pool"].ravel() for block in found]))
    names = [str(key) for key in keys if key]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:6] if names else None
