import re

import numpy as np
import pytest
from pools import PROMPTS, SELECTORS, labeled, replaced, unjudged, with_scores
from scipy import stats

from ablate.effects import label_terms, split_half_selection
from ablate.errors import StudyError

TERMS = ("label_change", "shift_term", "selection_term", "interaction", "shift_shapley", "selection_shapley")


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
        picked = np.broadcast_to(lucky.max(-1)[:, :, None, None], group.label_risk.shape)
        lucky_tree = replaced(tree, pool_outcome=lucky, label_score=with_scores(lucky), label_risk=picked)
        row = cell(label_terms(lucky_tree), "cot_view", "argmax(judge)")
        assert row["selection_term_low"] > 30
        assert row["split_half_low"] < 0 < row["split_half_high"]

    def test_fewer_than_four_candidates_have_no_halves(self):
        table = label_terms(labeled(6, k=3))
        assert np.isnan(table[table.selector != "first"].split_half_pp).all()
        assert np.isfinite(table.selection_term_pp).all()

    @pytest.mark.parametrize("k", [4, 8])
    def test_relabeling_and_the_order_of_prompts_change_nothing(self, k):
        """Eight candidates have 35 cuts, of which none is drawn."""
        tree = labeled(7, k=k)
        moved = tree.isel(organism=[5, 3, 0, 1, 4, 2], label_shift=[2, 0, 1], selector=[1, 2, 0])
        moved = moved.isel(prompt=np.random.default_rng(0).permutation(PROMPTS))
        one, two = (label_terms(cube).set_index(["label_shift", "selector"]).sort_index() for cube in (tree, moved))
        numbers = [f"{name}_{end}" for name in (*TERMS, "split_half") for end in ("pp", "low", "high")]
        np.testing.assert_allclose(two[numbers], one[numbers], rtol=1e-9, atol=1e-9)

    def test_a_prompt_without_a_judged_answer_of_the_organism_s_own_does_not_count(self):
        """As if it were not there: what was proposed for it is compared to nothing."""
        tree = labeled(10, unjudged=0.0)
        outcome = tree["labels"]["pool_outcome"].values.copy()
        outcome[:, 0, :, :10] = np.nan
        table = label_terms(replaced(tree, pool_outcome=outcome))
        without = label_terms(tree.isel(prompt=slice(10, None)))
        assert (table.prompts == PROMPTS - 10).all()
        numbers = [f"{name}_{end}" for name in TERMS for end in ("pp", "low", "high")]
        np.testing.assert_allclose(table[numbers], without[numbers], atol=1e-12)

    def test_a_pool_of_fewer_candidates_than_others_is_cut_as_what_it_is(self):
        tree = labeled(11, k=6)
        group = tree["labels"].to_dataset()
        short = {name: group[name].values.copy() for name in ("pool_outcome", "pool_class", "label_score")}
        for values in short.values():
            values[:, 1, ..., 4:] = np.nan
        padded, alone = label_terms(replaced(tree, **short)), label_terms(tree.isel(candidate=slice(4)))
        for selector in SELECTORS:
            found = cell(padded, "clean_view", selector)["split_half_pp"]
            assert found == pytest.approx(cell(alone, "clean_view", selector)["split_half_pp"])

    def test_the_caption_says_what_was_drawn_and_judged(self):
        tree = labeled(12, unjudged=0.0)
        outcome, classes = (tree["labels"][name].values.copy() for name in ("pool_outcome", "pool_class"))
        outcome[:, 1, ..., 1:] = classes[:, 1, ..., 1:] = np.nan  # greedy-like: one candidate
        outcome[:, 2, :, : PROMPTS // 2] = np.nan
        table = label_terms(replaced(tree, pool_outcome=outcome, pool_class=classes))
        assert table.attrs["notes"] == [
            "sycophancy: 40 label prompts, candidates of each (not judged): none 4 (0%), clean_view 1 (0%), "
            "cot_view 4 (50%)"
        ]
        assert table.attrs["methods"] == (
            "Price terms of the labels' risk on label prompts, exact in the pools drawn; split-half selection over all "
            "cuts of up to 8 candidates; t intervals with 5 df over organisms"
        )
        assert table.attrs["facts"] == {"items": None, "unparsed": None}

    def test_more_candidates_are_cut_at_random_and_the_caption_says_so(self):
        tree = labeled(13, k=10)
        one, again, other = (label_terms(tree, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert "up to 8 candidates, 20 random ones of more; t intervals" in one.attrs["methods"]
        np.testing.assert_array_equal(one.split_half_pp, again.split_half_pp)
        moved = (one.split_half_pp - other.split_half_pp).abs()
        assert 0 < moved.max() < 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tree: tree.to_dataset(), "the cube has no pool_outcome, pool_class, label_score, label_risk in"),
            (lambda tree: replaced(tree, pool_class=None), "the cube has no pool_class in its group labels; `ablate"),
            (lambda tree: tree.isel(label_shift=[1, 2]), "no label shift 'none', whose pool is the organism's own"),
            (lambda tree: tree.isel(organism=[0]), "1 valid organism, at least 2 are needed"),
            (lambda tree: unjudged(tree), "no organism has labels of two label shifts that could be judged"),
        ],
    )  # fmt: skip
    def test_refusals(self, change, message):
        with pytest.raises(StudyError, match=re.escape(message)):
            label_terms(change(labeled(8)))
