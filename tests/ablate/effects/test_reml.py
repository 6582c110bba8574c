"""Variance components: published fits, dense matrix algebra, statsmodels, and every refusal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.regression.mixed_linear_model import MixedLM

from ablate.effects import ems, mixed
from ablate.effects.frames import usable
from ablate.effects.mixed import Likelihood, fit
from ablate.effects.reml import RISE, variance_components
from ablate.errors import StudyError

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "reference"
published = pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not beside the repository")

RAIL = [[55, 53, 54], [26, 37, 32], [78, 91, 85], [92, 100, 96], [49, 51, 50], [80, 85, 83]]
"""nlme's Rail: travel times, six rails."""
STOOL = [[12, 15, 12, 10], [10, 14, 13, 12], [7, 14, 13, 9], [7, 11, 10, 9], [8, 11, 8, 7], [9, 11, 11, 10]]
STOOL += [[8, 12, 12, 11], [7, 11, 8, 7], [9, 13, 10, 8]]
"""nlme's ergoStool: effort to arise of nine subjects from four stools."""
DYESTUFF2 = [[7.298, 3.846, 2.434, 9.566, 7.990], [5.220, 6.556, 0.608, 11.788, -0.892]]
DYESTUFF2 += [[0.110, 10.386, 13.434, 5.510, 8.166], [2.212, 4.852, 7.092, 9.288, 4.980]]
DYESTUFF2 += [[0.282, 9.014, 4.458, 9.446, 7.198], [1.722, 4.782, 8.106, 0.758, 3.758]]
"""lme4's Dyestuff2 (Box & Tiao 1973): batches differ less than their rows would make them."""


def wide(table, rows, columns, response):
    row, column = np.indices(np.shape(table)).reshape(2, -1).astype(str)
    labels = {rows: np.char.add("A", row), columns: np.char.add("B", column)}
    return pd.DataFrame(labels | {response: np.ravel(table)})


def world(seed=0, organisms=6, shifts=3, selectors=3, seeds=4, missing=0.0):
    rng = np.random.default_rng(seed)
    shape = {"organism": organisms, "shift": shifts, "selector": selectors, "seed": seeds}
    frame = pd.MultiIndex.from_product(map(range, shape.values()), names=shape).to_frame(index=False)
    o, a, b, s = frame.to_numpy().T
    y = rng.normal(0, 4, organisms)[o] + rng.normal(0, 3, (organisms, shifts))[o, a] + 2.0 * a - b
    y += rng.normal(0, 2, (organisms, selectors))[o, b] + rng.normal(0, 1.5, (organisms, seeds))[o, s]
    y += rng.normal(0, 1.8, (organisms, shifts, selectors))[o, a, b] + rng.normal(0, 2.5, len(frame))
    frame = frame.astype(str).apply(lambda column: column.name[:2] + column).assign(y=y)
    return frame.sample(frac=1 - missing, random_state=seed) if missing else frame


RANDOM = ["organism", "organism:shift", "organism:selector", "organism:shift:selector", "organism:seed"]
FIXED = ["shift", "selector", "shift:selector"]


def numbers(table):
    return table[["variance", "low", "high"]].to_numpy()


# Published fits


@published
@pytest.mark.parametrize(
    ("name", "response", "random", "method", "variances", "criterion"),
    [
        ("Dyestuff", "Yield", ["Batch"], "reml", [1764.05, 2451.25], 319.6543),
        ("Dyestuff", "Yield", ["Batch"], "ml", [1388.333, 2451.25], 327.3271),
        ("Penicillin", "diameter", ["plate", "sample"], "reml", [0.716908, 3.730919, 0.302415], 330.860589),
    ],
)
def test_lme4_fits(name, response, random, method, variances, criterion):
    table = variance_components(pd.read_csv(REFERENCE / f"{name}.csv"), response, [], random, method)
    assert table.term.tolist() == [*random, "residual"]
    assert table.variance.to_numpy() == pytest.approx(variances, rel=2e-6)
    assert table.attrs["criterion"] == pytest.approx(criterion, abs=5e-5)
    assert table.share.sum() == pytest.approx(1)


