"""What the hashes of a cube's runs prove: which artifact each run read, and that swaps held fixed what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablate.cube import runs_frame
from ablate.effects.words import count
from ablate.reports.html import PROOF_ROWS, Proof

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

KEYS = ("key_organism", "key_pool", "key_labels", "key_train")
LABELING = ("label_shift", "selector")
"""What trainings do not depend on but through the labels."""


def proof(tree: xr.DataTree) -> Proof:
    """The claims that the hashes support or refute, and the hashes themselves, runs of one pool together.

    Runs without a key (those that failed before) are left out of the claim about it.
    """
    data = tree.to_dataset()
    dims = [str(dim) for dim in data["status"].dims]
    frame = runs_frame(tree, {*dims, "status", *KEYS})
    if not set(KEYS) & set(frame):
        return Proof([], [], [], 0)
    varying = [dim for dim in dims if data.sizes[dim] > 1 or dim == "organism"]
    for key in KEYS:
        frame[key] = frame.get(key, "")
    # runs of one pool stand together, whatever else they differ by
    ordered = frame.sort_values(["organism", "key_pool", *varying[1:]], kind="stable", key=_places)
    shown = ordered.head(PROOF_ROWS)
    runs = [
        {
            "levels": [str(row[dim]) for dim in varying],
            "status": row["status"],
            "pool": row["key_pool"],
            "labels": row["key_labels"],
            "train": row["key_train"],
            "span": span,
        }
        for row, span in zip(shown.to_dict("records"), _spans(shown["key_pool"].tolist()), strict=True)
    ]
    return Proof(_claims(frame, varying), varying, runs, len(frame))


def _places(levels: pd.Series) -> pd.Series:
    """Levels by where they first stand: the order of the study, not of the alphabet."""
    return levels.map({level: place for place, level in enumerate(dict.fromkeys(levels.tolist()))})


def _spans(pools: list[str]) -> list[int]:
    """How many rows from each on have its pool; 0 where the row before has it too."""
    spans, start = [0] * len(pools), 0
    for i, pool in enumerate(pools):
        if pool != pools[start]:
            start = i
        spans[start] += 1
    return spans


def _claims(frame: pd.DataFrame, varying: list[str]) -> list[tuple[bool, str]]:
    """Each with whether it holds. What is not swapped makes no claim."""
    claims = []
    if len(own := frame[frame["key_organism"] != ""]):
        holds, of = _one_each(own, "key_organism", ["organism"])
        claims.append(
            (holds, f"All runs of an organism start from one adapter ({of} organisms, {count(len(own), 'run')}).")
        )
    if "selector" in varying and len(own := frame[frame["key_pool"] != ""]):
        holds, of = _one_each(own, "key_pool", [dim for dim in varying if dim != "selector"])
        pools = f"{count(own['key_pool'].nunique(), 'pool')} for {count(len(own), 'run')}"
        claims.append((holds, f"All selectors read the same pool, with all else held fixed ({of} settings, {pools})."))
    if len(own := frame[(frame["key_train"] != "") & (frame["key_labels"] != "")]):
        holds, of = _one_each(own, "key_train", [*(dim for dim in varying if dim not in LABELING), "key_labels"])
        aliased = count(int((own["status"] == "aliased").sum()), "run")
        trainings = count(own["key_train"].nunique(), "training")
        claims.append(
            (holds, f"Identical labels are trained on once ({of} sets of labels, {trainings}, {aliased} aliased).")
        )
    return claims


def _one_each(frame: pd.DataFrame, key: str, by: list[str]) -> tuple[bool, str]:
    """Whether all runs that agree on ``by`` have one ``key``, and in how many of how many groups they do."""
    groups = frame.groupby(by)[key].nunique()
    one = int((groups == 1).sum())
    return one == len(groups), f"{one} of {len(groups)}"
