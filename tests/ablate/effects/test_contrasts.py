import re
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from ablate.effects import contrasts, decomposition, sign_flip, verdict
from ablate.effects.block import blocks
from ablate.effects.worlds import grid, world
from ablate.errors import StudyError

EFFECTS = {"shift": (0, -10, -30), "selector": (0, 2, 20)}


def row(table, swapped, held=None, kind="simple"):
    found = table[(table.kind == kind) & (table.swapped == swapped) & ((table.held == held) if held else True)]
    assert len(found) == 1, found
    return found.iloc[0]


def test_one_number_by_hand():
    cube = world(1, organisms=7, seeds=3, **EFFECTS)
    y = grid(cube).mean(axis=-1)[..., 0]
    d = y[:, 2, 1] - y[:, 0, 1]
    found = row(contrasts(cube), "label_shift none -> clean_view", "selector = majority")
    interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (found.effect_pp, found.low, found.high) == pytest.approx((d.mean(), interval.low, interval.high))
    assert found.p == pytest.approx(sign_flip(d).p[0])
    assert (found.organisms, found.missing, found.identical, found.note) == (7, 0, False, "")


def test_every_row_is_there_once():
    table = contrasts(world(organisms=6))
    assert table.kind.value_counts().to_dict() == {"simple": 12, "main": 4, "interaction": 4, "null control": 1}
    assert not table.duplicated(["kind", "held", "swapped"]).any()
    assert list(table[table.kind == "main"].held.unique()) == ["mean over selector", "mean over label_shift"]


def test_null_control_is_the_change_of_the_null_run_itself():
    cube = world(2, organisms=6)
    found = contrasts(cube).iloc[0]
    tau = grid(cube)[:, 0, 0, 0, 0]
    assert (found.kind, found.held) == ("null control", "label_shift = none, selector = first")
    assert found.effect_pp == pytest.approx(tau.mean())
    assert np.isnan(found.p_adjusted)


def test_max_t_is_over_the_family_of_the_kind():
    cube = world(3, organisms=8, shift=(0, -2, -3))
    table, y = contrasts(cube), grid(cube)[..., 0, 0]
    mains = [(y[:, i] - y[:, 0]).mean(axis=1) for i in (1, 2)] + [
        (y[:, :, j] - y[:, :, 0]).mean(axis=1) for j in (1, 2)
    ]
    expected = sign_flip(np.column_stack(mains)).p_adjusted
    np.testing.assert_allclose(table[table.kind == "main"].p_adjusted, expected)
    assert set(table[table.kind != "null control"].adjusted_by) == {"max-T"}


