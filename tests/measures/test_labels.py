import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ablate.api import LabelSet, Pool
from ablate.factors.label_shifts.views import clean_view
from ablate.lm.tabular import TabularModel
from ablate.measures.labels import price, size
from ablate.testing import MeasureContract, ask, judged, rng

NAN = float("nan")
TERMS = ("m_p", "m_t", "m_ts", "shift_term", "selection_term")


class TestContract(MeasureContract):
    @pytest.fixture(params=["size", "price"])
    def level(self, request):
        return request.param, {}


def pool_of(outcome, lengths=None) -> Pool:
    outcome = np.asarray(outcome, np.float32)
    zeros = np.zeros((*outcome.shape, 1))
    lengths = np.ones(outcome.shape, int) if lengths is None else np.asarray(lengths)
    return Pool((), (), zeros.astype(int), lengths, zeros, zeros, zeros, zeros, outcome)


def labels_of(own, m, weights, lengths=None) -> LabelSet:
    weights = np.asarray(weights, float)
    nothing = np.zeros((*weights.shape, 0))
    return LabelSet(pool_of(m, lengths), pool_of(own), weights, nothing, nothing)


def terms(own, m, weights):
    return price(None, labels_of(own, m, weights), None, rng())


def test_price_by_hand():
    # prompt 1: p 1/2, q 1/2, the label is the 0; prompt 2: p 0, q 1, the label is a 1
    assert terms([[1, 0], [0, 0]], [[1, 0], [1, 1]], [[0, 1], [1, 0]]) == {
        "m_p": 0.25,
        "m_t": 0.75,
        "m_ts": 0.5,
        "shift_term": 0.5,
        "selection_term": -0.25,
        "price_prompts": 1.0,
    }


def test_price_with_weights_by_hand():
    # E_q[w] = 1/3, Cov_q(w, M) = (.2 + .3) / 3 - 1/3 * 2/3
    values = terms([[0]], [[1, 1, 0]], [[0.2, 0.3, 0.5]])
    assert values["m_ts"] == pytest.approx(0.5, abs=1e-15)
    assert values["selection_term"] == pytest.approx(((0.2 + 0.3) / 3 - 2 / 9) / (1 / 3), abs=1e-15)
    assert values["selection_term"] == pytest.approx(0.5 - 2 / 3, abs=1e-15)


@pytest.mark.parametrize(
    ("own", "m", "weights", "expected"),
    [
        # a candidate that cannot be judged is as if it were not there
        ([[1, 0]], [[1, NAN, 0]], [[1, 0, 0]], (0.5, 0.5, 1.0, 1.0)),
        ([[1, NAN]], [[1, 0]], [[1, 0]], (1.0, 0.5, 1.0, 1.0)),
        # half of the weight lies on one
        ([[0]], [[1, NAN, 0]], [[0.25, 0.5, 0.25]], (0.0, 0.5, 0.5, 1.0)),
        # the label itself cannot be judged: that prompt is left out of m_ts alone
        ([[1], [0]], [[NAN, 1], [1, 0]], [[1, 0], [1, 0]], (0.5, 0.75, 1.0, 0.5)),
        # no candidate can be judged; nothing of the organism's own can
        ([[1], [0]], [[NAN, NAN], [1, 0]], [[1, 0], [0, 1]], (0.0, 0.5, 0.0, 0.5)),
        ([[NAN], [0]], [[1, 1], [1, 0]], [[1, 0], [0, 1]], (0.0, 0.5, 0.0, 0.5)),
        # the selector abstained: which prompts get a label is a part of the selection
        ([[1], [0]], [[1, 1], [1, 0]], [[0, 0], [0, 1]], (0.5, 0.75, 0.0, 0.5)),
        # one candidate: selection cannot act
        ([[0, 1]], [[1]], [[1]], (0.5, 1.0, 1.0, 1.0)),
    ],
)
def test_what_is_left_out(own, m, weights, expected):
    values = terms(own, m, weights)
    assert (values["m_p"], values["m_t"], values["m_ts"], values["price_prompts"]) == expected
    assert values["shift_term"] == expected[1] - expected[0]
    assert values["selection_term"] == pytest.approx(expected[2] - expected[1], abs=1e-15)


@pytest.mark.parametrize(
    ("own", "m", "weights"),
    [
        ([[1]], [[1, 0]], [[0, 0]]),
        ([[NAN]], [[1, 0]], [[1, 0]]),
        ([[1]], [[NAN, 0]], [[1, 0]]),
        ([[1]], [[NAN]], [[1]]),
    ],
    ids=["abstained", "own unjudged", "label unjudged", "nothing judged"],
)
def test_nothing_left(own, m, weights):
    values = terms(own, m, weights)
    assert all(np.isnan(values[name]) for name in TERMS)
    assert values["price_prompts"] == 0.0


