"""A report as one HTML file that asks the network for nothing: renders what it is given, computes nothing."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.effects import Verdict
from ablate.reports.table import render

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

LIMIT = 5_000_000
"""Bytes that a report stays below."""

FIGURE_ROOM = 1_500_000
"""Bytes that all figures of a report may take."""

SAMPLE_ROOM = 2_500_000
"""Bytes that all samples of a report may take."""

SLACK = 10_000
"""Bytes by which samples may miss their room before they are left out: they are counted part by part."""

SLOT = "\0samples\0"
"""Where samples go, once it is known what room is left; no text of a page has the letter 0."""

ROWS = 250
"""Rows of a table that are shown; a file of the study's folder has all."""

PROOF_ROWS = 1_000
"""Runs whose hashes are listed; the cube has all."""

SIZE = re.compile(rb'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"')
COLUMN_PX = 500
"""A figure that is wider than this takes both columns."""

UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Table:
    """A frame of `ablate.effects` with the facts of its caption (None: it needs none), under a title."""

    kind: str
    frame: pd.DataFrame
    facts: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        """What the table is called on the page."""
        return TITLES.get(self.kind, self.kind.replace("_", " ").capitalize())


@dataclass(frozen=True, slots=True)
class Proof:
    """What the hashes of the runs show: ``claims`` are (holds, sentence), ``runs`` one row each with the pool's place.

    ``columns`` name the levels of a run; a row has ``levels``, ``status``, ``pool``, ``labels``, ``train`` and
    ``span``: how many rows, from this one on, read the same pool (0 where an earlier row counts this one).
    """

    claims: Sequence[tuple[bool, str]]
    columns: Sequence[str]
    runs: Sequence[Mapping[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study got: ``counts`` are runs by status, ``errors`` (run, error), ``finished`` all that can be."""

    counts: Mapping[str, int]
    errors: Sequence[tuple[str, str]]
    stages: Sequence[tuple[str, int, int]] = ()  # kind, there, needed

    @property
    def total(self) -> int:
        """All runs of the design."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Runs that have results."""
        return self.counts.get("ok", 0) + self.counts.get("aliased", 0)


@dataclass(frozen=True, slots=True)
class Page:
    """All that a report says. ``tables`` are shown as they come: ``main`` open, the others to be opened."""

    name: str
    question: str
    subject: str
    limited: bool
    progress: Progress
    verdicts: Sequence[Verdict]
    refused: Mapping[str, str]
    main: Sequence[Table]
    controls: Table | None
    organisms: Table | None
    tables: Sequence[Table]
    figures: Mapping[str, bytes]  # SVG by kind
    undrawn: Mapping[str, str]  # what went wrong with a figure
    proof: Proof
    provenance: Sequence[tuple[str, str]]
    resolved: str


TITLES = {
    "fixed": "Every swap with all else held fixed",
    "effects": "Main effects and interactions",
    "methods": "What each method changes as a block",
    "isolate": "Which of a method's mechanisms does it",
    "controls": "Runs with a known answer",
    "organisms": "What each organism started from",
    "shares": "Shares of the effects and of the variance",
    "variance": "Sources of variance",
    "missing": "What missing runs could change",
    "price": "What shift and selection did to the labels' risk",
    "stability": "How far answers depend on the label shift",
    "transmission": "How much of the labels' change training passed on",
    "dose": "Whether the effect follows a dose",
    "mediation": "Mediation by a dose (model-based)",
    "prediction": "What labels alone predicted, before training",
}


DRAWN = {
    "interaction": "Change of risk in every cell",
    "organisms": "Every effect, organism by organism",
    "shares": "Shares of the effects and of the variance",
    "prediction": "What labels alone predicted, and what training did",
    "dose": "The effect against the divergence of the labels",
    "eta": "Misaligned candidates by their score: what a selector could do",
    "diversity": "How sure each prompt's answer is, before and after",
    "embedding": "The candidates of every label shift on one plane",
    "scaling": "The effect against the number of candidates",
    "methods": "What each method changes",
    "isolate": "Which of a method's mechanisms does it",
}


def render_page(page: Page, samples: Callable[[int], Any] | None, *, version: str = "") -> str:
    """The report as HTML of less than `LIMIT` bytes.

    ``samples`` gives those of `ablate.samples` that fit into so many bytes: what all else leaves, at most
    `SAMPLE_ROOM`. None: there are none to browse.

    A ``version`` makes it a page of `ablate view`: one that asks its own server, and nobody else, whether there is a
    newer version, and then replaces its parts.
    """
    style, script = _asset("report.css"), _asset("report.js")
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **({"connect-src": "'self'"} if version else {}),
    }
    figures, omitted = _fitting(page.figures)
    text = _template().render(
        page=page,
        version=version,
        policy="; ".join(f"{name} {source}" for name, source in policy.items()),
        style=_markup(style),
        script=_markup(script),
        data=SLOT if samples is not None else None,
        figures=figures,
        omitted=omitted,
        reasons=_reasons(page.refused),
        table=lambda table: _markup(_table(table)),
    )
    if samples is None:
        return text
    before, after = text.split(SLOT)
    room = min(LIMIT - SLACK - len(text.encode()), SAMPLE_ROOM)
    data = embedded(samples(room))
    return f"{before}{data if len(data.encode()) <= room + SLACK else 'null'}{after}"


def embedded(value: Any) -> str:
    """JSON that ends no ``<script>``, has no line ending of its own and is UTF-8 even with half a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _reasons(refused: Mapping[str, str]) -> list[tuple[str, str]]:
    """(tables, why there are none), those with one reason together; the verdict says its own."""
    kinds: dict[str, list[str]] = {}
    for kind, reason in refused.items():
        if kind != "verdict":
            kinds.setdefault(reason, []).append(kind)
    return [(", ".join(own), reason) for reason, own in kinds.items()]


def _table(table: Table) -> str:
    """The table in a container of its own that scrolls, reachable by keyboard."""
    frame = table.frame
    if len(frame) > ROWS:
        notes = [
            *frame.attrs.get("notes", []),
            f"the first {ROWS} of {len(frame)} rows; tables/{table.kind}.csv has all",
        ]
        attrs, frame = frame.attrs, frame.head(ROWS).copy()
        frame.attrs = {**attrs, "notes": notes}
    opened = f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {table.title}">\n<table>'
    html = render(frame, table.facts, "html")
    return html.replace("<table>", opened, 1).replace("</table>", "</table>\n</div>", 1)


def _cut(text: str, letters: int) -> str:
    """The beginning of a text that may quote anything, an answer of ten million letters too."""
    return text if len(text) <= letters else f"{text[:letters]} ... ({len(text) - letters} more letters)"


class _Image(NamedTuple):
    kind: str
    uri: str
    width: int  # pixels of CSS
    height: int
    wide: bool

    @property
    def title(self) -> str:
        """What the figure shows, in words."""
        return DRAWN.get(self.kind, self.kind.replace("_", " ").capitalize())


def _fitting(figures: Mapping[str, bytes]) -> tuple[list[_Image], list[str]]:
    """The SVG drawings that fit, and the kinds of those that do not.

    As images they can run nothing and load nothing, whatever a level's name puts into them.
    """
    shown, omitted, room = [], [], FIGURE_ROOM
    for kind, svg in figures.items():
        uri = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
        if len(uri) > room:
            omitted.append(kind)
            continue
        room -= len(uri)
        size = SIZE.search(svg)
        width, height = (round(float(points) * 4 / 3) for points in size.groups()) if size else (480, 300)
        shown.append(_Image(kind, uri, width, height, width > COLUMN_PX))
    return shown, omitted


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return files("ablate.reports").joinpath(name).read_text(encoding="utf-8")


def _markup(html: str) -> Any:
    from markupsafe import Markup

    return Markup(html)


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["cut"] = _cut
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment.from_string(_asset("report.html.jinja"))
