import re

import numpy as np
import pytest
import xarray as xr

from ablate.effects.block import blocks
from ablate.effects.components import noise
from ablate.effects.itemnoise import item_noise, noise_lines, samples_of, sampling_variance
from ablate.effects.worlds import world
from ablate.errors import StudyError

DIMS = ("organism", "label_shift", "selector", "objective", "seed")
ITEMS = 40


def answered(seed=0, samples=2, organisms=6, seeds=2, training=0.3, copies=1, before_of_seed=True, **options):
    """A whole cube whose answers were drawn: item logits plus effects of run and ``training`` of run and item."""
    rng = np.random.default_rng([seed, 3])
    names = tuple(f"b{i}" for i in range(copies))
    cube = world(seed, organisms=organisms, seeds=seeds, behaviors=names, **options)
    shape = cube.risk_delta.shape
    items = rng.normal(0, 1.5, (shape[0], 1, 1, 1, 1, ITEMS))
    logit = items + rng.normal(0, 0.3, (*shape, 1)) + training * rng.normal(0, 1, (*shape, ITEMS))
    p_after, p_before = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-items[:, 0, 0, 0]))
    after = rng.binomial(samples, p_after) / samples
    p_before = np.broadcast_to(p_before, (shape[0], seeds if before_of_seed else 1, ITEMS))
    before = rng.binomial(samples, p_before) / samples
    expanded = before[:, None, None, None] if before_of_seed else before[:, None, None, None, :1]
    risk = np.broadcast_to(expanded.mean(-1), shape)
    cube = cube.assign(
        risk_after=(DIMS, after.mean(-1)), risk_before=(DIMS, risk.copy()), risk_delta=(DIMS, after.mean(-1) - risk)
    )
    cube = cube.assign_attrs(evaluation=f"{samples} sampled at T = 1")
    dims = ("organism", "seed", "item") if before_of_seed else ("organism", "item")
    padded = {name: np.concatenate([values, np.full((*values.shape[:-1], 3), 0.5)], axis=-1) for name, values in
              (("after", after), ("before", before if before_of_seed else before[:, 0]))}  # fmt: skip
    kind = np.array([["risk"] * ITEMS + ["capability", "capability", ""]] * shape[0], object)
    group = xr.Dataset(
        {"outcome_after": ((*DIMS, "item"), padded["after"]), "outcome_before": (dims, padded["before"])},
        {"kind": (("organism", "item"), kind)},
    )
    truth = 1e4 * (p_after * (1 - p_after)).sum(-1) / (samples * ITEMS**2)
    return xr.DataTree.from_dict({"/": cube, "/items": group}), truth, p_after


