"""Rows packed behind the prefix that they share, as one sequence: the prefix is taken once and nothing is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ablate.lm.hf.network import Ids, Network

NAME = "ablate_packed"


@dataclass(frozen=True, slots=True)
class Pack:
    """``shared`` tokens, then the own tokens of each row, one row after the other.

    ``own`` [rows, longest] are the places of a row's own tokens in the pack, ``there`` marks those that it has.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    shared: int
    own: torch.Tensor
    there: torch.Tensor

    @classmethod
    def of(cls, prefix: Ids, tails: Sequence[Ids], device: torch.device) -> Pack:
        """The prefix with these rows behind it."""
        shared, sizes = len(prefix), torch.tensor([len(tail) for tail in tails])
        step = torch.arange(int(sizes.max()))
        there = step < sizes[:, None]
        own = shared + (sizes.cumsum(0) - sizes)[:, None] + step
        ids = torch.tensor([*prefix, *(token for tail in tails for token in tail)])
        positions = torch.cat([torch.arange(shared), (shared + step).expand(len(tails), -1)[there]])
        moved = (t.to(device) for t in (ids, positions, torch.where(there, own, 0), there))
        ids, positions, own, there = moved
        return cls(ids, positions, shared, own, there)

    def bias(self, dtype: torch.dtype) -> torch.Tensor:
        """What each token may attend to as an additive mask over the whole pack, [1, 1, n, n]."""
        owner = torch.full((len(self.ids),), -1, device=self.ids.device)
        owner[self.own[self.there]] = torch.arange(len(self.own), device=owner.device).repeat_interleave(
            self.there.sum(1)
        )
        order = torch.arange(len(self.ids), device=owner.device)
        sees = ((owner[None, :] == owner[:, None]) | (owner[None, :] < 0)) & (order[None, :] <= order[:, None])
        return torch.zeros(sees.shape, dtype=dtype, device=owner.device).masked_fill(~sees, -torch.inf)[None, None]


def states(net: Network, pack: Pack) -> torch.Tensor:
    """The last hidden state of every token of a pack, [n, d]."""
    blockwise = _blockwise(net)
    with _wearing(net, pack) if blockwise else _nothing():
        out = net.body(
            input_ids=pack.ids[None],
            position_ids=pack.positions[None],
            attention_mask=None if blockwise else pack.bias(net.body.dtype),
            use_cache=False,
        )
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden


def _blockwise(net: Network) -> bool:
    """Whether attention is plain, so that rows may attend apart; a window or a softcap goes by the full mask."""
    config = net.body.config
    unusual = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")
    return config._attn_implementation == "sdpa" and not any(getattr(config, name, None) for name in unusual)


_worn: ContextVar[Pack] = ContextVar("pack")


@contextmanager
def _wearing(net: Network, pack: Pack) -> Iterator[None]:
    config, token = net.body.config, _worn.set(pack)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
        _worn.reset(token)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, *, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """Every row to the prefix and to itself: as many products as there are pairs, not the square of the pack.

    ``query`` [1, heads, n, d], ``key`` and ``value`` [1, key heads, n, d]; returns [1, n, heads, d].
    """
    pack = _worn.get()
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value))
    s, (rows, longest) = pack.shared, pack.own.shape
    own_q, own_k, own_v = (x[0][:, pack.own].transpose(0, 1) for x in (query, key, value))  # [rows, heads, longest, d]
    prefix_k, prefix_v = (x[:, :, :s].expand(rows, -1, -1, -1) for x in (key, value))
    causal = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril()
    sees = torch.cat([causal.new_ones(longest, s), causal], 1)
    own = scaled_dot_product_attention(
        own_q, torch.cat([prefix_k, own_k], 2), torch.cat([prefix_v, own_v], 2), attn_mask=sees, scale=scaling
    )
    out = own.transpose(1, 2)[pack.there]  # [n - shared, heads, d], in the order of the pack
    if s:
        first = scaled_dot_product_attention(
            query[:, :, :s], key[:, :, :s], value[:, :, :s], is_causal=True, scale=scaling
        )
        out = torch.cat([first[0].transpose(0, 1), out])
    return out[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
