"""A Hugging Face causal model as a :class:`~ablate.lm.base.LanguageModel`."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ablate.api import Batch, Chat, Decoding, FloatArray, Pool, Prompt, TokenStatistics, Weights
from ablate.lm.base import Example, TrainOptions
from ablate.lm.hf import sampling, training
from ablate.lm.hf.load import load_causal, load_embedder
from ablate.lm.hf.network import Network
from ablate.lm.hf.views import Row

ROUNDS = 60
"""Products by which two number types are compared; together a fifth of a second."""


class HFModel:
    """Answers, densities and training of one base model under any LoRA weights."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.net = Network(model, tokenizer)

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> HFModel:
        """The model of a study's ``model`` options."""
        use_all_cores()
        dtype = resolved_dtype() if options["dtype"] == "auto" else getattr(torch, options["dtype"])
        model, tokenizer = load_causal(
            options["name"],
            dtype=dtype,
            revision=options["revision"],
            trust_remote_code=options["trust_remote_code"],
            device_map=options.get("device_map"),
            quantization=options.get("quantization"),
        )
        return cls(model, tokenizer)

    @property
    def identity(self) -> dict[str, str]:
        """What may differ between two machines that load one name: the weights, their type, the device."""
        digest = hashlib.sha256()
        for name, value in self.net.plain_parameters():
            digest.update(name.encode() + value.flatten()[:64].float().cpu().numpy().tobytes())
        return {
            "weights": digest.hexdigest(),
            "dtype": str(self.net.body.dtype).removeprefix("torch."),
            "device": self.net.device.type,
        }

    def policy(self, weights: Weights | None, *, max_tokens: int) -> HFPolicy:
        """See :class:`~ablate.lm.base.LanguageModel`."""
        return HFPolicy(self.net, weights, max_tokens)

    def answers(
        self,
        weights: Weights | None,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        samples: int,
        decoding: Decoding,
        max_tokens: int,
        chats: Sequence[Chat] | None = None,
    ) -> tuple[tuple[str, ...], ...]:
        """See :class:`~ablate.lm.base.LanguageModel`."""
        self.net.wear(weights)
        ids = self.net.encode(chats or [prompt.chat() for prompt in prompts])
        drawn = sampling.sample(self.net, ids, rng, k=samples, decoding=decoding, max_tokens=max_tokens, keep=False)
        return self.net.texts(drawn.tokens, drawn.lengths)

    def train(
        self,
        weights: Weights | None,
        examples: Sequence[Example],
        objective: Callable[[Batch], Any],
        options: TrainOptions,
        *,
        init_seed: int,
        rng: np.random.Generator,
    ) -> tuple[Weights, list[float]]:
        """See :class:`~ablate.lm.base.LanguageModel`."""
        prompts = self.net.encode([example.prompt.chat() for example in examples])
        rows = [
            Row.of(prompt, self.net.answer(example.answer), example)
            for prompt, example in zip(prompts, examples, strict=True)
        ]
        start = self.net.fresh(options.rank, init_seed) if weights is None else weights
        return training.train(self.net, start, rows, objective, options, rng)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """The base model's own last hidden states, averaged over tokens."""
        self.net.wear(None)
        return mean_pooled(self.net.body, self.net.tokenizer, texts)


