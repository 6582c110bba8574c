"""Points behind means: each mean is that of `contrasts`, each slope through the points that of `dose_response`."""

import numpy as np
import pytest
from gallery import changed, gallery

from ablate.effects import contrasts, dose_response, prediction
from ablate.effects.points import cells_by, organism_effects
from ablate.effects.worlds import world
from ablate.errors import StudyError


def test_the_mean_of_organisms_is_the_main_row_of_contrasts():
    cube = world(1, frozen=["greedy"], seeds=2)
    table, main = organism_effects(cube), contrasts(cube).query("kind == 'main' and not identical")
    means = table[table["organism"] == ""]
    assert means["swapped"].tolist() == main["swapped"].tolist()
    for name in ("effect_pp", "low", "high", "organisms"):
        assert means[name].tolist() == pytest.approx(main[name].tolist())
    by_effect = table[table["organism"] != ""].groupby("swapped", sort=False)["effect_pp"].mean()
    assert by_effect.tolist() == pytest.approx(means["effect_pp"].tolist())


def test_organisms_that_are_not_valid_are_named_and_left_out():
    tree = changed(gallery(), valid_organism=lambda values: np.array([1, 0, 1, 1, 1, 1], np.int8))
    table = organism_effects(tree)
    assert table.attrs["invalid"] == ["o1"]
    assert "o1" not in set(table["organism"])


def test_an_organism_without_the_runs_is_nan():
    def without(values):
        values[2, 1] = np.nan
        return values

    table = organism_effects(changed(gallery(), risk_delta=without))
    [value] = table.query("organism == 'o2' and end == 'greedy'")["effect_pp"]
    assert np.isnan(value)
    assert table.query("organism == '' and end == 'greedy'")["organisms"].item() == 5


def test_nothing_is_swapped():
    with pytest.raises(StudyError, match="there is no effect to show"):
        organism_effects(world(1, shifts=["none"], selectors=["first"]))


def slopes(table):
    own = table[table["organism"] != ""]
    return [(part["dose"] @ part["effect_pp"]) / (part["dose"] @ part["dose"]) for _, part in own.groupby("organism")]


def test_the_slope_through_the_points_is_that_of_the_dose_response():
    tree = gallery()
    table = cells_by(tree, "kl_shift")
    assert np.mean(slopes(table)) == pytest.approx(dose_response(tree, "kl_shift")["slope"].item())
    assert not ((table["label_shift"] == "none") & (table["selector"] == "first")).any(), "the null cell is 0 and 0"
    means = table[table["organism"] == ""]
    assert len(means) == 8
    assert means["organisms"].tolist() == [6] * 8


def test_the_slope_on_g_is_the_calibration_slope():
    tree = gallery()
    found = prediction(tree, abstain_pp=0)
    [slope] = found.query("fold == 'selector' and level == 'all' and predictor == 'g'")["slope"]
    assert np.mean(slopes(cells_by(tree, "g"))) == pytest.approx(slope)


def test_a_mean_is_over_the_organisms_of_its_cell():
    table = cells_by(gallery(candidates=(2, 4)), "kl_shift")
    for _, part in table.groupby(["candidates", "label_shift", "selector"]):
        assert part["effect_pp"].iloc[-1] == pytest.approx(part["effect_pp"].iloc[:-1].mean())
        assert part["dose"].iloc[-1] == pytest.approx(part["dose"].iloc[:-1].mean())
    assert table.groupby("candidates").size().tolist() == [8 * 7] * 2


@pytest.mark.parametrize(
    ("name", "says"),
    [("kl_shfit", "no variable 'kl_shfit'; did you mean 'kl_shift'"), ("behavior", "'behavior' is text")],
)
def test_a_dose_that_is_not_there(name, says):
    with pytest.raises(StudyError, match=says):
        cells_by(gallery(), name)