@published
@pytest.mark.parametrize(
    ("name", "response", "random", "limits"),
    [
        ("Dyestuff", "Yield", ["Batch"], [[12.20, 84.06], [38.23, 67.66]]),
        # Bates 2010, lme4: Mixed-effects modeling with R, chapter 2
        ("Penicillin", "diameter", ["plate", "sample"], [[0.634, 1.182], [1.096, 3.556], [0.486, 0.629]]),
    ],
)
def test_lme4_profile_intervals_are_those_of_ml(name, response, random, limits):
    table = variance_components(pd.read_csv(REFERENCE / f"{name}.csv"), response, [], random, "ml")
    assert np.sqrt(table[["low", "high"]].to_numpy()) == pytest.approx(np.array(limits), rel=1e-3)


def test_pinheiro_and_bates_rail():
    table = variance_components(wide(RAIL, "rail", "row", "travel"), "travel", [], ["rail"])
    assert np.sqrt(table.variance.to_numpy()) == pytest.approx([24.80547, 4.020779], rel=1e-6)
    assert table.attrs["criterion"] == pytest.approx(2 * 61.0885, abs=1e-4)
    assert table.attrs["beta"] == pytest.approx({"Intercept": 66.5})


def test_pinheiro_and_bates_stool():
    table = variance_components(wide(STOOL, "subject", "stool", "effort"), "effort", ["stool"], ["subject"])
    assert np.sqrt(table.variance.to_numpy()) == pytest.approx([1.332465, 1.100295], rel=1e-6)
    assert table.attrs["criterion"] == pytest.approx(2 * 60.56539, abs=1e-4)
    assert list(table.attrs["beta"]) == ["Intercept", "stool[T.B1]", "stool[T.B2]", "stool[T.B3]"]
    assert list(table.attrs["beta"].values()) == pytest.approx([8.555556, 3.888889, 2.222222, 2 / 3], rel=1e-6)
    assert list(table.attrs["se"].values()) == pytest.approx([0.5760123, *3 * [0.5186838]], rel=1e-6)


def test_a_variance_on_the_boundary_is_exactly_zero():
    frame = wide(DYESTUFF2, "batch", "row", "y")
    table = variance_components(frame, "y", [], ["batch"])
    assert table.variance[0] == table.share[0] == table.low[0] == 0.0
    assert table.variance[1] == pytest.approx(13.806, abs=5e-4)
    assert table.attrs["criterion"] == pytest.approx(161.8283, abs=5e-5)
    assert table.high[0] > 0
    assert variance_components(frame, "y", [], ["batch"], "ems").variance[0] < 0


def test_pastes_casks_within_batches():
    path = Path(MixedLM.__init__.__code__.co_filename).parent / "tests" / "results" / "pastes.csv"
    if not path.exists():
        pytest.skip("statsmodels came without its test data")
    table = variance_components(pd.read_csv(path), "strength", [], ["batch:cask", "batch"])
    assert table.variance.to_numpy() == pytest.approx([8.434, 1.657, 0.678], abs=6e-4)
    assert table.attrs["criterion"] == pytest.approx(246.9907, abs=5e-5)
    assert table.low[1] == 0.0


# Against dense matrices


def dense(y, x, groups, variances, restricted):
    """-2 log likelihood and its derivatives, as in the books."""
    parts = [np.equal.outer(group, group).astype(float) for group in groups] + [np.eye(len(y))]
    v = np.linalg.inv(sum(a * part for a, part in zip(variances, parts, strict=True)))
    gram = x.T @ v @ x
    p = v - v @ x @ np.linalg.solve(gram, x.T @ v)
    t = p if restricted else v
    deviance = -np.linalg.slogdet(v)[1] + y @ p @ y + restricted * np.linalg.slogdet(gram)[1]
    gradient = [np.trace(t @ a) - y @ p @ a @ p @ y for a in parts]
    expected = np.array([[np.trace(t @ a @ t @ b) for b in parts] for a in parts])
    observed = np.array([[2 * y @ p @ a @ p @ b @ p @ y for b in parts] for a in parts]) - expected
    return deviance, gradient, expected, observed


