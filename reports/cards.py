"""The model card and the data card of an export: renders facts, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = 60
"""Lines of a table that a card shows; the folder has all."""


def model_card(facts: Mapping[str, Any]) -> str:
    """The README.md of a folder of adapters."""
    return _rendered("model_card.jinja", facts)


def data_card(facts: Mapping[str, Any]) -> str:
    """The README.md of the labels, items and numbers of a study."""
    return _rendered("data_card.jinja", facts)


def cell(value: Any) -> str:
    """Text that stays in its cell of a Markdown table, and that is text: no markup of HTML."""
    flat = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return flat.replace("\\", "\\\\").replace("|", "\\|")


def shortened(table: str) -> str:
    """A Markdown table and its caption with at most `ROWS` lines of the table."""
    rows, _, caption = table.partition("\n\n")
    lines = rows.splitlines()
    cut = [*lines[:ROWS], "", f"{len(lines) - ROWS} more rows in `tables/`."] if len(lines) > ROWS else lines
    return "\n".join([*cut, "", caption]).strip()


def _rendered(template: str, facts: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # takes a while to import

    # Markdown, not HTML: what a person wrote stays as it is, what goes into a table is escaped by `cell`
    cards = Environment(
        loader=PackageLoader("ablate.reports", ""), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    cards.filters |= {"cell": cell, "shortened": shortened}
    return cards.get_template(template).render(facts).strip() + "\n"
