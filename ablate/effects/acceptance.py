"""The proof that verdicts can be trusted: error rates, coverage and bias over worlds with a known answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from ablate.effects.contrasts import contrasts
from ablate.effects.decomposition import decomposition
from ablate.effects.verdict import verdict
from ablate.effects.worlds import world
from ablate.errors import StudyError

ALPHA = 0.05
SHIFT, SELECTOR = (0.0, -10.0, -25.0), (0.0, 6.0, 15.0)
"""Planted main effects, in pp against the null level."""

ORGANISMS = (6, 8, 10)


@dataclass(frozen=True, slots=True)
class World:
    """A kind of world: what is planted in it, what a verdict there must hardly ever be, and whether shares count."""

    name: str
    planted: Mapping[str, Any]
    never: tuple[str, ...]
    shares: bool = False


FALSE = ("label_shift", "selector", "joint", "objective")
WORLDS = (
    World("nothing", {}, FALSE),
    World("organisms alone", {"org": 15, "org_shift": 8, "org_selector": 8}, FALSE),
    World("noise alone", {"org": 0, "org_shift": 0, "org_selector": 0, "noise": 10}, FALSE),
    World("nothing, skewed", {"skewed": True, "org_shift": 5, "org_selector": 5}, FALSE),
    World("nothing, runs missing", {"missing": 0.1}, FALSE),
    World("selector", {"selector": SELECTOR}, ("label_shift",)),
    World("selector, greedy has none", {"selector": SELECTOR, "frozen": ("greedy",)}, ("label_shift",)),
    World("interaction", {"interaction": {(1, 1): 15, (2, 2): 15, (1, 2): -15, (2, 1): -15}}, ("label_shift",)),
    World("label shift", {"shift": SHIFT}, ("selector",)),
    World("label shift, two seeds", {"shift": SHIFT, "seeds": 2, "run_seed": 4}, ("selector",)),
    World("label shift, skewed", {"shift": SHIFT, "skewed": True}, ("selector",)),
    World("both", {"shift": SHIFT, "selector": SELECTOR}, ("label_shift", "selector"), shares=True),
    World("label shift, organisms differ", {"shift": SHIFT, "org_selector": 8, "noise": 6}, ("selector",), shares=True),
)


def acceptance(
    simulations: int,
    *,
    organisms: Sequence[int] = ORGANISMS,
    worlds: Sequence[World] = WORLDS,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Simulate studies of three label shifts by three selectors and count what is said about them.

    Rows, for each world and number of organisms J:

    - ``false cause``: verdicts that the world does not allow; at most .05 where nothing acts, .025 of `label_shift`
      (or of the other cause) where something else does.
    - ``coverage``: 95% intervals of the main contrasts that hold the planted effect; .93 to .97, at least .92 where
      effects are skewed.
    - ``type I``: p < .05 of one contrast without effect; .04 to .06 where J >= 8 (2^-J steps allow no more
      below), at most .06 for less.
    - ``familywise``: any adjusted p < .05 where nothing acts; at most .06.
    - ``share bias``: mean estimated share of the effects minus the planted one, in worlds with two effects, and with
      one beside organisms that differ (eta squared would credit their noise), over the studies whose shares are
      identified; within .02 where J >= 10 (below that it is only reported).
    - ``share coverage``: the 95% intervals of that share which hold the planted one; .93 to .97.

    Columns: ``world, organisms, quantity, value``, the 95% Monte Carlo limits ``low, high``, ``allowed_low,
    allowed_high`` and ``passed``: False where the limits lie outside of what is allowed.

    Raises:
        StudyError: fewer than 20 simulations.
    """
    if simulations < 20:
        raise StudyError(f"simulations: {simulations} is not >= 20, rates would mean nothing")
    rows: list[dict[str, Any]] = []
    total = len(worlds) * len(organisms) * simulations
    for number, kind in enumerate(worlds):
        for size in organisms:
            counted = _Count(kind, size)
            for i in range(simulations):
                counted.study(world(1_000_003 * number + 7_919 * size + i, organisms=size, **kind.planted))
                if progress and i % 10 == 9:
                    done = (number * len(organisms) + list(organisms).index(size)) * simulations + i + 1
                    progress(done, total)
            rows += counted.rows()
    frame = pd.DataFrame(rows)
    frame.attrs["methods"] = (
        f"{simulations:,} simulated studies a row (3 label shifts x 3 selectors, one seed), 95% Monte Carlo limits; "
        "passed where they reach into what is allowed"
    )
    return frame


