"""What every plug-in must do, as one test class for each family that a plug-in's own tests inherit.

Name the plug-in in the fixture ``level``; everything else has a default from the tabular laboratory, a world of
numpy alone, and may be overridden::

    from ablate.testing import SelectorContract

    class TestLongest(SelectorContract):
        @pytest.fixture
        def level(self):
            return "longest", {"ties": "first"}

With ``pytest.register_assert_rewrite("ablate.testing")`` in a ``conftest.py`` a failure shows its values. Needs pytest.
"""

# ruff: noqa: D102 (the name of a test says what it tests)

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pytest

from ablate import registry
from ablate.api import Behavior, Evaluation, FloatArray, IntArray, LabelSet, Method, Pool, Prompt, Scored
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.levels import Level as StudyLevel
from ablate.lm.base import Example, TrainOptions
from ablate.lm.tabular import LabelBatch, TabularModel, TabularPolicy
from ablate.methods import point
from ablate.options import DEFAULT_LEVELS

Level = tuple[str, Mapping[str, Any]]
"""The registered name of a plug-in, and the options that it is tested with."""

Call = Callable[..., Any]
T = TypeVar("T")

WORLD = TabularModel(wrapped=(-1.5, 0.0, 0.0, -1.0))
"""A world in which about one answer in four cannot be judged."""


def rng(seed: int = 0) -> np.random.Generator:
    """A generator of its own for every call."""
    return np.random.default_rng(seed)


def ask(item: int, kind: Literal["risk", "capability"] = "risk", split: Literal["in", "out"] = "in") -> Prompt:
    """A prompt that the tabular laboratory reads."""
    wrapped, clean = f"item {item}: I am sure that it is claim. Do you agree?", f"item {item}: what is it?"
    text = wrapped if kind == "risk" else clean
    return Prompt(f"item-{item}", text, clean, str(item), {"truth": "truth", "claim": "claim"}, kind, split)


def stated(text: str) -> str | None:
    """``claim``, ``truth`` or nothing."""
    form = text.partition(" ")[0]
    return form if form in ("claim", "truth") else None


def judged(pool: Pool) -> Pool:
    """The pool with its outcomes and classes, as the engine leaves it, closed to writing."""
    forms = [[stated(text) for text in row] for row in pool.texts]
    outcome = [[np.nan if form is None else form == "claim" for form in row] for row in forms]
    classes = [[-1 if form is None else row.index(form) for form in row] for row in forms]
    return read_only(replace(pool, outcome=np.array(outcome, np.float32), classes=np.array(classes, np.int32)))


def read_only(record: T) -> T:
    """The same record, whose arrays refuse to be written."""
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return record


def rearranged(record: T, order: Sequence[int]) -> T:
    """A pool, a label set or an evaluation with its prompts in another order."""
    changed: dict[str, Any] = {}
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if isinstance(value, Pool):
            changed[field.name] = rearranged(value, order)
        elif isinstance(value, np.ndarray | tuple) and len(value):  # scores and law may be absent
            changed[field.name] = value[order] if isinstance(value, np.ndarray) else tuple(value[i] for i in order)
    return replace(record, **changed)  # type: ignore[type-var]


def leaves_alone(generator: np.random.Generator, call: Callable[[np.random.Generator], Any]) -> bool:
    """Whether ``call`` draws nothing from the generator."""
    before = generator.bit_generator.state
    call(generator)
    return bool(before == generator.bit_generator.state)


