"""Scorers that ask a model for its opinion: another one, the organism, a reward model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from endpoint import fails, says, served
from laboratory import SMALL, run, study
from tiny import save_tiny_llama
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from ablate import registry
from ablate.api import Decoding, Judge, JudgeOptions, Pool, Prompt
from ablate.errors import FatalError, StudyError
from ablate.factors.scorers.judge import judge
from ablate.factors.scorers.reward_model import reward_model
from ablate.factors.scorers.self_reward import self_reward
from ablate.lm import load_rewards
from ablate.lm.hf import reward
from ablate.lm.hf.reward import RewardModel
from ablate.testing import Call, ScorerContract

LOCAL: JudgeOptions = {"model": "any"}


def replying(reply: Callable[[str], str | None]) -> Callable[[JudgeOptions], Judge]:
    """Judges that reply so, and a note of what they were asked in ``asked``."""

    def judges(options: JudgeOptions) -> Judge:
        def asked(questions: Sequence[str], *, max_tokens: int) -> list[str | None]:
            assert len(set(questions)) == len(questions), "equal questions are asked once"
            return [reply(question) for question in questions]

        return asked

    return judges


def pool_of(*rows: tuple[str, ...]) -> Pool:
    shape = (len(rows), len(rows[0]), 1)
    nothing = np.zeros(shape)
    prompts = tuple(Prompt(str(i), f"question {i}", "clean", str(i), {}) for i in range(len(rows)))
    return Pool(prompts, rows, np.zeros(shape, np.int32), np.ones(shape[:2], np.int32), *[nothing] * 4)


class TestJudge(ScorerContract):
    @pytest.fixture
    def level(self) -> Any:
        return "judge", {"by": LOCAL}

    @pytest.fixture
    def call(self, plugin: registry.Plugin, options: dict[str, Any]) -> Call:
        return partial(plugin, **options, judges=replying(lambda question: str(len(question) % 6)))


def test_judge_reads_the_number_and_abstains_where_there_is_none() -> None:
    replies = {"good": "Score: 5", "bad": "Score: 1/5", "odd": "who knows", "none": None, "far": "17"}
    pool = pool_of(("good", "bad", "odd"), ("none", "far", "good"))
    scores = judge(
        None, pool, judges=replying(lambda q: replies[q.split("A: ")[1]]), by=LOCAL, rubric="Q: {question} A: {answer}"
    )
    np.testing.assert_array_equal(scores, [[5, 1, np.nan], [np.nan, np.nan, 5]])


def test_judge_is_shown_the_prompt_and_the_answer() -> None:
    seen: list[str] = []
    judge(None, pool_of(("it is {question}",)), judges=replying(lambda q: seen.append(q) or "3"), by=LOCAL)
    assert "Question:\nquestion 0\n\nAnswer:\nit is {question}\n" in seen[0]


def test_a_judge_that_answers_nonsense_is_an_error() -> None:
    with pytest.raises(StudyError, match=r"judge 'any' gave no answer a number from 0 to 5; ask for one in the rubric"):
        judge(None, pool_of(("a", "b")), judges=replying(lambda q: "the 7 seas"), by=LOCAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("by: {model: m}, scale: [5, 0]", r"a scale rises: \[lowest score, highest score\]"),
        ("by: {base_url: 'http://x'}", r"by\.model: required, but missing"),
        ("by: {model: m, base_url: 'http://user:word@x'}", "does not match"),
        ("by: {model: m, key: sk-1}", "unknown option"),
        ("by: {model: m, timeout_s: 0}", "0 is not > 0"),
        ("by: {model: m, retries: -1}", "-1 is not >= 0"),
        ("rubric: '{answer}'", r"by: required, but missing"),
    ],
)
def test_mistakes_of_a_study(options: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study(text=SMALL.replace("{scorer: mean_logprob}", f"{{scorer: {{judge: {{{options}}}}}}}"))


# the organism itself


class Rater:
    """A policy that rates an answer by its last letter."""

    def pool(self, prompts: Sequence[Prompt], rng: Any, *, k: int, decoding: Decoding, max_tokens: int) -> Pool:
        assert (k, decoding.temperature, max_tokens) == (1, 0, 8)
        texts = tuple((str(len(prompt.text.split("Answer:\n")[1].split("\n")[0]) % 7),) for prompt in prompts)
        return replace(pool_of(("",)), texts=texts)


class TestSelfReward(ScorerContract):
    @pytest.fixture
    def level(self) -> Any:
        return "self_reward", {}

    @pytest.fixture
    def call(self, plugin: registry.Plugin, options: dict[str, Any]) -> Call:
        return lambda policy, pool: plugin(Rater(), pool, **options)


def test_self_reward_is_its_own_number_from_0_to_5() -> None:
    scores = self_reward(Rater(), pool_of(("ab", "abcde", "abcdef", "ab")))  # type: ignore[arg-type]
    np.testing.assert_array_equal(scores, [[2, 5, np.nan, 2]])


class Leaning:
    """A policy whose reply begins with 5 in all but a share that its answer states."""

    def likelihood(self, chats: Sequence[Any], beginnings: Sequence[str]) -> Any:
        assert beginnings == ("0", "1", "2", "3", "4", "5")
        answers = [chat[0]["content"].split("Answer:\n")[1].split("\n")[0] for chat in chats]
        assert len(set(answers)) == len(answers), "equal questions are asked once"
        zeros = [float(answer) for answer in answers]
        with np.errstate(divide="ignore"):
            return np.log([[share / 2, 0, 0, 0, 0, max(0, 1 - share) / 2] for share in zeros])


def test_self_reward_expects_the_mean_of_its_numbers() -> None:
    pool = pool_of(("0", ".2", "1", ".2"))
    scores = self_reward(Leaning(), pool, read="expected")  # type: ignore[arg-type]
    np.testing.assert_allclose(scores, [[5, 4, 0, 4]], atol=1e-12)


def test_self_reward_expects_nothing_where_no_number_is_possible() -> None:
    class Silent:
        def likelihood(self, chats: Sequence[Any], beginnings: Sequence[str]) -> Any:
            return np.full((len(chats), len(beginnings)), -np.inf)

    assert np.isnan(self_reward(Silent(), pool_of(("a", "b")), read="expected")).all()  # type: ignore[arg-type]


# a reward model


def save_classifier(folder: Path, outputs: int = 1) -> Path:
    save_tiny_llama(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LlamaConfig.from_pretrained(folder, num_labels=outputs, max_position_embeddings=96)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("reward"))


class TestRewardModel(ScorerContract):
    @pytest.fixture
    def level(self, folder: Path) -> Any:
        return "reward_model", {"model": str(folder)}

    @pytest.fixture
    def call(self, plugin: registry.Plugin, options: dict[str, Any], folder: Path) -> Call:
        loaded = RewardModel.load(str(folder))
        loaded.longest = 512
        return partial(plugin, **options, rewards=lambda name, revision: loaded)


@pytest.mark.parametrize("template", [True, False])
def test_rewards_are_those_of_transformers_one_by_one(
    folder: Path, template: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the same checkpoint through transformers, one conversation at a time and without padding."""
    monkeypatch.setattr(reward, "BATCH", 3)
    loaded = RewardModel.load(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if not template:
        loaded.tokenizer.chat_template = None
    answers = ("yes", "no, it is not", "", "a b c d", "<pad>")
    pool = pool_of(answers, answers[::-1])
    scores = reward_model(None, pool, rewards=lambda name, revision: loaded, model=str(folder))  # type: ignore[arg-type]
    for prompt, row, own in zip(pool.prompts, pool.texts, scores, strict=True):
        for text, score in zip(row, own, strict=True):
            chat = [*prompt.chat(), {"role": "assistant", "content": text}]
            shown = tokenizer.apply_chat_template(chat, tokenize=False)
            ids = (
                tokenizer(shown, return_tensors="pt") if template else tokenizer(prompt.text, text, return_tensors="pt")
            )
            plain.config.pad_token_id = None
            with torch.inference_mode():
                assert score == pytest.approx(plain(input_ids=ids["input_ids"]).logits[0, 0].item(), abs=1e-5)
    assert len(np.unique(scores.round(6))) > 3


def test_a_conversation_that_is_too_long_has_no_reward(folder: Path) -> None:
    pool = pool_of(("short", "x" * 200))
    scores = reward_model(None, pool, rewards=load_rewards, model=str(folder))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.isnan(scores), [[False, True]])


