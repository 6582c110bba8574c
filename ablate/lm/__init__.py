"""Language models behind one protocol; torch is imported only when one is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ablate.api import Chat, Decoding, FloatArray, Judge, JudgeOptions, Prompt
from ablate.lm.base import LanguageModel


def load_model(options: Mapping[str, Any]) -> LanguageModel:
    """The base model of a study's ``model`` options: ``tabular``, an embedded model, a Hub id or a folder."""
    if options["name"] == "tabular":
        from ablate.lm.tabular import TabularModel

        return TabularModel()
    from ablate.lm.hf.model import HFModel

    return HFModel.load(options)


def load_embedder(name: str) -> Any:
    """A sentence encoder with ``embed(texts)``: ``minilm``, a Hub id or a folder."""
    from ablate.lm.hf.model import Embedder

    return Embedder.load(name)


def load_endpoint(options: JudgeOptions) -> Judge:
    """A model behind an OpenAI-compatible endpoint, as a judge."""
    from ablate.lm.http import Endpoint

    return Endpoint(**options)


def local_judge(lm: LanguageModel) -> Judge:
    """A base model as a judge: it replies greedily."""

    def judge(questions: Sequence[str], *, max_tokens: int) -> Sequence[str | None]:
        prompts = [Prompt(str(i), text, text, str(i), {}) for i, text in enumerate(questions)]
        rng = np.random.default_rng(0)  # greedy decoding draws nothing
        greedy = Decoding(temperature=0)
        rows = lm.answers(None, prompts, rng, samples=1, decoding=greedy, max_tokens=max_tokens) if prompts else ()
        return [row[0] for row in rows]

    return judge


def load_rewards(name: str, revision: str | None) -> Callable[[Sequence[Chat]], FloatArray]:
    """A sequence-classification model as a reward of whole conversations: a Hub id or a folder."""
    from ablate.lm.hf.reward import RewardModel

    return RewardModel.load(name, revision)
