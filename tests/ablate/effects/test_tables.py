import hashlib

import numpy as np
import pytest
import xarray as xr

from ablate.effects import caption, contrasts, decomposition, fixed_table
from ablate.effects.block import root
from ablate.effects.worlds import world


def test_fixed_table_has_the_rows_that_hold_the_rest_at_stated_levels():
    cube = world(1, organisms=6)
    table = fixed_table(cube)
    whole = contrasts(cube)
    assert list(table.kind) == ["null control"] + ["simple"] * 12
    np.testing.assert_array_equal(table.p_adjusted, whole[whole.kind.isin(["null control", "simple"])].p_adjusted)
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
    assert facts["unparsed"] is None
    assert contrasts(cube).attrs["methods"] == (
        "within-organism contrasts, t intervals with 5 df, max-T over the rows of a kind from 2^6 sign-flips, "
        "conditional on these items"
    )
    assert (facts["items"], facts["digest"], facts["evaluation"], facts["limited"]) == (128, "a1b2c3d4", None, False)
    pools = sorted(f"pool-{o}.{i}.{s}" for o in range(6) for i in range(3) for s in range(2))
    assert facts["pools"] == hashlib.sha256("\n".join(pools).encode()).hexdigest()[:6]


@pytest.mark.parametrize(("organisms", "flips"), [(14, "from 2^14 sign-flips"), (15, "from 10,000 random sign-flips")])
def test_methods_say_how_many_flips(organisms, flips):
    assert flips in contrasts(world(organisms=organisms)).attrs["methods"]


def test_methods_count_the_organisms_of_the_rows():
    cube = world(organisms=6)
    cube["status"][5, 2, 1] = 2  # one organism lacks a run
    assert "t intervals with 4 to 5 df" in contrasts(cube).attrs["methods"]
    assert (
        "max-T over the declared rows and BH over the rest from"
        in contrasts(cube, family=["selector first -> majority"]).attrs["methods"]
    )
    shares = decomposition(cube).attrs["methods"]
    assert shares == (
        "within-organism ANOVA against organism x effect (Greenhouse-Geisser, BH over the table), expected mean "
        "squares, linearized t intervals with 4 df (random sources, item noise included: modified large-sample limits; "
        "shares of variance: generalized pivotal limits), conditional on these items and the declared levels"
    )


def test_caption_states_what_was_not_judged():
    cube = world(organisms=6)
    for name, value in (("misaligned_delta", 0.1), ("unparsed_before", 0.25), ("unparsed_after", 0.5)):
        cube[name] = xr.full_like(cube["risk_delta"], value)
    assert caption(cube)["unparsed"] == {"before": 0.25, "after": 0.5}


def test_items_are_counted_in_a_whole_cube():
    cube = world(organisms=2, behaviors=("a", "b"), attrs={})
    kinds = [["risk", "risk", "capability"], ["risk", "risk", "risk"], ["risk", "", ""], ["risk", "capability", ""]]
    items = xr.Dataset(coords={"kind": (("organism", "item"), np.array(kinds, object))})
    tree = xr.DataTree.from_dict({"/": cube, "/items": items})
    assert root(tree).attrs["items"] == {"a": 2, "b": 1}
    assert caption(tree)["items"] == {"a": 2, "b": 1}
    assert root(cube).attrs == {}
