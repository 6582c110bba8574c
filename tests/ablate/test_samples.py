"""What the browser of samples is given, against the artifacts themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import ARABIC, CONTROL, HALF, LONG, SCRIPT, STUDY, plugin
from laboratory import WHOLE, drive, run, study, with_plugins

from ablate.plan import Plan, compile_study
from ablate.reports.html import embedded
from ablate.samples import LONGEST, samples
from ablate.stages import read_evaluation
from ablate.states import states
from ablate.store import Store
from ablate.study import Study

ROOM = 2_500_000


def sampled(own: Study, folder: Path, room: int = ROOM) -> tuple[dict[str, Any], Plan, Store]:
    plan, store = compile_study(own), Store(folder)
    return samples(plan, store, list(states(plan, store)), room), plan, store


@pytest.mark.parametrize("selector", ["first", "majority", "argmax(mean_logprob)"])
def test_every_pool_has_its_answers_scores_and_picks(whole: Path, selector: str) -> None:
    found, plan, store = sampled(study(text=WHOLE, name="whole"), whole)
    assert len(found["labels"]) == 6 * 12
    for cell in plan.cells:
        if cell.point[1] != selector:
            continue
        lines, judged = (store.read(cell.pool).lines("pool.jsonl"), store.read(cell.pool).arrays("pool.safetensors"))
        left = store.read(cell.labels).arrays("labels.safetensors")
        for i, line in enumerate(lines):
            [record] = [own for own in found["labels"] if (own["organism"], own["id"]) == (cell.organism, line["id"])]
            [own] = [own for own in record["pools"] if found["pools"][own["pool"]]["key"] == cell.pool]
            pool = found["pools"][own["pool"]]
            assert pool["at"]["label_shift"] == cell.point[0]
            assert record["prompt"] == line["text"]
            assert [answer["text"] for answer in own["answers"]] == line["answers"]
            outcomes = [np.nan if answer["outcome"] is None else answer["outcome"] for answer in own["answers"]]
            np.testing.assert_array_equal(outcomes, judged["outcome"][i])
            assert [answer["class"] for answer in own["answers"]] == judged["classes"][i].tolist()
            [place] = [s for s, one in enumerate(pool["selections"]) if one["at"] == {"selector": selector}]
            assert pool["selections"][place]["key"] == cell.labels
            assert own["taken"][place] == int(left["weights"][i].argmax())
            if selector.startswith("argmax"):
                np.testing.assert_allclose(
                    own["scores"][pool["scorers"].index("mean_logprob")], left["scores"][i], 1e-3
                )


def test_every_item_has_its_answers_before_and_after_each_run(small: Path) -> None:
    found, plan, store = sampled(study(), small)
    for state in states(plan, store):
        if state.cell.point == ():
            continue
        at = {"label_shift": state.cell.point[0], "selector": state.cell.point[1]}
        for key, when in ((state.cell.before, "before"), (state.after, "after")):
            [place] = [i for i, own in enumerate(found["evaluations"]) if own["key"] == key]
            assert found["evaluations"][place]["when"] == when
            assert when == "before" or at in found["evaluations"][place]["runs"]
            evaluation = read_evaluation(store.read(key))
            for prompt, texts in zip(evaluation.prompts, evaluation.texts, strict=True):
                [record] = [
                    own for own in found["answers"] if (own["organism"], own["id"]) == (state.cell.organism, prompt.id)
                ]
                [own] = [own for own in record["evaluations"] if own["evaluation"] == place]
                assert [answer["text"] for answer in own["answers"]] == list(texts)


@pytest.mark.parametrize("room", [25_000, 60_000, ROOM])
def test_samples_fit_and_say_what_is_left_out(whole: Path, room: int) -> None:
    found, _, _ = sampled(study(text=WHOLE, name="whole"), whole, room)
    assert len(embedded(found).encode()) <= room + 300  # what is said about them comes on top
    assert found["shown"]["labels"] == [len(found["labels"]), 72]
    assert found["shown"]["answers"] == [len(found["answers"]), 96]
    if room >= 60_000:
        for kind in ("labels", "answers"):
            assert {record["organism"] for record in found[kind]} == set(range(6))


def test_a_swapped_option_is_a_factor_and_one_seed_of_several_is_shown(tmp_path: Path) -> None:
    own = study("labels.candidates={swap: [2, 3]}", "seeds=[4, 5]", "measures=[risk]")
    run(own, tmp_path)
    found, _, _ = sampled(own, tmp_path)
    assert [(factor["name"], factor["levels"]) for factor in found["factors"]] == [
        ("label_shift", ["none", "greedy"]),
        ("selector", ["first", "argmax(mean_logprob)"]),
        ("candidates", ["2", "3"]),
    ]
    assert (found["shown"]["seed"], found["shown"]["seeds"]) == (4, 2)
    assert {pool["at"]["candidates"] for pool in found["pools"]} == {"2", "3"}
    assert {len(own["answers"]) for record in found["labels"] for own in record["pools"]} == {1, 2, 3}


def test_nothing_of_a_hostile_answer_is_lost_but_what_is_said_to_be_cut(hostile: Path) -> None:
    with with_plugins(plugin):
        found, _, _ = sampled(study(text=STUDY, name="hostile"), hostile)
    answers = [answer for record in found["labels"] for own in record["pools"] for answer in own["answers"]]
    assert {SCRIPT, ARABIC, CONTROL, HALF} <= {answer["text"] for answer in answers}
    cut = [answer for answer in answers if "length" in answer]
    assert len(cut) == found["shown"]["cut"] == 2
    for answer in cut:
        assert answer["length"] == len(LONG)
        assert LONG.startswith(answer["text"])
        assert LONG.endswith(answer["end"])
        assert len(answer["text"]) + len(answer["end"]) == LONGEST[0]


def test_an_unfinished_study_has_the_samples_that_are_there(tmp_path: Path) -> None:
    found, _, _ = sampled(study(), tmp_path)
    assert (found["labels"], found["answers"], found["pools"]) == ([], [], [])
    plan, _, _ = drive(study(), tmp_path)
    first = plan.cells[0]
    Store(tmp_path).discard(first.pool)
    found, _, _ = sampled(study(), tmp_path)
    assert first.pool not in {pool["key"] for pool in found["pools"]}
    assert len(found["pools"]) == 3
