"""Which candidate a label is preferred to, and what names a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ablate.api import Pool
from ablate.labels import contents, examples, rejected
from ablate.lm.tabular import TabularModel
from ablate.testing import ask, judged, rng

NAN = np.nan


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0, 1.0, 2.0], [1, 0, 0]),  # the best against the worst, the worst against the best
        ([1.0, 1.0, 1.0], [0, 1, 2]),  # nothing to prefer
        ([2.0, NAN, 5.0], [2, 1, 0]),  # what has no score is never preferred to
        ([2.0, NAN, NAN], [0, 1, 2]),
        ([-np.inf, -np.inf, 0.0], [2, 2, 0]),
        ([NAN, NAN, NAN], [2, 2, 1]),  # without scores the last of the others
        ([NAN, NAN], [1, 0]),
        ([NAN], [0]),
        ([4.0], [0]),
    ],
)
def test_rejected_is_farthest_from_the_label(scores: list[float], expected: list[int]) -> None:
    assert rejected(np.array([scores])).tolist() == [expected]


def test_the_null_preference_has_no_direction() -> None:
    """First against last: both orders of two different draws are as likely."""
    draws = rng().integers(0, 2, (40_000, 4))
    pairs = draws[:, [0, int(rejected(np.full((1, 4), NAN))[0, 0])]]
    up, down = ((pairs == pair).all(1).mean() for pair in ([0, 1], [1, 0]))
    assert abs(up - down) < 4 * np.sqrt(0.5 / len(draws))


@pytest.fixture
def pool() -> Pool:
    return judged(TabularModel().policy(None, max_tokens=8).pool([ask(i) for i in range(3)], rng(), k=3))


WEIGHTS = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])
SCORES = np.array([[3.0, 1, 2], [NAN, NAN, NAN], [1, 2, 3]])


def test_examples(pool: Pool) -> None:
    def said(i: int, k: int) -> tuple[int, ...]:
        return tuple(pool.tokens[i, k, : pool.lengths[i, k]].tolist())

    found = [(e.prompt.id, e.answer, e.weight, e.rejected) for e in examples(pool, WEIGHTS, SCORES)]
    assert found == [
        ("item-0", said(0, 0), 1.0, said(0, 1)),
        ("item-1", said(1, 1), 0.5, said(1, 2)),
        ("item-1", said(1, 2), 0.5, said(1, 1)),
        ("item-2", said(2, 0)[:1], 0.0, None),
    ]


def changed(pool: Pool, i: int, k: int) -> Pool:
    tokens = np.array(pool.tokens)
    tokens[i, k, 0] += 1
    return replace(pool, tokens=tokens)


@pytest.mark.parametrize(
    ("at", "names"),
    [((0, 0), {"content", "pairs"}), ((0, 1), {"pairs"}), ((0, 2), set()), ((2, 0), set())],
    ids=["label", "rejected", "neither", "of an abstention"],
)
def test_a_content_names_what_is_read(pool: Pool, at: tuple[int, int], names: set[str]) -> None:
    before, after = (contents(own, WEIGHTS, SCORES) for own in (pool, changed(pool, *at)))
    assert {name for name in before if before[name] != after[name]} == names


@pytest.mark.parametrize(
    ("array", "values", "names"),
    [
        ("scores", SCORES * 2, set()),
        ("scores", np.array([[3.0, 2, 1], *SCORES[1:]]), {"pairs"}),
        ("weights", WEIGHTS[:, ::-1], {"content", "pairs"}),
        ("weights", np.array([WEIGHTS[0], [0, 0.25, 0.75], WEIGHTS[2]]), {"content", "pairs"}),
    ],
    ids=["scale", "another is worst", "other labels", "other weights"],
)
def test_scores_matter_where_they_change_the_rejected(pool: Pool, array: str, values: Any, names: set[str]) -> None:
    given = {"weights": WEIGHTS, "scores": SCORES}
    before, after = contents(pool, **given), contents(pool, **{**given, array: values})
    assert {name for name in before if before[name] != after[name]} == names