DESIGNS = {
    "one": ["a"],
    "crossed": ["a", "b"],
    "nested": ["a", "a:c"],
    "both": ["a", "a:b", "a:c"],
    "many blocks": ["batch", "batch:cask"],
}


def scattered(seed, n=70):
    rng = np.random.default_rng(seed)
    sizes = {"a": 4, "b": 7, "c": 3, "x": 3}
    frame = pd.DataFrame({name: rng.integers(0, size, n) for name, size in sizes.items()})
    frame["batch"] = np.minimum(rng.geometric(0.12, n), 12)
    frame["cask"] = rng.integers(0, 4, n)
    frame = frame.astype(str)
    for term in (["a"], ["b"], ["a", "c"], ["batch"], ["batch", "cask"]):
        codes = frame.groupby(term).ngroup().to_numpy()
        frame["y"] = frame.get("y", 0.0) + rng.normal(size=codes.max() + 1)[codes]
    return frame.assign(y=frame.y + rng.normal(size=n), z=rng.normal(size=n))


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("design", DESIGNS)
def test_likelihood_and_derivatives_equal_dense_matrices(design, restricted):
    rng = np.random.default_rng(3)
    frame = scattered(1)
    rows = usable(frame, "y", ["a", "b", "c", "batch", "cask"])
    terms = [rows.factor(tuple(term.split(":"))) for term in DESIGNS[design]]
    x = np.linalg.qr(np.column_stack([np.ones(len(rows.y)), rng.normal(size=(len(rows.y), 2))]))[0]
    model = replace(Likelihood.of(rows.y, x, terms, restricted=True), restricted=restricted)
    for variances in (rng.uniform(0.1, 3, len(terms) + 1), np.append(np.zeros(len(terms)), 0.7)):
        point = model.at(variances)
        books = dense(rows.y, x, [term.codes for term in terms], variances, restricted)
        for found, expected in zip(
            (point.deviance, point.gradient, point.expected, point.observed), books, strict=True
        ):
            assert found == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("random", [["organism", "organism:shift"], RANDOM[:4]])
def test_limits_stand_where_the_profile_deviance_has_risen(method, random):
    frame = world(1, missing=0.15)
    table = variance_components(frame, "y", FIXED, random, method)
    rows = usable(frame, "y", ["organism", "shift", "selector"])
    groups = [rows.factor(tuple(term.split(":"))) for term in random]
    cells = rows.factor(("shift", "selector"))
    x = np.linalg.qr(np.eye(cells.size)[cells.codes])[0]
    model = Likelihood.of(rows.y, x, groups, restricted=method == "reml")
    best = model.at(table.variance.to_numpy())
    assert np.abs(best.gradient * best.variances).max() < 1e-6
    for i, (low, high) in enumerate(zip(table.low, table.high, strict=True)):
        for limit in {low, high} - {0.0}:
            start = best.variances.copy()
            start[i] = limit
            assert mixed.minimize(model, start, i).deviance - best.deviance == pytest.approx(RISE, rel=1e-7)


def test_a_second_start_leaves_a_poor_boundary():
    """Eleven rows whose deviance has two minima; from equal variances the way leads to the worse one."""
    frame = pd.DataFrame({"a": list("40234644035"), "b": list("30200130201"), "x": list("01532101025")})
    frame["y"] = [-6.13, -4.8, 15.52, -5.51, -5.31, 12.22, -6.47, -5.87, 15.63, -5.91, 12.58]
    rows = usable(frame, "y", ["a", "b", "x"])
    x = rows.factor(("x",))
    design = np.linalg.qr(np.eye(x.size)[x.codes])[0]
    y = rows.y - design @ (design.T @ rows.y)
    model = Likelihood.of(y / y.std(), design, [rows.factor(("a",)), rows.factor(("b",))], restricted=True)
    first, best = mixed.minimize(model, np.full(3, 1 / 3)), fit(model)
    assert first.variances[0] == 0.0
    assert first.gradient[0] > 0
    assert best.deviance < first.deviance - 0.09
    assert (best.variances > 0).all()


