import numpy as np
import pytest

from ablate import registry
from ablate.api import LabelSet, Pool
from ablate.lm.tabular import TabularModel
from ablate.measures.closed_forms import best_of_n
from ablate.measures.closed_forms import kl as divergence
from ablate.measures.selection import score_posterior, selection_divergence

LM = TabularModel()
BEHAVIOR = registry.get("behavior", "tabular")(frozenset(), np.random.default_rng(0))
PROMPTS = tuple(BEHAVIOR.label[:40])
VALUES = {text: float(value) for value, text in enumerate(LM.texts)}


def drawn(k: int, repeats: int = 40) -> Pool:
    pool = LM.policy(None, max_tokens=8).pool(PROMPTS * repeats, np.random.default_rng(0), k=k)
    outcome = [[BEHAVIOR.indicator(p, text) for text in row] for p, row in zip(pool.prompts, pool.texts, strict=True)]
    return Pool(*(getattr(pool, name) for name in Pool.__slots__[:8]), np.array(outcome, np.float32))


def labels_of(pool: Pool, scores: np.ndarray, law: str | None, picks: np.ndarray) -> LabelSet:
    nothing = np.zeros((*scores.shape, 0))
    return LabelSet(pool, pool, np.eye(scores.shape[1])[picks], nothing, nothing, scores, law)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("law", ["highest", "lowest", "plurality", "draw"])
def test_the_bound_holds_in_a_known_world(k, law):
    """The true KL(s || p) of each prompt, from the frequency of each text among the labels of 400 pools."""
    pool = drawn(k, 400)
    scores = np.array([[VALUES[text] for text in row] for row in pool.texts])
    votes = (scores[:, :, None] == scores[:, None]).sum(2)
    picks = {"highest": scores.argmax(1), "lowest": scores.argmin(1), "plurality": votes.argmax(1)}
    labels = labels_of(pool, scores, law, picks.get(law, np.zeros(len(scores), int)))
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    taken = scores[np.arange(len(scores)), labels.weights.argmax(1)].reshape(400, len(PROMPTS)).astype(int)
    share = np.stack([np.bincount(column, minlength=len(VALUES)) for column in taken.T]) / 400
    truth = divergence(share, LM.distribution(None, PROMPTS)).mean()
    assert found["kl_labels"] == pytest.approx(0, abs=1e-12)  # nothing is shifted here
    assert truth <= found["kl_total_max"] + len(VALUES) / 400  # the plug-in truth is that much too large
    assert np.isnan(found["kl_total"]) == (law != "draw")  # answers are drawn twice
    assert found["kl_total_max"] == pytest.approx(
        {"draw": 0.0, "plurality": np.log(k)}.get(law, best_of_n(k)), abs=1e-12
    )


def listed(
    q: np.ndarray, values: np.ndarray, p: np.ndarray, k: int, prompts: int, seed: int
) -> tuple[Pool, np.ndarray]:
    """A pool of answers 0, 1, ... of probabilities q under the proposal, p under the organism; and their scores."""
    answers = np.random.default_rng(seed).choice(len(q), (prompts, k), p=q)
    logq, logp = np.log(q)[answers][:, :, None], np.log(p)[answers][:, :, None]
    tokens, ones = answers[:, :, None], np.ones(answers.shape, int)
    return Pool((), (), tokens, ones, logq, logp, logq, np.zeros_like(logq)), values[answers]


def total(q, values, p, k, law, prompts=96, seed=0) -> float:
    pool, scores = listed(q, values, p, k, prompts, seed)
    picks = {"highest": scores.argmax(1), "lowest": scores.argmin(1)}.get(law, np.zeros(prompts, int))
    return selection_divergence(None, labels_of(pool, scores, law, picks), None, np.random.default_rng(0))["kl_total"]


MANY = 50_000


