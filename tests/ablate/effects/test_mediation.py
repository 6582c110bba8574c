import re

import numpy as np
import pytest
import statsmodels.api as sm

from ablate.effects import contrasts, lmg
from ablate.effects.mediation import EFFECTS, _frame, cross_products, estimate, mediation
from ablate.effects.mediation import mediated as table_of
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

DIMS = ("organism", "label_shift", "selector", "objective", "seed")


def mediated(
    seed=0, alpha=2.0, direct=-4.0, slope=-3.0, product=0.0, organisms=8, copies=1, hidden=0.0, m0=1.0, **options
):
    """Y = direct X + slope M + product X M under clean_view (X = 1), M = m0 + alpha X + noise; pp and nats.

    ``hidden`` adds a common cause to the errors of M and Y, within runs.
    """
    rng = np.random.default_rng([seed, 9])
    names = tuple(f"b{i}" for i in range(copies))
    options = {
        "shifts": ("none", "clean_view"),
        "shift": (0, 0),
        "org_shift": 1,
        "org_selector": 1,
        "noise": 3,
    } | options
    cube = world(seed, organisms=organisms, behaviors=names, **options)
    shape = cube.risk_delta.shape
    x = np.zeros(shape)
    x[:, 1] = 1
    common = rng.normal(0, 1, shape)
    m = m0 + alpha * x + rng.normal(0, 0.3, (shape[0], 1, 1, 1, 1)) + rng.normal(0, 0.7, shape) + hidden * common
    y = direct * x + slope * m + product * x * m + 6 * hidden * common
    return cube.assign(risk_delta=(cube.risk_delta + y / 100).clip(-1, 1), kl_shift=(DIMS, m))


def truth(alpha=2.0, direct=-4.0, slope=-3.0, product=0.0, m0=1.0):
    total = direct + slope * alpha + product * (m0 + alpha)
    return dict(
        zip(
            EFFECTS,
            (
                total,
                alpha * slope,
                alpha * (slope + product),
                direct + product * m0,
                direct + product * (m0 + alpha),
            ),
            strict=True,
        )
    )


def effects(table):
    return table.set_index("effect")


class TestEstimates:
    def test_agree_with_a_regression_on_dummies(self):
        cube = mediated(1, product=-1)
        y, m = grid(cube).ravel(), cube.kl_shift.values.ravel()
        o, x, cell = (np.indices(cube.risk_delta.shape)[i].ravel() for i in (0, 1, 2))
        nuisance = np.c_[(o[:, None] == np.arange(8)), (cell[:, None] == [1, 2])].astype(float)
        full = sm.OLS(y, np.c_[x, m, x * m, nuisance]).fit().params
        alpha = sm.OLS(m, np.c_[x, nuisance]).fit().params[0]
        m0 = m[x == 0].mean()
        found = effects(mediation(cube, "kl_shift"))
        assert found.estimate["indirect at 0"] == pytest.approx(alpha * full[1])
        assert found.estimate["indirect at 1"] == pytest.approx(alpha * (full[1] + full[2]))
        assert found.estimate["direct at 0"] == pytest.approx(full[0] + full[2] * m0)
        assert found.estimate["direct at 1"] == pytest.approx(full[0] + full[2] * (m0 + alpha))
        assert found.interaction.all()

    @pytest.mark.parametrize("options", [{}, {"seeds": 2}, {"objectives": ("sft", "bct"), "objective": (0, 5)}])
    def test_parts_close_and_the_total_is_the_main_contrast(self, options):
        cube = mediated(2, product=2, **options)
        found = effects(mediation(cube, "kl_shift")).estimate
        assert abs(found["indirect at 1"] + found["direct at 0"] - found["total"]) <= 1e-11
        assert abs(found["indirect at 0"] + found["direct at 1"] - found["total"]) <= 1e-11
        main = contrasts(cube).query("kind == 'main' and factor == 'label_shift'").iloc[0]
        table = effects(mediation(cube, "kl_shift"))
        assert tuple(table.loc["total", ["estimate", "low", "high"]]) == pytest.approx(
            (main.effect_pp, main.low, main.high)
        )

    def test_parts_close_where_runs_are_missing(self):
        cube = mediated(3, product=2, seeds=2)
        cube["status"][0, 1, 1, 0, 0] = 2
        cube["kl_shift"][1, 0, 2] = np.nan
        cube["status"][2, 0] = 2
        table = effects(mediation(cube, "kl_shift"))
        found = table.estimate
        assert abs(found["indirect at 0"] + found["direct at 1"] - found["total"]) <= 1e-11
        assert (table.organisms == 7).all()
        assert (table.pairs == 48 - 1 - 2 - 6).all()

    def test_order_units_and_constants_of_the_response_do_not_matter(self):
        cube = mediated(4, product=1)
        moved = cube.assign(kl_shift=1e-5 * cube.kl_shift, risk_delta=cube.risk_delta + 0.05)
        moved = moved.isel(organism=[3, 1, 0, 2, 7, 6, 5, 4], selector=[2, 1, 0], label_shift=[1, 0])
        numbers = ["estimate", "low", "high", "rho"]
        base, other = (effects(mediation(c, "kl_shift"))[numbers] for c in (cube, moved))
        np.testing.assert_allclose(other, base, rtol=1e-6)

    def test_a_mediator_that_is_zero_without_the_shift_has_no_interaction(self):
        cube = mediated(5, m0=0)
        cube["kl_shift"][:, 0] = 0.0
        table = mediation(cube, "kl_shift")
        assert not table.interaction.any()
        found = effects(table).estimate
        assert found["indirect at 0"] == found["indirect at 1"]
        assert found["direct at 0"] == found["direct at 1"]

    def test_every_label_shift_has_its_rows(self):
        cube = mediated(6, shifts=("none", "greedy", "clean_view"), shift=(0, 0, 0))
        table = mediation(cube, "kl_shift")
        assert list(table.swapped.unique()) == ["label_shift none -> greedy", "label_shift none -> clean_view"]
        assert list(table.effect) == [*EFFECTS, *EFFECTS]
        assert table.attrs["kind"] == "model-based"
        assert "no cause of mediator and effect that is left out" in table.attrs["methods"]


