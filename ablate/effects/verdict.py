"""The cause that a study may name, past declared gates, and what would change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np

from ablate.bars import ALPHA, EQUIVALENCE_PP, INTERACTION_SHARE, SHARE_BAR
from ablate.effects import sentences, words
from ablate.effects.block import Block, Cube, blocks, require, root
from ablate.effects.evidence import Evidence, Lead, collect
from ablate.effects.families import Family, declared
from ablate.effects.intervals import tost
from ablate.effects.signflip import smallest_p
from ablate.errors import StudyError

Cause = Literal["label_shift", "selector", "joint", "objective", "none", "undetermined"]
SAME_SIGN = 0.75
"""Share of organisms that must go the way of the mean."""


class Gate(NamedTuple):
    """One condition of a verdict, with the numbers it was judged by."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause assigned to one behavior; ``gates`` are all conditions that were looked at."""

    behavior: str
    cause: Cause
    sentence: str
    gates: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The declared limits: ``alpha`` of the tests, ``equivalence_pp`` for `none`, the lower limit a share must
    pass (``share_bar``) and the one below which a share is negligible (``interaction_share``)."""

    alpha: float
    equivalence_pp: float
    share_bar: float
    interaction_share: float
    family: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "share_bar", "interaction_share"):
            if not 0 < getattr(self, name) < 1:
                raise StudyError(f"analysis.{name}: {getattr(self, name)} is not in (0, 1)")
        if not self.equivalence_pp > 0:
            raise StudyError(f"analysis.equivalence_pp: {self.equivalence_pp} is not > 0")


def verdict(
    cube: Cube,
    family: Family = None,
    *,
    alpha: float = ALPHA,
    equivalence_pp: float = EQUIVALENCE_PP,
    share_bar: float = SHARE_BAR,
    interaction_share: float = INTERACTION_SHARE,
) -> list[Verdict]:
    """Name for each behavior the mechanism that changed it, or say why none can be named.

    All inference is over organisms. Gates of a factor (label_shift, selector, objective), read from its leading
    main contrast (the largest of those below ``alpha``, see `contrasts`):

    - adjusted p: max-T sign-flip p < ``alpha`` in the confirmatory family
    - share: the 95% interval of its share of the effects together (see `decomposition`) lies above ``share_bar``
    - same sign: at least 75% of organisms go the way of the mean, and so does the mean without any one organism
    - logit scale: on logit(risk), clipped by 1/(2 items), the same sign and sign-flip p < ``alpha``
    - unjudged answers: the same sign when all of them count as aligned, and when all count as misaligned
    - missing runs: the same sign with their risks at 0 and 1 in the worst and in the best way (see `missing.bounds`)
    - interaction (of the study): TOST shows its share of the effects to be below ``interaction_share``

    A factor *acts* when it passes the p gate and its share is not shown to be below ``interaction_share``.
    Decision: `none` when every main contrast's 95% interval lies inside +-``equivalence_pp`` and TOST puts every
    interaction contrast there too, and missing runs cannot move a main effect out; `joint` when two factors act, or one
    does and the interaction gate fails, each past the sign, logit, unjudged and missing gates; a single cause when it
    passes all; else `undetermined`. So it is below the number of organisms with which a p < ``alpha`` exists, and for
    a limited study. Where failing depends on the level of a factor (`missing.failure_check`, p < ``alpha``) the gate
    ``failures`` fails and the sentence says so; it is the bounds that decide.

    ``family`` is what is confirmatory: factors (all their main contrasts) and single contrasts as `contrasts` names
    them, in a sequence, or factors in one text with commas. Where None it is ``cube.attrs["family"]``, what the
    study declared, else every main contrast of label_shift, selector and objective. Limits default to those of the
    `analysis` section of a study.

    The probability of naming any cause (`joint` included) where nothing acts is at most ``alpha``: the p gate alone
    sees to that.

    ``cube.attrs``: ``limited`` (no result), ``items`` (evaluation items for risk, a number or behavior -> number;
    counted in the cube's group ``items`` where the whole cube is given).

    Raises:
        StudyError: limits out of range, an unknown row in ``family``, or a cube that cannot be read.
    """
    cube = root(cube)
    rows = declared(cube, cube.attrs.get("family") if family is None else family)
    rules = Rules(alpha, equivalence_pp, share_bar, interaction_share, rows)
    return [_judge(block, cube, rules) for block in blocks(cube)]


def items_of(cube: Cube, behavior: str) -> int | None:
    """Evaluation items of a behavior in ``attrs["items"]``; None where it does not."""
    items = cube.attrs.get("items")
    items = items.get(behavior) if isinstance(items, dict) else items
    return None if items is None else int(items)


def _judge(block: Block, cube: Cube, rules: Rules) -> Verdict:
    organisms = block.counts["organisms"]
    enough = Gate("organisms", smallest_p(organisms) < rules.alpha, sentences.smallest(organisms))
    whole = Gate(
        "whole study", not cube.attrs.get("limited"), "limited" if cube.attrs.get("limited") else "not limited"
    )
    gates = (enough, whole)
    if not whole.passed:
        return Verdict(block.behavior, "undetermined", sentences.limited(), gates)
    if not enough.passed:
        return Verdict(block.behavior, "undetermined", sentences.too_few(organisms, rules.alpha), gates)
    try:
        require(block)
        evidence = collect(
            block,
            alpha=rules.alpha,
            equivalence_pp=rules.equivalence_pp,
            items=items_of(cube, block.behavior),
            family=rules.family,
        )
    except StudyError as fault:
        if rules.family is not None and str(fault).startswith("analysis.family"):
            raise
        return Verdict(block.behavior, "undetermined", f"undetermined: {fault}.", gates)
    return _decide(block, evidence, rules, gates)


def _decide(block: Block, evidence: Evidence, rules: Rules, before: tuple[Gate, ...]) -> Verdict:
    by_factor = {lead.factor: _factor_gates(lead, evidence, rules) for lead in evidence.leads.values()}
    interaction, none = _interaction_gate(evidence, rules), _none_gate(evidence, rules)
    failures = _failures(evidence, rules)
    gates = (*before, *(gate for own in by_factor.values() for gate in own.values()), interaction, none, failures)
    story = sentences.Story(
        block, evidence, rules.alpha, rules.equivalence_pp, rules.share_bar, rules.interaction_share
    )

    def say(cause: Cause, sentence: str) -> Verdict:
        return Verdict(block.behavior, cause, sentence + story.failing(), gates)

    if none.passed:
        return say("none", story.none())
    if not evidence.leads:
        return say("undetermined", story.nothing_tested())
    passed = [factor for factor, own in by_factor.items() if own["adjusted p"].passed]
    if not passed:
        return say("undetermined", story.nothing_seen(none.detail))
    acting = [f for f in passed if not evidence.share(f).high < rules.interaction_share] or passed
    unstable = [gate for f in acting for name, gate in by_factor[f].items() if name in _STABLE and not gate.passed]
    if unstable:
        return say("undetermined", story.unsettled(acting, unstable[0].name, unstable[0].detail))
    if len(acting) > 1:
        return say("joint", story.both(acting, interaction.passed))
    [factor] = acting
    if not evidence.shares:
        return say("undetermined", story.unsettled(acting, "shares", evidence.no_shares))
    if not interaction.passed:
        return say("joint", story.entangled(factor))
    if not (share := by_factor[factor]["share"]).passed:
        return say("undetermined", story.unsettled(acting, share.name, share.detail))
    return say(cast(Cause, factor), story.single(factor))


_STABLE = ("same sign", "logit scale", "unjudged answers", "missing runs")


def _factor_gates(lead: Lead, evidence: Evidence, rules: Rules) -> dict[str, Gate]:
    share = evidence.share(lead.factor)
    gates = {
        "adjusted p": (
            lead.confirmatory and lead.p_adjusted < rules.alpha,
            f"{lead.said}, {words.p_equals(lead.p_adjusted)}"
            + ("" if lead.confirmatory else ", not in the declared family"),
        ),
        "share": (
            share.low > rules.share_bar,
            f"share {words.share(share)}, bar {words.fraction(rules.share_bar)}"
            if evidence.shares
            else evidence.no_shares,
        ),
        "same sign": _same_sign(lead),
        "logit scale": _logit(lead, rules.alpha),
        "unjudged answers": _counted(lead),
        "missing runs": _missing(lead),
    }
    return {name: Gate(f"{lead.factor}: {name}", bool(passed), detail) for name, (passed, detail) in gates.items()}


def _same_sign(lead: Lead) -> tuple[bool, str]:
    d, sign = lead.differences, np.sign(lead.effect.estimate)
    agree = float((np.sign(d) == sign).mean())
    without = (d.sum() - d) / (d.size - 1)
    turned = int((np.sign(without) != sign).sum())
    detail = f"{round(agree * d.size)} of {d.size} organisms go the way of the mean"
    detail += f"; without one organism it turns {turned} times" if turned else "; no single organism turns it"
    return agree >= SAME_SIGN and turned == 0, detail


def _logit(lead: Lead, alpha: float) -> tuple[bool, str]:
    if np.isnan(lead.logit):
        return False, "no logit: a risk is 0 or 1 and the cube does not state its items, or risks are missing"
    same = np.sign(lead.logit) == np.sign(lead.effect.estimate)
    return bool(
        same and lead.p_logit < alpha
    ), f"{words.signed(lead.logit, 2)} on the logit scale, {words.p_equals(lead.p_logit)}"


def _counted(lead: Lead) -> tuple[bool, str]:
    if not lead.counted:
        return True, "the cube names no answer that was not judged"
    same = all(np.sign(value) == np.sign(lead.effect.estimate) for value in lead.counted.values())
    return same, ", ".join(
        f"{words.signed(value)} pp if they all count as {how}" for how, value in lead.counted.items()
    )


def _missing(lead: Lead) -> tuple[bool, str]:
    bounds, sign = lead.bounds, np.sign(lead.effect.estimate)
    if not bounds["missing"]:
        return True, "no run is missing"
    same = all(np.sign(bounds[side]) == sign for side in ("bound_low", "bound_high"))
    tipping = bounds["tipping_pp"]
    detail = f"{words.count(bounds['missing'], 'run')} missing: between {words.signed(bounds['bound_low'])} and "
    detail += f"{words.signed(bounds['bound_high'])} pp whatever they would have been"
    if np.isinf(tipping):
        detail += "; no tipping point up to 100 pp off the others"
    elif tipping:
        detail += f"; tipping point: {words.signed(tipping)} pp off the others"
    return same, detail


def _failures(evidence: Evidence, rules: Rules) -> Gate:
    related = {factor: p for factor, p in evidence.failing.items() if p < rules.alpha}
    shown = ", ".join(f"by {factor} {words.p_equals(p)}" for factor, p in evidence.failing.items())
    return Gate("failures", not related, f"failing {shown}" if shown else "no run is missing")


def _interaction_gate(evidence: Evidence, rules: Rules) -> Gate:
    name, bar = "interaction", words.fraction(rules.interaction_share)
    if not evidence.shares:
        return Gate(name, False, evidence.no_shares)
    if "interaction" not in evidence.shares:
        return Gate(name, True, "no second mechanism that could act was swapped, there is nothing to interact with")
    p = tost(evidence.shares["interaction"], rules.interaction_share)
    shown = words.share(evidence.share("interaction"))
    return Gate(name, p < rules.alpha, f"interaction share {shown}, bar {bar}, TOST {words.p_equals(p)}")


def _none_gate(evidence: Evidence, rules: Rules) -> Gate:
    bound = rules.equivalence_pp
    outside = [interval for interval in evidence.mains if not interval.within(bound)]
    apart = [p for p in evidence.interaction_pp if not p < rules.alpha]
    where = f"+-{bound:g} pp"
    detail = f"{len(outside)} of {len(evidence.mains)} main effects and {len(apart)} of {len(evidence.interaction_pp)} "
    detail += f"interaction contrasts are not shown to lie inside {where}"
    moved = [extreme for extreme in evidence.extremes if not extreme.within(bound)]
    if moved:
        detail += f", and the missing runs could move {words.count(len(moved), 'main effect')} out of it"
    return Gate("none", bool(evidence.mains) and not outside and not apart and not moved, detail)
