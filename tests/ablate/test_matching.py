"""Label shifts at equal KL: the bridge between two distributions, and the search along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from laboratory import cube_of, run, study

from ablate import registry
from ablate.api import Decoding, Pool, Prompt
from ablate.errors import StudyError
from ablate.lm.tabular import TabularModel
from ablate.matching import Bridged, kl_of, matched

LM = TabularModel()
BEHAVIOR = registry.get("behavior", "tabular")(frozenset(), np.random.default_rng(0))
PROMPTS: list[Prompt] = list(BEHAVIOR.label[:40])


def draw(name: str, **options: Any) -> Any:
    plugin = registry.get("label_shift", name)

    def at(strength: float) -> Pool:
        pool: Pool = plugin(
            Bridged(LM.policy(None, max_tokens=8), strength), PROMPTS, np.random.default_rng(1), k=8, **options
        )
        return pool

    return at


@pytest.mark.parametrize("name", ["clean_view", "cot_view", "nucleus"])
def test_kl_grows_along_the_bridge(name: str) -> None:
    options = {"temperature": 0.5, "top_p": 1.0} if name == "nucleus" else {}
    found = [kl_of(draw(name, **options)(strength)) for strength in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(found) > 0)


def test_the_bridge_at_full_strength_is_the_proposal() -> None:
    policy = LM.policy(None, max_tokens=8)
    plain = registry.get("label_shift", "clean_view")(policy, PROMPTS, np.random.default_rng(1), k=8)
    assert draw("clean_view")(1.0).texts == plain.texts


def test_the_kl_along_samples_is_that_of_the_bridge() -> None:
    chats = [prompt.chat("clean") for prompt in PROMPTS]
    exact = LM.exact_kl(None, PROMPTS, decoding=Decoding(strength=0.5), chats=chats).mean()
    pool = Bridged(LM.policy(None, max_tokens=8), 0.5).pool(PROMPTS, np.random.default_rng(0), k=400, chats=chats)
    sums = np.where(pool.mask, pool.kl, 0).sum(2)
    error = sums.mean(0).std() / np.sqrt(400)
    assert abs(sums.mean() - exact) < 3 * max(error, 1e-4)
    ratio = np.where(pool.mask, pool.logprob_drawn - pool.logprob_p, 0).sum(2)
    assert abs(ratio.mean() - exact) < 3 * ratio.mean(0).std() / np.sqrt(400)


@pytest.mark.parametrize("target", [0.2, 0.6, 0.9])
def test_the_target_is_met_within_the_caliper(target: float) -> None:
    pool, found = matched(draw("clean_view"), target, 0.05)
    assert abs(kl_of(pool) - target) <= 0.05
    assert found["kl_total"] == kl_of(pool)
    assert 0 < found["strength"] < 4


def test_the_null_level_stays_as_it_is() -> None:
    pool, found = matched(draw("none"), 1.0, 0.1)
    assert found == {"strength": None, "kl_total": 0.0, "trials": []}
    assert kl_of(pool) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("greedy", 0.1, "labels.match: strength: greedy decoding has no distribution between it and the organism's"),
        ("beam", 0.1, "labels.match: the KL of this label shift is not known"),
        ("clean_view", 500.0, r"labels.match: 500 \+- 0.1 nats is out of reach, the nearest is .* at strength 4; "),
    ],
)
def test_what_cannot_be_matched_is_refused(name: str, target: float, message: str) -> None:
    with pytest.raises(StudyError, match=f"^{message}"):
        matched(draw(name), target, 0.1)


def test_selectors_are_compared_at_equal_shift(tmp_path: Any) -> None:
    sets = (
        "factors.label_shift={swap: [none, clean_view, cot_view]}",
        "labels={prompts: 40, candidates: 4, match: {kl_total: 0.6, caliper: 0.1}}",
        "measures=null",
    )
    run(study(*sets), tmp_path / "small")
    kl = cube_of(tmp_path / "small")["kl_shift"].squeeze(drop=True)
    assert (abs(kl.sel(label_shift="none")) < 1e-12).all()
    assert (abs(kl.sel(label_shift=["clean_view", "cot_view"]) - 0.6) <= 0.1).all()
    assert (kl.isel(selector=0) == kl.isel(selector=1)).all()
