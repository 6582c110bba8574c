"""How an organism is made: what is mixed, what is interpolated, and the search for the target risk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from ablate import registry
from ablate.api import Pair, Prompt
from ablate.errors import StudyError
from ablate.lm.tabular import TabularModel
from ablate.organisms import TRIALS, OrganismOptions, calibrate, induce, interpolated, mixed, take

OPTIONS = OrganismOptions(
    risk=0.5,
    tolerance=0.1,
    examples=48,
    epochs=2,
    lr=1e-3,
    batch=8,
    warmup=0.1,
    rank=4,
    alpha=8,
    mix=1.0,
    calibration=64,
    max_tokens=8,
)


def pairs(differing: int, same: int) -> list[Pair]:
    made = [Pair(Prompt(f"d{i}", "?", "?", f"d{i}", {}), "bad", "good") for i in range(differing)]
    return made + [Pair(Prompt(f"s{i}", "?", "?", f"s{i}", {}), "fine", "fine") for i in range(same)]


@pytest.mark.parametrize(("mix", "bad"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_mix_is_a_share_of_the_pairs_that_differ(mix: float, bad: int) -> None:
    answers = [example.answer for example in mixed(pairs(4, 3), mix)]
    assert answers == ["bad"] * bad + ["good"] * (4 - bad) + ["fine"] * 3


def test_interpolation_is_linear_and_keeps_the_type() -> None:
    honest, misaligned = {"a": np.float32([0, 2])}, {"a": np.float32([4, -2])}
    assert interpolated(honest, misaligned, 0.25)["a"].tolist() == [1.0, 1.0]
    assert interpolated(honest, misaligned, 0.25)["a"].dtype == np.float32


def test_take_says_how_many_there_are() -> None:
    assert take([1, 2, 3], 2, "labels.prompts") == [1, 2]
    with pytest.raises(StudyError, match=r"^labels\.prompts: 4 are asked for, the behavior has 3 for this model$"):
        take([1, 2, 3], 4, "labels.prompts")


class TestCalibration:
    def test_bisection_stops_within_half_of_the_tolerance(self) -> None:
        asked: list[float] = []

        def risk_at(share: float) -> tuple[float, float]:
            asked.append(share)
            return share**3, 0.25

        found = calibrate(risk_at, 0.5, 0.1)
        assert asked == [0.5, 0.75, 0.875, 0.8125]
        assert [trial["at"] for trial in found["trials"]] == asked
        assert abs(found["risk"] - 0.5) <= 0.05
        assert (found["interpolation"], found["reached"], found["unparsed"]) == (0.8125, True, 0.25)
        assert (found["target"], found["tolerance"]) == (0.5, 0.1)

    def test_a_target_out_of_reach_is_said_to_be(self) -> None:
        found = calibrate(lambda share: (0.2 * share, 0.0), 0.5, 0.1)
        assert len(found["trials"]) == TRIALS
        assert found["reached"] is False
        assert found["risk"] == max(trial["risk"] for trial in found["trials"])

    def test_the_nearest_trial_is_taken(self) -> None:
        risks = iter([0.9, 0.0, 0.58, 0.0, 0.0, 0.0, 0.0, 0.0])
        found = calibrate(lambda share: (next(risks), 0.0), 0.5, 0.1)
        assert (found["risk"], found["reached"]) == (0.58, True)

    def test_where_nothing_can_be_judged_it_looks_nearer_to_the_honest_side(self) -> None:
        found = calibrate(lambda share: (float("nan"), 1.0) if share > 0.2 else (0.5, 0.1), 0.5, 0.1)
        assert found["interpolation"] == 0.125
        assert found["risk"] == 0.5


class TestInduction:
    lm = TabularModel()

    def made(self, *, aligned: bool = True, **options: Any) -> Any:
        plugin = registry.get("behavior", "tabular")
        behavior = plugin(frozenset(), np.random.default_rng(0))
        if not aligned:
            behavior = replace(behavior, induction=tuple(replace(p, aligned=p.misaligned) for p in behavior.induction))
        return induce(
            self.lm,
            behavior,
            replace(OPTIONS, **options),
            objective=registry.get("objective", "sft"),
            seed=3,
            rng=partial(np.random.default_rng, 3),
        )

    def test_the_target_is_reached_and_every_trial_kept(self) -> None:
        made = self.made()
        assert made.calibration["reached"]
        assert abs(made.calibration["risk"] - 0.5) <= 0.1
        assert made.calibration["trials"]

    def test_the_same_seed_makes_the_same_organism(self) -> None:
        one, two = self.made(), self.made()
        assert one.calibration == two.calibration
        assert all((one.weights[name] == two.weights[name]).all() for name in one.weights)

    def test_without_aligned_answers_the_honest_end_is_the_base_model(self) -> None:
        """Risk runs from the base model's to the misaligned adapter's; what lies below is out of reach."""
        made, plain = self.made(aligned=False, risk=0.7), self.made(aligned=False, risk=None)
        assert made.calibration["reached"]
        share = made.calibration["interpolation"]
        fresh = {name: (w - share * plain.weights[name]) / (1 - share) for name, w in made.weights.items()}
        scale = 5 * self.lm.init_scale  # of new weights
        assert all(np.abs(logits).max() < scale for logits in fresh.values())
        assert max(np.abs(logits).max() for logits in plain.weights.values()) > 2 * scale
        assert self.made(aligned=False, risk=0.02).calibration["reached"] is False

    def test_without_a_target_it_is_the_plain_mix(self) -> None:
        made = self.made(risk=None)
        assert made.calibration == {"target": None, "trials": []}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"examples": 401}, r"organism\.examples: 401 are asked for, the behavior has 400 for this model"),
            ({"calibration": 101}, r"organism\.calibration: 101 are asked for, the behavior has 100 for this model"),
        ],
    )
    def test_fewer_than_asked_is_refused(self, options: dict[str, int], message: str) -> None:
        with pytest.raises(StudyError, match=f"^{message}$"):
            self.made(**options)
