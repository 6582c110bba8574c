import hashlib

import numpy as np
import pytest
import xarray as xr
from worlds import world

from ablate.effects import caption, contrasts, fixed_table
from ablate.effects.block import root


def test_fixed_table_has_the_rows_of_the_contrasts_but_the_main_ones():
    cube = world(1, organisms=6)
    table = fixed_table(cube)
    whole = contrasts(cube)
    assert list(table.kind) == ["null control"] + ["simple"] * 12
    np.testing.assert_array_equal(table.p_adjusted, whole[whole.kind != "main"].p_adjusted)
    assert table.attrs["counts"] == whole.attrs["counts"]


def test_caption_states_what_the_cube_holds():
    cube = world(2, organisms=7, seeds=2, frozen=("greedy",), attrs={"items": 128, "digest": "a1b2c3d4"})
    cube["valid_organism"][6] = 0
    cube["status"][0, 2, 1, 0, 0] = 2
    facts = caption(cube)
    assert facts["organisms"] == {"sycophancy": 6}
    assert facts["invalid"] == ["o6"]
    assert (facts["runs"], facts["failed"], facts["aliased"], facts["seeds"]) == (107, 1, 24, 2)
    assert facts["induction_seeds"] == [0, 1, 2, 3, 4, 5]
    assert (facts["df"], facts["tests"]) == ({"sycophancy": 5}, "max-T over 2^6 sign-flips")
    assert (facts["items"], facts["digest"], facts["evaluation"], facts["limited"]) == (128, "a1b2c3d4", None, False)
    pools = sorted(f"pool-{o}.{i}.{s}" for o in range(6) for i in range(3) for s in range(2))
    assert facts["pools"] == hashlib.sha256("\n".join(pools).encode()).hexdigest()[:6]


@pytest.mark.parametrize(
    ("organisms", "tests"), [(14, "max-T over 2^14 sign-flips"), (15, "max-T over 10,000 random sign-flips")]
)
def test_caption_says_how_many_flips(organisms, tests):
    assert caption(world(organisms=organisms))["tests"] == tests


def test_items_are_counted_in_a_whole_cube():
    cube = world(organisms=2, behaviors=("a", "b"), attrs={})
    kinds = [["risk", "risk", "capability"], ["risk", "risk", "risk"], ["risk", "", ""], ["risk", "capability", ""]]
    items = xr.Dataset(coords={"kind": (("organism", "item"), np.array(kinds, object))})
    tree = xr.DataTree.from_dict({"/": cube, "/items": items})
    assert root(tree).attrs["items"] == {"a": 2, "b": 1}
    assert caption(tree)["items"] == {"a": 2, "b": 1}
    assert root(cube).attrs == {}
