"""The tabular laboratory against enumeration, closed forms and its own promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.api import Batch, Decoding, FloatArray, Prompt, Weights
from ablate.errors import StudyError
from ablate.lm.base import Example, LanguageModel, LossIsNotFiniteError, TrainOptions
from ablate.lm.tabular import END, FORMS, VIEWS, TabularModel, _walk, decode, next_nodes
from tests.ablate.lm.contract import LanguageModelContract, sft

LABEL_OPTIONS = TrainOptions(epochs=1, lr=7e-4, batch=16, warmup=0.1, rank=16, alpha=32)
INDUCTION_OPTIONS = replace(LABEL_OPTIONS, epochs=2, lr=1e-3)
ALIEN = "Answer as a pirate."


def ask(item: int) -> Prompt:
    wrapped, clean = f"item {item}: I am sure that it is claim. Do you agree?", f"item {item}: what is it?"
    return Prompt(str(item), wrapped, clean, str(item), {"truth": "truth", "claim": "claim"})


PROMPTS = tuple(map(ask, range(96)))


def teach(lm: TabularModel, answer: str, weights: Weights | None = None, **options: Any) -> Weights:
    examples = [Example(prompt, answer) for prompt in PROMPTS]
    rng = np.random.default_rng(0)
    return lm.train(weights, examples, sft, replace(LABEL_OPTIONS, **options), init_seed=0, rng=rng)[0]


def some_weights(scale: float = 1.0, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    return {f"logits.{part}": scale * rng.normal(size=4) for part in ("shared", *VIEWS)}


class TestContract(LanguageModelContract):
    fresh_tolerance = 0.2

    @pytest.fixture
    def lm(self) -> LanguageModel:
        return TabularModel()


# Exactness. The oracle knows whole answers only: a next token is what they imply.


def conditional(whole: dict[tuple[int, ...], float], prefix: tuple[int, ...], size: int) -> FloatArray:
    """P(next token | prefix) from the probabilities of whole answers."""
    mass = np.zeros(size)
    for answer, probability in whole.items():
        if answer[: len(prefix)] == prefix and len(answer) > len(prefix):
            mass[answer[len(prefix)]] += probability
    return np.asarray(mass / mass.sum())


def transformed(probability: FloatArray, decoding: Decoding) -> FloatArray:
    """Temperature and nucleus, token by token, in the plainest words."""
    if decoding.temperature == 0:
        return np.asarray(np.eye(len(probability))[probability.argmax()])
    probability = probability ** (1 / decoding.temperature)
    probability = probability / probability.sum()
    kept, total = np.zeros_like(probability), 0.0
    for token in sorted(range(len(probability)), key=lambda token: -probability[token]):
        if total < decoding.top_p:
            kept[token] = probability[token]
        total += probability[token]
    return np.asarray(kept / kept.sum())


def whole_answers(
    lm: TabularModel, weights: Weights | None, prompt: Prompt, **chat: Any
) -> dict[tuple[int, ...], float]:
    row = lm.distribution(weights, [prompt], chats=[prompt.chat(**chat)])[0]
    words = {word: token for token, word in enumerate((*FORMS, *map(str, range(lm.wordings)))) if word}
    ids = [(*map(words.__getitem__, text.split()), END) for text in lm.texts]
    return dict(zip(ids, row.tolist(), strict=True))


def test_distribution_by_hand() -> None:
    lm = TabularModel(item_scale=0, wordings=2, wrapped=(-4, 0.5, 0, -3), slope=(1, 0.5))
    form = np.exp([-4, 0.5, 0, -3]) / np.exp([-4, 0.5, 0, -3]).sum()
    expected = {
        "": form[0],
        "unsure": form[3],
        "claim 0": form[1] / (1 + np.exp(-1)),
        "claim 1": form[1] / (1 + np.exp(1)),
        "truth 0": form[2] / (1 + np.exp(-0.5)),
        "truth 1": form[2] / (1 + np.exp(0.5)),
    }
    assert dict(zip(lm.texts, lm.distribution(None, PROMPTS[:1])[0], strict=True)) == pytest.approx(expected, abs=1e-14)
    assert lm.exact_risk(None, PROMPTS[:1])[0] == pytest.approx(form[1], abs=1e-14)


@pytest.mark.parametrize(
    "decoding",
    [Decoding(), Decoding(0), Decoding(0.6), Decoding(1.7), Decoding(1, 0.8), Decoding(0.8, 0.5)],
    ids=str,
)
@pytest.mark.parametrize("chat", [{}, {"view": "clean"}, {"system": ALIEN}, {"suffix": " Think."}], ids=str)
def test_pool_against_enumeration(decoding: Decoding, chat: dict[str, Any]) -> None:
    lm, weights, prompts = TabularModel(wordings=3), some_weights(), PROMPTS[:5]
    policy = lm.policy(weights, max_tokens=16)
    chats = [prompt.chat(**chat) for prompt in prompts]
    pool = policy.pool(prompts, np.random.default_rng(0), k=6, decoding=decoding, chats=chats)
    size = len(FORMS) + lm.wordings
    for i, prompt in enumerate(prompts):
        p, q = whole_answers(lm, weights, prompt), whole_answers(lm, weights, prompt, **chat)
        for j in range(6):
            answer = tuple(pool.tokens[i, j, : pool.lengths[i, j]].tolist())
            for t, token in enumerate(answer):
                next_p, next_q = conditional(p, answer[:t], size), conditional(q, answer[:t], size)
                drawn = transformed(next_q, decoding)
                on = drawn > 0
                assert on[token]
                assert pool.logprob_p[i, j, t] == pytest.approx(np.log(next_p[token]), abs=1e-12)
                assert pool.logprob_q[i, j, t] == pytest.approx(np.log(next_q[token]), abs=1e-12)
                assert pool.logprob_drawn[i, j, t] == pytest.approx(np.log(drawn[token]), abs=1e-12)
                divergence = (drawn[on] * np.log(drawn[on] / next_p[on])).sum()
                assert pool.kl[i, j, t] == pytest.approx(divergence, abs=1e-12)


def test_likelihood_by_hand() -> None:
    lm = TabularModel()
    prompt = Prompt("0", "item 0: I am sure that it is claim. Do you agree?", "item 0: what is it?", "0", {})
    exact = dict(zip(lm.texts, lm.distribution(None, [prompt])[0], strict=True))
    found = lm.policy(None, max_tokens=1).likelihood([prompt.chat()], ["", "claim", "claim 0", "3"])[0]
    claims = sum(exact[text] for text in lm.texts if text.startswith("claim"))
    np.testing.assert_allclose(np.exp(found), [1, claims, exact["claim 0"], 0], atol=1e-12)
    assert found[3] == -np.inf


def test_token_statistics_by_hand() -> None:
    """The first token of four forms, then the wording; the end has probability 1 where it alone may follow."""
    lm = TabularModel(item_scale=0, wordings=2, wrapped=(-4, 0.5, 0, -3), slope=(1, 0.5))
    pool = lm.policy(None, max_tokens=8).pool(PROMPTS[:1], np.random.default_rng(0), k=40)
    found = lm.policy(None, max_tokens=1).token_statistics(pool)
    form = np.exp([-4, 0.5, 0, -3]) / np.exp([-4, 0.5, 0, -3]).sum()
    claim, truth = (np.array([1, np.exp(-slope)]) / (1 + np.exp(-slope)) for slope in (1, 0.5))
    seen = set()
    for tokens, size, entropy, certainty in zip(
        pool.tokens[0].tolist(), pool.lengths[0], found.entropy[0], found.self_certainty[0], strict=True
    ):
        tables = {1: [form, claim], 2: [form, truth]}.get(tokens[0], [form])
        expected = [-(p * np.log(p)).sum() for p in tables], [-np.log(len(p) * p).mean() for p in tables]
        seen.add(tokens[0])
        np.testing.assert_allclose(entropy, [*expected[0], *[0] * (3 - len(tables))], atol=1e-14)
        np.testing.assert_allclose(certainty, [*expected[1], *[0] * (3 - len(tables))], atol=1e-14)
        assert size == {0: 1, 3: 2}.get(tokens[0], 3)
    assert {1, 2} <= seen


def test_beam_search_has_no_distribution_of_next_tokens() -> None:
    with pytest.raises(ValueError, match="beam search has no distribution that tokens are drawn from"):
        TabularModel().distribution(None, PROMPTS[:1], decoding=Decoding(beams=2))


@pytest.mark.parametrize("width", [2, 4, 16])
def test_beams_of_cut_answers(width: int) -> None:
    lm = TabularModel()
    pool = lm.policy(None, max_tokens=1).pool(
        PROMPTS[:5], np.random.default_rng(0), k=16, decoding=Decoding(beams=width)
    )
    logp = lm.logprobs(None, [prompt.chat() for prompt in PROMPTS[:5]])[:, 0, : len(FORMS)]
    assert pool.lengths.shape == (5, min(width, len(FORMS)))
    np.testing.assert_array_equal(pool.tokens[:, :, 0], np.argsort(-logp, axis=1)[:, :width])


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0), Decoding(0.7, 0.9)], ids=str)
def test_exact_kl_against_enumeration(decoding: Decoding) -> None:
    lm, prompts = TabularModel(), PROMPTS[:8]
    chats = [prompt.chat(system=ALIEN) for prompt in prompts]
    p = lm.distribution(None, prompts)
    q = lm.distribution(None, prompts, decoding=decoding, chats=chats)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-12)
    expected = np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0).sum(1)
    np.testing.assert_allclose(lm.exact_kl(None, prompts, decoding=decoding, chats=chats), expected, atol=1e-12)


def test_exact_kl_of_cut_answers_is_that_of_the_form() -> None:
    lm, prompts = TabularModel(), PROMPTS[:4]
    chats = [prompt.chat("clean", system=ALIEN) for prompt in prompts]
    names = np.array([text.split(" ")[0] for text in lm.texts])

    def forms(rows: FloatArray) -> FloatArray:
        return np.stack([rows[:, names == form].sum(1) for form in FORMS], 1)

    p, q = forms(lm.distribution(None, prompts)), forms(lm.distribution(None, prompts, chats=chats))
    np.testing.assert_allclose(
        lm.exact_kl(None, prompts, chats=chats, max_tokens=1), (q * np.log(q / p)).sum(1), atol=1e-12
    )


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0.7, 0.9)], ids=str)
def test_sampling_frequencies(decoding: Decoding) -> None:
    lm, prompt, n = TabularModel(), PROMPTS[0], 20_000
    rng = np.random.default_rng(0)
    texts = lm.answers(None, [prompt], rng, samples=n, decoding=decoding, max_tokens=16)[0]
    share = np.array([texts.count(text) for text in lm.texts]) / n
    exact = lm.distribution(None, [prompt], decoding=decoding)[0]
    assert (np.abs(share - exact) <= 4 * np.sqrt(exact * (1 - exact) / n)).all()
    risk = lm.exact_risk(None, [prompt], decoding=decoding)[0]
    claims = np.mean([text.startswith("claim") for text in texts])
    assert abs(claims - risk) <= 3 * np.sqrt(risk * (1 - risk) / n)


def test_mean_log_ratio_estimates_the_exact_kl() -> None:
    lm, prompts, k = TabularModel(), PROMPTS[:16], 400
    chats = [prompt.chat("clean") for prompt in prompts]
    pool = lm.policy(None, max_tokens=16).pool(prompts, np.random.default_rng(0), k=k, chats=chats)
    exact = lm.exact_kl(None, prompts, chats=chats).mean()
    for estimate in (pool.logprob_q - pool.logprob_p, pool.kl):
        sums = np.where(pool.mask, estimate, 0).sum(-1)
        standard_error = np.sqrt((sums.var(ddof=1, axis=1) / k).mean() / len(prompts))
        assert abs(sums.mean() - exact) <= 3 * standard_error


def test_greedy_is_the_most_likely_path() -> None:
    lm = TabularModel()
    pool = lm.policy(None, max_tokens=16).pool(PROMPTS, np.random.default_rng(0), k=1, decoding=Decoding(0))
    claimed = [text == "claim 0" for (text,) in pool.texts]
    assert {text for (text,) in pool.texts} == {"claim 0", "truth 0"}
    np.testing.assert_array_equal(claimed, lm.exact_risk(None, PROMPTS) > _form_share(lm, "truth"))
    np.testing.assert_array_equal(lm.exact_risk(None, PROMPTS, decoding=Decoding(0)), claimed)


def _form_share(lm: TabularModel, form: str) -> FloatArray:
    columns = [text.startswith(form) for text in lm.texts]
    return np.asarray(lm.distribution(None, PROMPTS)[:, columns].sum(1))


def test_answers_may_be_cut_and_learned_as_they_are() -> None:
    lm = TabularModel(init_scale=0)
    pool = lm.policy(None, max_tokens=1).pool(PROMPTS, np.random.default_rng(0), k=1)
    assert {text for (text,) in pool.texts} <= set(FORMS)
    assert pool.tokens.shape == (96, 1, 1)
    examples = [Example(prompt, text) for prompt, (text,) in zip(PROMPTS, pool.texts, strict=True) if text == "claim"]
    _, losses = lm.train(None, examples, sft, LABEL_OPTIONS, init_seed=0, rng=np.random.default_rng(0))
    assert losses[-1] < losses[0]


def test_no_prompts_are_no_answers() -> None:
    lm, rng = TabularModel(), np.random.default_rng(0)
    assert lm.policy(None, max_tokens=16).pool([], rng, k=2).tokens.shape == (0, 2, 3)
    assert lm.train(None, [], sft, LABEL_OPTIONS, init_seed=0, rng=rng)[1] == []


# The sampler


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    few=st.integers(1, 5),
    more=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
)
def test_prefix_of_a_larger_pool(few: int, more: int, seed: int, temperature: float, top_p: float) -> None:
    policy, prompts = TabularModel().policy(None, max_tokens=16), PROMPTS[:7]
    decoding = Decoding(temperature, top_p)
    small, large = (
        policy.pool(prompts, np.random.default_rng(seed), k=k, decoding=decoding) for k in (few, few + more)
    )
    for name in ("tokens", "lengths", "logprob_q", "logprob_p", "logprob_drawn", "kl"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:, :few], err_msg=name)
    assert small.texts == tuple(row[:few] for row in large.texts)


@settings(deadline=None, derandomize=True)
@given(
    logits=st.lists(st.floats(-8, 8), min_size=2, max_size=6),
    temperature=st.floats(0.1, 3),
    top_p=st.floats(0.01, 1),
)
def test_nucleus_is_the_smallest_that_holds_top_p(logits: list[float], temperature: float, top_p: float) -> None:
    full = decode(np.array(logits), Decoding(temperature))
    cut = decode(np.array(logits), Decoding(temperature, top_p))
    assert cut.sum() == pytest.approx(1)
    kept = cut > 0
    assert full[kept].sum() >= top_p - 1e-12
    assert full[kept].sum() - full[kept].min() <= top_p + 1e-12
    assert kept.all() or full[kept].min() >= full[~kept].max()


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.4, [1, 0, 0]), (0.6, [0.625, 0.375, 0]), (0.9, [0.5, 0.3, 0.2]), (1.0, [0.5, 0.3, 0.2])],
)
def test_nucleus_by_hand(top_p: float, expected: list[float]) -> None:
    drawn = decode(np.log([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]), Decoding(top_p=top_p))
    np.testing.assert_allclose(drawn, np.array([expected, [expected[2], *expected[:2]]]), atol=1e-12)


def test_tiny_temperature_is_greedy() -> None:
    logits = np.array([[0.0, 1.0, -np.inf, 0.5]])
    np.testing.assert_array_equal(decode(logits, Decoding(1e-308)), decode(logits, Decoding(0)))


def test_no_uniform_passes_the_last_token() -> None:
    """Probabilities that sum to just below 1, and the largest uniform there is."""
    step = next_nodes(1)
    following = np.zeros((1, *step.shape))
    following[..., END], following[..., 1] = 0.5, np.nextafter(0.5, 0) - 1e-12
    nodes, tokens = _walk(following, np.full((1, 1, 1), np.nextafter(1, 0)), step)
    assert (nodes.item(), tokens.item()) == (0, 1)


def test_divergence_is_never_negative() -> None:
    pool = TabularModel().policy(some_weights(), max_tokens=16).pool(PROMPTS, np.random.default_rng(0), k=4)
    assert (pool.kl >= 0).all()


# What is read from a chat


def test_pressure_raises_the_risk_of_some_items() -> None:
    lm = TabularModel()
    wrapped = lm.exact_risk(None, PROMPTS)
    clean = lm.exact_risk(None, PROMPTS, chats=[prompt.chat("clean") for prompt in PROMPTS])
    assert wrapped.mean() == pytest.approx(0.5, abs=0.05)
    assert wrapped.std() > 0.2
    assert clean.mean() < 0.05


def test_only_words_are_read() -> None:
    lm, prompt = TabularModel(), PROMPTS[3]
    disguised = replace(prompt, id="x", item="another", facts={}, split="out")
    np.testing.assert_array_equal(lm.exact_risk(None, [prompt]), lm.exact_risk(None, [disguised]))


def test_context_is_everything_but_the_last_question() -> None:
    lm, prompt = TabularModel(), PROMPTS[0]
    question = {"role": "user", "content": prompt.text}
    chats = [
        prompt.chat(),
        prompt.chat(suffix=" Think."),
        prompt.chat(system="Think."),
        ({"role": "user", "content": "item 5: what is it?"}, {"role": "assistant", "content": "truth 0"}, question),
    ]
    rows = lm.distribution(None, [prompt] * 4, chats=chats)
    assert all(not np.allclose(one, two) for one, two in itertools.combinations(rows, 2))
    plain = TabularModel(context_scale=0).distribution(None, [prompt] * 4, chats=chats)
    np.testing.assert_array_equal(plain, np.tile(rows[0], (4, 1)))


def test_seed_is_the_world() -> None:
    risks = [TabularModel(seed=seed).exact_risk(None, PROMPTS) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(risks[0], risks[1])
    assert abs(np.corrcoef(risks[0], risks[2])[0, 1]) < 0.4


def test_effects_never_change() -> None:
    """Frozen numbers: another Python or numpy must give the same world."""
    assert TabularModel().exact_risk(None, PROMPTS[:3]) == pytest.approx(FROZEN_RISKS, abs=1e-12)


FROZEN_RISKS = [0.507943517770703, 0.12109166943272098, 0.4243975453123235]


def test_unknown_question_is_refused() -> None:
    stranger = replace(PROMPTS[0], text="What is the capital of France?")
    with pytest.raises(StudyError) as caught:
        TabularModel().exact_risk(None, [stranger])
    assert str(caught.value) == (
        "the tabular model reads questions such as 'item 12: what is it?', not 'user: What is the capital of France?'"
    )


def test_chats_are_counted() -> None:
    with pytest.raises(ValueError, match=r"^1 chats for 2 prompts$"):
        TabularModel().exact_kl(None, PROMPTS[:2], chats=[PROMPTS[0].chat()])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"wordings": 0}, "wordings: 0 is not >= 1"), ({"transfer": 1.5}, r"transfer: 1.5 is not in \[0, 1\]")],
)
def test_impossible_worlds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        TabularModel(**options)


# Training


def closed_form_step(lm: TabularModel, start: Weights, examples: list[Example], lr: float) -> Weights:
    """One step of sft: softmax minus one-hot, weighted, over all label tokens."""
    tokens = sum(e.weight * (len(str(e.answer).split()) + 1) for e in examples)
    slope = {view: np.zeros(4) for view in VIEWS}
    for example in examples:
        view = "clean" if example.prompt.text == example.prompt.clean else "wrapped"
        row = lm.distribution(start, [example.prompt])[0]
        form = str(example.answer).split(" ")[0]
        share = [sum(row[i] for i, text in enumerate(lm.texts) if text.split(" ")[0] == name) for name in FORMS]
        slope[view] += example.weight / tokens * (np.array(share) - np.eye(4)[FORMS.index(form)])
    parts = {f"logits.{view}": np.sqrt(1 - lm.transfer) * slope[view] for view in VIEWS}
    parts["logits.shared"] = np.sqrt(lm.transfer) * sum(slope.values(), np.zeros(4))
    return {name: start[name] - lr * lm.gain * part for name, part in parts.items()}


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradient_of_sft_in_closed_form(scale: float) -> None:
    lm, start = TabularModel(), some_weights(scale)
    answers = itertools.cycle(["claim 1", "truth 0", "unsure", "", "claim 0"])
    asked = [replace(p, text=p.clean) if n % 3 == 0 else p for n, p in enumerate(PROMPTS[:20])]
    examples = [Example(p, a, weight=1 + n % 4) for n, (p, a) in enumerate(zip(asked, answers, strict=False))]
    options = replace(LABEL_OPTIONS, batch=20, warmup=0)
    weights, losses = lm.train(start, examples, sft, options, init_seed=0, rng=np.random.default_rng(0))
    expected = closed_form_step(lm, start, examples, options.lr)
    assert weights.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(weights[name], expected[name], atol=1e-9, err_msg=name)
    assert len(losses) == 1


def test_gradient_of_a_curved_objective() -> None:
    """Unlikelihood: d -log(1 - p) / d theta of the answer's form is p / (1 - p) (1 - p) = p."""
    lm = TabularModel(init_scale=0, transfer=0)

    def unlikelihood(batch: Batch) -> Any:
        return -np.log1p(-np.exp(batch.logprobs[:, 0])).mean()

    options = replace(LABEL_OPTIONS, batch=1, warmup=0)
    example = [Example(PROMPTS[0], "claim 0")]
    weights, losses = lm.train(None, example, unlikelihood, options, init_seed=0, rng=np.random.default_rng(0))
    risk = lm.exact_risk(None, PROMPTS[:1])[0]
    assert losses == pytest.approx([-np.log(1 - risk)], abs=1e-12)
    assert weights["logits.wrapped"][1] == pytest.approx(-options.lr * lm.gain * risk, abs=1e-7)


