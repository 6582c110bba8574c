"""The cube of a study without a folder: the same as with one, and what it estimates is known exactly."""

from __future__ import annotations

import builtins
import io
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from ablate.errors import StudyError
from ablate.lm.tabular import TabularModel
from ablate.memory import MemoryStore
from ablate.plan import compile_study
from ablate.run import Driver
from ablate.states import states
from ablate.store import CorruptArtifactError, Draft, Store
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


STORES = {"folder": lambda path: Store(path / "x"), "memory": lambda path: MemoryStore()}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Either store: what one does the other does."""
    own: Store = STORES[request.param](tmp_path)
    return own


def fill(draft: Draft) -> None:
    draft.json("a", {"risk": np.float64(0.5), "seeds": (1, 2), "none": math.nan})
    draft.lines("b", ({"n": i, "answers": [str(i)]} for i in range(2)))
    draft.text("c", "Grüße")
    draft.raw("d", b"bytes")
    draft.arrays("e", {"x": np.arange(6.0).reshape(2, 3).T, "swapped": np.array([1, 2], ">i4"), "no": np.zeros(0)})
    draft.note(content="h", count=np.int64(2))


class TestStore:
    """Oracle: the folder's store."""

    def test_the_files_are_the_same_bytes(self, tmp_path: Path) -> None:
        read = []
        for make in STORES.values():
            own = make(tmp_path)
            with own.write("k1", "pool") as draft:
                fill(draft)
            own.verify("k1")
            read.append(own.read("k1"))
        assert [sorted(artifact.files) for artifact in read] == [list("abcde")] * 2
        for name in "abcde":
            assert read[0].raw(name) == read[1].raw(name)
        for part in ("key", "kind", "notes"):
            assert getattr(read[0], part) == getattr(read[1], part)

    def test_what_comes_back_is_what_was_written_and_nobody_changes_it(self, store: Store) -> None:
        own, rows, array, notes = {"seeds": [1, 2]}, [{"answers": ["x"]}], np.arange(3.0), {"ids": [1]}
        with store.write("k1", "pool") as draft:
            draft.json("a", own)
            draft.lines("b", rows)
            draft.arrays("c", {"x": array})
            draft.note(**notes)
        store.put("small.json", own)
        store.log(event=own)
        for changed in (own["seeds"], rows[0]["answers"], notes["ids"]):
            changed.append(9)  # type: ignore[attr-defined]
        array[0] = 9
        artifact = store.read("k1")
        for _ in range(2):
            for value in (artifact.json("a"), store.get("small.json"), next(store.entries())["event"]):
                assert value == {"seeds": [1, 2]}
                value["seeds"].append(9)
            [row] = artifact.lines("b")
            assert row.pop("answers") == ["x"]
            read = artifact.arrays("c")["x"]
            assert read.tolist() == [0, 1, 2]
            read[0] = 9
        assert artifact.notes == {"ids": [1]}

    @pytest.mark.parametrize(
        ("write", "error", "message"),
        [
            (lambda d: d.arrays("a", {"x": np.array([{}])}), StudyError, "^a: array 'x' has dtype object, which"),
            (lambda d: d.arrays("a", {"x": np.array(["t"])}), StudyError, "^a: array 'x' has dtype <U1, which"),
            (lambda d: d.json("a", {1}), TypeError, "^set cannot be written as JSON$"),
            (lambda d: d.lines("a", [np.zeros(2)]), TypeError, "^ndarray cannot be written as JSON$"),
            (lambda d: d.text("a", "half \ud83d"), UnicodeEncodeError, "surrogates not allowed"),
            (lambda d: d.note(risk=math.nan), StudyError, r"^notes\.risk: nan cannot be part of a key"),
            (lambda d: d.text("../a", ""), StudyError, r"^'\.\./a' is not a name"),
            (lambda d: d.text("receipt.json", ""), StudyError, r"^receipt\.json is written by the store$"),
            (lambda d: [d.text("a", "1"), d.arrays("a", {})], StudyError, "in the way|is written once"),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, store: Store, write: Callable[[Draft], object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message), store.write("k1", "pool") as draft:
            write(draft)
        assert (store.has("k1"), store.keys(), store.size()) == (False, [], {})

    def test_what_was_not_finished_is_not_there(self, store: Store) -> None:
        with pytest.raises(RuntimeError, match="stop"), store.write("k1", "pool") as draft:
            fill(draft)
            raise RuntimeError("stop")
        assert not store.has("k1")
        with pytest.raises(CorruptArtifactError, match=r"^artifact k1: \S+ is missing$"):
            store.read("k1")

    def test_artifacts_come_stay_and_go(self, store: Store) -> None:
        for number in (1, 2):  # the first of two equal keys stays
            with store.write("k1", "pool") as draft:
                draft.text("a", str(number))
        assert (store.read("k1").text("a"), store.keys(), store.size()) == ("1", ["k1"], {"pool": 1})
        with pytest.raises(FileNotFoundError, match=r"artifact k1 \(pool\) has no 'b', only \['a'\]"):
            store.read("k1").arrays("b")
        assert (store.discard("k1"), store.has("k1"), store.discard("k1"), store.keys()) == (True, False, False, [])
        for use in (store.read, store.has, store.discard, lambda key: store.write(key, "x").__enter__()):
            with pytest.raises(StudyError, match=r"^'\.x' is not a name"):
                use(".x")

    def test_small_files(self, store: Store) -> None:
        store.put("model-1.json", {"name": "tabular"})
        store.put("words.txt", "no JSON")
        assert (store.get("model-1.json"), store.get("other"), store.get("other", 3)) == ({"name": "tabular"}, None, 3)
        assert (store.get("words.txt", 3), store.models()) == (None, [{"name": "tabular"}])
        with pytest.raises(TypeError, match="set cannot be written as JSON"):
            store.put("words.txt", {1})

    def test_the_journal(self, store: Store) -> None:
        for number in range(2):
            store.log(key="k", number=np.int64(number))
        entries = list(store.entries())
        assert all(entry.pop("at").endswith("+00:00") for entry in entries)
        assert (entries, store.torn) == ([{"key": "k", "number": 0}, {"key": "k", "number": 1}], 0)
        with pytest.raises(TypeError, match="set cannot be written as JSON"):
            store.log(key={1})

    def test_it_belongs_to_one_study_and_one_driver(self, store: Store) -> None:
        for digest in ("d1", "d2"):
            store.claim(digest, "mine")
        with pytest.raises(StudyError, match=f"^{store.root} holds study 'mine', not 'other'; choose another folder"):
            store.claim("d2", "other")
        with pytest.raises(RuntimeError, match="stop"), store.locked("mine"):
            message = rf"^{store.root} is in use by study 'mine', process {os.getpid()} on \S+, since 20\S+; wait"
            with pytest.raises(StudyError, match=message), store.locked("other"):
                pytest.fail("two drivers")
            raise RuntimeError("stop")
        with store.locked("other"):
            assert store.sweep() == 0


def test_a_store_in_memory_touches_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"the disk was asked for {arguments}")

    store = MemoryStore()
    with monkeypatch.context() as patch:
        for module, calls in (
            (os, ("mkdir", "open", "rename", "replace", "unlink", "fsync", "listdir")),
            (builtins, ("open",)),
            (io, ("open",)),
        ):
            for call in calls:
                patch.setattr(module, call, refuse)
        with store.locked("mine"):
            store.claim("d", "mine")
            with store.write("k1", "pool") as draft:
                fill(draft)
            store.verify("k1")
            store.log(key="k1")
            assert (len(list(store.entries())), store.size()["pool"] > 0, store.sweep()) == (1, True, 0)
            assert store.discard("k1")
    with pytest.raises(OSError, match="Not a directory"):
        (store.root / "cube.zarr").mkdir(parents=True)


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
