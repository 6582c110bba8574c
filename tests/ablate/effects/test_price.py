from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ablate.effects.price import kitagawa, price_terms
from ablate.errors import StudyError

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "reference" / "dasgupta_headship.csv"
NAN = float("nan")

# Price


def test_price_by_hand():
    """Two prompts; selection takes the better of two answers of the first, all of the second."""
    terms = price_terms([[1, 0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]], [[0, 2], [1, 1]], [[0, 1], [0, 1]])
    assert terms == pytest.approx(
        {
            "m_p": 0.25,
            "m_q": 0.5,
            "m_s": 0.75,
            "m_ps": 0.5,  # of the first prompt nothing is selected
            "shift_term": 0.25,
            "selection_term": 0.25,
            "shift_shapley": 0.25,
            "selection_shapley": 0.25,
            "interaction": 0.0,
        },
        abs=1e-15,
    )


def test_one_prompt_needs_no_rows():
    p, q, w, b = [0.2, 0.8], [0.6, 0.4], [3.0, 1.0], [1.0, 0.0]
    assert price_terms(p, q, w, b) == price_terms([p], [q], [w], [b])
    assert price_terms(p, q, w, b)["m_s"] == pytest.approx(1.8 / 2.2, abs=1e-15)


@st.composite
def worlds(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    size = arrays(float, shape, elements=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 3.0]))
    p, q = (rows / rows.sum(1, keepdims=True) for rows in (draw(size.filter(lambda x: x.any(1).all())) for _ in "pq"))
    w = draw(size.filter(lambda w: (q * w).sum() > 1e-9))
    return p, q, w, draw(arrays(float, shape, elements=st.floats(-2, 2)))


@given(worlds(), st.sampled_from([1.0, 1e-3, 50.0]))
def test_terms_close_in_every_world(world, scale):
    p, q, w, b = world
    terms = price_terms(p, q, scale * w, b)
    change = terms["m_s"] - terms["m_p"]
    assert terms["shift_term"] + terms["selection_term"] == pytest.approx(change, abs=1e-12)
    assert terms["m_q"] == pytest.approx(np.mean((q * b).sum(1)), abs=1e-12)
    assert terms["m_s"] == pytest.approx((q * w * b).sum() / (q * w).sum(), abs=1e-12)
    if np.isnan(terms["m_ps"]):
        assert (p * w).sum() == 0
        assert np.isnan([terms[name] for name in ("shift_shapley", "selection_shapley", "interaction")]).all()
        return
    assert terms["shift_shapley"] + terms["selection_shapley"] == pytest.approx(change, abs=1e-12)
    assert terms["shift_shapley"] == pytest.approx(terms["shift_term"] + terms["interaction"] / 2, abs=1e-12)
    assert terms["selection_shapley"] == pytest.approx(terms["selection_term"] - terms["interaction"] / 2, abs=1e-12)
    without = price_terms(p, p, w, b)
    assert terms["m_ps"] == pytest.approx(without["m_s"], abs=1e-12)


@given(worlds())
def test_selection_is_a_covariance(world):
    p, q, w, b = world
    joint = (q / len(q)).ravel()
    covariance = np.cov(w.ravel(), b.ravel(), ddof=0, aweights=joint) if joint.size > 1 else np.zeros((2, 2))
    terms = price_terms(p, q, w, b)
    assert terms["selection_term"] == pytest.approx(covariance[0, 1] / (joint @ w.ravel()), abs=1e-9)


def test_a_sum_that_is_almost_one_closes_too():
    q = np.array([[0.5 + 4e-10, 0.5]])
    terms = price_terms(q, q, [[1.0, 2.0]], [[1000.0, 1001.0]])
    assert terms["m_p"] + terms["shift_term"] + terms["selection_term"] == pytest.approx(terms["m_s"], rel=1e-15)


def test_one_mechanism_alone():
    p, q, b = [[0.5, 0.5]], [[0.1, 0.9]], [[0.0, 1.0]]
    shifted, selected = price_terms(p, q, [[1.0, 1.0]], b), price_terms(p, p, [[1.0, 9.0]], b)
    for terms, one, other in ((shifted, "shift", "selection"), (selected, "selection", "shift")):
        assert terms[f"{one}_term"] == terms[f"{one}_shapley"] == pytest.approx(0.4, abs=1e-12)
        assert terms[f"{other}_term"] == pytest.approx(0, abs=1e-15)
        assert terms["interaction"] == pytest.approx(0, abs=1e-15)


