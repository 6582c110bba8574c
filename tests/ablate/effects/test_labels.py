import re

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ablate.effects import label_terms, split_half_selection, stability
from ablate.effects.worlds import world
from ablate.errors import StudyError

PROMPTS, K = 40, 4
SHIFTS, SELECTORS = ("none", "clean_view", "cot_view"), ("first", "majority", "argmax(judge)")
LAWS = ("draw", "plurality", "highest")
TERMS = ("label_change", "shift_term", "selection_term", "interaction", "shift_shapley", "selection_shapley")


def labeled(seed=0, risks=(0.5, 0.2, 0.7), k=K, unjudged=0.1, organisms=6, **options):
    """A whole cube with judged pools: two answers a prompt, scores that know M a little, labels as selectors pick."""
    rng = np.random.default_rng(seed)
    shifts = SHIFTS[: len(risks)]
    cube = world(seed, organisms=organisms, shifts=shifts, selectors=SELECTORS, shift=(0, -9, 9), **options)
    p = np.asarray(risks)[None, :, None, None] + 0.2 * rng.normal(size=(organisms, 1, 1, PROMPTS))
    outcome = (rng.random((organisms, len(risks), 1, PROMPTS, k)) < np.clip(p, 0.02, 0.98)[..., None]).astype(float)
    classes = outcome.copy()
    scores = 0.5 * outcome + rng.normal(size=outcome.shape)
    outcome[rng.random(outcome.shape) < unjudged] = np.nan
    votes = (classes[..., :, None] == classes[..., None, :]).sum(-1)
    picks = {
        "first": np.zeros(outcome.shape[:-1], int),
        "majority": votes.argmax(-1),
        "argmax(judge)": scores.argmax(-1),
    }
    risk = np.stack([np.take_along_axis(outcome, picks[name][..., None], -1)[..., 0] for name in SELECTORS], axis=2)
    own = ("organism", "label_shift", "seed", "prompt", "candidate")
    cells = ("organism", "label_shift", "selector", "objective", "seed", "prompt")
    group = xr.Dataset(
        {
            "pool_outcome": (own, outcome),
            "pool_class": (own, classes),
            "label_score": ((*cells, "candidate"), with_scores(scores)),
            "label_risk": (cells, risk[:, :, :, None]),
            "law": ("selector", np.array(LAWS, object)),
        }
    )
    return xr.DataTree.from_dict({"/": cube, "/labels": group})


def with_scores(scores):
    """[organism, shift, selector, objective, seed, prompt, candidate]: only the last selector sees scores."""
    table = np.full((*scores.shape[:2], len(SELECTORS), 1, *scores.shape[2:]), np.nan)
    table[:, :, 2, 0] = scores
    return table


def cell(table, shift, selector):
    [row] = table[(table.label_shift == shift) & (table.selector == selector)].to_dict("records")
    return row