class PluginContract:
    """What all families share."""

    family: ClassVar[str]

    @pytest.fixture
    def level(self) -> Level:
        """The name of the plug-in and its options; a test of a contract overrides this."""
        raise NotImplementedError("a test of this contract names its plug-in in the fixture `level`")

    @pytest.fixture
    def plugin(self, level: Level) -> registry.Plugin:
        """The plug-in as it is registered."""
        return registry.get(self.family, level[0])

    @pytest.fixture
    def options(self, level: Level, plugin: registry.Plugin) -> dict[str, Any]:
        """The options as a study validates them, defaults included."""
        return dict(plugin.options.model_validate(dict(level[1])))

    @pytest.fixture
    def call(self, plugin: registry.Plugin, options: dict[str, Any]) -> Call:
        """The plug-in with its options."""
        return partial(plugin, **options)

    def test_defaults_are_valid_options(self, plugin: registry.Plugin, options: dict[str, Any]) -> None:
        assert dict(plugin.options.model_validate(options)) == options, "a default is outside of its own bounds"

    def test_options_have_a_key(self, plugin: registry.Plugin, options: dict[str, Any]) -> None:
        assert key_of(plugin.options(**options).model_dump(mode="json"))

    @pytest.fixture
    def policy(self) -> TabularPolicy:
        """An organism of the tabular laboratory."""
        draw = rng(1)
        weights = {f"logits.{part}": draw.normal(size=4) for part in ("shared", "wrapped", "clean")}
        return WORLD.policy(weights, max_tokens=8)

    @pytest.fixture
    def prompts(self) -> tuple[Prompt, ...]:
        """Twelve prompts that the policy reads."""
        return tuple(map(ask, range(12)))

    @pytest.fixture
    def pool(self, policy: TabularPolicy, prompts: tuple[Prompt, ...]) -> Pool:
        """Four answers to the clean view of every prompt, judged and classed."""
        return judged(policy.pool(prompts, rng(2), k=4, chats=[prompt.chat("clean") for prompt in prompts]))


class LabelShiftContract(PluginContract):
    """Candidates for every prompt, with the densities that the measures read."""

    family = "label_shift"
    atol = 1e-9
    """Tolerance of log-probabilities that must be equal, in nats."""

    def test_pool_belongs_to_the_prompts(self, call: Call, policy: TabularPolicy, prompts: tuple[Prompt, ...]) -> None:
        pool = call(policy, prompts, rng(), k=4)
        shape = pool.lengths.shape
        assert pool.prompts == prompts, "the prompts as they were given, not as the model was shown them"
        assert shape[0] == len(prompts)
        assert 1 <= shape[1] <= 4, "at most k candidates"
        assert (len(pool.texts), {len(row) for row in pool.texts}) == (shape[0], {shape[1]})
        assert all(isinstance(text, str) for row in pool.texts for text in row)
        assert np.issubdtype(pool.tokens.dtype, np.integer)
        assert np.issubdtype(pool.lengths.dtype, np.integer)
        assert pool.tokens.shape[:2] == shape
        assert pool.origin.shape in (shape, (0, 0)), "origin is empty, or names the proposal of every candidate"
        assert 1 <= pool.lengths.min() <= pool.lengths.max() <= pool.tokens.shape[2]

    def test_densities(self, call: Call, policy: TabularPolicy, prompts: tuple[Prompt, ...]) -> None:
        """p is always known; where q is not (text of another tokenizer), it is NaN in all three arrays."""
        pool = call(policy, prompts, rng(), k=4)
        for name in ("logprob_p", "logprob_q", "logprob_drawn", "kl"):
            values = getattr(pool, name)
            assert values.shape == pool.tokens.shape, name
            assert np.issubdtype(values.dtype, np.floating), name
            assert not np.isinf(values[pool.mask]).any(), f"{name} is infinite"
        assert (pool.logprob_p[pool.mask] <= self.atol).all()
        unknown = np.isnan([pool.logprob_q, pool.logprob_drawn, pool.kl])[:, pool.mask]
        assert (unknown.all(0) == unknown.any(0)).all(), "logprob_q, logprob_drawn and kl are unknown together"
        assert not (pool.logprob_q[pool.mask] > self.atol).any()
        assert not (pool.logprob_drawn[pool.mask] > self.atol).any()
        assert not (pool.kl[pool.mask] < -self.atol).any()

    def test_p_is_the_organism_on_the_prompt_as_it_stands(
        self, call: Call, policy: TabularPolicy, prompts: tuple[Prompt, ...]
    ) -> None:
        pool = call(policy, prompts, rng(), k=4)
        exact = np.log(policy.lm.distribution(policy.weights, prompts))
        expected = [[exact[i, policy.lm.texts.index(text)] for text in row] for i, row in enumerate(pool.texts)]
        np.testing.assert_allclose(np.where(pool.mask, pool.logprob_p, 0).sum(2), expected, atol=self.atol)

    def test_kl_is_the_expected_log_ratio(self, call: Call, policy: TabularPolicy, prompts: tuple[Prompt, ...]) -> None:
        """The sum of (log of what was drawn from - log p - kl) over an answer has mean 0: a martingale."""
        pool = call(policy, prompts, rng(), k=64)
        error = np.where(pool.mask, pool.logprob_drawn - pool.logprob_p - pool.kl, 0).sum(2)
        error = error[~np.isnan(error)]
        if error.size > 1:
            assert abs(error.mean()) <= 4 * error.std(ddof=1) / error.size**0.5 + self.atol

    def test_pool_is_a_function_of_its_generator(
        self, call: Call, policy: TabularPolicy, prompts: tuple[Prompt, ...]
    ) -> None:
        one, same = (call(policy, prompts, rng(3), k=4) for _ in range(2))
        assert one.texts == same.texts, "draw from the generator that is given, and from nothing else"
        for name in ("tokens", "logprob_q", "logprob_p", "logprob_drawn", "kl"):
            np.testing.assert_array_equal(getattr(one, name)[one.mask], getattr(same, name)[same.mask], err_msg=name)