class TestSamplingVariance:
    @pytest.mark.parametrize("samples", [2, 3, 8])
    def test_is_unbiased_with_two_samples_or_more(self, samples):
        rng = np.random.default_rng(samples)
        p = rng.beta(0.5, 0.7, ITEMS)
        outcome = rng.binomial(samples, p, (4000, 1, ITEMS)) / samples
        found, method = sampling_variance(outcome, samples)
        truth = 1e4 * (p * (1 - p)).sum() / (samples * ITEMS**2)
        assert method == "samples"
        assert found.mean() == pytest.approx(truth, abs=4 * found.std() / np.sqrt(4000))
        assert 1e4 * outcome.mean(-1).var() == pytest.approx(truth, rel=0.1)  # it is the variance of the risk

    def test_replicates_are_unbiased_where_training_does_not_move_items(self):
        rng = np.random.default_rng(1)
        p = rng.beta(0.5, 0.7, ITEMS)
        outcome = rng.binomial(1, p, (3000, 4, ITEMS)).astype(float)
        found, method = sampling_variance(outcome, 1)
        truth = 1e4 * (p * (1 - p)).sum() / ITEMS**2
        assert method == "replicates"
        assert found.shape == (3000, 4)
        assert found[:, 0].mean() == pytest.approx(truth, abs=4 * found[:, 0].std() / np.sqrt(3000))

    def test_replicates_and_bound_are_never_too_small(self):
        rng = np.random.default_rng(2)
        p = rng.beta(0.5, 0.7, (1, 5, ITEMS))  # every seed has probabilities of its own
        outcome = rng.binomial(1, p, (3000, 5, ITEMS)).astype(float)
        truth = 1e4 * (p * (1 - p)).sum() / (5 * ITEMS**2)
        replicates, _ = sampling_variance(outcome, None)
        bound, method = sampling_variance(outcome[:, :1], None)
        assert method == "bound"
        assert truth < replicates.mean()
        assert 1e4 * (p[0, 0] * (1 - p[0, 0])).sum() / ITEMS**2 < bound.mean()

    def test_one_sample_bound_is_the_squared_standard_error(self):
        outcome = np.random.default_rng(3).integers(0, 2, (7, 1, 30)).astype(float)
        found, _ = sampling_variance(outcome, 1)
        np.testing.assert_allclose(found[:, 0], 1e4 * outcome[:, 0].var(axis=1, ddof=1) / 30)

    def test_a_greedy_answer_is_not_random(self):
        found, method = sampling_variance(np.zeros((2, 3, 5)), 0)
        assert (method, found.tolist()) == ("greedy", [[0.0] * 3] * 2)

    @pytest.mark.parametrize(("samples", "seeds"), [(2, 1), (1, 3), (None, 1)])
    def test_items_that_were_not_judged_are_in_no_mean(self, samples, seeds):
        outcome = np.random.default_rng(4).integers(0, 2, (5, seeds, 12)) / 2
        with_nan = np.concatenate([outcome, np.full((5, seeds, 3), np.nan)], axis=-1)
        np.testing.assert_allclose(sampling_variance(with_nan, samples)[0], sampling_variance(outcome, samples)[0])
        assert np.isnan(sampling_variance(np.full((1, seeds, 4), np.nan), samples)[0]).all()

    def test_negative_samples(self):
        with pytest.raises(StudyError, match="samples: -1 is not >= 0"):
            sampling_variance(np.zeros((1, 1, 2)), -1)


@pytest.mark.parametrize(
    ("said", "samples"), [("2 sampled at T = 1", 2), ("16 sampled at T = 1", 16), ("greedy answer", 0), (None, None)]
)
def test_samples_are_read_from_the_cube(said, samples):
    assert samples_of(world(organisms=2, attrs={"evaluation": said})) == samples


class TestItemNoise:
    def test_rows(self):
        cube, truth, _ = answered(1, organisms=6)
        table = item_noise(cube).set_index("evaluation")
        assert list(table.index) == ["after", "before"]
        assert (table.method == "samples").all()
        assert table.unbiased.all()
        assert (table["items"] == ITEMS).all()
        assert table.runs.to_dict() == {"after": 108, "before": 12}
        assert table.variance_pp2["after"] == pytest.approx(truth.mean(), rel=0.1)
        assert table.low["after"] < table.variance_pp2["after"] < table.high["after"]
        np.testing.assert_allclose(table.sd_pp**2, table.variance_pp2)

    def test_intervals_cover(self):
        cube, truth, _ = answered(2, organisms=6, seeds=1, copies=200, training=0.1)
        table = item_noise(cube).query("evaluation == 'after'")
        assert 0.9 < ((table.low <= truth.mean()) & (table.high >= truth.mean())).mean() < 0.985

    @pytest.mark.parametrize(
        ("samples", "seeds", "method", "unbiased"),
        [(None, 1, "samples", True), (1, 2, "replicates", False), (1, 1, "bound", False), (0, 1, "greedy", True)],
    )
    def test_method_follows_from_what_is_known(self, samples, seeds, method, unbiased):
        table = item_noise(answered(3, seeds=seeds)[0], samples=samples)
        assert set(table.method) == {method}
        assert set(table.unbiased) == {unbiased}

    def test_failed_runs_and_order(self):
        cube, _, _ = answered(4)
        root = cube.to_dataset()
        root["status"][0, 1, 1] = 2
        both = xr.DataTree.from_dict({"/": root, "/items": cube["items"].to_dataset(inherit=False)})
        assert item_noise(both).runs[0] == 106
        moved = both.isel(organism=[5, 3, 0, 1, 4, 2], selector=[2, 0, 1], label_shift=[1, 0, 2])
        numbers = ["variance_pp2", "low", "high", "runs", "items"]
        np.testing.assert_allclose(item_noise(moved)[numbers], item_noise(both)[numbers])

    def test_refusals(self):
        cube, _, _ = answered(5)
        with pytest.raises(StudyError, match="no group items; give the whole cube"):
            item_noise(cube.to_dataset())
        group = cube["items"].to_dataset(inherit=False)
        without = xr.DataTree.from_dict(
            {"/": cube.to_dataset(), "/items": group.assign_coords(kind=group.kind.str.replace("risk", "capability"))}
        )
        with pytest.raises(StudyError, match="has no item of kind risk"):
            item_noise(without)
        with pytest.raises(StudyError, match="1 valid organism"):
            item_noise(answered(6, organisms=1)[0])