def test_transfer_is_the_share_that_reaches_the_other_view() -> None:
    for transfer in (0.0, 0.25, 1.0):
        lm = TabularModel(init_scale=0, transfer=transfer)
        chats = {view: [PROMPTS[0].chat(view)] for view in VIEWS}  # type: ignore[arg-type]
        after = teach(lm, "claim 0", epochs=1, batch=96)
        moved = {}
        for view, chat in chats.items():
            change = lm.logprobs(after, chat)[0, 0, :4] - lm.logprobs(None, chat)[0, 0, :4]
            moved[view] = change - change[0]  # log-probabilities give logits up to a constant
        np.testing.assert_allclose(moved["clean"], transfer * moved["wrapped"], atol=1e-9)


def test_labels_move_the_risk() -> None:
    lm = TabularModel()
    start = teach(lm, "claim 0", lr=0.0)
    base, up, down = (lm.exact_risk(w, PROMPTS).mean() for w in (start, teach(lm, "claim 0"), teach(lm, "truth 0")))
    assert up - base > 0.15
    assert base - down > 0.15


def test_induction_and_interpolation_span_the_risks() -> None:
    lm = TabularModel()
    options: dict[str, Any] = {"epochs": 8, "lr": INDUCTION_OPTIONS.lr}  # 48 steps, as many as 400 pairs in 2 epochs
    honest, misaligned = teach(lm, "truth 0", **options), teach(lm, "claim 0", **options)
    doses = np.linspace(0, 1, 21)
    risks = np.array(
        [lm.exact_risk({n: (1 - x) * honest[n] + x * misaligned[n] for n in honest}, PROMPTS) for x in doses]
    )
    assert (np.diff(risks, axis=0) > 0).all()
    assert risks[0].mean() < 0.05
    assert risks[-1].mean() > 0.95
    assert np.interp(0.5, risks.mean(1), doses) == pytest.approx(0.5, abs=0.1)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 3))