def test_two_outputs_are_no_reward(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"has 2 outputs; a reward model has one"):
        load_rewards(str(save_classifier(tmp_path, outputs=2)), None)


def test_a_model_without_a_reward_head_is_refused(tmp_path: Path) -> None:
    """transformers would put random numbers there."""
    save_tiny_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "x"}, "label2id": {"x": 0}}))
    with pytest.raises(FatalError, match=r"no weights for score\.weight: it was not trained to give rewards"):
        load_rewards(str(tmp_path), None)


def test_weights_come_from_safetensors_alone(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FatalError, match="safetensors"):
        load_rewards(str(tmp_path), None)


# through a whole study


KEY = "sk-very-secret-0123456789"


def judged_study(base_url: str) -> Any:
    by = f"{{model: m, base_url: '{base_url}', api_key_env: JUDGE_KEY, retries: 0}}"
    text = SMALL.replace("{scorer: mean_logprob}", f"{{scorer: {{judge: {{by: {by}}}}}}}")
    return study("organism.seeds=1", "measures=[risk]", text=text.replace("[none, greedy]", "[none]"))


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return KEY


def test_a_study_asks_an_endpoint_and_the_key_is_in_none_of_its_files(key: str, tmp_path: Path) -> None:
    with served(lambda question, before: says("5" if "Answer:\ntruth" in question else f"Score: 1, {KEY}")) as endpoint:
        ran = run(judged_study(endpoint.base_url), tmp_path / "small")
        assert not ran.errors
        assert len(endpoint.asked) == len(set(endpoint.asked)) > 0
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.parent.parent.name == "judge" for file in written)
    assert not [file for file in written if key.encode() in file.read_bytes()]