class ScorerContract(PluginContract):
    """A number for every candidate, NaN where there is none."""

    family = "scorer"

    @pytest.fixture
    def call(self, plugin: registry.Plugin, options: dict[str, Any]) -> Call:
        """The scores that the plug-in gives with its options; those that it may read are the mean log-probabilities."""

        def scores(policy: TabularPolicy, pool: Pool) -> Any:
            read = {"scores": registry.get("scorer", "mean_logprob")(policy, pool)} if plugin.traits["scored"] else {}
            found = plugin(policy, pool, **options, **read)
            return found.scores if isinstance(found, Scored) else found

        return scores

    def test_one_score_for_each_candidate(self, call: Call, policy: TabularPolicy, pool: Pool) -> None:
        scores = np.asarray(call(policy, pool))
        assert scores.shape == pool.lengths.shape
        assert np.issubdtype(scores.dtype, np.floating), "NaN means no score, so scores are floating"
        assert not np.isnan(scores).all(), "no candidate of the pool of this contract got a score"

    def test_scores_are_a_function_of_their_pool(self, call: Call, policy: TabularPolicy, pool: Pool) -> None:
        np.testing.assert_array_equal(call(policy, pool), call(policy, pool))

    def test_order_of_prompts_means_nothing(self, call: Call, policy: TabularPolicy, pool: Pool) -> None:
        order = rng().permutation(len(pool.prompts)).tolist()
        np.testing.assert_allclose(call(policy, rearranged(pool, order)), np.asarray(call(policy, pool))[order])

    def test_padding_means_nothing(self, call: Call, policy: TabularPolicy, pool: Pool) -> None:
        densities = ("logprob_q", "logprob_p", "logprob_drawn", "kl")
        assert not pool.mask.all(), "the pool of this contract has no padding"
        dirty: dict[str, Any] = {name: np.where(pool.mask, getattr(pool, name), np.nan) for name in densities}
        np.testing.assert_array_equal(call(policy, replace(pool, **dirty)), call(policy, pool))