class TestNoiseLines:
    def test_lines_sum_to_what_they_summed_to(self):
        cube, _, _ = answered(7)
        table = noise_lines(cube).set_index("source").variance_pp2
        runs = blocks(cube)[0].response[:, :, :, 0]
        plain = {name: part.mean() for name, part in noise(runs).items()}
        assert abs(table.sum() - sum(plain.values())) <= 1e-9
        assert table["item sampling, after"] == pytest.approx(plain["residual"] - table["residual"])
        seed = "seed within organism"
        assert table["item sampling, before"] == pytest.approx(plain[seed] - table[seed])
        assert table["organism"] == pytest.approx(plain["organism"])

    @pytest.mark.parametrize(("seeds", "receiver"), [(2, "organism"), (1, "organism and seed")])
    def test_one_evaluation_before_training_is_the_organism_s(self, seeds, receiver):
        cube, _, _ = answered(8, seeds=seeds, before_of_seed=False)
        table = noise_lines(cube).set_index("source").variance_pp2
        plain = noise(blocks(cube)[0].response[:, :, :, 0])[receiver].mean()
        assert table["item sampling, before"] == pytest.approx(plain - table[receiver])

    def test_what_is_left_is_unbiased(self):
        """Residual: variance over seeds of the expected risk; seed: nothing but the evaluation before training."""
        cube, _, p = answered(9, copies=120, organisms=4)
        table = noise_lines(cube)
        expected = 100 * p.mean(-1)[..., 0, :]  # [organism, shift, selector, seed]
        own = expected - expected.mean(axis=-1, keepdims=True)
        between = (own**2).sum(axis=-1).mean()  # one degree of freedom for two seeds
        lines = table.groupby("source").variance_pp2
        error = lines.std() / np.sqrt(120)
        found = lines.mean()
        assert found["residual"] == pytest.approx(between, abs=4 * error["residual"])
        assert found["residual"] + found["item sampling, after"] > between + 10 * error["residual"]
        assert found["seed within organism"] == pytest.approx(0, abs=4 * error["seed within organism"])
        assert found["item sampling, before"] > 5 * error["seed within organism"]

    def test_settings_of_other_factors_have_their_own(self):
        cube, _, _ = answered(10, objectives=("sft", "bct"), objective=(0, 0))
        table = noise_lines(cube)
        assert table.groupby("objective").size().to_dict() == {"bct": 8, "sft": 8}

    def test_where_there_is_no_residual(self):
        cube, _, _ = answered(11, selectors=("first",), selector=(0,))
        with pytest.raises(StudyError, match=re.escape("fewer than two label shifts or selectors that act")):
            noise_lines(cube)
