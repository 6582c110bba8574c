"""The records that pass between stages, and what each decorator declares."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from ablate import api, registry
from ablate.api import Column, Decoding, Pool, Prompt, mean_outcome

NAN = float("nan")


@pytest.mark.parametrize(
    ("temperature", "top_p", "message"),
    [
        (-0.1, 1, r"temperature: -0.1 is not >= 0"),
        (NAN, 1, r"temperature: nan is not >= 0"),
        (float("inf"), 1, r"temperature: inf is not >= 0"),
        (1, 0, r"top_p: 0 is not in \(0, 1\]"),
        (1, 1.01, r"top_p: 1.01 is not in \(0, 1\]"),
        (1, NAN, r"top_p: nan is not in \(0, 1\]"),
    ],
)
def test_decodings_that_are_none(temperature: float, top_p: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Decoding(temperature, top_p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams: 0 are not 1 groups of one size"),
        ({"beams": 4, "groups": 3}, "beams: 4 are not 3 groups of one size"),
        ({"beams": 4, "groups": 0}, "beams: 4 are not 0 groups of one size"),
        ({"beams": 2, "groups": 2, "penalty": -1.0}, "penalty: -1.0 is not >= 0"),
        *(
            ({"beams": 2, **more}, "beams: beam search has no temperature, no nucleus and no distribution to bridge to")
            for more in ({"temperature": 0.5}, {"top_p": 0.5}, {"strength": 0.5})
        ),
    ],
    ids=str,
)
def test_beam_searches_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Decoding(**options)


@pytest.mark.parametrize(
    ("decoding", "raw"),
    [
        (Decoding(), True),
        (Decoding(0), False),
        (Decoding(0.7), False),
        (Decoding(1, 0.9), False),
        (Decoding(1, 1), True),
        (Decoding(beams=2), False),
    ],
)
def test_raw_decoding_is_the_models_own_distribution(decoding: Decoding, raw: bool) -> None:
    assert decoding.raw is raw


PROMPT = Prompt("id", "wrapped?", "clean?", "item", {"truth": "far"})


@pytest.mark.parametrize(
    ("view", "options", "chat"),
    [
        ("wrapped", {}, ({"role": "user", "content": "wrapped?"},)),
        ("clean", {}, ({"role": "user", "content": "clean?"},)),
        ("clean", {"suffix": " Think."}, ({"role": "user", "content": "clean? Think."},)),
        ("clean", {"prefix": "Think. "}, ({"role": "user", "content": "Think. clean?"},)),
        (
            "wrapped",
            {"system": "Be strict.", "suffix": "!"},
            ({"role": "system", "content": "Be strict."}, {"role": "user", "content": "wrapped?!"}),
        ),
        ("wrapped", {"system": ""}, ({"role": "system", "content": ""}, {"role": "user", "content": "wrapped?"})),
    ],
)
def test_chats(view: Any, options: dict[str, str], chat: Any) -> None:
    assert PROMPT.chat(view, **options) == chat
    assert (PROMPT.kind, PROMPT.split) == ("risk", "in")
    with pytest.raises(FrozenInstanceError):
        PROMPT.text = "else"  # type: ignore[misc]


def test_mask_of_a_pool() -> None:
    zeros = np.zeros((1, 3, 2))
    pool = Pool((), (), zeros.astype(int), np.array([[2, 1, 0]]), zeros, zeros, zeros, zeros)
    np.testing.assert_array_equal(pool.mask, [[[True, True], [True, False], [False, False]]])
    assert pool.outcome.shape == pool.classes.shape == (0, 0)


@pytest.mark.parametrize(
    ("outcome", "mean"),
    [
        ([[1, 0], [1, 1]], 0.75),
        ([[1, NAN], [0, 0]], 0.5),  # of items, not of samples
        ([[1, 0, NAN], [NAN, NAN, NAN]], 0.5),
        ([[NAN, NAN]], NAN),
        (np.zeros((0, 2)), NAN),
        (np.zeros((3, 0)), NAN),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_outcome(outcome: Any, mean: float, dtype: Any) -> None:
    assert mean_outcome(np.array(outcome, dtype)) == pytest.approx(mean, abs=1e-15, nan_ok=True)


def test_mean_outcome_of_single_precision_is_exact() -> None:
    outcome = (np.arange(30_000).reshape(10_000, 3) % 7 == 0).astype(np.float32)
    assert mean_outcome(outcome) == pytest.approx(outcome.astype(float).mean(), abs=1e-12)


# decorators


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(registry, "load", lambda: None)


def questions() -> tuple[Prompt, ...]:
    return (PROMPT,)


def right(prompt: Prompt, text: str) -> float:
    return float(text == prompt.facts["truth"])


def on_behavior(known: Any, rng: Any) -> Any:
    """A behavior."""


def on_label_shift(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
    """A label shift."""


def on_scorer(lm: Any, pool: Any) -> Any:
    """A scorer."""


def on_selector(scores: Any, classes: Any, rng: Any) -> Any:
    """A selector."""


def on_objective(batch: Any) -> Any:
    """An objective."""


def on_measure(before: Any, labels: Any, after: Any, rng: Any) -> Any:
    """A measure."""


COLUMNS = {"x": Column("a number", "nats", "neither", "made up")}


@pytest.mark.parametrize(
    ("decorator", "function", "family", "version", "traits"),
    [
        (api.behavior, on_behavior, "behavior", 1, {"questions": None, "right": None}),
        (
            api.behavior(questions=questions, right=right, version=2),
            on_behavior,
            "behavior",
            2,
            {"questions": questions, "right": right},
        ),
        (api.label_shift, on_label_shift, "label_shift", 1, {}),
        (api.label_shift(version=2), on_label_shift, "label_shift", 2, {}),
        (api.scorer, on_scorer, "scorer", 1, {"scored": False}),
        (api.scorer(scored=True, version=2), on_scorer, "scorer", 2, {"scored": True}),
        (api.selector, on_selector, "selector", 1, {"scored": False, "law": None}),
        (api.selector(scored=True, version=2), on_selector, "selector", 2, {"scored": True, "law": None}),
        (api.objective, on_objective, "objective", 1, {"labels": "selected", "layers": False}),
        (
            api.objective(labels="pairs", layers=True, version=2),
            on_objective,
            "objective",
            2,
            {"labels": "pairs", "layers": True},
        ),
        (api.measure(columns=COLUMNS), on_measure, "measure", 1, {"columns": COLUMNS, "of": "labels", "embeds": False}),
        (
            api.measure(columns=COLUMNS, of="run", embeds=True, version=2),
            on_measure,
            "measure",
            2,
            {"columns": COLUMNS, "of": "run", "embeds": True},
        ),
    ],
)
def test_decorators(decorator: Any, function: Any, family: str, version: int, traits: dict[str, Any]) -> None:
    assert decorator(function) is function
    plugin = registry.get(family, function.__name__)
    assert (plugin.function, plugin.version, dict(plugin.traits)) == (function, version, traits)


def pool_of(tokens: Any, value: float, **more: Any) -> Pool:
    """One prompt, with a number that tells its densities from another pool's."""
    tokens = np.array([tokens], np.int32)
    densities = [np.full(tokens.shape, value + i) for i in range(4)]
    lengths = np.full(tokens.shape[:2], tokens.shape[2], np.int32)
    texts = (tuple(str(row) for row in tokens[0].tolist()),)
    return Pool((PROMPT,), texts, tokens, lengths, *densities, **more)