@pytest.mark.parametrize("law", ["highest", "lowest", "draw"])
@pytest.mark.parametrize("k", [2, 4])
def test_the_total_where_no_answer_comes_twice(k, law):
    """KL(s || p) by exact order statistics on all answers, whose scores go with log q - log p, so both parts matter."""
    draw = np.random.default_rng(5)
    tilt = draw.normal(size=MANY)
    p = np.full(MANY, 1 / MANY)
    q = np.exp(0.5 * tilt) / np.exp(0.5 * tilt).sum()
    values = tilt + draw.normal(size=MANY)  # scores
    s = {"highest": best_of_n(k, q, values).q, "lowest": best_of_n(k, q, -values).q, "draw": q}[law]
    found = [total(q, values, p, k, law, seed=seed) for seed in range(100)]
    found = [value for value in found if not np.isnan(value)]  # a few pools have an answer twice
    assert len(found) > 90
    assert abs(np.mean(found) - divergence(s, p)) < 3 * np.std(found, ddof=1) / len(found) ** 0.5


def test_what_ties_is_not_guessed():
    q = np.full(6, 1 / 6)
    for law in ("highest", "lowest", "plurality", "weights", None):
        assert np.isnan(total(q, np.arange(6.0), q, 4, law)), law
    many = np.full(MANY, 1 / MANY)
    assert total(many, np.arange(float(MANY)), many, 4, "highest") == pytest.approx(best_of_n(4), abs=1e-12)
    assert np.isnan(total(many, np.round(np.arange(MANY) / 1e4), many, 4, "highest"))  # others that tie
    assert np.isnan(total(many, np.where(np.arange(MANY) % 50, 1.0 * np.arange(MANY), np.nan), many, 4, "highest"))


def test_prompts_with_a_single_answer_add_nothing():
    """Half of the prompts have one answer, the others as many as there are draws."""
    one, many = (listed(np.full(n, 1 / n), np.arange(float(n)), np.full(n, 1 / n), 4, 50, 0) for n in (1, MANY))
    joined = {
        name: np.concatenate([getattr(pool, name) for pool, _ in (one, many)])
        for name in ("tokens", "lengths", "logprob_q", "logprob_p", "logprob_drawn", "kl")
    }
    scores = np.concatenate([one[1], many[1]])
    labels = labels_of(Pool((), (), **joined), scores, "highest", scores.argmax(1))
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    assert found["kl_total"] == pytest.approx(best_of_n(4) / 2, abs=1e-12)


@pytest.mark.parametrize("law", ["draw", "highest", "plurality", None])
def test_nothing_is_selected_from_a_single_answer_or_candidate(law):
    one = total(np.array([1.0]), np.zeros(1), np.array([1.0]), 4, law)
    assert one == 0.0
    greedy = registry.get("label_shift", "greedy")(
        LM.policy(None, max_tokens=8), PROMPTS, np.random.default_rng(1), k=4
    )
    labels = labels_of(greedy, np.zeros(greedy.lengths.shape), law, np.zeros(len(PROMPTS), int))
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    assert found["kl_total"] == found["kl_labels"] > 0.5
    assert total(np.array([0.5, 0.5]), np.zeros(2), np.array([0.5, 0.5]), 1, law) == 0.0


def test_a_single_candidate_that_may_be_left_out_is_selected():
    pool, scores = listed(np.array([0.5, 0.5]), np.zeros(2), np.array([0.5, 0.5]), 1, 6, 0)
    labels = labels_of(pool, scores, None, np.zeros(6, int))
    left = LabelSet(pool, pool, labels.weights * (np.arange(6) > 2)[:, None], *[labels.embedding] * 2, scores, None)
    assert np.isnan(selection_divergence(None, left, None, np.random.default_rng(0))["kl_total"])


def test_the_organism_compared_to_itself_by_draws_is_zero():
    pool = drawn(4, 1)
    labels = labels_of(pool, np.zeros(pool.lengths.shape), "draw", np.zeros(len(PROMPTS), int))
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    assert found["kl_total"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("k", "answers"), [(4, 20), (4, 100), (8, 50)])
def test_what_an_answer_with_probability_takes_off(k, answers):
    """Sum of d^3 K (K - 1)^2 F^(K - 3) / 24 over equal answers, the docstring's claim, by the integral of F."""
    exact = best_of_n(k, np.full(answers, 1 / answers), np.arange(answers)).kl
    assert best_of_n(k) - exact == pytest.approx(k * (k - 1) ** 2 / 24 / (k - 2) / answers**2, rel=0.1)


