import re
import time

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats

from ablate.effects import contrasts, sign_flip
from ablate.effects.power import (
    Design,
    Variances,
    estimated,
    minimum_detectable_effect,
    organisms_needed,
    power,
    t_power,
    variances,
)
from ablate.effects.worlds import world
from ablate.errors import StudyError

SD = Variances(organism=100.0)  # a contrast with a standard deviation of 10 pp


def within_error(found, truth, simulations=2000, errors=3.0):
    return abs(found - truth) <= errors * np.sqrt(truth * (1 - truth) / simulations)


@pytest.mark.parametrize("organisms", [3, 6, 8, 20])
@pytest.mark.parametrize("delta", [0.0, 0.7, 1.5])
def test_t_power_agrees_with_pingouin(organisms, delta):
    expected = pingouin.power_ttest(d=delta, n=organisms, contrast="one-sample") if delta else 0.05
    assert t_power(delta, organisms) == pytest.approx(expected, abs=1e-6)
    assert t_power(-delta, organisms) == t_power(delta, organisms)


@pytest.mark.parametrize("organisms", [4, 8, 12, 20])
@pytest.mark.parametrize("effect", [0.0, 5.0, 9.0])
def test_simulated_t_tests_have_the_power_of_the_noncentral_t(organisms, effect):
    found = power(SD, effect, organisms, Design(test="t"), rng=np.random.default_rng([organisms, int(effect)]))
    assert within_error(found.power, found.t_power)


@pytest.mark.parametrize("organisms", [8, 12, 20])
@pytest.mark.parametrize("effect", [5.0, 10.0])
def test_sign_flips_are_nearly_as_powerful_as_the_t_test(organisms, effect):
    found = power(SD, effect, organisms, rng=np.random.default_rng(organisms))
    assert found.t_power - 0.06 - 3 * found.error < found.power < found.t_power + 0.02 + 3 * found.error


@pytest.mark.parametrize(("organisms", "contrasts"), [(6, 1), (8, 3), (10, 2)])
def test_a_simulated_study_decides_as_the_shipped_test_does(organisms, contrasts):
    """The oracle draws its own studies and takes them through `sign_flip`."""
    rng = np.random.default_rng(organisms)
    noise = np.sqrt(0.5) * (rng.normal(0, 10, (400, organisms, 1)) + rng.normal(0, 10, (400, organisms, contrasts)))
    noise[:, :, 0] += 12
    expected = np.mean([sign_flip(study).p_adjusted[0] < 0.05 for study in noise])
    found = power(SD, 12, organisms, Design(contrasts=contrasts))
    assert found.power == pytest.approx(expected, abs=3.5 * np.sqrt(found.error**2 + expected * (1 - expected) / 400))


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("organisms", [6, 10, 20])
def test_without_an_effect_the_power_is_the_level(organisms, contrasts):
    found = power(SD, 0, organisms, Design(contrasts=contrasts), rng=np.random.default_rng(1))
    assert found.power < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    if contrasts == 1:
        assert found.power > 0.02


@pytest.mark.parametrize(("organisms", "smallest"), [(2, 0.5), (5, 2 / 32), (6, 2 / 64)])
def test_smallest_p_decides_whether_there_is_any_power(organisms, smallest):
    found = power(SD, 1000, organisms)
    assert found.smallest_p == smallest
    assert found.power == (1.0 if smallest < 0.05 else 0.0)
    assert np.isinf(minimum_detectable_effect(SD, organisms)) == (smallest >= 0.05)


def test_variances_of_a_difference_add_up():
    parts = Variances(organism=4.0, residual=6.0, item=512.0)
    assert parts.of_difference(seeds=2, answers=256) == pytest.approx(4 + (6 + 2) / 2)
    assert Design(seeds=2, items=128, samples=2).sd(parts) == pytest.approx(np.sqrt(8))


def test_more_of_anything_but_contrasts_is_more_power():
    parts = Variances(organism=20, residual=60, item=5000)
    base = power(parts, 10, 8).power
    for design in (Design(seeds=3), Design(items=512), Design(samples=4), Design(alpha=0.1)):
        assert power(parts, 10, 8, design).power > base
    assert power(parts, 10, 10).power > base
    assert power(parts, 12, 8).power > base
    assert power(parts, 10, 8, Design(contrasts=6)).power < base


def test_only_effect_over_sd_matters_and_the_sign_does_not():
    base = power(SD, 8, 9)
    assert power(Variances(organism=400), 16, 9)[:3] == base[:3]
    assert power(SD, -8, 9).power == pytest.approx(base.power, abs=3 * base.error)
    assert power(SD, 8, 9) == base


@pytest.mark.parametrize("organisms", [6, 8, 16])
def test_the_minimum_detectable_effect_has_the_power_it_is_said_to_have(organisms):
    found = minimum_detectable_effect(SD, organisms)
    assert power(SD, found, organisms).power == pytest.approx(0.8, abs=0.02)
    other = power(SD, found, organisms, rng=np.random.default_rng(99))
    assert within_error(other.power, 0.8, errors=4)
    assert minimum_detectable_effect(SD, organisms, target=0.9) > found


