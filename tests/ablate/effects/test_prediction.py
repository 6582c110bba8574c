import numpy as np
import pytest

from ablate.effects import prediction
from ablate.effects.worlds import world
from ablate.errors import StudyError


def labeled(seed=0, gamma=1.0, noise=0.0, **more):
    """A world whose labels change by what their effect is divided by ``gamma``."""
    cube = world(seed, shift=(0, 10, -25), selector=(0, 3, 8), org_shift=1, org_selector=1, **more)
    rng = np.random.default_rng(seed)
    change = cube["risk_delta"] / gamma + noise * rng.normal(size=cube["risk_delta"].shape)
    cube["m_p"] = cube["risk_delta"] * 0 + 0.4
    cube["m_ts"] = cube["m_p"] + change
    cube["kl_shift"] = abs(change) * 10
    return cube


def row(table, fold, predictor, level="all"):
    [found] = table[(table.fold == fold) & (table.predictor == predictor) & (table.level == level)].to_dict("records")
    return found


def test_labels_that_say_everything_predict_everything():
    table = prediction(labeled(), abstain_pp=0.0)
    for fold in ("label_shift", "selector"):
        g = row(table, fold, "g")
        assert (g["accuracy"], g["error_pp"]) == (1.0, pytest.approx(0, abs=1e-9))
        assert g["slope"] == pytest.approx(1)
        assert g["cells"] == g["predicted"] == 8 * 8


def test_gamma_is_fitted_on_the_cells_that_stay():
    table = prediction(labeled(gamma=2.0), abstain_pp=0.0)
    assert row(table, "label_shift", "g")["slope"] == pytest.approx(2)
    fitted = row(table, "label_shift", "g, fitted")
    assert fitted["slope"] == pytest.approx(1)
    assert fitted["error_pp"] == pytest.approx(0, abs=1e-9)


def test_with_one_level_to_predict_nothing_can_be_left_out():
    with pytest.raises(StudyError, match=r"^nothing can be left out: the study swaps no label shift, selector or beh"):
        prediction(labeled(shifts=("none", "clean_view"), selectors=("first",)))


def test_it_abstains_below_its_caliper():
    table = prediction(labeled(noise=0.0), abstain_pp=1000.0)
    g = row(table, "selector", "g")
    assert (g["predicted"], g["cells"]) == (0, 64)
    assert np.isnan(g["accuracy"])
    assert g["error_pp"] > 0


def test_labels_that_say_nothing_are_no_better_than_chance():
    cube = labeled()
    cube["m_ts"] = cube["m_p"] + np.random.default_rng(0).normal(0, 0.2, cube["m_p"].shape)
    found = row(prediction(cube), "label_shift", "g")
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]
    assert abs(found["slope"]) < 0.3


def test_behaviors_are_left_out_too():
    table = prediction(labeled(behaviors=("a", "b")))
    assert set(table.fold) == {"label_shift", "selector", "behavior"}
    assert row(table, "behavior", "g", "b")["cells"] == 64


def test_cells_with_the_labels_of_the_null_cell_are_not_predicted():
    cube = labeled()
    cube["key_labels"][:, 0, 1] = cube["key_labels"][:, 0, 0]
    assert row(prediction(cube), "label_shift", "g", "none")["cells"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cube: cube.drop_vars("m_ts"), "the cube has no variable 'm_ts'"),
        (lambda cube: cube.isel(label_shift=[0], selector=[0]), "no cell beside the null one has an effect"),
    ],
)
def test_what_cannot_be_predicted(change, message):
    with pytest.raises(StudyError, match=message):
        prediction(change(labeled()))


def test_a_caliper_is_not_negative():
    with pytest.raises(StudyError, match=r"^abstain_pp: -1 is not >= 0$"):
        prediction(labeled(), abstain_pp=-1)
