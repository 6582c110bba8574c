"""What tables and figures there are: the names that the command line, findings and figures share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

Table = Literal[
    "methods",
    "isolate",
    "fixed",
    "effects",
    "shares",
    "variance",
    "missing",
    "organisms",
    "price",
    "stability",
    "transmission",
    "dose",
    "mediation",
    "prediction",
]
Figure = Literal[
    "interaction",
    "organisms",
    "shares",
    "prediction",
    "dose",
    "eta",
    "diversity",
    "embedding",
    "scaling",
    "methods",
    "isolate",
]

SUFFIXES: Mapping[Literal["md", "latex", "csv"], str] = {"md": ".md", "latex": ".tex", "csv": ".csv"}
"""What a study writes of each table; other formats are made when they are asked for."""


def tables_of(folder: Path) -> Iterator[Path]:
    """Where the tables of a study's folder are written, whether or not they are there."""
    for kind in get_args(Table):
        yield from (folder / "tables" / f"{kind}{suffix}" for suffix in SUFFIXES.values())


def figures_of(folder: Path) -> Iterator[Path]:
    """Where its figures are written."""
    for kind in get_args(Figure):
        yield from (folder / "figures" / f"{kind}.{format}" for format in ("svg", "png", "pdf"))
