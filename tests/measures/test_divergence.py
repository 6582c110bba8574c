from dataclasses import replace

import numpy as np
import pytest

from ablate import registry
from ablate.api import Decoding, LabelSet, Pool
from ablate.lm.tabular import TabularModel
from ablate.measures.divergence import js, shift_divergence
from ablate.testing import MeasureContract, ask, rng

NAN = float("nan")
LM = TabularModel()
SHIFTS = {
    "none": {},
    "greedy": {},
    "nucleus": {"temperature": 0.7, "top_p": 0.8},
    "clean_view": {},
    "cot_view": {},
    "system_prompt": {"text": "Be strict."},
}


class TestContract(MeasureContract):
    @pytest.fixture
    def level(self):
        return "shift_divergence", {}


def measured(pool: Pool, reference: Pool, weights=None) -> dict[str, float]:
    weights = np.eye(pool.lengths.shape[1])[np.zeros(len(pool.lengths), int)] if weights is None else weights
    nothing = np.zeros((*pool.lengths.shape, 0))
    return shift_divergence(None, LabelSet(pool, reference, np.asarray(weights, float), nothing, nothing), None, rng())


def pool_of(lengths, logprob_p, logprob_drawn, kl, items=None) -> Pool:
    shape = np.shape(logprob_p)
    unread = np.full(shape, NAN)
    return Pool(
        prompts=tuple(map(ask, items or range(shape[0]))),
        texts=(),
        tokens=np.zeros(shape, int),
        lengths=np.array(lengths),
        logprob_q=unread,  # the raw proposal plays no part
        logprob_p=np.array(logprob_p),
        logprob_drawn=np.array(logprob_drawn),
        kl=np.array(kl),
    )


# two prompts, two answers of one or two tokens; padding is NaN
POOL = pool_of(
    [[2, 1], [1, 2]],
    [[[-1.0, -2.0], [-3.0, NAN]], [[-0.5, NAN], [-1.0, -1.0]]],
    [[[-0.5, -1.0], [-1.0, NAN]], [[-0.5, NAN], [-0.5, -0.5]]],
    [[[0.4, 0.6], [0.4, NAN]], [[0.2, NAN], [0.2, 0.2]]],
)
OWN = pool_of([[1], [2]], [[[-1.0, NAN]], [[-1.5, -0.5]]], np.full((2, 1, 2), NAN), np.full((2, 1, 2), NAN))


def jensen(r: float) -> float:
    return float(np.log1p(r) + r * np.log1p(1 / r))


def test_columns_by_hand():
    values = measured(POOL, OWN, [[1, 0], [0, 1]])
    assert values == pytest.approx(
        {
            "kl_shift": (1.0 + 0.4 + 0.2 + 0.4) / 4,
            "kl_shift_se": np.std([0.7, 0.3], ddof=1) / np.sqrt(2),
            "kl_shift_token": (1.0 + 0.4 + 0.2 + 0.4) / 6,
            "kl_shift_mc": (1.5 + 2.0 + 0.0 + 1.0) / 4,
            "kl_shift_mc_se": np.std([1.75, 0.5], ddof=1) / np.sqrt(2),
            "js_shift": np.log(2) - np.mean([jensen(np.exp(-d)) for d in (1.5, 2.0, 0.0, 1.0)]) / 2,
            "coverage": np.mean(np.exp([-1.5, -2.0, 0.0, -1.0])),
            "nll_gap": (3 + 2) / 2 - (1 + 2) / 2,
            "nll_gap_token": (3 + 2) / 4 - (1 + 2) / 3,
        },
        abs=1e-12,
    )


@pytest.mark.parametrize(
    ("weights", "gap", "per_token"),
    [
        ([[0, 1], [1, 0]], (3 + 0.5) / 2 - 1.5, 3.5 / 2 - 1),
        ([[0, 0], [0, 1]], 2 - 2, 2 / 2 - 2 / 2),  # the prompt without a label counts on neither side
        ([[0.5, 0.5], [1, 0]], (3 + 0.5) / 2 - 1.5, 3.5 / 2.5 - 1),  # 1.5 tokens and 1
    ],
)
def test_likelihood_gap_by_hand(weights, gap, per_token):
    values = measured(POOL, OWN, weights)
    assert values["nll_gap"] == pytest.approx(gap, abs=1e-12)
    assert values["nll_gap_token"] == pytest.approx(per_token, abs=1e-12)
    assert values["kl_shift"] == pytest.approx(0.5, abs=1e-12)  # selection does not move the shift part


def test_without_labels_there_is_no_gap_but_a_divergence():
    values = measured(POOL, OWN, np.zeros((2, 2)))
    assert [name for name, value in values.items() if np.isnan(value)] == ["nll_gap", "nll_gap_token"]