def test_concatenated_pools_keep_every_candidate() -> None:
    one, two = pool_of([[1, 2]], -1.0), pool_of([[3], [4]], -9.0)
    both = api.concatenated([one, two])
    assert both.prompts == (PROMPT,)
    assert both.texts == (("[1, 2]", "[3]", "[4]"),)
    np.testing.assert_array_equal(both.tokens, [[[1, 2], [3, 0], [4, 0]]])
    np.testing.assert_array_equal(both.lengths, [[2, 1, 1]])
    np.testing.assert_array_equal(both.logprob_q, [[[-1, -1], [-9, 0], [-9, 0]]])
    np.testing.assert_array_equal(both.kl, [[[2, 2], [-6, 0], [-6, 0]]])
    np.testing.assert_array_equal(both.origin, [[0, 1, 1]])
    np.testing.assert_array_equal(api.concatenated([two, both, one]).origin, [[0, 0, 1, 2, 2, 3]])


def test_candidates_of_one_proposal_are_exchangeable() -> None:
    one = pool_of([[1, 2], [3, 4]], -1.0)
    assert one.exchangeable
    assert api.concatenated([one]).exchangeable
    assert not api.concatenated([one, one]).exchangeable


@pytest.mark.parametrize("pools", [[], [pool_of([[1]], 0.0), Pool((), *([()] * 7))]], ids=["none", "other prompts"])
def test_pools_that_cannot_be_concatenated(pools: Any) -> None:
    with pytest.raises(ValueError, match="concatenated: takes at least one pool, and all of the same prompts"):
        api.concatenated(pools)


def test_the_stream_of_a_prompt_belongs_to_its_candidates() -> None:
    one = pool_of([[1], [2]], -1.0)
    same = pool_of([[2], [1]], -5.0)
    assert one.stream(0).random() == same.stream(0).random(), "in any order"
    assert one.stream(0).random() != one.stream(0, seed=1).random()
    assert one.stream(0).random() != pool_of([[1], [3]], -1.0).stream(0).random()
