from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ablate.api import LabelSet, Pool
from ablate.errors import StudyError
from ablate.measures import embedding
from ablate.measures.classifier import c2st
from ablate.measures.embedding import embedding_shift, mmd2
from ablate.testing import MeasureContract, rng

NAN = float("nan")
SHIFTS = ("mmd2", "energy", "frechet", "sliced_w2", "centroid_cosine")
SAME = dict.fromkeys(SHIFTS, 0.0) | {"mmd2_p": 1.0, "energy_p": 1.0, "c2st_auc": 0.5, "c2st_length_auc": 0.5}
"""Of labels that are the organism's answers, word by word."""


class TestContract(MeasureContract):
    @pytest.fixture
    def level(self):
        return "embedding_shift", {"permutations": 19}


# MMD^2 of two samples


def naive(x, y) -> float:
    """Unbiased MMD^2 of pairs, written out: no term compares the two answers of one prompt."""
    together, n = [*x, *y], len(x)
    between = [((a - b) ** 2).sum() for i, a in enumerate(together) for b in together[:i]]
    width = np.median([d for d in between if d > 0])

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / width)

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j])
    return total / (n * (n - 1))


def two_samples(seed: int, n: int = 12, shift: float = 0.0):
    x, y = rng(seed).normal(size=(2, n, 3))
    return x + shift, y


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_against_a_double_loop(n, shift):
    x, y = two_samples(n, n, shift)
    assert mmd2(x, y, rng())[0] == pytest.approx(naive(x, y), abs=1e-12)
    assert mmd2(x.astype(np.float32), y.astype(np.float32), rng())[0] == pytest.approx(naive(x, y), abs=1e-6)


def test_answers_that_occur_twice_do_not_narrow_the_kernel():
    x, y = two_samples(0)
    x[3:] = x[0]
    y[:6] = x[0]
    assert mmd2(x, y, rng())[0] == pytest.approx(naive(x, y), abs=1e-12)


def test_equal_texts_embedded_in_other_batches_do_not_narrow_the_kernel():
    x, y = two_samples(0)
    x[3:] = x[0]
    y[:6] = x[0]
    noise = rng(1).normal(0, 1e-7, (2, *x.shape))
    assert mmd2(x + noise[0], y + noise[1], rng())[0] == pytest.approx(naive(x, y), abs=1e-5)


def test_either_may_be_named_first():
    x, y = two_samples(1, shift=1.0)
    assert mmd2(x, y, rng()) == pytest.approx(mmd2(y, x, rng()), abs=1e-12)


def test_all_answers_alike():
    """A study's labels may all be one text, which is no mistake; two samples of one point are."""
    labels = labels_of(np.ones((4, 1)), own_candidates=1, same_pool=False)
    same = np.ones((4, 1, 3))
    for noise in (0.0, 1e-8):
        one = replace(labels, embedding=same, reference_embedding=same + noise * rng().normal(size=same.shape))
        assert embedding_shift(None, one, None, rng()) == SAME
        longer = replace(one, pool=replace(one.pool, lengths=np.arange(1, 5)[:, None]))
        assert embedding_shift(None, longer, None, rng()) == pytest.approx(SAME | {"c2st_length_auc": NAN}, nan_ok=True)
    with pytest.raises(StudyError, match="all rows of x and y are alike"):
        mmd2(same[:, 0], same[:, 0], rng())


def test_the_same_answers_twice():
    x, _ = two_samples(2)
    value, p = mmd2(x, x, rng())
    assert value == pytest.approx(0, abs=1e-15)
    assert p == 1.0


@pytest.mark.parametrize("permutations", [19, 99])
def test_smallest_p_is_one_in_all(permutations):
    x, y = two_samples(3, 30, shift=4.0)
    assert mmd2(x, y, rng(), permutations=permutations)[1] == 1 / (1 + permutations)


