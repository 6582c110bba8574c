"""The bars of a verdict unless a study sets others: those of its `analysis` section and of `ablate.effects.verdict`."""

from __future__ import annotations

ALPHA = 0.05
"""Level of every test."""

EQUIVALENCE_PP = 5.0
"""An effect within +- so many percentage points is none."""

SHARE_BAR = 0.5
"""A cause carries more than this share of the effects together."""

INTERACTION_SHARE = 0.1
"""An interaction below this share is none."""