# Against statsmodels


def test_statsmodels_with_a_covariate_and_unequal_groups():
    frame = scattered(5)
    table = variance_components(frame, "y", ["x", "z"], ["batch"])
    oracle = MixedLM.from_formula("y ~ C(x) + z", frame, groups="batch").fit(reml=True, gtol=1e-9)
    assert table.variance.to_numpy() == pytest.approx([oracle.cov_re.iloc[0, 0], oracle.scale], rel=1e-4)
    assert table.attrs["criterion"] == pytest.approx(-2 * oracle.llf, rel=1e-8)
    assert list(table.attrs["beta"].values()) == pytest.approx(oracle.fe_params.to_numpy(), rel=1e-4)
    design = np.column_stack([np.ones(len(frame)), frame.x == "1", frame.x == "2", frame.z]).astype(float)
    batch = table.variance[0] * np.equal.outer(frame.batch.to_numpy(), frame.batch.to_numpy())
    v = np.linalg.inv(batch + table.variance[1] * np.eye(len(frame)))
    covariance = pd.DataFrame(table.attrs["covariance"]).to_numpy()
    assert covariance == pytest.approx(np.linalg.inv(design.T @ v @ design), rel=1e-9)
    assert list(table.attrs["se"].values()) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-12)


def test_statsmodels_with_crossed_components():
    frame = world(4, organisms=5, seeds=2, missing=0.1).assign(one=1)
    parts = {"a": "0 + organism", "b": "0 + organism:shift"}
    oracle = MixedLM.from_formula("y ~ selector", frame, groups="one", vc_formula=parts, re_formula="0").fit(reml=True)
    table = variance_components(frame, "y", ["selector"], ["organism", "organism:shift"])
    assert table.variance.to_numpy() == pytest.approx([*oracle.vcomp, oracle.scale], rel=1e-3)
    assert table.attrs["criterion"] == pytest.approx(-2 * oracle.llf, rel=1e-7)


# Balanced data


def test_expected_mean_squares_are_reml_where_no_variance_is_negative():
    frame = world(2)
    reml, balanced = (variance_components(frame, "y", FIXED, RANDOM, method) for method in ("reml", "ems"))
    assert (balanced.variance > 0).all()
    assert balanced.variance.to_numpy() == pytest.approx(reml.variance.to_numpy(), rel=1e-8)
    assert balanced.attrs["beta"] == pytest.approx(reml.attrs["beta"], rel=1e-8)
    assert balanced.attrs["se"] == pytest.approx(reml.attrs["se"], rel=1e-8)
    assert np.isnan(balanced.attrs["criterion"])
    assert balanced.attrs["df"]["organism:shift:selector"] == 5 * 2 * 2
    assert sum(balanced.attrs["df"].values()) == len(frame) - 1


def test_expected_mean_squares_are_unbiased():
    rng = np.random.default_rng(0)
    frame = pd.MultiIndex.from_product([range(4), range(3), range(2)], names=list("abr")).to_frame(index=False)
    truth, draws = np.array([1.0, 0.2, 0.1, 2.0]), []
    for _ in range(200):
        y = rng.normal(0, truth[0] ** 0.5, 4)[frame.a] + rng.normal(0, truth[1] ** 0.5, 3)[frame.b]
        y += rng.normal(0, truth[2] ** 0.5, (4, 3))[frame.a, frame.b] + rng.normal(0, truth[3] ** 0.5, len(frame))
        draws.append(variance_components(frame.assign(y=y), "y", [], ["a", "b", "a:b"], "ems").variance.to_numpy())
    assert np.mean(draws, axis=0) == pytest.approx(truth, abs=4 * np.std(draws, axis=0).max() / 200**0.5)
    assert (np.array(draws) < 0).any()


