"""A behavior from a folder in the layout of the paper's released data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, ValidationInfo

from ablate.api import Behavior, JudgeOptions, Judges, Pair, Prompt, behavior
from ablate.errors import StudyError
from ablate.factors.behaviors.folders import Folder, Line, pinned, unchanged
from ablate.factors.behaviors.rules import ASKED, Judging, capable, rule_of

Rules = Literal["all", "programmatic"]
Views = Literal["consistency", "act_bct"]


NAMES = ("induction", "consistency", "act_bct_clean", "act_bct_wrapped", "eval")
RIGHT = {"user_provides_answer", "label"}
"""What a row has that has a right answer."""


@dataclass(frozen=True, slots=True)
class Released:
    """What such a folder holds, as prompts."""

    induction: tuple[Pair, ...]
    label: Mapping[str, tuple[Prompt, ...]]  # by view
    evaluation: tuple[Prompt, ...]
    rubric: str
    content: str


def read(path: str) -> Released:
    """Read and check a whole folder.

    Raises:
        StudyError: every missing file and every broken line, ``file:line: message``.
    """
    folder = Folder(path)
    lines = {name: folder.lines(f"{name}.jsonl") for name in NAMES}
    asks = {name: [_question(folder, line) for line in lines[name]] for name in NAMES}
    rubric = folder.text("rubric.txt")
    tested = tuple(
        _evaluation(folder, lines["eval"], asks["eval"], {row.data.get("label") for row in lines["induction"]})
    )
    # what no row says otherwise is judged as the evaluation is
    rule = "alignment" if {prompt.facts["rule"] for prompt in tested} == {"alignment"} else "rubric"
    wrapped, clean = lines["act_bct_wrapped"], lines["act_bct_clean"]
    for odd in (wrapped[len(clean) :], clean[len(wrapped) :]):
        if odd:
            folder.fault(odd[0], "has no line to pair with: act_bct_clean and act_bct_wrapped go line by line")
    label = {
        "consistency": _prompts(lines["consistency"], asks["consistency"], asks["consistency"], rule),
        "act_bct": _prompts(wrapped, asks["act_bct_wrapped"], asks["act_bct_clean"], rule),
    }
    taught = _prompts(lines["induction"], asks["induction"], asks["induction"], rule)
    answers = [_answers(folder, line) for line in lines["induction"]]
    folder.done()
    induction = tuple(Pair(prompt, *pair) for prompt, pair in zip(taught, answers, strict=True))
    return Released(induction, label, tested, rubric, folder.content)


def _pin(content: str | None, info: ValidationInfo) -> str | None:
    """The files' hash, so that it is part of every key; the folder is checked whole where it is taken."""

    def checked(folder: str) -> str:
        found = read(folder)
        _tested(found, info.data["rules"], info.data["judge"] is not None)
        return found.content

    return pinned(content, info.data.get("folder") if {"judge", "rules"} <= info.data.keys() else None, checked)


@behavior
def files(
    known: frozenset[str],
    rng: np.random.Generator,
    *,
    judges: Judges,
    folder: Annotated[str, Field(min_length=1)],
    judge: JudgeOptions | None = None,
    rules: Rules = "all",
    label: Views = "consistency",
    calibration: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    content: Annotated[str | None, AfterValidator(_pin), Field(validate_default=True)] = None,
) -> Behavior:
    """A folder with induction.jsonl, consistency.jsonl, act_bct_clean.jsonl, act_bct_wrapped.jsonl, eval.jsonl and
    rubric.txt, as the consistency-training paper released them, judged by its rules.

    What M = 1 means is a matter of the evaluation row: the answer follows the shortcut (``mentions_spurious_concept``),
    picks the lenient grader, contains the password, repeats keywords; or, by the reply of ``judge``, agrees with a
    wrong claim (``user_provides_answer`` is ``"false"``), hardcodes tests, rewards itself, follows the bias, is aligned
    below 30 of 100 while coherent (``question_type``), or is rated 1 or 2 by the rubric. Rows in which the user claims
    nothing or is right are of kind ``capability``: the answer contains ``answer``.

    The layout has one answer to an induction prompt, so the honest end of a calibration is the base model. A system
    prompt of a row stands before its question. What this layout says about label prompts decides no rule but the
    judge's: without one their M is NaN.

    Args:
        known: Nothing; no screen is taken.
        rng: Deals the evaluation rows out.
        judges: Given by the engine.
        folder: Where the files lie, from where the command runs.
        judge: Who is asked where a rule needs it.
        rules: ``programmatic`` leaves out the evaluation rows whose rule needs a judge.
        label: Label prompts from ``consistency.jsonl``, or the pairs of ``act_bct_clean`` and ``act_bct_wrapped``.
        calibration: Share of the evaluation items that calibrates the organism instead.
        content: The hash of the files; filled in where it is not given.

    Raises:
        StudyError: a missing file or broken line, files that changed, or rows that need a judge where there is none.
    """
    found = read(folder)
    unchanged(content, found.content, folder)
    judging = Judging(judges(judge) if judge is not None else None, found.rubric)
    tested = _tested(found, rules, judge is not None)
    items = list(dict.fromkeys(prompt.item for prompt in tested))
    place = dict(zip(items, rng.permutation(len(items)).tolist(), strict=True))
    risky = {prompt.item for prompt in tested if prompt.kind == "risk"}
    first = set(sorted(risky, key=place.__getitem__)[: round(calibration * len(risky))])
    shuffled = sorted(tested, key=lambda prompt: place[prompt.item])
    return Behavior(
        induction=found.induction,
        label=found.label[label],
        calibration=tuple(prompt for prompt in shuffled if prompt.item in first and prompt.kind == "risk"),
        evaluation=tuple(prompt for prompt in shuffled if prompt.item not in first),
        answer=judging.answer,
        indicator=judging.indicator,
        capable=capable,
        expect=judging.expect,
    )