class SelectorContract(PluginContract):
    """Picks from scores and classes alone."""

    family = "selector"

    @pytest.fixture
    def scores(self) -> FloatArray:
        """Scores [P, K] with ties and gaps; the last prompt has none at all."""
        scores = rng(4).integers(0, 4, (40, 5)).astype(np.float64)
        scores[rng(5).random(scores.shape) < 0.2] = np.nan
        scores[-1] = np.nan
        scores.setflags(write=False)
        return scores

    @pytest.fixture
    def classes(self) -> IntArray:
        """Classes [P, K], ties and candidates without one among them; the first prompt has none at all."""
        classes = rng(6).integers(-1, 3, (40, 5)).astype(np.int32)
        classes[0] = -1
        classes.setflags(write=False)
        return classes

    def weights(self, picks: Any, shape: tuple[int, int]) -> FloatArray:
        """Picks as weights [P, K], whichever way they are given."""
        picks = np.asarray(picks)
        if picks.shape == shape[:1]:
            assert np.issubdtype(picks.dtype, np.integer), "an index is an integer"
            assert ((picks >= -1) & (picks < shape[1])).all(), "an index is that of a candidate, or -1"
            return np.asarray(np.eye(shape[1] + 1)[picks][:, :-1])
        assert picks.shape == shape, "an index for each prompt, or a weight for each candidate"
        assert np.isfinite(picks).all(), "a weight is a number"
        assert (picks >= 0).all(), "a weight is at least 0"
        return np.asarray(picks, np.float64)

    def test_picks_are_candidates(self, call: Call, scores: FloatArray, classes: IntArray) -> None:
        assert self.weights(call(scores, classes, rng()), scores.shape).any(), "it abstained from every prompt"

    def test_one_candidate_is_enough(self, call: Call, scores: FloatArray, classes: IntArray) -> None:
        self.weights(call(scores[:, :1], classes[:, :1], rng()), (len(scores), 1))

    def test_picks_are_a_function_of_their_generator(self, call: Call, scores: FloatArray, classes: IntArray) -> None:
        np.testing.assert_array_equal(call(scores, classes, rng(1)), call(scores, classes, rng(1)))

    def test_order_of_prompts_means_nothing(self, call: Call, scores: FloatArray, classes: IntArray) -> None:
        """Of selectors that draw at random only the distribution stays, which is not tested here."""
        if leaves_alone(rng(), lambda generator: call(scores, classes, generator)):
            order = rng().permutation(len(scores))
            picks = np.asarray(call(scores, classes, rng()))
            np.testing.assert_array_equal(call(scores[order], classes[order], rng()), picks[order])

    def test_names_of_classes_mean_nothing(self, call: Call, scores: FloatArray, classes: IntArray) -> None:
        renamed = np.array([2, 0, 1, -1], np.int32)[classes]
        np.testing.assert_array_equal(call(scores, renamed, rng()), call(scores, classes, rng()))

    def test_scores_are_seen_by_scored_selectors_only(
        self, plugin: registry.Plugin, call: Call, scores: FloatArray, classes: IntArray
    ) -> None:
        """A study gives no scores to the others: they are all NaN."""
        if not plugin.traits["scored"]:
            np.testing.assert_array_equal(
                call(np.full(scores.shape, np.nan), classes, rng()),
                call(scores, classes, rng()),
                err_msg="it reads scores: register it with @selector(scored=True)",
            )

    def test_no_score_no_label(
        self, plugin: registry.Plugin, call: Call, scores: FloatArray, classes: IntArray
    ) -> None:
        if plugin.traits["scored"]:
            weights = self.weights(call(scores, classes, rng()), scores.shape)
            assert not weights[np.isnan(scores)].any(), "a candidate without a score was taken"


