"""What tables and figures there are: the names that the command line, findings and figures share."""

from __future__ import annotations

from typing import Literal

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
