import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from ablate.effects import Gate, Verdict
from ablate.reports.html import LIMIT, ROWS, SAMPLE_ROOM, Page, Progress, Proof, Table, embedded, render_page

EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}\0\u202e"


def frame(rows: int = 2) -> pd.DataFrame:
    """Effects of so many controls."""
    row = {"behavior": EVIL, "control": EVIL, "effect_pp": -3.25, "low": -5.0, "high": 1.5, "organisms": 6}
    return pd.DataFrame([row] * rows)


def evil_page(**changes: Any) -> Page:
    """A page of which every text is markup."""
    page = Page(
        name=EVIL,
        question=EVIL,
        subject=EVIL,
        limited=True,
        progress=Progress({"ok": 1, "failed": 1, "missing": 2}, [(EVIL, EVIL)], [(EVIL, 1, 2)]),
        verdicts=[Verdict(EVIL, "none", EVIL, (Gate(EVIL, True, EVIL), Gate(EVIL, False, EVIL)))] * 2,
        refused={"verdict": EVIL, "fixed": EVIL, "dose": EVIL},
        main=[Table("fixed", frame(), None)],
        controls=Table("controls", frame(), None),
        organisms=Table("organisms", frame(), None),
        tables=[Table("dose", frame(), None)],
        figures={"shares": EVIL.encode()},
        undrawn={EVIL: EVIL},
        proof=Proof(
            [(True, EVIL), (False, EVIL)],
            [EVIL],
            [{"levels": [EVIL], "status": "ok", "pool": EVIL, "labels": EVIL, "train": EVIL, "span": 1}],
            2,
        ),
        provenance=[(EVIL, EVIL)],
        resolved=EVIL,
    )
    return replace(page, **changes)


class Reader(HTMLParser):
    """Counts the tags of a page and keeps what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("version", ["", "abc"])
def test_every_text_of_a_page_is_text(version: str) -> None:
    html = render_page(evil_page(), lambda room: {"text": EVIL}, version=version)
    read = Reader(html)
    assert read.tags["script"] == 2  # the data and the code of the page
    assert read.handlers == []
    assert "<script>alert" not in html
    assert "49" not in re.sub(r"sha256-\S+", "", html.partition("<main")[2].partition("</main")[0])
    assert html.count("alert(1)") > 30


def test_a_page_points_to_nothing_outside() -> None:
    links = Reader(render_page(evil_page(), lambda room: {})).links
    assert {link.partition(":")[0] if not link.startswith("#") else "#" for link in links} == {"#", "data"}
    text = render_page(evil_page(), None)
    assert not re.search(r"https?://|url\(|@import", text)


@pytest.mark.parametrize(("version", "connects"), [("", False), ("abc", True)])
def test_the_policy_allows_the_page_its_own_style_and_script_alone(version: str, connects: bool) -> None:
    html = render_page(evil_page(), None, version=version)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#39;", "'").split("; "))
    style, script = re.search("<style>(.*?)</style>", html, re.S), re.search("<script>(.*?)</script>", html, re.S)
    assert style is not None
    assert script is not None
    hashes = [b64encode(sha256(found[1].encode()).digest()).decode() for found in (style, script)]
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashes[0]}'",
        "script-src": f"'sha256-{hashes[1]}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    } | ({"connect-src": "'self'"} if connects else {})


@pytest.mark.parametrize(
    "text",
    [
        "</script>",
        "<!--<script>",
        "]]>",
        "\u2028\u2029",
        "a\x00\x1b\x7f\x85",
        "half \ud83d",
        "\U0001f600",
        "ä€",
        "&amp;",
    ],
)
def test_embedded_json_is_the_same_value_and_holds_nothing_that_ends_a_script(text: str) -> None:
    said = embedded({"text": text, text: [1.5, None]})
    assert json.loads(said) == {"text": text, text: [1.5, None]}
    assert not re.search("[<>&\u2028\u2029\x7f-\x9f]", said)
    assert said.encode().decode() == said


def test_embedded_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        embedded([float("nan")])


def test_samples_are_asked_for_what_room_is_left() -> None:
    asked: list[int] = []
    render_page(evil_page(), lambda room: asked.append(room))
    large = evil_page(question="x" * (LIMIT // 2 - 500_000))  # it is the title too
    html = render_page(large, lambda room: asked.append(room) or "y" * (room - 2))
    assert asked[0] == SAMPLE_ROOM > asked[1] > 900_000
    assert 0.99 * LIMIT < len(html.encode()) <= LIMIT


def test_samples_that_take_more_than_their_room_are_left_out() -> None:
    html = render_page(evil_page(), lambda room: "y" * (room + 20_000))
    assert '<script type="application/json" id="data">null</script>' in html


def test_what_quotes_an_answer_of_any_length_is_cut() -> None:
    long = "e" * LIMIT
    html = render_page(evil_page(progress=Progress({"failed": 1, "ok": 1}, [("run", long)]), resolved=long), None)
    assert "(4998000 more letters)" in html
    assert len(html.encode()) < 1_000_000


def test_a_long_table_is_cut_and_says_so() -> None:
    html = render_page(evil_page(tables=[Table("dose", frame(ROWS + 50), None)]), None)
    assert html.count("<tr><td>") - html.count("<tr><td>", 0, html.index('id="table-dose"')) == ROWS
    assert f"the first {ROWS} of {ROWS + 50} rows; tables/dose.csv has all." in html


def test_figures_are_images_and_those_without_room_are_named() -> None:
    figures = {"small": b"<svg/>", "huge": b"x" * 2_000_000, "other": b"<svg></svg>"}
    html = render_page(evil_page(figures=figures), None)
    assert [uri.partition(",")[0] for uri in Reader(html).links if uri.startswith("data:image")] == [
        "data:image/svg+xml;base64"
    ] * 2
    assert "drawn by <code>ablate figure</code>: huge." in html
    assert 'alt="Figure: small"' in html


def test_a_page_of_a_study_that_has_nothing_yet() -> None:
    nothing = evil_page(
        verdicts=[], main=[], controls=None, organisms=None, tables=[], figures={}, undrawn={},
        proof=Proof([], [], [], 0), progress=Progress({"missing": 4}, [], [("pool", 1, 4)]),
        refused={"verdict": "why", "fixed": "why"},
    )  # fmt: skip
    html = render_page(nothing, None)
    assert "0 of 4 runs have results, 4 missing." in html
    assert "<span>pool 1/4</span>" in html
    assert "No verdict yet: no run has results." in html
    assert "why" not in html
