"""A causal transformer whose LoRA weights are swapped, merged for sampling, and trained.

Every prompt of a study begins with the same tokens (a chat template's system turn), so all passes here
take that prefix once and share it across the batch; prompts are prefilled once for all their candidates.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers.cache_utils import DynamicCache, DynamicLayer

from ablate.api import Chat, FloatArray, IntArray, Weights
from ablate.errors import FatalError

Ids = list[int]


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A key-value cache layer that writes into room reserved once, instead of growing by ``cat``."""

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append along the sequence axis; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._reserve(key_states.shape[0], key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.room_k[:, :, self.length : end] = key_states
        self.room_v[:, :, self.length : end] = value_states
        return self._show(end)

    def _reserve(self, batch: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.room_k = keys.new_empty(batch, keys.shape[1], self.capacity, keys.shape[3])
        self.room_v = values.new_empty(batch, values.shape[1], self.capacity, values.shape[3])

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.length = length
        keys, values = self.room_k[:, :, :length], self.room_v[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row ``repeats`` times."""
        keys, values = self._show(self.length)
        self._reserve(keys.shape[0] * repeats, keys, values)
        self.room_k[:, :, : self.length] = keys.repeat_interleave(repeats, dim=0)
        self.room_v[:, :, : self.length] = values.repeat_interleave(repeats, dim=0)
        self._show(self.length)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only the rows ``indices``."""
        self.room_k, self.room_v = self.room_k[indices], self.room_v[indices]
        self._show(self.length)


def common_prefix(sequences: Sequence[Ids]) -> int:
    """How many leading tokens all sequences share, leaving each at least one of its own."""
    first, last = min(sequences), max(sequences)
    limit = min(len(s) for s in sequences) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [rows, longest] and lengths [rows]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), fill)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


class FusedLora(torch.autograd.Function):
    """x W' + (x A') B' with its gradients: the products alone, no copy, sum or scaling of activations between.

    PEFT's layer computes the same with twice the passes over memory, which on a CPU is a third of the time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, down: torch.Tensor, up: torch.Tensor
    ) -> torch.Tensor:
        """x [..., in], weight [out, in], bias [out] or None, down A [rank, in], up B with its scaling [out, rank]."""
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ down.t()
        out = torch.nn.functional.linear(rows, weight, bias).addmm_(inner, up.t())
        ctx.save_for_backward(rows, weight, down, up, inner)
        ctx.shape = x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B; the base weight is frozen."""
        rows, weight, down, up, inner = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        through = grad @ up
        grad_x = (grad @ weight).addmm_(through, down) if ctx.needs_input_grad[0] else None
        return None if grad_x is None else grad_x.view(ctx.shape), None, None, through.t() @ rows, grad.t() @ inner


def _fused_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    base = layer.get_base_layer()
    up = layer.lora_B["default"].weight * layer.scaling["default"]
    down = layer.lora_A["default"].weight
    out: torch.Tensor = FusedLora.apply(x, base.weight, base.bias, down, up)  # type: ignore[no-untyped-call]
    return out


class Network:
    """The torch model under a :class:`~ablate.lm.hf.model.HFModel`.

    Weights are LoRA factors with the scaling folded into B, so that the change of a linear layer is B @ A.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.device: torch.device = model.device
        # packed weights are bytes; nothing can be added to them
        self.packed = any(value.dtype == torch.uint8 for value in model.parameters())
        self.body = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self._head = model.get_output_embeddings()
        self.softcap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        eos = model.generation_config.eos_token_id
        stops = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        if not stops:
            raise FatalError("the model's tokenizer and generation config name no end-of-sequence token")
        self.stops = torch.tensor(sorted(stops), device=self.device)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else int(self.stops[0])
        self._peft: Any = None
        self._rank = 0
        self._worn: Weights | None = None
        self._plain: dict[str, torch.Tensor] = {}
        self._check_head()

    @torch.inference_mode()
    def _check_head(self) -> None:
        ids = torch.arange(5, 13, device=self.device)[None]
        wanted = self.model(ids).logits[0, -1].float()
        hidden = self.body(ids).last_hidden_state[:, -1]
        if not torch.allclose(self.head(hidden)[0], wanted, rtol=1e-2, atol=1e-2):
            raise FatalError(
                f"architecture {type(self.model).__name__}: its logits are not head(hidden state); it is not supported"
            )

    # ---- passes

    def encode(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids of each chat up to where the assistant begins to speak."""
        template = self.tokenizer.apply_chat_template
        ids = template([list(chat) for chat in chats], add_generation_prompt=True, tokenize=True)
        return [list(row) for row in (ids["input_ids"] if not isinstance(ids, list) else ids)]

    def answer(self, answer: str | Sequence[int]) -> Ids:
        """Token ids of an answer; a text gets the end-of-answer token, sampled ids are taken as they are."""
        if not isinstance(answer, str):
            return list(answer)
        return [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def texts(self, tokens: IntArray, lengths: IntArray) -> tuple[tuple[str, ...], ...]:
        """Answers [P][K] as text, special tokens left out."""
        rows = [
            row[:size]
            for row, size in zip(tokens.reshape(-1, tokens.shape[-1]).tolist(), lengths.ravel().tolist(), strict=True)
        ]
        flat = [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]
        k = tokens.shape[1]
        return tuple(tuple(flat[i : i + k]) for i in range(0, len(flat), k))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, vocabulary] of hidden states [N, d], contiguous so that this stays one matrix product."""
        logits: torch.Tensor = self._head(hidden.contiguous()).float()
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits

    def forward(
        self, ids: torch.Tensor, cache: Any, positions: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Last hidden states [B, T, d]; appends to ``cache``. ``mask`` [B, seen + T] hides padding."""
        out = self.body(
            input_ids=ids, past_key_values=cache, use_cache=True, position_ids=positions, attention_mask=mask
        )
        hidden: torch.Tensor = out.last_hidden_state.to(self.device)  # a model spread over devices ends on another one
        return hidden

    def cache(self, capacity: int | None = None) -> DynamicCache:
        """An empty cache; with ``capacity`` its full-attention layers reserve their room at once."""
        cache = DynamicCache(config=self.model.config)
        if capacity is not None:
            cache.layers = [GrowingLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache

    def prefix(self, ids: Ids, batch: int, capacity: int | None = None) -> DynamicCache:
        """A cache of ``batch`` rows that all hold ``ids``, computed for one row."""
        cache = self.cache(capacity)
        if ids:
            self.forward(torch.tensor([list(ids)], device=self.device), cache)
            cache.batch_repeat_interleave(batch)
        return cache

    # ---- weights

    def fresh(self, rank: int, seed: int) -> Weights:
        """LoRA factors that change nothing yet: A uniform within 1/sqrt(inputs) as PEFT draws it, B zero."""
        rng = np.random.default_rng(seed)
        self._adapt(rank)
        weights: dict[str, FloatArray] = {}
        for name, value in get_peft_model_state_dict(self._peft).items():
            bound = value.shape[1] ** -0.5
            draw = rng.uniform(-bound, bound, tuple(value.shape)) if "lora_A" in name else np.zeros(tuple(value.shape))
            weights[name] = draw.astype(np.float32)
        return weights

    def wear(self, weights: Weights | None) -> None:
        """Merge ``weights`` into the base model (restored exactly first), for sampling and scoring.

        Beside packed weights they stay an adapter.
        """
        if weights is self._worn:
            return
        with torch.no_grad():
            self._take_off()
            if weights is not None and self.packed:
                self._adapt(_rank(weights))
                self._put_on(weights, 1.0)
                self._peft.enable_adapter_layers()
                self._peft.requires_grad_(False)
            elif weights is not None:
                self._adapt(_rank(weights))
                for name, layer in self._layers():
                    base = layer.get_base_layer()
                    self._plain.setdefault(name, base.weight.detach().clone())
                    down, up = (
                        torch.from_numpy(weights[f"base_model.model.{name}.lora_{x}.weight"]).to(base.weight.device)
                        for x in "AB"
                    )
                    base.weight.data = (self._plain[name].float() + up @ down).to(base.weight.dtype)
                self._peft.disable_adapter_layers()
        self._worn = weights

    def plain_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The base model's parameters, whatever it wears."""
        for name, value in self.model.named_parameters():
            if "lora_" not in name:
                yield name.replace(".base_layer", ""), self._plain.get(name.replace(".base_layer.weight", ""), value)

    def _take_off(self) -> None:
        if self._worn is not None and not self.packed:
            for name, layer in self._layers():
                layer.get_base_layer().weight.data = self._plain[name].clone()
        if self._peft is not None:
            self._peft.disable_adapter_layers()
        self._worn = None

    @contextmanager
    def adapter(self, weights: Weights, scaling: float) -> Iterator[dict[str, torch.nn.Parameter]]:
        """The adapter active and trainable, starting from ``weights``: its parameters by their name there."""
        self._take_off()
        self._adapt(_rank(weights))
        self._put_on(weights, scaling)
        for _, layer in self._layers() if not self.packed else ():
            layer.forward = partial(_fused_forward, layer)
        self._peft.enable_adapter_layers()
        named = {name.replace(".default", ""): p for name, p in self._peft.named_parameters() if "lora_" in name}
        for parameter in named.values():
            parameter.requires_grad_(True)
        try:
            yield named
        finally:
            for parameter in named.values():
                parameter.requires_grad_(False)
                parameter.grad = None
            for _, layer in self._layers() if not self.packed else ():
                del layer.forward  # PEFT's own again
            self._peft.disable_adapter_layers()

    def _put_on(self, weights: Weights, scaling: float) -> None:
        """``weights`` as the parameters of the adapter, B divided by the ``scaling`` that its layers multiply with."""
        scaled = {name: torch.from_numpy(w / _scale(name, scaling)) for name, w in weights.items()}
        set_peft_model_state_dict(self._peft, scaled)
        for _, layer in self._layers():
            layer.scaling["default"] = scaling

    def masters(self, weights: Weights, adapter: Mapping[str, torch.Tensor], scaling: float) -> list[torch.Tensor]:
        """The starting weights in float32, unrounded, in the order of the adapter's parameters."""
        scaled = ((weights[name] / _scale(name, scaling), value.device) for name, value in adapter.items())
        return [torch.from_numpy(value).float().to(device).requires_grad_(True) for value, device in scaled]

    def trained(self, adapter: Mapping[str, torch.Tensor], masters: Sequence[torch.Tensor], scaling: float) -> Weights:
        """Masters as weights: float32, the scaling folded in."""
        return {
            name: (master.detach().cpu().numpy() * _scale(name, scaling)).astype(np.float32)
            for name, master in zip(adapter, masters, strict=True)
        }

    def _adapt(self, rank: int) -> None:
        if self._rank == rank:
            return
        if self._peft is not None:
            self._take_off()
            self._peft.unload()
            self._plain.clear()
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers about a name that PEFT reads
            self._peft = get_peft_model(self.model, config, autocast_adapter_dtype=False)
        self._peft.requires_grad_(False)
        self._rank = rank

    def _layers(self) -> Iterator[tuple[str, Any]]:
        for name, module in self.model.named_modules():
            if isinstance(module, LoraLayer):
                yield name, module


def _scale(name: str, scaling: float) -> float:
    return scaling if "lora_B" in name else 1.0


def _rank(weights: Weights) -> int:
    return int(next(value for name, value in weights.items() if "lora_A" in name).shape[0])
