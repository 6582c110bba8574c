import re
from collections import Counter

import numpy as np
import pytest

from ablate.effects import bounds, contrasts, verdict
from ablate.effects.intervals import t_interval
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError
from ablate.options import Analysis

RULES = {"alpha": 0.05, "equivalence_pp": 5.0, "share_bar": 0.5, "interaction_share": 0.1}


def judge(cube, **rules):
    [found] = verdict(cube, **(RULES | rules))
    return found


def causes(worlds, **kwargs):
    return Counter(judge(world(seed, **kwargs)).cause for seed in range(worlds))


def gates(found):
    return {gate.name: gate.passed for gate in found.gates}


class TestSimulation:
    """Error rates over worlds with a known answer."""

    def test_no_effect_is_hardly_ever_a_cause(self):
        seen = causes(150, organisms=7)
        false = 150 - seen["none"] - seen["undetermined"]
        assert false <= 150 * 0.05 + 2 * np.sqrt(150 * 0.05 * 0.95)

    def test_differences_between_organisms_are_no_cause(self):
        seen = causes(150, organisms=7, org=15, org_shift=8, org_selector=8)
        false = 150 - seen["none"] - seen["undetermined"]
        assert false <= 150 * 0.05 + 2 * np.sqrt(150 * 0.05 * 0.95)
        assert seen["none"] == 0

    @pytest.mark.parametrize("frozen", [(), ("greedy",)])
    @pytest.mark.parametrize(("factor", "other"), [("label_shift", "selector"), ("selector", "label_shift")])
    def test_one_mechanism_is_named_and_never_the_other(self, factor, other, frozen):
        effects = {"label_shift": "shift", "selector": "selector"}
        seen = causes(40, organisms=8, frozen=frozen, **{effects[factor]: (0, 8, 20)})
        assert seen[factor] >= 32
        assert seen[other] == 0

    def test_two_mechanisms_are_joint(self):
        seen = causes(30, organisms=8, shift=(0, -10, -25), selector=(0, 5, 20))
        assert seen["joint"] >= 27
        assert seen["label_shift"] + seen["selector"] == 0

    def test_limits_of_the_largest_of_several_hold_it(self):
        """Five label shifts of -10 pp: the largest is too large, and its own 95% limits would hold -10 in .85."""
        shifts, held = ("none", "a", "b", "c", "d", "e"), 0
        for seed in range(120):
            cube = world(seed, organisms=6, shifts=shifts, shift=(0, *[-10] * 5), org_shift=6, selectors=("first",))
            detail = next(gate.detail for gate in judge(cube).gates if gate.name == "label_shift: adjusted p")
            low, high = map(float, re.search(r"\[(.*), (.*)\], limits for the largest of 5", detail).groups())
            held += low <= -10 <= high
        assert held >= 120 * 0.95 - 2 * np.sqrt(120 * 0.95 * 0.05)

    def test_an_objective_is_named(self):
        seen = causes(15, organisms=8, objectives=("sft", "bct"), objective=(0, 15))
        assert seen["objective"] >= 13

    def test_an_objective_is_named_where_one_selector_is_held(self):
        seen = causes(15, organisms=8, selectors=("first",), objectives=("sft", "bct"), objective=(0, 15))
        assert seen["objective"] >= 13

    def test_a_label_shift_that_needs_the_objective_is_no_single_cause(self):
        seen = Counter()
        for seed in range(10):
            cube = world(seed, organisms=8, selectors=("first",), objectives=("sft", "bct"), objective=(0, 0))
            both = (cube["label_shift"] == cube["label_shift"][1]) & (cube["objective"] == "bct")
            moved = cube.assign({name: cube[name] - 0.25 * both for name in ("risk_after", "risk_delta")})
            seen[judge(moved.transpose(*cube["risk_delta"].dims, ...)).cause] += 1
        assert seen["label_shift"] + seen["objective"] + seen["none"] == 0
        assert seen["joint"] >= 8

    def test_small_effects_of_precise_organisms_are_none(self):
        assert causes(20, organisms=8, org_shift=0.5, org_selector=0.5, noise=0.7, shift=(0, 1, 1)) == {"none": 20}


