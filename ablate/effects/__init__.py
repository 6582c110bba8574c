"""Cubes to tables of numbers: contrasts, decomposition, tests and verdicts. No plotting, no YAML, no disk."""

from __future__ import annotations

from ablate.effects.contrasts import contrasts
from ablate.effects.controls import controls, organisms
from ablate.effects.decomposition import decomposition
from ablate.effects.intervals import Interval, t_interval, tost
from ablate.effects.signflip import SignFlip, sign_flip, smallest_p
from ablate.effects.tables import caption, fixed_table
from ablate.effects.verdict import Gate, Verdict, verdict

__all__ = [
    "Gate",
    "Interval",
    "SignFlip",
    "Verdict",
    "caption",
    "contrasts",
    "controls",
    "decomposition",
    "fixed_table",
    "organisms",
    "sign_flip",
    "smallest_p",
    "t_interval",
    "tost",
    "verdict",
]
