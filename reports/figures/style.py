"""How every figure looks: sizes, colors that stay apart without color, names as plain text, captions, panels."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation

from ablate.effects import words
from ablate.effects.block import describe
from ablate.errors import StudyError, did_you_mean

Format = Literal["svg", "png", "pdf"]
FORMATS: Mapping[Format, Mapping[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": "ablate"}},
    "png": {"metadata": {"Software": "ablate"}, "dpi": 200},
    "pdf": {"metadata": {"CreationDate": None, "Creator": "ablate", "Producer": None}},
}
"""What is written into a file of each format: no date and no version of a library, so that bytes repeat."""

SINGLE, DOUBLE = 3.5, 7.2
"""Widths of a figure in one and in two columns of a page, inches."""
POINT = 1 / 72
LETTER = 4.2
"""Width of a letter of the small texts, points; a wide one is wider."""
BESIDE = 1.03
"""Where the names of lines begin, widths of the axes."""
PANELS = 12
"""Panels that one figure has at most; its caption says how many there would be."""

COLORS = ("#000000", "#00458c", "#a33c0a", "#209377", "#d488ba", "#f2b830")
"""Hues as Okabe and Ito choose them, on a ladder of lightness, so that they differ in grayscale too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
GRAY, FAINT = "#6b6b6b", "#c9c9c9"
"""Of what accompanies the data, and of what stands behind it."""

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a name may hold dollar signs
    "text.usetex": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ablate",
    "pdf.fonttype": 42,  # fonts are embedded whole
    "pdf.use14corefonts": False,
}


