"""A sequence-classification model as a reward of whole conversations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from ablate.api import Chat, FloatArray
from ablate.errors import FatalError
from ablate.lm.hf.load import load_classifier
from ablate.lm.hf.network import padded

BATCH = 16
"""Conversations that are read together, longest with longest."""


class RewardModel:
    """One number for a conversation that ends with an answer: the model's only output."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.longest: int = getattr(model.config, "max_position_embeddings", None) or 2**31

    @classmethod
    def load(cls, name: str, revision: str | None = None) -> RewardModel:
        """A Hub id or a folder; weights come from safetensors, and code of the repository is never run.

        Raises:
            FatalError: no such model, or one that is no reward model.
        """
        model, tokenizer = load_classifier(name, revision)
        if model.config.num_labels != 1:
            raise FatalError(
                f"model '{name}' has {model.config.num_labels} outputs; a reward model has one, the higher the better"
            )
        return cls(model, tokenizer)

    @torch.inference_mode()
    def __call__(self, chats: Sequence[Chat]) -> FloatArray:
        """Rewards float64 [chats]; NaN where a conversation is longer than the model reads."""
        ids = [self._ids(chat) for chat in chats]
        rewards = np.full(len(ids), np.nan)
        pad = self._padding(ids)
        order = sorted((i for i in range(len(ids)) if len(ids[i]) <= self.longest), key=lambda i: len(ids[i]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens, sizes = padded([ids[i] for i in rows], pad, self.model.device)
            mask = torch.arange(tokens.shape[1], device=tokens.device) < sizes[:, None]
            logits = self.model(input_ids=tokens, attention_mask=mask.long()).logits
            rewards[rows] = logits[:, 0].double().cpu().numpy()
        return rewards

    def _padding(self, ids: Sequence[Sequence[int]]) -> int:
        """A token that no conversation has: decoders read the reward at the last token that is not this one."""
        used = {token for row in ids for token in row}
        own = self.tokenizer.pad_token_id
        pad: int = own if own is not None and own not in used else next(i for i in count() if i not in used)
        self.model.config.pad_token_id = pad
        return pad

    def _ids(self, chat: Chat) -> list[int]:
        """Token ids by the chat template; without one, the question and the answer as a pair of texts."""
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template([dict(message) for message in chat], tokenize=False)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        question = "\n".join(message["content"] for message in chat[:-1])
        return list(self.tokenizer(question, chat[-1]["content"])["input_ids"])
