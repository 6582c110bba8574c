"""A comparison of two cubes as Markdown: what changed first, then the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from ablate.reports.table import render


def markdown(
    one: str,
    other: str,
    design: pd.DataFrame,
    keys: pd.DataFrame,
    effects: pd.DataFrame,
    verdicts: pd.DataFrame,
    notes: Sequence[str],
) -> str:
    """The four tables of a comparison under their headings; an empty one says what that means."""
    sections = [
        ("Design", design, "The same design."),
        ("Artifacts", keys, "The cubes have no content keys: what was shared is not known."),
        ("Effects", effects, "Neither swaps anything."),
        ("Verdicts", verdicts, "Neither has a verdict."),
    ]
    head = [f"# {_plain(one)} (A) and {_plain(other)} (B)", "", *(f"{_plain(_sentence(note))}\n" for note in notes)]
    body = [f"## {title}\n\n{render(frame).strip() if len(frame) else nothing}\n" for title, frame, nothing in sections]
    said = [
        f"- {_plain(row['behavior'])}\n  - A: {_plain(row['sentence_a'])}\n  - B: {_plain(row['sentence_b'])}"
        for row in verdicts.to_dict("records")
    ]
    return "\n".join([*head, *body, *said, ""] if said else [*head, *body])


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."


def _plain(text: str) -> str:
    """On one line, without what Markdown would read as a tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", "".join(c if c.isprintable() else " " for c in text))
