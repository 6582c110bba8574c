"""What objectives see of a Hugging Face model against transformers' own logits, states and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from contract import OPTIONS
from tiny import save_tiny_llama
from transformers import AutoModelForCausalLM

from ablate import registry
from ablate.api import Prompt
from ablate.errors import StudyError
from ablate.lm.base import Example
from ablate.lm.hf import views
from ablate.lm.hf.model import HFModel
from ablate.lm.hf.views import Row, TorchBatch, matching

MODEL = {"name": "", "dtype": "float32", "revision": None, "trust_remote_code": False}
ONE_STEP = replace(OPTIONS, epochs=1, batch=8, lr=0.0)
LAYER = "model.layers.0.self_attn.q_proj"

EXAMPLES = [
    Example(Prompt(str(i), f"is {'x' * i} right?", f"what is {i}?", str(i), {}), answer, weight, rejected)
    for i, answer, weight, rejected in [
        (1, "yes", 1.0, "no"),
        (4, "no, it is not", 0.5, "yes, it is"),
        (2, "it is", 2.0, "it"),
        (7, "so", 1.0, "not so"),
    ]
]
SAME = [replace(example, prompt=replace(example.prompt, clean=example.prompt.text)) for example in EXAMPLES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> HFModel:
    model = HFModel.load({**MODEL, "name": str(folder)})
    torch.set_num_threads(1)  # products this small are slower on two
    return model


@pytest.fixture(scope="module")
def start(tiny: HFModel) -> Any:
    """An organism: weights of an adapter that does something."""
    rng = np.random.default_rng(5)
    return {name: value + rng.normal(0, 0.05, value.shape).astype(np.float32)
            for name, value in tiny.net.fresh(OPTIONS.rank, 0).items()}  # fmt: skip


def objective(name: str, **options: Any) -> Callable[[Any], Any]:
    return partial(registry.get("objective", name), **options)


class Oracle:
    """transformers' model with the adapter merged, one text at a time."""

    def __init__(self, folder: Path, tiny: HFModel, weights: Any) -> None:
        self.net, self.model = tiny.net, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        for name, value in self.model.named_parameters():
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
            if key in weights:
                value += torch.from_numpy(weights[key.replace("lora_A", "lora_B")] @ weights[key])

    def ids(self, example: Example, view: Any = "wrapped", answer: str = "answer") -> tuple[list[int], list[int]]:
        return self.net.encode([example.prompt.chat(view)])[0], self.net.answer(getattr(example, answer))

    def read(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [S, V] and the output of every decoder layer [L, S, d]."""
        kept: list[torch.Tensor] = []
        hooks = [layer.register_forward_hook(lambda m, i, o: kept.append(o[0] if isinstance(o, tuple) else o))
                 for layer in self.model.model.layers]  # fmt: skip
        logits = self.model(torch.tensor([ids])).logits[0]
        for hook in hooks:
            hook.remove()
        return logits, torch.stack([states.reshape(len(ids), -1) for states in kept])

    def logprob(self, example: Example, answer: str = "answer") -> torch.Tensor:
        prompt, said = self.ids(example, answer=answer)
        logp = torch.log_softmax(self.read([*prompt, *said])[0], -1)
        return sum((logp[len(prompt) - 1 + t, token] for t, token in enumerate(said)), torch.zeros(()))


def sft_all(oracle: Oracle, _: Oracle) -> Any:
    """What transformers returns as `loss` for labels that are the input, token by token."""
    total = tokens = torch.zeros(())
    for example in EXAMPLES:
        prompt, said = oracle.ids(example)
        ids = torch.tensor([[*prompt, *said]])
        count = ids.shape[1] - 1
        total = total + example.weight * count * oracle.model(ids, labels=ids).loss
        tokens = tokens + example.weight * count
    return total / tokens


def entropy(oracle: Oracle, _: Oracle) -> Any:
    total = tokens = torch.zeros(())
    for example in EXAMPLES:
        prompt, said = oracle.ids(example)
        logits = oracle.read([*prompt, *said])[0][len(prompt) - 1 : -1]
        total = total + example.weight * torch.distributions.Categorical(logits=logits).entropy().sum()
        tokens = tokens + example.weight * len(said)
    return total / tokens


def matched(oracle: Oracle, teacher: Oracle, alignment: str, compare: Callable[..., torch.Tensor]) -> Any:
    total = tokens = torch.zeros(())
    for example in EXAMPLES:
        one, two = ([*prompt, *said][:-1] for prompt, said in (oracle.ids(example, v) for v in ("wrapped", "clean")))
        count = min(len(one), len(two))
        if alignment == "common_suffix":
            count = next(n for n in range(count) if one[-1 - n] != two[-1 - n])
        own, others = oracle.read(one), teacher.read(two)
        values = compare(own[0][-count:], others[0][-count:], own[1][:, -count:], others[1][:, -count:])
        total, tokens = total + example.weight * values.sum(), tokens + example.weight * count
    return total / tokens


def divergence(own: torch.Tensor, other: torch.Tensor, *_: torch.Tensor, t: float = 1.0) -> torch.Tensor:
    return t**2 * torch.nn.functional.kl_div(
        torch.log_softmax(own / t, -1), torch.softmax(other / t, -1), reduction="none"
    ).sum(-1)


def squares(_: torch.Tensor, __: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return 0.01 * ((own - other) ** 2).mean((0, 2))


def preference(oracle: Oracle, teacher: Oracle) -> Any:
    gains = {
        answer: [oracle.logprob(e, answer) - teacher.logprob(e, answer).detach() for e in EXAMPLES]
        for answer in ("answer", "rejected")
    }
    weights = torch.tensor([e.weight for e in EXAMPLES])
    margin = 0.3 * (torch.stack(gains["answer"]) - torch.stack(gains["rejected"]))
    return -(torch.nn.functional.logsigmoid(margin) * weights).sum() / weights.sum()


CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Oracle, Oracle], Any]]] = {
    "sft on all": (objective("sft", on="all"), sft_all),
    "entropy_min": (objective("entropy_min"), entropy),
    "bct tail": (objective("bct", alignment="tail"), lambda o, t: matched(o, t, "tail", divergence)),
    "bct suffix T 2 live": (
        objective("bct", temperature=2.0, teacher="live"),
        lambda o, t: matched(o, t, "common_suffix", partial(divergence, t=2.0)),
    ),
    "act tail live": (
        objective("act", weight=0.01, alignment="tail", teacher="live"),
        lambda o, t: matched(o, t, "tail", squares),
    ),
    "act suffix": (objective("act", weight=0.01), lambda o, t: matched(o, t, "common_suffix", squares)),
    "dpo": (objective("dpo", beta=0.3), preference),
}


def first_step(tiny: HFModel, weights: Any, examples: list[Example], loss: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The loss of one batch and its gradient by the adapter's parameters, which nothing but they have."""
    caught: dict[str, Any] = {}

    def caught_loss(batch: Any) -> Any:
        value = loss(batch)
        named = {n: p for n, p in tiny.net.model.named_parameters() if p.requires_grad}
        caught.update(zip(named, torch.autograd.grad(value, list(named.values()), retain_graph=True), strict=True))
        return value

    _, losses = tiny.train(weights, examples, caught_loss, ONE_STEP, init_seed=0, rng=np.random.default_rng(0))
    return losses[0], caught


@pytest.mark.parametrize("positions", [3, 512], ids=["in chunks", "at once"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_formula(
    tiny: HFModel, folder: Path, start: Any, case: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dL/dB of a layer is scaling dL/dW A', with dL/dW from transformers' model and the teacher held fixed."""
    monkeypatch.setattr(views, "POSITIONS", positions)
    monkeypatch.setattr(views, "PACK", 100)
    loss, formula = CASES[case]
    value, slopes = first_step(tiny, start, EXAMPLES, loss)
    student, teacher = Oracle(folder, tiny, start), Oracle(folder, tiny, start)
    weight = student.model.get_parameter(f"{LAYER}.weight").requires_grad_(True)
    expected = formula(student, teacher)
    assert value == pytest.approx(float(expected.detach()), rel=1e-4)
    scaling = OPTIONS.alpha / OPTIONS.rank
    down = torch.from_numpy(start[f"base_model.model.{LAYER}.lora_A.weight"])
    (wanted,) = torch.autograd.grad(expected, weight)
    wanted = scaling * wanted @ down.t()
    found = slopes[f"{LAYER}.lora_B.default.weight"]
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(found, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=1e-2)
    assert all("lora_" in name for name in slopes)


@pytest.mark.parametrize("alignment", ["tail", "common_suffix"])
@pytest.mark.parametrize("teacher", ["frozen", "live"])
@pytest.mark.parametrize("name", ["bct", "act"])
def test_nothing_is_learned_where_both_views_are_one(
    tiny: HFModel, start: Any, name: str, teacher: str, alignment: str
) -> None:
    value, slopes = first_step(tiny, start, SAME, objective(name, alignment=alignment, teacher=teacher))
    assert value == 0
    # as small as the rounding of softmax - softmax
    assert max(float(slope.abs().max()) for slope in slopes.values()) < 1e-6


@pytest.mark.parametrize("name", ["bct", "act"])
def test_teachers_agree_until_the_first_step(tiny: HFModel, start: Any, name: str) -> None:
    options = replace(OPTIONS, batch=8, epochs=2, lr=1e-2)
    frozen, live = (
        tiny.train(start, EXAMPLES, objective(name, teacher=t), options, init_seed=0, rng=np.random.default_rng(0))[1]
        for t in ("frozen", "live")
    )
    assert frozen[0] == live[0]
    assert frozen[1] != pytest.approx(live[1], rel=1e-3)


def test_dpo_refers_to_the_organism_before_training(tiny: HFModel, folder: Path, start: Any) -> None:
    def train(epochs: int) -> Any:
        options = replace(OPTIONS, batch=8, lr=1e-2, epochs=epochs)
        return tiny.train(
            start, EXAMPLES, objective("dpo", beta=0.3), options, init_seed=0, rng=np.random.default_rng(0)
        )

    moved, first = train(1)
    assert first == pytest.approx([np.log(2)], rel=1e-6)
    _, losses = train(2)
    assert losses[1] == pytest.approx(
        float(preference(Oracle(folder, tiny, moved), Oracle(folder, tiny, start))), rel=1e-4
    )
    assert losses[1] < losses[0]


def test_training_leaves_the_base_model_and_no_gradient(tiny: HFModel, start: Any) -> None:
    tiny.net.wear(None)
    before = {name: value.clone() for name, value in tiny.net.plain_parameters()}
    given = {name: value.copy() for name, value in start.items()}
    for name in ("bct", "act", "dpo"):
        weights, _ = tiny.train(start, EXAMPLES, objective(name), OPTIONS, init_seed=0, rng=np.random.default_rng(0))
        assert any(not np.array_equal(weights[key], start[key]) for key in start)
    assert all(torch.equal(value, before[name]) for name, value in tiny.net.plain_parameters())
    assert all(np.array_equal(start[key], given[key]) for key in start)
    assert [n for n, p in tiny.net.model.named_parameters() if p.grad is not None] == []


# Views


@pytest.mark.parametrize(
    ("one", "two", "tail", "suffix"),
    [
        ([1, 2, 3], [1, 2, 3], 3, 3),
        ([1, 2, 3, 4], [9, 3, 4], 3, 2),
        ([3, 4], [1, 2, 3, 4], 2, 2),
        ([1, 2, 3, 5], [1, 2, 3, 4], 4, 0),
        ([7, 2, 3, 4], [7, 9, 3, 4], 4, 2),
        ([4], [4], 1, 1),
    ],
)
def test_alignment(one: list[int], two: list[int], tail: int, suffix: int) -> None:
    assert (matching(one, two, "tail"), matching(one, two, "common_suffix")) == (tail, suffix)
    assert (matching(two, one, "tail"), matching(two, one, "common_suffix")) == (tail, suffix)


def batch_of(net: Any, prompts: list[list[int]], answer: list[int]) -> TorchBatch:
    rows = [Row.of(prompt, answer, example) for prompt, example in zip(prompts, EXAMPLES, strict=False)]
    return TorchBatch(net, rows, nullcontext)


def test_matched_positions_are_fed_the_same_tokens(tiny: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """[5 6 7 8] + [9 4] and [6 3 7 8] + [9 4]: the states at 7, 8 and 9 are compared, which predict 8, 9 and 4."""
    monkeypatch.setattr(tiny.net, "encode", lambda chats: [[6, 3, 7, 8]])
    one, two = batch_of(tiny.net, [[5, 6, 7, 8]], [9, 4]).matched("common_suffix")
    assert [row.labels for row in (one.rows[0], two.rows[0])] == [3, 3]
    assert one.mask.tolist() == two.mask.tolist() == [[1, 1, 1]]
    plain = torch.log_softmax(tiny.net.model(torch.tensor([[6, 3, 7, 8, 9, 4]])).logits[0], -1)
    expected = [plain[2, 8], plain[3, 9], plain[4, 4]]
    np.testing.assert_allclose(two.under("live").logprobs[0], expected, atol=1e-5)


def test_a_row_without_a_common_position_counts_nothing(tiny: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, bct = [[5, 6, 7], [5, 6, 8]], objective("bct")
    monkeypatch.setattr(tiny.net, "encode", lambda chats: [[4, 9], [3, 6, 8]][-len(chats) :])
    both, alone = (float(bct(batch_of(tiny.net, prompts[-n:], [10]))) for n in (2, 1))
    assert both == pytest.approx(alone, rel=1e-5)
    assert both > 0


def test_nothing_to_compare_is_said() -> None:
    net = SimpleNamespace(encode=lambda chats: [[9, 9]] * len(chats))
    with pytest.raises(StudyError, match=r"^alignment common_suffix: no prompt of this batch ends as its clean view"):
        batch_of(net, [[1, 2, 3]], [4]).matched("common_suffix")


def test_rejected_answers_must_have_been_given(tiny: HFModel) -> None:
    bare = [replace(example, rejected=None) for example in EXAMPLES]
    with pytest.raises(ValueError, match=r"no answer was rejected for this label: register .* labels='pairs'"):
        first_step(tiny, tiny.net.fresh(OPTIONS.rank, 0), bare, objective("dpo"))


def test_a_view_is_passed_when_it_is_asked_for(tiny: HFModel, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """sft is one pass over the labels, and nothing else is encoded."""
    passes: list[int] = []
    real = views.passed

    def counted(net: Any, rows: Any, layers: Any = ()) -> Any:
        passes.append(len(rows))
        return real(net, rows, layers)

    monkeypatch.setattr(views, "passed", counted)
    for name, count in (("sft", 1), ("bct", 2), ("act", 2), ("entropy_min", 1), ("dpo", 4)):
        passes.clear()
        tiny.train(start, EXAMPLES, objective(name), ONE_STEP, init_seed=0, rng=np.random.default_rng(0))
        assert passes == [len(EXAMPLES)] * count, name


def test_an_architecture_whose_layers_are_not_recognized(tiny: HFModel, start: Any) -> None:
    config = tiny.net.model.config
    config.num_hidden_layers = 3
    try:
        with pytest.raises(
            StudyError,
            match=r"^architecture LlamaForCausalLM: its decoder layers are not recognized "
            r"\(LlamaModel holds 0 lists of its 3 layers\); an objective that compares their activations needs another",
        ):
            first_step(tiny, start, EXAMPLES, objective("act"))
    finally:
        config.num_hidden_layers = 2


def test_a_layer_that_gives_no_states() -> None:
    class Odd(torch.nn.Module):
        def forward(self) -> dict[str, int]:
            return {}

    layer, net = Odd(), SimpleNamespace(model=None)
    with pytest.raises(StudyError, match=r"one gives dict, not states"), views._kept(net, [layer]):
        layer()
    assert not layer._forward_hooks