def test_p_is_exact_where_few_signs_exist():
    """Of 8 sign vectors every two give one value; the observed one is among them, whatever its sign."""
    for seed in range(12):
        x, y = two_samples(seed, 3)
        value, p = mmd2(x, y, rng(), permutations=4000)
        turned = []
        for code in range(8):
            flip = np.array([bool(code >> i & 1) for i in range(3)])[:, None]
            turned.append(naive(np.where(flip, y, x), np.where(flip, x, y)))
        assert p == pytest.approx(np.mean(np.array(turned) >= value - 1e-9), abs=0.04)
        assert p > 0.2


def test_p_is_uniform_where_nothing_shifted():
    drawn = [mmd2(*two_samples(seed, 20), rng(10_000 + seed), permutations=99) for seed in range(400)]
    values, ps = np.array(drawn).T
    assert stats.kstest(ps - rng(0).uniform(0, 0.01, len(ps)), "uniform").pvalue > 0.01
    assert 0.02 <= (ps <= 0.05).mean() <= 0.085
    assert abs(values.mean()) < 3 * values.std(ddof=1) / len(values) ** 0.5  # unbiased


def test_p_is_uniform_where_the_prompts_differ():
    """What all answers to one prompt share is no shift: permutation stays within prompts."""
    ps = []
    for seed in range(300):
        x, y = two_samples(seed, 20)
        prompt = 5 * rng(20_000 + seed).normal(size=(20, 3))
        ps.append(mmd2(x + prompt, y + prompt, rng(seed), permutations=99)[1])
    assert 0.02 <= (np.array(ps) <= 0.05).mean() <= 0.09


def test_a_shift_is_found():
    assert (
        np.mean([mmd2(*two_samples(seed, 20, 0.8), rng(seed), permutations=99)[1] <= 0.05 for seed in range(60)]) > 0.8
    )


# The measure: which answers are compared


def pool_of(shape, token: int = 0) -> Pool:
    zeros = np.zeros((*shape, 1))
    return Pool((), (), np.full((*shape, 1), token), np.ones(shape, int), zeros, zeros, zeros, zeros)


def labels_of(weights, *, own_candidates=4, same_pool=True, copied=False) -> LabelSet:
    """Embeddings that name their answer: (0 label pool | 1 reference, prompt, candidate)."""
    weights = np.asarray(weights, float)
    pool = pool_of(weights.shape)
    own = pool_of(weights.shape) if copied else pool if same_pool else pool_of((len(weights), own_candidates), 1)
    names = [
        np.stack(np.broadcast_arrays(which, *np.indices(of.lengths.shape)), -1).astype(float)
        for which, of in ((0, pool), (1, own))
    ]
    return LabelSet(pool, own, weights, *names)


def compared(monkeypatch, labels, seed=0):
    """The pairs that the measure compares, by name, and out of how many the label was picked."""
    seen = []

    def record(samples, rng, lengths):
        seen.append(samples)
        return {}

    monkeypatch.setattr(embedding, "_columns", record)
    embedding_shift(None, labels, None, rng(seed))
    x, y = seen[0].points[: seen[0].n], seen[0].points[seen[0].n :]
    assert (x[:, 0] == 0).all()
    assert (y[:, 0] == 1).all()
    np.testing.assert_array_equal(x[:, 1], y[:, 1])  # answers to the same prompt
    return x[:, 1].astype(int), x[:, 2].astype(int), y[:, 2].astype(int), seen[0].picked_from


@pytest.mark.parametrize("copied", [False, True], ids=["one pool", "equal pools"])
def test_no_pick_is_compared_to_itself(monkeypatch, copied):
    picks = rng(1).integers(0, 4, 30)
    seen = set()
    for seed in range(40):
        prompts, picked, other, of = compared(monkeypatch, labels_of(np.eye(4)[picks], copied=copied), seed)
        assert of == 4
        np.testing.assert_array_equal(prompts, np.arange(30))
        np.testing.assert_array_equal(picked, picks)
        assert (picked != other).all()
        seen |= set(zip(picked.tolist(), other.tolist(), strict=True))
    assert len(seen) == 12  # every other candidate has its turn