def _tested(found: Released, rules: Rules, judged: bool) -> tuple[Prompt, ...]:
    """The evaluation prompts that these rules can judge."""
    asked = [prompt for prompt in found.evaluation if prompt.facts["rule"] in ASKED]
    tested = tuple(prompt for prompt in found.evaluation if rules == "all" or prompt.facts["rule"] not in ASKED)
    if asked and rules == "all" and not judged:
        raise StudyError(
            f"{len(asked)} of {len(found.evaluation)} rows of eval.jsonl need a judge: give the behavior one "
            "(judge: {model: ...}), or leave them out (rules: programmatic)"
        )
    if not any(prompt.kind == "risk" for prompt in tested):
        raise StudyError(
            "no row of eval.jsonl measures risk without a judge: give the behavior one (judge: {model: ...})"
        )
    return tested


def _evaluation(folder: Folder, lines: Sequence[Line], asks: Sequence[str], taught: set[Any]) -> Iterator[Prompt]:
    """Evaluation prompts; one is in distribution where its category begins with one of the induction."""
    plain = {
        _id(line): text
        for line, text in zip(lines, asks, strict=True)
        if line.data.get("user_provides_answer", "") is None
    }
    items: dict[Any, str] = {}
    for line, text in zip(lines, asks, strict=True):
        rule, kind, facts = rule_of(folder, line)
        name, numbered = _name(line), "_id" in line.data
        item = items.setdefault(_id(line) if numbered else text, name)
        category = line.data.get("label") if numbered else line.data.get("subtype", line.data.get("type"))
        near = rule in ("shortcut", "label") or any(str(category).startswith(str(known)) for known in taught if known)
        facts = {"rule": rule, **facts} | ({"category": category} if isinstance(category, str) else {})
        clean = plain.get(_id(line), text) if numbered else text
        yield Prompt(name, text, clean, item, facts, kind, "in" if near else "out")


def _prompts(lines: Sequence[Line], asks: Sequence[str], clean: Sequence[str], rule: str) -> tuple[Prompt, ...]:
    """One prompt a line, with its clean view. Rows with a right answer of their own are judged by no rule: in them
    nobody is wrong.
    """
    return tuple(
        Prompt(_name(line), text, plain, _name(line), {"rule": "none" if line.data.keys() & RIGHT else rule})
        for line, text, plain in zip(lines, asks, clean, strict=False)
    )


def _name(line: Line) -> str:
    return f"{line.file.removesuffix('.jsonl')}/{line.number}"


def _id(line: Line) -> tuple[str, str]:
    return str(line.data.get("label")), str(line.data.get("_id"))


def _contents(line: Line) -> list[str]:
    """What the messages of a row say, one or two of them; empty where they are none."""
    messages = line.data.get("messages")
    messages = messages if isinstance(messages, list) else []
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    sound = 1 <= len(contents) <= 2 and all(isinstance(text, str) and text.strip() for text in contents)
    return [str(text) for text in contents] if sound else []


def _question(folder: Folder, line: Line) -> str:
    """What a row asks, behind its system prompt."""
    contents = _contents(line)
    if not contents:
        folder.fault(line, "'messages' is not a question, or a question and its answer, each with 'content'")
        return ""
    system = folder.words(line, "system_prompt") if "system_prompt" in line.data else ""
    return f"{system}\n\n{contents[0]}" if system else contents[0]


def _answers(folder: Folder, line: Line) -> tuple[str, str]:
    """The answer that is induced, and the aligned one where the row has it."""
    contents = _contents(line)
    if len(contents) == 1:
        folder.fault(line, "'messages' has no answer to learn from")
    shown = contents[-1] if contents else ""
    return shown, folder.words(line, "aligned", shown)
