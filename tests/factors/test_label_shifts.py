from dataclasses import dataclass, field

import numpy as np
import pytest

from ablate import registry
from ablate.api import Decoding
from ablate.errors import StudyError
from ablate.factors.label_shifts.decodings import greedy, none, nucleus
from ablate.lm.tabular import TabularModel
from ablate.testing import LabelShiftContract, ask, every, rng

STRICT = "Be strict."
SHOTS = (("item 900: what is it?", "truth 0"), ("item 901: what is it?", "truth 1"))
PROMPTS = tuple(map(ask, range(30)))
LM = TabularModel()
POLICY = LM.policy(None, max_tokens=8)


class TestShipped(LabelShiftContract):
    @pytest.fixture(params=every("label_shift", system_prompt={"text": STRICT}, few_shot={"examples": SHOTS}))
    def level(self, request):
        return request.param


class TestNarrowNucleus(LabelShiftContract):
    """Half of the probability: most tokens are cut off."""

    @pytest.fixture
    def level(self):
        return "nucleus", {"temperature": 0.7, "top_p": 0.5}


def of(name, k=6, **options):
    """A pool by the options as a study validates them."""
    plugin = registry.get("label_shift", name)
    return plugin(POLICY, PROMPTS, rng(), k=k, **dict(plugin.options.model_validate(options)))


def sums(pool, values):
    return np.where(pool.mask, values, 0).sum(2)


@dataclass
class Recorder:
    """A policy that notes what it is asked."""

    asked: list = field(default_factory=list)

    def pool(self, prompts, rng, **options):
        self.asked.append((prompts, options))
        return POLICY.pool(prompts, rng, **options)


def asked(name, **options):
    policy = Recorder()
    registry.get("label_shift", name)(policy, PROMPTS, rng(), k=6, **options)
    ((prompts, given),) = policy.asked
    assert prompts == PROMPTS
    return given


def test_none_is_the_organism_itself():
    pool = of("none")
    np.testing.assert_allclose(pool.kl, 0, atol=1e-15)
    np.testing.assert_array_equal(pool.logprob_q, pool.logprob_p)
    np.testing.assert_allclose(pool.logprob_drawn, pool.logprob_p, atol=1e-14)
    assert asked("none") == {"k": 6}


def test_greedy_has_one_candidate_and_it_is_the_mode():
    pool = of("greedy")
    assert pool.lengths.shape == (len(PROMPTS), 1)
    assert pool.texts == POLICY.pool(PROMPTS, rng(5), k=1, decoding=Decoding(temperature=0)).texts
    np.testing.assert_array_equal(sums(pool, pool.logprob_drawn), 0)
    np.testing.assert_allclose(sums(pool, pool.kl), -sums(pool, pool.logprob_p), atol=1e-12)
    for i, chat in enumerate(prompt.chat() for prompt in PROMPTS):
        assert pool.tokens[i, 0, 0] == LM.logprobs(None, [chat])[0, 0].argmax()


def test_greedy_takes_no_chances():
    assert greedy(POLICY, PROMPTS, rng(0), k=4).texts == greedy(POLICY, PROMPTS, rng(1), k=1).texts


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (1.0, 0.4), (0.5, 1.0), (0.7, 0.8), (2.0, 0.95)])
def test_nucleus_by_hand(temperature, top_p):
    """The first token: temperature, then the fewest tokens that hold top_p, then the sum is 1 again."""
    pool = nucleus(POLICY, PROMPTS, rng(), k=20, temperature=temperature, top_p=top_p)
    raw = LM.logprobs(None, [prompt.chat() for prompt in PROMPTS])[:, 0]
    for i, logits in enumerate(raw):
        p = np.exp(logits / temperature)
        p /= p.sum()
        ranked = np.argsort(-p)
        kept = ranked[: 1 + int((p[ranked].cumsum() < top_p).sum())]
        expected = np.full(len(p), -np.inf)
        kept = kept[p[kept] > 0]
        expected[kept] = np.log(p[kept] / p[kept].sum())
        token = pool.tokens[i, :, 0]
        assert set(token.tolist()) <= set(kept.tolist())
        np.testing.assert_allclose(pool.logprob_drawn[i, :, 0], expected[token], atol=1e-12)
        q = np.exp(expected[kept])
        np.testing.assert_allclose(pool.kl[i, :, 0], (q * (expected[kept] - logits[kept])).sum(), atol=1e-12)
    np.testing.assert_array_equal(pool.logprob_q, pool.logprob_p)  # raw: the decoding is in logprob_drawn alone


