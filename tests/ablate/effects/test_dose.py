import re
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ablate.effects import sign_flip
from ablate.effects.block import blocks
from ablate.effects.dose import distinct, dose_response, lmg, lmg_arrays
from ablate.effects.intervals import t_interval
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

DIMS = ("organism", "label_shift", "selector", "objective", "seed")
NATS = np.array([[0, 0.5, 1.2], [1, 1.4, 2.5], [3, 3.6, 4.5]])
"""The dose of each label shift and selector."""


def dosed(seed=0, slope=-5.0, curve=0.0, spread=0.0, organisms=6, noise=4.0, copies=1, **options):
    """Worlds with an effect of slope (sd ``spread`` between organisms) x dose + curve x dose^2, in pp."""
    rng = np.random.default_rng([seed, 5])
    names = tuple(f"b{i}" for i in range(copies))
    cube = world(seed, organisms=organisms, behaviors=names, org_shift=0, org_selector=0, noise=noise, **options)
    shape = cube.risk_delta.shape
    dose = NATS[None, :, :, None, None] * rng.lognormal(0, 0.2, (shape[0], 1, 1, 1, 1))
    effect = (slope + spread * rng.normal(size=(shape[0], 1, 1, 1, 1))) * dose + curve * dose**2
    delta = (cube.risk_delta + effect / 100).clip(-1, 1)
    return cube.assign(risk_delta=delta, kl_shift=(DIMS, np.broadcast_to(dose, shape).copy()))


def relative(cube, name="risk_delta"):
    values = (grid(cube) if name == "risk_delta" else cube[name].values).mean(axis=(3, 4))
    return (values - values[:, :1, :1]).reshape(len(values), -1)


