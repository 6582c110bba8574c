from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import cochrans_q

from ablate.effects import contrasts
from ablate.effects.block import blocks, mean
from ablate.effects.contrasts import main_contrasts
from ablate.effects.intervals import t_interval
from ablate.effects.missing import bounds, failure_check, missing, permutation_q, weights
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

EFFECTS = {"shift": (0, -10, -30), "selector": (0, 2, 20)}


def failing(cube, lost):
    """The cube with the runs of a mask [organism, label_shift, selector] failed."""
    cube = cube.copy(deep=True)
    cube["status"] = cube.status.where(~lost[..., None, None], 2)
    return cube


class TestFailureCheck:
    def test_counts(self):
        lost = np.zeros((6, 3, 3), bool)
        lost[:4, 2] = True
        lost[5, 0, 1] = True
        cube = failing(world(organisms=6), lost)
        cube["risk_delta"][5, 1, 0] = np.nan  # ran, but no answer could be judged
        table = failure_check(cube).set_index(["factor", "level"])
        shifts = table.loc["label_shift"]
        assert shifts.failed.to_dict() == {"none": 1, "greedy": 1, "clean_view": 12}
        assert shifts.organisms.to_dict() == {"none": 1, "greedy": 1, "clean_view": 4}
        assert (shifts.runs == 18).all()
        assert shifts.failed_share["clean_view"] == pytest.approx(12 / 18)
        assert table.loc["selector"].failed.to_dict() == {"first": 5, "majority": 5, "mean_logprob": 4}
        assert shifts.p.nunique() == 1
        assert shifts.p.iloc[0] < 0.05 < table.loc["selector"].p.iloc[0]

    @pytest.mark.parametrize("levels", [2, 3])
    def test_exact_p_is_that_of_enumeration(self, levels):
        shares = np.random.default_rng(levels).integers(0, 3, (5, levels)) / 2
        orders = list(permutations(range(levels)))

        def q(table):
            means = table.mean(axis=0)
            return ((means - means.mean()) ** 2).sum()

        every = [q(np.array([own[list(o)] for own, o in zip(shares, pick, strict=True)]))
                 for pick in product(orders, repeat=5)]  # fmt: skip
        found = permutation_q(shares, 1, np.random.default_rng(0))
        assert found == (pytest.approx(q(shares)), pytest.approx(np.mean(np.array(every) >= q(shares) - 1e-12)), True)

    def test_it_is_a_form_of_cochran_s_q(self):
        rng = np.random.default_rng(1)
        tables = [rng.random((12, 3)) < [0.2, 0.3, 0.4] for _ in range(30)]
        found = np.array([permutation_q(table.astype(float), 4999, rng)[:2] for table in tables])
        expected = [cochrans_q(table.astype(int)) for table in tables]
        moved = [((table - table.mean(1, keepdims=True)) ** 2).sum() for table in tables]
        statistic = 2 * 12**2 * found[:, 0] / moved  # (k - 1) J^2 Q / sum of squares within organisms
        np.testing.assert_allclose([e.statistic for e in expected], statistic, atol=1e-12)
        assert np.corrcoef(found[:, 1], [e.pvalue for e in expected])[0, 1] > 0.98

    def test_drawn_and_exact_agree(self):
        shares = np.random.default_rng(2).random((5, 3))
        exact = permutation_q(shares, 1, np.random.default_rng(0))
        many = np.vstack([shares] * 2)
        drawn = permutation_q(many, 9999, np.random.default_rng(0))
        again = permutation_q(many[::-1, ::-1], 9999, np.random.default_rng(1))
        assert (exact[2], drawn[2]) == (True, False)
        assert drawn[1] == pytest.approx(again[1], abs=0.02)

    def test_level_is_kept_where_failing_is_blind_to_the_level(self):
        rng = np.random.default_rng(3)
        p = [
            permutation_q((rng.random((8, 3, 10)) < rng.beta(2, 3, (8, 1, 1))).mean(2), 499, rng)[1] for _ in range(400)
        ]
        assert 0.025 < np.mean(np.array(p) < 0.05) < 0.075

    def test_a_whole_pool_that_fails_counts_as_one_organism(self):
        """All selectors of one label shift fail together in one of six organisms: no evidence, however many runs."""
        lost = np.zeros((6, 3, 3), bool)
        lost[2, 1] = True
        assert failure_check(failing(world(organisms=6), lost)).p.min() > 0.3

    def test_nothing_failed(self):
        table = failure_check(world(organisms=6))
        assert (table.failed == 0).all()
        assert table.p.isna().all()

    def test_levels_that_fail_alike(self):
        lost = np.zeros((6, 3, 3), bool)
        lost[:3] = True
        lost[:3, 0, 0] = False
        lost[:3, 1, 1] = False
        lost[:3, 2, 2] = False
        assert (failure_check(failing(world(organisms=6), lost)).p == 1).all()

    @pytest.mark.parametrize(
        ("cube", "message"),
        [
            (world(organisms=1), "fewer than 2 valid organisms"),
            (world(selectors=("first",), shifts=("none",), shift=(0,), selector=(0,)), "every factor has one level"),
        ],
    )
    def test_refusals(self, cube, message):
        with pytest.raises(StudyError, match=message):
            failure_check(cube)


