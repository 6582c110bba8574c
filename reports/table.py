"""Tables of numbers as text (Markdown, LaTeX, HTML, CSV): renders what `ablate.effects` computed, computes nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

import pandas as pd

from ablate.effects import words
from ablate.errors import StudyError, did_you_mean
from ablate.reports.layouts import Column, Row, layout

Format = Literal["md", "latex", "html", "csv"]


def render(frame: pd.DataFrame, caption: Mapping[str, Any] | None = None, format: Format = "md") -> str:
    """A frame of `ablate.effects.contrasts`, `fixed_table` or `decomposition` as text that ends in a newline.

    ``md`` is a pipe table with the caption below. ``latex`` is a ``table`` environment in booktabs style that
    compiles with or without the package. ``html`` is a ``figure`` of a ``table`` with numbers of class
    ``number``, for any page. Behaviors and organisms that the frame had to leave out
    (``.attrs``) are named below it. ``csv`` is the frame itself in full precision, hashes included,
    without a caption. ``caption`` holds the facts of `ablate.effects.caption`; without them it is the methods alone.
    Facts of the frame's own (``.attrs["facts"]``) go before those of the cube.

    Raises:
        StudyError: another format, or a frame with no layout of its own.
    """
    writers = {"md": _markdown, "latex": _latex, "html": _html}
    if format == "csv":
        return str(frame.to_csv(index=False, lineterminator="\n"))
    if format not in writers:
        known = [*writers, "csv"]
        raise StudyError(f"no table format '{format}'{did_you_mean(format, known)}; known: {', '.join(known)}")
    columns = layout(frame)
    rows = [[column.cell(cast(Row, row)) for column in columns] for row in frame.to_dict("records")]
    notes = [*frame.attrs.get("notes", []), *frame.attrs.get("refused", {}).values()]
    methods = frame.attrs.get("methods", "")
    facts = frame.attrs.get("facts", {})
    text = caption_text({**caption, **facts}, methods) if caption is not None else f"{methods}." if methods else ""
    return writers[format](columns, rows, " ".join([text, *(f"{note}." for note in notes)]))


def caption_text(facts: Mapping[str, Any], methods: str = "") -> str:
    """The facts below a table: the data and the methods, what could not be judged, what is left out."""
    data = [words.count(facts["runs"], "run"), *(_organisms(facts)), words.count(facts["seeds"], "training seed")]
    if facts.get("items"):
        data.append(
            f"{_items(facts['items'])} items" + (f" x {facts['evaluation']}" if facts.get("evaluation") else "")
        )
    sources = [f"ablate {facts['version']}"]
    sources += [f"study {facts['digest'][:6]}"] if facts.get("digest") else []
    sources += [f"pools {facts['pools']} (hash per row in the CSV)"] if facts.get("pools") else []
    lines = [f"{'; '.join(part for part in (', '.join(data), methods, ', '.join(sources)) if part)}."]
    if facts.get("unparsed") and max(facts["unparsed"].values()) > 0:
        shares = (f"{100 * share:.0f}% {when} training" for when, share in facts["unparsed"].items())
        lines.append(f"Risk is over judged answers; not judged: {', '.join(shares)}.")
    if left := _left_out(facts):
        lines.append(f"Left out or shared: {'; '.join(left)}.")
    if facts.get("limited"):
        lines.append("Limited study: not a result.")
    return " ".join(lines)


def _organisms(facts: Mapping[str, Any]) -> list[str]:
    counts: Mapping[str, int] = facts["organisms"]
    seeds = facts.get("induction_seeds") or []
    which = f" (induction seeds {_ranges(seeds)})" if seeds else ""
    if len(counts) == 1:
        return [words.count(next(iter(counts.values())), "organism") + which]
    return [", ".join(f"{words.count(n, 'organism')} of {behavior}" for behavior, n in counts.items()) + which]


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    left = []
    if facts["invalid"]:
        left.append(f"{words.count(len(facts['invalid']), 'organism')} not valid ({', '.join(facts['invalid'])})")
    for key, what in (
        ("failed", "failed"),
        ("blocked", "blocked"),
        ("missing", "missing"),
        ("unjudged", "without a risk"),
    ):
        if facts[key]:
            left.append(f"{words.count(facts[key], 'run')} {what}")
    if facts["aliased"]:
        left.append(f"{words.count(facts['aliased'], 'run')} aliased (identical labels)")
    return left


def _items(items: Any) -> str:
    if not isinstance(items, Mapping):
        return str(items)
    several = len(items) > 1
    return ", ".join(f"{count} {name}" if several else str(count) for name, count in items.items())


def _ranges(numbers: list[Any]) -> str:
    whole = all(isinstance(n, int) for n in numbers)
    if whole and len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _markdown(columns: list[Column], rows: list[list[str]], caption: str) -> str:
    table = [[column.header for column in columns], *([_escape_markdown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    rule = [
        "-" * (width - 1) + ":" if column.right else "-" * width for column, width in zip(columns, widths, strict=True)
    ]
    lines = [
        "| "
        + " | ".join(_pad(cell, width, column.right) for cell, width, column in zip(line, widths, columns, strict=True))
        + " |"
        for line in [table[0], rule, *table[1:]]
    ]
    return "\n".join([*lines, "", _escape_markdown(caption), ""])


def _pad(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _escape_markdown(text: str) -> str:
    """One line whose pipes, tags and emphasis are letters; ``->``, ``<.001`` and ``label_shift`` stay readable."""
    plain = _one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("`", "\\`")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", plain))


def _html(columns: list[Column], rows: list[list[str]], caption: str) -> str:
    def line(cells: list[str], tag: str) -> str:
        kinds = (' class="number"' if column.right else "" for column in columns)
        marked = zip(cells, kinds, strict=True)
        return f"<tr>{''.join(f'<{tag}{kind}>{html.escape(_one_line(cell))}</{tag}>' for cell, kind in marked)}</tr>"

    head = line([column.header for column in columns], "th").replace("<th", '<th scope="col"')
    body = "\n".join(line(row, "td") for row in rows)
    note = html.escape(_one_line(caption))
    return (
        f"<figure>\n<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"<figcaption>{note}</figcaption>\n</figure>\n"
    )


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
}


def _latex(columns: list[Column], rows: list[list[str]], caption: str) -> str:
    # Rules fall back to \hline, so the file compiles in any document; \usepackage{booktabs} makes them finer, and with
    # \usepackage{graphicx} a table that is wider than the text shrinks to it.
    rules = [rf"\providecommand{{\{name}rule}}{{\hline}}" for name in ("top", "mid", "bottom")]
    align = "".join("r" if column.right else "l" for column in columns)
    fitted = (
        r"\ifdim\wd0>\linewidth\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi\else\usebox0\fi"
    )
    return "\n".join(
        [
            *rules,
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\sbox0{{\begin{{tabular}}{{@{{}}{align}@{{}}}}",
            r"\toprule",
            _latex_line([column.header for column in columns]),
            r"\midrule",
            *(_latex_line(row) for row in rows),
            r"\bottomrule",
            r"\end{tabular}}",
            fitted,
            rf"\caption{{{_escape_latex(caption)}}}",
            r"\end{table}",
            "",
        ]
    )


def _latex_line(cells: list[str]) -> str:
    return " & ".join(_escape_latex(cell) for cell in cells) + r" \\"


def _escape_latex(text: str) -> str:
    arrows = re.split(r"(->)", _one_line(text))
    escaped = (
        "".join(_LATEX.get(letter, letter) for letter in part) if part != "->" else r"$\rightarrow$" for part in arrows
    )
    # A minus before a number is a minus, not a hyphen.
    return re.sub(r"(?<![\w.\-])-(?=\.?\d)", "$-$", "".join(escaped))


def _one_line(text: str) -> str:
    """Control characters and line breaks as single blanks."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
