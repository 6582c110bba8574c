import re
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from pools import PROMPTS, labeled, replaced, unjudged
from scipy.spatial.distance import jensenshannon

from ablate.effects import stability
from ablate.errors import StudyError

NUMBERS = ["between_shifts", "same_shift", "difference", "low", "high", "prompts"]


@cache
def js(p, q):
    return jensenshannon([p, 1 - p], [q, 1 - q]) ** 2


def every_half(a, b):
    """Divergence between halves of two pools and of one, nats: one way to take them after the other."""
    h = min(len(a), len(b)) // 2
    between = [js(np.mean(one), np.mean(other)) for one, other in product(combinations(a, h), combinations(b, h))]
    within = []
    for pool in (a, b):
        ways = [
            (first, second)
            for first in combinations(range(len(pool)), h)
            for second in combinations([i for i in range(len(pool)) if i not in first], h)
        ]
        within.append(np.mean([js(np.mean(pool[list(one)]), np.mean(pool[list(two)])) for one, two in ways]))
    return np.mean(between), np.mean(within)


@pytest.mark.parametrize(("k", "share"), [(2, 0.0), (5, 0.3), (6, 0.2)])
def test_it_is_the_mean_over_every_way_to_take_halves(k, share):
    """Oracle: enumeration; pools of which not all was judged, so that their numbers differ."""
    tree = labeled(9, k=k, unjudged=share, risks=(0.5, 0.2)).isel(prompt=slice(12))
    own = []
    for pools in tree["labels"]["pool_outcome"].values[:, :, 0]:
        judged = [[pool[np.isfinite(pool)] for pool in prompt] for prompt in pools.swapaxes(0, 1)]
        own.append([every_half(a, b) for a, b in judged if min(len(a), len(b)) > 1])
    [row] = stability(tree).to_dict("records")
    between, within = np.mean([np.mean(values, axis=0) for values in own], axis=0)
    assert row["pair"] == "none, clean_view"
    assert (row["between_shifts"], row["same_shift"]) == pytest.approx((between, within), abs=1e-12)
    assert row["difference"] == pytest.approx(between - within, abs=1e-12)
    assert row["prompts"] == np.mean([len(values) for values in own])


@pytest.mark.parametrize("states", [2, 3])
@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (4, 2), (2, 4), (4, 3)])
def test_nothing_is_found_between_pools_of_one_law_however_many_could_be_judged(states, n_a, n_b):
    """Every outcome of two pools once as a prompt, with risk 1 / ``states``: the expectation, not a simulation."""
    drawn = np.array(list(product(range(states), repeat=n_a + n_b)))[:, None] == 0
    pools = np.full((6, 2, 1, len(drawn), 4), np.nan)
    pools[:, 0, 0, :, :n_a], pools[:, 1, 0, :, :n_b] = drawn[:, 0, :n_a], drawn[:, 0, n_a:]
    tree = labeled(0, risks=(0.5, 0.5)).isel(prompt=np.arange(len(drawn)) % PROMPTS)
    row = stability(replaced(tree, pool_outcome=pools)).iloc[0]
    assert row.same_shift > 0.05
    assert row.difference == pytest.approx(0, abs=1e-12)


def test_unequal_numbers_of_judged_candidates_are_no_shift():
    """The same with risks that differ between prompts, drawn: 4 against 2 candidates, nothing but noise."""
    found = []
    for seed in range(20):
        tree = labeled(seed, risks=(0.5, 0.5), unjudged=0.0)
        outcome = tree["labels"]["pool_outcome"].values.copy()
        outcome[:, 1, ..., 2:] = np.nan
        found.append(stability(replaced(tree, pool_outcome=outcome)).difference[0])
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(20)


def test_the_order_of_candidates_prompts_and_levels_does_not_matter():
    tree = labeled(8, k=5, unjudged=0.3)
    outcome = tree["labels"]["pool_outcome"].values
    table = stability(tree)
    shuffled = np.random.default_rng(0).permuted(outcome, axis=-1)
    np.testing.assert_array_equal(stability(replaced(tree, pool_outcome=shuffled))[NUMBERS], table[NUMBERS])
    moved = stability(tree.isel(prompt=slice(None, None, -1), organism=[5, 3, 0, 1, 4, 2], label_shift=[0, 2, 1]))
    assert moved.pair.tolist() == ["none, cot_view", "none, clean_view", "cot_view, clean_view", "all pairs"]
    np.testing.assert_allclose(moved[NUMBERS], table[NUMBERS].iloc[[1, 0, 2, 3]], rtol=1e-12)


def test_the_caption_says_what_was_drawn_and_judged():
    table = stability(labeled(14, unjudged=0.0))
    note = (
        "sycophancy: 40 label prompts, candidates of each (not judged): none 4 (0%), clean_view 4 (0%), cot_view 4 (0%)"
    )
    assert table.attrs["notes"] == [note]
    assert table.attrs["methods"].endswith(
        "less that of a label shift with itself; t intervals with 5 df over organisms"
    )
    assert table.attrs["facts"] == {"items": None, "unparsed": None}
    assert (table.prompts == PROMPTS).all()


def test_a_shift_that_changes_nothing_is_stable():
    covered = 0
    for seed in range(40):
        [row] = stability(labeled(seed, risks=(0.5, 0.5))).to_dict("records")
        covered += row["low"] <= 0 <= row["high"]
    assert covered >= 35


def test_all_pairs_are_the_mean_of_the_pairs():
    table = stability(labeled(10)).set_index("pair")
    assert list(table.index) == ["none, clean_view", "none, cot_view", "clean_view, cot_view", "all pairs"]
    np.testing.assert_allclose(table.difference["all pairs"], table.difference[:3].mean())
    assert table.difference["clean_view, cot_view"] == table.difference.max()
    assert table.low["all pairs"] > 0


def test_a_shift_of_one_candidate_is_named():
    tree = labeled(11)
    outcome = tree["labels"]["pool_outcome"].values.copy()
    outcome[:, 2, ..., 1:] = np.nan
    table = stability(replaced(tree, pool_outcome=outcome))
    assert table.attrs["notes"][1:] == [
        "sycophancy: label_shift cot_view has fewer than two judged candidates a prompt, so no halves"
    ]
    by_pair = table.set_index("pair")
    assert np.isnan(by_pair.difference["none, cot_view"])
    assert by_pair.difference["all pairs"] == pytest.approx(by_pair.difference["none, clean_view"])


def halved(tree):
    return replaced(tree, pool_outcome=tree["labels"]["pool_outcome"].values / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: replaced(tree, pool_outcome=None), "the cube has no pool_outcome in its group labels; `ablate"),
        (lambda tree: tree.isel(label_shift=[0]), "label_shift has one level (none), nothing to be stable against"),
        (lambda tree: halved(tree), "sycophancy: an outcome of pool_outcome is not 0, 1 or NaN"),
        (lambda tree: unjudged(tree), "no prompt has two judged candidates under two label shifts"),
    ],
)  # fmt: skip
def test_refusals(change, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        stability(change(labeled(12)))