def drawn(rng, organisms, cells, seeds, product, noise):
    """Mediator and response of the model with organism-specific alpha and slope, each [2, organism, cell, seed]."""
    x = np.array([0.0, 1.0])[:, None, None, None]
    alpha, slope = 2 + 0.3 * rng.normal(size=(1, organisms, 1, 1)), -3 + 0.5 * rng.normal(size=(1, organisms, 1, 1))
    m = 1 + alpha * x + rng.normal(0, 0.7, (2, organisms, cells, seeds))
    y = -4 * x + slope * m + product * x * m + rng.normal(0, noise, (2, organisms, cells, seeds))
    return m, y + rng.normal(0, 5, (1, organisms, 1, 1))


class TestIntervals:
    @pytest.mark.parametrize(
        ("organisms", "cells", "seeds", "product", "noise"), [(6, 3, 2, 0.0, 3), (8, 3, 1, -1.0, 3), (8, 1, 1, 0.0, 1)]
    )
    def test_cover(self, organisms, cells, seeds, product, noise):
        rng = np.random.default_rng([organisms, cells])
        expected = np.array(list(truth(product=product).values()))
        hits, boot = [], []
        for _ in range(500):
            table = _frame(*drawn(rng, organisms, cells, seeds, product, noise), 100, rng)
            hits.append((table.low <= expected) & (table.high >= expected))
            boot.append((table.boot_low <= expected) & (table.boot_high >= expected))
        assert (np.mean(hits, axis=0) > 0.92).all(), np.mean(hits, axis=0)
        assert (np.mean(hits, axis=0) < 0.985).all(), np.mean(hits, axis=0)
        assert np.mean(boot, axis=0)[0] < 0.93  # why the bootstrap is secondary

    def test_no_mediation_is_seldom_found(self):
        table = mediation(mediated(7, slope=0, copies=200, seeds=2), "kl_shift", draws=10)
        rows = table[table.effect == "indirect at 0"]
        assert 0.01 < ((rows.low > 0) | (rows.high < 0)).mean() < 0.085