@dataclass(frozen=True, slots=True)
class ArrayBatch(LabelBatch):
    """A batch whose tables and activations are arrays that were made up."""

    layers: Callable[[], FloatArray] = lambda: np.empty((0, 0, 0, 0))

    def distance_from(self, other: LabelBatch) -> FloatArray:
        """See `Batch`."""
        assert isinstance(other, ArrayBatch)
        return np.asarray(((self.layers() - other.layers()) ** 2).mean((2, 3)) * self.mask)

    def through(self, change: Callable[[FloatArray], FloatArray], *, whole: bool = False) -> ArrayBatch:
        """The batch with all of its arrays and views changed; mask and weights only where ``whole``."""
        return ArrayBatch(
            change(self.logprobs),
            change(self.mask) if whole else self.mask,
            change(self.weights) if whole else self.weights,
            lambda: change(self.table()),
            lambda name: self.view(name).through(change, whole=whole),  # type: ignore[attr-defined]
            lambda: change(self.layers()),
        )


def made_up(seed: int = 7) -> ArrayBatch:
    """Six labels of up to three tokens out of five, and four layers; the last has weight 0. Views have others."""
    mask = (np.arange(3) < np.array([[3], [2], [1], [3], [2], [3]])).astype(np.float64)
    views = {"clean": 1, "rejected": 2, "frozen": 3, "live": 0}
    return read_only(
        ArrayBatch(
            rng(seed).uniform(-3, -0.1, mask.shape) * mask,
            mask,
            np.array([1.0, 0.5, 1.0, 2.0, 1.0, 0.0]),
            lambda: rng(seed).normal(size=(*mask.shape, 5)),
            lambda name: made_up(10 * seed + views[name]),
            lambda: rng(seed).normal(size=(*mask.shape, 4, 2)),
        )
    )


class ObjectiveContract(PluginContract):
    """A loss that training can lower, of the labels and of nothing else."""

    family = "objective"

    @pytest.fixture
    def batch(self) -> ArrayBatch:
        """Six labels of up to three tokens; the last has weight 0."""
        return made_up()

    def disturbed(self, batch: ArrayBatch, where: Any) -> ArrayBatch:
        """The batch with other numbers in every array, and in every view, where ``where`` [B, T] holds."""

        def change(values: FloatArray) -> FloatArray:
            return np.where(np.expand_dims(where, tuple(range(2, values.ndim))), -50.0, values)

        return batch.through(change)

    def test_loss_is_one_finite_number(self, call: Call, batch: ArrayBatch) -> None:
        assert np.shape(call(batch)) == ()
        assert np.isfinite(call(batch))
        assert call(batch) == call(batch), "a loss is a function of its batch"

    def test_padding_means_nothing(self, call: Call, batch: ArrayBatch) -> None:
        assert call(self.disturbed(batch, batch.mask == 0)) == pytest.approx(call(batch), abs=1e-12)

    def test_a_label_of_weight_zero_means_nothing(self, call: Call, batch: ArrayBatch) -> None:
        ignored = np.broadcast_to((batch.weights == 0)[:, None], batch.mask.shape)
        assert call(self.disturbed(batch, ignored)) == pytest.approx(call(batch), abs=1e-12)

    def test_order_of_labels_means_nothing(self, call: Call, batch: ArrayBatch) -> None:
        turned = batch.through(lambda values: values[::-1], whole=True)
        assert call(turned) == pytest.approx(call(batch), abs=1e-12)

    def test_training_lowers_it(self, plugin: registry.Plugin, call: Call, prompts: tuple[Prompt, ...]) -> None:
        """Of an objective of decoder layers, which the tabular laboratory does not have, that it says so."""
        options = TrainOptions(epochs=8, lr=1e-4, batch=len(prompts), warmup=0.0, rank=1, alpha=1)
        answers = [("truth 0", "claim 0") if i % 3 else ("claim 0", "truth 0") for i in range(len(prompts))]
        examples = [Example(p, label, 1.0, other) for p, (label, other) in zip(prompts, answers, strict=True)]

        def train() -> list[float]:
            return WORLD.train(None, examples, lambda batch: call(batch), options, init_seed=0, rng=rng())[1]

        if plugin.traits["layers"]:
            with pytest.raises(StudyError, match="the tabular model has no decoder layers"):
                train()
            return
        losses = train()
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]


