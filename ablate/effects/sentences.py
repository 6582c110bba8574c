"""The verdict in words, with its numbers, its n and what would change it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.api import FloatArray
from ablate.effects import words
from ablate.effects.block import Block
from ablate.effects.evidence import Evidence, Lead
from ablate.effects.intervals import tost
from ablate.effects.power import Design, Variances, organisms_needed
from ablate.effects.signflip import smallest_p

NOUNS = {"label_shift": "the label shift", "selector": "the selector", "objective": "the objective"}


def smallest(organisms: int) -> str:
    """``the smallest p is 2/2^4 = .125``."""
    return f"the smallest p is 2/2^{organisms} = {words.p_value(smallest_p(organisms))}"


def too_few(organisms: int, alpha: float) -> str:
    """No verdict at this level is possible with so few organisms."""
    needed = next(n for n in range(1, 100) if smallest_p(n) < alpha)
    return (
        f"undetermined: no {100 * alpha:g}% verdict is possible with {words.count(organisms, 'valid organism')}, "
        f"because {smallest(organisms)}. {needed - organisms} more would make one possible."
    )


def limited() -> str:
    """A limited study is no result."""
    return "undetermined: the study was limited, so its numbers are not a result. The whole study would tell."


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """One behavior's evidence with the limits it was judged by; each method words one verdict."""

    block: Block
    evidence: Evidence
    alpha: float
    equivalence_pp: float
    share_bar: float
    interaction_share: float

    @property
    def behavior(self) -> str:
        """The behavior as a word of a sentence."""
        return self.block.behavior.replace("_", " ")

    @property
    def bar(self) -> str:
        """The negligible share, written."""
        return words.fraction(self.interaction_share)

    def none(self) -> str:
        """Every effect is shown to be smaller than the equivalence bound."""
        lead = self._largest()
        return (
            f"none: nothing that was swapped changes {self.behavior} by as much as {self.equivalence_pp:g} pp "
            f"(largest: {lead.said}, {self._n(lead)}). A bound below "
            f"{max(max(-i.low, i.high) for i in self.evidence.mains):.1f} pp would leave it undetermined."
        )

    def failing(self) -> str:
        """What a reader must know where failing goes with a factor; empty where it does not."""
        related = [f"{factor} ({words.p_equals(p)})" for factor, p in self.evidence.failing.items() if p < self.alpha]
        if not related:
            return ""
        return f" Failed runs are not spread evenly over the levels of {words.listed(related)}."

    def nothing_tested(self) -> str:
        """Nothing that was swapped could act, or too little of it was run."""
        return (
            f"undetermined: no swap could be tested on {self.behavior}: each left the same labels as its null level, "
            "or fewer than 2 organisms have both runs."
        )

    def nothing_seen(self, reason: str) -> str:
        """No effect is seen, and none is ruled out."""
        lead = self._largest()
        declared = "" if lead.confirmatory else ", not in the declared family"
        return (
            f"undetermined: no swap is shown to change {self.behavior} (largest: {lead.said}"
            f", {self._tested(lead)}{declared}), and {reason}. {self._needed(lead)}"
        )

    def unsettled(self, factors: list[str], gate: str, detail: str) -> str:
        """An effect is seen, but a gate fails."""
        lead = self.evidence.leads[factors[0]]
        return (
            f"undetermined: {self._nouns(factors)} {self._verb(factors)} {self.behavior} on average ({lead.said}"
            f", {self._tested(lead)}), but a gate is not passed: {gate} ({detail}). "
            f"{self._more(lead, gate)}"
        )

    def both(self, factors: list[str], separate: bool) -> str:
        """Several factors act."""
        worst = max((self.evidence.leads[factor] for factor in factors), key=lambda lead: lead.p_adjusted)
        found = self._interaction()
        linked = "" if separate or not found else ", and the effect of one depends on the other"
        if linked and self.evidence.share("interaction").low <= 0:
            linked = ", and it is not shown that the effect of one does not depend on the other"
        parts = "; ".join(self._effect_and_share(factor) for factor in factors)
        also = "" if separate or not found else f", and the interaction too; {self._interaction_needs()}"
        others = self._nouns(factors[1:])
        return (
            f"joint: {self._nouns(factors)} each change {self.behavior}{linked} "
            f"({parts}; {found}{self._tested(worst)}). "
            f"For `{factors[0]}` alone the share of {others} would have to be below {self.bar}{also}."
        )

    def entangled(self, factor: str) -> str:
        """One factor acts, but its interaction is not shown to be negligible."""
        lead = self.evidence.leads[factor]
        others = self._nouns([name for name in self.evidence.leads if name != factor])
        return (
            f"joint: {NOUNS[factor]} changes {self.behavior}, but what it does alone cannot be told from what it does "
            f"together with {others} ({self._effect_and_share(factor)}; {self._interaction()}{self._tested(lead)}). "
            f"For `{factor}` alone the interaction would have to be below {self.bar}; {self._interaction_needs()}."
        )

    def single(self, factor: str) -> str:
        """One cause, past every gate."""
        lead = self.evidence.leads[factor]
        others = [name for name in self.evidence.leads if name != factor]
        whatever = self._inert() if factor == "selector" else ""
        change = (
            "; ".join(self._minor(other) for other in others)
            if others
            else f"Nothing else that acts was swapped; it stands for {self._held(factor)}"
        )
        return (
            f"{factor}: {NOUNS[factor]} changes {self.behavior}{whatever} ({self._effect_and_share(factor)}; "
            f"{self._interaction(shown_small=True)}{self._tested(lead)}). {change}."
        )

    def _minor(self, factor: str) -> str:
        """What a factor did that is not called the cause."""
        lead = self.evidence.leads[factor]
        share = words.share(self.evidence.share(factor))
        acts = (
            f"acts too, but its share {share} is below {self.bar}"
            if lead.p_adjusted < self.alpha
            else "is not shown to act"
        )
        noun = NOUNS[factor]
        more = f"; {self._would_show(lead)}" if lead.p_adjusted >= self.alpha else ""
        return f"{noun[0].upper()}{noun[1:]} {acts} (largest: {lead.said}{more})"

    def _effect_and_share(self, factor: str) -> str:
        lead = self.evidence.leads[factor]
        return f"{lead.said}, {factor} share {words.share(self.evidence.share(factor))}"

    def _inert(self) -> str:
        inert = self.evidence.inert
        return f" (under {words.listed(list(inert))} it cannot act: identical labels)" if inert else ""

    def _interaction(self, *, shown_small: bool = False) -> str:
        if "interaction" not in self.evidence.shares:
            return ""
        p = tost(self.evidence.shares["interaction"], self.interaction_share)
        below = f" (TOST below {self.bar}: {words.p_equals(p)})" if shown_small else ""
        return f"interaction share {words.share(self.evidence.share('interaction'))}{below}, "

    def _interaction_needs(self) -> str:
        now = self.evidence.share("interaction", 1 - 2 * self.alpha)
        if now.low >= self.interaction_share:
            return "with these organisms it is above"
        values = self.evidence.shares["interaction"]
        needed = _organisms(values, self.interaction_share - now.estimate, 2 * self.alpha)  # TOST is one-sided
        if needed is None:
            return "more than 999 organisms would be needed to tell"
        return f"{words.count(max(needed - len(values), 1), 'more organism')} would tell"

    def _needed(self, lead: Lead) -> str:
        if not lead.confirmatory:
            return "A study that declares it beforehand would tell."
        chosen = f" It is the largest of {lead.among}, so rather more." if lead.among > 1 else ""
        would = self._would_show(lead)
        return f"{would[0].upper()}{would[1:]}.{chosen}"

    def _would_show(self, lead: Lead) -> str:
        """How many organisms more the family of main contrasts needs for this effect; nothing is simulated."""
        family = len(self.evidence.mains)
        needed = _organisms(lead.differences, lead.effect.estimate, self.alpha, family)
        if needed is None:
            return "no number of organisms below 1,000 would show an effect of this size"
        found = words.count(max(needed - lead.differences.size, 1), "more organism")
        return f"about {found} would show an effect of this size at 80% power in {words.count(family, 'contrast')}"

    def _more(self, lead: Lead, gate: str) -> str:
        if gate.endswith("missing runs"):
            return "The missing runs would tell; the same command tries them again."
        if gate.endswith("share"):
            values = self.evidence.shares[lead.factor]
            needed = _organisms(values, max(float(values.mean()) - self.share_bar, 0.0), self.alpha)
            if needed is not None:
                return f"About {words.count(max(needed - values.size, 1), 'more organism')} would tell."
        return f"More organisms than {lead.differences.size}, or a design without this gap, would tell."

    def _largest(self) -> Lead:
        return max(self.evidence.leads.values(), key=lambda lead: abs(lead.effect.estimate))

    def _held(self, factor: str) -> str:
        held = [
            f"{name} = {levels[0]}" for name, levels in self.block.levels.items() if name != factor and len(levels) == 1
        ]
        return words.listed(held) if held else "the declared levels"

    def _nouns(self, factors: list[str]) -> str:
        return words.listed([NOUNS[factor] for factor in factors])

    def _verb(self, factors: list[str]) -> str:
        return "changes" if len(factors) == 1 else "change"

    def _n(self, lead: Lead) -> str:
        organisms = words.count(int(np.isfinite(lead.differences).sum()), "organism")
        return f"{organisms}, {words.count(self.block.counts['runs'], 'run')}"

    def _tested(self, lead: Lead) -> str:
        how = "max-T" if lead.confirmatory else "BH"
        return f"{self._n(lead)}, {how} sign-flip {words.p_equals(lead.p_adjusted)}"


def _organisms(values: FloatArray, distance: float, alpha: float, contrasts: int = 1) -> int | None:
    """Organisms with which a t-test of the mean of ``values`` [organism] sees ``distance`` with 80% power."""
    variance = float(values[np.isfinite(values)].var(ddof=1))
    if not variance > 0 or not np.isfinite(distance):
        return None
    return organisms_needed(Variances(variance), distance, Design(alpha=alpha, contrasts=contrasts, test="t"))
