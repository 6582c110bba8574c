import re
from importlib import import_module

import numpy as np
import pytest

from ablate.effects import contrasts, sign_flip
from ablate.effects.intervals import t_interval
from ablate.effects.transmission import split_half_selection, transmission, transmitted
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

module = import_module("ablate.effects.transmission")  # the package names its function so
DIMS = ("organism", "label_shift", "selector", "objective", "seed")


CHANGE = np.array([[0, 6, 12], [-15, -12, -3], [-30, -24, -20]], float)
"""What the label shifts and selectors do to the labels' risk, in pp."""


def lined(seed=0, gamma=0.6, spread=0.0, organisms=6, noise=4.0, own=0.0, shift_own=0.0, copies=1, **options):
    """Worlds whose effect is gamma (sd ``spread`` between organisms) times the label change, [``copies`` behaviors].

    ``own`` pp come with every objective but the first, ``shift_own`` with the label shift greedy.
    """
    rng = np.random.default_rng([seed, 17])
    names = tuple(f"b{i}" for i in range(copies))
    cube = world(seed, organisms=organisms, behaviors=names, org_shift=0, org_selector=0, noise=noise, **options)
    shape = cube.risk_delta.shape
    g = CHANGE[None, :, :, None, None] + rng.normal(0, 4, (*shape[:3], 1, 1))
    g[:, 0, 0] = 0
    e = (gamma + spread * rng.normal(size=(shape[0], 1, 1, 1, 1))) * g + own * (np.arange(shape[3]) > 0)[:, None]
    e[:, 1] += shift_own
    after = cube.risk_after + e / 100
    labels = np.broadcast_to(0.5 + g / 100, shape).copy()
    return cube.assign(
        risk_after=after.clip(0, 1),
        risk_delta=after - cube.risk_before,
        m_p=(DIMS, np.full(shape, 0.5)),
        m_ts=(DIMS, labels),
    )


def by_hand(cube):
    """g and e relative to the null cell in pp, [organism, cell], null cells left out."""
    g = 100 * (cube.m_ts - cube.m_p).values.mean(axis=(3, 4))
    e = grid(cube).mean(axis=(3, 4))
    return tuple((v - v[:, :1, :1]).reshape(len(v), -1)[:, 1:] for v in (g, e))


class TestGamma:
    def test_numbers_by_hand(self):
        cube = lined(1)
        g, e = by_hand(cube)
        slopes = (g * e).sum(1) / (g**2).sum(1)
        found = transmission(cube).iloc[0]
        assert (found.gamma, found.low, found.high) == pytest.approx(tuple(t_interval(slopes)))
        assert found.p == pytest.approx(sign_flip(slopes).p[0])
        pooled = (g * e).sum() / (g**2).sum()
        assert found.pooled == pytest.approx(pooled)
        assert found.r2 == pytest.approx(1 - ((e - pooled * g) ** 2).sum() / (e**2).sum())
        assert (found.cells, found.organisms) == (8, 6)
        assert found.change_sd_pp == pytest.approx(np.sqrt((g**2).mean()))

    @pytest.mark.parametrize("organisms", [6, 8])
    def test_intervals_cover(self, organisms):
        found = transmission(lined(organisms, spread=0.2, organisms=organisms, copies=200))
        assert 0.92 < ((found.low <= 0.6) & (found.high >= 0.6)).mean() < 0.985
        assert 0.92 < ((found.pooled_low <= 0.6) & (found.pooled_high >= 0.6)).mean() < 0.985

    def test_labels_that_do_not_arrive_are_seldom_said_to(self):
        found = transmission(lined(2, gamma=0, organisms=8, copies=200))
        for column in ("p", "pooled_p"):
            assert 0.025 < (found[column] < 0.05).mean() < 0.075

    def test_order_labels_and_constants_do_not_matter(self):
        cube = lined(2)
        moved = cube.assign(risk_delta=cube.risk_delta + 0.02, m_ts=cube.m_ts + 0.05)
        moved = moved.isel(organism=[5, 0, 3, 1, 2, 4], selector=[2, 0, 1], label_shift=[1, 2, 0])
        np.testing.assert_allclose(
            transmission(moved).iloc[0, 1:].astype(float), transmission(cube).iloc[0, 1:].astype(float)
        )

    def test_identical_labels_count_once(self):
        cube = lined(3)
        frozen = world(3, organisms=6, frozen=("greedy",))
        for name in ("m_ts", "m_p", "risk_delta", "risk_after"):
            cube[name][:, 1, 1:] = cube[name].values[:, 1, :1]
        cube = cube.assign(key_labels=frozen.key_labels, key_train=frozen.key_train, status=frozen.status)
        g, e = (np.delete(v, [3, 4], axis=1) for v in by_hand(cube))
        assert transmission(cube).cells[0] == 6
        assert transmission(cube).gamma[0] == pytest.approx(np.mean((g * e).sum(1) / (g**2).sum(1)))

    def test_an_objective_of_its_own_does_not_bend_the_line(self):
        cube = lined(4, objectives=("sft", "bct"), objective=(0, 0), own=30.0)
        assert transmission(cube).gamma[0] == pytest.approx(0.6, abs=0.1)


