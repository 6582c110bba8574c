import re

import numpy as np
import pytest
import statsmodels.api as sm

from ablate.effects import contrasts, sign_flip, t_interval
from ablate.effects.covariate import adjusted_contrasts, fit, freedman_lane
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

DIMS = ("organism", "label_shift", "selector", "objective", "seed")


def rows(rng, organisms, cells=4, beta=0.0, own=1.0, own_slope=0.3, covariates=1, shift=0.7):
    """Pairs of rows: a covariate that the factor moves by ``shift``; effects and slopes differ between organisms."""
    size = (organisms, cells, 2)
    z = rng.normal(0, 1, (*size, covariates))
    z[:, :, 1] += shift
    x = np.broadcast_to([0.0, 1.0], size)
    slopes = 2 + own_slope * rng.normal(size=(organisms, 1, 1, covariates))
    y = (beta + own * rng.normal(size=(organisms, 1, 1))) * x + (slopes * z).sum(-1)
    y = y + rng.normal(0, 2, (organisms, cells, 1)) + rng.normal(0, 1, size)
    organism = np.broadcast_to(np.arange(organisms)[:, None, None], size).ravel()
    pair = np.broadcast_to(np.arange(organisms * cells).reshape(organisms, cells, 1), size).ravel()
    return {"y": y.ravel(), "x": x.ravel(), "z": z.reshape(-1, covariates), "groups": organism}, pair


def textbook(y, x, z, groups):
    """Freedman and Lane step by step: reduced fit, flipped residuals, full refit, for all 2^J flips."""
    dummies = (groups[:, None] == np.unique(groups)).astype(float)
    reduced, full = np.c_[dummies, z], np.c_[x, dummies, z]
    fitted = sm.OLS(y, reduced).fit()
    count = len(np.unique(groups))
    coefficients = []
    for code in range(2**count):
        signs = 1 - 2.0 * ((code >> np.arange(count)) & 1)
        coefficients.append(sm.OLS(fitted.fittedvalues + signs[groups] * fitted.resid, full).fit().params[0])
    found = np.abs(coefficients)
    return coefficients[0], np.mean(found >= found[0] * (1 - 1e-9))


class TestFreedmanLane:
    @pytest.mark.parametrize("covariates", [1, 2])
    @pytest.mark.parametrize("beta", [0.0, 1.5])
    def test_agrees_with_refitting_every_flip(self, covariates, beta):
        data, _ = rows(np.random.default_rng(covariates), 6, beta=beta, covariates=covariates)
        assert freedman_lane(**data) == pytest.approx(textbook(**data))

    @pytest.mark.parametrize("organisms", [6, 8, 12])
    def test_keeps_the_level(self, organisms):
        rng = np.random.default_rng(organisms)
        p = []
        for _ in range(400):
            data, pair = rows(rng, organisms)
            p.append(sign_flip(fit(**data, within=pair).scores).p[0])
        assert 0.01 < np.mean(np.array(p) < 0.05) < 0.075

    @pytest.mark.parametrize(("organisms", "cells"), [(6, 4), (8, 4), (8, 1)])
    def test_intervals_cover(self, organisms, cells):
        rng = np.random.default_rng([organisms, cells])
        hits = []
        for _ in range(300):
            data, pair = rows(rng, organisms, cells, beta=1.5)
            interval = t_interval(fit(**data, within=pair).values)
            hits.append(interval.low <= 1.5 <= interval.high)
        assert 0.92 < np.mean(hits) < 0.99

    def test_without_the_covariate_its_effect_is_the_factor_s(self):
        data, pair = rows(np.random.default_rng(3), 8, own=0.2, shift=2.0)
        plain = fit(**(data | {"z": np.zeros((len(pair), 0))}), within=pair)
        assert plain.coefficient == pytest.approx(4, abs=1)
        assert freedman_lane(**data, within=pair)[0] == pytest.approx(0, abs=1)
        assert plain.tolerance == pytest.approx(1)

    def test_nothing_but_the_covariate_is_the_paired_mean(self):
        """Without covariates it is the sign-flip test of the organisms' mean differences."""
        data, pair = rows(np.random.default_rng(4), 7, beta=1)
        differences = np.diff(data["y"].reshape(7, 4, 2))[..., 0].mean(axis=1)
        found = fit(**(data | {"z": np.zeros((len(pair), 0))}), within=pair)
        assert found.coefficient == pytest.approx(differences.mean())
        assert t_interval(found.values) == pytest.approx(t_interval(differences))
        assert sign_flip(found.scores).p == pytest.approx(sign_flip(differences).p)

    def test_order_units_and_constants_do_not_matter(self):
        data, pair = rows(np.random.default_rng(5), 6, beta=1)
        order = np.random.default_rng(0).permutation(len(pair))
        moved = {name: values[order] for name, values in data.items()}
        moved["z"], moved["y"] = 1e4 * moved["z"] + 7, moved["y"] + 100 * moved["groups"]
        moved["groups"] = np.array(list("fedcba"))[moved["groups"]]
        assert freedman_lane(**moved, within=pair[order]) == pytest.approx(freedman_lane(**data, within=pair))

    def test_many_organisms_are_drawn(self):
        data, _ = rows(np.random.default_rng(6), 16)
        first = freedman_lane(**data, rng=np.random.default_rng(1), permutations=500)
        assert first == freedman_lane(**data, rng=np.random.default_rng(1), permutations=500)
        assert first[1] * 501 == pytest.approx(round(first[1] * 501))

    def test_rows_with_a_gap_stay_out(self):
        data, _ = rows(np.random.default_rng(7), 6)
        data["z"][3] = np.nan
        kept = np.arange(len(data["y"])) != 3
        assert freedman_lane(**data) == freedman_lane(**{name: values[kept] for name, values in data.items()})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"groups": np.zeros(48, int)}, "1 organisms have every covariate, at least 2 are needed"),
            ({"x": np.ones(48)}, "the factor does not vary within organisms"),
            ({"z": np.tile([0.0, 1.0], 24)}, "the covariates determine the level of the factor"),
            ({"z": np.random.default_rng(0).normal(size=(48, 45))}, "48 rows for 6 intercepts, 45 covariates"),
        ],
    )
    def test_refusals(self, change, message):
        data, _ = rows(np.random.default_rng(8), 6)
        with pytest.raises(StudyError, match=re.escape(message)):
            freedman_lane(**(data | change))