class TestWeights:
    @pytest.mark.parametrize("frozen", [(), ("greedy",), ("none",), ("greedy", "clean_view")])
    @pytest.mark.parametrize("objectives", [("sft",), ("sft", "bct")])
    def test_are_those_of_the_main_contrasts(self, frozen, objectives):
        cube = world(
            1,
            organisms=4,
            seeds=2,
            frozen=frozen,
            objectives=objectives,
            objective=(0, 3)[: len(objectives)],
            **EFFECTS,
        )
        block = blocks(cube)[0]
        for factor in block.several:
            for level, row in enumerate(main_contrasts(block, factor), start=1):
                weight = weights(block, factor, level)
                found = (weight * mean(block.response, -1)).sum(axis=(1, 2, 3))
                np.testing.assert_allclose(found, row.differences, atol=1e-9)


class TestBounds:
    lost = np.zeros((8, 3, 3), bool)
    lost[0, 2, 1] = lost[3, 0, 0] = lost[5, 1, 2] = True
    cube = failing(world(2, organisms=8, **EFFECTS), lost)

    def test_without_missing_runs_they_are_the_interval(self):
        cube = world(2, organisms=8, **EFFECTS)
        table, main = bounds(cube), contrasts(cube).query("kind == 'main'")
        np.testing.assert_allclose(table[["effect_pp", "low", "high"]], main[["effect_pp", "low", "high"]])
        np.testing.assert_allclose(table[["bound_low", "outer_low", "outer_high"]], table[["effect_pp", "low", "high"]])
        np.testing.assert_allclose(table.bound_high, table.effect_pp)
        assert (table.missing == 0).all()
        assert table.tipping_pp.isna().all()

    def test_numbers_by_hand(self):
        y = np.where(self.lost[..., None, None], np.nan, grid(self.cube))[..., 0, 0]
        low, high = y.copy(), y.copy()
        low[0, 2, 1], low[3, 0, 0] = -50, 50  # risk 0 under clean_view, 1 under none
        high[0, 2, 1], high[3, 0, 0] = 50, -50
        lowest, highest = (t_interval((v[:, 2] - v[:, 0]).mean(axis=1)) for v in (low, high))
        found = bounds(self.cube).set_index("swapped").loc["label_shift none -> clean_view"]
        assert found.missing == 2
        assert (found.bound_low, found.outer_low) == pytest.approx((lowest.estimate, lowest.low))
        assert (found.bound_high, found.outer_high) == pytest.approx((highest.estimate, highest.high))

    def test_no_completion_is_outside(self):
        rng = np.random.default_rng(0)
        table = bounds(self.cube).set_index("swapped")
        for _ in range(50):
            filled = self.cube.copy(deep=True)
            after = np.where(
                self.lost[..., None, None], rng.integers(0, 2, self.lost.shape)[..., None, None], filled.risk_after
            )
            filled["risk_after"][:], filled["risk_delta"][:] = after, after - filled.risk_before.values
            filled["status"][:] = 1
            main = contrasts(filled).query("kind == 'main'").set_index("swapped")
            assert (main.effect_pp >= table.bound_low - 1e-9).all()
            assert (main.effect_pp <= table.bound_high + 1e-9).all()

    def test_at_the_tipping_point_the_interval_reaches_zero(self):
        lost = np.zeros((8, 3, 3), bool)
        lost[:3, 2] = True
        cube = failing(world(3, organisms=8, shift=(0, -4, -12)), lost)
        shift = bounds(cube).set_index("swapped").tipping_pp["label_shift none -> clean_view"]
        assert 0 < shift < 60
        y = np.where(lost[..., None, None], np.nan, grid(cube))[..., 0, 0]

        def interval(delta):
            filled = np.where(lost, np.clip(np.nanmean(y, axis=0) + delta, -50, 50), y)
            return t_interval((filled[:, 2] - filled[:, 0]).mean(axis=1))

        assert interval(shift).high == pytest.approx(0, abs=1e-4)
        assert interval(0.99 * shift).high < 0
        assert interval(-0.99 * shift).high < 0

    def test_tipping_point_of_what_covers_zero_already(self):
        cube = failing(world(4, organisms=8), self.lost)
        table = bounds(cube).set_index("swapped")
        covering = table[(table.low < 0) & (table.high > 0) & (table.missing > 0)]
        assert (covering.tipping_pp == 0).all()
        assert len(covering)

    def test_one_run_of_many_cannot_undo_a_large_effect(self):
        lost = np.zeros((12, 3, 3), bool)
        lost[0, 2, 1] = True
        cube = failing(world(5, organisms=12, shift=(0, -10, -40)), lost)
        assert np.isinf(bounds(cube).set_index("swapped").tipping_pp["label_shift none -> clean_view"])

    def test_a_cell_that_nobody_has_has_bounds_but_no_tipping_point(self):
        lost = np.zeros((8, 3, 3), bool)
        lost[:, 2, 1] = True
        row = bounds(failing(world(6, organisms=8), lost)).set_index("swapped").loc["label_shift none -> clean_view"]
        assert np.isnan(row.tipping_pp)
        assert row.bound_high - row.bound_low == pytest.approx(100 / 3)

    def test_organisms_without_the_contrast_are_in_the_bounds(self):
        lost = np.zeros((8, 3, 3), bool)
        lost[0, 2] = True
        cube = failing(world(7, organisms=8, **EFFECTS), lost)
        row = bounds(cube).set_index("swapped").loc["label_shift none -> clean_view"]
        assert row.organisms == 7
        assert row.bound_high - row.bound_low == pytest.approx(100 / 8)

    def test_order_does_not_matter(self):
        moved = self.cube.isel(organism=[7, 6, 0, 1, 2, 3, 5, 4], selector=[2, 1, 0], label_shift=[1, 0, 2])
        numbers = ["bound_low", "bound_high", "outer_low", "outer_high", "tipping_pp"]
        base = bounds(self.cube).set_index("swapped")[numbers]
        np.testing.assert_allclose(bounds(moved).set_index("swapped").loc[base.index, numbers], base, atol=1e-5)

    def test_bounds_cover_the_truth_whatever_makes_runs_fail(self):
        """Runs with a large risk fail: what is there is biased, the outer interval covers all the same."""
        hits, naive = [], []
        for seed in range(100):
            cube = world(seed, organisms=8, shift=(0, 0, 15), noise=8, org_shift=4)
            after = cube.risk_after.values[..., 0, 0]
            lost = np.zeros(after.shape, bool)
            lost[:, 2] = after[:, 2] > np.quantile(after[:, 2], 0.75)
            row = bounds(failing(cube, lost)).set_index("swapped").loc["label_shift none -> clean_view"]
            hits.append(row.outer_low <= 15 <= row.outer_high)
            naive.append(row.low <= 15 <= row.high)
        assert np.mean(hits) >= 0.95 > np.mean(naive) + 0.05

    def test_refusals(self):
        with pytest.raises(StudyError, match="1 valid organism, at least 2"):
            bounds(world(organisms=1))
        with pytest.raises(StudyError, match="every factor has one level"):
            bounds(world(selectors=("first",), shifts=("none",), shift=(0,), selector=(0,)))


class TestTable:
    def test_bounds_beside_the_failure_check(self):
        lost = np.zeros((8, 3, 3), bool)
        lost[:5, 2, 1] = True
        cube = failing(world(3, organisms=8, **EFFECTS), lost)
        table, plain = missing(cube), bounds(cube)
        pd.testing.assert_frame_equal(table[plain.columns], plain)
        own = table.set_index("swapped")
        assert own.failed_end["label_shift none -> clean_view"] == 5
        assert (own.failed_start[own.factor == "label_shift"] == 0).all()
        p = failure_check(cube).groupby("factor").p.first()
        assert own.failure_p["label_shift none -> greedy"] == p["label_shift"]
        assert table.attrs["notes"] == ["sycophancy: 5 runs of 72 missing"]

    def test_it_says_that_no_run_is_missing(self):
        table = missing(world(4, organisms=6, **EFFECTS))
        assert table.attrs["notes"] == ["sycophancy: no run is missing"]
        assert table.failure_p.isna().all()
        np.testing.assert_allclose(table.bound_low, table.effect_pp, rtol=1e-12)