class TestGates:
    clear = world(1, organisms=8, shift=(0, -10, -30))

    def test_a_clear_cause_passes_all(self):
        found = judge(self.clear)
        assert found.cause == "label_shift"
        own = {name: passed for name, passed in gates(found).items() if "selector" not in name and name != "none"}
        assert all(own.values())
        assert list(own) == [
            "organisms",
            "whole study",
            "label_shift: adjusted p",
            "label_shift: share",
            "label_shift: same sign",
            "label_shift: logit scale",
            "label_shift: unjudged answers",
            "label_shift: missing runs",
            "interaction",
            "failures",
        ]

    @pytest.mark.parametrize(
        ("unparsed", "cause", "detail"),
        [
            (0.1, "label_shift", r"-\d\d\.\d pp if they all count as aligned, -\d\d\.\d pp .* misaligned"),
            (0.6, "undetermined", r"-\d\d\.\d pp if they all count as aligned, \+\d\d\.\d pp .* misaligned"),
        ],
    )
    def test_a_cause_does_not_hang_on_how_unjudged_answers_count(self, unparsed, cause, detail):
        cube = self.clear.copy()
        cube["misaligned_delta"] = cube["risk_delta"] * 0.8
        cube["unparsed_before"] = cube["risk_delta"] * 0
        cube["unparsed_after"] = cube["unparsed_before"] + unparsed * (cube["label_shift"] == "clean_view")
        found = judge(cube)
        assert found.cause == cause
        [gate] = [gate for gate in found.gates if gate.name == "label_shift: unjudged answers"]
        assert gate.passed == (cause == "label_shift")
        assert re.fullmatch(detail, gate.detail)
        if not gate.passed:
            assert "a gate is not passed: label_shift: unjudged answers (" in found.sentence

    def test_p_is_that_of_the_table(self):
        main = contrasts(self.clear).query("kind == 'main' and end == 'clean_view'").iloc[0]
        detail = next(gate.detail for gate in judge(self.clear).gates if gate.name == "label_shift: adjusted p")
        cells = grid(self.clear).mean(axis=(2, 3, 4))
        _, low, high = t_interval(cells[:, 2] - cells[:, 0], 1 - 0.05 / 2)
        assert low < main.low < main.high < high
        assert f"{main.effect_pp:+.1f} pp [{low:+.1f}, {high:+.1f}], limits for the largest of 2, p" in detail
        assert f"p = {main.p_adjusted:.3f}".replace("0.", ".") in detail

    def test_share_bar(self):
        cube = world(2, organisms=8, shift=(0, -10, -30), selector=(0, 0, 5), org_selector=4)
        found = judge(cube, share_bar=0.999)
        assert found.cause == "undetermined"
        assert not gates(found)["label_shift: share"]
        assert "a gate is not passed: label_shift: share (share " in found.sentence

    def test_interaction_makes_it_joint(self):
        cube = world(3, organisms=8, shift=(0, -10, -30), interaction={(2, 2): 25})
        found = judge(cube)
        assert found.cause == "joint"
        assert not gates(found)["interaction"]

    def test_interaction_that_is_not_ruled_out_makes_it_joint(self):
        cube = world(4, organisms=6, shift=(0, -9, -12), noise=6)
        found = judge(cube, interaction_share=0.01)
        assert found.cause == "joint"
        assert re.search(r"cannot be told from .* would have to be below \.01; .* would tell\.$", found.sentence)

    def test_sign(self):
        steps = np.array([0.125] * 10 + [-0.06] * 4)
        found = judge(two_levels(0.5 + np.zeros(14), 0.5 + steps))
        assert gates(found)["label_shift: adjusted p"]
        assert found.cause == "undetermined"
        assert "same sign (10 of 14 organisms go the way of the mean; no single organism turns it)" in found.sentence

    def test_leave_one_organism_out(self):
        steps = np.array([0.02] * 10 + [-0.0195] * 3 + [0.9]) / 2
        found = judge(two_levels(0.5 + np.zeros(14), 0.5 + steps), equivalence_pp=0.1, alpha=0.3)
        assert "no single organism turns it" in sign_gate(found)
        steps[-2] = -0.36
        steps[-1] = 0.4
        turned = judge(two_levels(0.5 + np.zeros(14), 0.5 + steps), equivalence_pp=0.1)
        assert "without one organism it turns 1 times" in sign_gate(turned)
        assert not gates(turned)["label_shift: same sign"]

    def test_logit_scale(self):
        """Twelve organisms go from .50 to .55, two from .995 to .95: risks rise on average, log odds fall."""
        start, end = np.array([0.5] * 12 + [0.995] * 2), np.array([0.55] * 12 + [0.95] * 2)
        found = judge(two_levels(start, end), equivalence_pp=1)
        assert gates(found)["label_shift: adjusted p"]
        assert gates(found)["label_shift: same sign"]
        assert found.cause == "undetermined"
        assert re.search(r"logit scale \(-0\.\d\d on the logit scale, p = ", found.sentence)

    def test_logit_scale_must_pass_its_own_test(self):
        start, end = np.array([0.5] * 12 + [0.985] * 2), np.array([0.55] * 12 + [0.955] * 2)
        found = judge(two_levels(start, end), equivalence_pp=1)
        assert gates(found)["label_shift: adjusted p"]
        assert re.search(r"logit scale \(\+0\.\d\d on the logit scale, p = \.[1-9]", found.sentence)

    def test_unknown_items_fail_where_a_risk_is_zero_or_one(self):
        cube = self.clear.copy(deep=True)
        cube["risk_after"][0, 0, 0] = 1.0
        assert judge(cube).cause == "label_shift"
        del cube.attrs["items"]
        found = judge(cube)
        assert found.cause == "undetermined"
        assert "a risk is 0 or 1 and the cube does not state its items" in found.sentence

    def test_items_by_behavior(self):
        cube = self.clear.copy(deep=True)
        cube["risk_after"][0, 0, 0] = 1.0
        cube.attrs["items"] = {"sycophancy": 128}
        assert judge(cube).cause == "label_shift"

    def test_family_that_leaves_the_cause_out(self):
        found = judge(self.clear, family=["selector first -> majority"])
        assert found.cause == "undetermined"
        assert not gates(found)["label_shift: adjusted p"]
        assert "not in the declared family" in found.sentence

    def test_a_declared_contrast_speaks_for_its_factor(self):
        found = judge(self.clear, family=["label_shift none -> greedy"])
        assert found.cause == "label_shift"
        assert "(label_shift none -> greedy " in found.sentence

    def test_none_needs_more_than_small_main_effects(self):
        crossed = {(1, 1): 15, (2, 2): 15, (1, 2): -15, (2, 1): -15}
        found = judge(world(7, organisms=12, org_shift=0.5, org_selector=0.5, noise=1, interaction=crossed))
        assert found.cause == "undetermined"
        assert (
            "0 of 4 main effects and 4 of 4 interaction contrasts are not shown to lie inside +-5 pp" in found.sentence
        )

    def test_a_structural_selector_is_never_the_cause(self):
        found = judge(world(8, organisms=8, frozen=("none", "greedy", "clean_view"), shift=(0, -10, -30)))
        assert found.cause == "label_shift"
        assert not any(name.startswith("selector") for name in gates(found))