class TestSensitivity:
    def test_rho_is_the_error_correlation_that_makes_it(self):
        """No path from M to Y, but a common cause: what looks like mediation vanishes at just that correlation."""
        cube = mediated(8, slope=0, hidden=1.0, organisms=60, seeds=4, org_shift=0, org_selector=0)
        table = effects(mediation(cube, "kl_shift", draws=20))
        assert abs(table.estimate["indirect at 0"]) > 3
        implied = 6 / np.sqrt((0.49 + 1) * (36 + 9 + 1))  # errors: M .7 and 1, Y 3, seeds 1 and 6
        assert table.rho.iloc[0] == pytest.approx(implied, abs=0.05)

    def test_formula_of_imai_keele_and_yamamoto(self):
        """ACME(rho) = alpha s1/s2 (r - rho sqrt((1 - r^2) / (1 - rho^2))) is the estimate at 0 and vanishes at r."""
        cube = mediated(9, shifts=("none", "clean_view"), selectors=("first",), selector=(0,), organisms=12)
        y, m = grid(cube)[..., 0, 0, 0], cube.kl_shift.values[..., 0, 0, 0]
        dy, dm = y[:, 1] - y[:, 0], m[:, 1] - m[:, 0]
        e1, e2 = dy - dy.mean(), dm - dm.mean()
        r = np.corrcoef(e1, e2)[0, 1]
        products, m0 = cross_products(*(np.moveaxis(v, 1, 0)[..., None, None] for v in (m, y)))
        found = estimate(products, m0, np.ones((1, 12)), interaction=False)
        assert found.effects[0, 1] == pytest.approx(dm.mean() * r * e1.std() / e2.std())
        assert found.rho[0] == pytest.approx(r)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "mediator", "message"),
        [
            ({}, "kl_shif", "no variable 'kl_shif'; did you mean 'kl_shift'?"),
            ({}, "key_labels", "'key_labels' is text"),
            ({"organisms": 2}, "kl_shift", "2 organisms have both runs with the mediator, at least 3 are needed"),
        ],
    )
    def test_what_lacks(self, options, mediator, message):
        with pytest.raises(StudyError, match=re.escape(message)):
            mediation(mediated(**options), mediator)

    def test_one_label_shift(self):
        with pytest.raises(StudyError, match="label_shift has one level, there is nothing to mediate"):
            mediation(mediated().isel(label_shift=[0]), "kl_shift")

    def test_a_mediator_that_is_the_label_shift(self):
        cube = mediated()
        cube["kl_shift"][:] = (np.arange(2.0) * 3)[None, :, None, None, None]
        with pytest.raises(StudyError, match="the mediator does not vary given the label shift"):
            mediation(cube, "kl_shift")

    def test_one_of_two_label_shifts(self):
        cube = mediated(shifts=("none", "greedy", "clean_view"), shift=(0, 0, 0))
        cube["kl_shift"][:, :2] = 1.0
        table = mediation(cube, "kl_shift")
        assert list(table.swapped.unique()) == ["label_shift none -> clean_view"]
        assert "label_shift none -> greedy: the mediator does not vary" in table.attrs["notes"][0]


class TestTable:
    cube = mediated(31).assign(mmd2=lambda root: 0.5 * root.kl_shift + abs(root.risk_delta))

    def test_rows_are_those_of_mediation_and_lmg(self):
        table = table_of(self.cube, ["kl_absent", "kl_shift", "mmd2"])
        parts, shares = table[table.unit == "pp"], table[table.unit == "1"]
        whole = mediation(self.cube, "kl_shift")
        assert set(parts.dose) == {"kl_shift"}
        assert whole.interaction.all()
        assert parts.part.tolist() == list(EFFECTS)
        np.testing.assert_array_equal(parts[["estimate", "low", "high"]], whole[["estimate", "low", "high"]])
        assert parts.rho.notna().tolist() == [False, True, True, False, False]
        oracle = lmg(self.cube, ["kl_shift", "mmd2"])
        assert shares.dose.tolist() == ["kl_shift", "mmd2", "all"]
        np.testing.assert_array_equal(shares[["estimate", "low", "high"]], oracle[["lmg", "low", "high"]])
        assert shares.estimate.iloc[:2].sum() == pytest.approx(shares.estimate.iloc[2], abs=1e-12)
        assert table.attrs["kind"] == "model-based"

    def test_without_interaction_each_effect_stands_once(self):
        cube = self.cube.copy(deep=True)
        cube["kl_shift"][:, 0] = 0.0  # a KL from itself
        table = table_of(cube, ["kl_shift", "mmd2"])
        assert table.part.tolist()[:3] == ["total", "indirect", "direct"]

    def test_a_dose_that_cannot_mediate_is_passed_over_and_named(self):
        cube = self.cube.assign(kl_shift=self.cube.kl_shift * 0)
        table = table_of(cube, ["kl_shift", "mmd2"])
        assert set(table[table.unit == "pp"].dose) == {"mmd2"}
        assert table.attrs["notes"][0].startswith("kl_shift: b0: label_shift none -> clean_view: the mediator does not")
        assert "no LMG shares: b0: kl_shift is the same in every cell of an organism" in table.attrs["notes"]

    def test_no_dose(self):
        with pytest.raises(StudyError, match=r"^the cube has none of the doses kl_a, kl_b; add their measures"):
            table_of(self.cube, ["kl_a", "kl_b"])
