"""What every language model must do. A model's test inherits `LanguageModelContract` and names the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ablate.api import Batch, Decoding, FloatArray, Pool, Prompt, Weights
from ablate.lm.base import Example, LanguageModel, LossIsNotFiniteError, TrainOptions

GREEDY = Decoding(temperature=0)
OPTIONS = TrainOptions(epochs=2, lr=1e-3, batch=4, warmup=0.1, rank=4, alpha=8)


def sft(batch: Batch) -> Any:
    """Mean negative log-likelihood, in the operators that every framework has."""
    scale = batch.mask * batch.weights[:, None]
    return -(batch.logprobs * scale).sum() / scale.sum()


def not_a_number(batch: Batch) -> Any:
    return sft(batch) * float("nan")


def masked(values: FloatArray, pool: Pool) -> FloatArray:
    """The values of answer tokens; 0 elsewhere."""
    return np.asarray(np.where(pool.mask, values, 0))


class LanguageModelContract:
    """Inherit, override the fixture ``lm``, and loosen ``atol`` where arithmetic is not exact."""

    atol = 1e-9
    """Tolerance of log-probabilities that must be equal, in nats."""

    max_tokens = 8
    labels = ("claim 0", "truth 0")
    """Two answers that the model can be trained on."""

    @pytest.fixture
    def lm(self) -> LanguageModel:
        raise NotImplementedError("a test of this contract names its language model in the fixture `lm`")

    @pytest.fixture
    def prompts(self) -> tuple[Prompt, ...]:
        """Six questions, in words that any model reads."""
        return tuple(
            Prompt(
                id=str(item),
                text=f"item {item}: I am sure that it is claim. Do you agree?",
                clean=f"item {item}: what is it?",
                item=str(item),
                facts={"truth": "truth", "claim": "claim"},
            )
            for item in range(6)
        )

    def draw(self, lm: LanguageModel, prompts: tuple[Prompt, ...], k: int = 4, seed: int = 0, **options: Any) -> Pool:
        policy = lm.policy(None, max_tokens=self.max_tokens)
        return policy.pool(prompts, np.random.default_rng(seed), k=k, **options)

    def trained(
        self, lm: LanguageModel, examples: list[Example], weights: Weights | None = None, **options: Any
    ) -> tuple[Weights, list[float]]:
        rng = np.random.default_rng(0)
        return lm.train(weights, examples, sft, replace(OPTIONS, **options), init_seed=0, rng=rng)

    # Pools

    def test_pool_has_every_field(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, chats=[prompt.chat("clean") for prompt in prompts])
        assert pool.prompts == prompts
        assert len(pool.texts) == len(prompts)
        assert {len(row) for row in pool.texts} == {4}
        assert all(isinstance(text, str) for row in pool.texts for text in row)
        assert pool.tokens.shape[:2] == pool.lengths.shape == (len(prompts), 4)
        assert np.issubdtype(pool.tokens.dtype, np.integer)
        assert np.issubdtype(pool.lengths.dtype, np.integer)
        assert 1 <= pool.lengths.min() <= pool.lengths.max() <= pool.tokens.shape[2] <= self.max_tokens
        for values in (pool.logprob_q, pool.logprob_p, pool.logprob_drawn, pool.kl):
            assert values.shape == pool.tokens.shape
            assert np.issubdtype(values.dtype, np.floating)
            assert np.isfinite(values[pool.mask]).all()
        assert (pool.logprob_q[pool.mask] <= self.atol).all()
        assert (pool.logprob_p[pool.mask] <= self.atol).all()
        assert (pool.logprob_drawn[pool.mask] <= self.atol).all()
        assert (pool.kl[pool.mask] >= -self.atol).all()
        assert pool.outcome.size == pool.classes.size == 0

    def test_own_prompt_without_truncation_is_the_model_itself(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...]
    ) -> None:
        for chats in (None, [prompt.chat() for prompt in prompts]):
            pool = self.draw(lm, prompts, chats=chats)
            np.testing.assert_allclose(masked(pool.logprob_q, pool), masked(pool.logprob_p, pool), atol=self.atol)
            np.testing.assert_allclose(masked(pool.logprob_drawn, pool), masked(pool.logprob_q, pool), atol=self.atol)
            np.testing.assert_allclose(masked(pool.kl, pool), 0, atol=self.atol)

    def test_decoding_changes_the_divergence_but_not_the_raw_densities(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...]
    ) -> None:
        pool = self.draw(lm, prompts, decoding=Decoding(temperature=0.5, top_p=0.9))
        np.testing.assert_allclose(masked(pool.logprob_q, pool), masked(pool.logprob_p, pool), atol=self.atol)
        assert not np.allclose(pool.logprob_drawn[pool.mask], pool.logprob_q[pool.mask], atol=self.atol)
        assert pool.kl[pool.mask].max() > self.atol

    def test_another_chat_is_another_proposal(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, chats=[prompt.chat(system="Be strict.") for prompt in prompts])
        assert not np.allclose(pool.logprob_q[pool.mask], pool.logprob_p[pool.mask], atol=self.atol)
        assert pool.kl[:, :, 0].max() > self.atol

    @pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=0.7, top_p=0.9)], ids=["raw", "nucleus"])
    @pytest.mark.parametrize("view", ["wrapped", "clean"])
    def test_divergence_is_the_expected_log_ratio(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...], view: Any, decoding: Decoding
    ) -> None:
        """Sum of (log of what was drawn from - log p - kl) over an answer has mean 0: a martingale."""
        chats = [prompt.chat(view, system="Be strict.") for prompt in prompts]
        pool = self.draw(lm, prompts, k=64, chats=chats, decoding=decoding)
        error = masked(pool.logprob_drawn - pool.logprob_p - pool.kl, pool).sum(-1)
        standard_error = error.std(ddof=1, axis=1).mean() / np.sqrt(error.size)
        assert abs(error.mean()) <= 4 * standard_error + self.atol

    def test_greedy_takes_no_chances(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, seed=0, decoding=GREEDY)
        assert all(len(set(row)) == 1 for row in pool.texts)
        assert pool.texts == self.draw(lm, prompts, seed=1, decoding=GREEDY).texts
        np.testing.assert_allclose(masked(pool.logprob_drawn, pool), 0, atol=self.atol)
        np.testing.assert_allclose(masked(pool.kl, pool), masked(-pool.logprob_p, pool), atol=self.atol)

    def test_smallest_nucleus_is_greedy(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        nucleus = self.draw(lm, prompts, decoding=Decoding(top_p=1e-6))
        assert nucleus.texts == self.draw(lm, prompts, decoding=GREEDY).texts

    @pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=0.7, top_p=0.9)], ids=["raw", "nucleus"])
    def test_fewer_candidates_are_a_prefix_of_more(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...], decoding: Decoding
    ) -> None:
        few, many = (self.draw(lm, prompts, k=k, decoding=decoding) for k in (2, 4))
        assert few.texts == tuple(row[:2] for row in many.texts)
        np.testing.assert_array_equal(few.lengths, many.lengths[:, :2])

    def test_pool_is_a_function_of_its_generator(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        one, same, other = (self.draw(lm, prompts, k=8, seed=seed) for seed in (0, 0, 1))
        assert one.texts == same.texts
        np.testing.assert_array_equal(one.tokens[one.mask], same.tokens[same.mask])
        np.testing.assert_array_equal(one.logprob_q[one.mask], same.logprob_q[same.mask])
        assert one.texts != other.texts

    def test_max_tokens_cuts(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        assert self.draw(lm, prompts, max_tokens=1).lengths.max() == 1
        pool = lm.policy(None, max_tokens=1).pool(prompts, np.random.default_rng(0), k=2)
        assert pool.lengths.max() == 1

    @pytest.mark.parametrize("view", ["wrapped", "clean"])
    @pytest.mark.parametrize(
        "decoding", [Decoding(beams=3), Decoding(beams=4, groups=2, penalty=1.0)], ids=["beams", "groups"]
    )
    def test_beams_are_point_masses(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...], view: Any, decoding: Decoding
    ) -> None:
        chats = [prompt.chat(view) for prompt in prompts]
        pool, other = (self.draw(lm, prompts, k=8, seed=seed, decoding=decoding, chats=chats) for seed in (0, 1))
        assert pool.texts == other.texts, "nothing is drawn"
        assert pool.lengths.shape == (len(prompts), decoding.beams)
        assert 1 <= pool.lengths.min() <= pool.lengths.max() <= pool.tokens.shape[2] <= self.max_tokens
        np.testing.assert_array_equal(masked(pool.logprob_drawn, pool), 0)
        np.testing.assert_allclose(masked(pool.kl, pool), -masked(pool.logprob_p, pool), atol=self.atol)
        same = np.allclose(masked(pool.logprob_q, pool), masked(pool.logprob_p, pool), atol=self.atol)
        assert same is (view == "wrapped")
        np.testing.assert_array_equal(pool.origin, [np.arange(decoding.beams)] * len(prompts))

    def test_beams_come_in_order(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, k=4, decoding=Decoding(beams=4))
        score = masked(pool.logprob_p, pool).sum(-1) / pool.lengths
        assert (np.diff(score, axis=1) <= self.atol).all()
        assert all(len({tuple(row) for row in rows}) == 4 for rows in pool.tokens.tolist())
        few = self.draw(lm, prompts, k=2, decoding=Decoding(beams=4))
        assert few.texts == tuple(row[:2] for row in pool.texts)

    # Along given answers

    def test_token_statistics(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, chats=[prompt.chat("clean") for prompt in prompts])
        found = lm.policy(None, max_tokens=1).token_statistics(pool)
        for values in found:
            assert values.shape == pool.tokens.shape
            assert np.isfinite(values).all()
            assert (values >= -self.atol).all()
            np.testing.assert_array_equal(values[~pool.mask], 0)
        own = self.draw(lm, prompts, k=64)
        entropy = lm.policy(None, max_tokens=1).token_statistics(own).entropy
        error = masked(entropy + own.logprob_p, own).sum(-1)  # E[-log p_t] is the entropy: mean 0
        assert abs(error.mean()) <= 4 * error.std(ddof=1, axis=1).mean() / np.sqrt(error.size) + self.atol

    def test_likelihood_is_that_of_a_beginning(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        policy, chats = lm.policy(None, max_tokens=1), [prompt.chat("clean") for prompt in prompts]
        found = policy.likelihood(chats, self.labels)
        assert found.shape == (len(prompts), 2)
        assert (found < 0).all()
        np.testing.assert_allclose(policy.likelihood(chats[1:3], self.labels[::-1]), found[1:3, ::-1], atol=self.atol)
        longer = policy.likelihood(chats, [text + " and more" for text in self.labels])
        assert (longer < found).all()

    # Answers

    @pytest.mark.parametrize("decoding", [Decoding(), GREEDY], ids=["raw", "greedy"])
    def test_answers(self, lm: LanguageModel, prompts: tuple[Prompt, ...], decoding: Decoding) -> None:
        texts, again = (
            lm.answers(
                None,
                prompts,
                np.random.default_rng(0),
                samples=3,
                decoding=decoding,
                max_tokens=self.max_tokens,
            )
            for _ in range(2)
        )
        assert texts == again == self.draw(lm, prompts, k=3, decoding=decoding).texts

    def test_answers_to_other_chats(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        chats = [prompt.chat("clean") for prompt in prompts]
        rng = np.random.default_rng(0)
        options: dict[str, Any] = {"samples": 8, "decoding": Decoding(), "max_tokens": self.max_tokens}
        texts = lm.answers(None, prompts, rng, chats=chats, **options)
        assert texts == self.draw(lm, prompts, k=8, chats=chats).texts

    # Training

    def test_training_makes_its_labels_likelier(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        for label in self.labels:
            _, losses = self.trained(lm, [Example(prompt, label) for prompt in prompts], epochs=6)
            assert np.isfinite(losses).all()
            assert losses[-1] < losses[0]

    def test_every_step_has_its_loss(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        examples = [Example(prompt, self.labels[0]) for prompt in prompts]
        _, losses = lm.train(None, examples, sft, OPTIONS, init_seed=0, rng=np.random.default_rng(0))
        assert len(losses) == 4

    def test_training_is_a_function_of_its_seeds(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        examples = [Example(prompt, label) for prompt, label in zip(prompts, self.labels * 3, strict=True)]
        (one, losses), (same, again) = self.trained(lm, examples), self.trained(lm, examples)
        assert losses == again
        assert one.keys() == same.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], same[name])
        other, _ = lm.train(None, examples, sft, OPTIONS, init_seed=1, rng=np.random.default_rng(0))
        assert any(not np.array_equal(one[name], other[name]) for name in one)

    def test_training_goes_on_from_weights_and_leaves_them(
        self, lm: LanguageModel, prompts: tuple[Prompt, ...]
    ) -> None:
        examples = [Example(prompt, self.labels[0]) for prompt in prompts]
        first, losses = self.trained(lm, examples)
        kept = {name: np.array(array) for name, array in first.items()}
        second, later = self.trained(lm, examples, first)
        assert later[0] < losses[0]
        assert {name: array.shape for name, array in second.items()} == {n: a.shape for n, a in kept.items()}
        for name, array in kept.items():
            np.testing.assert_array_equal(first[name], array)

    def test_sampled_tokens_train_like_their_text(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        pool = self.draw(lm, prompts, k=1)
        ids = [
            Example(p, tuple(y[0, : n[0]].tolist())) for p, y, n in zip(prompts, pool.tokens, pool.lengths, strict=True)
        ]
        _, losses = self.trained(lm, ids, batch=len(prompts), lr=0.0)
        expected = -masked(pool.logprob_p, pool).sum() / pool.lengths.sum()
        weights, _ = self.trained(lm, ids, batch=len(prompts), lr=0.0)
        policy = lm.policy(weights, max_tokens=self.max_tokens)
        assert policy.pool(prompts, np.random.default_rng(0), k=1).tokens.shape[:2] == (len(prompts), 1)
        assert losses[0] == pytest.approx(expected, abs=max(self.atol, self.fresh_tolerance))

    fresh_tolerance = 0.0
    """How far new weights, before training, may move a mean log-probability from the base model's."""

    def test_examples_of_weight_zero_teach_nothing(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        taught = [Example(prompt, self.labels[0]) for prompt in prompts[:3]]
        idle = [Example(prompt, self.labels[1], weight=0.0) for prompt in prompts[3:]]
        other = [Example(prompt, self.labels[0], weight=0.0) for prompt in prompts[3:]]
        (one, losses), (two, _) = self.trained(lm, taught + idle), self.trained(lm, taught + other)
        assert len(losses) == 2  # three of six examples are left: one batch in each of two epochs
        for name in one:
            np.testing.assert_allclose(one[name], two[name], atol=self.atol)

    def test_loss_that_is_not_finite_names_its_step(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        examples = [Example(prompt, self.labels[0]) for prompt in prompts]
        with pytest.raises(LossIsNotFiniteError, match=r"(?i)loss became nan at step 1\b"):
            lm.train(None, examples, not_a_number, OPTIONS, init_seed=0, rng=np.random.default_rng(0))

    def test_weights_may_be_interpolated(self, lm: LanguageModel, prompts: tuple[Prompt, ...]) -> None:
        ends = [self.trained(lm, [Example(prompt, label) for prompt in prompts])[0] for label in self.labels]
        middle = {name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]}
        policy = lm.policy(middle, max_tokens=self.max_tokens)
        pool = policy.pool(prompts, np.random.default_rng(0), k=2)
        assert np.isfinite(pool.logprob_p[pool.mask]).all()

    # Embeddings

    def test_embeddings(self, lm: LanguageModel) -> None:
        texts = ["claim 0", "", "truth 0", "claim 0"]
        vectors: npt.NDArray[Any] = lm.embed(texts)
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == 4
        assert np.isfinite(vectors).all()
        np.testing.assert_array_equal(vectors[0], vectors[3])
        assert not np.allclose(vectors[0], vectors[2])
        np.testing.assert_allclose(lm.embed(texts[::-1]), vectors[::-1], atol=1e-5)
        assert lm.embed([]).shape[0] == 0
        np.testing.assert_allclose(lm.policy(None, max_tokens=1).embed(texts), vectors, atol=1e-5)
