import numpy as np
import pytest
import xarray as xr
from answers import ITEMS, answered

from ablate.effects.itemnoise import item_noise, samples_of, sampling_variance
from ablate.effects.worlds import world
from ablate.errors import StudyError


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