def lengths(seed=0, slope=-0.5, organisms=8, **options):
    """A world where a token more in the label is ``slope`` pp, and clean_view labels are 20 tokens longer."""
    rng = np.random.default_rng([seed, 8])
    cube = world(seed, organisms=organisms, org_shift=0.5, org_selector=0.5, noise=0.5, **options)
    length = rng.normal(30, 4, cube.risk_delta.shape)
    length[:, 2] += 20
    return cube.assign(
        risk_delta=cube.risk_delta + slope * (length - 30) / 100, label_length=(DIMS, length), flat=(DIMS, 0 * length)
    )


class TestAdjustedContrasts:
    def test_an_effect_of_length_goes_away_at_equal_length(self):
        table = adjusted_contrasts(lengths(1), ["label_length"]).set_index("swapped")
        row = table.loc["label_shift none -> clean_view"]
        assert row.effect_pp == pytest.approx(-10, abs=1.5)
        assert row.low < 0 < row.high
        assert row.p > 0.05
        assert 0 < row.tolerance < 0.5
        assert (row.organisms, row.pairs, row.covariates) == (8, 24, "label_length")

    def test_an_effect_of_its_own_stays(self):
        table = adjusted_contrasts(lengths(2, shift=(0, -8, 0)), ["label_length"]).set_index("swapped")
        row = table.loc["label_shift none -> greedy"]
        assert row.adjusted_pp == pytest.approx(-8, abs=1)
        assert (row.p, row.p_adjusted) == (pytest.approx(2 / 2**8), pytest.approx(2 / 2**8))

    def test_it_is_the_regression_of_paired_differences(self):
        cube = lengths(3)
        y, z = grid(cube)[..., 0, 0], cube.label_length.values[..., 0, 0]
        fitted = sm.OLS((y[:, 2] - y[:, 0]).ravel(), np.c_[np.ones(24), (z[:, 2] - z[:, 0]).ravel()]).fit()
        row = adjusted_contrasts(cube, ["label_length"]).set_index("swapped").loc["label_shift none -> clean_view"]
        assert row.adjusted_pp == pytest.approx(fitted.params[0])

    def test_a_covariate_that_does_not_vary_changes_nothing(self):
        cube = lengths(4)
        table, main = adjusted_contrasts(cube, ["flat"]), contrasts(cube).query("kind == 'main'")
        assert list(table.swapped) == list(main.swapped)
        np.testing.assert_allclose(
            table[["adjusted_pp", "low", "high", "p", "p_adjusted"]],
            main[["effect_pp", "low", "high", "p", "p_adjusted"]],
        )
        np.testing.assert_allclose(table.adjusted_pp, table.effect_pp)

    def test_what_cannot_be_told_apart_says_so(self):
        cube = lengths(5)
        cube["flat"][:, 1] = 1.0
        table = adjusted_contrasts(cube, ["flat"]).set_index("swapped")
        row = table.loc["label_shift none -> greedy"]
        assert "the covariates determine the level of the factor" in row.note
        assert np.isnan([row.adjusted_pp, row.low, row.p, row.p_adjusted]).all()
        assert np.isfinite(table.p["label_shift none -> clean_view"])

    def test_missing_runs_leave_their_pairs(self):
        cube = lengths(6)
        cube["status"][0, 2, 1] = 2
        cube["label_length"][1, 0, 0] = np.nan
        cube["status"][2, 2] = 2
        row = adjusted_contrasts(cube, ["label_length"]).set_index("swapped").loc["label_shift none -> clean_view"]
        assert (row.organisms, row.pairs) == (7, 24 - 5)
        assert np.isfinite(row.p)

    @pytest.mark.parametrize(
        ("covariates", "message"),
        [
            ([], "covariates: different names are needed, not none"),
            (["flat", "flat"], "covariates: different names are needed, not flat, flat"),
            (["label_lenght"], "no variable 'label_lenght'; did you mean 'label_length'?"),
            (["key_pool"], "'key_pool' is text"),
        ],
    )
    def test_refusals(self, covariates, message):
        with pytest.raises(StudyError, match=re.escape(message)):
            adjusted_contrasts(lengths(), covariates)