@pytest.mark.parametrize(
    ("weights", "expected", "df"),
    [
        ([[1.0, 0.0]], [3.0, 1.0], [5, 20]),
        ([[0.2, -0.2]], [3.0, 1.0], [5, 20]),
        ([[1.0, 1.0]], [3.0, 1.0], [5, 20]),
        ([[0.25, -0.25, -0.25, 0.25]], [9.0, 3.0, 2.0, 1.0], [5, 10, 15, 30]),
    ],
)
def test_modified_large_sample_limits_cover(weights, expected, df):
    """Both limits miss 2.5% of the time; exactly so for a single mean square."""
    rng = np.random.default_rng(0)
    weights, expected, df = np.array(weights), np.array(expected), np.array(df, float)
    truth, draws = (weights @ expected)[0], expected * rng.chisquare(df, (3000, len(df))) / df
    limits = np.array([ems.limits(weights, draw, df) for draw in draws])[:, :, 0]
    for missed in (np.mean(limits[:, 0] > truth), np.mean(limits[:, 1] < truth)):
        assert missed == pytest.approx(0.025, abs=0.011)


def test_the_interval_of_the_residual_is_the_chi_square_one():
    from scipy.stats import chi2

    table = variance_components(wide(RAIL, "rail", "row", "y"), "y", [], ["rail"], "ems")
    residual = table.iloc[-1]
    assert [residual.low, residual.high] == pytest.approx(12 * residual.variance / chi2.isf([0.025, 0.975], 12))


def test_limits_of_reml_cover_what_those_of_ml_do_not():
    """Four organisms: 94% and 88% of 400 worlds; here a few worlds show the order."""
    hits = {"reml": 0, "ml": 0}
    for seed in range(24):
        frame = world(100 + seed, organisms=4, seeds=2)[["organism", "shift", "y"]]
        for method in hits:
            row = variance_components(frame, "y", ["shift"], ["organism", "organism:shift"], method).iloc[0]
            hits[method] += row.low <= 16 <= row.high
    assert hits["reml"] >= 19
    assert hits["ml"] <= hits["reml"]


# What may not matter


def test_scale_and_shift_of_the_response():
    frame = world(3, missing=0.1)
    base = variance_components(frame, "y", FIXED, RANDOM)
    for scale in (1e-6, 1.0, 1e6):
        for shift in (0.0, -1e3, 1e6):
            table = variance_components(frame.assign(y=scale * (frame.y + shift)), "y", FIXED, RANDOM)
            assert numbers(table) / scale**2 == pytest.approx(numbers(base), rel=1e-8)
    whole = wide(RAIL, "rail", "row", "y")
    far = whole.assign(y=[float(f"1000000000000.{y:03d}") for y in whole.y])
    found = variance_components(far, "y", [], ["rail"])
    assert numbers(found) * 1e6 == pytest.approx(numbers(variance_components(whole, "y", [], ["rail"])), rel=1e-12)


@given(
    order=st.permutations(range(24)), names=st.lists(st.text("xyz_ 1", min_size=1), min_size=4, max_size=4, unique=True)
)
@settings(max_examples=15, deadline=None)
def test_row_order_and_names_of_levels(order, names):
    frame = world(7, organisms=4, shifts=3, selectors=1, seeds=2)
    base = variance_components(frame, "y", ["shift"], ["organism", "organism:shift"])
    other = frame.iloc[list(order)]
    other = other.assign(organism=other.organism.map(dict(zip(sorted(frame.organism.unique()), names, strict=True))))
    table = variance_components(other, "y", ["shift"], ["organism", "organism:shift"])
    assert numbers(table) == pytest.approx(numbers(base), rel=1e-8)
    assert table.attrs["criterion"] == pytest.approx(base.attrs["criterion"], abs=1e-9)