class TestInteractions:
    def test_one_number_by_hand(self):
        cube = world(5, organisms=7, seeds=3, interaction={(2, 1): -12})
        y = grid(cube)[..., 0, :]
        d = (y[:, 2, 1] - y[:, 2, 0] - y[:, 0, 1] + y[:, 0, 0]).mean(-1)
        table = contrasts(cube)
        found = row(table, "label_shift none -> clean_view x selector first -> majority", kind="interaction")
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        assert (found.effect_pp, found.low, found.high) == pytest.approx((d.mean(), interval.low, interval.high))
        assert found.high < 0, "it was planted"
        assert (found.factor, found.start, found.end) == (
            "label_shift x selector",
            "none -> clean_view",
            "first -> majority",
        )
        corners = [(i, j) for i in (1, 2) for j in (1, 2)]
        all_d = [(y[:, i, j] - y[:, i, 0] - y[:, 0, j] + y[:, 0, 0]).mean(-1) for i, j in corners]
        own = table[table.kind == "interaction"]
        np.testing.assert_allclose(own.p_adjusted, sign_flip(np.column_stack(all_d)).p_adjusted)

    def test_a_third_factor_is_averaged_over(self):
        cube = world(6, organisms=6, objectives=("sft", "bct"), objective=(0, 10))
        y = grid(cube)[..., 0]
        d = (y[:, 1, 1] - y[:, 1, 0] - y[:, 0, 1] + y[:, 0, 0]).mean(-1)
        found = row(contrasts(cube), "label_shift none -> greedy x selector first -> majority", kind="interaction")
        assert found.effect_pp == pytest.approx(d.mean())
        assert found.held == "mean over objective"
        d = (y[:, :, 1, 1] - y[:, :, 1, 0] - y[:, :, 0, 1] + y[:, :, 0, 0]).mean(1)
        found = row(contrasts(cube), "selector first -> majority x objective sft -> bct", kind="interaction")
        assert found.effect_pp == pytest.approx(d.mean())

    def test_where_no_selector_can_act_there_is_none(self):
        table = contrasts(world(7, organisms=6, frozen=("greedy",)))
        swapped = table[table.kind == "interaction"].swapped
        assert len(swapped) == 2
        assert not swapped.str.contains("greedy").any()

    def test_a_selector_at_another_number_of_candidates(self):
        """At one candidate every selector takes the same label: there the interaction is its effect at the other."""
        cube = world(8, organisms=6, selectors=("first", "argmax"), shifts=("none", "greedy"), objectives=("a", "b"))
        data = cube.rename(objective="candidates").assign_coords(candidates=[1, 4])
        for name in ("key_labels", "key_train", "risk_delta", "risk_after"):
            kept = data[name].sel(selector="first", drop=True)
            data[name] = data[name].where((data.candidates > 1) | (data.selector == "first"), kept)
        own = {name: data[name].expand_dims(objective=["sft"]) for name in data if "candidates" in data[name].dims}
        data = data.drop_vars(own).assign(own)
        found = row(contrasts(data), "selector first -> argmax x candidates 1 -> 4", kind="interaction")
        effect = data.risk_delta.sel(selector="argmax", candidates=4) - data.risk_delta.sel(
            selector="first", candidates=4
        )
        assert found.effect_pp == pytest.approx(100 * float(effect.mean()))
        assert found.held == "mean over label_shift"

    def test_a_missing_run_takes_its_organism_out_of_its_rows(self):
        cube = world(9, organisms=6)
        cube["status"][0, 2, 1, 0, 0] = 2
        found = row(contrasts(cube), "label_shift none -> clean_view x selector first -> majority", kind="interaction")
        assert (found.organisms, found.missing) == (5, 1)

    def test_one_may_be_declared_confirmatory(self):
        cube = world(5, organisms=7, interaction={(2, 1): -12})
        name = "label_shift none -> clean_view x selector first -> majority"
        found = row(contrasts(cube, family=[name]), name, kind="interaction")
        assert (found.adjusted_by, found.p_adjusted) == ("max-T", found.p)


def test_adding_a_constant_or_reordering_changes_nothing():
    cube = world(4, organisms=6, **EFFECTS)
    moved = cube.assign(risk_delta=cube.risk_delta + cube.organism.str.len() * 0.01 + 0.05)
    shuffled = cube.isel(organism=[3, 1, 0, 5, 4, 2], selector=[0, 2, 1], label_shift=[2, 0, 1])
    table = contrasts(cube).query("kind != 'null control'").set_index(["kind", "held", "swapped"])
    for other in (moved, shuffled.transpose("seed", "selector", "organism", "objective", "label_shift")):
        again = contrasts(other).query("kind != 'null control'").set_index(["kind", "held", "swapped"])
        numbers = ["effect_pp", "low", "high", "p", "p_adjusted"]
        np.testing.assert_allclose(again.loc[table.index, numbers], table[numbers], atol=1e-9)


def test_first_listed_level_stands_in_for_a_null_that_is_absent():
    table = contrasts(world(shifts=("greedy", "clean_view"), organisms=6))
    assert "label_shift greedy -> clean_view" in set(table.swapped)
    assert "null control" not in set(table.kind)


def test_training_by_another_objective_is_no_null_control():
    cube = world(11, organisms=6, objectives=("sft", "bct"), objective=(0, 15))
    controls = contrasts(cube).query("kind == 'null control'")
    assert controls["held"].tolist() == ["label_shift = none, selector = first, objective = sft"]
    assert abs(controls["effect_pp"].item()) < 8


