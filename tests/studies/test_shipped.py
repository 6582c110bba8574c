"""Every study that ships can be planned, and is as large as it says."""

import pytest

from ablate.plan import compile_study
from ablate.study import load, loads, shipped

SIZES = {
    "alignment_artifact": (6, 6 * 5),
    "controls": (6, 6 * 7),
    "isolate_methods": (6, 6 * 2 * 8),  # two methods, each with three mechanisms off and on
    "k_scaling": (6, 6 * 2 * 4),
    "paper_108": (7 * 4 * 5, 7 * 4 * 5 * 9),
    "paper_grid": (4, 4 * 9),
    "shift_vs_selector": (6, 6 * 4 * 3),
    "smoke": (2, 2 * 2 * 2),
    "two_behaviors": (12, 12 * 4 * 3),
}
"""Organisms and runs."""


def test_every_shipped_study_has_its_size_here():
    assert shipped() == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_shipped_study_can_be_planned(name):
    study = load(name)
    plan = compile_study(study)
    assert (len(plan.organisms), len(plan.cells)) == SIZES[name]
    assert loads(study.dump(), source="again.yaml") == study
    assert all(set(stage.inputs.values()) <= plan.stages.keys() for stage in plan.stages.values())