def test_one_prompt_has_no_standard_error():
    one = pool_of(*(array[:1] for array in (POOL.lengths, POOL.logprob_p, POOL.logprob_drawn, POOL.kl)))
    values = measured(one, OWN, [[1, 0]])
    assert [name for name, value in values.items() if np.isnan(value)] == ["kl_shift_se", "kl_shift_mc_se"]
    assert values["kl_shift_mc"] == pytest.approx(1.75, abs=1e-12)


def sampled(divergences, items) -> dict[str, float]:
    """The columns of one-token answers [P, K] whose log-ratios are given, about these items."""
    ratio = np.array(divergences)[:, :, None]
    zeros = np.zeros(ratio.shape)
    pool = pool_of(np.ones(ratio.shape[:2], int), zeros, ratio, zeros, items)
    return measured(pool, pool)


def test_standard_error_is_clustered_by_item():
    """Prompts 1 and 2 are about one item; about the mean 3 they are off by -2 and 0, together -2, and prompt 3 by 2."""
    values = sampled([[0.0, 2.0], [3.0, 3.0], [5.0, 5.0]], [7, 7, 8])
    assert values["kl_shift_mc"] == pytest.approx(3, abs=1e-12)
    assert values["kl_shift_mc_se"] == pytest.approx(np.sqrt(2 / 1 * (4 + 4)) / 3, abs=1e-12)


def test_prompts_asked_twice_say_nothing_new():
    once, twice = sampled([[0.0], [2.0], [5.0]], [1, 2, 3]), sampled([[0.0], [2.0], [5.0]] * 2, [1, 2, 3] * 2)
    assert once["kl_shift_mc_se"] == pytest.approx(np.std([0, 2, 5], ddof=1) / np.sqrt(3), abs=1e-12)
    assert twice["kl_shift_mc_se"] == pytest.approx(once["kl_shift_mc_se"], abs=1e-12)


def test_one_item_has_no_standard_error():
    values = sampled([[0.0], [2.0]], [7, 7])
    assert np.isnan([values["kl_shift_se"], values["kl_shift_mc_se"]]).all()


def test_text_without_a_density_has_a_likelihood_gap_alone():
    unknown = np.full(POOL.kl.shape, NAN)
    values = measured(pool_of(POOL.lengths, POOL.logprob_p, unknown, unknown), OWN, [[1, 0], [0, 1]])
    assert values["nll_gap"] == pytest.approx(1.0, abs=1e-12)
    assert all(np.isnan(value) for name, value in values.items() if not name.startswith("nll"))


# The tabular laboratory knows the divergence of whole answers.


def proposed(name: str, prompts, seed: int, k: int) -> Pool:
    return registry.get("label_shift", name)(LM.policy(None, max_tokens=8), prompts, rng(seed), k=k, **SHIFTS[name])


def asked_of(name: str, prompts) -> dict:
    """The chats and the decoding that the label shift asks for."""
    asked = {}

    class Recorder:
        def pool(self, prompts, rng, *, k, decoding=None, chats=None, max_tokens=None):
            asked.update(chats=chats, **({} if decoding is None else {"decoding": decoding}))
            return LM.policy(None, max_tokens=8).pool(prompts, rng, k=k)

    registry.get("label_shift", name)(Recorder(), prompts, rng(), k=1, **SHIFTS[name])
    return asked


def exact(name: str, prompts) -> float:
    return float(LM.exact_kl(None, prompts, **asked_of(name, prompts)).mean())


@pytest.mark.parametrize("name", SHIFTS)
def test_against_the_exact_divergence_of_whole_answers(name):
    prompts = tuple(map(ask, range(80)))
    pool = proposed(name, prompts, 0, 50)
    values = measured(pool, pool)
    truth = exact(name, prompts)
    assert abs(values["kl_shift_mc"] - truth) <= 3 * values["kl_shift_mc_se"] + 1e-12
    assert abs(values["kl_shift"] - truth) <= 3 * values["kl_shift_mc_se"] + 1e-12
    if name in ("none", "greedy"):  # nothing is left to chance
        assert values["kl_shift"] == pytest.approx(truth, abs=1e-12)
        assert values["kl_shift_mc"] == pytest.approx(truth, abs=1e-12)
    assert (truth == pytest.approx(0, abs=1e-12)) == (name == "none")


@pytest.mark.parametrize("name", SHIFTS)
def test_jensen_shannon_against_the_distributions(name):
    """From draws of q alone, whatever p has that q lacks."""
    prompts = tuple(map(ask, range(40)))
    q, p = LM.distribution(None, prompts, **asked_of(name, prompts)), LM.distribution(None, prompts)
    truth = js(q, p).mean()
    found = [measured(pool, pool)["js_shift"] for pool in (proposed(name, prompts, seed, 4) for seed in range(100))]
    assert abs(np.mean(found) - truth) <= 3 * np.std(found, ddof=1) / 10 + 1e-12
    assert (truth < 1e-12) == (name == "none")
    assert max(found) <= np.log(2)


