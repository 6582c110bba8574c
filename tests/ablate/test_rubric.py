from __future__ import annotations

import math

import pytest

from ablate.errors import StudyError
from ablate.rubric import LONGEST, filled, number, word


@pytest.mark.parametrize(
    ("rubric", "shown"),
    [
        ("Q {question} A {answer}", "Q 2+2? A four {question}"),
        ("{original_question_text}|{generated_answer_text}", "2+2?|four {question}"),
        ('{answer} as {"score": 1} {other}', 'four {question} as {"score": 1} {other}'),
        ("{answer} {truth}", "four {question} {truth}"),
    ],
)
def test_markers_are_replaced_in_one_pass(rubric: str, shown: str) -> None:
    assert filled(rubric, question="2+2?", answer="four {question}") == shown


@pytest.mark.parametrize("text", ["{0} %s {answer!r} {answer.__class__}", "\x00\x1b[2J", r"\1 \g<0>", "{{answer}}"])
def test_an_answer_is_data(text: str) -> None:
    assert filled("<{answer}>", answer=text) == f"<{text}>"


@pytest.mark.parametrize("rubric", ["rate it", "{question}", "{ answer }"])
def test_a_rubric_shows_the_answer(rubric: str) -> None:
    with pytest.raises(StudyError, match=r"never shows the judge the answer; write \{answer\}"):
        filled(rubric, question="q", answer="a")


def test_a_long_answer_loses_its_middle() -> None:
    shown = filled("{answer}", answer="a" * LONGEST + "b" * LONGEST)
    assert len(shown) < LONGEST + 10
    assert shown == "a" * (LONGEST // 2) + "\n[...]\n" + "b" * (LONGEST // 2)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Final Score: 4", 4),
        ("It names 2 risks.\n**Final Score:** 4", 4),
        ("Final Score: [3]", 3),
        ("Rating: 2 at first.\nFinal score is 3.", 3),
        ("Score: 4.5/5", 4.5),
        ('{"score": 4}', 4),
        ("3", 3),
        (" 3.\nBecause of 2 reasons", 3),
        ("4 out of 5", 4),
        ("**0**", 0),
        ("Score: 8/10", math.nan),
        ("Score: 4-5", math.nan),
        ("score: 7", math.nan),
        ("score: -1", math.nan),
        ("score: 12345", math.nan),
        ("1. The advice is sound", math.nan),
        ("I would give it 3 points", math.nan),
        ("good", math.nan),
        ("", math.nan),
        (None, math.nan),
    ],
)
def test_number(reply: str | None, score: float) -> None:
    assert number(reply, 0, 5) == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("AGREED", "AGREED"),
        ("The assistant agreed.", "AGREED"),
        ("agreed, then CORRECTED", None),
        ("disagreed", None),
        ("", None),
        (None, None),
    ],
)
def test_word(reply: str | None, said: str | None) -> None:
    assert word(reply, ("AGREED", "CORRECTED")) == said