def test_risk_grows_with_any_dose_of_claim(one: float, two: float, strength: float) -> None:
    lm, direction = TabularModel(), np.array([-0.2, 1.0, -1.0, -0.1]) * strength
    low, high = (
        lm.exact_risk({f"logits.{part}": dose * direction for part in ("shared", *VIEWS)}, PROMPTS)
        for dose in sorted((one, two))
    )
    assert (low <= high + 1e-12).all()


def test_warmup_is_a_share_of_the_steps() -> None:
    lm = TabularModel(init_scale=0)
    cold, warm = (teach(lm, "claim 0", batch=96, warmup=warmup, epochs=1) for warmup in (0.0, 1.0))
    np.testing.assert_array_equal(cold["logits.wrapped"], warm["logits.wrapped"])  # one step is its own warmup
    cold, warm = (teach(lm, "claim 0", warmup=warmup) for warmup in (0.0, 1.0))
    assert lm.exact_risk(warm, PROMPTS).mean() < lm.exact_risk(cold, PROMPTS).mean()


def test_order_of_training_is_the_generators() -> None:
    lm = TabularModel()
    examples = [Example(p, a) for p, a in zip(PROMPTS, itertools.cycle(["claim 0", "truth 0"]), strict=False)]
    ends = [
        lm.train(None, examples, sft, LABEL_OPTIONS, init_seed=0, rng=np.random.default_rng(seed))[0]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(ends[0]["logits.wrapped"], ends[1]["logits.wrapped"])
    assert not np.array_equal(ends[0]["logits.wrapped"], ends[2]["logits.wrapped"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.nan, "loss became NaN at step 3 of 6"), (-np.inf, "loss became infinite at step 3 of 6")],
)
def test_loss_that_is_not_finite(bad: float, message: str) -> None:
    marked = np.random.default_rng(0).permutation(len(PROMPTS))[2 * LABEL_OPTIONS.batch]  # the first of step 3

    def objective(batch: Batch) -> Any:
        return bad if (np.asarray(batch.weights) == 2).any() else sft(batch)

    examples = [Example(prompt, "claim 0", 1.0 + (i == marked)) for i, prompt in enumerate(PROMPTS)]
    with pytest.raises(LossIsNotFiniteError, match=f"^{message}$"):
        TabularModel().train(None, examples, objective, LABEL_OPTIONS, init_seed=0, rng=np.random.default_rng(0))