class TestDoseResponse:
    def test_numbers_by_hand(self):
        cube = dosed(1)
        d, e = relative(cube, "kl_shift"), relative(cube)
        slopes = [np.linalg.lstsq(x[:, None], y, rcond=None)[0][0] for x, y in zip(d, e, strict=True)]
        curves = [np.linalg.lstsq(np.c_[x, x**2], y, rcond=None)[0][1] for x, y in zip(d, e, strict=True)]
        ranks = [stats.spearmanr(x, y).statistic for x, y in zip(d, e, strict=True)]
        found = dose_response(cube, "kl_shift").iloc[0]
        assert (found.slope, found.low, found.high) == pytest.approx(tuple(t_interval(np.array(slopes))))
        assert found.curvature == pytest.approx(np.mean(curves))
        assert found.spearman == pytest.approx(np.mean(ranks))
        assert found.p == pytest.approx(sign_flip(slopes).p[0])
        assert found.curvature_p == pytest.approx(sign_flip(curves).p[0])
        assert (found.cells, found.organisms) == (8, 6)
        assert found.dose_max == pytest.approx(d.mean(0).max())

    def test_r2_of_the_cells_agrees_with_statsmodels(self):
        cube = dosed(2)
        x, y = relative(cube, "kl_shift").mean(0), relative(cube).mean(0)
        fit = sm.OLS(y, sm.add_constant(x)).fit()
        found = dose_response(cube, "kl_shift").iloc[0]
        assert found.r2 == pytest.approx(fit.rsquared)
        assert found.r2_predicted == pytest.approx(1 - fit.get_influence().ess_press / fit.centered_tss)

    @pytest.mark.parametrize("organisms", [6, 8])
    def test_slope_intervals_cover(self, organisms):
        found = dose_response(dosed(organisms, spread=1.5, organisms=organisms, copies=250), "kl_shift")
        assert 0.92 < ((found.low <= -5) & (found.high >= -5)).mean() < 0.98

    def test_tests_keep_the_level(self):
        found = dose_response(dosed(3, slope=0, organisms=8, spread=1, copies=250), "kl_shift")
        assert 0.02 < (found.p < 0.05).mean() < 0.075
        straight = dose_response(dosed(4, slope=-4, organisms=8, spread=1, copies=250), "kl_shift")
        assert 0.02 < (straight.curvature_p < 0.05).mean() < 0.075

    def test_all_tests_of_the_table_are_adjusted_as_one_family(self):
        """Oracle: statsmodels multipletests fdr_bh."""
        found = dose_response(dosed(4, slope=-1, spread=1, copies=4), "kl_shift")
        tests = ["p", "curvature_p"]
        adjusted = multipletests(found[tests].to_numpy().ravel(), method="fdr_bh")[1].reshape(-1, 2)
        np.testing.assert_allclose(found[[f"{name}_adjusted" for name in tests]], adjusted)
        assert "BH over all slopes and curvatures of the table" in found.attrs["methods"]

    def test_a_test_that_could_not_be_made_is_in_no_family(self):
        found = dose_response(dosed(4).isel(label_shift=[0, 2], selector=[0]), "kl_shift").iloc[0]
        assert np.isnan([found.curvature_p, found.curvature_p_adjusted]).all()
        assert found.p_adjusted == found.p

    def test_a_bend_is_seen(self):
        found = dose_response(dosed(5, slope=-10, curve=2, noise=2, organisms=8), "kl_shift").iloc[0]
        assert found.curvature_low > 0
        assert found.curvature_p == pytest.approx(2 / 2**8)

    def test_units_order_and_constants(self):
        cube = dosed(6)
        base = dose_response(cube, "kl_shift").iloc[0]
        moved = cube.assign(kl_shift=1000 * (cube.kl_shift + 7), risk_delta=cube.risk_delta + 0.03)
        moved = moved.isel(organism=[2, 0, 1, 5, 4, 3], selector=[1, 2, 0], label_shift=[2, 1, 0])
        other = dose_response(moved, "kl_shift").iloc[0]
        for name in ("p", "curvature_p", "spearman", "r2", "r2_predicted", "cells"):
            assert other[name] == pytest.approx(base[name]), name
        assert 1000 * other.slope == pytest.approx(base.slope)
        assert 1e6 * other.curvature == pytest.approx(base.curvature)

    def test_cells_with_identical_labels_count_once(self):
        cube = dosed(7)
        for name in ("kl_shift", "risk_delta"):
            cube[name][:, 1, 1:] = cube[name].values[:, 1, :1]
        frozen = world(0, organisms=6, frozen=("greedy",))
        cube = cube.assign({name: frozen[name] for name in ("key_labels", "key_train", "status")})
        cells = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 1]], bool)
        np.testing.assert_array_equal(distinct(blocks(cube)[0])[..., 0], cells)
        d, e = (relative(cube, name)[:, cells.ravel()] for name in ("kl_shift", "risk_delta"))
        found = dose_response(cube, "kl_shift").iloc[0]
        assert found.cells == 6
        assert found.slope == pytest.approx(((d * e).sum(1) / (d**2).sum(1)).mean())

    def test_missing_runs_are_no_zeros(self):
        cube = dosed(8)
        cube["status"][0, 2, 2] = 2
        cube["kl_shift"][1, 1, 1] = np.nan
        cube["status"][2, 0, 0] = 2  # without its null run an organism has no effect
        d, e = relative(cube, "kl_shift"), relative(cube)
        d[0, 8] = np.nan
        slopes = np.nansum(d * e, 1) / np.nansum(d**2, 1)
        found = dose_response(cube, "kl_shift").iloc[0]
        assert found.organisms == 5
        assert found.slope == pytest.approx(np.delete(slopes, 2).mean())

    def test_null_cells_are_those_of_the_same_setting(self):
        cube = dosed(9, objectives=("sft", "bct"), objective=(0, 25), noise=0.5)
        assert dose_response(cube, "kl_shift").slope[0] == pytest.approx(-5, abs=0.3)

    def test_another_response_stays_in_its_unit(self):
        cube = dosed(10)
        cube = cube.assign(capability_delta=0.02 * cube.kl_shift)
        found = dose_response(cube, "kl_shift", response="capability_delta").iloc[0]
        assert (found.slope, found.r2, found.r2_predicted) == pytest.approx((0.02, 1, 1))

    def test_each_behavior_has_a_row(self):
        table = dose_response(dosed(11, copies=3), "kl_shift")
        assert list(table.behavior) == ["b0", "b1", "b2"]
        assert "t intervals with 5 df" in table.attrs["methods"]

    @pytest.mark.parametrize(
        ("change", "dose", "message"),
        [
            ({}, "kl_shfit", "the cube has no variable 'kl_shfit'; did you mean 'kl_shift'?"),
            ({}, "key_pool", "'key_pool' is text"),
            ({"kl_shift": np.nan}, "kl_shift", "'kl_shift' is NaN in every run"),
            ({"kl_shift": 1.0}, "kl_shift", "kl_shift does not vary within two organisms that have risk_delta too"),
            ({"risk_delta": 0.1}, "kl_shift", "risk_delta is 0.1 in every run"),
        ],
    )
    def test_refusals(self, change, dose, message):
        cube = dosed()
        cube = cube.assign({name: 0 * cube[name] + value for name, value in change.items()})
        with pytest.raises(StudyError, match=re.escape(message)):
            dose_response(cube, dose)

    def test_a_response_that_differs_between_organisms_alone(self):
        cube = dosed()
        cube = cube.assign(risk_delta=cube.risk_delta * 0 + 0.01 * cube.induction_seed)
        with pytest.raises(StudyError, match="risk_delta is the same in every cell of an organism"):
            dose_response(cube, "kl_shift")


def correlated(rng, organisms=8, cells=12, noise=2.0, beta=(2.0, 1.0, 0.0), rho=0.7):
    """Three correlated measures; the third acts on nothing. [organism, cell, measure] and [organism, cell]."""
    covariance = rho + (1 - rho) * np.eye(3)
    x = rng.multivariate_normal(np.zeros(3), covariance, (organisms, cells)) + rng.normal(0, 3, (organisms, 1, 3))
    y = x @ np.array(beta) + rng.normal(0, noise, (organisms, cells)) + rng.normal(0, 5, (organisms, 1))
    return x, y


