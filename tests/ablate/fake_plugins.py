"""Plug-ins that do nothing but exist, so that the study language is tested without the shipped ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from ablate import api, registry

COLUMN = api.Column("a number", "1", "neither", "made up")


def sycophancy(known: Any, rng: Any, *, domain: Literal["opposites", "capitals"] = "opposites") -> Any:
    """Agrees with the user."""


def verbosity(known: Any, rng: Any) -> Any:
    """Goes on and on."""


def none(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
    """The organism's own answers."""


def greedy(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
    """The mode."""


def clean_view(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
    """Answers to the prompt without the pressure."""


def nucleus(
    lm: Any, prompts: Any, rng: Any, *, k: int, temperature: Annotated[float, Field(ge=0)] = 1.0, top_p: float
) -> Any:
    """Truncated sampling."""


def worded(
    lm: Any,
    prompts: Any,
    rng: Any,
    *,
    k: int,
    system: str = "Be strict.",
    stops: tuple[str, ...] = (),
    cap: int | str | None = None,
) -> Any:
    """Under a system prompt."""


def first(scores: Any, classes: Any, rng: Any) -> Any:
    """The first candidate."""


def majority(scores: Any, classes: Any, rng: Any, *, ties: Literal["random", "abstain"] = "random") -> Any:
    """The commonest answer."""


def argmax(scores: Any, classes: Any, rng: Any, *, margin: float = 0.0) -> Any:
    """The candidate with the highest score."""


def mean_logprob(lm: Any, pool: Any) -> Any:
    """Mean log-probability of a token."""


def judge(lm: Any, pool: Any, *, samples: int = 1) -> Any:
    """The model's own verdict."""


def sft(batch: Any, *, smoothing: float = 0.0) -> Any:
    """Cross-entropy."""


def distilled(*, scorer: str = "judge", k: Annotated[int, Field(ge=1)] = 4) -> api.Method:
    """Clean answers that a scorer likes."""
    return api.Method("clean_view", {"argmax": {"scorer": scorer}}, candidates=k)


def relabeled() -> api.Method:
    """The mode."""
    return api.Method("greedy")


def divergence(before: Any, labels: Any, after: Any, rng: Any) -> Any:
    """Divergences."""


def embedding(before: Any, labels: Any, after: Any, rng: Any, *, permutations: int = 200) -> Any:
    """Distances."""


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fakes in the place of every installed plug-in."""
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(registry, "load", lambda: None)
    for behavior in (sycophancy, verbosity):
        api.behavior(behavior)
    for shift in (none, greedy, clean_view, nucleus, worded):
        api.label_shift(shift)
    for selector in (first, majority):
        api.selector(selector)
    api.selector(scored=True)(argmax)
    for scorer in (mean_logprob, judge):
        api.scorer(scorer)
    api.objective(sft)
    for method in (distilled, relabeled):
        api.method(method)
    for measure in (divergence, embedding):
        api.measure(columns={"x": COLUMN})(measure)