def two_levels(start, end):
    """One swap: the risk after training of each organism under two label shifts, and a little noise."""
    cube = world(organisms=len(start), shifts=("none", "greedy"), selectors=("first",), shift=(0, 0), selector=(0,))
    noise = np.random.default_rng(0).normal(0, 1e-4, (len(start), 2))
    cube["risk_after"][:, :, 0, 0, 0] = np.column_stack([start, end]) + noise
    return cube.assign(risk_delta=cube.risk_after - cube.risk_before)


def sign_gate(found):
    return next(gate.detail for gate in found.gates if gate.name == "label_shift: same sign")


class TestNoVerdict:
    @pytest.mark.parametrize(("organisms", "p", "more"), [(1, "1", 5), (4, ".125", 2), (5, ".062", 1)])
    def test_too_few_organisms(self, organisms, p, more):
        found = judge(world(organisms=organisms, shift=(0, -10, -30)))
        noun = "organism" if organisms == 1 else "organisms"
        assert found.cause == "undetermined"
        assert found.sentence == (
            f"undetermined: no 5% verdict is possible with {organisms} valid {noun}, because the smallest p is "
            f"2/2^{organisms} = {p}. {more} more would make one possible."
        )

    def test_invalid_organisms_do_not_count(self):
        cube = world(organisms=8, shift=(0, -10, -30))
        cube["valid_organism"][:3] = 0
        assert "with 5 valid organisms" in judge(cube).sentence

    def test_a_limited_study_is_no_result(self):
        cube = world(organisms=8, shift=(0, -10, -30))
        cube.attrs["limited"] = True
        found = judge(cube)
        assert (found.cause, gates(found)["whole study"]) == ("undetermined", False)
        assert "limited" in found.sentence

    def test_a_constant_response(self):
        cube = world(organisms=8)
        cube["risk_delta"][:] = 0.0
        assert judge(cube).sentence == "undetermined: sycophancy: risk_delta is 0 in every run, nothing to tell apart."

    def test_nothing_that_was_swapped_can_act(self):
        """One candidate, two selectors: organisms differ, and no swap does anything."""
        cube = world(organisms=8, shifts=("none",), shift=(0,), frozen=("none",))
        found = judge(cube)
        assert (found.cause, found.sentence) == (
            "undetermined",
            "undetermined: no swap could be tested on sycophancy: each left the same labels as its null level, or "
            "fewer than 2 organisms have both runs.",
        )

    def test_no_complete_organisms_still_have_effects_but_no_share(self):
        cube = world(9, organisms=8, shift=(0, -10, -30))
        for organism in range(8):
            cube["status"][organism, 1 + organism % 2, 1] = 2
        found = judge(cube)
        assert found.cause == "undetermined"
        assert "0 of 8 organisms have every run" in found.sentence

    @pytest.mark.parametrize(
        ("name", "value"), [("alpha", 0), ("share_bar", 1.5), ("interaction_share", -1), ("equivalence_pp", 0)]
    )
    def test_limits_out_of_range(self, name, value):
        with pytest.raises(StudyError, match=f"analysis.{name}: {value} is not"):
            judge(world(organisms=8), **{name: value})