class TestStructuralZero:
    cube = world(5, organisms=6, frozen=("greedy",), **EFFECTS)

    def test_is_zero_without_interval_or_p(self):
        found = row(contrasts(self.cube), "selector first -> mean_logprob", "label_shift = greedy")
        assert found.identical
        assert (found.effect_pp, found.note) == (0.0, "identical labels")
        assert np.isnan([found.low, found.high, found.p, found.p_adjusted]).all()

    def test_stays_out_of_the_family(self):
        y = grid(self.cube)[..., 0, 0]
        table = contrasts(self.cube)
        simple = table[(table.kind == "simple") & ~table.identical]
        columns = [(y[:, i, j] - y[:, 0, j]) for i in (1, 2) for j in range(3)]
        columns += [(y[:, i, j] - y[:, i, 0]) for j in (1, 2) for i in (0, 2)]
        np.testing.assert_allclose(simple.p_adjusted, sign_flip(np.column_stack(columns)).p_adjusted)

    def test_stays_out_of_the_main_effects(self):
        table, y = contrasts(self.cube), grid(self.cube)[..., 0, 0]
        selector = row(table, "selector first -> mean_logprob", kind="main")
        assert selector.held == "mean over label_shift (none, clean_view)"
        assert selector.effect_pp == pytest.approx((y[:, [0, 2], 2] - y[:, [0, 2], 0]).mean())
        shift = row(table, "label_shift none -> greedy", kind="main")
        assert shift.held == "selector = first"
        assert shift.effect_pp == pytest.approx((y[:, 1, 0] - y[:, 0, 0]).mean())

    def test_a_selected_cell_against_one_that_cannot_be_says_so(self):
        found = row(contrasts(self.cube), "label_shift none -> greedy", "selector = mean_logprob")
        assert found.note == "also takes away the selection, which cannot act on one side"

    def test_labels_that_are_identical_in_some_organisms_only_are_data(self):
        cube = world(5, organisms=6)
        cube["key_train"][0, 0, 1] = cube["key_train"][0, 0, 0]
        cube["key_labels"][0, 0, 1] = cube["key_labels"][0, 0, 0]
        assert not row(contrasts(cube), "selector first -> majority", "label_shift = none").identical

    def test_identical_labels_with_another_risk_are_refused(self):
        cube = self.cube.copy(deep=True)
        cube["risk_delta"][2, 1, 1] += 0.01
        with pytest.raises(
            StudyError, match=r"greedy: selector|labels are identical, but risk differs by 1 pp in organism o2"
        ):
            contrasts(cube)

    def test_another_evaluation_of_the_same_training_is_another_run(self):
        cube = world(organisms=6, selectors=("first",), selector=(0,)).expand_dims(
            {"evaluate.decoding": ["sample", "greedy"]}
        )
        cube = cube.assign(risk_delta=cube.risk_delta + xr.DataArray([0, 0.1], dims="evaluate.decoding"))
        cube["valid_organism"] = cube.valid_organism.isel({"evaluate.decoding": 0})
        found = row(contrasts(cube), "evaluate.decoding sample -> greedy", kind="main")
        assert (found.identical, found.effect_pp) == (False, pytest.approx(10))


class TestLeftOut:
    def test_invalid_organisms_and_failed_runs(self):
        cube = world(6, organisms=8, **EFFECTS)
        cube["valid_organism"][2] = 0
        cube["status"][5, 2, 1] = 2
        cube["status"][6, 2, 1] = 3
        table, y = contrasts(cube), grid(cube)[..., 0, 0]
        kept = [0, 1, 3, 4, 7]
        found = row(table, "label_shift none -> clean_view", "selector = majority")
        assert (found.organisms, found.missing) == (5, 2)
        assert found.effect_pp == pytest.approx((y[kept, 2, 1] - y[kept, 0, 1]).mean())
        counts = table.attrs["counts"]["sycophancy"]
        assert {k: counts[k] for k in ("organisms", "invalid", "failed", "blocked", "runs")} == {
            "organisms": 7,
            "invalid": 1,
            "failed": 1,
            "blocked": 1,
            "runs": 61,
        }

    def test_a_failed_run_is_never_a_zero(self):
        cube = world(7, organisms=6)
        cube["status"][0, 1, 0] = 2
        cube["risk_delta"][0, 1, 0] = 0.0
        y = grid(cube)[1:, :, 0, 0, 0]
        found = row(contrasts(cube), "label_shift none -> greedy", "selector = first")
        assert found.effect_pp == pytest.approx((y[:, 1] - y[:, 0]).mean())

    def test_seeds_are_paired_before_they_are_averaged(self):
        cube = world(8, organisms=6, seeds=2, run_seed=20)
        cube["status"][0, 1, 0, 0, 0] = 2  # organism 0 lacks one seed on one side: its other seed alone counts
        y = grid(cube)[:, :, 0, 0]
        d = (y[:, 1] - y[:, 0]).mean(axis=1)
        d[0] = y[0, 1, 1] - y[0, 0, 1]
        found = row(contrasts(cube), "label_shift none -> greedy", "selector = first")
        assert (found.effect_pp, found.organisms) == (pytest.approx(d.mean()), 6)

    def test_a_cell_that_nobody_has_gives_no_number(self):
        cube = world(9, organisms=6)
        cube["status"][:, 2, 1] = 2
        found = row(contrasts(cube), "label_shift none -> clean_view", "selector = majority")
        assert np.isnan([found.effect_pp, found.low, found.p, found.p_adjusted]).all()
        assert (found.note, found.organisms) == ("fewer than 2 organisms have both runs", 0)

    def test_no_variation_between_organisms_gives_no_interval(self):
        cube = world(organisms=6, org_shift=0, org_selector=0, noise=0, shift=(0, 5, 5))
        found = row(contrasts(cube), "label_shift none -> greedy", "selector = first")
        assert found.effect_pp == pytest.approx(5)
        assert np.isnan(found.low)
        assert found.note == "no variation between organisms"


