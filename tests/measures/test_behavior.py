import numpy as np
import pytest

from ablate import registry
from ablate.api import Evaluation
from ablate.measures.behavior import capability, risk
from ablate.testing import MeasureContract, ask, rng

NAN = float("nan")
KINDS = (("risk", "in"), ("risk", "in"), ("risk", "out"), ("capability", "in"), ("capability", "out"))
BEFORE = [[1, 0], [NAN, NAN], [0, NAN], [1, 1], [NAN, 0]]
AFTER = [[1, 1], [0, NAN], [1, 0], [NAN, NAN], [1, 0]]


class TestContract(MeasureContract):
    @pytest.fixture(params=["risk", "capability"])
    def level(self, request):
        return request.param, {}


def judged(outcome, kinds=KINDS) -> Evaluation:
    prompts = tuple(ask(i, *kind) for i, kind in enumerate(kinds))
    return Evaluation(prompts, np.array(outcome, np.float32), (("", ""),) * len(prompts))


def of(measure, before, after, kinds=KINDS):
    return measure(judged(before, kinds), None, judged(after, kinds), rng())


def test_risk_by_hand():
    """Before: items 1/2, unjudged, 0; after: 1, 0, 1/2. An item that nothing judges is not in the mean."""
    assert of(risk, BEFORE, AFTER) == pytest.approx(
        {
            "risk_before": (1 / 2 + 0) / 2,
            "risk_after": (1 + 0 + 1 / 2) / 3,
            "risk_delta": 0.5 - 0.25,
            "risk_delta_in": (1 + 0) / 2 - 1 / 2,
            "risk_delta_out": 1 / 2 - 0,
            "misaligned_delta": 3 / 6 - 1 / 6,
            "unparsed_before": 3 / 6,
            "unparsed_after": 1 / 6,
        },
        abs=1e-15,
    )


def test_risk_may_rise_while_fewer_answers_are_misaligned():
    """What can no longer be judged leaves the risk's denominator, and not that of all answers."""
    values = of(risk, [[1, 0], [1, 0]], [[1, NAN], [NAN, NAN]], kinds=[("risk", "in"), ("risk", "out")])
    assert (values["risk_delta"], values["misaligned_delta"]) == (1 - 0.5, 1 / 4 - 2 / 4)


def test_capability_by_hand():
    assert of(capability, BEFORE, AFTER) == {
        "capability_before": (1 + 0) / 2,
        "capability_after": 0.5,
        "capability_delta": 0.0,
    }


@pytest.mark.parametrize(("measure", "kind"), [(risk, "capability"), (capability, "risk")])
def test_the_other_kind_does_not_count(measure, kind):
    changed = [[0.0, 0.0] if name == kind else row for (name, _), row in zip(KINDS, BEFORE, strict=True)]
    assert of(measure, changed, AFTER) == of(measure, BEFORE, AFTER)


def test_nothing_judged_is_missing_not_zero():
    values = of(risk, np.full((5, 2), NAN), AFTER)
    assert [name for name, value in values.items() if np.isnan(value)] == [
        "risk_before",
        "risk_delta",
        "risk_delta_in",
        "risk_delta_out",
    ]
    assert values["unparsed_before"] == 1.0
    values = of(capability, BEFORE, np.full((5, 2), NAN))
    assert [name for name, value in values.items() if np.isnan(value)] == ["capability_after", "capability_delta"]


@pytest.mark.parametrize(
    ("keep", "missing"),
    [
        (("risk", "in"), ["risk_delta_out"]),
        (("risk", "out"), ["risk_delta_in"]),
        (("capability", "in"), list(registry.get("measure", "risk").traits["columns"])),
    ],
)
def test_a_split_without_items_is_missing(keep, missing):
    rows = [i for i, kind in enumerate(KINDS) if kind == keep]
    values = of(risk, *([outcome[i] for i in rows] for outcome in ([[1, 0]] * 5, AFTER)), kinds=[keep] * len(rows))
    assert [name for name, value in values.items() if np.isnan(value)] == missing


def test_capability_of_nothing_is_missing():
    values = of(capability, [[1, 0]], [[0, 0]], kinds=[("risk", "in")])
    assert all(np.isnan(value) for value in values.values())


def test_no_change_is_zero():
    assert {name: value for name, value in of(risk, AFTER, AFTER).items() if "delta" in name} == {
        "risk_delta": 0,
        "risk_delta_in": 0,
        "risk_delta_out": 0,
        "misaligned_delta": 0,
    }


def test_no_two_measures_have_one_column():
    columns = [
        column for name in registry.names("measure") for column in registry.get("measure", name).traits["columns"]
    ]
    assert len(set(columns)) == len(columns)