class TestSentences:
    def test_single(self):
        pp = r"[+-]\d+\.\d pp \[[+-]\d+\.\d, [+-]\d+\.\d\]"
        share = r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]"
        expected = (
            rf"label_shift: the label shift changes sycophancy "
            rf"\(label_shift none -> clean_view {pp}, limits for the largest of 2, label_shift share {share}; "
            rf"interaction share {share} "
            rf"\(TOST below \.10: p < \.001\), 8 organisms, 72 runs, max-T sign-flip p = \.008\)\. The selector is not "
            rf"shown to act \(largest: selector first -> (majority|mean_logprob) {pp}, limits for the largest of 2; "
            rf"about \d+ more organisms would show an effect of this size at 80% power in 4 contrasts\)\."
        )
        assert re.fullmatch(expected, judge(TestGates.clear).sentence)

    def test_joint(self):
        cube = world(10, organisms=8, shift=(0, -10, -30), selector=(0, 5, 15), interaction={(2, 2): 30})
        sentence = judge(cube).sentence
        changes = "the label shift and the selector each change sycophancy"
        assert sentence.startswith(f"joint: {changes}, and the effect of one depends on the other (")
        assert re.search(
            r"; interaction share \.\d\d \[\.\d\d, \.\d\d\], 8 organisms, 72 runs, max-T sign-flip p =", sentence
        )
        assert sentence.endswith(
            "For `label_shift` alone the share of the selector would have to be below .10, and the interaction too; "
            "with these organisms it is above."
        )

    def test_joint_without_interaction(self):
        sentence = judge(world(10, organisms=8, shift=(0, -10, -30), selector=(0, 5, 25))).sentence
        assert sentence.endswith("For `label_shift` alone the share of the selector would have to be below .10.")
        assert "depend" not in sentence

    def test_none(self):
        found = judge(world(organisms=8, org_shift=0.3, org_selector=0.3, noise=0.3))
        assert re.fullmatch(
            r"none: nothing that was swapped changes sycophancy by as much as 5 pp "
            r"\(largest: .* pp \[.*\], limits for the largest of 2, 8 organisms, 72 runs\)\. "
            r"A bound below \d\.\d pp would leave it undetermined\.",
            found.sentence,
        )

    def test_nothing_seen_says_how_many_would_show_it(self):
        found = judge(world(11, organisms=7, noise=8))
        assert found.cause == "undetermined"
        needs = r"About \d+ more organisms would show an effect of this size at 80% power in 4 contrasts"
        assert re.search(needs + r"\. It is the largest of 2, so rather more\.$", found.sentence)

    def test_selector_says_where_it_cannot_act(self):
        found = judge(world(12, organisms=8, frozen=("greedy",), selector=(0, 8, 25)))
        assert "selector changes sycophancy (under greedy it cannot act: identical labels)" in found.sentence

    def test_the_only_swapped_factor(self):
        cube = world(13, organisms=8, shift=(0, -10, -30), selectors=("first",), selector=(0,))
        found = judge(cube)
        assert found.cause == "label_shift"
        assert found.sentence.endswith(
            "Nothing else that acts was swapped; it stands for selector = first and objective = sft."
        )


def test_each_behavior_has_its_own():
    cube = world(14, organisms=8, behaviors=("sycophancy", "reward_hacking"), shift=(0, -10, -30))
    cube["valid_organism"][8:11] = 0
    found = verdict(cube, **RULES)
    assert [(v.behavior, v.cause) for v in found] == [("sycophancy", "label_shift"), ("reward_hacking", "undetermined")]