@pytest.mark.parametrize("effect", [6.0, 10.0, 20.0])
def test_organisms_needed_is_the_first_size_with_enough_power(effect):
    needed = organisms_needed(SD, effect)
    assert power(SD, effect, needed, simulations=20_000).power > 0.78
    assert needed == 6 or power(SD, effect, needed - 1, simulations=20_000).power < 0.82
    assert needed >= 6  # below, no p is small enough


def test_as_many_organisms_as_pingouin_says_for_a_t_test():
    needed = organisms_needed(SD, 8, Design(test="t"))
    assert needed == np.ceil(pingouin.power_ttest(d=0.8, power=0.8, contrast="one-sample"))


@pytest.mark.parametrize("effect", [0.0, 0.01])
def test_no_number_of_organisms_shows_what_is_not_there(effect):
    assert organisms_needed(SD, effect) is None


def test_two_thousand_studies_take_well_under_a_second():
    start = time.perf_counter()
    power(SD, 8, 20, Design(contrasts=4))
    assert time.perf_counter() - start < 1.0


class TestEstimated:
    def test_sd_is_that_of_the_contrasts(self):
        cube = world(1, organisms=8, shift=(0, -10, -30))
        table, whole = estimated(cube), contrasts(cube).query("kind == 'main'").reset_index(drop=True)
        assert list(table.swapped) == list(whole.swapped)
        half = stats.t.ppf(0.975, 7) * table.sd_pp / np.sqrt(8)
        np.testing.assert_allclose(table.effect_pp + half, whole.high)
        np.testing.assert_allclose(table.effect_pp, whole.effect_pp)
        assert (table.family == 4).all()

    def test_chi_square_limits_by_hand(self):
        row = estimated(world(2, organisms=6)).iloc[0]
        low, high = np.sqrt(5 * row.sd_pp**2 / stats.chi2.ppf([0.975, 0.025], 5))
        assert (row.sd_low, row.sd_high) == pytest.approx((low, high))

    def test_one_seed_credits_all_to_the_organisms(self):
        row = estimated(world(3, organisms=6)).iloc[0]
        assert np.isnan([row.residual_pp2, row.item_pp2]).all()
        assert row.organism_pp2 == pytest.approx(row.sd_pp**2)
        assert variances(row) == Variances(row.organism_pp2, 0.0, 0.0)

    def test_parts_are_unbiased(self):
        """Main label shift contrasts: 2 org_shift^2 between organisms; of runs 2 noise^2 / 3 selectors a seed."""
        options = {"organisms": 10, "seeds": 3, "org_shift": 3, "noise": 4, "attrs": {}}
        tables = [estimated(world(seed, **options)) for seed in range(60)]
        shift = pd.concat(table[table.factor == "label_shift"] for table in tables)
        error = shift[["organism_pp2", "residual_pp2"]].std() / np.sqrt(60)
        assert abs(shift.organism_pp2.mean() - 2 * 9) < 4 * error.organism_pp2
        assert abs(shift.residual_pp2.mean() - 2 * 16 / 3) < 4 * error.residual_pp2

    def test_item_noise_is_split_off_where_items_and_samples_are_known(self):
        cube = world(
            4, organisms=6, seeds=2, org_shift=9, noise=6, attrs={"items": 128, "evaluation": "2 sampled at T = 1"}
        )
        row = estimated(cube).iloc[0]
        bound = 1e4 * 0.25 * 2 / 3
        assert row.answers == 256
        assert row.item_pp2 == pytest.approx(bound, rel=0.02)
        plain = estimated(cube.assign_attrs(evaluation="greedy answer")).iloc[0]
        assert row.residual_pp2 + row.item_pp2 / 256 == pytest.approx(plain.residual_pp2)
        assert Design(seeds=2, samples=2).sd(variances(row)) == pytest.approx(row.sd_pp)

    def test_relabeling_and_a_constant_change_nothing(self):
        cube = world(5, organisms=6, seeds=2)
        moved = cube.assign(risk_delta=cube.risk_delta + 0.03).isel(organism=[4, 2, 0, 1, 5, 3], seed=[1, 0])
        numbers = ["effect_pp", "sd_pp", "organism_pp2", "residual_pp2"]
        np.testing.assert_allclose(estimated(moved)[numbers], estimated(cube)[numbers])

    def test_its_rows_plan_a_study(self):
        row = estimated(world(6, organisms=8, seeds=2, shift=(0, -10, -30))).iloc[1]
        assert power(variances(row), row.effect_pp, 8, Design(seeds=2)).power > 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power(SD, 5, 1), "organisms: 1, at least 2 are needed"),
        (lambda: power(SD, float("nan"), 8), "effect_pp: nan is not a number"),
        (lambda: power(Variances(-1.0), 5, 8), "variance of organism: -1.0 is not a number >= 0"),
        (lambda: power(Variances(0.0), 5, 8), "all variances are 0"),
        (lambda: Design(alpha=0), r"alpha: 0 is not in (0, 1)"),
        (lambda: Design(correlation=1), r"correlation: 1 is not in [0, 1)"),
        (lambda: Design(contrasts=0), "contrasts: 0 is not >= 1"),
        (lambda: Design(test="z"), "test: 'z' is not sign-flip or t"),
        (lambda: minimum_detectable_effect(SD, 8, target=1), r"target: 1 is not in (0, 1)"),
        (lambda: organisms_needed(SD, float("inf")), "effect_pp: inf is not a number"),
        (lambda: estimated(world(organisms=1)), "1 valid organism, at least 2 are needed"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        call()
