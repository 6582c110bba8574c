import numpy as np
import pandas as pd
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
    assert g["organisms"] == 0
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
    for predictor in ("g", "g, fitted"):
        assert row(table, "behavior", predictor, "b")["cells"] == 64


def fitted_by_hand(cube, selector):
    """Cells and error_pp of g, fitted, where ``selector`` is left out: one after the other, each training once."""
    names = list(cube.selector.values)
    risk, labels, keys = (cube[name].values[..., 0, 0] for name in ("risk_delta", "m_ts", "key_labels"))
    fit, predicted = [], []
    for o, own in enumerate(keys):
        left, seen = set(own[:, names.index(selector)]), {own[0, 0]}
        for (i, j), key in np.ndenumerate(own):
            cell = (o, *(100 * (values[o, i, j] - values[o, 0, 0]) for values in (risk, labels)))
            if key not in seen and names[j] == selector:
                predicted.append(cell)
            elif key not in seen and key not in left:
                fit.append(cell)
            seen.add(key)
    _, e, g = np.array(fit).T
    gamma = (g * e).sum() / (g**2).sum()
    organism, e, g = np.array(predicted).T
    return len(predicted), np.mean([np.abs(e - gamma * g)[organism == o].mean() for o in np.unique(organism)])


@pytest.mark.parametrize("selector", ["first", "majority", "mean_logprob"])
def test_no_labels_of_a_left_out_level_are_in_the_fit(selector):
    """Greedy labels are those of every selector, and in one organism two selectors took the same labels."""
    cube = labeled(3, noise=0.03, frozen=("greedy",))
    for name in ("risk_delta", "risk_after", "m_ts", "kl_shift", "key_labels", "key_train"):
        cube[name][:, 1, 1:] = cube[name].values[:, 1, :1]
        cube[name][5, 2, 2] = cube[name].values[5, 2, 1]
    cells, error = fitted_by_hand(cube, selector)
    found = row(prediction(cube, abstain_pp=0.0), "selector", "g, fitted", selector)
    assert found["cells"] == cells == {"first": 16, "majority": 16, "mean_logprob": 15}[selector]
    assert found["error_pp"] == pytest.approx(error)


def test_identical_labels_count_once():
    cube = labeled(4, frozen=("greedy",))
    table = prediction(cube)
    for fold in ("label_shift", "selector"):
        assert row(table, fold, "g")["cells"] == 6 * 8
    assert row(table, "label_shift", "g", "greedy")["cells"] == 8
    assert row(table, "selector", "g", "majority")["cells"] == 2 * 8


def test_labels_under_two_objectives_are_two_trainings():
    cube = labeled(5, objectives=("sft", "bct"), objective=(0, 4), frozen=("greedy",))
    assert row(prediction(cube), "selector", "g")["cells"] == 2 * 6 * 8
    cube["key_train"][:, 1, :, 1] = cube["key_train"].values[:, 1, :, 0]  # an option that does not matter to greedy
    cube["risk_delta"][:, 1, :, 1] = cube["risk_delta"].values[:, 1, :, 0]
    assert row(prediction(cube), "selector", "g")["cells"] == (2 * 6 - 1) * 8


def test_the_same_labels_in_two_organisms_are_two_trainings():
    cube = labeled(8)
    cube["key_labels"][1] = cube["key_labels"].values[0]
    pd.testing.assert_frame_equal(prediction(cube), prediction(labeled(8)))


def test_labels_that_are_not_known_are_not_taken_for_identical():
    cube = labeled(6)
    for name in ("key_labels", "key_train"):
        cube[name][:] = ""
    assert row(prediction(cube), "selector", "g")["cells"] == 8 * 8


def test_the_caption_says_over_how_many_organisms():
    cube = labeled(7)
    cube["m_ts"][0] = cube["m_p"][0]  # of one organism the labels say nothing
    table = prediction(cube)
    assert row(table, "selector", "g")["organisms"] == 7
    assert row(table, "selector", "majority sign")["organisms"] == 8
    assert table.attrs["methods"] == (
        "leave-one-out by level and its labels, identical labels counted once, abstaining below 2 pp; intervals over "
        "organisms with 6 to 7 df (t; Wilson's for the share right); g = m_TS - m_P from the labels alone"
    )


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
