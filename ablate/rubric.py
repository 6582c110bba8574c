"""Questions about an answer, put to a judge, and what its replies say. Prompts, answers and replies are data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ablate.errors import StudyError

LONGEST = 6000
"""Characters of a prompt or an answer that a judge is shown; what is longer loses its middle."""

MARKERS = {
    "question": "question",
    "original_question_text": "question",
    "answer": "answer",
    "generated_answer_text": "answer",
    "truth": "truth",
}
"""What a rubric may name in braces; the long names are those of the paper's released rubrics."""

_MARKER = re.compile(r"\{(" + "|".join(MARKERS) + r")\}")
_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_OF = r"(?:\s*(?:/|out of)\s*(\d+(?:\.\d+)?))?"
_SCORE = re.compile(
    rf"\b(?:score|rating)\b[\s*_`\"'\[(]*(?:is|of|[:=])[\s*_`\"'\[(]*{_NUMBER}(?![\d.]*\d|\s*[-\u2013]\s*\d){_OF}", re.I
)
_ALONE = re.compile(rf"[\s*_`\"'\[(]*{_NUMBER}{_OF}[\s*_`\"'\])]*\.?[ \t]*(?:\n.*)?", re.S)


def filled(rubric: str, **values: str) -> str:
    """The rubric with its markers replaced, in one pass: what stands in a value is never read as a marker.

    Any other brace of the rubric stays as it is.

    Raises:
        StudyError: the rubric does not show the answer.
    """
    if "answer" not in {MARKERS[name] for name in _MARKER.findall(rubric)}:
        raise StudyError("the rubric never shows the judge the answer; write {answer} (and {question}) into it")
    return _MARKER.sub(lambda match: _cut(values.get(MARKERS[match[1]], match[0])), rubric)


def number(reply: str | None, low: float, high: float) -> float:
    """The score that a reply gives, NaN where it gives none in [low, high].

    It is what follows the last ``score:`` or ``rating:``, else a number that is the whole first line. ``4/5`` is 4 on
    a scale that ends at 5 and nothing on any other.
    """
    stated = list(_SCORE.finditer(reply or ""))
    found = stated[-1] if stated else _ALONE.fullmatch(reply or "")
    if found is None or (found[2] is not None and float(found[2]) != high):
        return float("nan")
    score = float(found[1])
    return score if low <= score <= high else float("nan")


def word(reply: str | None, words: Sequence[str]) -> str | None:
    """The one of ``words`` that a reply contains as a word, in any case; None where it contains none or several."""
    said = [known for known in words if re.search(rf"\b{re.escape(known)}\b", reply or "", re.I)]
    return said[0] if len(said) == 1 else None


def _cut(text: str) -> str:
    """At most ``LONGEST`` characters: the beginning and the end."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}\n[...]\n{text[-(LONGEST // 2) :]}"
