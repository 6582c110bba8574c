"""Means of cells and their two intervals. Oracles: scipy's t distribution, the paired interval of a difference."""

import numpy as np
import pytest
import xarray as xr
from gallery import changed, gallery
from scipy import stats

from ablate.effects.cells import cell_means
from ablate.effects.points import cells_by
from ablate.effects.posterior import eta_curves
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError


def row(table, **where):
    [found] = table[np.logical_and.reduce([table[name] == level for name, level in where.items()])].to_dict("records")
    return found


def test_one_cell_by_hand():
    cube = world(1, organisms=5, seeds=2)
    values = grid(cube)[:, 2, 1, 0].mean(-1)
    found = row(cell_means(cube), label_shift="clean_view", selector="majority")
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (found["effect_pp"], found["low"], found["high"]) == pytest.approx((values.mean(), low, high))
    assert (found["organisms"], found["identical"], found["behavior"]) == (5, False, "sycophancy")


def test_with_two_cells_the_within_interval_is_that_of_the_difference_over_root_two():
    cube = world(1, organisms=5, shifts=["none", "greedy"], selectors=["first"])
    difference = grid(cube)[:, 1, 0, 0, 0] - grid(cube)[:, 0, 0, 0, 0]
    half = stats.t.ppf(0.975, 4) * stats.sem(difference)
    for found in cell_means(cube).to_dict("records"):
        assert found["within_high"] - found["effect_pp"] == pytest.approx(half / np.sqrt(2))
        assert found["effect_pp"] - found["within_low"] == pytest.approx(half / np.sqrt(2))


def test_what_organisms_have_in_common_widens_one_interval_only():
    near, far = (cell_means(world(1, org=sd)) for sd in (0, 30))
    assert ((far["high"] - far["low"]) > 2 * (near["high"] - near["low"])).all()
    assert (far["within_high"] - far["within_low"]).tolist() == pytest.approx(
        (near["within_high"] - near["within_low"]).tolist()
    )


def test_identical_cells_count_once_and_are_marked():
    table = cell_means(world(1, frozen=["greedy"]))
    assert table.set_index(["label_shift", "selector"])["identical"].sum() == 2
    assert row(table, label_shift="greedy", selector="first")["identical"] is False
    alone = cell_means(world(1, frozen=["greedy"], shifts=["none", "greedy"]))
    same = row(alone, label_shift="greedy", selector="majority")
    assert same["effect_pp"] == pytest.approx(row(alone, label_shift="greedy", selector="first")["effect_pp"])


def test_every_setting_is_a_table_of_its_own():
    table = cell_means(gallery(candidates=(2, 4)))
    assert list(table.columns[:4]) == ["behavior", "candidates", "label_shift", "selector"]
    assert len(table) == 2 * 9
    assert not table["identical"].any(), "a pool of 4 is no copy of one of 2"


def test_an_organism_that_lacks_a_cell_counts_where_it_is_and_in_no_comparison():
    tree = gallery()

    def without(values):
        values[0, 1, 1] = np.nan
        return values

    table = cell_means(changed(tree, risk_delta=without))
    assert row(table, label_shift="greedy", selector="majority")["organisms"] == 5
    assert row(table, label_shift="none", selector="first")["organisms"] == 6
    rest = cell_means(tree.isel(organism=slice(1, None)))
    widths = (table["within_high"] - table["within_low"], rest["within_high"] - rest["within_low"])
    assert widths[0].tolist() == pytest.approx(widths[1].tolist())


def test_a_factor_that_is_called_like_a_column_is_refused():
    tree = gallery(candidates=(2, 4))
    renamed = {name: tree[name].to_dataset(inherit=False).rename(candidates="dose") for name in ("labels", "items")}
    root = tree.to_dataset(inherit=False).rename(candidates="dose")
    cube = xr.DataTree.from_dict({"/": root, **{f"/{name}": group for name, group in renamed.items()}})
    for table in (cell_means, eta_curves, lambda cube: cells_by(cube, "kl_shift")):
        with pytest.raises(StudyError, match="a factor is called 'dose', like a number of this table; rename it"):
            table(cube)


def test_one_organism_has_no_interval():
    table = cell_means(world(1, organisms=1))
    assert table["effect_pp"].notna().all()
    assert table[["low", "high", "within_low", "within_high"]].isna().all(axis=None)
