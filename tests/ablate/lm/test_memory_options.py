"""How the base model lies in memory: spread over devices, or with its weights in four bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import OPTIONS, sft
from test_hf import ANSWERS, MODEL, PROMPTS
from tiny import save_tiny_llama

from ablate.api import Decoding
from ablate.errors import FatalError
from ablate.lm.base import Example
from ablate.lm.hf.model import HFModel
from ablate.options import Model

EXAMPLES = [Example(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def load(folder: Path, **options: Any) -> HFModel:
    return HFModel.load({**MODEL, "name": str(folder), **options})


def train(lm: HFModel, start: Any = None) -> Any:
    return lm.train(start, EXAMPLES, sft, OPTIONS, init_seed=0, rng=np.random.default_rng(0))


def logprob(lm: HFModel, weights: Any) -> float:
    drawn = lm.policy(weights, max_tokens=5).pool(PROMPTS, np.random.default_rng(0), k=2, decoding=Decoding())
    return float(drawn.logprob_p.sum())


@pytest.mark.parametrize(
    ("option", "package"), [({"device_map": "auto"}, "accelerate"), ({"quantization": "nf4"}, "bitsandbytes")]
)
def test_a_package_that_is_not_there_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, str], package: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [(name, value)] = option.items()
    expected = f"^model.{name}: {value} needs the package {package}: pip install 'ablate-mechanisms\\[gpu\\]'$"
    with pytest.raises(FatalError, match=expected):
        load(folder, **option)


def test_a_device_map_changes_no_number(folder: Path) -> None:
    pytest.importorskip("accelerate")
    one, spread = load(folder), load(folder, device_map="cpu")
    (weights, losses), (same, equal) = train(one), train(spread)
    assert losses == equal
    assert logprob(one, weights) == logprob(spread, same)


def test_four_bits_train_and_sample_under_an_adapter_beside_them(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    lm = load(folder, quantization="nf4")
    assert lm.net.packed
    base = logprob(lm, None)
    weights, losses = train(lm)
    _, further = train(lm, weights)
    assert losses[-1] < losses[0]
    assert further[0] < losses[0]
    assert logprob(lm, weights) != base
    assert logprob(lm, None) == base  # what was worn leaves no trace


def test_how_it_lies_in_memory_is_in_keys_only_where_it_was_chosen() -> None:
    plain = {"name": "m", "dtype": "auto", "revision": None, "trust_remote_code": False}
    assert Model(name="m").plain == plain
    assert Model(name="m", device_map="auto", quantization="nf4").plain == {
        **plain,
        "device_map": "auto",
        "quantization": "nf4",
    }