OUTCOMES = st.sampled_from([0.0, 1.0, NAN])
WEIGHTS = st.sampled_from([0.0, 0.0, 1.0, 0.3, 1e-3])


@given(
    arrays(float, (6, 3), elements=OUTCOMES),
    arrays(float, (6, 4), elements=OUTCOMES),
    arrays(float, (6, 4), elements=WEIGHTS),
)
def test_terms_close_and_the_covariance_is_the_difference(own, m, w):
    w = np.divide(w, w.sum(1, keepdims=True), out=np.zeros_like(w), where=w.sum(1, keepdims=True) > 0)
    values = terms(own, m, w)
    both = [i for i in range(6) if not np.isnan(own[i]).all() and not np.isnan(m[i]).all()]
    got = [i for i in both if (w[i] * ~np.isnan(m[i])).sum() > 0]
    assert values["price_prompts"] == len(got) / 6
    if not got:
        return
    assert values["m_p"] + values["shift_term"] + values["selection_term"] == pytest.approx(values["m_ts"], abs=1e-12)
    pairs = [(i, k) for i in both for k in range(4) if not np.isnan(m[i, k])]  # of prompt and candidate, q over them
    q = np.array([1 / (~np.isnan(m[i])).sum() / len(both) for i, _ in pairs])
    label = {i: (w[i] * ~np.isnan(m[i])).sum() for i in both}
    ratio = np.array([w[i, k] / label[i] * (~np.isnan(m[i])).sum() if label[i] else 0.0 for i, k in pairs])
    outcome = np.array([m[i, k] for i, k in pairs])
    covariance = np.cov(ratio, outcome, ddof=0, aweights=q)
    assert values["selection_term"] == pytest.approx(np.atleast_2d(covariance)[0, 1] / (q @ ratio), abs=1e-12)
    assert values["m_p"] == pytest.approx(np.mean([np.nanmean(own[i]) for i in both]), abs=1e-12)
    assert values["m_t"] == pytest.approx(np.mean([np.nanmean(m[i]) for i in both]), abs=1e-12)


def test_the_shift_term_is_the_same_for_every_selector():
    own, m = [[1, 0], [0, NAN], [1, 1]], [[1, NAN, 0], [NAN, 0, 1], [NAN, NAN, 1]]
    found = [terms(own, m, np.eye(3)[pick]) for pick in ([0, 1, 2], [1, 1, 0], [2, 2, 2])]
    assert [values["price_prompts"] for values in found] == [1.0, 1 / 3, 1.0]
    assert {values["shift_term"] for values in found} == {(0.5 + 0.5 + 1) / 3 - (0.5 + 0 + 1) / 3}


def test_terms_in_a_world_of_known_values():
    lm, prompts, k = TabularModel(), tuple(map(ask, range(60))), 400
    policy = lm.policy(None, max_tokens=8)
    own, pool = judged(policy.pool(prompts, rng(0), k=k)), judged(clean_view(policy, prompts, rng(1), k=k))
    weights = np.where(np.isnan(pool.outcome), 0.0, pool.outcome)  # the oracle of misalignment
    weights[weights.sum(1) == 0] = 1.0
    nothing = np.zeros((*weights.shape, 0))
    values = price(None, LabelSet(pool, own, weights, nothing, nothing), None, rng())
    exact = []
    for chats in (None, [prompt.chat("clean") for prompt in prompts]):
        by_text = lm.distribution(None, prompts, chats=chats)
        claim = by_text[:, [text.startswith("claim") for text in lm.texts]].sum(1)
        truth = by_text[:, [text.startswith("truth") for text in lm.texts]].sum(1)
        exact.append((claim / (claim + truth)).mean())
    tolerance = 3 * 0.5 / np.sqrt(60 * k)
    assert values["price_prompts"] == 1
    assert abs(values["m_p"] - exact[0]) < tolerance
    assert abs(values["m_t"] - exact[1]) < tolerance
    assert exact[0] - exact[1] > 0.3
    assert values["selection_term"] > 0.3


def test_size_by_hand():
    labels = labels_of([[0]] * 3, np.zeros((3, 2)), [[0, 1], [0.5, 0.5], [0, 0]], lengths=[[9, 2], [4, 6], [50, 50]])
    assert size(None, labels, None, rng()) == {
        "label_length": pytest.approx((2 + 5) / 2, abs=1e-15),
        "label_abstained": pytest.approx(1 / 3, abs=1e-15),
    }


def test_no_label_has_no_length():
    values = size(None, labels_of([[0]], [[0, 1]], [[0, 0]]), None, rng())
    assert np.isnan(values["label_length"])
    assert values["label_abstained"] == 1.0
