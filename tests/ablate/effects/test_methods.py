"""A method's effect as a whole and split into its mechanisms, on cubes with planted effects of each.

Oracles: all orders of adding the mechanisms one by one, scipy's t distribution, `sign_flip` of the columns.
"""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from ablate.effects import isolated, method_verdicts, methods
from ablate.effects.signflip import sign_flip
from ablate.effects.worlds import world
from ablate.errors import StudyError

MECHANISMS = ("label_shift", "selector", "objective")
DIMS = ("organism", *MECHANISMS, "method_name", "candidates", "seed")


def cube_of(v, *, lacks=(), names=None, behaviors=("sycophancy",), null=None, capability=None, attrs=None):
    """A cube whose runs change risk by v pp, [organism, label_shift, selector, objective, method, candidates, seed].

    ``lacks``: pairs of a method's index and a mechanism that it does not have, whose level is then the null level.
    ``null``: the null control, pp, [organism, seed] or [organism, seed, candidates]; ``capability``: as v.
    """
    v = np.asarray(v, float)
    index = np.indices(v.shape)
    for method, mechanism in lacks:
        index[DIMS.index(mechanism)][:, :, :, :, method] = 0
    v = v[tuple(index)]
    labels = np.where(np.arange(7)[(..., *[None] * 7)] == 3, 0, index)  # every objective is given the same labels
    pool = np.where(np.arange(7)[(..., *[None] * 7)] == 2, 0, labels)  # every selector the same pool
    keys = {"key_train": index, "key_labels": labels, "key_pool": pool}
    organisms, *levels, method, candidates, seeds = v.shape
    swapped = [
        (null_level, "method")[-size:] for null_level, size in zip(("none", "first", "sft"), levels, strict=True)
    ]
    data = {
        "risk_delta": v / 100,
        "risk_before": np.full(v.shape, 0.5),
        "risk_after": 0.5 + v / 100,
        "capability_delta": (np.zeros(v.shape) if capability is None else np.asarray(capability)) / 100,
        "status": np.ones(v.shape, np.int8),
        **{name: np.ravel_multi_index(tuple(i), v.shape).astype(str).astype(object) for name, i in keys.items()},
    }
    root = xr.Dataset(
        {name: (DIMS, values) for name, values in data.items()}
        | {"valid_organism": ("organism", np.ones(organisms, np.int8))},
        coords={
            **dict(zip(MECHANISMS, map(list, swapped), strict=True)),
            "organism": list(range(organisms)),
            "method_name": list(names or [f"m{i}" for i in range(method)]),
            "candidates": list(range(2, 2 + candidates)),
            "seed": list(range(seeds)),
            "behavior": ("organism", np.repeat(list(behaviors), organisms // len(behaviors))),
        },
        attrs={"items": 128} | (attrs or {}),
    )
    null = np.zeros((organisms, seeds)) if null is None else np.asarray(null, float)
    null = np.broadcast_to(null if null.ndim == 3 else null[..., None], (organisms, seeds, candidates))
    dims = ("control", "organism", "seed", "candidates")
    runs = dict.fromkeys(("risk_delta", "capability_delta"), (dims, null[None] / 100))
    controls = xr.Dataset(runs, coords={"control": ["null"]})
    return xr.DataTree.from_dict({"/": root, "/controls": controls})


def planted(*effects, organisms=8, noise=0.0, seed=0):
    """v of methods in which each organism moves by 1 +- a little of the same effects: {mechanisms: pp}."""
    rng = np.random.default_rng(seed)
    share = rng.normal(0, 0.05, organisms)
    share += 1 - share.mean()
    v = np.zeros((organisms, 2, 2, 2, len(effects), 1, 1))
    for method, own in enumerate(effects):
        for on in np.ndindex(2, 2, 2):
            acting = {name for name, level in zip(MECHANISMS, on, strict=True) if level}
            v[:, *on, method, 0, 0] = share * sum(pp for names, pp in own.items() if set(names) <= acting)
    return v + rng.normal(0, 3, organisms)[:, None, None, None, None, None, None] + rng.normal(0, noise, v.shape)


def drawn(organisms=7, *, methods=2, candidates=1, seeds=2, seed=0):
    """Any numbers at all."""
    return np.random.default_rng(seed).normal(2, 8, (organisms, 2, 2, 2, methods, candidates, seeds))


def by_part(table, method="m0"):
    return table[table["method"] == method].set_index("part")


def worth(v, method, on):
    """v(S) of one method by its definition, [organism], the mean over seeds."""
    place = tuple(int(name in on) for name in MECHANISMS)
    return (v[:, *place, method, 0] - v[:, 0, 0, 0, method, 0]).mean(-1)


LS, SEL, OBJ = (("label_shift",), ("selector",), ("objective",))
CLEANED = {LS: -19, SEL: -3, OBJ: 1, LS + SEL: 4, LS + SEL + OBJ: 3}


class TestIsolated:
    def test_planted_effects(self):
        """By hand: Shapley gives each a half of a pair's dividend and a third of that of all three."""
        found = by_part(isolated(cube_of(planted(CLEANED))))
        expected = pd.DataFrame(
            {
                "total": ("total", -14, np.nan, np.nan),
                "label_shift": ("mechanism", -16, -19, -12),
                "selector": ("mechanism", 0, -3, 4),
                "objective": ("mechanism", 2, 1, 4),
                "label_shift x selector": ("interaction", 4, np.nan, np.nan),
                "label_shift x objective": ("interaction", 0, np.nan, np.nan),
                "selector x objective": ("interaction", 0, np.nan, np.nan),
                "label_shift x selector x objective": ("interaction", 3, np.nan, np.nan),
            },
            index=["kind", "effect_pp", "added_pp", "removed_pp"],
        ).T
        assert found.index.tolist() == expected.index.tolist()
        assert found["kind"].tolist() == expected["kind"].tolist()
        for name in ("effect_pp", "added_pp", "removed_pp"):
            np.testing.assert_allclose(found[name], expected[name].astype(float), atol=1e-9)
        assert (found["organisms"] == 8).all()

    @pytest.mark.parametrize("lacks", [(), ((0, "selector"),), ((0, "label_shift"), (1, "objective"))], ids=str)
    def test_the_parts_sum_to_the_total(self, lacks):
        table = isolated(cube_of(drawn(), lacks=lacks))
        for _, own in table.groupby("method"):
            of = dict(list(own.groupby("kind")))
            total = of["total"]["effect_pp"].item()
            assert of["mechanism"]["effect_pp"].sum() == pytest.approx(total, abs=1e-12)
            assert of["mechanism"]["added_pp"].sum() + of["interaction"]["effect_pp"].sum() == pytest.approx(
                total, abs=1e-12
            )

    def test_a_mechanism_is_its_average_over_all_orders(self):
        v = drawn()
        table = isolated(cube_of(v))
        for method in (0, 1):
            found = by_part(table, f"m{method}")
            gains = {name: [] for name in MECHANISMS}
            for order in permutations(MECHANISMS):
                for i, name in enumerate(order):
                    gains[name].append(worth(v, method, order[: i + 1]) - worth(v, method, order[:i]))
            for name in MECHANISMS:
                assert found.loc[name, "effect_pp"] == pytest.approx(np.mean(gains[name]), abs=1e-12)
                assert found.loc[name, "added_pp"] == pytest.approx(worth(v, method, [name]).mean(), abs=1e-12)
                rest = [other for other in MECHANISMS if other != name]
                removed = (worth(v, method, MECHANISMS) - worth(v, method, rest)).mean()
                assert found.loc[name, "removed_pp"] == pytest.approx(removed, abs=1e-12)

    def test_an_interaction_is_what_no_subset_explains(self):
        """Oracle: v(S) is the sum of the dividends of all subsets of S."""
        v = drawn()
        found = by_part(isolated(cube_of(v)))
        dividend = {(name,): found.loc[name, "added_pp"] for name in MECHANISMS}
        for size in (2, 3):
            dividend |= {on: found.loc[" x ".join(on), "effect_pp"] for on in combinations(MECHANISMS, size)}
            for on in combinations(MECHANISMS, size):
                explained = sum(pp for names, pp in dividend.items() if set(names) <= set(on))
                assert explained == pytest.approx(worth(v, 0, on).mean(), abs=1e-12)

    def test_limits_are_those_of_t(self):
        v = drawn()
        found = by_part(isolated(cube_of(v)))

        def limits(values):
            return stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))

        everything = worth(v, 0, MECHANISMS)
        assert found.loc["total", ["low", "high"]].tolist() == pytest.approx(limits(everything))
        assert found.loc["selector", ["added_low", "added_high"]].tolist() == pytest.approx(limits(worth(v, 0, SEL)))
        removed = everything - worth(v, 0, LS + OBJ)
        assert found.loc["selector", ["removed_low", "removed_high"]].tolist() == pytest.approx(limits(removed))
        pair = worth(v, 0, LS + SEL) - worth(v, 0, LS) - worth(v, 0, SEL)
        assert found.loc["label_shift x selector", ["low", "high"]].tolist() == pytest.approx(limits(pair))

    def test_the_family_is_the_rows_of_a_kind_of_one_method(self):
        v = drawn(seeds=1)
        table = isolated(cube_of(v))
        for method in (0, 1):
            own = by_part(table, f"m{method}")
            total = sign_flip(worth(v, method, MECHANISMS)).p[0]
            assert own.loc["total", ["p", "p_adjusted"]].tolist() == [total, total]
            pairs = [
                worth(v, method, on) - sum(worth(v, method, [one]) for one in on) for on in combinations(MECHANISMS, 2)
            ]
            triple = worth(v, method, MECHANISMS) - sum(pairs) - sum(worth(v, method, [one]) for one in MECHANISMS)
            tested = sign_flip(np.column_stack([*pairs, triple]))
            found = own[own["kind"] == "interaction"]
            np.testing.assert_allclose(found["p"], tested.p)
            np.testing.assert_allclose(found["p_adjusted"], tested.p_adjusted)
            alone = isolated(cube_of(v[:, :, :, :, [method]]))
            np.testing.assert_array_equal(own["p_adjusted"], alone["p_adjusted"]), "whatever stands beside it"
        assert table.attrs["methods"] == (
            "mechanisms averaged over all orders of adding them, t intervals with 6 df over organisms, max-T over the "
            "mechanisms and over the interactions of a method from 2^7 sign-flips, 2 methods, each a question of its "
            "own, conditional on these items"
        )

    @pytest.mark.parametrize(
        ("lacks", "parts"),
        [
            (["label_shift"], ["total", "selector", "objective", "selector x objective"]),
            (["selector"], ["total", "label_shift", "objective", "label_shift x objective"]),
            (["objective"], ["total", "label_shift", "selector", "label_shift x selector"]),
            (["label_shift", "selector"], ["total", "objective"]),
            (MECHANISMS, ["total"]),
        ],
        ids=str,
    )
    def test_a_mechanism_that_a_method_lacks_has_no_row(self, lacks, parts):
        v = drawn()
        table = isolated(cube_of(v, lacks=[(0, mechanism) for mechanism in lacks]))
        assert by_part(table).index.tolist() == parts
        has = [name for name in MECHANISMS if name not in lacks]
        assert by_part(table).loc["total", "effect_pp"] == pytest.approx(worth(v, 0, has).mean(), abs=1e-12)
        assert len(by_part(table, "m1")) == 8

    def test_a_single_mechanism_is_the_total(self):
        found = by_part(isolated(cube_of(drawn(), lacks=[(0, "label_shift"), (0, "selector")])))
        columns = ["effect_pp", "low", "high", "p"]
        assert found.loc["objective", columns].tolist() == found.loc["total", columns].tolist()
        assert found.loc["objective", ["added_pp", "removed_pp"]].tolist() == [found.loc["total", "effect_pp"]] * 2

    def test_a_missing_run_is_missing_and_not_zero(self):
        v = drawn(seeds=1)
        tree = cube_of(v)
        tree["status"][{"organism": 0, "label_shift": 1, "selector": 1, "objective": 1, "method_name": 0}] = 2
        found, whole = by_part(isolated(tree)), by_part(isolated(cube_of(v)))
        assert found.loc["total", "effect_pp"] == pytest.approx(worth(v, 0, MECHANISMS)[1:].mean(), abs=1e-12)
        assert found["organisms"].to_dict() == dict.fromkeys(found.index, 6) | {
            " x ".join(pair): 7 for pair in combinations(MECHANISMS, 2)
        }
        assert found["added_pp"].equals(whole["added_pp"]), "what needs no missing run keeps all organisms"
        assert found["added_organisms"].tolist() == [0, 7, 7, 7, 0, 0, 0, 0]
        assert found["removed_organisms"].tolist() == [0, 6, 6, 6, 0, 0, 0, 0]

    def test_what_needs_no_missing_null_cell_keeps_its_organisms(self):
        v = drawn(seeds=1)
        tree = cube_of(v)
        tree["status"][{"organism": 0, "label_shift": 0, "selector": 0, "objective": 0, "method_name": 0}] = 2
        found, whole = by_part(isolated(tree)), by_part(isolated(cube_of(v)))
        assert found["removed_pp"].equals(whole["removed_pp"])
        assert found["removed_organisms"].tolist() == [0, 7, 7, 7, 0, 0, 0, 0]
        assert (found["organisms"] == 6).all()

    def test_seeds_are_paired_where_one_is_missing(self):
        v = drawn(seeds=2)
        tree = cube_of(v)
        tree["status"][
            {"organism": 0, "label_shift": 1, "selector": 0, "objective": 0, "method_name": 0, "seed": 0}
        ] = 2
        d = v[:, 1, 0, 0, 0, 0] - v[:, 0, 0, 0, 0, 0]
        expected = np.concatenate([d[:1, 1], d[1:].mean(-1)]).mean()
        assert by_part(isolated(tree)).loc["label_shift", "added_pp"] == pytest.approx(expected, abs=1e-12)

    def test_missing_runs_are_bounded(self):
        """Risk before is .5: a run that lacks lies between -50 and +50 pp."""
        v = drawn(seeds=1)
        tree = cube_of(v)
        tree["status"][{"organism": 0, "label_shift": 1, "selector": 1, "objective": 1, "method_name": 0}] = 2
        found = by_part(isolated(tree)).loc["total"]
        ends = [np.append(worth(v, 0, MECHANISMS)[1:], end - v[0, 0, 0, 0, 0, 0, 0]).mean() for end in (-50, 50)]
        assert found.missing == 1
        assert [found.bound_low, found.bound_high] == pytest.approx(ends)
        found = by_part(isolated(tree)).loc["label_shift"]
        assert found.bound_high - found.bound_low == pytest.approx(100 / 3 / 7), "a third of it, of one in 7 organisms"
        whole = by_part(isolated(cube_of(v)))
        assert (whole["missing"] == 0).all()
        np.testing.assert_allclose(whole[["bound_low", "bound_high"]].T, [whole["effect_pp"]] * 2)

    def test_a_mechanism_that_a_method_lacks_has_no_row_where_its_runs_failed_too(self):
        v = drawn()
        tree = cube_of(v, lacks=[(0, "selector")])
        tree["status"][{"selector": 1, "method_name": 0}] = 2
        for name in ("key_train", "key_labels"):
            tree[name][{"selector": 1, "method_name": 0}] = ""
        levels = {"method_label_shift": ["x", "x"], "method_selector": ["first", "x"], "method_objective": ["x", "x"]}
        named = tree.to_dataset().assign_coords({name: ("method_name", own) for name, own in levels.items()})
        found = by_part(isolated(xr.DataTree(named)))
        assert found.index.tolist() == ["total", "label_shift", "objective", "label_shift x objective"]
        assert found.loc["total", "effect_pp"] == pytest.approx(worth(v, 0, ("label_shift", "objective")).mean())

    def test_a_method_that_does_nothing_is_not_tested(self):
        table = isolated(cube_of(drawn(), lacks=[(0, mechanism) for mechanism in MECHANISMS]))
        own = by_part(table).loc["total"]
        assert (own.effect_pp, own.organisms) == (0, 7)
        assert own[["low", "high", "p", "p_adjusted"]].isna().all()
        assert by_part(table, "m1")["p"].notna().all()

    def test_a_cell_that_no_organism_has(self):
        tree = cube_of(drawn())
        tree["status"][{"label_shift": 1, "selector": 1, "objective": 1, "method_name": 0}] = 2
        found = by_part(isolated(tree))
        assert found.loc["total", ["effect_pp", "low", "high", "p", "p_adjusted"]].isna().all()
        assert found.loc["total", "organisms"] == 0
        assert np.isfinite(found.loc["selector", "added_pp"])

    def test_levels_of_a_method_are_named(self):
        tree = cube_of(drawn())
        assert set(isolated(tree)["level"]) == {""}, "a cube that does not say"
        points = {"method_label_shift": ["clean_view", "greedy"], "method_selector": ["first", "majority"]}
        named = tree.to_dataset().assign_coords({name: ("method_name", own) for name, own in points.items()})
        levels = by_part(isolated(xr.DataTree(named)), "m1")["level"]
        assert {part: level for part, level in levels.items() if level} == {
            "label_shift": "greedy",
            "selector": "majority",
        }

    def test_seeds_are_paired(self):
        """A training seed that moves all runs of an organism alike moves no effect."""
        v = drawn(seeds=3)
        moved = v + np.random.default_rng(1).normal(0, 9, (7, 1, 1, 1, 1, 1, 3))
        pd.testing.assert_frame_equal(isolated(cube_of(v)), isolated(cube_of(moved)), rtol=1e-9)

    def test_another_swapped_option_has_rows_of_its_own(self):
        v = drawn(candidates=2)
        table = isolated(cube_of(v))
        assert table.columns[:4].tolist() == ["behavior", "candidates", "method", "part"]
        assert table.groupby(["candidates", "method"]).size().to_dict() == {
            (candidates, method): 8 for candidates in ("2", "3") for method in ("m0", "m1")
        }
        for i, candidates in enumerate(("2", "3")):
            alone = isolated(cube_of(v[:, :, :, :, :, i : i + 1]))
            columns = ["effect_pp", "added_low", "removed_pp", "p"]
            np.testing.assert_allclose(table.loc[table["candidates"] == candidates, columns], alone[columns])

    def test_behaviors_have_families_of_their_own(self):
        v = drawn(14)
        both = isolated(cube_of(v, behaviors=("sycophancy", "reward_hacking")))
        for behavior, organisms in (("sycophancy", v[:7]), ("reward_hacking", v[7:])):
            own = both[both["behavior"] == behavior].reset_index(drop=True).drop(columns="behavior")
            pd.testing.assert_frame_equal(own, isolated(cube_of(organisms)).drop(columns="behavior"))


