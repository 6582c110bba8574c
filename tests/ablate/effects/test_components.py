import numpy as np
import pytest
from scipy import stats

from ablate.effects.components import effects, noise, squared_mean, structural
from ablate.effects.intervals import ratio, t_interval

MU = np.array([[0, 4, 9], [-12, -5, 0], [-20, -18, -2]], float)


def parts_of(mu):
    a, b, g = mu.mean(1), mu.mean(0), mu.mean()
    ab = mu - a[:, None] - b + g
    return {"label_shift": ((a - g) ** 2).mean(), "selector": ((b - g) ** 2).mean(), "interaction": (ab**2).mean()}


def runs(rng, organisms, seeds=1, mu=MU, o=4, oa=3, ob=2, oab=2, s=1.5, e=2.5):
    shape = (organisms, *mu.shape, seeds)
    y = mu[None, :, :, None] + rng.normal(0, o, (organisms, 1, 1, 1)) + rng.normal(0, s, (organisms, 1, 1, seeds))
    y = y + rng.normal(0, oa, (organisms, mu.shape[0], 1, 1)) + rng.normal(0, ob, (organisms, 1, mu.shape[1], 1))
    return y + rng.normal(0, oab, (*shape[:3], 1)) + rng.normal(0, e, shape)


def cells(y):
    return y.mean(axis=3)[..., None]


ALL = np.ones(3, bool)


def test_squared_mean_is_the_pairwise_product():
    v = np.random.default_rng(0).normal(1, 2, (5, 3))
    pairs = [v[i] @ v[j] / 3 for i in range(5) for j in range(5) if i != j]
    assert squared_mean(v).mean() == pytest.approx(np.mean(pairs))


def test_effects_without_noise_are_the_variances_of_the_means():
    found = effects(np.broadcast_to(MU, (4, 3, 3))[..., None] + np.arange(4)[:, None, None, None], ALL)
    for name, value in parts_of(MU).items():
        assert found[name].mean() == pytest.approx(value)
    assert sum(part.mean() for part in found.values()) == pytest.approx(MU.var())


def test_estimates_are_unbiased():
    rng = np.random.default_rng(1)
    found = [(effects(cells(y), ALL), noise(y)) for y in (runs(rng, 5, seeds=2) for _ in range(1500))]
    truth = parts_of(MU) | {
        "organism": 16,
        "seed within organism": 2.25,
        "organism x label_shift": 9,
        "organism x selector": 4,
        "organism x label_shift x selector": 4,
        "residual": 6.25,
    }
    for name, value in truth.items():
        draws = np.array([(e | n)[name].mean() for e, n in found])
        assert draws.mean() == pytest.approx(value, abs=4 * draws.std() / np.sqrt(len(draws))), name


def test_one_seed_names_what_it_confounds():
    assert list(noise(runs(np.random.default_rng(2), 5))) == [
        "organism and seed",
        "organism x label_shift",
        "organism x selector",
        "organism x label_shift x selector and residual",
    ]


def test_raw_eta_squared_would_give_noise_a_share_of_its_own():
    """With no effect at all, the raw sum of squares of the levels is not 0; the unbiased one is."""
    rng = np.random.default_rng(3)
    worlds = [runs(rng, 6, mu=np.zeros((3, 3))) for _ in range(500)]
    raw = np.mean([((y.mean(axis=(0, 2, 3)) - y.mean()) ** 2).mean() for y in worlds])
    unbiased = np.mean([effects(cells(y), ALL)["label_shift"].mean() for y in worlds])
    assert raw > 1.0
    assert abs(unbiased) < 0.15


@pytest.mark.parametrize("organisms", [4, 6, 8])
def test_share_intervals_cover(organisms):
    """Linearized t with J - 1 df; the percentile bootstrap that is not shipped covers less."""
    rng = np.random.default_rng(organisms)
    truth, hits, boot = parts_of(MU), [], []
    share = truth["label_shift"] / MU.var()
    for _ in range(400):
        y = cells(runs(rng, organisms))
        found = effects(y, ALL)
        interval = t_interval(ratio(found["label_shift"], sum(found.values())))
        hits.append(interval.low <= share <= interval.high)
        if len(boot) < 60 and organisms == 4:
            picks = rng.integers(0, 4, (100, 4))
            draws = [(p := effects(y[pick], ALL))["label_shift"].mean() / sum(p.values()).mean() for pick in picks]
            low, high = np.quantile(draws, [0.025, 0.975])
            boot.append(low <= share <= high)
    assert np.mean(hits) > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 400)
    if organisms == 4:
        assert np.mean(boot) < 0.92


def test_effects_together_are_seldom_seen_where_there_are_none():
    rng = np.random.default_rng(9)
    seen = 0
    for _ in range(400):
        total = sum(effects(cells(runs(rng, 6, mu=np.zeros((3, 3)))), ALL).values())
        seen += not t_interval(total).covers_zero
    assert seen / 400 <= 0.05


def test_structural_interaction_is_what_the_whole_grid_has_beyond_the_active_one():
    mu = MU.copy()
    mu[1] = mu[1, 0]
    active = np.array([True, False, True])
    found = effects(np.broadcast_to(mu, (4, 3, 3))[..., None], active)
    whole = parts_of(mu)["interaction"]
    inner = 2 / 3 * found["interaction"].mean() + structural(found["selector"], active).mean()
    assert inner == pytest.approx(whole)


def test_losing_the_selection_is_no_effect_of_the_label_shift():
    mu = np.array([[0, 10, 20], [0, 0, 0], [0, 10, 20]], float)  # selection cannot act under the second shift
    active = np.array([True, False, True])
    found = effects(np.broadcast_to(mu, (4, 3, 3))[..., None], active)
    assert found["label_shift"].mean() == pytest.approx(0, abs=1e-9)
    assert found["interaction"].mean() == pytest.approx(0, abs=1e-9)
    naive = effects(np.broadcast_to(mu, (4, 3, 3))[..., None], ALL)
    assert naive["label_shift"].mean() > 20


def test_three_factors_share_the_whole_variance():
    rng = np.random.default_rng(4)
    mu = rng.normal(0, 5, (3, 2, 2))
    found = effects(np.broadcast_to(mu, (4, 3, 2, 2)), ALL)
    assert list(found) == ["label_shift", "selector", "objective", "interaction"]
    assert sum(part.mean() for part in found.values()) == pytest.approx(mu.var())


def test_a_fixed_organism_would_find_effects_that_are_not_there():
    """Only organisms differ in how a label shift moves them. Their interaction is the error term, not the residual."""
    rng = np.random.default_rng(5)
    random_p, fixed_p = [], []
    for _ in range(400):
        y = runs(rng, 8, mu=np.zeros((3, 3)), oa=6, ob=0, oab=0, e=2)[..., 0]
        grand = y.mean(axis=(1, 2), keepdims=True)
        a, b = y.mean(axis=2, keepdims=True) - grand, y.mean(axis=1, keepdims=True) - grand
        ms_a = 8 * 3 * (a.mean(axis=0) ** 2).sum() / 2
        ms_oa = 3 * ((a - a.mean(axis=0)) ** 2).sum() / (2 * 7)
        rest = y - grand - a - b
        ms_rest = ((rest - rest.mean(axis=0)) ** 2).sum() / (4 * 7)
        random_p.append(stats.f.sf(ms_a / ms_oa, 2, 14))
        fixed_p.append(stats.f.sf(ms_a / ms_rest, 2, 28))
    assert np.mean(np.array(random_p) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(fixed_p) < 0.05) > 0.5