class TestLabelTerms:
    def test_terms_by_hand(self):
        """Every term of one cell from the pools, by plain loops over organisms and prompts."""
        tree = labeled(1)
        group = tree["labels"].to_dataset()
        outcome, risk = group.pool_outcome.values[:, :, 0], group.label_risk.values[:, :, :, 0, 0]
        by_organism = []
        for o in range(6):
            p, q = (
                np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in outcome[o, i]])
                for i in (0, 2)
            )
            use = np.isfinite(p) & np.isfinite(q)
            m_p, m_q, m_s, m_ps = (np.nanmean(v[use]) for v in (p, q, risk[o, 2, 2], risk[o, 0, 2]))
            by_organism.append(
                [m_s - m_p, m_q - m_p, m_s - m_q, m_s - m_q - m_ps + m_p, (m_q - m_p + m_s - m_ps) / 2,
                 (m_s - m_q + m_ps - m_p) / 2]
            )  # fmt: skip
        values = 100 * np.array(by_organism)
        row = cell(label_terms(tree), "cot_view", "argmax(judge)")
        for name, own in zip(TERMS, values.T, strict=True):
            interval = stats.ttest_1samp(own, 0).confidence_interval(0.95)
            found = (row[f"{name}_pp"], row[f"{name}_low"], row[f"{name}_high"])
            assert found == pytest.approx((own.mean(), interval.low, interval.high)), name
        assert row["organisms"] == 6

    @pytest.mark.parametrize("unjudged", [0.0, 0.6])
    def test_both_sums_close(self, unjudged):
        table = label_terms(labeled(2, unjudged=unjudged))
        assert len(table) == 9
        assert table.closure.max() <= 1e-12
        change = table.label_change_pp
        assert np.abs(change - table.shift_term_pp - table.selection_term_pp).max() <= 1e-12
        assert np.abs(change - table.shift_shapley_pp - table.selection_shapley_pp).max() <= 1e-12
        np.testing.assert_allclose(table.shift_shapley_pp, table.shift_term_pp + table.interaction_pp / 2, atol=1e-12)

    def test_the_organism_s_own_labels_have_no_shift(self):
        own = label_terms(labeled(3)).query("label_shift == 'none'")
        for name in ("shift_term", "interaction", "shift_shapley"):
            assert (own[f"{name}_pp"] == 0).all()

    def test_split_halves_are_those_of_the_function(self):
        """Oracle: `split_half_selection` of each pool by itself (four candidates are cut in every way)."""
        tree = labeled(4)
        group, rng = tree["labels"].to_dataset(), np.random.default_rng(0)
        table = label_terms(tree)
        assert cell(table, "clean_view", "first")["split_half_pp"] == 0
        for selector, by in (("majority", "sum"), ("argmax(judge)", "max")):
            place = SELECTORS.index(selector)
            own = []
            for o in range(6):
                m, of = (group[name].values[o, 1, 0] for name in ("pool_outcome", "pool_class"))
                score = np.ones_like(m) if by == "sum" else group.label_score.values[o, 1, place, 0, 0]
                own.append(100 * split_half_selection(score, m, of.astype(int), rng, by=by).estimate)
            assert cell(table, "clean_view", selector)["split_half_pp"] == pytest.approx(np.mean(own))

    def test_the_luck_of_the_draw_is_in_the_naive_term_alone(self):
        """Scores that are the outcome of the draw itself: the best of 4 looks better than fresh answers."""
        tree = labeled(5, unjudged=0.0)
        group = tree["labels"].to_dataset()
        rng = np.random.default_rng(5)
        lucky = (rng.random(group.pool_outcome.shape) < 0.5).astype(float)  # M is a coin, whatever was said
        group["pool_outcome"] = (group.pool_outcome.dims, lucky)
        group["label_score"] = (group.label_score.dims, with_scores(lucky))
        picked = lucky.max(-1)
        group["label_risk"] = (group.label_risk.dims, np.broadcast_to(picked[:, :, None, None], group.label_risk.shape))
        row = cell(
            label_terms(xr.DataTree.from_dict({"/": tree.to_dataset(), "/labels": group})), "cot_view", "argmax(judge)"
        )
        assert row["selection_term_low"] > 30
        assert row["split_half_low"] < 0 < row["split_half_high"]

    def test_fewer_than_four_candidates_have_no_halves(self):
        table = label_terms(labeled(6, k=3))
        assert np.isnan(table[table.selector != "first"].split_half_pp).all()
        assert np.isfinite(table.selection_term_pp).all()

    def test_relabeling_changes_nothing(self):
        tree = labeled(7)
        moved = tree.isel(organism=[5, 3, 0, 1, 4, 2], label_shift=[2, 0, 1], selector=[1, 2, 0])
        one, two = (label_terms(cube).set_index(["label_shift", "selector"]).sort_index() for cube in (tree, moved))
        numbers = [f"{name}_{end}" for name in (*TERMS, "split_half") for end in ("pp", "low", "high")]
        np.testing.assert_allclose(two[numbers], one[numbers], rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tree: tree.to_dataset(), "the cube has no pool_outcome, pool_class, label_score, label_risk in"),
            (lambda tree: without(tree, "pool_class"), "the cube has no pool_class in its group labels; `ablate"),
            (lambda tree: tree.isel(label_shift=[1, 2]), "no label shift 'none', whose pool is the organism's own"),
            (lambda tree: tree.isel(organism=[0]), "1 valid organism, at least 2 are needed"),
            (lambda tree: unjudged(tree), "no organism has labels of two label shifts that could be judged"),
        ],
    )  # fmt: skip
    def test_refusals(self, change, message):
        with pytest.raises(StudyError, match=re.escape(message)):
            label_terms(change(labeled(8)))