class HFPolicy:
    """See :class:`~ablate.api.Policy`."""

    def __init__(self, net: Network, weights: Weights | None, max_tokens: int) -> None:
        self.net, self.weights, self.max_tokens = net, weights, max_tokens

    def pool(
        self,
        prompts: Sequence[Prompt],
        rng: np.random.Generator,
        *,
        k: int,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        chats: Sequence[Chat] | None = None,
        max_tokens: int | None = None,
    ) -> Pool:
        """See :class:`~ablate.api.Policy`."""
        self.net.wear(self.weights)
        own = self.net.encode([prompt.chat() for prompt in prompts])
        shown = own if chats is None else self.net.encode(chats)
        steps = max_tokens or self.max_tokens
        if decoding.beams > 1:
            drawn = sampling.beam_search(self.net, shown, k=k, decoding=decoding, max_tokens=steps)
        else:
            bridge = own if decoding.strength != 1 and shown != own else None
            drawn = sampling.sample(
                self.net, shown, rng, k=k, decoding=decoding, max_tokens=steps, keep=True, own=bridge
            )
        states = drawn.hidden if shown == own else sampling.states(self.net, own, drawn.tokens, drawn.lengths)
        densities = sampling.densities(self.net, drawn, states, decoding)
        texts = self.net.texts(drawn.tokens, drawn.lengths)
        rank = np.arange(drawn.lengths.shape[1], dtype=np.int32) if decoding.beams > 1 else np.int32(0)
        origin = np.broadcast_to(rank, drawn.lengths.shape)
        return Pool(tuple(prompts), texts, drawn.tokens, drawn.lengths, *densities, origin=origin)

    def token_statistics(self, pool: Pool) -> TokenStatistics:
        """See :class:`~ablate.api.Policy`."""
        self.net.wear(self.weights)
        own = self.net.encode([prompt.chat() for prompt in pool.prompts])
        states = sampling.states(self.net, own, pool.tokens, pool.lengths)
        return sampling.token_statistics(self.net, states, pool.lengths)

    def likelihood(self, chats: Sequence[Chat], beginnings: Sequence[str]) -> FloatArray:
        """See :class:`~ablate.api.Policy`: of the tokens that the tokenizer makes of each text."""
        self.net.wear(self.weights)
        ids = [self.net.tokenizer(text, add_special_tokens=False)["input_ids"] for text in beginnings]
        return sampling.likelihood(self.net, self.net.encode(chats), ids)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """See :class:`~ablate.api.Policy`."""
        self.net.wear(self.weights)
        return mean_pooled(self.net.body, self.net.tokenizer, texts)


class Embedder:
    """A sentence encoder: :meth:`embed` alone."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, name: str) -> Embedder:
        """The encoder of that name."""
        use_all_cores()
        return cls(*load_embedder(name))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Mean-pooled token states of unit length, float32 [texts, D]."""
        return mean_pooled(self.model, self.tokenizer, texts)


@torch.inference_mode()
def mean_pooled(body: Any, tokenizer: Any, texts: Sequence[str], batch: int = 128) -> FloatArray:
    """Mean over each text's token states, scaled to unit length; an empty text is the zero vector."""
    rows: dict[str, FloatArray] = {}
    ids = {text: tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in dict.fromkeys(texts)}
    order = sorted((text for text in ids if ids[text]), key=lambda text: len(ids[text]))
    width = body.get_input_embeddings().weight.shape[1] if not order else 0
    for i in range(0, len(order), batch):
        part = order[i : i + batch]
        longest = max(len(ids[text]) for text in part)
        mask = torch.tensor([[1] * len(ids[text]) + [0] * (longest - len(ids[text])) for text in part])
        tokens = torch.tensor([ids[text] + [0] * (longest - len(ids[text])) for text in part])
        states = (
            body(input_ids=tokens.to(body.device), attention_mask=mask.to(body.device)).last_hidden_state.float().cpu()
        )
        mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        unit = torch.nn.functional.normalize(mean).numpy()
        width = unit.shape[1]
        rows.update(zip(part, unit, strict=True))
    zero = np.zeros(width, np.float32)
    return np.stack([rows.get(text, zero) for text in texts]) if texts else np.zeros((0, width), np.float32)


def use_all_cores() -> None:
    """One torch process uses every core it may run on, and no more (two processes on the same cores are far slower)."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def resolved_dtype() -> torch.dtype:
    """bfloat16 on a GPU; on a CPU whichever multiplies matrices faster (bfloat16 needs AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return torch.bfloat16

    def wall_s(dtype: torch.dtype) -> float:
        a, b = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        began = time.perf_counter()
        a @ b
        return time.perf_counter() - began

    # In turns, and the best of many: what else runs on the machine must not decide for one of them.
    took = [(wall_s(torch.bfloat16), wall_s(torch.float32)) for _ in range(ROUNDS)]
    bfloat16, float32 = map(min, zip(*took, strict=True))
    return torch.bfloat16 if bfloat16 < 0.8 * float32 else torch.float32
