"""Monte Carlo estimates of KL(q || p) from draws of q, in nats, with standard errors by cluster."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ablate.api import FloatArray
from ablate.errors import StudyError
from ablate.measures.closed_forms import at, count, kl_gaussian

Estimator = Literal["k1", "k2", "k3"]


class Estimate(NamedTuple):
    """A mean and its standard error, NaN below two clusters."""

    value: float
    se: float


def clustered_mean(values: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Estimate:
    """Mean over all values, with the standard error of clusters of rows drawn anew.

    se = sqrt(G / (G - 1) sum_g (sum_{i in g} (v_i - mean))^2) / N over the G clusters and N values: CR1, which
    is sd / sqrt(N) where every value is its own cluster. Oracle: statsmodels OLS with ``cov_type="cluster"``.

    Args:
        values: [P] or [P, K], one row a prompt.
        groups: cluster [P] of each row; each its own where None.
    """
    v = np.asarray(values, dtype=float)
    rows = len(v)
    if not v.size:
        raise StudyError(f"values has shape {v.shape}: there is nothing to average")
    labels = np.arange(rows) if groups is None else np.asarray(groups)
    if labels.shape != (rows,):
        raise StudyError(f"groups has shape {labels.shape} for {rows} rows: one cluster a row")
    mean = v.mean()
    of = np.unique(labels, return_inverse=True)[1]
    off = np.bincount(of, (v - mean).reshape(rows, -1).sum(1))
    clusters = len(off)
    se = np.sqrt(clusters / (clusters - 1) * (off**2).sum()) / v.size if clusters > 1 else np.nan
    return Estimate(float(mean), float(se))


def kl_mc(
    logq: npt.ArrayLike,
    logp: npt.ArrayLike,
    estimator: Estimator = "k1",
    *,
    groups: npt.ArrayLike | None = None,
    truncated: bool = False,
) -> Estimate:
    """KL(q || p) from log-probabilities of the same draws y ~ q under both; with r = p(y) / q(y) the mean of

    - ``k1``: -log r. Unbiased, single terms may be negative.
    - ``k2``: (log r)^2 / 2. Never negative, biased: small where q and p are close.
    - ``k3``: (r - 1) - log r. Never negative, and unbiased where E_q[r] = 1: where supp(p) is inside supp(q).

    Args:
        logq: log q(y), [N] or [P, K] with one row a prompt, of q as it was drawn from.
        logp: log p(y) of the same draws, the same shape.
        estimator: which.
        groups: cluster of each row for the standard error; each row its own where None.
        truncated: whether q was cut (top-p, top-k, greedy, a filter), so that it lacks answers that p has.

    Raises:
        StudyError: ``k3`` of a truncated q (it would be too small by the mass of p that q lacks), a draw that p
            cannot give (KL is infinite), NaN, shapes that differ.

    Source: Schulman, Approximating KL divergence, 2020.
    """
    if estimator not in get_args(Estimator):
        raise StudyError(f"{estimator!r} is no estimator of KL: {', '.join(get_args(Estimator))}")
    if estimator == "k3" and truncated:
        raise StudyError(
            "k3 needs supp(p) inside supp(q), and a truncated q lacks answers that p has: it would be too small by "
            "the mass of p there; k1 has no such condition"
        )
    log_r = _log_ratio(np.asarray(logq, dtype=float), np.asarray(logp, dtype=float))
    terms = -log_r if estimator == "k1" else log_r**2 / 2 if estimator == "k2" else np.expm1(log_r) - log_r
    return clustered_mean(terms, groups)


def kl_gaussian_mc(
    mu_q: float, var_q: float, mu_p: float, var_p: float, n: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """`kl_mc` by all three estimators for q = N(mu_q, var_q) and p = N(mu_p, var_p), from ``n`` draws of q.

    The exact value is `kl_gaussian`.

    Returns:
        ``Estimate(value, se)`` by ``"k1"``, ``"k2"``, ``"k3"``, of the same draws.
    """
    n = count("kl_gaussian_mc: n", n)
    kl_gaussian(mu_q, var_q, mu_p, var_p)  # refuses what is no variance
    y = rng.normal(mu_q, np.sqrt(var_q), n)
    logq, logp = (-((y - mu) ** 2) / (2 * var) - np.log(var) / 2 for mu, var in ((mu_q, var_q), (mu_p, var_p)))
    return {name: kl_mc(logq, logp, name) for name in get_args(Estimator)}


def _log_ratio(logq: FloatArray, logp: FloatArray) -> FloatArray:
    if logq.shape != logp.shape or logq.ndim == 0 or not logq.size:
        raise StudyError(f"logq has shape {logq.shape} and logp {logp.shape}: both hold the same draws, [N] or [P, K]")
    for name, array in (("logq", logq), ("logp", logp)):
        if np.isnan(array).any():
            raise StudyError(f"{at(name, np.isnan(array))} is NaN: a draw without a density has no KL")
    if np.isinf(logq).any():
        raise StudyError(f"{at('logq', np.isinf(logq))} is infinite: q cannot have drawn it")
    if np.isinf(logp).any():
        raise StudyError(
            f"{at('logp', np.isinf(logp))} is infinite: q drew what p cannot give, so KL(q || p) is infinite"
        )
    return logp - logq
