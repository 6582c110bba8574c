"""Which of its own mechanisms does what a method does: a sentence with the numbers, and a cause."""

from __future__ import annotations

import math

import pandas as pd
import xarray as xr

from ablate.bars import ALPHA
from ablate.effects import words
from ablate.effects.block import root
from ablate.effects.families import Family
from ablate.effects.intervals import Interval
from ablate.effects.methods import isolated, methods
from ablate.effects.sentences import NOUNS, limited
from ablate.effects.verdict import Verdict, verdict
from ablate.records import METHOD_NAME


def method_verdicts(cube: xr.DataTree, family: Family = None, **bars: float) -> list[Verdict]:
    """A verdict for each method, behavior and setting: its split in a sentence, then the cause by `verdict`.

    Each method is a question of its own: the confirmatory family is that of its runs at that setting, and nothing is
    adjusted for the number of methods. Where methods were run as a whole there is no cause to name. A behavior of
    which no number can be given is undetermined, with the reason.

    Raises:
        StudyError: what `methods`, `isolated` and `verdict` refuse.
    """
    data = root(cube)
    split = data.sizes["label_shift"] > 1
    table = isolated(cube) if split else methods(cube)
    settings = list(table.columns[: list(table.columns).index("method")])[1:]
    found = []
    for (method, behavior, *place), own in table.groupby(["method", "behavior", *settings], sort=False):
        about = ", ".join(map(str, (method, behavior, *place)))
        if data.attrs.get("limited"):
            found.append(Verdict(about, "undetermined", limited(), ()))
        elif not split:
            found.append(
                Verdict(about, "undetermined", _whole(own.iloc[0], int((table["behavior"] == behavior).sum())), ())
            )
        else:
            point = dict(zip((METHOD_NAME, *settings), map(str, (method, *place)), strict=True))
            here = {dim: [[str(name) for name in data[dim].values].index(level)] for dim, level in point.items()}
            cause = next(v for v in verdict(data.isel(here), family, **bars) if v.behavior == behavior)
            said = _split(own, data.sizes[METHOD_NAME], bars.get("alpha", ALPHA))
            found.append(Verdict(about, cause.cause, f"{said} {cause.sentence}", cause.gates))
    refused = table.attrs.get("refused", {})
    return found + [Verdict(name, "undetermined", f"undetermined: {why}.", ()) for name, why in refused.items()]


def _whole(row: pd.Series, tests: int) -> str:
    """A method that was run as one block."""
    method = str(row["method"])
    if math.isnan(row["effect_pp"]):
        return f"undetermined: {_unknown(row)}"
    count = words.count(int(row["organisms"]), "organism")
    tested = "no test" if math.isnan(row["p"]) else f"sign-flip {words.p_equals(row['p_adjusted'])}, max-T over {tests}"
    return (
        f"undetermined: the effect of {method} on {_words(row['behavior'])} is {_effect(row)} ({count}, {tested}); its "
        f"mechanisms were not swapped. `ablate isolate {method.partition('(')[0]}` would tell which does it."
    )


def _split(rows: pd.DataFrame, number: int, alpha: float) -> str:
    """The sentence that a reader may quote of one method and behavior; what is not shown is called estimated."""
    total, *parts = (row for _, row in rows[rows["kind"] != "interaction"].iterrows())
    method, behavior = str(total["method"]), _words(total["behavior"])
    if not parts:
        return f"{method} has no mechanism that acts here."
    if math.isnan(total["effect_pp"]):
        return _unknown(total)
    tested = f"{words.count(int(total['organisms']), 'organism')}, sign-flip {words.p_equals(total['p'])}"
    said = (
        f"{method} changes {behavior} by {_effect(total)} ({tested}), of which"
        if total["p"] < alpha
        else f"No effect of {method} on {behavior} is shown ({_effect(total)}, {tested}); estimated parts:"
    )
    shares = []
    for row in parts:
        shown = "" if row["p_adjusted"] < alpha else ", not shown"
        named = " ".join(filter(None, (NOUNS[row["part"]], str(row["level"]))))
        shares.append(f"{named} {_effect(row).replace(' pp', '')} ({words.p_equals(row['p_adjusted'])}{shown})")
    family = f"max-T over {words.count(len(parts), 'mechanism')}"
    apart = f"; one of {number} methods, each a question of its own" if number > 1 else ""
    return f"{said} {words.listed(shares)} (averages over the orders of adding them, {family}{apart})."


def _unknown(row: pd.Series) -> str:
    count = words.count(int(row["organisms"]), "organism")
    return f"The effect of {row['method']} on {_words(row['behavior'])} is not known: {count} with all of its runs."


def _effect(row: pd.Series) -> str:
    return words.effect(Interval(row["effect_pp"], row["low"], row["high"]))


def _words(behavior: object) -> str:
    return str(behavior).replace("_", " ")