class TestTransmitted:
    def test_parts_close_exactly(self):
        table = transmitted(lined(5, objectives=("sft", "bct"), objective=(0, 0), own=10))
        assert abs(table.transmitted_pp + table.residual_pp - table.effect_pp).max() <= 1e-12

    def test_effects_are_those_of_the_contrasts(self):
        cube = lined(6)
        table, main = transmitted(cube), contrasts(cube).query("kind == 'main'")
        assert list(table.swapped) == list(main.swapped)
        np.testing.assert_allclose(table[["effect_pp", "low", "high"]], main[["effect_pp", "low", "high"]])

    def test_gamma_is_that_of_the_other_organisms(self):
        cube = lined(7)
        g, e = by_hand(cube)
        without = np.array([(np.delete(g * e, o, 0)).sum() / (np.delete(g, o, 0) ** 2).sum() for o in range(6)])
        change = (100 * (cube.m_ts - cube.m_p).values.mean(axis=(3, 4)))[:, 2] - (
            100 * (cube.m_ts - cube.m_p).values.mean(axis=(3, 4))
        )[:, 0]
        row = transmitted(cube).set_index("swapped").loc["label_shift none -> clean_view"]
        assert row.transmitted_pp == pytest.approx((without * change.mean(axis=1)).mean())
        assert row.label_change_pp == pytest.approx(change.mean())

    def test_what_labels_do_not_carry_is_the_objective_s_own(self):
        cube = lined(8, organisms=8, objectives=("sft", "bct"), objective=(0, 0), own=12, noise=1)
        row = transmitted(cube).set_index("factor").loc["objective"]
        assert (row.transmitted_pp, row.label_change_pp) == (0.0, 0.0)
        assert row.residual_share == pytest.approx(1.0)
        assert row.residual_pp == pytest.approx(12, abs=2)
        assert row.residual_p == pytest.approx(2 / 2**8)

    def test_intervals_cover(self):
        """Greedy labels move risk by 8 pp of their own; the line then is the least-squares one through all cells."""
        table = transmitted(lined(9, organisms=8, spread=0.2, shift_own=8, copies=200))
        square = CHANGE**2 + 16 * (CHANGE != 0)
        gamma = 0.6 + 8 * CHANGE[1].sum() / square.sum()
        change = (CHANGE[1] - CHANGE[0]).mean()
        truth = {"transmitted": gamma * change, "residual": 0.6 * change + 8 - gamma * change}
        rows = table[table.swapped == "label_shift none -> greedy"]
        for name, value in truth.items():
            covered = (rows[f"{name}_low"] <= value) & (rows[f"{name}_high"] >= value)
            assert 0.91 < covered.mean() < 0.985, name

    def test_a_residual_that_is_not_there_is_seldom_found(self):
        table = transmitted(lined(10, organisms=8, spread=0.2, copies=200))
        for _, rows in table.groupby("swapped"):
            assert 0.02 < (rows.residual_p < 0.05).mean() < 0.085
        assert (table.groupby("behavior").residual_p_adjusted.min() < 0.05).mean() < 0.08


def test_captions_say_how_intervals_were_made():
    cube = lined(11, organisms=7)
    assert (
        transmission(cube)
        .attrs["methods"]
        .endswith("t intervals with 6 df (linearized where pooled) and sign-flip tests over organisms")
    )
    assert (
        transmitted(cube)
        .attrs["methods"]
        .endswith("linearized t intervals with 6 df, max-T over the rows of a behavior from sign-flips")
    )