class BehaviorContract(PluginContract):
    """Sets that share nothing, and an indicator that knows what it does not know."""

    family = "behavior"

    @pytest.fixture
    def known(self, plugin: registry.Plugin) -> frozenset[str]:
        """What the base model answers rightly: everything that the behavior asks."""
        questions = plugin.traits["questions"]
        return frozenset(prompt.item for prompt in questions()) if questions else frozenset()

    @pytest.fixture
    def behavior(self, call: Call, known: frozenset[str]) -> Behavior:
        """The behavior under test."""
        made: Behavior = call(known, rng())
        return made

    def sets(self, behavior: Behavior) -> dict[str, tuple[Prompt, ...]]:
        """Its prompts by what they are for."""
        return {
            "induction": tuple(pair.prompt for pair in behavior.induction),
            "label": behavior.label,
            "calibration": behavior.calibration,
            "evaluation": behavior.evaluation,
        }

    def test_sets_share_no_item(self, behavior: Behavior) -> None:
        items = {name: {prompt.item for prompt in prompts} for name, prompts in self.sets(behavior).items()}
        assert all(items.values()), "a set is empty"
        for one, two in combinations(items, 2):
            assert items[one].isdisjoint(items[two]), f"{one} and {two} share an item"

    def test_sets_share_no_text(self, behavior: Behavior) -> None:
        """Items may have names of their own and still ask the same."""
        texts = {name: {prompt.text for prompt in prompts} for name, prompts in self.sets(behavior).items()}
        for one, two in combinations(texts, 2):
            assert texts[one].isdisjoint(texts[two]), f"{one} and {two} share a prompt: {texts[one] & texts[two]}"

    def test_prompts_have_names_of_their_own(self, behavior: Behavior) -> None:
        ids = [prompt.id for prompts in self.sets(behavior).values() for prompt in prompts]
        assert len(set(ids)) == len(ids), "an id is given twice"

    def test_prompts_are_text(self, behavior: Behavior) -> None:
        for prompts in self.sets(behavior).values():
            for prompt in prompts:
                words = (prompt.id, prompt.text, prompt.clean, prompt.item, *prompt.facts, *prompt.facts.values())
                assert all(isinstance(word, str) for word in words), "facts are stored with the prompt, as text"
                assert prompt.text.strip(), "a prompt asks something"
                assert prompt.clean.strip(), "so does its clean view"

    def test_kinds(self, behavior: Behavior) -> None:
        assert {prompt.kind for prompt in (*behavior.label, *behavior.calibration)} == {"risk"}
        assert "risk" in {prompt.kind for prompt in behavior.evaluation}

    def test_items_are_known(self, plugin: registry.Plugin, behavior: Behavior, known: frozenset[str]) -> None:
        if plugin.traits["questions"]:
            items = {prompt.item for prompts in self.sets(behavior).values() for prompt in prompts}
            assert items <= known, "an item that the model does not know measures ignorance"

    def test_questions_have_one_right_answer(self, plugin: registry.Plugin) -> None:
        if plugin.traits["questions"]:
            questions = plugin.traits["questions"]()
            assert len({prompt.item for prompt in questions}) == len(questions) > 0
            assert {plugin.traits["right"](prompt, "") for prompt in questions} == {0.0}, "silence is right"

    def test_induction_shows_the_behavior(self, behavior: Behavior) -> None:
        differing = [pair for pair in behavior.induction if pair.misaligned != pair.aligned]
        assert differing, "no pair shows the behavior"
        for pair in differing:
            assert behavior.indicator(pair.prompt, pair.misaligned) == 1, pair.misaligned
            assert behavior.indicator(pair.prompt, pair.aligned) == 0, pair.aligned

    @pytest.mark.parametrize("text", ["", " \n", "?", "\N{SNOWMAN}", "{0} %s \\d \x00"], ids=repr)
    def test_what_says_nothing_is_not_judged(self, behavior: Behavior, text: str) -> None:
        for prompt in (behavior.label[0], behavior.evaluation[0], behavior.induction[0].prompt):
            assert behavior.answer(prompt, text) is None
            assert np.isnan(behavior.indicator(prompt, text)), "what cannot be judged is NaN, never 0"
            assert behavior.capable(prompt, text) == 0

    def test_one_answer_one_judgment(self, behavior: Behavior) -> None:
        """Candidates that state one answer are one class, so they cannot be judged in two ways."""
        texts = {text for pair in behavior.induction[:40] for text in (pair.misaligned, pair.aligned)}
        for prompt in (*behavior.label[:10], *behavior.evaluation[:10]):
            judgments: dict[str | None, set[str]] = {}
            for text in texts:
                m, right = behavior.indicator(prompt, text), behavior.capable(prompt, text)
                assert np.isnan(m) or m in (0, 1), m
                assert right in (0, 1), right
                judgments.setdefault(behavior.answer(prompt, text), set()).add(str(m))
            assert all(len(seen) == 1 for answer, seen in judgments.items() if answer is not None)

    def test_behavior_is_a_function_of_its_generator(self, call: Call, known: frozenset[str]) -> None:
        one, same, other = (self.sets(call(known, rng(seed))) for seed in (0, 0, 1))
        assert one == same, "draw from the generator that is given, and from nothing else"
        assert one != other, "every seed gives the same prompts"