def relaimpo(x, y):
    """LMG by its definition: every order, one after the other, with statsmodels."""
    x = (x - x.mean(1, keepdims=True)).reshape(-1, x.shape[2])
    y = (y - y.mean(1, keepdims=True)).ravel()

    def r2(columns):
        return sm.OLS(y, x[:, list(columns)]).fit().rsquared if columns else 0.0

    orders = list(permutations(range(x.shape[1])))
    return [np.mean([r2(o[: o.index(i) + 1]) - r2(o[: o.index(i)]) for o in orders]) for i in range(x.shape[1])]


class TestLmg:
    def test_agrees_with_all_orders(self):
        x, y = correlated(np.random.default_rng(0))
        table = lmg_arrays(x, y, list("abc"))
        np.testing.assert_allclose(table.lmg[:3], relaimpo(x, y))
        centered = (x - x.mean(1, keepdims=True)).reshape(-1, 3)
        fit = sm.OLS((y - y.mean(1, keepdims=True)).ravel(), centered).fit()
        np.testing.assert_allclose(table.coefficient[:3], fit.params)
        assert table.lmg[3] == pytest.approx(fit.rsquared)

    def test_parts_sum_to_r2(self):
        x, y = correlated(np.random.default_rng(1))
        table = lmg_arrays(x, y, list("abc"))
        assert abs(table.lmg[:3].sum() - table.lmg[3]) <= 1e-12
        assert abs(table.share[:3].sum() - 1) <= 1e-12

    def test_uncorrelated_measures_have_what_they_have_alone(self):
        rng = np.random.default_rng(2)
        x = np.stack([np.tile([-1, -1, 1, 1], (6, 1)), np.tile([-1, 1, -1, 1], (6, 1))], axis=2).astype(float)
        table = lmg_arrays(x, x @ [2.0, 1.0] + rng.normal(0, 1, (6, 4)), ["a", "b"])
        np.testing.assert_allclose(table.lmg[:2], table.alone[:2])
        np.testing.assert_allclose(table["last"][:2], table.alone[:2])

    @pytest.mark.parametrize("organisms", [6, 8])
    def test_intervals_cover(self, organisms):
        rng = np.random.default_rng(organisms)
        truth = lmg_arrays(*correlated(rng, organisms=4000, cells=16), list("abc")).lmg
        tables = [lmg_arrays(*correlated(rng, organisms=organisms, cells=16), list("abc")) for _ in range(300)]
        for row in (0, 1, 3):
            hits = [table.low[row] <= truth[row] <= table.high[row] for table in tables]
            assert 0.90 < np.mean(hits) < 0.985, row

    def test_units_order_and_organism_means_do_not_matter(self):
        x, y = correlated(np.random.default_rng(3))
        base = lmg_arrays(x, y, list("abc"))
        moved = lmg_arrays(1e-6 * x[::-1, ::-1] + np.arange(8)[:, None, None], 50 * y[::-1, ::-1], list("abc"))
        columns = ["lmg", "low", "high", "share", "alone", "last"]
        np.testing.assert_allclose(moved[columns], base[columns], atol=1e-8)

    def test_a_cube_gives_what_its_cells_give(self):
        cube = dosed(4, seeds=2, noise=3)
        rng = np.random.default_rng(0)
        cube = cube.assign(mmd2=cube.kl_shift + rng.normal(0, 1, cube.kl_shift.shape))
        cube["mmd2"][0, 0, 1] = np.nan
        x = np.stack([cube[name].mean("seed").values.reshape(6, 9) for name in ("kl_shift", "mmd2")], axis=2)
        table = lmg(cube, ["kl_shift", "mmd2"])
        expected = lmg_arrays(x, grid(cube).mean(axis=-1).reshape(6, 9), ["kl_shift", "mmd2"])
        pd.testing.assert_frame_equal(table.drop(columns="behavior"), expected)
        assert table.cells.iloc[0] == 53

    @pytest.mark.parametrize(
        ("measures", "message"),
        [
            ([], "measures: 1 to 12 different names are needed, not none"),
            (["kl_shift", "kl_shift"], "1 to 12 different names are needed, not kl_shift, kl_shift"),
            (["kl_shift", "twice"], "kl_shift, twice are linearly dependent within organisms"),
            (["flat"], "b0: flat is the same in every cell of an organism"),
            (["kl"], "the cube has no variable 'kl'"),
        ],
    )
    def test_refusals(self, measures, message):
        cube = dosed()
        cube = cube.assign(twice=2 * cube.kl_shift, flat=0 * cube.kl_shift + cube.induction_seed)
        with pytest.raises(StudyError, match=message):
            lmg(cube, measures)