class TestMethods:
    def test_a_whole_method_is_compared_to_the_null_control(self):
        v, null = drawn()[:, :1, :1, :1], np.random.default_rng(3).normal(0, 2, (7, 2))
        capability = np.random.default_rng(4).normal(0, 5, v.shape)
        table = methods(cube_of(v, null=null, capability=capability)).set_index("method")
        for i, method in enumerate(("m0", "m1")):
            effect = (v[:, 0, 0, 0, i, 0] - null).mean(-1)
            capable = (capability[:, 0, 0, 0, i, 0] - null).mean(-1)
            assert table.loc[method, "effect_pp"] == pytest.approx(effect.mean(), abs=1e-12)
            assert table.loc[method, ["low", "high"]].tolist() == pytest.approx(
                stats.t.interval(0.95, 6, loc=effect.mean(), scale=stats.sem(effect))
            )
            assert table.loc[method, "capability_pp"] == pytest.approx(capable.mean(), abs=1e-12)
        effects = np.column_stack([(v[:, 0, 0, 0, i, 0] - null).mean(-1) for i in (0, 1)])
        np.testing.assert_array_equal(table["p_adjusted"], sign_flip(effects).p_adjusted)
        assert table["organisms"].tolist() == [7, 7]

    def test_an_isolated_method_is_compared_to_its_own_null_cell(self):
        v = drawn()
        tree = cube_of(v, null=np.full((7, 2), 40.0))
        total = isolated(tree).query("kind == 'total'").reset_index()
        table = methods(tree)
        for column in ("effect_pp", "low", "high", "p"):
            np.testing.assert_allclose(table[column], total[column], rtol=1e-12)
        assert (table["p_adjusted"] >= table["p"]).all()

    def test_an_organism_that_is_not_valid_keeps_its_null_run_to_itself(self):
        v, null = drawn(8)[:, :1, :1, :1], np.random.default_rng(3).normal(0, 2, (8, 2))
        tree = cube_of(v, null=null)
        tree["valid_organism"][2] = 0
        kept = [0, 1, 3, 4, 5, 6, 7]
        pd.testing.assert_frame_equal(methods(tree), methods(cube_of(v[kept], null=null[kept])))

    def test_another_swapped_option_has_a_row_of_its_own(self):
        v = drawn(candidates=2)[:, :1, :1, :1]
        table = methods(cube_of(v))
        assert table[["candidates", "method"]].to_numpy().tolist() == [
            ["2", "m0"],
            ["3", "m0"],
            ["2", "m1"],
            ["3", "m1"],
        ]
        np.testing.assert_allclose(table["effect_pp"], v[:, 0, 0, 0].mean((0, 3)).ravel())

    def test_the_null_control_is_that_of_the_setting(self):
        v, null = drawn(candidates=2)[:, :1, :1, :1], np.random.default_rng(3).normal(0, 5, (7, 2, 2))
        table = methods(cube_of(v, null=null)).set_index(["candidates", "method"])
        for i, candidates in enumerate(("2", "3")):
            effect = (v[:, 0, 0, 0, 1, i] - null[..., i]).mean()
            assert table.loc[(candidates, "m1"), "effect_pp"] == pytest.approx(effect, abs=1e-12)
        effects = [(v[:, 0, 0, 0, m, i] - null[..., i]).mean(-1) for m in (0, 1) for i in (0, 1)]
        np.testing.assert_allclose(table["p_adjusted"], sign_flip(np.column_stack(effects)).p_adjusted)
        assert "max-T over the 4 methods and settings of a behavior from 2^7 sign-flips" in table.attrs["methods"]

    def test_one_organism_has_its_numbers_alone(self):
        v, null = drawn(1)[:, :1, :1, :1], np.random.default_rng(3).normal(0, 2, (1, 2))
        table = methods(cube_of(v, null=null))
        np.testing.assert_allclose(table["effect_pp"], (v[0, 0, 0, 0, :, 0] - null).mean(-1))
        assert table[["low", "high", "p", "p_adjusted", "capability_low"]].isna().all(axis=None)
        assert table.attrs["notes"] == [
            "sycophancy: one organism has no interval and no test: its numbers hold its own noise and that of training"
        ]
        [first, _] = method_verdicts(cube_of(v, null=null))
        assert (
            f"is {table.loc[0, 'effect_pp']:+.1f} pp (1 organism, no test); its mechanisms were not" in first.sentence
        )

    def test_a_missing_run_is_missing_and_not_zero(self):
        v = drawn(seeds=1)[:, :1, :1, :1]
        tree = cube_of(v)
        tree["status"][{"organism": 0, "method_name": 1}] = 2
        table = methods(tree).set_index("method")
        assert table["organisms"].to_dict() == {"m0": 7, "m1": 6}
        assert table.loc["m1", "effect_pp"] == pytest.approx(v[1:, 0, 0, 0, 1].mean(), abs=1e-12)

    @pytest.mark.parametrize("levels", [1, 2])
    def test_capability_that_was_not_measured_is_missing(self, levels):
        tree = cube_of(drawn()[:, :levels, :levels, :levels])
        whole = methods(tree)
        del tree["capability_delta"]
        table = methods(tree)
        capability = ["capability_pp", "capability_low", "capability_high"]
        assert table[capability].isna().all(axis=None)
        pd.testing.assert_frame_equal(table.drop(columns=capability), whole.drop(columns=capability))

    @pytest.mark.parametrize("table", [methods, isolated, method_verdicts])
    def test_a_cube_without_methods(self, table):
        said = "^the study compares no methods; name some under `method` or `isolate` in its factors$"
        with pytest.raises(StudyError, match=said):
            table(xr.DataTree(world(0)))

    def test_methods_that_were_not_isolated(self):
        said = (
            "^sycophancy: methods were run as a whole, their mechanisms were not swapped; name them under `isolate` in "
            "place of `method`$"
        )
        with pytest.raises(StudyError, match=said):
            isolated(cube_of(drawn()[:, :1, :1, :1]))