ROW = [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ROW, ROW, ROW, [0.5, 0.5]), r"p, q, w and b have one shape, \[X, Y\] or \[Y\]: .*'b': \(2,\)"),
        (([[0.5, 0.4]], ROW, ROW, ROW), "row 0 of p sums to 0.9, not to 1 within 1e-09"),
        ((ROW, [[1.5, -0.5]], ROW, ROW), "q has negative entries or NaN, so it is no distribution"),
        ((ROW, [[NAN, 1]], ROW, ROW), "q has negative entries or NaN"),
        ((ROW, ROW, [[-1, 1]], ROW), "w is finite and >= 0; leave out what has no weight"),
        ((ROW, ROW, ROW, [[NAN, 1]]), "b is finite; leave out what cannot be judged, in p and q too"),
        ((ROW, [[1, 0]], [[0, 1]], ROW), r"E_q\[w\] = 0, nothing is selected"),
    ],
)
def test_what_price_refuses(arguments, message):
    with pytest.raises(StudyError, match=message):
        price_terms(*arguments)


# Kitagawa


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference values beside the repository")
def test_kitagawa_against_das_gupta():
    """Example 5.1: household headship rates of the United States, 1970 and 1985, by age."""
    table = pd.read_csv(REFERENCE)
    terms = kitagawa(table["rate70"], table["size70"], table["rate85"], table["size85"])
    assert terms["total"] == pytest.approx(2.9672, abs=5e-5)
    assert sorted([terms["rate_effect"], terms["composition_effect"]]) == pytest.approx([1.2269, 1.7403], abs=5e-5)
    assert sorted([terms["rate_share"], terms["composition_share"]]) == pytest.approx([0.4135, 0.5865], abs=5e-5)


RATES, SIZES = st.floats(-5, 5), st.sampled_from([0.0, 0.3, 1.0, 20.0])


@given(
    arrays(float, (2, 4), elements=RATES), arrays(float, (2, 4), elements=SIZES).filter(lambda w: w.any(axis=1).all())
)
def test_both_forms_close_and_the_first_is_symmetric(rates, sizes):
    terms = kitagawa(rates[0], sizes[0], rates[1], sizes[1])
    total = np.average(rates[1], weights=sizes[1]) - np.average(rates[0], weights=sizes[0])
    assert terms["total"] == pytest.approx(total, abs=1e-12)
    assert terms["rate_effect"] + terms["composition_effect"] == pytest.approx(total, abs=1e-12)
    assert terms["rate_at_a"] + terms["composition_at_a"] + terms["interaction"] == pytest.approx(total, abs=1e-12)
    assert terms["rate_effect"] == pytest.approx(terms["rate_at_a"] + terms["interaction"] / 2, abs=1e-12)
    back = kitagawa(rates[1], sizes[1], rates[0], sizes[0])
    assert back["rate_effect"] == pytest.approx(-terms["rate_effect"], abs=1e-12)
    assert back["composition_effect"] == pytest.approx(-terms["composition_effect"], abs=1e-12)


def test_nothing_differs():
    terms = kitagawa([0.1, 0.3], [1, 2], [0.1, 0.3], [10, 20])
    assert (terms["total"], terms["rate_effect"], terms["composition_effect"]) == pytest.approx((0, 0, 0), abs=1e-15)
    assert np.isnan([terms["rate_share"], terms["composition_share"]]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 1], [1, 2], [1]), r"weights_b has shape \(1,\): one entry a stratum, the same in all four"),
        (([1, NAN], [1, 1], [1, 2], [1, 1]), r"rates_a\[1\] is not finite"),
        (([1, 2], [1, -1], [1, 2], [1, 1]), "weights_a is negative or all 0: the sizes of the strata"),
        (([1, 2], [1, 1], [1, 2], [0, 0]), "weights_b is negative or all 0"),
        (([], [], [], []), r"rates_a has shape \(0,\)"),
    ],
)
def test_what_kitagawa_refuses(arguments, message):
    with pytest.raises(StudyError, match=message):
        kitagawa(*arguments)