def test_along_the_labels_it_is_the_ratio_of_proposal_and_organism():
    plugin = registry.get("label_shift", "clean_view")
    pool = plugin(LM.policy(None, max_tokens=8), PROMPTS, np.random.default_rng(1), k=3)
    labels = labels_of(pool, np.zeros(pool.lengths.shape), "draw", np.ones(len(PROMPTS), int))
    ratio = np.where(pool.mask, pool.logprob_drawn - pool.logprob_p, 0).sum(2)[:, 1]
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    assert found["kl_labels"] == pytest.approx(ratio.mean())
    assert found["kl_total_max"] == found["kl_labels"]


def test_a_selector_of_no_known_law_has_no_bound():
    pool = drawn(2, 1)
    labels = labels_of(pool, np.zeros(pool.lengths.shape), None, np.zeros(len(PROMPTS), int))
    found = selection_divergence(None, labels, None, np.random.default_rng(0))
    assert np.isnan([found["kl_selection_max"], found["kl_total_max"]]).all()
    assert found["kl_labels"] == pytest.approx(0, abs=1e-12)


def test_a_score_that_knows_everything_and_one_that_knows_nothing():
    pool = drawn(4)
    rng = np.random.default_rng(3)
    picks = np.zeros(len(pool.prompts), int)
    knows = score_posterior(None, labels_of(pool, np.nan_to_num(pool.outcome, nan=0.5), "highest", picks), None, rng)
    blind = score_posterior(None, labels_of(pool, rng.random(pool.lengths.shape), "highest", picks), None, rng)
    assert knows["eta_slope"] > 0.5 > 10 * abs(blind["eta_slope"])
    assert knows["eta_tv"] > 3 * blind["eta_tv"]
    assert knows["selection_bound"] == pytest.approx(0.4724704 * knows["eta_tv"], rel=1e-6)
    assert blind["selection_bound"] < 0.05


@pytest.mark.parametrize("scores", [np.empty((0, 0)), np.full((40, 4), np.nan)])
def test_without_scores_it_is_missing(scores):
    pool = drawn(4, 1)
    labels = labels_of(pool, np.full(pool.lengths.shape, np.nan), "draw", np.zeros(40, int))
    labels = LabelSet(pool, pool, labels.weights, labels.embedding, labels.reference_embedding, scores, "draw")
    assert np.isnan(list(score_posterior(None, labels, None, np.random.default_rng(0)).values())).all()


@pytest.mark.parametrize("law", ["draw", "highest", "pick"])
def test_the_bound_holds_where_candidates_come_from_several_proposals(law):
    """The true KL(s || p) from the frequency of each text among the labels of 400 pools, as above."""
    plugin = registry.get("label_shift", "mixed_decoding")
    pool = plugin(LM.policy(None, max_tokens=8), PROMPTS * 400, np.random.default_rng(0), k=3)
    scores = np.array([[VALUES[text] for text in row] for row in pool.texts])
    picks = {"draw": np.zeros(len(scores), int), "highest": scores.argmax(1), "pick": np.full(len(scores), 1)}[law]
    found = selection_divergence(None, labels_of(pool, scores, law, picks), None, np.random.default_rng(0))
    taken = scores[np.arange(len(scores)), picks].reshape(400, len(PROMPTS)).astype(int)
    share = np.stack([np.bincount(column, minlength=len(VALUES)) for column in taken.T]) / 400
    truth = divergence(share, LM.distribution(None, PROMPTS)).mean()
    assert found["kl_selection_max"] == pytest.approx(0.0 if law == "draw" else np.log(3))
    assert truth <= found["kl_total_max"] + len(VALUES) / 400
    if law == "draw":  # the greedy answer, a point mass: no plug-in error
        assert truth == pytest.approx(found["kl_labels"], abs=1e-9)
