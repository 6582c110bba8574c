"""Z'V^-1 Z, Z'V^-1 X and Z'V^-1 y of crossed and nested groupings, V = I + sum_i g_i Z_i Z_i', never of size n x n.

Rows are read once. The *lead* term, the last one, is eliminated in closed form, since Z'Z is diagonal for it. What is
left falls into blocks (the organisms, where every term is nested in organisms). Blocks with the same pattern of rows,
all of them in balanced data, need one small matrix, and patterns of like size are one stack of such matrices.

Axes: S patterns of a stack, L levels of the lead term in a block, M levels of all other terms, R blocks of a pattern,
E dense columns [Q, y]. Arrays [S, ., M + R E] hold Z beside the dense columns of every block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ablate.api import FloatArray, IntArray
from ablate.effects.frames import Factor


@dataclass(frozen=True, eq=False)
class Stack:
    """Patterns of like size, filled up with levels without rows.

    ``sums`` [S, L, M + R E] are the sums of [Z, E] over the rows of each lead level, ``means`` the same divided by
    ``count`` [S, L]; ``within`` [S, M, M + R E] is Z'[Z, E] about these means. ``term`` [S, M] is the position of
    the term of each level, the last position where there is no level; ``hot`` [S, M, terms] the same as indicators.
    ``blocks`` is R.
    """

    sums: FloatArray
    means: FloatArray
    count: FloatArray
    within: FloatArray
    term: IntArray
    hot: FloatArray
    blocks: int


@dataclass(frozen=True, eq=False)
class Solved:
    """A stack at given variance ratios: its parts of log|V| and E'V^-1 E, and its rows of Z'V^-1 [Z, E].

    ``upper`` [S, M, M + R E] are the rows of the other terms, ``lower`` [S, L, M + R E] those of the lead term. Its own
    block, Z_L'V^-1 Z_L = diag(``own``) - ``down`` lower_Z', is never formed: ``own`` [S, L], ``down`` [S, L, M].
    """

    logdet: float
    dense: FloatArray
    upper: FloatArray
    lower: FloatArray
    own: FloatArray
    down: FloatArray


class Sums(NamedTuple):
    """Sums over the levels of each term or pair of terms; those of several stacks add up. See `sums_of`."""

    trace: FloatArray
    square: FloatArray
    traces: FloatArray
    squares: FloatArray
    inner: FloatArray
    cross: FloatArray


def solve(stack: Stack, ratios: FloatArray) -> Solved:
    """The stack at the variance ratios g >= 0, [terms], lead term last.

    V_0 = I + g_L Z_L Z_L' has [Z, E]'V_0^-1 [Z, E] = within + sums' diag(1 / (1 + g_L count)) means, a sum of
    non-negative parts, so that nothing cancels however large g_L is. The other terms follow from Z'V^-1 =
    (I + Z'V_0^-1 Z G)^-1 Z'V_0^-1, which allows any g to be 0.
    """
    width, blocks = stack.term.shape[1], stack.blocks
    ratio = np.append(ratios[:-1], 0.0)[stack.term]
    shrink = 1 / (1 + ratios[-1] * stack.count)
    lead = shrink[..., None] * stack.sums
    product = stack.within + lead[..., :width].mT @ stack.means
    system = product[..., :width] * ratio[:, None, :] + np.eye(width)
    upper = np.linalg.solve(system, product)
    down = lead[..., :width] * ratio[:, None, :]
    logdet = np.linalg.slogdet(system)[1].sum() + np.log1p(ratios[-1] * stack.count).sum()
    split = (-1, (stack.sums.shape[2] - width) // blocks)
    dense = lead[..., width:].reshape(split).T @ stack.means[..., width:].reshape(split)
    dense -= (product[..., width:] * ratio[..., None]).reshape(split).T @ upper[..., width:].reshape(split)
    return Solved(float(blocks * logdet), dense, upper, lead - down @ upper, stack.count * shrink, down)


def sums_of(stack: Stack, solved: Solved, turn: FloatArray, *, restricted: bool) -> Sums:
    """What one stack adds to the derivatives of the likelihood.

    ``turn`` [E, E] makes V^-1 [Q, y] into [B, a] with BB' = V^-1 Q (Q'V^-1 Q)^-1 Q'V^-1 and a = P y, P = V^-1 - BB'.
    Then, with C_ij = Z_i'V^-1 Z_j, B_i = Z_i'B, a_i = Z_i'a: ``trace`` is tr C_ii - |B_i|^2, ``square`` |a_i|^2,
    ``traces`` |C_ij|^2 - 2 tr(B_i'C_ij B_j), ``squares`` a_i'C_ij a_j, ``inner`` B_i'B_i and ``cross`` B_i'a_i. Unless
    ``restricted``, B is left out of the traces.
    """
    (s, width, others), p, r = stack.hot.shape, len(turn) - 1, stack.blocks
    hot, own, down, c, c_lead = stack.hot, solved.own, solved.down, solved.upper[..., :width], solved.lower[..., :width]
    upper = solved.upper[..., width:].reshape(s, width, r, p + 1) @ turn
    lower = solved.lower[..., width:].reshape(s, -1, r, p + 1) @ turn
    flat = [upper[stack.term == i].reshape(-1, p + 1) for i in range(others)] + [lower.reshape(-1, p + 1)]
    grams = np.array([rows.T @ rows for rows in flat])
    # The lead term's block acts on vectors through its two parts, own - down c_lead'.
    loop = c_lead.mT @ down
    diagonal = own.sum() - np.vdot(down, c_lead)
    corner = np.vdot(own, own) - 2 * np.vdot(own[..., None] * down, c_lead) + np.vdot(loop, loop.mT)
    trace = r * np.append(_over(hot, np.diagonal(c, axis1=1, axis2=2)), diagonal)
    pairs, pairs_lead, corner = r * c**2, r * c_lead**2, r * corner
    if restricted:
        b, b_lead = upper[..., :p].reshape(s, width, r * p), lower[..., :p].reshape(s, -1, r * p)
        trace -= np.trace(grams[:, :p, :p], axis1=1, axis2=2)
        pairs -= 2 * c * (b @ b.mT)
        pairs_lead -= 2 * c_lead * (b_lead @ b.mT)
        corner -= 2 * _lead_form(own, down, c_lead, b_lead)
    a, a_lead = upper[..., p], lower[..., p]
    traces = _pairs(hot, pairs, pairs_lead, float(corner))
    squares = _pairs(hot, c * (a @ a.mT), c_lead * (a_lead @ a.mT), _lead_form(own, down, c_lead, a_lead))
    return Sums(trace, grams[:, p, p], traces, squares, grams[:, :p, :p], grams[:, :p, p])


def _lead_form(own: FloatArray, down: FloatArray, c_lead: FloatArray, vectors: FloatArray) -> float:
    """tr(F'C F) for C the lead term's block and F [S, L, .]."""
    return float(np.vdot(own[..., None] * vectors, vectors) - np.vdot(down.mT @ vectors, c_lead.mT @ vectors))


def _pairs(hot: FloatArray, upper: FloatArray, lower: FloatArray, corner: float) -> FloatArray:
    """Sums over the levels of each pair of terms."""
    sums = np.empty((hot.shape[2] + 1, hot.shape[2] + 1))
    sums[:-1, :-1] = _over(hot, upper @ hot)
    sums[:-1, -1] = sums[-1, :-1] = _over(hot, lower.sum(axis=1))
    sums[-1, -1] = corner
    return sums


def _over(hot: FloatArray, right: FloatArray) -> FloatArray:
    """hot'right over patterns and levels."""
    levels = hot.shape[0] * hot.shape[1]
    return np.asarray(hot.reshape(levels, hot.shape[2]).T @ right.reshape(levels, *right.shape[2:]))


def stacks(dense: FloatArray, terms: Sequence[Factor]) -> tuple[list[Stack], FloatArray]:
    """The crossproducts of ``dense`` [n, E] with the groupings, lead term last; and E'E about the lead term's means."""
    raw = _Raw.of(dense, terms)
    count = int(max(raw.lead_block.max(), raw.block.max(initial=0))) + 1
    size = np.column_stack([np.bincount(block, minlength=count) for block in (raw.lead_block, raw.block)])
    # Sizes are alike if they round up to the same powers of two: few stacks, and none of them mostly empty.
    _, kind = np.unique(np.ceil(np.log2(np.maximum(size, 0.5))), axis=0, return_inverse=True)
    found = []
    for one in range(kind.max() + 1):
        found += raw.stacks(np.flatnonzero(kind == one), tuple(size[kind == one].max(axis=0)))
    return found, raw.rest


@dataclass(frozen=True, eq=False)
class _Raw:
    """Crossproducts before they are cut into blocks; sparse ones in coordinates.

    ``lead_block`` and ``block`` say in which block a level is, ``lead_at`` and ``at`` where in it; ``met`` counts the
    rows that a lead level and another level share; about the lead term's means, ``pairs`` is Z'Z, ``crossed`` Z'E and
    ``rest`` E'E.
    """

    sums: FloatArray
    count: FloatArray
    met: Any
    pairs: Any
    crossed: FloatArray
    rest: FloatArray
    term: IntArray
    lead_block: IntArray
    block: IntArray
    lead_at: IntArray
    at: IntArray

    @classmethod
    def of(cls, dense: FloatArray, terms: Sequence[Factor]) -> _Raw:
        from scipy import sparse
        from scipy.sparse import csgraph

        n, lead, sizes = len(dense), terms[-1], [term.size for term in terms[:-1]]
        codes = np.empty((n, len(sizes)), dtype=np.intp)
        for i, other in enumerate(terms[:-1]):
            codes[:, i] = other.codes + sum(sizes[:i])
        z = sparse.csr_array((np.ones(codes.size), codes.ravel(), len(sizes) * np.arange(n + 1)), (n, sum(sizes)))
        z_lead = sparse.csr_array((np.ones(n), lead.codes, np.arange(n + 1)), (n, lead.size))
        count = lead.counts.astype(float)
        sums, met = np.asarray(z_lead.T @ dense), (z_lead.T @ z).tocoo()
        rest = dense - (sums / count[:, None])[lead.codes]
        # A level that is made of lead levels is constant in each: the integers cancel to an exact zero.
        shares = sparse.coo_array((met.data / count[met.row], (met.row, met.col)), met.shape)
        pairs = (z.T @ z - met.T @ shares).tocoo()
        island: IntArray = np.zeros(lead.size, dtype=np.intp)
        if sizes:
            graph = sparse.block_array([[None, met], [met.T, None]])
            island = csgraph.connected_components(graph, directed=False)[1]
        lead_block, block = np.split(island, [lead.size])
        term, crossed = np.repeat(np.arange(len(sizes)), sizes), np.asarray(z.T @ rest)
        places = _ranks(lead_block), _ranks(block)
        return cls(sums, count, met, pairs, crossed, rest.T @ rest, term, lead_block, block, *places)

    def stacks(self, blocks: IntArray, size: tuple[int, int]) -> list[Stack]:
        """The given blocks, each filled up to ``size`` [L, M], with equal ones put together."""
        count, (length, width) = len(blocks), size
        others, columns = int(self.term.max(initial=-1)) + 1, self.sums.shape[1]
        place = np.full(max(self.lead_block.max(), self.block.max(initial=0)) + 1, -1)
        place[blocks] = np.arange(count)
        mine, lead = place[self.block], place[self.lead_block]
        sums, within = np.zeros((count, length, columns)), np.zeros((count, width, columns))
        met, pairs = np.zeros((count, length, width)), np.zeros((count, width, width))
        rows, term = np.zeros((count, length)), np.full((count, width), others)
        s, i = lead[lead >= 0], self.lead_at[lead >= 0]
        sums[s, i], rows[s, i] = self.sums[lead >= 0], self.count[lead >= 0]
        s, j = mine[mine >= 0], self.at[mine >= 0]
        within[s, j], term[s, j] = self.crossed[mine >= 0], self.term[mine >= 0]
        i, j, data = _entries(self.met, lead)
        met[lead[i], self.lead_at[i], self.at[j]] = data
        i, j, data = _entries(self.pairs, mine)
        pairs[mine[i], self.at[i], self.at[j]] = data
        patterns: dict[bytes, list[int]] = defaultdict(list)
        for b in range(count):
            patterns[b"".join(part[b].tobytes() for part in (rows, term, met, pairs))].append(b)
        repeats: dict[int, list[list[int]]] = defaultdict(list)
        for members in patterns.values():
            repeats[len(members)].append(members)
        found = []
        for r, groups in repeats.items():
            index = np.array(groups)
            first = index[:, 0]
            wide = [part[index].swapaxes(1, 2).reshape(len(index), -1, r * columns) for part in (sums, within)]
            total = np.concatenate([met[first], wide[0]], axis=2)
            inside = np.concatenate([pairs[first], wide[1]], axis=2)
            hot = (term[first][..., None] == np.arange(others)).astype(float)
            means = total / np.maximum(rows[first], 1)[..., None]
            found.append(Stack(total, means, rows[first], inside, term[first], hot, r))
        return found


def _entries(matrix: Any, place: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    keep = place[matrix.row] >= 0
    return matrix.row[keep], matrix.col[keep], matrix.data[keep]


def _ranks(block: IntArray) -> IntArray:
    """The position of each level within its block."""
    order = np.argsort(block, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(block)) - np.searchsorted(block[order], block[order])
    return ranks