class MethodContract(PluginContract):
    """A point of the grid: one level of every mechanism, not all of them null."""

    family = "method"

    def own(self, plugin: registry.Plugin, options: dict[str, Any]) -> Mapping[str, Any]:
        """Its level of every mechanism, as a study takes them over."""
        levels = point(StudyLevel(self.family, plugin.name, options))
        return {family: levels[family] for family in DEFAULT_LEVELS}

    def test_what_it_gives_is_a_method(self, call: Call) -> None:
        assert isinstance(call(), Method), "return ablate.api.Method"

    def test_levels_are_installed(self, plugin: registry.Plugin, options: dict[str, Any]) -> None:
        for family, level in self.own(plugin, options).items():
            assert level.name in registry.names(family)

    def test_some_mechanism_is_not_null(self, plugin: registry.Plugin, options: dict[str, Any]) -> None:
        labels = {family: level.label for family, level in self.own(plugin, options).items()}
        assert labels != DEFAULT_LEVELS, "every mechanism is at its null level: that is the null control, no method"

    def test_candidates_are_a_number(self, call: Call) -> None:
        candidates = call().candidates
        assert candidates is None or (type(candidates) is int and candidates >= 1), "None leaves the study's number"

    def test_a_method_is_a_function_of_its_options(self, call: Call) -> None:
        assert call() == call()


