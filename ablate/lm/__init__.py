"""Language models behind one protocol; torch is imported only when one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
