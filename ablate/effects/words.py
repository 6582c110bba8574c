"""How numbers are written in sentences and tables: pp with a sign and one decimal, p and shares without a leading 0."""

from __future__ import annotations

import math

from ablate.effects.intervals import Interval


def signed(value: float, decimals: int = 1) -> str:
    """``+2.1``, ``-17.9``, ``0.0`` (never ``-0.0``); ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def fraction(value: float, decimals: int = 2) -> str:
    """``.21``, ``-.03``, ``1.00``; ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        return f".{'0' * decimals}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def p_value(p: float) -> str:
    """``.031``, ``<.001``, ``1``; ``-`` for NaN."""
    if math.isnan(p):
        return "-"
    if p < 0.0005:
        return "<.001"
    return "1" if p >= 0.9995 else fraction(p, 3)


def p_equals(p: float) -> str:
    """``p = .031`` or ``p < .001``."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def effect(interval: Interval) -> str:
    """``-17.9 pp [-22.4, -13.4]``."""
    return f"{signed(interval.estimate)} pp {limits(interval)}".rstrip()


def share(interval: Interval, decimals: int = 2) -> str:
    """``.21 [.12, .33]``, or ``not identified``."""
    if math.isnan(interval.estimate):
        return "not identified"
    estimate, low, high = (fraction(value, decimals) for value in interval)
    return f"{estimate} [{low}, {high}]" if not math.isnan(interval.low) else estimate


def limits(interval: Interval) -> str:
    """``[-22.4, -13.4]``, empty where there are none."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]" if not math.isnan(interval.low) else ""


def count(number: int, noun: str) -> str:
    """``1 organism``, ``6 organisms``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
