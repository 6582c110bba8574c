import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from ablate.effects import decomposition
from ablate.effects.components import effects
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

EFFECTS = {"shift": (0, -10, -30), "selector": (0, 2, 20)}


def table(cube):
    return decomposition(cube).set_index("source")


def test_label_shift_is_tested_against_its_interaction_with_organisms():
    cube = world(1, organisms=6, seeds=2, **EFFECTS)
    y = grid(cube).mean(axis=(3, 4))
    a = y.mean(axis=2, keepdims=True) - y.mean(axis=(1, 2), keepdims=True)
    ms_a = 6 * 3 * (a.mean(axis=0) ** 2).sum() / 2
    ms_oa = 3 * ((a - a.mean(axis=0)) ** 2).sum() / (2 * 5)
    found = table(cube).loc["label_shift"]
    assert (found.F, found.df1, found.df2) == (pytest.approx(ms_a / ms_oa), 2, 10)
    assert found.p <= found.p_corrected
    assert 0 < found.eps <= 1


def test_f_tests_of_the_table_are_adjusted_as_one_family():
    """Oracle: statsmodels multipletests fdr_bh."""
    found = decomposition(world(6, organisms=6, behaviors=("a", "b"), shift=(0, -3, -4), selector=(0, 1, 3)))
    tested = found[found.p_corrected.notna()]
    assert len(tested) == 6
    np.testing.assert_allclose(tested.p_adjusted, multipletests(tested.p_corrected, method="fdr_bh")[1])
    assert found.p_adjusted.isna().sum() == len(found) - 6


def test_shares_close():
    found = table(world(2, organisms=6, seeds=2, **EFFECTS))
    three = found.loc[["label_shift", "selector", "interaction"]]
    assert three.effect_share.sum() == pytest.approx(1)
    assert three.variance_pp2.sum() == pytest.approx(found.loc["effects together", "variance_pp2"])
    assert found.drop("effects together").share.sum() == pytest.approx(1)
    assert three.shapley.sum() == pytest.approx(1)
    total = found.loc["effects together", "variance_pp2"]
    np.testing.assert_allclose(three.effect_share, three.variance_pp2 / total)
    assert found.identified.all()


def test_planted_shares_are_inside_their_intervals():
    shift, selector = np.array(EFFECTS["shift"], float), np.array(EFFECTS["selector"], float)
    truth = shift.var() / (shift.var() + selector.var())
    found = table(world(3, organisms=12, **EFFECTS)).loc["label_shift"]
    assert found.effect_low < truth < found.effect_high


def test_effects_whose_estimate_is_exactly_zero():
    """Of two organisms one moves by b: (b / 2)^2 less its sampling variance, b^2 / 4, is 0."""
    cube = world(organisms=2, shifts=("none", "greedy"), selectors=("first", "majority"))
    cube["risk_delta"][:] = 0.0
    cube["risk_delta"][0, :, 1] = 0.0625
    found = table(cube)
    assert found.loc["effects together", "variance_pp2"] == 0
    assert not found.identified.any()
    assert found[["effect_share", "shapley"]].isna().all(axis=None)


def test_no_share_where_the_effects_together_may_be_nothing():
    found = table(world(4, organisms=8))
    total = found.loc["effects together"]
    assert total.variance_low < 0 < total.variance_high
    assert not found.identified.any()
    three = found.loc[["label_shift", "selector", "interaction"], ["share", "effect_share", "effect_low", "shapley"]]
    assert three.isna().all(axis=None)
    assert np.isfinite(found.loc["organism x label_shift", "share"])


class TestWhereSelectionCannotAct:
    cube = world(5, organisms=8, frozen=("greedy",), selector=(0, 5, 20))

    def test_structural_part_is_a_number_of_its_own(self):
        found = table(self.cube)
        assert found.loc["structural interaction", "variance_pp2"] == pytest.approx(
            2 / 9 * found.loc["selector", "variance_pp2"]
        )
        assert np.isnan(found.loc["structural interaction", "effect_share"])

    def test_selector_is_estimated_where_it_acts(self):
        y = grid(self.cube)[..., 0, 0][:, [0, 2]]
        expected = effects(y[..., None], np.ones(2, bool))
        found = table(self.cube)
        assert found.loc["selector", "variance_pp2"] == pytest.approx(expected["selector"].mean())
        assert found.loc["interaction", "variance_pp2"] == pytest.approx(expected["interaction"].mean())
        assert (found.loc["selector", "df1"], found.loc["interaction", "df1"]) == (2, 2)

    def test_label_shift_is_not_credited_with_the_lost_selection(self):
        found = table(self.cube).loc["label_shift"]
        assert found.p_corrected > 0.05
        assert found.effect_low < 0.05

    def test_one_active_shift_leaves_no_interaction(self):
        cube = world(6, shifts=("none", "greedy"), organisms=8, frozen=("greedy",), **EFFECTS)
        frame = decomposition(cube)
        assert list(frame.source) == ["label_shift", "selector", "effects together", "structural interaction"]
        assert frame.attrs["notes"] == [
            "sycophancy: selection can act under one label shift only: no interaction but the structural one"
        ]

    def test_it_can_act_nowhere(self):
        with pytest.raises(StudyError, match=r"selector has one level \(first\) with labels of its own"):
            decomposition(world(7, organisms=6, frozen=("none", "greedy", "clean_view")))