class _Count:
    """What was said in the simulated studies of one world."""

    def __init__(self, kind: World, organisms: int) -> None:
        self.kind, self.organisms = kind, organisms
        self.planted = {
            factor: kind.planted.get(name, (0.0, 0.0, 0.0))
            for factor, name in (("label_shift", "shift"), ("selector", "selector"))
        }
        self.null = kind.never == FALSE
        self.simulated = self.false = self.familywise = self.rejected = self.tested = 0
        self.covered: list[int] = []
        variance = {name: float(np.var(effects)) for name, effects in self.planted.items()}
        self.share = variance["label_shift"] / (sum(variance.values()) or 1.0)
        self.shares: list[float] = []  # less the planted one
        self.shares_covered = 0

    def study(self, cube: Any) -> None:
        """Everything that is said about one study."""
        [said] = verdict(cube, alpha=ALPHA, equivalence_pp=5.0, share_bar=0.5, interaction_share=0.1)
        self.simulated += 1
        self.false += said.cause in self.kind.never
        main = contrasts(cube).query("kind == 'main'")
        self.familywise += bool((main["p_adjusted"] < ALPHA).any())
        for row in cast("list[dict[str, Any]]", main.to_dict("records")):
            levels = list(cube[row["factor"]].values)
            truth = float(self.planted[row["factor"]][levels.index(row["end"])]) + self._of_interaction(row)
            if np.isfinite(row["low"]):
                self.covered.append(row["low"] <= truth <= row["high"])
        first = main.iloc[0]
        self.rejected += first["p"] < ALPHA
        if self.kind.shares:
            row = cast("list[dict[str, Any]]", decomposition(cube).query("source == 'label_shift'").to_dict("records"))[
                0
            ]
            if np.isfinite(row["effect_low"]):
                self.shares.append(row["effect_share"] - self.share)
                self.shares_covered += row["effect_low"] <= self.share <= row["effect_high"]

    def _of_interaction(self, row: Mapping[str, Any]) -> float:
        """A planted interaction here has no margin over either factor but in the cells it was planted in."""
        planted: Mapping[tuple[int, int], float] = self.kind.planted.get("interaction", {})
        axis = 0 if row["factor"] == "label_shift" else 1
        names = ("none", "greedy", "clean_view") if axis == 0 else ("first", "majority", "mean_logprob")
        return sum(effect for cell, effect in planted.items() if cell[axis] == names.index(row["end"])) / 3

    def rows(self) -> list[dict[str, Any]]:
        """One row a quantity."""
        skewed = bool(self.kind.planted.get("skewed"))
        limit = 0.05 if self.null else 0.025
        found = [
            self._rate("false cause", self.false, self.simulated, 0.0, limit),
            self._rate("coverage", sum(self.covered), len(self.covered), *((0.92, 1.0) if skewed else (0.93, 0.97))),
        ]
        if self.null and not skewed:
            least = 0.04 if self.organisms >= 8 else 0.0
            found.append(self._rate("type I", self.rejected, self.simulated, least, 0.06))
        if self.null:
            found.append(self._rate("familywise", self.familywise, self.simulated, 0.0, 0.06))
        if self.shares:
            found += [self._bias(), self._rate("share coverage", self.shares_covered, len(self.shares), 0.93, 0.97)]
        return found

    def _rate(self, quantity: str, count: int, of: int, low: float, high: float) -> dict[str, Any]:
        from scipy.stats import binomtest

        limits = binomtest(int(count), of).proportion_ci(method="wilson")
        return self._row(quantity, count / of, limits.low, limits.high, low, high)

    def _bias(self) -> dict[str, Any]:
        bias = np.array(self.shares)
        error = 1.96 * bias.std(ddof=1) / np.sqrt(len(bias))
        allowed = 0.02 if self.organisms >= 10 else 1.0
        return self._row("share bias", float(bias.mean()), bias.mean() - error, bias.mean() + error, -allowed, allowed)

    def _row(self, quantity: str, value: float, low: float, high: float, least: float, most: float) -> dict[str, Any]:
        return {
            "world": self.kind.name,
            "organisms": self.organisms,
            "quantity": quantity,
            "value": value,
            "low": low,
            "high": high,
            "allowed_low": least,
            "allowed_high": most,
            "passed": bool(low <= most and high >= least),
        }