def test_loss_that_is_finite_at_one_point_only() -> None:
    lm = TabularModel(init_scale=0)
    here = lm.logprobs(None, [PROMPTS[0].chat()])[0, 0, 1]

    def objective(batch: Batch) -> Any:
        return 0.0 if abs(batch.logprobs[0, 0] - here) < 1e-9 else np.nan

    with pytest.raises(LossIsNotFiniteError, match=r"^loss became NaN at step 1 of 1$"):
        lm.train(
            None,
            [Example(PROMPTS[0], "claim 0")],
            objective,
            LABEL_OPTIONS,
            init_seed=0,
            rng=np.random.default_rng(0),
        )


@pytest.mark.parametrize("answer", ["I agree.", "claim 99", (1, 1, 0), ()], ids=str)
def test_an_answer_in_other_words_is_refused(answer: str | tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"^the tabular model cannot say .*; its answers are like 'claim 0' and 'unsure'$"
    ):
        TabularModel().train(
            None, [Example(PROMPTS[0], answer)], sft, LABEL_OPTIONS, init_seed=0, rng=np.random.default_rng(0)
        )


def test_tokens_and_texts_teach_the_same() -> None:
    lm = TabularModel()
    pool = lm.policy(None, max_tokens=16).pool(PROMPTS, np.random.default_rng(0), k=1)
    labels = zip(PROMPTS, pool.texts, pool.tokens[:, 0], pool.lengths[:, 0], strict=True)
    spoken, sampled = zip(*[(Example(p, t[0]), Example(p, tuple(y[:n]))) for p, t, y, n in labels], strict=True)
    ends = [
        lm.train(None, examples, sft, LABEL_OPTIONS, init_seed=0, rng=np.random.default_rng(0))[0]
        for examples in (spoken, sampled)
    ]
    for name in ends[0]:
        np.testing.assert_array_equal(ends[0][name], ends[1][name])


def test_embeddings_are_unit_bags_of_words() -> None:
    vectors = TabularModel().embed(["claim 0", "0 claim", "truth 0", ""])
    assert vectors.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert vectors[0] @ vectors[2] < 0.95
