"""Variance components of a long data frame: by restricted or full likelihood, or by expected mean squares."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from ablate.api import FloatArray
from ablate.effects.design import Design
from ablate.effects.ems import expected_mean_squares
from ablate.effects.frames import Factor, Rows, Term, listing, parse, usable, wording
from ablate.effects.mixed import Likelihood, fit, limits
from ablate.errors import StudyError

RESIDUAL = "residual"
RISE = 3.841458820694124
"""The .95 quantile of chi-square with one degree of freedom."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Variances with limits, the residual last; coefficients on the design's orthonormal columns."""

    variance: FloatArray
    low: FloatArray
    high: FloatArray
    beta: FloatArray
    covariance: FloatArray
    attrs: dict[Hashable, Any]


def variance_components(
    frame: pd.DataFrame,
    response: str,
    fixed: Sequence[str],
    random: Sequence[str],
    method: Literal["reml", "ml", "ems"] = "reml",
) -> pd.DataFrame:
    """How much of the variance of ``response`` comes from each random term, and how much is left.

    Model: response = X beta + sum_i Z_i u_i + e, u_i ~ N(0, variance_i) for each level of random term i, all
    independent. Random terms may be crossed or nested, the data unbalanced or incomplete.

    Args:
        frame: one row for each observation. Rows without a response are left out and counted in ``attrs``.
        response: a numeric column.
        fixed: columns and interactions ("a:b"); the intercept is always in. A numeric column is a covariate, as in R
            (to make levels of numbers, convert them to text first); any other is a factor in treatment coding.
        random: columns and interactions ("batch:cask"); a column of any type is taken as labels.
        method: "reml" maximizes the restricted likelihood over variances >= 0 (one on the boundary is exactly 0); "ml"
            the full likelihood, which is biased down; "ems" solves the expected mean squares of balanced data, which
            is unbiased and may be negative (`ablate.effects.ems`).

    Returns:
        One row for each random term and a last one, "residual": ``term``; ``variance`` in squared units of the
        response; ``share`` = variance / sum of variances; ``low``, ``high``, a 95% interval of the variance. For "reml"
        and "ml" that is the square of the profile likelihood interval of the standard deviation, where the deviance,
        minimized over everything else, is at most 3.841 above its minimum, each method with its own deviance. (lme4's
        ``confint`` profiles the "ml" deviance of REML fits too; with 4 and 6 organisms those limits covered 85-91% in
        simulation, those of "reml" 94-96%.) For "ems": modified large-sample limits (`ablate.effects.ems.limits`),
        which may be negative; they covered 94-97%.

        ``attrs``: ``method``, ``n`` rows used, ``dropped`` rows, ``levels`` of each random term; ``beta``, ``se`` and
        ``covariance`` of the fixed effects by name (generalized least squares at the variances); ``criterion``, lme4's
        REML criterion or -2 log likelihood, NaN for "ems", which has ``mean_squares`` and ``df`` by term instead.

    Raises:
        StudyError: what the data lack: an unknown column, an unusable response, a random term with one level or with
            one row a level, terms that cannot be told apart, aliased fixed effects, no residual, unbalanced data for
            "ems".

    Source: Bates, Maechler, Bolker, Walker 2015 (J. Stat. Softw. 67(1)), the criterion and its profile; Searle,
    Casella, McCulloch 1992, section 6.6, the derivatives.
    """
    if method not in ("reml", "ml", "ems"):
        raise StudyError(f"method '{method}' is none of reml, ml, ems")
    fixed_terms, random_terms = parse(fixed, frame), parse(random, frame)
    rows = usable(frame, response, [column for term in (*fixed_terms, *random_terms) for column in term])
    groups = _groups(rows, random_terms)
    design = Design.of(rows, fixed_terms)
    rest, beta = design.center(rows)
    # The likelihood knows the response in units of its own spread: no scale is too large or too small for it.
    spread = float(np.sqrt(rest @ rest / (len(rest) - len(design.names))))
    model = Likelihood.of(rest / spread, design.q, list(groups.values()), restricted=True)
    _identifiable(model, list(groups))
    if method == "ems":
        found = _balanced(rows, groups, design)
    else:
        found = _likeliest(model if method == "reml" else replace(model, restricted=False), spread * rows.unit, design)
    coefficients, covariance = design.coefficients(rows.unit * beta + found.beta, found.covariance)
    coefficients[0] += rows.pivot
    total = found.variance.sum()
    table = pd.DataFrame(
        {
            "term": [*groups, RESIDUAL],
            "variance": found.variance,
            "share": found.variance / (total if total > 0 else np.nan),
            "low": found.low,
            "high": found.high,
        }
    )
    squares = np.diag(covariance)
    table.attrs = {
        "method": method,
        "n": len(rows.y),
        "dropped": rows.dropped,
        "levels": {name: group.size for name, group in groups.items()},
        "beta": dict(zip(design.names, coefficients.tolist(), strict=True)),
        "se": dict(zip(design.names, np.sqrt(np.where(squares >= 0, squares, np.nan)).tolist(), strict=True)),
        "covariance": {
            name: dict(zip(design.names, line, strict=True))
            for name, line in zip(design.names, covariance.tolist(), strict=True)
        },
        **found.attrs,
    }
    return table