class TestFamily:
    cube = world(15, organisms=8, shift=(0, -10, -30))

    @pytest.mark.parametrize(
        "family",
        [
            "label_shift,selector",
            ["label_shift", "selector"],
            ["selector", *(f"label_shift none -> {end}" for end in ("greedy", "clean_view"))],
        ],
    )
    def test_factors_stand_for_their_main_contrasts(self, family):
        assert judge(self.cube, family=family) == judge(self.cube)

    def test_a_factor_that_is_left_out_cannot_be_the_cause(self):
        found = judge(self.cube, family="selector")
        assert found.cause == "undetermined"
        assert "BH sign-flip p = " in found.sentence
        assert found.sentence.endswith("A study that declares it beforehand would tell.")

    def test_a_smaller_family_has_smaller_p(self):
        def p(**rules):
            [detail] = [g.detail for g in judge(world(16, organisms=7, shift=(0, -2, -3)), **rules).gates
                        if g.name == "label_shift: adjusted p"]  # fmt: skip
            return float(re.search(r"p = (\.\d+)", detail)[1])

        assert p(family=["label_shift none -> clean_view"]) < p()

    def test_what_the_study_declared_holds(self):
        declared = self.cube.assign_attrs(family=["selector"])
        assert verdict(declared) == verdict(self.cube, family=["selector"])
        assert verdict(declared, family="label_shift,selector") == verdict(self.cube)

    def test_limits_are_those_of_a_study(self):
        assert verdict(self.cube) == verdict(self.cube, **Analysis().model_dump())

    def test_an_unknown_name(self):
        with pytest.raises(StudyError, match=r"^analysis.family: there is no contrast 'label_shft'"):
            verdict(self.cube, family=["label_shft"])


class TestMissing:
    """Failed runs: worst-case bounds decide, the failure check is said."""

    def fail(self, seed, lost, **options):
        cube = world(seed, **({"organisms": 8} | options))
        for place in lost:
            cube["status"][place] = 2
        return cube

    def test_a_run_that_cannot_turn_the_effect(self):
        found = judge(self.fail(17, [(0, 2, 1)], shift=(0, -10, -30), org_shift=1, noise=1, org_selector=1))
        [gate] = [gate for gate in found.gates if gate.name == "label_shift: missing runs"]
        assert gate.passed
        assert re.match(r"1 run missing: between -\d\d\.\d and -\d\d\.\d pp whatever they would have been", gate.detail)
        assert gates(found)["failures"]
        assert found.cause == "label_shift"

    def test_bounds_that_flip_leave_it_undetermined_and_name_the_tipping_point(self):
        lost = [(o, 2, s) for o in (0, 1) for s in range(3)]
        cube = self.fail(18, lost, organisms=9, shift=(0, -1, -9), org_shift=1, noise=1, org_selector=1)
        found = judge(cube)
        assert found.cause == "undetermined"
        assert re.search(
            r"a gate is not passed: label_shift: missing runs \(6 runs missing: between -[\d.]+ and \+[\d.]+ pp "
            r"whatever they would have been; tipping point: \+[\d.]+ pp off the others\)\. The missing runs would "
            r"tell; the same command tries them again\.",
            found.sentence,
        )
        row = bounds(cube).set_index("swapped").loc["label_shift none -> clean_view"]
        assert f"tipping point: {row.tipping_pp:+.1f} pp" in found.sentence

    def test_failures_that_go_with_a_factor_are_said(self):
        lost = [(o, 2, 1 + o % 2) for o in range(6)]
        found = judge(self.fail(19, lost, organisms=10, shift=(0, -20, -40), org_shift=1, noise=1, org_selector=1))
        assert not gates(found)["failures"]
        assert found.sentence.endswith(" Failed runs are not spread evenly over the levels of label_shift (p = .004).")

    def test_missing_runs_may_hide_an_effect(self):
        quiet = {"org_shift": 0.3, "org_selector": 0.3, "noise": 0.3}
        assert judge(self.fail(20, [], **quiet)).cause == "none"
        found = judge(self.fail(20, [(o, 1, s) for o in (0, 1) for s in range(3)], **quiet))
        assert found.cause == "undetermined"
        assert "0 of 4 main effects and 0 of 4 interaction contrasts are not shown to lie" in found.sentence
        assert re.search(r"and the missing runs could move \d main effects? out of it", found.sentence)
