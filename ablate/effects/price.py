"""Closed decompositions of a difference of two means: Price (shift and selection), Kitagawa (rates and weights)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.errors import StudyError

TOLERANCE = 1e-9
"""How far the sum of a distribution may be from 1."""


def price_terms(p: npt.ArrayLike, q: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike) -> dict[str, float]:
    """Price equation from p to the selection s of q by weights, s = w q / E_q[w], for an outcome b.

    All expectations are over a prompt x, uniform, then an answer y. With several prompts, weights that differ
    between prompts select prompts too; give rows of w with E_q[w | x] = 1 where a selector takes one answer of each.

    Args:
        p: answers before, [X, Y] with rows that sum to 1, or [Y] for one prompt.
        q: answers proposed, the same shape.
        w: selection weight of each answer, nonnegative, of any scale, the same shape.
        b: outcome of each answer, the same shape.

    Returns:
        - ``m_p, m_q, m_s``: mean outcomes; ``m_ps`` that of p selected by the same w (NaN where E_p[w] = 0).
        - ``shift_term`` m_q - m_p and ``selection_term`` Cov_q(w, b) / E_q[w], which sum to m_s - m_p (<= 1e-12).
        - ``shift_shapley, selection_shapley``: the mean over both orders, of shift before selection and after;
          they sum to m_s - m_p too.
        - ``interaction``: m_s - m_q - m_ps + m_p. The last three are NaN with m_ps.

    Raises:
        StudyError: shapes that differ, rows that are no distribution, weights that are none, b not finite, or
            E_q[w] = 0.

    Source: Price, Selection and covariance, Nature 227, 1970; Shorrocks, 2013, for the order-free terms.
    """
    tables = {name: np.asarray(values, dtype=float) for name, values in (("p", p), ("q", q), ("w", w), ("b", b))}
    shapes = {name: table.shape for name, table in tables.items()}
    if len(set(shapes.values())) > 1 or tables["p"].ndim not in (1, 2) or not tables["p"].size:
        raise StudyError(f"price_terms: p, q, w and b have one shape, [X, Y] or [Y]: {shapes}")
    before, proposed, weight, outcome = (np.atleast_2d(table) for table in tables.values())
    before, proposed = _joint("p", before), _joint("q", proposed)
    if not ((weight >= 0) & (weight < np.inf)).all():
        raise StudyError("price_terms: w is finite and >= 0; leave out what has no weight")
    if not np.isfinite(outcome).all():
        raise StudyError("price_terms: b is finite; leave out what cannot be judged, in p and q too")
    mean_w = (proposed * weight).sum()
    if mean_w == 0:
        raise StudyError("price_terms: E_q[w] = 0, nothing is selected")
    m_p, m_q, m_s = (before * outcome).sum(), (proposed * outcome).sum(), (proposed * weight * outcome).sum() / mean_w
    selection = (proposed * (weight - mean_w) * (outcome - m_q)).sum() / mean_w
    mean_w_p = (before * weight).sum()
    m_ps = (before * weight * outcome).sum() / mean_w_p if mean_w_p > 0 else np.nan
    terms = {
        "m_p": m_p,
        "m_q": m_q,
        "m_s": m_s,
        "m_ps": m_ps,
        "shift_term": m_q - m_p,
        "selection_term": selection,
        "shift_shapley": ((m_q - m_p) + (m_s - m_ps)) / 2,
        "selection_shapley": ((m_s - m_q) + (m_ps - m_p)) / 2,
        "interaction": m_s - m_q - m_ps + m_p,
    }
    return {name: float(value) for name, value in terms.items()}


def kitagawa(
    rates_a: npt.ArrayLike, weights_a: npt.ArrayLike, rates_b: npt.ArrayLike, weights_b: npt.ArrayLike
) -> dict[str, float]:
    """How much of the difference of two crude rates, b minus a, is of their rates and how much of their composition.

    A crude rate is R = sum_i w_i r_i over strata i, weights scaled to sum to 1 (percentages will do).

    Args:
        rates_a: rate of each stratum in population a, [I], in the unit of the result.
        weights_a: size of each stratum in a, [I], nonnegative.
        rates_b: in population b.
        weights_b: in population b.

    Returns:
        - ``rate_a, rate_b, total``: R_a, R_b, R_b - R_a.
        - ``rate_effect`` sum (w_a + w_b) / 2 (r_b - r_a) and ``composition_effect`` sum (r_a + r_b) / 2 (w_b - w_a):
          symmetric, without interaction; ``rate_share, composition_share`` of the total, NaN where it is 0.
        - three-fold, from a: ``rate_at_a`` sum w_a (r_b - r_a), ``composition_at_a`` sum r_a (w_b - w_a),
          ``interaction`` sum (r_b - r_a) (w_b - w_a). Both forms sum to the total.

    Raises:
        StudyError: other numbers of strata, not finite, weights that are negative or all 0.

    Source: Kitagawa, JASA 50, 1955; Das Gupta, Standardization and decomposition of rates, 1993, example 5.1.
    """
    names = ("rates_a", "weights_a", "rates_b", "weights_b")
    arrays = [np.asarray(values, dtype=float) for values in (rates_a, weights_a, rates_b, weights_b)]
    for name, array in zip(names, arrays, strict=True):
        if array.shape != arrays[0].shape or array.ndim != 1 or not array.size:
            raise StudyError(f"kitagawa: {name} has shape {array.shape}: one entry a stratum, the same in all four")
        if not np.isfinite(array).all():
            raise StudyError(f"kitagawa: {name}[{np.argmin(np.isfinite(array))}] is not finite")
        if name.startswith("weights") and (array.min() < 0 or array.sum() == 0):
            raise StudyError(f"kitagawa: {name} is negative or all 0: the sizes of the strata")
    r_a, size_a, r_b, size_b = arrays
    w_a, w_b = size_a / size_a.sum(), size_b / size_b.sum()
    rates, weights = r_b - r_a, w_b - w_a
    rate_effect, composition_effect = (w_a + w_b) @ rates / 2, (r_a + r_b) @ weights / 2
    total = w_b @ r_b - w_a @ r_a
    # Where nothing differs, rounding is no total.
    rounding = max(1e-12 * np.abs(np.concatenate([r_a, r_b])).max(), np.finfo(float).tiny)
    share = 1 / total if abs(total) > rounding else np.nan
    terms = {
        "rate_a": w_a @ r_a,
        "rate_b": w_b @ r_b,
        "total": total,
        "rate_effect": rate_effect,
        "composition_effect": composition_effect,
        "rate_share": rate_effect * share,
        "composition_share": composition_effect * share,
        "rate_at_a": w_a @ rates,
        "composition_at_a": r_a @ weights,
        "interaction": rates @ weights,
    }
    return {name: float(value) for name, value in terms.items()}


def _joint(name: str, rows: FloatArray) -> FloatArray:
    """Probabilities of prompt and answer, [X, Y], that sum to 1 exactly, or the terms would not close."""
    if not (rows >= 0).all():
        raise StudyError(f"price_terms: {name} has negative entries or NaN, so it is no distribution")
    off = np.abs(rows.sum(1) - 1) > TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise StudyError(
            f"price_terms: row {row} of {name} sums to {rows[row].sum():.10g}, not to 1 within {TOLERANCE:g}"
        )
    return np.asarray(rows / rows.sum(1, keepdims=True) / len(rows))