def test_a_pick_from_another_pool_may_meet_any_answer(monkeypatch):
    labels = labels_of(np.eye(4)[np.zeros(200, int)], own_candidates=3, same_pool=False)
    _, picked, other, of = compared(monkeypatch, labels)
    assert set(picked.tolist()) == {0}
    assert set(other.tolist()) == {0, 1, 2}
    assert of == 0


def test_prompts_without_a_label_are_left_out(monkeypatch):
    weights = np.eye(4)[np.zeros(6, int)]
    weights[[1, 4]] = 0.0
    assert compared(monkeypatch, labels_of(weights))[0].tolist() == [0, 2, 3, 5]


def test_weights_are_chances(monkeypatch):
    weights = np.tile([0.0, 0.2, 0.8, 0.0], (2000, 1))
    picked = compared(monkeypatch, labels_of(weights))[1]
    assert set(picked.tolist()) == {1, 2}
    assert abs((picked == 2).mean() - 0.8) < 4 * np.sqrt(0.16 / 2000)


@pytest.mark.parametrize(
    "labels",
    [
        labels_of(np.ones((10, 1))),  # one candidate and no other of the same pool
        labels_of(np.ones((10, 1)), copied=True),
        labels_of(np.zeros((10, 4))),
        labels_of(np.eye(10, 4)[:, ::-1] * (np.arange(10) == 3)[:, None]),
    ],
    ids=["single candidate", "single candidate, equal pools", "no label", "one label"],
)
def test_nothing_to_compare(labels):
    values = embedding_shift(None, labels, None, rng())
    assert values.keys() == SAME.keys()
    assert all(np.isnan(value) for value in values.values())


def test_a_single_candidate_of_another_pool_is_enough():
    labels = labels_of(np.ones((10, 1)), own_candidates=4, same_pool=False)
    assert not any(np.isnan(value) for value in embedding_shift(None, labels, None, rng()).values())


# The measure: its numbers


def drawn(seed: int, n: int, k: int, d: int = 2):
    """Answers to n prompts, which differ; the first coordinate is what a selector may go by."""
    draw = rng(seed)
    return draw.normal(size=(n, 1, d)) * 0.5 + draw.normal(size=(n, k, d)) + np.eye(d)[-1] * 2


def of(weights, answers, own, seed: int, *, fresh: bool, permutations: int = 19) -> dict[str, float]:
    """The columns; lengths are 10 answers' tokens, rising with the first coordinate."""

    def pool(points, token):
        return replace(pool_of(points.shape[:2], token), lengths=np.round(10 + 3 * points[:, :, 0]).astype(int))

    one = pool(answers, 0)
    labels = LabelSet(one, pool(own, 1) if fresh else one, weights, answers, own)
    return embedding_shift(None, labels, None, rng(seed), permutations=permutations)


def mean_and_error(rows: list[dict[str, float]]):
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {name: (column.mean(), column.std(ddof=1) / len(column) ** 0.5) for name, column in table.items()}


@pytest.mark.parametrize("fresh", [False, True], ids=["own pool", "fresh answers"])
def test_without_a_shift_every_column_is_zero_on_average(fresh):
    rows = []
    for seed in range(60):
        answers = drawn(seed, 16, 8)
        weights = np.eye(4)[rng(seed).integers(0, 4, 16)]
        rows.append(of(weights, answers[:, :4], answers[:, 4:] if fresh else answers[:, :4], seed, fresh=fresh))
    for name, (mean, error) in mean_and_error(rows).items():
        if not name.endswith("_p"):
            assert abs(mean - (0.5 if "auc" in name else 0)) < 3 * error, name
    for name in ("mmd2_p", "energy_p"):
        assert 0.02 <= np.mean([row[name] <= 0.05 for row in rows]) <= 0.09