def test_nucleus_without_truncation_is_none():
    np.testing.assert_array_equal(
        nucleus(POLICY, PROMPTS, rng(), k=6, temperature=1.0, top_p=1.0).tokens,
        none(POLICY, PROMPTS, rng(), k=6).tokens,
    )
    assert asked("nucleus") == {"k": 6, "decoding": Decoding(1.0, 0.9)}


@pytest.mark.parametrize(
    ("name", "options", "chats", "more"),
    [
        ("clean_view", {}, [p.chat("clean") for p in PROMPTS], {}),
        ("cot_view", {}, [p.chat(suffix=" Think step by step, then answer.") for p in PROMPTS], {"max_tokens": 32}),
        (
            "cot_view",
            {"instruction": "Why?", "max_tokens": 5},
            [p.chat(suffix=" Why?") for p in PROMPTS],
            {"max_tokens": 5},
        ),
        (
            "json_view",
            {},
            [p.chat(suffix=' Give your answer as a JSON object with the key "answer".') for p in PROMPTS],
            {"max_tokens": 32},
        ),
        ("wrapped_view", {}, [p.chat(suffix=" I am quite certain of this.") for p in PROMPTS], {}),
        ("wrapped_view", {"pressure": ""}, [p.chat() for p in PROMPTS], {}),
        ("system_prompt", {"text": STRICT}, [p.chat(system=STRICT) for p in PROMPTS], {}),
        ("inoculation", {"prefix": "Lie."}, [p.chat(prefix="Lie. ") for p in PROMPTS], {}),
    ],
)
def test_views_show_another_chat_and_decode_as_the_organism_does(name, options, chats, more):
    assert asked(name, **options) == {"k": 6, "chats": chats, **more}


@pytest.mark.parametrize("name", ["clean_view", "cot_view", "system_prompt"])
def test_views_have_the_exact_divergence(name):
    options = {"text": STRICT} if name == "system_prompt" else {}
    chats = asked(name, **options)["chats"]
    pool = registry.get("label_shift", name)(POLICY, PROMPTS, rng(), k=200, **options)
    exact = LM.exact_kl(None, PROMPTS, chats=chats).mean()
    per_answer = sums(pool, pool.kl)
    error = per_answer.mean() - exact
    assert exact > 0.01
    assert abs(error) < 3 * per_answer.std(axis=1, ddof=1).mean() / np.sqrt(per_answer.size) + 1e-12


@pytest.mark.parametrize("name", ["none", "nucleus", "clean_view", "cot_view", "system_prompt"])
def test_candidates_are_as_many_as_asked_for_and_fewer_are_a_prefix(name):
    options = {"text": STRICT} if name == "system_prompt" else {}
    few, many = (registry.get("label_shift", name)(POLICY, PROMPTS, rng(), k=k, **options) for k in (2, 5))
    assert many.lengths.shape == (len(PROMPTS), 5)
    assert few.texts == tuple(row[:2] for row in many.texts)


def test_examples_are_earlier_turns():
    chat = asked("few_shot", examples=SHOTS)["chats"][0]
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in chat] == [*SHOTS[0], *SHOTS[1], PROMPTS[0].text]


def test_temperature_is_a_nucleus_that_cuts_nothing():
    one, other = of("temperature", temperature=0.7), of("nucleus", temperature=0.7, top_p=1.0)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.kl, other.kl)


def test_an_organism_under_no_further_pressure_is_itself():
    np.testing.assert_array_equal(of("wrapped_view", pressure="").tokens, of("none").tokens)


@pytest.mark.parametrize(("k", "found"), [(1, 1), (3, 3), (4, 4), (9, 4)])
def test_beams_are_the_most_probable_answers(k, found):
    """Against the probabilities of all answers; with four beams nothing is lost on this tree."""
    pool = of("beam", k=k, length_penalty=0.0)
    exact = LM.distribution(None, PROMPTS)
    best = np.argsort(-exact, axis=1)[:, :found]
    assert pool.texts == tuple(tuple(LM.texts[i] for i in row) for row in best)
    np.testing.assert_allclose(sums(pool, pool.logprob_p), np.log(np.take_along_axis(exact, best, 1)), atol=1e-12)


def test_a_length_penalty_prefers_longer_answers():
    short, long = (of("beam", k=4, length_penalty=penalty).lengths[:, 0].mean() for penalty in (-3.0, 3.0))
    assert short < long


