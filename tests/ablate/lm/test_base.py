"""The steps of a training: which examples, in which order, and how many label tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.lm.base import TrainOptions, steps

LENGTHS = [3.0, 5.0, 2.0, 4.0, 9.0, 1.0, 2.0]


def plan(lengths: list[float], weights: list[float] | None = None, seed: int = 0, **options: Any) -> list[list[int]]:
    own = TrainOptions(**{"epochs": 2, "lr": 1.0, "batch": 3, "warmup": 0.0, "rank": 1, "alpha": 1, **options})
    return steps(lengths, weights or [1.0] * len(lengths), own, np.random.default_rng(seed))


def taken(found: list[list[int]]) -> list[int]:
    return [i for step in found for i in step]


def test_an_epoch_is_a_permutation_in_batches() -> None:
    rng = np.random.default_rng(0)
    orders = [rng.permutation(7).tolist() for _ in range(2)]
    assert plan(LENGTHS) == [order[i : i + 3] for order in orders for i in (0, 3, 6)]


def test_what_has_no_weight_is_left_out_of_the_same_order() -> None:
    kept = [i for i in taken(plan(LENGTHS)) if i not in (1, 4)]
    assert taken(plan(LENGTHS, [1, 0, 1, 1, 0, 0.1, 1])) == kept


@pytest.mark.parametrize("tokens", [None, 5])
def test_nothing_to_learn_from(tokens: int | None) -> None:
    assert plan([2.0, 3.0], [0.0, 0.0], tokens=tokens) == plan([], [], tokens=tokens) == []


def test_tokens_cut_and_repeat_the_same_order() -> None:
    """26 tokens an epoch: 10 are less than one, 60 more than two."""
    whole = taken(plan(LENGTHS, epochs=3))
    for tokens in (1, 10, 26, 27, 60):
        found = taken(plan(LENGTHS, tokens=tokens))
        assert found == whole[: len(found)]
        assert sum(LENGTHS[i] for i in found[:-1]) < tokens <= sum(LENGTHS[i] for i in found)


def test_tokens_count_instead_of_epochs() -> None:
    assert (
        plan(LENGTHS, tokens=40, epochs=1) == plan(LENGTHS, tokens=40, epochs=9) == plan(LENGTHS, tokens=40, epochs=0)
    )


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.integers(1, 300),
)
def test_label_sets_of_any_length_get_one_dose(one: list[int], two: list[int], tokens: int) -> None:
    doses = []
    for lengths in (one, two):
        found = taken(plan([float(n) for n in lengths], tokens=tokens, batch=4))
        doses.append(sum(lengths[i] for i in found))
        assert tokens <= doses[-1] < tokens + max(lengths)
    assert abs(doses[0] - doses[1]) < max(*one, *two)
