"""What stages refuse, what they keep, and scorers that read the scores of another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from laboratory import cube_of, drive, run, study, with_plugins

from ablate import api, workplace
from ablate.errors import FatalError, StudyMistakes
from ablate.plan import compile_study
from ablate.store import Store

ALONE = "factors.label_shift=none"
LEFT = (
    "no label was left: the selector abstained from all 12 prompts; lower its bar, or take a scorer that gives these "
    "candidates a score"
)


def _bad() -> None:
    @api.scorer
    def unscored(lm: Any, pool: Any) -> Any:
        """No score for any candidate, as of a pool without log-probabilities."""
        return np.full(pool.lengths.shape, np.nan)

    @api.label_shift
    def empty(lm: Any, prompts: Any, rng: Any, *, k: int) -> Any:
        """No candidate at all."""
        pool = lm.pool(prompts, rng, k=1)
        cut = {name: getattr(pool, name)[:, :0] for name in ("tokens", "lengths", "logprob_q", "logprob_p", "kl")}
        return replace(pool, texts=tuple(() for _ in prompts), **cut, logprob_drawn=pool.logprob_drawn[:, :0])


@pytest.mark.parametrize(
    "selector",
    ["{argmax: {scorer: unscored}}", "{threshold: {scorer: mean_logprob, at: 1}}"],
)
def test_a_run_without_labels_fails_and_nothing_is_lost(tmp_path: Path, selector: str) -> None:
    with with_plugins(_bad):
        ran = run(study(ALONE, f"factors.selector={{swap: [first, {selector}]}}", "measures=null"), tmp_path)
        cube = cube_of(tmp_path).to_dataset().squeeze(drop=True)
        labels = [key for key in Store(tmp_path).keys() if "law" in Store(tmp_path).read(key).notes]
    assert {message for _, message in ran.errors} == {LEFT}
    assert ran.states == {"ok": 2, "failed": 2}
    assert len(labels) == 4, "first and the other, in two organisms; the null control is first"
    failed = cube.isel(selector=1)
    assert np.isnan(failed.risk_delta).all()
    assert not np.isnan(cube.isel(selector=0).risk_delta).any()


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with with_plugins(_bad):
        ran = run(study("factors.label_shift={swap: [none, empty]}"), tmp_path)
    assert {message for _, message in ran.errors} == {
        "label shift 'empty' left an empty pool: no candidate answer to any prompt"
    }
    assert ran.states == {"ok": 4, "blocked": 4}


SHUFFLED = "{argmax: {scorer: {shuffled: {scorer: mean_logprob}}}}"


def test_a_placebo_takes_the_values_of_its_scorer_elsewhere(tmp_path: Path) -> None:
    swap = f"factors.selector={{swap: [{{argmax: {{scorer: mean_logprob}}}}, {SHUFFLED}]}}"
    plan, _, _ = drive(study(ALONE, swap), tmp_path)
    store = Store(tmp_path)
    for real, placebo in zip(plan.cells[::2], plan.cells[1::2], strict=True):
        assert real.scores is not None
        assert placebo.scores is not None
        assert real.pool == placebo.pool
        one, other = (store.read(key).arrays("scores.safetensors")["scores"] for key in (real.scores, placebo.scores))
        assert not np.array_equal(one, other)
        np.testing.assert_array_equal(np.sort(one, axis=1), np.sort(other, axis=1))


def test_what_a_scorer_reads_is_part_of_its_key() -> None:
    def scores(scorer: str) -> str | None:
        return compile_study(study(ALONE, f"factors.selector={{argmax: {{scorer: {scorer}}}}}")).cells[0].scores

    levels = [
        "mean_logprob",
        "{shuffled: {scorer: mean_logprob}}",
        "{shuffled: {scorer: length}}",
        "{shuffled: {scorer: length, seed: 1}}",
        "{shuffled: {scorer: {shuffled: {scorer: length}}}}",
    ]
    assert len({scores(level) for level in levels}) == len(levels)


def test_a_placebo_is_called_by_its_scorer() -> None:
    own = study(ALONE, f"factors.selector={SHUFFLED}")
    assert own.options.factors.selector.label == "argmax(shuffled(mean_logprob))"


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("{argmax: {scorer: shuffled}}", "'shuffled' needs a scorer: {shuffled: {scorer: "),
        ("{argmax: {scorer: {shuffled: {scorer: mean_logprb}}}}", "no scorer called 'mean_logprb'; did you mean "),
        ("{argmax: {scorer: {length: {scorer: mean_logprob}}}}", "'length' reads no scores; leave the scorer out"),
        ("{argmax: {scorer: {shuffled: {scorer: length, sed: 1}}}}", "did you mean 'seed'?"),
        ("{threshold: {scorer: length}}", "threshold.at: required, but missing"),
        ("{softmax: {scorer: length, taus: 1}}", "did you mean 'tau'?"),
        ("{borda: {power: 2}}", "'borda' needs a scorer: {borda: {scorer: "),
        ("{quantile: {scorer: length, q: 1.5}}", "1.5 is not <= 1"),
    ],
)
def test_a_scorer_of_scores_is_validated_like_any_other(selector: str, says: str) -> None:
    with pytest.raises(StudyMistakes) as caught:
        study(ALONE, f"factors.selector={selector}")
    assert says in str(caught.value)


def test_what_a_scorer_logs_is_kept_beside_its_scores(tmp_path: Path) -> None:
    plan, _, _ = drive(study(ALONE, "factors.selector={argmax: {scorer: universal}}"), tmp_path)
    key = plan.cells[0].scores
    assert key is not None
    kept = Store(tmp_path).read(key).arrays("scores.safetensors")
    assert {name: array.shape for name, array in kept.items()} == {"scores": (12, 3), "shown": (12, 3), "named": (12,)}


def test_every_level_runs(tmp_path: Path) -> None:
    """Pools whose KL is not known, views and decodings of several candidates: all the way to the tables."""
    shots = "{few_shot: {examples: [['item 900: what is it?', 'truth 0']]}}"
    ran = run(
        study(
            f"factors.label_shift={{swap: [none, beam, diverse_beam, mixed_decoding, multi_view, refine, {shots}]}}",
            "factors.selector={swap: [first, {argmax: {scorer: self_certainty}}, {borda: {scorer: entropy}}, "
            "{softmax: {scorer: medoid}}, {agreement_filter: {at: 0.3}}]}",
            "measures=null",
        ),
        tmp_path,
    )
    assert set(ran.states) <= {"ok", "aliased"}, ran.errors[:3]
    kl = cube_of(tmp_path).to_dataset()["kl_shift"].squeeze(drop=True)
    known = {str(shift): not np.isnan(kl.sel(label_shift=shift)).any() for shift in kl.label_shift.values}
    assert sum(known.values()) == 3
    assert all(known[name] for name in known if name.startswith(("none", "refine", "few_shot")))


def test_a_local_judge_is_the_model_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = list[Any](), workplace.load_model
    monkeypatch.setattr(workplace, "load_model", lambda options: loaded.append(options) or load(options))
    judged = "factors.selector={argmax: {scorer: {judge: {by: {model: tabular}, rubric: 'Score: 3 {answer}'}}}}"
    run(study(ALONE, judged), tmp_path)
    assert len(loaded) == 1
    assert len(list(tmp_path.glob("model-*.json"))) == 1


def test_a_reward_model_is_loaded_once_for_all_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = list[str]()

    def load(name: str, revision: str | None) -> Any:
        loaded.append(name)
        return lambda chats: np.arange(len(chats), dtype=float)

    monkeypatch.setattr(workplace, "load_rewards", load)
    own = study("factors.selector={argmax: {scorer: {reward_model: {model: rewards}}}}")
    _, engine, _ = drive(own, tmp_path)
    assert Counter(stage.kind for stage in engine.given)["scores"] == 4
    assert loaded == ["rewards"]


@pytest.mark.parametrize(("decoding", "one"), [("greedy", True), ("sample", False)])
def test_an_evaluation_is_greedy_where_it_is_asked_to_be(tmp_path: Path, decoding: str, one: bool) -> None:
    plan, _, _ = drive(study(f"evaluate.decoding={decoding}", "evaluate.samples=8"), tmp_path)
    for cell in plan.cells:
        answers = [line["answers"] for line in Store(tmp_path).read(cell.before).lines("answers.jsonl")]
        assert all(len(set(row)) == 1 for row in answers) == one


def test_one_base_model_is_held_at_a_time_and_every_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[list[str]]()

    class Loaded:
        identity: ClassVar = {"weights": "", "dtype": "", "device": ""}

    def load(options: Any) -> Loaded:
        held.append([name.split("'name': '")[1].split("'")[0] for name in place.models])
        return Loaded()

    monkeypatch.setattr(workplace, "load_model", load)
    monkeypatch.setattr(workplace, "local_judge", lambda lm: lm)
    place = workplace.Workplace(Store(tmp_path))
    for name in ("one", "one", "two"):
        place.model({"model": {"name": name}})
    place.judge({"model": "umpire"})
    for name in ("two", "one"):
        place.model({"model": {"name": name}})
    assert held == [[], [], [], ["umpire"], ["umpire"]]


@pytest.mark.parametrize("left", ["{", "{}x", '{"name": "tabular"}'])
def test_a_folder_that_forgot_its_weights_goes_on_with_no_others(tmp_path: Path, left: str) -> None:
    run(study(ALONE), tmp_path)
    (known,) = tmp_path.glob("model-*.json")
    known.write_text(left)
    with pytest.raises(FatalError, match=f"{known.name} is damaged; move it away if this folder was always run on one"):
        run(study(ALONE, "train.epochs=3"), tmp_path)