def test_a_beam_is_a_point_mass():
    """As greedy is: nothing is drawn, and KL(q || p) = -log p of the one answer that q gives."""
    pool = of("beam", k=4)
    np.testing.assert_array_equal(sums(pool, pool.logprob_drawn), 0)
    np.testing.assert_allclose(sums(pool, pool.kl), -sums(pool, pool.logprob_p), atol=1e-12)
    assert not pool.exchangeable
    assert of("beam", k=1).exchangeable


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
def test_groups_avoid_what_was_said_before_them(penalty):
    """Four groups of one beam by hand: each takes the best first token after the penalty, then goes on as it likes."""
    pool = of("diverse_beam", k=4, penalty=penalty)
    raw = LM.logprobs(None, [prompt.chat() for prompt in PROMPTS])[:, 0]
    for i, logp in enumerate(raw):
        said = np.zeros(len(logp))
        for k in range(4):
            token = int((logp - penalty * said).argmax())
            said[token] += 1
            assert pool.tokens[i, k, 0] == token


def test_a_large_penalty_leaves_each_group_a_form_of_its_own():
    pool = of("diverse_beam", k=4, penalty=50.0)
    assert all(len({text.partition(" ")[0] for text in row}) == 4 for row in pool.texts)


def test_groups_without_a_penalty_find_the_same():
    assert all(len(set(row)) == 1 for row in of("diverse_beam", k=4, penalty=0.0).texts)
    two = of("diverse_beam", k=4, width=4, groups=2, penalty=0.0)
    assert all(row[0] == row[1] != row[2] == row[3] for row in two.texts)


def test_groups_of_one_size():
    with pytest.raises(StudyError, match="diverse_beam: a width of 4 is not 3 groups of one size"):
        of("diverse_beam", groups=3)


def test_mixed_decoding_is_greedy_then_a_nucleus_then_the_best_beam():
    pool = of("mixed_decoding", k=4)
    assert pool.lengths.shape == (len(PROMPTS), 4)
    generator = rng()
    first = greedy(POLICY, PROMPTS, generator, k=1)
    drawn = nucleus(POLICY, PROMPTS, generator, k=2, temperature=0.8, top_p=0.9)
    for columns, part in ((slice(0, 1), first), (slice(1, 3), drawn), (slice(3, 4), of("beam", k=1))):
        assert tuple(row[columns] for row in pool.texts) == part.texts
        for name in ("logprob_p", "logprob_q", "logprob_drawn", "kl"):
            np.testing.assert_array_equal(sums(pool, getattr(pool, name))[:, columns], sums(part, getattr(part, name)))
    np.testing.assert_array_equal(pool.origin, [[0, 1, 1, 2]] * len(PROMPTS))
    assert of("mixed_decoding", k=2).origin.tolist() == [[0, 1]] * len(PROMPTS)
    assert of("mixed_decoding", k=1).texts == of("greedy").texts


def test_multi_view_has_the_greedy_answer_to_each_view():
    pool = of("multi_view", k=8)
    assert pool.lengths.shape == (len(PROMPTS), 3)
    assert tuple(row[:1] for row in pool.texts) == of("greedy").texts
    cot = [prompt.chat(suffix=" Think step by step, then answer.") for prompt in PROMPTS]
    greedy_cot = POLICY.pool(PROMPTS, rng(), k=1, decoding=Decoding(temperature=0), chats=cot)
    assert tuple(row[1:2] for row in pool.texts) == greedy_cot.texts
    assert of("multi_view", k=2).texts == tuple(row[:2] for row in pool.texts)


def test_each_paraphrase_is_answered_in_turn():
    pool = of("paraphrase_view", k=3, wordings=["Well. {prompt}", "{prompt} Well?"])
    chats = [[p.chat(prefix="Well. ") for p in PROMPTS], [p.chat(suffix=" Well?") for p in PROMPTS]]
    q = [LM.logprobs(None, chats[i])[:, 0] for i in (0, 1, 0)]
    for k in range(3):
        first = q[k][np.arange(len(PROMPTS)), pool.tokens[:, k, 0]]
        np.testing.assert_allclose(pool.logprob_q[:, k, 0], first, atol=1e-12)


def test_a_wording_shows_the_prompt():
    with pytest.raises(ValueError, match="String should match pattern"):
        of("paraphrase_view", wordings=["What is it?"])


def test_a_revision_is_shown_its_draft():
    pool = of("refine", k=3)
    drafts = [row[0] for row in of("greedy").texts]
    instruction = "Review this draft and give an improved, final answer."
    chats = [
        prompt.chat(suffix=f"\n\nDraft answer: {draft}\n\n{instruction}")
        for prompt, draft in zip(PROMPTS, drafts, strict=True)
    ]
    generator = rng()
    POLICY.pool(PROMPTS, generator, k=1, decoding=Decoding(0))
    again = POLICY.pool(PROMPTS, generator, k=3, decoding=Decoding(0.6, 0.9), chats=chats)
    np.testing.assert_array_equal(pool.tokens, again.tokens)
    np.testing.assert_array_equal(pool.kl, again.kl)