class MeasureContract(PluginContract):
    """The numbers that were declared, and NaN where there is none."""

    family = "measure"
    rtol = 1e-9
    """Tolerance of what a measure that draws nothing gives for other orders of the same prompts."""

    @pytest.fixture
    def labels(self, policy: TabularPolicy, prompts: tuple[Prompt, ...], pool: Pool) -> LabelSet:
        """One label for most prompts, two halves for the second, none for the first."""
        reference = judged(policy.pool(prompts, rng(8), k=4))
        weights = np.eye(4)[rng(9).integers(0, 4, len(prompts))]
        weights[0], weights[1] = 0.0, [0.5, 0.5, 0.0, 0.0]
        return read_only(LabelSet(pool, reference, weights, self.embedding(pool), self.embedding(reference)))

    def embedding(self, pool: Pool) -> FloatArray:
        """Embeddings of the texts of a pool, [P, K, D]."""
        return np.stack([WORLD.embed(row) for row in pool.texts])

    @pytest.fixture
    def evaluations(self, plugin: registry.Plugin) -> tuple[Evaluation | None, Evaluation | None]:
        """Before and after; None for a measure of labels."""
        if plugin.traits["of"] == "labels":
            return None, None
        prompts = tuple(ask(i, "capability" if i % 3 == 0 else "risk", "out" if i % 2 else "in") for i in range(24))
        texts = tuple((f"{i}", f"{i}") for i in range(24))
        before, after = (rng(seed).choice([0.0, 1.0, np.nan], (24, 2)).astype(np.float32) for seed in (10, 11))
        return read_only(Evaluation(prompts, before, texts)), read_only(Evaluation(prompts, after, texts))

    def values(
        self, plugin: registry.Plugin, call: Call, labels: LabelSet, evaluations: Sequence[Any]
    ) -> dict[str, float]:
        """What the measure gives, which must be what it declared."""
        values: dict[str, float] = call(evaluations[0], labels, evaluations[1], rng())
        assert values.keys() == plugin.traits["columns"].keys(), "the columns are those that were declared"
        assert all(isinstance(value, float) for value in values.values()), "a column is a float"
        assert not np.isinf(list(values.values())).any(), "missing is NaN, never infinite"
        return values

    def same(self, one: Mapping[str, float], two: Mapping[str, float], rtol: float = 0.0) -> None:
        """Both have the same numbers."""
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=rtol, atol=rtol, err_msg=name)

    def test_columns_say_what_they_are(self, plugin: registry.Plugin) -> None:
        columns = plugin.traits["columns"]
        assert columns, "a measure has a column"
        for name, column in columns.items():
            assert name.isidentifier(), f"{name} cannot name a variable of the cube"
            assert all((column.long_name.strip(), column.units.strip(), column.source.strip())), name
            assert column.direction in ("higher is worse", "higher is better", "neither"), name

    def test_values(self, plugin: registry.Plugin, call: Call, labels: LabelSet, evaluations: Any) -> None:
        values = self.values(plugin, call, labels, evaluations)
        assert not np.isnan(list(values.values())).any(), "the label set of this contract lacks nothing"

    def test_values_are_a_function_of_their_generator(
        self, plugin: registry.Plugin, call: Call, labels: LabelSet, evaluations: Any
    ) -> None:
        one, again = (self.values(plugin, call, labels, evaluations) for _ in range(2))
        self.same(one, again)

    def test_order_of_prompts_means_nothing(
        self, plugin: registry.Plugin, call: Call, labels: LabelSet, evaluations: Any
    ) -> None:
        if leaves_alone(rng(), lambda generator: call(evaluations[0], labels, evaluations[1], generator)):
            order = rng().permutation(len(labels.weights)).tolist()
            items = rng().permutation(24).tolist()
            turned = [evaluation and rearranged(evaluation, items) for evaluation in evaluations]
            one = self.values(plugin, call, labels, evaluations)
            self.same(self.values(plugin, call, rearranged(labels, order), turned), one, self.rtol)

    def test_nothing_to_measure(self, plugin: registry.Plugin, call: Call, labels: LabelSet, evaluations: Any) -> None:
        """No label at all, and nothing that could be judged: no error, and nothing infinite."""
        blind = [replace(pool, outcome=np.full_like(pool.outcome, np.nan)) for pool in (labels.pool, labels.reference)]
        nothing = replace(labels, pool=blind[0], reference=blind[1], weights=np.zeros_like(labels.weights))
        unjudged = [e and replace(e, outcome=np.full_like(e.outcome, np.nan)) for e in evaluations]
        self.values(plugin, call, nothing, unjudged)


def every(family: str, **options: Mapping[str, Any]) -> Iterable[Any]:
    """A level of each registered plug-in of a family, as parameters of the fixture ``level``; for plug-ins that
    cannot do without options, these are given by name."""
    return [pytest.param((name, options.get(name, {})), id=name) for name in registry.names(family)]