def test_a_duplicate_selector_is_no_level():
    cube = world(8, organisms=6)
    for name in ("key_labels", "key_train", "risk_delta"):
        cube[name][:, :, 1] = cube[name][:, :, 0]
    frame = decomposition(cube)
    assert frame.df1[1] == 1
    assert frame.attrs["notes"] == ["sycophancy: selector majority leaves the same labels as first everywhere"]


class TestUnbalanced:
    def test_only_complete_organisms_count_and_it_says_so(self):
        cube = world(9, organisms=7, **EFFECTS)
        cube["status"][3, 2, 1] = 2
        frame = decomposition(cube)
        assert (frame.organisms == 6).all()
        assert frame.attrs["notes"] == [
            "sycophancy: 6 of 7 organisms have every run; without a usable run: o3 clean_view x majority"
        ]
        complete = decomposition(cube.isel(organism=[0, 1, 2, 4, 5, 6]))
        np.testing.assert_allclose(frame.variance_pp2, complete.variance_pp2)

    def test_too_few_are_refused(self):
        cube = world(organisms=4)
        cube["status"][1:, 2, 1] = 2
        message = (
            r"1 of 4 organisms have every run; without a usable run: o1 clean_view x majority, o2 .*; at least 2 are"
        )
        with pytest.raises(StudyError, match=message):
            decomposition(cube)


class TestRefusals:
    @pytest.mark.parametrize(
        ("kwargs", "factor"),
        [
            ({"shifts": ("none",), "shift": (0,)}, "label_shift"),
            ({"selectors": ("first",), "selector": (0,)}, "selector"),
        ],
    )
    def test_one_level(self, kwargs, factor):
        with pytest.raises(StudyError, match=f"{factor} has one level"):
            decomposition(world(organisms=6, **kwargs))

    def test_one_organism(self):
        with pytest.raises(StudyError, match="1 valid organism, at least 2 are needed"):
            decomposition(world(organisms=1))

    def test_constant_within_organisms(self):
        cube = world(organisms=4, org_shift=0, org_selector=0, noise=0)
        with pytest.raises(StudyError, match="risk_delta is the same in every run of an organism"):
            decomposition(cube)


def test_no_error_term_gives_no_test():
    found = table(world(organisms=4, org_shift=0, org_selector=0, noise=0, **EFFECTS))
    assert found.loc[["label_shift", "selector"], ["F", "p"]].isna().all(axis=None)


def test_two_organisms_have_estimates_but_no_test():
    frame = decomposition(world(10, organisms=2, **EFFECTS))
    assert frame.F.isna().all()
    assert "sycophancy: no F test with 2 organisms" in frame.attrs["notes"]
    assert frame.variance_pp2.notna().all()


def test_strata_have_rows_of_their_own():
    frame = decomposition(world(11, organisms=6, objectives=("sft", "bct"), objective=(0, 5)))
    assert list(frame.columns[:3]) == ["behavior", "objective", "source"]
    assert frame.objective.value_counts().to_dict() == {"sft": 8, "bct": 8}


@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_of_what_is_random_cover(seeds):
    """Variances over organisms are skewed: t limits of their pseudo-values covered 77-92% at J = 6."""
    planted = {"org": 5.0, "org_shift": 4.0, "org_selector": 3.0, "run_seed": 2.0, "noise": 3.0}
    held = {"organism x label_shift": 16.0, "organism x selector": 9.0}
    hits = {(name, kind): [] for name in held for kind in ("variance", "share")}
    for seed in range(120):
        cube = world(seed, organisms=6, seeds=seeds, shift=(0, -8, -16), selector=(0, 4, 8), **planted)
        table = decomposition(cube).set_index("source")
        total = 25 + 16 + 9 + 4 + 9 + np.var([0, -8, -16]) + np.var([0, 4, 8])
        for name, variance in held.items():
            row = table.loc[name]
            hits[name, "variance"].append(row["variance_low"] <= variance <= row["variance_high"])
            hits[name, "share"].append(row["share_low"] <= variance / total <= row["share_high"])
    for name, found in hits.items():
        assert np.mean(found) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 120), (name, np.mean(found))