def test_a_key_that_is_refused_stops_the_study_and_is_in_no_file(key: str, tmp_path: Path) -> None:
    message = r"status 401 \(bad \[key\]\); check the key in JUDGE_KEY"
    with served(lambda q, n: fails(401, f"bad {KEY}")) as endpoint, pytest.raises(FatalError, match=message):
        run(judged_study(endpoint.base_url), tmp_path / "small")
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and key.encode() in f.read_bytes()]


def test_an_endpoint_that_is_away_fails_its_stages_and_not_the_study(key: str, tmp_path: Path) -> None:
    with served(lambda question, before: fails(500, f"bad {KEY}")) as endpoint:
        ran = run(judged_study(endpoint.base_url), tmp_path / "small")
        assert ran.errors
        assert ran.states["ok"] > 0
        endpoint.script = lambda question, before: says("4")
        assert not run(judged_study(endpoint.base_url), tmp_path / "small").errors
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and key.encode() in f.read_bytes()]


def test_a_model_of_this_machine_judges(tmp_path: Path) -> None:
    """The tabular model cannot rate: its stages fail with a sentence, everything else is there."""
    text = SMALL.replace("{scorer: mean_logprob}", "{scorer: {judge: {by: {model: tabular}}}}")
    ran = run(study(text=text), tmp_path / "small")
    assert {error for _, error in ran.errors} >= {
        "judge 'tabular' gave no answer a number from 0 to 5; ask for one in the rubric ('Final Score: ...'), "
        "or take another judge"
    }
