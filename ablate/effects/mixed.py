"""The Gaussian likelihood of y = Q beta + sum_i Z_i u_i + e, u_i ~ N(0, v_i I), e ~ N(0, v_e I).

A point of the likelihood comes with its exact first and second derivatives in the variances v = (v_1, ..., v_k, v_e),
so that a fit is a handful of Newton steps (`fit`), and so is each limit of a profile interval (`limits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablate.api import FloatArray, IntArray
from ablate.effects.crossproducts import Stack, Sums, solve, stacks, sums_of
from ablate.effects.frames import Factor
from ablate.errors import StudyError

STEPS = 200
NEGLIGIBLE = 1e-12
"""A residual variance below this part of the variance at the start is rounding."""
SPENT = 1e-4
"""With fewer residual degrees of freedom than this, the derivatives in the residual variance are rounding."""
NO_RESIDUAL = (
    "the residual variance is 0: the fixed and random terms fit every row exactly, which leaves no residual degrees of "
    "freedom or no residual differences"
)


@dataclass(frozen=True, eq=False)
class Point:
    """-2 log likelihood at ``variances``, up to a constant, with derivatives.

    ``expected`` and ``observed`` are information matrices: the Hessian of the deviance, in expectation and as it is.
    ``beta`` [p] and its ``covariance`` belong to the columns of Q.
    """

    variances: FloatArray
    deviance: float
    gradient: FloatArray
    expected: FloatArray
    observed: FloatArray
    beta: FloatArray
    covariance: FloatArray

    @property
    def residual_df(self) -> float:
        """v_e tr(T V_e): the error contrasts that only the residual makes vary; 0 where V does without it."""
        return float(self.variances[-1] * (self.expected[-1] @ self.variances))


@dataclass(frozen=True, eq=False)
class Likelihood:
    """REML, the likelihood of n - p error contrasts, if ``restricted``; otherwise ML with beta profiled out.

    ``order`` are the positions of the terms as ``stacks`` have them, ``dense`` is [Q, y]'[Q, y] about the means of the
    last of them.
    """

    stacks: list[Stack]
    dense: FloatArray
    order: IntArray
    rows: int
    restricted: bool

    @classmethod
    def of(cls, y: FloatArray, q: FloatArray, terms: Sequence[Factor], *, restricted: bool) -> Likelihood:
        """The likelihood of ``y`` [n] given ``q`` [n, p] with orthonormal columns and the groupings ``terms``."""
        lead = int(np.argmax([term.size for term in terms]))
        order = np.array([*(i for i in range(len(terms)) if i != lead), lead])
        return cls(*stacks(np.column_stack([q, y]), [terms[i] for i in order]), order, len(y), restricted)

    @property
    def degrees(self) -> int:
        """Error contrasts (REML) or rows (ML)."""
        return self.rows - len(self.dense) + 1 if self.restricted else self.rows

    def at(self, variances: FloatArray) -> Point:
        """The point at (v_1, ..., v_k, v_e), v_e > 0.

        With P = V^-1 - V^-1 Q (Q'V^-1 Q)^-1 Q'V^-1 and T = P (REML) or V^-1 (ML):
        deviance = log|V| [+ log|Q'V^-1 Q|] + y'Py, gradient_i = tr(T V_i) - y'P V_i P y,
        expected_ij = tr(T V_i T V_j), observed_ij = 2 y'P V_i P V_j P y - expected_ij, where V = sum_i v_i V_i.
        """
        ratios, scale = variances[:-1] / variances[-1], variances[-1]
        solved = [solve(stack, ratios[self.order]) for stack in self.stacks]
        dense = self.dense + sum(part.dense for part in solved)
        p = len(dense) - 1
        root = np.linalg.inv(_cholesky(dense[:p, :p])).T
        beta = root @ (root.T @ dense[:p, p])
        quad = (dense[p, p] - dense[:p, p] @ beta) / scale
        turn = np.zeros_like(dense)
        turn[:p, :p], turn[:p, p], turn[p, p] = root, -beta, 1
        parts = [sums_of(*pair, turn, restricted=self.restricted) for pair in zip(self.stacks, solved, strict=True)]
        sums, back = Sums(*map(np.add.reduce, zip(*parts, strict=True))), np.argsort(self.order)
        logdet = sum(part.logdet for part in solved)
        traces, squares = sums.traces, sums.squares - sums.cross @ sums.cross.T
        if self.restricted:
            flat = sums.inner.reshape(len(sums.inner), -1)
            traces = traces + flat @ flat.T
            logdet -= 2 * np.log(np.diag(root)).sum()
        # The residual's entries follow from sum_i v_i V_i = V, P V P = P and tr(T V) = degrees.
        trace = _closed(sums.trace[back] / scale, self.degrees, variances)
        square = _closed(sums.square[back] / scale**2, quad, variances)
        expected = _bordered(traces[np.ix_(back, back)] / scale**2, trace, variances)
        observed = 2 * _bordered(squares[np.ix_(back, back)] / scale**3, square, variances) - expected
        deviance = float(self.degrees * np.log(scale) + logdet + quad)
        return Point(variances, deviance, trace - square, expected, observed, beta, scale * (root @ root.T))


def fit(model: Likelihood) -> Point:
    """The smallest deviance, from equal variances; and from next to the boundary, if the way ended there.

    Raises:
        StudyError: see `minimize`.
    """
    terms = len(model.order)
    best = minimize(model, np.full(terms + 1, 1 / (terms + 1)))
    if best.variances.min() > 0:
        return best
    start = np.where(best.variances > 0, best.variances, best.variances[-1])
    start[-1] /= 10
    try:
        other = minimize(model, start)
    except StudyError:
        return best
    return other if other.deviance < best.deviance - 1e-9 else best


def minimize(model: Likelihood, start: FloatArray, held: int | None = None) -> Point:
    """The variances >= 0 with the smallest deviance; ``held`` keeps the one at that position where it is.

    Newton steps where the observed information is positive definite, else scoring steps with the expected one. Each
    minimizes its quadratic model under the bounds (non-negative least squares), so that a variance on the boundary
    becomes 0 exactly, and is freed again where its gradient asks for it.

    Raises:
        StudyError: the residual variance goes to 0, or the steps do not settle.
    """
    point, before = model.at(start), np.inf
    for _ in range(STEPS):
        if point.residual_df < SPENT or point.variances[-1] < NEGLIGIBLE * start.sum():
            if held is None or point.residual_df > 0.1:
                raise StudyError(NO_RESIDUAL)
            return point  # its limit as the residual goes to 0, but for rounding
        step = _step(point, held)
        gain = -float(point.gradient @ step)
        # Newton's gains square from step to step until only rounding is left.
        if gain < 1e-22 or 0.9 * before < gain < 1e-8:
            return point
        before = gain
        new = model.at(_moved(point.variances, step))
        while gain > 1e-8 and not new.deviance <= point.deviance - 1e-4 * gain:
            step, gain = step / 2, gain / 2
            new = model.at(_moved(point.variances, step))
        point = new
    raise StudyError(f"no maximum of the likelihood was found in {STEPS} steps: leave out a random term")


def limits(model: Likelihood, best: Point, position: int, rise: float) -> tuple[float, float]:
    """The variances, on both sides of the best, whose profile deviance stands ``rise`` above the minimum; at least 0.

    NaN where the way there leads to a likelihood without a maximum.
    """
    return _limit(model, best, position, rise, -1), _limit(model, best, position, rise, +1)


def _limit(model: Likelihood, best: Point, position: int, rise: float, side: int) -> float:
    try:
        if side < 0 and position < len(best.variances) - 1:
            zero = best.variances.copy()
            zero[position], zero[-1] = 0, zero[-1] + zero[position]
            if best.variances[position] == 0 or minimize(model, zero, position).deviance - best.deviance <= rise:
                return 0.0
        return _crossing(model, best, position, rise, side)
    except StudyError:
        return np.nan


def _crossing(model: Likelihood, best: Point, position: int, rise: float, side: int) -> float:
    """Newton's method, within a bracket, for sqrt(profile deviance - minimum) = sqrt(rise) in the standard deviation.

    That root is nearly linear there (Bates et al. 2015, section 5.1). The other variances follow along the minimum of
    the quadratic model at the last point, whose remaining gain corrects height and slope, so that one point a step is
    enough, unless the gain is large.
    """
    target, point, spent = np.sqrt(rise), best, False
    inside, outside = np.sqrt(best.variances[position]), 0.0 if side < 0 else np.inf
    sd = _guess(best, position, rise, side)
    for _ in range(STEPS):
        if spent:
            variances = point.variances + np.eye(len(best.variances))[-1] * 1e-3 * point.variances.sum()
        else:
            variances = _moved(point.variances, _step(point, position, sd**2 - point.variances[position]))
        variances[position] = sd**2
        point, gain, step = model.at(variances), np.inf, np.zeros_like(variances)
        if point.residual_df >= SPENT:
            step = _step(point, position)
            gain = -float(point.gradient @ step)
        if gain > 0.1:
            point, gain, step = minimize(model, variances, position), 0.0, np.zeros_like(variances)
        spent = point.residual_df < SPENT
        height = np.sqrt(max(point.deviance - gain / 2 - best.deviance, 0.0))
        close = 1e-4 if spent else 1e-9
        if (abs(height - target) < close * target and gain < 1e-6) or abs(outside - inside) < 1e-12 * inside:
            break
        if height < target and side < 0 and sd**2 < NEGLIGIBLE * best.variances.sum():
            return 0.0
        inside, outside = (sd, outside) if height < target else (inside, sd)
        slope = sd * float(point.gradient[position] + point.observed[position] @ step) / max(height, 1e-300)
        sd = sd + (target - height) / slope if slope * side > 0 else np.nan
        if np.isinf(outside):
            sd = sd if inside < sd < 10 * inside else 10 * inside
        elif not min(inside, outside) < sd < max(inside, outside):
            sd = (inside + outside) / 2
    return float(sd**2)


def _guess(best: Point, position: int, rise: float, side: int) -> float:
    """The limit of the standard deviation, were the profile deviance quadratic in the variance or its logarithm."""
    free = (best.variances > 0) | (np.arange(len(best.variances)) == position)
    where = int(free[:position].sum())
    curve = 1 / np.linalg.inv(best.expected[np.ix_(free, free)])[where, where]
    value, slope = best.variances[position], best.gradient[position]
    if value == 0:
        return float(np.sqrt((np.sqrt(slope**2 + 2 * curve * rise) - slope) / curve))
    return float(np.sqrt(value) * np.exp(side * min(np.sqrt(rise / (2 * curve)) / value, 1.0)))


def _step(point: Point, held: int | None, change: float = 0.0) -> FloatArray:
    """The step to the minimum of the quadratic model over variances >= 0, while the held one makes its change."""
    from scipy.optimize import nnls

    free = (point.variances > 0) | (point.gradient < 0)
    step = np.zeros(len(free))
    if held is not None:
        free[held], step[held] = False, change
    if not free.any():
        return step
    square, curves = np.ix_(free, free), np.diag(point.expected)[free]
    if curves.min() <= 0:
        raise StudyError(NO_RESIDUAL)
    unit = 1 / np.sqrt(curves)
    hessian, observed = point.expected, point.observed[square] * unit[:, None] * unit
    root = _cholesky(hessian[square] * unit[:, None] * unit)
    if np.linalg.eigvalsh(np.linalg.solve(root, np.linalg.solve(root, observed).T))[0] > 0.01:
        hessian, root = point.observed, np.linalg.cholesky(observed)
    now = point.variances[free] / unit
    slope = (point.gradient + hessian @ step)[free] * unit
    step[free] = (nnls(root.T, root.T @ now - np.linalg.solve(root, slope))[0] - now) * unit
    return step


def _cholesky(matrix: FloatArray) -> FloatArray:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:  # positive definite by construction, so only rounding is left of it
        raise StudyError(NO_RESIDUAL) from None


def _moved(variances: FloatArray, step: FloatArray) -> FloatArray:
    # The residual loses nine tenths at most, and a step onto the boundary arrives there, whatever rounding says.
    most = 0.9 * variances[-1]
    moved = variances + step * (most / -step[-1] if -step[-1] > most else 1.0)
    return np.where(moved <= 1e-15 * variances, 0.0, moved)


def _closed(part: FloatArray, total: float, variances: FloatArray) -> FloatArray:
    """Appends the residual's entry, given that the sum weighted by the variances is ``total``."""
    return np.append(part, (total - variances[:-1] @ part) / variances[-1])


def _bordered(part: FloatArray, totals: FloatArray, variances: FloatArray) -> FloatArray:
    """Appends the residual's row and column, given the sums of all rows weighted by the variances."""
    full = np.empty((len(totals), len(totals)))
    full[:-1, :-1] = part
    full[-1, :-1] = full[:-1, -1] = (totals[:-1] - part @ variances[:-1]) / variances[-1]
    full[-1, -1] = (totals[-1] - full[-1, :-1] @ variances[:-1]) / variances[-1]
    return full
