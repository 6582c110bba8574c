"""Differences between two cubes: paired where the organisms are the same artifacts, Welch's where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablate.effects import fixed_table
from ablate.effects.comparison import compared, require_common, shared_keys, welch
from ablate.effects.worlds import world
from ablate.errors import StudyError

SHIFT = "sycophancy", "selector = first", "label_shift none -> clean_view"


def named(cube: xr.Dataset, names: list[str]) -> xr.Dataset:
    """The same cube with content keys of its organisms."""
    keys = np.array(names, object)[:, None, None, None, None]
    return cube.assign(key_organism=(cube.status.dims, np.broadcast_to(keys, cube.status.shape)))


def row(one: xr.Dataset, other: xr.Dataset, name: tuple[str, str, str] = SHIFT) -> Any:
    return compared(one, other).set_index(["behavior", "held", "swapped"]).loc[name]


def effects_of(cube: xr.Dataset) -> Any:
    cells = 100 * cube.risk_delta.sel(selector="first").squeeze()
    return (cells.sel(label_shift="clean_view") - cells.sel(label_shift="none")).values


def test_effects_of_each_are_those_of_its_fixed_table() -> None:
    one, other = world(1, organisms=6, shift=(0, 0, 8)), world(2, organisms=7, frozen=("greedy",))
    table = compared(one, other)
    for side, cube in (("a", one), ("b", other)):
        own = fixed_table(cube)
        assert table["swapped"].tolist() == own["swapped"].tolist()
        for mine, its in ((f"{side}_pp", "effect_pp"), (f"{side}_low", "low"), (f"{side}_high", "high")):
            np.testing.assert_array_equal(table[mine], own[its])


def test_the_same_organisms_are_paired() -> None:
    """Oracle: scipy.stats.ttest_rel of the effects by organism."""
    keys = [f"k{i}" for i in range(6)]
    one = named(world(1, organisms=6, shift=(0, 0, 5)), keys)
    other = named(world(2, organisms=6, shift=(0, 0, 9)).isel(organism=slice(None, None, -1)), keys[::-1])
    found = row(one, other)
    test = stats.ttest_rel(effects_of(other)[::-1], effects_of(one)).confidence_interval(0.95)
    assert (found.estimand, found.shared) == ("paired", 6)
    assert (found.difference_low, found.difference_high) == pytest.approx((test.low, test.high))
    assert found.difference_pp == pytest.approx(found.b_pp - found.a_pp)


def test_pairs_are_only_the_organisms_that_both_have() -> None:
    one = named(world(1, organisms=5), ["a", "b", "c", "d", "e"])
    other = named(world(2, organisms=4), ["x", "b", "a", "y"])
    found = row(one, other)
    d = effects_of(other)[[2, 1]] - effects_of(one)[[0, 1]]
    assert (found.estimand, found.organisms_a, found.organisms_b, found.shared) == ("paired", 5, 4, 2)
    assert found.difference_pp == pytest.approx(d.mean())


@pytest.mark.parametrize("keys", [True, False], ids=["other keys", "no keys"])
def test_other_organisms_are_two_samples(keys: bool) -> None:
    """Oracle: scipy.stats.ttest_ind(equal_var=False)."""
    one, other = world(1, organisms=6, shift=(0, 0, 5)), world(2, organisms=9, shift=(0, 0, 9))
    if keys:
        one, other = named(one, [f"a{i}" for i in range(6)]), named(other, [f"b{i}" for i in range(9)])
    found = row(one, other)  # names are o0, o1, ... in both: a name proves nothing
    test = stats.ttest_ind(effects_of(other), effects_of(one), equal_var=False).confidence_interval(0.95)
    assert (found.estimand, found.shared) == ("independent", 0)
    assert (found.difference_low, found.difference_high) == pytest.approx((test.low, test.high))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_welch_turns_its_sign_with_its_samples(one: list[float], other: list[float]) -> None:
    there, back = welch(np.array(one), np.array(other)), welch(np.array(other), np.array(one))
    np.testing.assert_allclose(there, (-back.estimate, -back.high, -back.low), atol=1e-9)


@pytest.mark.parametrize(("one", "other"), [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_welch_has_no_limits_without_a_spread(one: list[float], other: list[float]) -> None:
    found = welch(np.array(one), np.array(other))
    assert np.isfinite(found.estimate)
    assert np.isnan([found.low, found.high]).all()


def test_welch_of_nothing_is_nothing() -> None:
    assert np.isnan(welch(np.array([]), np.array([1.0, 2.0]))).all()


def test_what_only_one_has_is_said() -> None:
    one, other = world(1, organisms=4), world(1, organisms=4, shifts=("none", "cot_view"), shift=(0, 3))
    table = compared(one, other)
    found = dict(zip(table["swapped"], table["estimand"], strict=True))
    assert found["label_shift none -> greedy"] == "only in A"
    assert found["label_shift none -> cot_view"] == "only in B"
    assert found["null control"] == "independent"
    assert table[table["estimand"] == "only in B"]["difference_pp"].isna().all()
    require_common(table)


def test_nothing_in_common_is_said() -> None:
    other = world(1, organisms=4).assign_coords(behavior=("organism", ["hacking"] * 4))
    with pytest.raises(StudyError) as error:
        require_common(compared(world(1, organisms=4), other))
    assert str(error.value) == (
        "no contrast is in both; A: sycophancy, label_shift = none, selector = first | null control; "
        "B: hacking, label_shift = none, selector = first | null control"
    )


def test_the_methods_name_the_estimands() -> None:
    one, other = world(1, organisms=4), world(2, organisms=4)
    assert compared(one, other).attrs["methods"] == (
        "within-organism contrasts, B less A; two samples of organisms, Welch's t intervals; not adjusted for the "
        "number of rows"
    )
    keys = list("abcd")
    assert "paired over the organisms that both have" in compared(named(one, keys), named(other, keys)).attrs["methods"]


def test_artifacts_are_the_same_where_keys_are() -> None:
    one, other = world(1, organisms=3), world(1, organisms=3)
    other["key_pool"] = other.key_pool.copy(deep=True)
    other.key_pool[:, 1] = "another"
    tree = [xr.DataTree(cube) for cube in (one, other)]
    found = shared_keys(*tree).set_index("artifact")
    pools = found.loc["pools"]
    assert (pools.in_a, pools.in_b, pools.in_both) == (9, 7, 6)
    assert (pools.runs, pools.same_runs, pools.differs) == (27, 18, "greedy")
    assert found.loc["trainings", ["in_both", "same_runs", "differs"]].tolist() == [27, 27, ""]


def test_runs_stand_at_one_place_by_their_labels_not_their_order() -> None:
    one = world(1, organisms=3)
    turned = one.isel(organism=slice(None, None, -1), label_shift=[2, 0, 1])
    found = shared_keys(xr.DataTree(one), xr.DataTree(turned))
    assert found["same_runs"].tolist() == found["runs"].tolist() == [27, 27, 27]


def test_other_dimensions_have_no_common_place() -> None:
    one = world(1, organisms=3)
    other = one.expand_dims(candidates=[1, 4], axis=-1).copy(deep=True)
    found = shared_keys(xr.DataTree(one), xr.DataTree(other.transpose("organism", ...)))
    assert isinstance(found, pd.DataFrame)
    assert found["runs"].tolist() == [0, 0, 0]
    assert (found["in_both"] > 0).all()