@pytest.mark.parametrize(
    "labels",
    [
        lambda codes: codes,
        lambda codes: codes / 8,
        lambda codes: codes == 0,
        lambda codes: pd.Categorical.from_codes(codes, ["u", "v", "w", "not used"]),
        lambda codes: np.array(["one", 2, 3.5], dtype=object)[codes],
    ],
)
def test_kinds_of_labels(labels):
    codes = np.repeat([0, 1, 2], 6)
    if np.asarray(labels(codes)).dtype == bool:
        codes = np.repeat([0, 1], 9)
    frame = pd.DataFrame({"a": labels(codes), "y": np.random.default_rng(0).normal(size=18) + 3 * codes})
    as_text = variance_components(frame.assign(a=codes.astype(str)), "y", [], ["a"])
    assert numbers(variance_components(frame, "y", [], ["a"])) == pytest.approx(numbers(as_text), rel=1e-12)


def test_missing_responses_are_dropped_and_counted():
    frame = world(8)
    gaps = frame.assign(y=frame.y.where(np.arange(len(frame)) % 7 > 0))
    table = variance_components(gaps, "y", FIXED, RANDOM[:3])
    assert numbers(table) == pytest.approx(numbers(variance_components(gaps.dropna(), "y", FIXED, RANDOM[:3])))
    assert (table.attrs["n"], table.attrs["dropped"]) == (gaps.y.notna().sum(), gaps.y.isna().sum())
    nullable = gaps.assign(y=gaps.y.astype("Float64"), organism=gaps.organism.astype("category"))
    assert numbers(variance_components(nullable, "y", FIXED, RANDOM[:3])) == pytest.approx(numbers(table))


@pytest.mark.parametrize("fixed", [["shift:selector"], ["shift", "shift:selector"], ["selector", "shift:selector"]])
def test_an_interaction_brings_what_it_contains(fixed):
    frame = world(9, missing=0.1)
    whole = variance_components(frame, "y", FIXED, ["organism"])
    table = variance_components(frame, "y", fixed, ["organism"])
    assert numbers(table) == pytest.approx(numbers(whole), rel=1e-8)
    assert table.attrs["criterion"] == pytest.approx(whole.attrs["criterion"])
    assert set(table.attrs["beta"]) == set(whole.attrs["beta"])
    assert "shift[T.sh1]:selector[T.se2]" in whole.attrs["beta"]


def test_slopes_that_differ_between_levels():
    frame = scattered(6)
    slopes = variance_components(frame, "y", ["a", "a:z"], ["batch"])
    assert [name for name in slopes.attrs["beta"] if "z" in name] == ["z", "a[T.1]:z", "a[T.2]:z", "a[T.3]:z"]
    oracle = MixedLM.from_formula("y ~ a * z", frame, groups="batch").fit(reml=True)
    assert slopes.attrs["criterion"] == pytest.approx(-2 * oracle.llf, rel=1e-8)


def test_attributes_are_plain():
    table = variance_components(world(), "y", FIXED, RANDOM)
    assert pd.concat([table, table]).attrs == table.attrs  # pandas compares attributes
    assert table.attrs["levels"] == dict(zip(RANDOM, [6, 18, 18, 54, 24], strict=True))
    assert table.attrs["method"] == "reml"


# Refusals

DATA = wide(RAIL, "rail", "row", "y")