def test_jensen_shannon_is_bounded_where_a_ratio_overflows():
    assert sampled([[2000.0]], [1])["js_shift"] == pytest.approx(np.log(2), abs=1e-12)
    assert np.isfinite(sampled([[-2000.0], [1.0]], [1, 2])["js_shift"])


@pytest.mark.parametrize(
    ("decoding", "known"),
    [
        (Decoding(), True),
        (Decoding(temperature=0), True),
        (Decoding(top_p=0.6), True),
        (Decoding(top_p=0.9), True),
        (Decoding(temperature=0.5), False),
        (Decoding(temperature=1.5), False),
    ],
)
def test_coverage_is_what_the_proposal_can_give(decoding, known):
    prompts = tuple(map(ask, range(40)))
    q, p = LM.distribution(None, prompts, decoding=decoding), LM.distribution(None, prompts)
    found = [
        measured(pool, pool)["coverage"]
        for pool in (LM.policy(None, max_tokens=8).pool(prompts, rng(s), k=4, decoding=decoding) for s in range(40))
    ]
    if known:
        error = np.std(found, ddof=1) / 40**0.5
        assert abs(np.mean(found) - np.where(q > 0, p, 0).sum(1).mean()) <= 3 * error + 1e-12
        assert (np.mean(found) == 1) == decoding.raw
    else:
        assert np.isnan(found).all()


@pytest.mark.parametrize("name", ["clean_view", "cot_view", "system_prompt"])
def test_another_prompt_cuts_nothing(name):
    pool = proposed(name, tuple(map(ask, range(20))), 0, 4)
    assert measured(pool, pool)["coverage"] == 1.0


@pytest.mark.parametrize("name", ["nucleus", "clean_view", "cot_view"])
def test_both_estimates_have_the_exact_mean_and_the_first_varies_less(name):
    prompts = tuple(map(ask, range(40)))
    rows = [measured(pool, pool) for pool in (proposed(name, prompts, seed, 4) for seed in range(150))]
    truth = exact(name, prompts)
    spread = {}
    for column in ("kl_shift", "kl_shift_mc"):
        values = np.array([row[column] for row in rows])
        spread[column] = values.std(ddof=1)
        assert abs(values.mean() - truth) < 3 * spread[column] / np.sqrt(len(values)) + 1e-12, column
    assert spread["kl_shift"] < spread["kl_shift_mc"]


def test_standard_error_is_that_of_prompts_drawn_anew():
    everyone = tuple(map(ask, range(3000)))
    truth, draw = exact("clean_view", everyone), rng(0)
    z: dict[str, list[float]] = {"kl_shift": [], "kl_shift_mc": []}
    for seed in range(200):
        prompts = tuple(everyone[i] for i in draw.choice(len(everyone), 60, replace=False))
        pool = proposed("clean_view", prompts, seed, 3)
        values = measured(pool, pool)
        for name, column in z.items():
            column.append((values[name] - truth) / values[f"{name}_se"])
    for column in z.values():
        assert abs(np.mean(column)) < 0.3
        assert 0.85 < np.std(column) < 1.15


def test_the_organism_compared_to_itself_has_no_gap():
    pool = proposed("none", tuple(map(ask, range(20))), 0, 4)
    values = measured(pool, pool, np.full((20, 4), 0.25))
    assert values["nll_gap"] == pytest.approx(0, abs=1e-12)
    assert values["nll_gap_token"] == pytest.approx(0, abs=1e-12)


def test_a_gap_of_likelihood_is_no_divergence():
    """Greedy labels are likelier than the organism's own, at a positive divergence."""
    prompts = tuple(map(ask, range(60)))
    values = measured(proposed("greedy", prompts, 0, 1), proposed("none", prompts, 0, 20))
    assert values["kl_shift"] > 0.5
    assert values["nll_gap"] < -0.2


def test_the_divergence_of_a_mixture_is_not_known():
    """Beams are point masses, each of known divergence; that of picking one of them is not the mean of these."""
    prompts = tuple(map(ask, range(10)))
    policy = LM.policy(None, max_tokens=8)
    own = policy.pool(prompts, rng(), k=3)
    for name in ("beam", "mixed_decoding"):
        plugin = registry.get("label_shift", name)
        values = measured(plugin(policy, prompts, rng(), k=3), own)
        assert np.isnan([values[key] for key in values if key.startswith("kl_")]).all()
        assert np.isfinite([values["nll_gap"], values["nll_gap_token"]]).all()
    alone = measured(registry.get("label_shift", "beam")(policy, prompts, rng(), k=1), own)
    assert np.isfinite(list(alone.values())).all()


def test_a_pool_without_densities_has_no_divergence():
    unknown = np.full_like(POOL.kl, NAN)
    values = measured(replace(POOL, logprob_drawn=unknown, kl=unknown), OWN, [[1, 0], [0, 1]])
    assert np.isnan([values[key] for key in values if key.startswith("kl_")]).all()
    assert np.isfinite(values["nll_gap"])
