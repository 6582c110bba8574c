"""A quick version of the acceptance simulations; `ablate calibrate` runs the full one."""

import numpy as np
import pytest

from ablate.effects import acceptance as module
from ablate.effects.acceptance import WORLDS, acceptance
from ablate.effects.worlds import world
from ablate.errors import StudyError


@pytest.fixture(scope="module")
def quick():
    return acceptance(60, organisms=(8,))


def test_nothing_lies_outside_of_what_is_allowed(quick):
    assert quick[~quick["passed"]].to_dict("records") == []


def test_every_world_is_judged_by_what_it_must_not_be(quick):
    assert quick["world"].drop_duplicates().tolist() == [kind.name for kind in WORLDS]
    nothing = quick[quick["world"] == "nothing"]["quantity"].tolist()
    assert nothing == ["false cause", "coverage", "type I", "familywise"]
    assert quick[quick["world"] == "both"]["quantity"].tolist()[2:] == ["share bias", "share coverage"]
    assert (quick["low"] <= quick["value"] + 1e-12).all()
    assert (quick["value"] <= quick["high"] + 1e-12).all()
    assert "60 simulated studies a row" in quick.attrs["methods"]


@pytest.mark.parametrize(
    ("broken", "quantity"),
    [
        # an interval as if runs and not organisms were the units: a third of its width
        ("narrow", "coverage"),
        # p-values of the contrasts as if each were the only one
        ("unadjusted", "familywise"),
    ],
)
def test_it_fails_where_the_statistics_are_wrong(monkeypatch, broken, quantity):
    honest = module.contrasts

    def wrong(cube):
        table = honest(cube)
        if broken == "narrow":
            for side in ("low", "high"):
                table[side] = table["effect_pp"] + (table[side] - table["effect_pp"]) / 3
        else:
            table["p_adjusted"] = table["p"] / 3
        return table

    monkeypatch.setattr(module, "contrasts", wrong)
    found = acceptance(60, organisms=(8,), worlds=WORLDS[:1]).set_index("quantity")
    assert not found.loc[quantity, "passed"]


def test_progress_reaches_the_end():
    seen = []
    acceptance(20, organisms=(6,), worlds=WORLDS[:2], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 40), (20, 40), (30, 40), (40, 40)]


def test_too_few_simulations():
    with pytest.raises(StudyError, match=r"^simulations: 5 is not >= 20, rates would mean nothing$"):
        acceptance(5)


def test_the_shares_of_a_world_are_those_planted(quick):
    bias = quick[quick["quantity"] == "share bias"]["value"]
    assert len(bias) == 2
    assert np.abs(bias).max() < 0.1


def test_a_study_whose_shares_are_not_identified_has_no_part_in_their_bias():
    both = next(kind for kind in WORLDS if kind.name == "both")
    counted = module._Count(both, 6)
    counted.study(world(3, organisms=6))  # nothing acts, so nothing has a share
    assert counted.shares == []
    counted.study(world(3, organisms=6, **both.planted))
    assert np.abs(counted.shares).max() < 0.1
    assert counted.share == pytest.approx(np.var([0, 10, 25]) / (np.var([0, 10, 25]) + np.var([0, 6, 15])))