@pytest.mark.parametrize(
    ("change", "fixed", "random", "message"),
    [
        ({}, [], ["rial"], "no column 'rial'; did you mean 'rail'"),
        ({}, ["z"], ["rail"], "no column 'z'; there are rail, row, y"),
        ({}, [], [], "random: name at least one term"),
        ({}, [], ["rail", "rail"], "term 'rail' is there twice"),
        ({}, [], ["rail:row", "row:rail"], "term 'row:rail' is there twice"),
        ({}, [], ["rail:rail"], "term 'rail:rail' names a column twice"),
        ({}, [], ["y"], "'y' is the response and cannot be a term too"),
        ({"y": np.nan}, [], ["rail"], "response 'y' has no value in any of 18 rows"),
        ({"y": 0.1}, [], ["rail"], r"response 'y' is constant \(0.1 in all 18 rows\)"),
        ({"y": [np.inf, *range(17)]}, [], ["rail"], r"response 'y' is infinite in 1 rows \(first: row 0\)"),
        ({"y": [str(i) for i in range(18)]}, [], ["rail"], "column 'y' must hold numbers, not string"),
        ({"y": pd.date_range("2020", periods=18)}, [], ["rail"], "column 'y' must hold numbers, not datetime64"),
        ({"rail": "A"}, [], ["rail"], r"random term 'rail' has one level \('A'\): it needs at least 2"),
        ({"rail": [None, *"abcdefghijklmnopq"]}, [], ["rail"], r"column 'rail' has no label in 1 of 18 rows"),
        ({}, [], ["rail:row"], "random term 'rail:row' has one row a level .* confounded with the residual"),
        ({}, ["rail"], ["rail"], "random term 'rail' is aliased with the fixed effects"),
        ({"same": DATA.rail.str.lower()}, [], ["rail", "same"], "'rail', 'same' cannot be told apart"),
        (
            {"rail": np.repeat(list("abcdefghi"), 2)},
            ["rail:row"],
            ["row"],
            "no residual degrees of freedom: 27 fixed effects in 18 rows",
        ),
        ({"x": "u"}, ["x"], ["rail"], "fixed effect 'x' has one level"),
        ({"x": 2.0}, ["x"], ["rail"], "fixed effects are aliased with those before them: x"),
        ({"x": DATA.row.str.lower()}, ["row", "x"], ["rail"], r"aliased with those before them: x\[T.b1\], x\[T.b2\]"),
        ({"x": [np.nan, *range(17)]}, ["x"], ["rail"], "column 'x' has 1 missing or infinite numbers"),
        ({"x": 3 * DATA.y}, ["x"], ["rail"], "the fixed effects fit every row exactly"),
        ({"y": DATA.groupby("rail").y.transform("mean")}, [], ["rail"], "the residual variance is 0"),
        ({"residual": DATA.rail}, [], ["residual"], "random term 'residual': rename the column"),
    ],
)
def test_refusals(change, fixed, random, message):
    with pytest.raises(StudyError, match=message):
        variance_components(DATA.assign(**change), "y", fixed, random)


def test_refusals_of_frames():
    with pytest.raises(StudyError, match="'rail' is in the index, not a column: use frame"):
        variance_components(DATA.set_index("rail"), "y", [], ["rail"])
    with pytest.raises(StudyError, match="2 columns are called 'y'"):
        variance_components(pd.concat([DATA, DATA[["y"]]], axis=1), "y", [], ["rail"])
    with pytest.raises(StudyError, match="method 'remml' is none of reml, ml, ems"):
        variance_components(DATA, "y", [], ["rail"], "remml")


def test_no_residual_degrees_of_freedom_without_one_row_a_level():
    """Every term has several rows in some level; together they fit all fifteen."""
    frame = pd.DataFrame({"a": list("322000411412402"), "b": list("013434244031211"), "c": list("304200300224023")})
    frame["y"] = [6, -8.2, -12.3, -4.4, -12.6, -4.3, -15.9, 14.3, 14.3, 7.8, -0.8, -8, -15.7, 0.4, -7.8]
    frame["x"] = list("777156545544223")
    with pytest.raises(StudyError, match="the residual variance is 0: the fixed and random terms fit every row"):
        variance_components(frame, "y", ["x"], ["a", "a:b", "a:c"])


@pytest.mark.parametrize(
    ("frame", "fixed", "random", "message"),
    [
        (DATA.iloc[1:], [], ["rail"], "not balanced: levels of 'rail' have 2 to 3 rows.*use method='reml'"),
        (DATA.assign(x=range(18)), ["x"], ["rail"], "need factors, and 'x' is numeric"),
        (
            pd.DataFrame({"a": list("aabbaabb"), "b": list("xxyyxyxy"), "y": range(8)}),
            [],
            ["a", "b"],
            "'a' and 'b' are neither nested nor crossed",
        ),
        (world(), [], ["organism:shift", "organism:selector"], "share differences between 6 groups of rows"),
    ],
)
def test_refusals_of_expected_mean_squares(frame, fixed, random, message):
    with pytest.raises(StudyError, match=message):
        variance_components(frame, "y", fixed, random, "ems")