class TestFamily:
    cube = world(10, organisms=8, shift=(0, -4, -6))

    def test_declared_rows_are_the_family_and_the_rest_is_bh(self):
        family = ["label_shift none -> greedy", "selector = first | label_shift none -> clean_view"]
        table = contrasts(self.cube, family=family)
        assert (table.adjusted_by == "max-T").sum() == 2
        rest = table[table.adjusted_by == "BH"]
        np.testing.assert_allclose(rest.p_adjusted, stats.false_discovery_control(rest.p))

    def test_an_unknown_row_is_named(self):
        near = "did you mean 'label_shift none -> greedy'?"
        message = f"analysis.family: there is no contrast 'label_shift none -> gredy'; {near}"
        with pytest.raises(StudyError, match=re.escape(message)):
            contrasts(self.cube, family=["label_shift none -> gredy"])


class TestMoreFactors:
    def test_objectives_are_strata_and_swaps(self):
        cube = world(11, organisms=6, objectives=("sft", "bct"), objective=(0, 15))
        table, y = contrasts(cube), grid(cube)[..., 0]
        held = "label_shift = none, selector = first"
        found = row(table, "objective sft -> bct", held)
        assert found.effect_pp == pytest.approx((y[:, 0, 0, 1] - y[:, 0, 0, 0]).mean())
        assert row(table, "selector first -> majority", "label_shift = none, objective = bct").organisms == 6
        assert row(table, "objective sft -> bct", kind="main").held == "mean over label_shift, mean over selector"

    def test_swapped_options_are_a_family_of_their_own(self):
        cube = world(12, organisms=6)
        more = xr.concat([cube, cube.assign(key_train=cube.key_train + "b")], "train.epochs", data_vars="all")
        more = more.assign_coords({"train.epochs": [1, 2]}).assign(valid_organism=cube.valid_organism)
        more["risk_delta"] = more.risk_delta + xr.DataArray([0, 0.03], dims="train.epochs") * more.risk_before
        table = contrasts(more)
        assert row(table, "train.epochs 1 -> 2", kind="main").effect_pp == pytest.approx(1.5)
        without = contrasts(cube).query("kind == 'main'").p_adjusted
        assert len(table.query("kind == 'main'")) == len(without) + 1

    def test_behaviors_are_apart(self):
        cube = world(13, organisms=6, behaviors=("sycophancy", "reward_hacking"), **EFFECTS)
        both = contrasts(cube)
        for behavior in ("sycophancy", "reward_hacking"):
            own = contrasts(cube.isel(organism=np.flatnonzero(cube.behavior == behavior)))
            np.testing.assert_allclose(both[both.behavior == behavior].p_adjusted, own.p_adjusted)


def test_pools_that_both_sides_read_are_listed():
    table = contrasts(world(organisms=3, seeds=2))
    found = row(table, "selector first -> majority", "label_shift = clean_view")
    assert found.hashes.split() == [f"pool-{o}.2.{s}" for o in range(3) for s in range(2)]
    assert set(table[table.factor == "label_shift"].hashes) == {""}