def without(tree, name):
    group = tree["labels"].to_dataset(inherit=False).drop_vars(name)
    return xr.DataTree.from_dict({"/": tree.to_dataset(), "/labels": group})


def unjudged(tree):
    group = tree["labels"].to_dataset(inherit=False)
    group["pool_outcome"] = group["pool_outcome"] * np.nan
    return xr.DataTree.from_dict({"/": tree.to_dataset(), "/labels": group})


class TestStability:
    def test_two_candidates_by_hand(self):
        """Halves of one candidate each: the only halving, up to which half comes first; oracle: scipy."""
        tree = labeled(9, k=2, unjudged=0.0, risks=(0.5, 0.2))
        outcome = tree["labels"]["pool_outcome"].values[:, :, 0]
        table = stability(tree, splits=400)
        assert table.pair.tolist() == ["none, clean_view"]

        def js(a, b):
            return jensenshannon([a, 1 - a], [b, 1 - b]) ** 2

        own = []
        for pools in outcome:
            apart = [np.mean([js(a, b) for a in pools[0, x] for b in pools[1, x]]) for x in range(PROMPTS)]
            alike = [np.mean([js(*pools[i, x]) for i in (0, 1)]) for x in range(PROMPTS)]
            own.append(np.mean(apart) - np.mean(alike))
        assert table.difference[0] == pytest.approx(np.mean(own), abs=0.005)
        assert table.difference[0] == pytest.approx(table.between_shifts[0] - table.same_shift[0])

    def test_a_shift_that_changes_nothing_is_stable(self):
        covered = 0
        for seed in range(40):
            [row] = stability(labeled(seed, risks=(0.5, 0.5))).to_dict("records")
            covered += row["low"] <= 0 <= row["high"]
        assert covered >= 35

    def test_all_pairs_are_the_mean_of_the_pairs(self):
        table = stability(labeled(10)).set_index("pair")
        assert list(table.index) == ["none, clean_view", "none, cot_view", "clean_view, cot_view", "all pairs"]
        np.testing.assert_allclose(table.difference["all pairs"], table.difference[:3].mean())
        assert table.difference["clean_view, cot_view"] == table.difference.max()
        assert table.low["all pairs"] > 0

    def test_a_shift_of_one_candidate_is_named(self):
        tree = labeled(11)
        group = tree["labels"].to_dataset(inherit=False)
        group["pool_outcome"] = group["pool_outcome"].copy()
        group["pool_outcome"][:, 2, ..., 1:] = np.nan
        table = stability(xr.DataTree.from_dict({"/": tree.to_dataset(), "/labels": group}))
        assert table.attrs["notes"] == [
            "sycophancy: label_shift cot_view has fewer than two judged candidates a prompt, so no halves"
        ]
        by_pair = table.set_index("pair")
        assert np.isnan(by_pair.difference["none, cot_view"])
        assert by_pair.difference["all pairs"] == pytest.approx(by_pair.difference["none, clean_view"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tree: without(tree, "pool_outcome"), "the cube has no pool_outcome in its group labels; `ablate"),
            (lambda tree: tree.isel(label_shift=[0]), "label_shift has one level (none), nothing to be stable against"),
            (lambda tree: unjudged(tree), "no prompt has two judged candidates under two label shifts"),
        ],
    )  # fmt: skip
    def test_refusals(self, change, message):
        with pytest.raises(StudyError, match=re.escape(message)):
            stability(change(labeled(12)))
