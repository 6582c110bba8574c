"""The words for faults that only a plug-in's own option types can bring about."""

from __future__ import annotations

import enum
import json
import uuid
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ablate.errors import StudyMistakes
from ablate.levels import plain_node
from ablate.wording import report, show, unknown
from ablate.yamlfile import Faults, parse


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 0


def _even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


def _small(value: int) -> int:
    if value >= 5:
        raise AssertionError("too\nmuch")
    return value


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    short: Annotated[str, Field(max_length=3)] = ""
    long: Annotated[str, Field(min_length=3)] = "abc"
    word: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    few: Annotated[list[int], Field(max_length=2)] = Field(default_factory=list)
    many: Annotated[list[int], Field(min_length=2)] = Field(default_factory=list)
    step: Annotated[int, Field(multiple_of=5)] = 0
    even: Annotated[int, AfterValidator(_even)] = 0
    small: Annotated[int, AfterValidator(_small)] = 0
    table: dict[str, int] = Field(default_factory=dict)
    color: Color = Color.RED
    id: uuid.UUID | None = None
    inner: Inner = Inner()
    either: int | bool = 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("short: abcd", "1:8: short: 'abcd' is longer than 3 characters"),
        ("long: ab", "1:7: long: 'ab' is shorter than 3 characters"),
        ("word: A", "1:7: word: 'A' does not match ^[a-z]+$"),
        ("few: [1, 2, 3]", "1:6: few: has more than 2 entries"),
        ("many: [1]", "1:7: many: has 1 entries, not at least 2"),
        ("step: 3", "1:7: step: 3 is not a multiple of 5"),
        ("even: 3", "1:7: even: 3 is odd"),
        ("small: 7", "1:8: small: too much"),
        ("table: 7", "1:8: table: 7 is not a mapping"),
        ("table: {a: x}", "1:12: table.a: 'x' is not a whole number"),
        ("color: rde", "1:8: color: 'rde' is not 'red' or 'blue'; did you mean 'red'?"),
        ("id: soon", "1:5: id: 'soon' does not fit (uuid parsing)"),
        ("inner: {deph: 1}", "1:9: inner.deph: unknown option; did you mean 'depth'?"),
        ("inner: {depth: {x: 1}}", "1:16: inner.depth: a mapping is not a whole number"),
        ("inner: 3", "1:8: inner: 3 is not a mapping"),
        ("either: 1.5", "1:9: either: 1.5 is not a whole number or true or false"),
        ("either: " + "x" * 80, "1:9: either: '" + "x" * 57 + "...' is not a whole number or true or false"),
    ],
)
def test_words(text: str, message: str) -> None:
    faults = Faults()
    root = parse(text, "f", faults)
    with pytest.raises(ValidationError) as caught:
        Options.model_validate_json(json.dumps(plain_node(root)))
    report(caught.value, root, Options, faults)
    with pytest.raises(StudyMistakes) as said:
        faults.raise_any()
    assert str(said.value).splitlines()[:-1] == [f"f:{message}"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (0.5, "0.5"),
        ("a", "'a'"),
        ([], "a list"),
        ((), "a list"),
        ({}, "a mapping"),
    ],
)
def test_values_are_shown_as_they_are_written(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_many_valid_names_are_cut_short() -> None:
    assert unknown("zzz", [f"n{i}" for i in range(20)]).endswith("n10, n11, ...")
    assert unknown("zzz", []) == "unknown option"