@pytest.mark.parametrize("k", [2, 4])
def test_picks_from_the_own_pool_are_measured_against_the_organism_not_against_what_was_left_over(k):
    """The highest of k: those left over are lower than the organism's, at k = 2 by as much as the pick is higher."""
    own, fresh = [], []
    for seed in range(12):
        answers, others = drawn(seed, 250, 2 * k)[:, :k], drawn(seed, 250, 2 * k)[:, k:]
        weights = np.eye(k)[answers[:, :, 0].argmax(1)]
        own.append(of(weights, answers, answers, seed, fresh=False))
        fresh.append(of(weights, answers, others, seed, fresh=True))
    one, other = mean_and_error(own), mean_and_error(fresh)
    for name in (*SHIFTS, "c2st_auc", "c2st_length_auc"):
        null = 0.5 if "auc" in name else 0.0
        assert other[name][0] - null > 5 * other[name][1], name
        assert one[name][0] - null == pytest.approx(other[name][0] - null, rel=0.2), name


def test_gaussians_of_known_distances():
    """N(mu, I) against N(0, I): |mu|^2, |mu|^2 / D and the AUC Phi(|mu| / sqrt(2)) of the best classifier."""
    rows = []
    for seed in range(8):
        x, y = rng(seed).normal(size=(2, 400, 1, 3))
        rows.append(of(np.ones((400, 1)), x + np.eye(3)[0], y, seed, fresh=True))
    found = mean_and_error(rows)
    assert found["frechet"][0] == pytest.approx(1.0, abs=3 * found["frechet"][1])
    assert found["sliced_w2"][0] == pytest.approx(1 / 3, abs=max(0.01, 3 * found["sliced_w2"][1]))
    assert found["c2st_auc"][0] == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.02)
    assert found["mmd2_p"][0] == found["energy_p"][0] == 0.05


def test_columns_are_those_of_their_functions():
    x, y = two_samples(5, 20, 0.7)
    labels = of(np.ones((20, 1)), x[:, None], y[:, None], 0, fresh=True, permutations=99)
    values = dict(labels)
    assert values["mmd2"] == pytest.approx(mmd2(x, y).value, abs=1e-12)
    assert values["energy"] == pytest.approx(embedding.energy(x, y).value, abs=1e-12)
    assert values["frechet"] == pytest.approx(embedding.frechet(x, y, permutations=2000).value, abs=0.05)
    raw = embedding.sliced_w2(x, y, permutations=1, projections=4000).value ** 2
    assert 0.4 * raw < values["sliced_w2"] < raw  # less its mean over permutations
    raw = embedding.centroid_cosine(x, y, permutations=1).value
    assert values["centroid_cosine"] < raw
    assert values["c2st_auc"] == pytest.approx(c2st(x, y, permutations=1).value, abs=0.1)  # other folds


def test_directions_leave_little_to_chance():
    x, y = rng(1).normal(size=(2, 60, 1, 50)) + np.array([0.5, 0.0])[:, None, None, None]
    found = [of(np.ones((60, 1)), x, y, seed, fresh=True)["sliced_w2"] for seed in range(12)]
    assert np.std(found) < 0.02 * np.mean(found)


def test_lengths_alone_may_tell_everything():
    x, y = rng(2).normal(size=(2, 60, 1, 3))
    one = pool_of((60, 1))
    labels = LabelSet(replace(one, lengths=one.lengths + 5), pool_of((60, 1), 1), np.ones((60, 1)), x, y)
    values = embedding_shift(None, labels, None, rng(), permutations=19)
    assert values["c2st_length_auc"] == 1.0
    assert values["c2st_auc"] < 0.7


def test_means_without_a_direction_have_no_cosine():
    x = np.array([[[1.0, 0.0]], [[-1.0, 0.0]]])
    values = of(np.ones((2, 1)), x, x + np.array([0.0, 3.0]), 0, fresh=True)
    assert [name for name, value in values.items() if np.isnan(value)] == ["centroid_cosine"]