def _likeliest(model: Likelihood, unit: float, design: Design) -> Fit:
    best, square = fit(model), unit**2
    low, high = square * np.array([limits(model, best, i, RISE) for i in range(len(best.variances))]).T
    criterion = best.deviance + model.degrees * np.log(2 * np.pi * square) + model.restricted * design.log_det
    covariance = square * best.covariance
    return Fit(square * best.variances, low, high, unit * best.beta, covariance, {"criterion": float(criterion)})


def _balanced(rows: Rows, groups: Mapping[str, Factor], design: Design) -> Fit:
    numeric = [column for term in design.terms for column in term if rows.is_numeric(column)]
    if numeric:
        raise StudyError(
            f"expected mean squares need factors, and '{numeric[0]}' is numeric: convert it to text, or use "
            "method='reml'"
        )
    found = expected_mean_squares(
        rows.unit * rows.y, {wording(term): rows.factor(term) for term in design.terms}, groups
    )
    covariance = found.variance[-1] * np.eye(len(design.names))
    for variance, group in zip(found.variance, groups.values(), strict=False):
        sums = np.zeros((group.size, len(design.names)))
        np.add.at(sums, group.codes, design.q)
        covariance = covariance + variance * sums.T @ sums
    names = found.strata.names
    attrs: dict[Hashable, Any] = {
        "criterion": np.nan,
        "mean_squares": dict(zip(names, found.strata.mean_square.tolist(), strict=True)),
        "df": dict(zip(names, found.strata.df.astype(int).tolist(), strict=True)),
    }
    # In balanced data ordinary least squares is generalized least squares: nothing to add to the coefficients.
    return Fit(found.variance, found.low, found.high, np.zeros(len(design.names)), covariance, attrs)


def _groups(rows: Rows, terms: Sequence[Term]) -> dict[str, Factor]:
    if not terms:
        raise StudyError("random: name at least one term")
    groups = {wording(term): rows.factor(term) for term in terms}
    n = len(rows.y)
    for name, group in groups.items():
        if name == RESIDUAL:
            raise StudyError(f"random term '{RESIDUAL}': rename the column, the last row of the table has this name")
        if group.size < 2:
            raise StudyError(f"random term '{name}' has one level ('{':'.join(group.levels[0])}'): it needs at least 2")
        if group.size == n:
            raise StudyError(
                f"random term '{name}' has one row a level ({n} levels, {n} rows), so its variance is confounded with "
                "the residual: leave the term out, or bring several rows a level"
            )
    return groups


def _identifiable(model: Likelihood, groups: Sequence[str]) -> None:
    """Refuses terms whose covariance matrices, fixed effects projected out, are linearly dependent.

    These inner products tr(M V_i M V_j) are the expected information at the point where only the residual varies.
    """
    names = [*groups, RESIDUAL]
    products = model.at(np.eye(len(names))[-1]).expected
    for name, trace in zip(groups, products[-1], strict=False):
        if trace <= 1e-9 * products[-1, -1]:
            raise StudyError(f"random term '{name}' is aliased with the fixed effects: its levels differ as they do")
    unit = 1 / np.sqrt(np.diag(products))
    values, vectors = np.linalg.eigh(products * unit[:, None] * unit)
    if values[0] < 1e-9:
        alike = [f"'{name}'" for name, part in zip(names, vectors[:, 0], strict=True) if abs(part) > 1e-3]
        raise StudyError(
            f"the variances of {listing(alike)} cannot be told apart in these rows, given the fixed effects: leave one "
            "of these terms out"
        )