class Drawing(Figure):
    """A figure that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        return save(self, "png")


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib as the figures need it, as it was before afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # it is drawn as a box
        yield


def save(figure: Figure, format: Format) -> bytes:
    """A figure as a file: the same bytes for the same figure.

    SVG keeps text as text, PDF embeds its fonts, PNG has 200 dots an inch.

    Raises:
        StudyError: another format.
    """
    if format not in FORMATS:
        raise StudyError(f"no figure format '{format}'{did_you_mean(format, FORMATS)}; known: {', '.join(FORMATS)}")
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format=format, **FORMATS[format])
    return file.getvalue()


def look(place: int) -> dict[str, Any]:
    """Color, marker and line of the series at ``place``: after the colors repeat, marker and line still differ."""
    hollow = (place // len(COLORS)) % 2
    color = COLORS[place % len(COLORS)]
    return {
        "color": color,
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place % len(LINES)],
        "markerfacecolor": "white" if hollow else color,
    }


# Names


def plain(name: object) -> str:
    """A name on one line, without control characters."""
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", str(name)).strip() or "(no name)"


def wrapped(name: object, width: int = 22, lines: int = 4) -> str:
    """A name on lines of at most ``width`` letters, broken after blanks and punctuation where possible.

    What is longer than ``lines`` of them loses its middle.
    """
    text = plain(name)
    most = width * lines - lines * 2
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
    found = [""]
    for part in re.findall(r"[^\s_,:/(=-]*[\s_,:/(=-]?", text):
        while len(found[-1]) + len(part.rstrip()) > width:
            if found[-1].strip():
                found.append("")
            else:
                found[-1], part = part[:width], part[width:]
                found.append("")
        found[-1] += part
    return "\n".join(line.strip() for line in found if line.strip())


# Panels and captions


def facets(frame: pd.DataFrame, first: str) -> list[tuple[str, pd.DataFrame]]:
    """A table split by the columns that stand before ``first``, each part with a title that says what is its own."""
    keys = list(frame.columns[: frame.columns.get_loc(first)])
    parts = list(frame.groupby(keys, sort=False, dropna=False))
    told = [key for key in keys if frame[key].nunique() > 1]
    return [(", ".join(_told(key, part) for key in told), part) for _, part in parts]


def _told(key: str, part: pd.DataFrame) -> str:
    value = plain(part[key].iloc[0])
    return value if key in ("behavior", "method") else f"{plain(key)} = {value}"


def left_out(frame: pd.DataFrame, total: int = 0) -> list[str]:
    """Sentences of what a table says it lacks: organisms and runs, behaviors refused, panels beyond `PANELS`."""
    out = []
    for behavior, counts in frame.attrs.get("counts", {}).items():
        parts = [f"{words.count(counts['invalid'], 'organism')} not valid"] if counts["invalid"] else []
        if (lost := describe(counts)) != "nothing left out":
            parts.append(lost)
        if parts:
            out.append(f"Left out ({plain(behavior)}): {', '.join(parts)}.")
    out += [f"{plain(note)}." for note in (*frame.attrs.get("notes", []), *frame.attrs.get("refused", {}).values())]
    if total > PANELS:
        out.append(f"The first {PANELS} of {total} panels.")
    return out


def among(counts: Sequence[int] | pd.Series) -> str:
    """``6 organisms``, or ``5 to 6 organisms``, of the counts that are not 0."""
    found = sorted({int(count) for count in counts if count > 0}) or [0]
    return words.count(found[-1], "organism") if len(found) == 1 else f"{found[0]} to {found[-1]} organisms"


def intervals(counts: Sequence[int] | pd.Series, what: str = "95% t interval") -> str:
    """What the bars are: ``95% t interval, 6 organisms``; with one organism there are none."""
    return f"no interval, {among(counts)}" if max(counts, default=0) < 2 else f"{what}, {among(counts)}"


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Drawing, list[Axes]]:
    """A figure of ``width`` x ``height`` inches with axes row by row; call it and all that draws within `styled`."""
    figure = Drawing(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def finish(figure: Drawing, caption: Sequence[str]) -> Figure:
    """The figure with a caption below, laid out once and for all."""
    width, height = figure.get_size_inches()
    text = textwrap.fill(" ".join(caption), int(width * 22), break_on_hyphens=False)
    figure.set_size_inches(width, height + 8 * POINT * (text.count("\n") + 1))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=5.5, color=GRAY, linespacing=1.25)
    engine = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04)
    engine.execute(figure)
    for ax in figure.axes:
        _spread(ax)
    return figure


def ended(ax: Axes, x: float, y: float, name: str, color: str) -> None:
    """The name of a line beside its end, right of the axes; `finish` moves names apart and ties them to their ends."""
    look: Any = {"color": color, "va": "center", "fontsize": 6.5, "annotation_clip": False}
    ax.annotate(name, (x, y), xytext=(BESIDE, 0.5), textcoords="axes fraction", **look)


def _spread(ax: Axes) -> None:
    """Names of `ended` apart from each other, as near to their lines as they can be, with a thin line to each."""
    names = [text for text in ax.texts if isinstance(text, Annotation)]
    points = ax.get_window_extent().height / ax.get_figure(root=True).dpi / POINT  # type: ignore[union-attr]
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = [to_axes.transform(name.xy) for name in names]
    order = np.argsort([end[1] for end in ends], kind="stable")
    names, ends = [names[i] for i in order], [ends[i] for i in order]
    at = [float(end[1]) for end in ends]
    tall = [1.25 * float(name.get_fontsize()) * (name.get_text().count("\n") + 1) / points for name in names]
    for _ in range(200):
        short = [(tall[i] + tall[i + 1]) / 2 - (at[i + 1] - at[i]) for i in range(len(at) - 1)]
        if max(short, default=0) < 1e-4:
            break
        for i, gap in enumerate(short):
            if gap > 0:
                at[i] -= gap / 2
                at[i + 1] += gap / 2
    for name, end, height in zip(names, ends, at, strict=True):
        name.set_position((BESIDE, height))
        tie: Any = {"transform": ax.transAxes, "color": name.get_color(), "linewidth": 0.4, "clip_on": False}
        ax.plot([end[0], BESIDE - 0.01], [end[1], height], zorder=1, **tie)


def zero(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """The line of no effect."""
    (ax.axhline if axis == "y" else ax.axvline)(0, color=GRAY, linewidth=0.6, zorder=0)


def level_names(ax: Axes, names: Sequence[object], inches: float) -> float:
    """Names of levels below the ticks of x, on axes about ``inches`` wide: wrapped, or turned where they do not fit.

    Returns the height that they take beyond a single line, inches.
    """
    letters = int(inches / len(names) / POINT / LETTER)
    texts = [wrapped(name, max(letters, 6), 3) for name in names]
    if all(len(line) <= letters for text in texts for line in text.split("\n")) and not any("…" in t for t in texts):
        ax.set_xticklabels(texts)
        return 8 * POINT * max(text.count("\n") for text in texts)
    texts = [wrapped(name, 30, 2) for name in names]
    ax.set_xticklabels(texts, rotation=40, ha="right", rotation_mode="anchor")
    return 0.65 * LETTER * POINT * max(len(line) for text in texts for line in text.split("\n"))
