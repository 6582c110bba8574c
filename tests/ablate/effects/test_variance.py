import re

import numpy as np
import pytest
import xarray as xr
from answers import answered

from ablate.effects import variance, variance_components
from ablate.effects.block import blocks
from ablate.effects.components import noise
from ablate.effects.worlds import world
from ablate.errors import StudyError

ORDER = {
    "organism": "organism",
    "seed": "seed within organism",
    "organism:label_shift": "organism x label_shift",
    "organism:selector": "organism x selector",
    "organism:label_shift:selector": "organism x label_shift x selector",
    "residual": "residual",
}


def lines(cube, **options):
    return variance(cube, **options).set_index("term")


def failed(cube, *places):
    root = cube.to_dataset().copy(deep=True)
    for place in places:
        root["status"][place] = 2
    return xr.DataTree.from_dict({"/": root, "/items": cube["items"].to_dataset(inherit=False)})


class TestBalanced:
    def test_lines_sum_to_the_expected_mean_squares(self):
        """Oracle: `components.noise`, the closed form; the item lines are what was taken out, and close exactly."""
        table = lines(answered(7)[0])
        plain = {name: part.mean() for name, part in noise(blocks(answered(7)[0])[0].response[:, :, :, 0]).items()}
        values = table.variance_pp2
        assert set(table.index) == {*ORDER, "item sampling, after", "item sampling, before"}
        assert abs(values.sum() - sum(plain.values())) <= 1e-9
        assert abs(table.share.sum() - 1) <= 1e-12
        for term, name in ORDER.items():
            taken = {"residual": "item sampling, after", "seed": "item sampling, before"}.get(term)
            own = values[term] + (values[taken] if taken else 0.0)
            assert own == pytest.approx(plain[name], abs=1e-9)
        np.testing.assert_allclose(table.share, values / values.sum(), atol=1e-9)

    @pytest.mark.parametrize(("seeds", "receiver"), [(2, "organism"), (1, "organism and seed")])
    def test_one_evaluation_before_training_is_the_organism_s(self, seeds, receiver):
        cube = answered(8, seeds=seeds, before_of_seed=False)[0]
        values = lines(cube).variance_pp2
        plain = next(iter(noise(blocks(cube)[0].response[:, :, :, 0]).values())).mean()
        assert values["item sampling, before"] == pytest.approx(plain - values[receiver])

    def test_what_is_left_is_unbiased(self):
        """Residual: variance over seeds of the expected risk; seed: nothing but the evaluation before training."""
        cube, _, p = answered(9, copies=60, organisms=4)
        table = variance(cube)
        own = 100 * p.mean(-1)[..., 0, :]  # [organism, shift, selector, seed]
        between = ((own - own.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1).mean()  # two seeds: one df
        grouped = table.groupby("term").variance_pp2
        found, error = grouped.mean(), grouped.std() / np.sqrt(60)
        assert found["residual"] == pytest.approx(between, abs=4 * error["residual"])
        assert found["residual"] + found["item sampling, after"] > between + 7 * error["residual"]
        assert found["seed"] == pytest.approx(0, abs=4 * error["seed"])

    def test_with_one_seed_the_names_say_what_cannot_be_told_apart(self):
        table = variance(answered(1, seeds=1)[0])
        assert table.term.tolist()[:4] == [
            "organism and seed",
            "organism:label_shift",
            "organism:selector",
            "organism:label_shift:selector and residual",
        ]

    @pytest.mark.parametrize("lost", [[], [(0, 0, 0)]], ids=["ems", "reml"])
    def test_limits_move_with_what_item_noise_takes_from_their_estimate(self, lost):
        """Oracle: `variance_components` on the long frame, whose every line is wider than none of the table's."""
        cube = failed(answered(5)[0], *lost)
        table = lines(cube)
        frame = cube.to_dataset()[["risk_delta", "status"]].squeeze("objective").to_dataframe().reset_index()
        frame = frame[frame.status == 1].assign(y=lambda rows: 100 * rows.risk_delta, seed=frame.seed.astype(str))
        terms = ["organism", "organism:label_shift", "organism:selector", "organism:label_shift:selector"]
        fixed = ["label_shift", "selector", "label_shift:selector"]
        method = "reml" if lost else "ems"
        oracle = variance_components(frame, "y", fixed, [*terms, "organism:seed"], method).set_index("term")
        for term, name, item in (("residual", "residual", "after"), ("organism:seed", "seed", "before")):
            taken = table.variance_pp2[f"item sampling, {item}"]
            assert taken > 1
            found = table.loc[name, ["variance_pp2", "low", "high"]].astype(float)
            np.testing.assert_allclose(found + taken, oracle.loc[term, ["variance", "low", "high"]], rtol=1e-6)

    def test_settings_of_other_factors_have_their_own(self):
        table = variance(answered(10, objectives=("sft", "bct"), objective=(0, 0))[0])
        assert table.groupby("objective").size().to_dict() == {"bct": 8, "sft": 8}
        assert list(table.columns[:3]) == ["behavior", "objective", "term"]

    @pytest.mark.parametrize("seeds", [1, 2])
    def test_one_swapped_factor_is_enough(self, seeds):
        cube = answered(11, selectors=("first",), selector=(0,), seeds=seeds)[0]
        table = lines(cube)
        assert "organism:selector" not in table.index
        runs = blocks(cube)[0].response[:, :, 0, 0]  # [organism, shift, seed]
        cells = runs.mean(-1) - runs.mean((1, 2), keepdims=True)[..., 0]
        cells = cells - cells.mean(0)
        if seeds == 1:
            values = table.variance_pp2
            own = values["organism:label_shift and residual"] + values["item sampling, after"]
            assert own == pytest.approx((cells**2).sum() / (5 * 2))

    def test_shifts_under_which_selection_cannot_act_are_left_out(self):
        table = variance(answered(12, frozen=("greedy",))[0])
        assert table.runs.tolist() == [6 * 2 * 3 * 2] * 8
        assert table.attrs["notes"] == [
            "b0: label_shift greedy is left out, since selection cannot act under it",
            "b0: 72 of 108 runs used",
        ]

    def test_shares_cover(self):
        """The seed's share; truth from the planted variances, over 50 studies of 8 organisms."""
        covered = []
        for seed in range(50):
            cube = world(seed, organisms=8, seeds=2, org=0, run_seed=3, noise=3, org_shift=3, org_selector=3)
            tree = with_greedy_items(cube)
            row = lines(tree).loc["seed"]
            covered.append(row.share_low <= 0.25 <= row.share_high)
        assert 0.8 < np.mean(covered) <= 1


def with_greedy_items(cube):
    """Items whose answers are not random: no item noise."""
    shape = {"organism": cube.sizes["organism"], "item": 2}
    items = xr.Dataset(
        {
            "outcome_after": (*[(*cube.risk_delta.dims, "item")], np.zeros((*cube.risk_delta.shape, 2))),
            "outcome_before": (("organism", "item"), np.zeros(tuple(shape.values()))),
        },
        {"kind": (("organism", "item"), np.full(tuple(shape.values()), "risk", object))},
    )
    return xr.DataTree.from_dict({"/": cube.assign_attrs(evaluation="greedy answer"), "/items": items})


class TestIncomplete:
    def test_reml_is_that_of_the_long_frame(self):
        """Oracle: `variance_components` on the frame that a user would write."""
        tree = with_greedy_items(world(1, organisms=6, seeds=2))
        cube = failed(tree, (0, 0, 0), (3, 2, 1))
        table = lines(cube)
        assert set(table.method) == {"reml", "greedy"}
        frame = cube.to_dataset()[["risk_delta", "status"]].squeeze("objective").to_dataframe().reset_index()
        frame = frame[frame.status == 1].assign(y=lambda rows: 100 * rows.risk_delta, seed=frame.seed.astype(str))
        terms = ["organism", "organism:label_shift", "organism:selector", "organism:label_shift:selector"]
        fixed = ["label_shift", "selector", "label_shift:selector"]
        oracle = variance_components(frame, "y", fixed, [*terms, "organism:seed"]).set_index("term")
        for term, name in zip([*terms, "organism:seed", "residual"], [*terms, "seed", "residual"], strict=True):
            found = table.loc[name, ["variance_pp2", "low", "high"]].astype(float)
            np.testing.assert_allclose(found, oracle.loc[term, ["variance", "low", "high"]], rtol=1e-6, atol=1e-8)
        assert abs(table.share.sum() - 1) <= 1e-12
        own = table[table.method == "reml"]
        assert (own.share_low <= own.share).all()
        assert (own.share <= own.share_high).all()

    def test_lines_close_with_item_noise_too(self):
        table = lines(failed(answered(2)[0], (0, 0, 0)))
        np.testing.assert_allclose(table.share, table.variance_pp2 / table.variance_pp2.sum(), atol=1e-9)
        assert table.runs.iloc[0] == 107 - 1


def test_relabeling_order_and_a_constant_change_nothing():
    cube = answered(3)[0]
    moved = cube.isel(organism=[5, 3, 0, 1, 4, 2], selector=[2, 0, 1], label_shift=[1, 0, 2], seed=[1, 0])
    shifted = cube.to_dataset().assign(risk_delta=cube.risk_delta + 0.01)
    shifted = xr.DataTree.from_dict({"/": shifted, "/items": cube["items"].to_dataset(inherit=False)})
    numbers = ["variance_pp2", "low", "high", "share", "share_low", "share_high"]
    for other in (moved, shifted):
        np.testing.assert_allclose(variance(other)[numbers], variance(cube)[numbers], rtol=1e-9, atol=1e-9)


def test_an_upper_bound_is_said_to_be_one():
    table = variance(answered(4, seeds=1, samples=1)[0])
    assert set(table.method) == {"ems", "bound"}
    assert table.attrs["notes"] == [
        "b0: item sampling, after, item sampling, before: upper bounds, what they are taken from lower ones"
    ]
    assert table.attrs["methods"] == (
        "random effects of organisms by expected mean squares (modified large-sample limits), item noise subtracted "
        "and shown with t limits, shares with generalized pivotal limits (by REML or of one factor: Fieller), over "
        "organisms with 5 df"
    )


def test_the_caption_says_where_organisms_are_grouped():
    cube = with_greedy_items(world(2, organisms=12, selectors=("first",), selector=(0,)))
    assert variance(cube).attrs["methods"].endswith("with 11 df (shares by REML or of one factor: 10 groups of them)")


@pytest.mark.parametrize(
    ("cube", "message"),
    [
        (world(organisms=6), "the cube has no group items"),
        (with_greedy_items(world(organisms=1)), "1 valid organism, at least 2"),
        (
            with_greedy_items(world(organisms=6, shifts=("none",), selectors=("first",), shift=(0,), selector=(0,))),
            "label_shift and selector have one level each, no residual to tell",
        ),
    ],
)
def test_refusals(cube, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        variance(cube)
