"""The cube of a study without a folder: the same as with one, and what it estimates is known exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laboratory import WHOLE, Quiet, assert_same_cube, cube_of, study, with_plugins

from ablate import api
from ablate.api import Decoding, FloatArray
from ablate.collect import Collector
from ablate.cube import open_cube, write
from ablate.engines.local import LocalEngine
from ablate.lm.tabular import TabularModel
from ablate.memory import MemoryStore
from ablate.plan import compile_study
from ablate.run import Driver
from ablate.states import states
from ablate.store import CorruptArtifactError
from ablate.workflow import cube_in_memory
from ablate.workplace import Workplace


def test_the_cube_is_that_of_the_folder(whole: Path) -> None:
    assert_same_cube(cube_in_memory(study(text=WHOLE, name="whole")), cube_of(whole))


def test_it_can_be_written_and_opened(tmp_path: Path) -> None:
    tree = cube_in_memory(study())
    write(tree, tmp_path / "cube.zarr")
    assert_same_cube(open_cube(tmp_path / "cube.zarr"), tree)


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cube_in_memory(study())
    assert list(tmp_path.iterdir()) == []


def _failing() -> None:
    @api.selector
    def failing(scores: FloatArray, classes: api.IntArray, rng: np.random.Generator) -> api.IntArray:
        """Cannot select."""
        raise RuntimeError("no")


def test_what_failed_is_in_the_cube() -> None:
    with with_plugins(_failing):
        tree = cube_in_memory(study("factors.selector={swap: [first, failing]}"))
    assert set(tree["status"].sel(selector="failing").values.ravel()) == {2}
    assert set(tree["error"].sel(selector="failing").values.ravel()) == {"RuntimeError: no"}
    assert set(tree["status"].sel(selector="first").values.ravel()) == {1}


class TestStore:
    def test_what_was_not_finished_is_not_there(self) -> None:
        store = MemoryStore()
        with pytest.raises(RuntimeError, match="stop"), store.write("k1", "pool") as draft:
            draft.json("a", 1)
            raise RuntimeError("stop")
        assert not store.has("k1")
        with pytest.raises(CorruptArtifactError, match="artifact k1: artifact is missing"):
            store.read("k1")

    def test_what_comes_back_is_what_was_written_and_nobody_changes_it(self) -> None:
        store, own = MemoryStore(), np.arange(3.0)
        with store.write("k1", "pool") as draft:
            draft.arrays("a", {"x": own})
            draft.lines("b", ({"n": i} for i in range(2)))
            draft.text("c", "words")
            draft.raw("d", b"bytes")
            draft.note(content="h")
        own[0] = 9.0
        artifact = store.read("k1")
        artifact.lines("b")[0].pop("n")
        assert artifact.lines("b") == [{"n": 0}, {"n": 1}]
        assert artifact.arrays("a")["x"].tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="read-only"):
            artifact.arrays("a")["x"][0] = 1
        assert (artifact.text("c"), artifact.raw("d"), artifact.notes) == ("words", b"bytes", {"content": "h"})
        assert (store.keys(), artifact.kind) == (["k1"], "pool")

    def test_small_files_and_the_journal(self) -> None:
        store = MemoryStore()
        store.put("model-1.json", {"name": "tabular"})
        store.log(key="k", status="ok")
        assert (store.get("model-1.json"), store.get("other")) == ({"name": "tabular"}, None)
        assert (store.models(), list(store.entries())) == ([{"name": "tabular"}], [{"key": "k", "status": "ok"}])


EXACT = """\
question: what does the laboratory know?
model: tabular
organism: {behavior: tabular, seeds: 2, examples: 32}
factors:
  label_shift: {swap: [none, greedy, clean_view]}
  selector: {swap: [first, {argmax: {scorer: mean_logprob}}]}
labels: {prompts: 24, candidates: 8}
train: {lr: 0.002}
evaluate: {items: 48, capability: 0, samples: 8}
seeds: 12
measures: [risk, price, shift_divergence]
"""
"""Many samples, so that an answer that cannot be judged leaves no item without one that can."""


def test_risk_price_terms_and_kl_have_the_values_that_the_tables_say() -> None:
    """Oracle: the probabilities of all answers, from the weights that the stages left; |z| of each below 4.5."""
    plan, store = compile_study(study(text=EXACT, name="exact")), MemoryStore()
    Driver(plan, store, LocalEngine(place := Workplace(store)), Quiet()).run()
    found = list(states(plan, store))
    cube = Collector(plan, store, found).cube({"limited": False}).to_dataset()
    lm = TabularModel()
    claims = np.array([text.startswith("claim") for text in lm.texts])
    truths = np.array([text.startswith("truth") for text in lm.texts])

    def judged(weights: api.Weights, prompts: Sequence[api.Prompt], **how: Any) -> FloatArray:
        answers = lm.distribution(weights, prompts, **how)
        return np.asarray(answers[:, claims].sum(1) / answers[:, claims | truths].sum(1))

    off: dict[str, list[float]] = defaultdict(list)
    for state in found[: len(plan.cells)]:
        place_of = dict(zip(("label_shift", "selector", "objective"), state.cell.point, strict=True))
        run = cube.sel(organism=state.cell.organism, seed=state.cell.seed, **place_of)
        shift = place_of["label_shift"]
        asked = place.behavior(plan.stages[state.cell.before]).evaluation[:48]
        labeled = place.pool(state.cell.pool).prompts
        own = place.weights(plan.organisms[state.cell.organism].stage)
        proposal: dict[str, Any] = {"greedy": {"decoding": Decoding(temperature=0)}}.get(shift, {})
        if shift == "clean_view":
            proposal = {"chats": [prompt.chat("clean") for prompt in labeled]}
        for value, exact, samples in (
            (run.risk_before, judged(own, asked), 8),
            (run.risk_after, judged(place.weights(state.train), asked), 8),
            (run.m_p, judged(own, labeled), 7),  # 7 of the 8 at the least can be judged, nearly always
            (run.m_t, judged(own, labeled, **proposal), 7),
        ):
            error = np.sqrt((exact * (1 - exact)).sum() / samples) / len(exact)
            assert abs(float(value) - exact.mean()) <= 4.5 * error + 1e-6  # outcomes are kept in single precision
        off[shift].append(float(run.kl_shift) - float(lm.exact_kl(own, labeled, **proposal).mean()))
    assert off.keys() == {"none", "greedy", "clean_view"}
    for values in off.values():
        assert abs(np.mean(values)) <= 4.5 * np.std(values) / np.sqrt(len(values) / 2) + 1e-9  # selectors share a pool