class TestVerdicts:
    quiet = planted({LS: -25}, {}, noise=0.3)

    def test_each_method_has_a_cause_of_its_own(self):
        found = method_verdicts(cube_of(self.quiet, names=["cleaned", "idle"]))
        assert [(verdict.behavior, verdict.cause) for verdict in found] == [
            ("cleaned, sycophancy", "label_shift"),
            ("idle, sycophancy", "none"),
        ]

    @pytest.mark.parametrize(
        ("effects", "cause"),
        [
            ({SEL: 20}, "selector"),
            ({OBJ: 20}, "objective"),
            ({LS: -20, SEL: 15}, "joint"),
            ({LS: -10, LS + SEL: -20}, "joint"),
        ],
        ids=str,
    )
    def test_planted_causes(self, effects, cause):
        [found] = method_verdicts(cube_of(planted(effects, noise=0.3)))
        assert found.cause == cause

    def test_noise_is_no_cause(self):
        [found] = method_verdicts(cube_of(planted({}, noise=8)))
        assert found.cause == "undetermined"
        assert "no swap is shown to change sycophancy" in found.sentence

    def test_the_sentence_has_the_numbers_of_the_table(self):
        tree = cube_of(planted(CLEANED, noise=0.3), names=["cleaned"])
        [found] = method_verdicts(tree)
        rows = by_part(isolated(tree), "cleaned")

        def effect(part, unit=""):
            row = rows.loc[part]
            return f"{row.effect_pp:+.1f}{unit} [{row.low:+.1f}, {row.high:+.1f}]"

        def p(part):
            return f"p = {rows.loc[part, 'p_adjusted']:.3f}".replace("0.", ".").replace("1.000", "1")

        assert found.sentence.startswith(
            f"cleaned changes sycophancy by {effect('total', ' pp')} (8 organisms, sign-flip p = .008), of which the "
            f"label shift {effect('label_shift')} (p = .008), the selector {effect('selector')} "
            f"({p('selector')}, not shown) and the objective {effect('objective')} ({p('objective')}) (averages over "
            f"the orders of adding them, max-T over 3 mechanisms). {found.cause}: "
        )

    def test_what_is_not_shown_is_called_estimated(self):
        found = method_verdicts(cube_of(planted({}, {}, noise=8), names=["idle", "other"]))[0]
        assert found.sentence.startswith("No effect of idle on sycophancy is shown (")
        assert "; estimated parts: the label shift " in found.sentence
        assert found.sentence.count(", not shown)") == 3
        assert (
            "max-T over 3 mechanisms; one of 2 methods, each a question of its own). undetermined: " in found.sentence
        )

    def test_what_was_not_run_is_not_known(self):
        tree = cube_of(self.quiet)
        tree["status"][{"label_shift": 1, "selector": 1, "objective": 1, "method_name": 0}] = 2
        found = method_verdicts(tree)[0]
        assert found.sentence.startswith(
            "The effect of m0 on sycophancy is not known: 0 organisms with all of its runs. "
        )
        whole = cube_of(self.quiet[:, 1:, 1:, 1:])
        whole["status"][{"method_name": 0}] = 2
        assert method_verdicts(whole)[0].sentence == (
            "undetermined: The effect of m0 on sycophancy is not known: 0 organisms with all of its runs."
        )

    def test_a_behavior_without_numbers_is_undetermined(self):
        tree = cube_of(self.quiet, behaviors=("sycophancy", "reward_hacking"))
        tree["valid_organism"][4:7] = 0
        *_, last = method_verdicts(tree)
        assert (last.behavior, last.cause, last.gates) == ("reward_hacking", "undetermined", ())
        assert last.sentence == ("undetermined: reward_hacking: 1 valid organism (3 not valid), at least 2 are needed.")

    def test_a_method_that_does_nothing_here(self):
        v = planted({}, {LS: -25}, noise=0.3)
        found = method_verdicts(cube_of(v, lacks=[(0, mechanism) for mechanism in MECHANISMS]))
        assert found[0].cause == "undetermined"
        assert found[0].sentence == (
            "m0 has no mechanism that acts here. undetermined: no swap could be tested on sycophancy: each left the "
            "same labels as its null level, or fewer than 2 organisms have both runs."
        )
        assert found[1].cause == "label_shift"

    def test_a_whole_method_has_no_cause(self):
        tree = cube_of(planted({LS + SEL: -25}, noise=0.3)[:, 1:, 1:, 1:], names=["cleaned(k=2)"])
        [found] = method_verdicts(tree)
        row = methods(tree).iloc[0]
        assert (found.behavior, found.cause, found.gates) == ("cleaned(k=2), sycophancy", "undetermined", ())
        assert found.sentence == (
            f"undetermined: the effect of cleaned(k=2) on sycophancy is {row.effect_pp:+.1f} pp [{row.low:+.1f}, "
            f"{row.high:+.1f}] (8 organisms, sign-flip p = .008, max-T over 1); its mechanisms were not swapped. "
            "`ablate isolate cleaned` would tell which does it."
        )

    @pytest.mark.parametrize("isolate", [True, False])
    def test_a_limited_study_is_no_result(self, isolate):
        v = self.quiet if isolate else self.quiet[:, 1:, 1:, 1:]
        for found in method_verdicts(cube_of(v, attrs={"limited": True})):
            assert found.cause == "undetermined"
            assert found.sentence == (
                "undetermined: the study was limited, so its numbers are not a result. The whole study would tell."
            )

    def test_too_few_organisms_for_a_cause(self):
        found = method_verdicts(cube_of(planted({LS: -25}, organisms=4, noise=0.3)))[0]
        assert found.sentence.startswith("No effect of m0 on sycophancy is shown (-2")
        assert "undetermined: no 5% verdict is possible with 4 valid organisms" in found.sentence

    def test_a_declared_family_is_that_of_every_method(self):
        tree = cube_of(self.quiet)
        assert method_verdicts(tree, ["label_shift"])[0].cause == "label_shift"
        found = method_verdicts(tree, ["selector"])[0]
        assert found.cause == "undetermined"
        assert "not in the declared family" in found.sentence

    def test_each_setting_of_other_options_has_a_cause_of_its_own(self):
        v = np.concatenate([planted({cause: -25}, noise=0.3, seed=1) for cause in (LS, SEL)], axis=5)
        found = method_verdicts(cube_of(v))
        assert [(verdict.behavior, verdict.cause) for verdict in found] == [
            ("m0, sycophancy, 2", "label_shift"),
            ("m0, sycophancy, 3", "selector"),
        ]
        assert ", of which the label shift -2" in found[0].sentence
        assert ", the selector -2" in found[1].sentence