def test_different_pools_are_not_held_fixed():
    cube = world(organisms=3)
    cube["key_pool"][1, 0, 2] = "another"
    message = (
        "label_shift = none: selector mean_logprob read another pool than first in organism o1; nothing was held fixed"
    )
    with pytest.raises(StudyError, match=message):
        contrasts(cube)


class TestRefusals:
    def test_one_organism(self):
        cube = world(organisms=3)
        cube["valid_organism"][1:] = 0
        with pytest.raises(StudyError, match=r"^sycophancy: 1 valid organism \(2 not valid\), at least 2 are needed$"):
            contrasts(cube)

    def test_one_level(self):
        with pytest.raises(
            StudyError, match=r"every factor has one level \(label_shift = none, selector = first, objective"
        ):
            contrasts(world(shifts=("none",), selectors=("first",), shift=(0,), selector=(0,)))

    def test_all_missing(self):
        cube = world(organisms=3)
        cube["status"][:] = 2
        with pytest.raises(StudyError, match=r"risk_delta is missing in every run \(27 runs failed\)"):
            contrasts(cube)

    def test_all_nan_though_ok(self):
        cube = world(organisms=3)
        cube["risk_delta"][:] = np.nan
        with pytest.raises(StudyError, match=r"risk_delta is missing in every run \(27 runs without a risk\)"):
            contrasts(cube)

    def test_constant(self):
        cube = world(organisms=3)
        cube["risk_delta"][:] = 0.25
        with pytest.raises(StudyError, match=r"risk_delta is 0.25 in every run, nothing to tell apart"):
            contrasts(cube)

    def test_percentages(self):
        cube = world(organisms=3)
        with pytest.raises(StudyError, match=r"risk_after: .* is not in \[0, 1\]; the cube holds probabilities"):
            contrasts(cube.assign(risk_after=cube.risk_after * 100))

    def test_an_organism_that_stands_twice(self):
        cube = world(organisms=3)
        with pytest.raises(StudyError, match=r"organism: o0 stands twice; it would be counted as two"):
            contrasts(cube.isel(organism=[0, 0, 1, 2]))

    @pytest.mark.parametrize("name", ["risk_delta", "key_pool", "status", "valid_organism"])
    def test_a_variable_that_lacks(self, name):
        with pytest.raises(StudyError, match=f"the cube has no variable {name}"):
            contrasts(world(organisms=3).drop_vars(name))

    def test_a_dimension_that_lacks(self):
        with pytest.raises(StudyError, match="risk_delta has no dimension seed"):
            contrasts(world(organisms=3).isel(seed=0))

    def test_one_bad_behavior_does_not_take_the_other_along(self):
        cube = world(organisms=3, behaviors=("sycophancy", "reward_hacking"))
        cube["valid_organism"][:3] = 0
        table = contrasts(cube)
        assert set(table.behavior) == {"reward_hacking"}
        assert table.attrs["refused"] == {
            "sycophancy": "sycophancy: 0 valid organisms (3 not valid), at least 2 are needed"
        }


def test_whole_cube_is_taken_too():
    cube = world(organisms=3, attrs={})
    kind = xr.DataArray([["risk", "risk", "capability"]] * 3, dims=("organism", "item"))
    tree = xr.DataTree.from_dict({"/": cube, "/items": xr.Dataset(coords={"kind": kind})})
    assert len(contrasts(tree)) == len(contrasts(cube))
    assert [block.behavior for block in blocks(tree)] == ["sycophancy"]


def test_memory_grows_with_the_runs_and_no_faster() -> None:
    """Peak of all that Python allocates, for 1, 2 and 4 times the seeds; the sign-flips cost the same in each."""
    bars = {"alpha": 0.05, "equivalence_pp": 5, "share_bar": 0.5, "interaction_share": 0.1}
    peaks = []
    for seeds in (5, 5, 10, 20):  # the first time loads what is loaded once
        cube = world(organisms=16, seeds=seeds, shift=(0, -10, -25))
        tracemalloc.start()
        contrasts(cube)
        decomposition(cube)
        verdict(cube, **bars)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one, two, four = peaks[1:]
    assert four - two <= 2.5 * max(two - one, 100_000)
    assert four < 40e6