class TestSplitHalf:
    PROMPTS, K = 600, 8

    def classes(self, rng, k=K):
        """Three answers of different probability; the outcome is a noisy judgment of the answer."""
        pi = rng.dirichlet([4, 3, 2], self.PROMPTS)
        risk = rng.beta(2, 2, (self.PROMPTS, 3))
        return pi, risk, self.draw(rng, pi, risk, k)

    @staticmethod
    def draw(rng, pi, risk, k):
        stated = (rng.random((len(pi), k, 1)) > pi.cumsum(1)[:, None, :]).sum(2).clip(0, 2)
        judged = (rng.random(stated.shape) < np.take_along_axis(risk, stated, 1)).astype(float)
        return stated, judged

    def truth(self, rng, pi, risk, by, draws=400):
        """What fresh answers of the picked class differ by, over pools of K // 2 candidates."""
        part, whole = 0.0, 0.0
        rows, mean = np.arange(len(pi)), (pi * risk).sum(1)
        for _ in range(draws):
            stated, judged = self.draw(rng, pi, risk, self.K // 2)
            scores = judged if by == "mean" else np.ones_like(judged)
            sums = np.stack([np.where(stated == c, scores, 0).sum(1) for c in range(3)], 1)
            counts = np.stack([(stated == c).sum(1) for c in range(3)], 1)
            value = sums / np.maximum(counts, 1) if by == "mean" else sums
            value = np.where(counts > 0, value, -1)
            best = value.max(1, keepdims=True)
            first = np.where(np.take_along_axis(value, stated, 1) == best, np.arange(self.K // 2), 99).argmin(1)
            pick = stated[rows, first]
            part += (pi[rows, pick] * (risk[rows, pick] - mean)).sum()
            whole += pi[rows, pick].sum()
        return part / whole

    @pytest.mark.parametrize("by", ["mean", "sum"])
    def test_is_unbiased_where_the_naive_estimate_is_not(self, by):
        rng = np.random.default_rng(3)
        pi, risk, _ = self.classes(rng)
        truth = self.truth(rng, pi, risk, by)
        found = []
        for _ in range(40):
            stated, judged = self.draw(rng, pi, risk, self.K)
            scores = judged if by == "mean" else np.ones_like(judged)
            found.append(split_half_selection(scores, judged, stated, rng, by=by))
        estimates, naive = np.array([f.estimate for f in found]), np.array([f.naive for f in found])
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(40)
        if by == "mean":  # the judge that is the scorer too
            assert naive.mean() > truth + 0.1

    def test_error_is_that_of_repeated_prompts(self):
        rng = np.random.default_rng(4)
        found = []
        for _ in range(60):
            _, _, (stated, judged) = self.classes(rng)
            found.append(split_half_selection(judged, judged, stated, rng))
        spread = np.std([f.estimate for f in found])
        assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.3)

    def test_a_score_that_knows_nothing_selects_nothing(self):
        rng = np.random.default_rng(5)
        stated = rng.integers(0, 3, (400, 8))
        judged = rng.integers(0, 2, (400, 8)).astype(float)
        found = split_half_selection(judged, judged, stated, rng)
        assert abs(found.estimate) < 3 * found.error
        assert found.naive > 0.1
        assert found.prompts == 400

    def test_prompt_order_and_class_names_do_not_matter(self):
        rng = np.random.default_rng(6)
        _, _, (stated, judged) = self.classes(rng)
        base = split_half_selection(judged, judged, stated, np.random.default_rng(0))
        other = split_half_selection(judged[::-1], judged[::-1], 7 - stated[::-1], np.random.default_rng(1))
        assert other == pytest.approx(base)

    def test_more_than_eight_candidates_are_drawn(self, monkeypatch):
        """Oracle: all 126 cuts of nine."""
        rng = np.random.default_rng(8)
        _, _, (stated, judged) = self.classes(rng, k=9)
        drawn = [split_half_selection(judged, judged, stated, rng, splits=40).estimate for _ in range(12)]
        monkeypatch.setattr(module, "EXACT_UP_TO", 9)
        every = split_half_selection(judged, judged, stated, rng)
        assert 0 < np.std(drawn) < every.error
        assert np.mean(drawn) == pytest.approx(every.estimate, abs=4 * np.std(drawn) / np.sqrt(12))

    def test_unjudged_and_unscored_candidates_stay_out(self):
        rng = np.random.default_rng(7)
        _, _, (stated, judged) = self.classes(rng)
        judged[:50] = np.nan
        judged[50:60, 2:] = np.nan
        found = split_half_selection(judged, judged, stated, rng)
        assert 540 <= found.prompts <= 550
        nobody = np.where(stated == 2, -1, stated)
        assert np.isfinite(split_half_selection(judged, judged, nobody, rng).estimate)

    @pytest.mark.parametrize(
        ("shape", "classes", "outcome", "message"),
        [
            ((5, 3), 0, 0.0, "3 candidates a prompt: halves need at least 4"),
            ((5, 4), -1, 0.0, "no prompt has a class to pick"),
            ((5, 4), 0, np.nan, "no prompt has a class to pick"),
        ],
    )
    def test_refusals(self, shape, classes, outcome, message):
        with pytest.raises(StudyError, match=message):
            split_half_selection(
                np.zeros(shape), np.full(shape, outcome), np.full(shape, classes), np.random.default_rng(0)
            )

    def test_shapes_that_differ(self):
        with pytest.raises(StudyError, match=r"scores \(5, 4\), outcome \(5, 5\) and classes \(5, 4\) differ"):
            split_half_selection(np.zeros((5, 4)), np.zeros((5, 5)), np.zeros((5, 4), int), np.random.default_rng(0))


@pytest.mark.parametrize("function", [transmission, transmitted])
class TestRefusals:
    def test_unknown_variable(self, function):
        with pytest.raises(StudyError, match=re.escape("the cube has no variable 'm_tz'; did you mean 'm_ts'?")):
            function(lined(), after="m_tz")

    def test_nothing_but_nan(self, function):
        cube = lined()
        with pytest.raises(StudyError, match="'m_ts' is NaN in every run"):
            function(cube.assign(m_ts=cube.m_ts * np.nan))

    def test_labels_that_do_not_move(self, function):
        cube = lined()
        with pytest.raises(StudyError, match="the labels' risk moves within 0 organisms"):
            function(cube.assign(m_ts=cube.m_p))

    def test_one_organism(self, function):
        with pytest.raises(StudyError, match="1 valid organism, at least 2"):
            function(lined(organisms=1))


def test_two_organisms_cannot_leave_one_out():
    with pytest.raises(StudyError, match="moves within 2 organisms, at least 3 are needed"):
        transmitted(lined(organisms=2))
