"""Speed against the plain way, in one process on the same batches. Prints ratios; asserts equal results, never times.

Run with ``make bench``. Needs the embedded model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ablate.api import Batch, Decoding, Prompt
from ablate.lm.base import Example, TrainOptions
from ablate.lm.hf.load import locate
from ablate.lm.hf.model import HFModel

pytestmark = pytest.mark.bench

OPTIONS = TrainOptions(epochs=1, lr=7e-4, batch=16, warmup=0.1, rank=16, alpha=32)
WORDS = ["near", "hot", "big", "up", "happy", "open", "rich", "clean", "full", "high", "early", "deep"]


def prompts(count: int) -> list[Prompt]:
    rows = [(a, b) for a in WORDS for b in WORDS if a != b][:count]
    return [Prompt(f"{a}/{b}", f"The opposite of {a} is {b}, right?", "", a, {"claim": b}) for a, b in rows]


def sft(batch: Batch) -> Any:
    return -(batch.logprobs * batch.mask).sum() / batch.mask.sum()


def best_s(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    took, result = [], None
    for _ in range(times):
        began = time.perf_counter()
        result = run()
        took.append(time.perf_counter() - began)
    return min(took), result


@pytest.fixture(scope="module")
def model() -> HFModel:
    return HFModel.load({"name": "smollm2-135m", "dtype": "float32", "revision": None, "trust_remote_code": False})


@pytest.fixture(scope="module")
def plain() -> Any:
    return AutoModelForCausalLM.from_pretrained(locate("smollm2-135m"), dtype=torch.float32).eval()


def examples() -> list[Example]:
    return [Example(prompt, f"Yes, it is {prompt.facts['claim']}.") for prompt in prompts(96)]


def test_sampling(model: HFModel, plain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """96 prompts x 4 candidates x 16 tokens: the same number of new tokens from both."""
    ids = model.net.encode([prompt.chat() for prompt in prompts(96)])
    policy = model.policy(None, max_tokens=16)
    ours_s, pool = best_s(lambda: policy.pool(prompts(96), np.random.default_rng(0), k=4), 2)
    tokenizer = model.net.tokenizer
    tokenizer.padding_side = "left"
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    options = {"max_new_tokens": 16, "do_sample": True, "top_k": 0, "top_p": 1.0, "num_return_sequences": 4}
    theirs_s, out = best_s(lambda: plain.generate(**batch, **options, pad_token_id=model.net.pad), 2)
    answers = out[:, batch["input_ids"].shape[1] :]
    theirs = sum(int((row == 2).nonzero()[0]) + 1 if (row == 2).any() else 16 for row in answers)
    ratio = (pool.lengths.sum() / ours_s) / (theirs / theirs_s)
    with capsys.disabled():
        print(f"\nsampling: {ratio:.2f} times the tokens/s of generate ({pool.lengths.sum()} and {theirs} tokens)")
    assert pool.lengths.max() <= 16


def test_training(model: HFModel, plain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = examples()
    prompts_ = model.net.encode([example.prompt.chat() for example in rows])
    answers = [list(model.net.answer(example.answer)) for example in rows]

    def ours() -> list[float]:
        return model.train(None, rows, sft, OPTIONS, init_seed=0, rng=np.random.default_rng(0))[1]

    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(plain, config)
    start = {name: value.detach().clone() for name, value in peft.named_parameters() if "lora_" in name}

    def theirs() -> list[float]:
        for name, value in peft.named_parameters():
            if name in start:
                value.data = start[name].clone()
        optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=OPTIONS.lr, weight_decay=0)
        losses, order = [], np.random.default_rng(0).permutation(len(rows))
        for i in range(0, len(order), OPTIONS.batch):
            step = [(prompts_[j], answers[j]) for j in order[i : i + OPTIONS.batch]]
            longest = max(len(p) + len(a) for p, a in step)
            fill = [longest - len(p) - len(a) for p, a in step]
            ids = torch.tensor([[*p, *a, *[2] * f] for (p, a), f in zip(step, fill, strict=True)])
            seen = torch.tensor([[1] * (longest - f) + [0] * f for f in fill])
            labels = torch.tensor([[*[-100] * len(p), *a, *[-100] * f] for (p, a), f in zip(step, fill, strict=True)])
            loss = peft(input_ids=ids, attention_mask=seen, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    ours_s, own = best_s(ours, 2)
    theirs_s, other = best_s(theirs, 2)
    with capsys.disabled():
        print(f"\ntraining: {theirs_s / ours_s:.2f} times the tokens/s of a plain PEFT loop on the same batches")
    assert own[0] == pytest.approx(other[0], rel=1e-3)  # the first loss: same start, same batch


def test_evaluation_of_one_run(model: HFModel, capsys: pytest.CaptureFixture[str]) -> None:
    weights = model.train(None, examples(), sft, OPTIONS, init_seed=0, rng=np.random.default_rng(0))[0]
    items = prompts(128)

    def both() -> Any:
        model.train(weights, examples(), sft, OPTIONS, init_seed=0, rng=np.random.default_rng(0))
        rng = np.random.default_rng(0)
        return model.answers(weights, items, rng, samples=1, decoding=Decoding(), max_tokens=12)

    wall_s, texts = best_s(both, 2)
    with capsys.disabled():
        print(f"\none run (96 labels trained, 128 items evaluated): {wall_s:.1f} s on this machine")
    assert len(texts) == 128
