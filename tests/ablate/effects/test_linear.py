"""Sums of squares and within-subject tests: certified values, statsmodels, pingouin, and every refusal."""

from pathlib import Path

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.anova import AnovaRM, anova_lm

from ablate.effects.linear import anova, ss
from ablate.errors import StudyError

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "reference"
published = pytest.mark.skipif(not REFERENCE.exists(), reason="the reference values are not beside the repository")

COLUMNS = ["ss", "df", "ms", "F", "p"]


def nist(name):
    lines = (REFERENCE / name).read_text().splitlines()[60:]
    return pd.DataFrame([line.split() for line in lines], columns=["t", "text"]).assign(
        y=lambda f: f.text.astype(float)
    )


def factorial(seed=0, rows=120):
    """Unbalanced, every cell filled: 2 x 3 x 4."""
    rng = np.random.default_rng(seed)
    cells = pd.MultiIndex.from_product([list("uv"), [1, 2, 3], list("wxyz")], names=list("abc")).to_frame(index=False)
    frame = pd.concat([cells, cells.sample(rows - 24, replace=True, random_state=seed)], ignore_index=True)
    return frame.assign(y=rng.normal(size=rows) + 0.5 * frame.b * (frame.a == "u") + (frame.c == "z"))


def within(seed=0, subjects=7, levels=(2, 3, 4)):
    rng = np.random.default_rng(seed)
    names = ["s", *"abc"[: len(levels)]]
    frame = pd.MultiIndex.from_product(map(range, (subjects, *levels)), names=names).to_frame(index=False)
    y = rng.normal(0, 2, subjects)[frame.s] + rng.normal(0, 1, (subjects, levels[0]))[frame.s, frame.a]
    return frame.assign(y=y + 0.7 * frame.a + rng.normal(size=len(frame)))


# Sums of squares


@published
@pytest.mark.parametrize(
    ("name", "between", "inside", "f"),
    [
        ("SmLs01.dat", 1.68, 1.8, 21.0),
        ("SiRstv.dat", 5.11462616000000e-02, 2.16636560000000e-01, 1.18046237440255),
    ],
)
def test_nist_certified_values(name, between, inside, f):
    table = ss(nist(name), "y", ["t"])
    assert table.F[0] == pytest.approx(f, rel=5e-15)
    assert table.ss.to_numpy() == pytest.approx([between, inside], rel=5e-15)


@published
@pytest.mark.parametrize("leading", [10**6, 10**9, 10**12])
@pytest.mark.parametrize("type", [1, 2, 3])
def test_constant_leading_digits_cost_nothing(leading, type):
    """NIST's SmLs04 and SmLs07 are SmLs01 behind 7 and 13 constant digits: the certified F is 21 for all of them."""
    frame = nist("SmLs01.dat")
    far = [float(f"{leading + int(text[0])}{text[1:]}") for text in frame.text]
    table = ss(frame.assign(y=far), "y", ["t"], type)
    assert table.F[0] == pytest.approx(21.0, rel=5e-15)
    assert table.ss.to_numpy() == pytest.approx([1.68, 1.8], rel=5e-15)


@published
@pytest.mark.parametrize(
    ("type", "squares"),
    [
        (1, [3133.238506, 418.833741, 707.266259]),
        (2, [3063.432863, 418.833741, 707.266259]),
        (3, [2997.471860, 415.873046, 707.266259]),
    ],
)
def test_sas_drug_and_disease(type, squares):
    table = ss(pd.read_csv(REFERENCE / "sas_glm_drug_disease.csv"), "y", ["drug", "disease"], type)
    assert table.term.tolist() == ["drug", "disease", "drug:disease", "error"]
    assert table.ss.to_numpy() == pytest.approx([*squares, 5080.816667], abs=5e-7)
    assert table.df.tolist() == [3, 2, 6, 46]


@pytest.mark.parametrize("type", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_statsmodels_three_factors(type, seed):
    frame = factorial(seed)
    table = ss(frame, "y", ["a", "b", "c"], type)
    model = smf.ols("y ~ C(a, Sum) * C(b, Sum) * C(c, Sum)", frame).fit()
    oracle = anova_lm(model, typ=type).drop(index="Intercept", errors="ignore")
    assert table.term.tolist() == ["a", "b", "c", "a:b", "a:c", "b:c", "a:b:c", "error"]
    assert table.ss.to_numpy() == pytest.approx(oracle.sum_sq.to_numpy(), rel=1e-10)
    assert table.df.to_numpy() == pytest.approx(oracle.df.to_numpy())
    assert table.p[:-1].to_numpy() == pytest.approx(oracle["PR(>F)"].to_numpy()[:-1], rel=1e-9)
    assert table[["F", "p"]].iloc[-1].isna().all()


def test_terms_may_be_chosen():
    frame = factorial(2)
    table = ss(frame, "y", ["b", "a", "c", "b:c"], 2)
    oracle = anova_lm(smf.ols("y ~ C(b) + C(a) + C(c) + C(b):C(c)", frame).fit(), typ=2)
    assert table.term.tolist() == ["b", "a", "c", "b:c", "error"]
    assert table.ss.to_numpy() == pytest.approx(oracle.sum_sq.to_numpy(), rel=1e-10)


def test_types_agree_in_balanced_data():
    frame = factorial(3, rows=24)
    first, second, third = (ss(frame, "y", ["a", "b"], type) for type in (1, 2, 3))
    for other in (second, third):
        assert other[COLUMNS].to_numpy() == pytest.approx(first[COLUMNS].to_numpy(), rel=1e-10, nan_ok=True)
    total = ((frame.y - frame.y.mean()) ** 2).sum()
    assert first.ss.sum() == pytest.approx(total)


def test_type_1_depends_on_the_order_and_adds_up():
    frame = factorial(4)
    ab, ba = ss(frame, "y", ["a", "b"], 1), ss(frame, "y", ["b", "a"], 1)
    assert abs(ab.ss[0] / ba.ss[1] - 1) > 1e-3
    assert ab.ss.sum() == pytest.approx(ba.ss.sum()) == pytest.approx(((frame.y - frame.y.mean()) ** 2).sum())


@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-1e6, 1e6),
    scale=st.floats(1e-3, 1e3),
    type=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=40, deadline=None)
def test_order_names_shift_and_scale(seed, shift, scale, type):
    frame = factorial(5, rows=60)
    base = ss(frame, "y", ["a", "b"], type)
    other = frame.sample(frac=1, random_state=seed)
    other = other.assign(a=other.a.map({"u": 2.5, "v": -1.0}), b=other.b.map({1: "z", 2: "y", 3: "x"}))
    table = ss(other.assign(y=scale * other.y + shift), "y", ["a", "b"], type)
    assert table.ss.to_numpy() / scale**2 == pytest.approx(
        base.ss.to_numpy(), rel=1e-9 * max(1, abs(shift / scale) / 1e4)
    )
    assert table.F[:-1].to_numpy() == pytest.approx(base.F[:-1].to_numpy(), rel=1e-9 * max(1, abs(shift / scale) / 1e4))


def test_empty_cells_leave_types_1_and_2():
    frame = factorial(6).query("not (a == 'u' and b == 2)")
    table = ss(frame, "y", ["a", "b"], 2)
    inside = frame.groupby(["a", "b"]).y.transform(lambda cell: (cell - cell.mean()) ** 2).sum()
    assert table.df.tolist() == [1, 2, 1, len(frame) - 5]
    assert table.ss.iloc[-1] == pytest.approx(inside)
    assert table.ss[2] == pytest.approx(smf.ols("y ~ C(a) + C(b)", frame).fit().ssr - inside)


def test_type_3_names_the_empty_cells_and_what_they_take_away():
    frame = factorial(6).query("not (a == 'u' and c == 'x') and not (a == 'v' and c == 'z')")
    message = (
        r"type 3 needs rows in every cell of a x c, and 2 of 8 have none: u x x, v x z\. "
        r"Not estimable: a at u, v; c at x, z; a:c at u:x, v:z\. Types 1 and 2 do without"
    )
    with pytest.raises(StudyError, match=message):
        ss(frame, "y", ["a", "c"], 3)
    assert np.isfinite(ss(frame, "y", ["a", "c"], 2).F[:-1]).all()


def test_no_error_degrees_of_freedom():
    frame = factorial(7, rows=24)
    table = ss(frame, "y", ["a", "b", "c"], 3)
    assert table.df.tolist()[-1] == 0
    assert table[["F", "p"]].isna().all(axis=None)
    assert table.ss.sum() == pytest.approx(((frame.y - frame.y.mean()) ** 2).sum())


def test_no_variation_within_cells():
    frame = factorial(8).assign(y=lambda f: (f.a == "u") * 0.1 + 0.3)
    table = ss(frame, "y", ["a", "b"], 2)
    assert table.ss.tolist()[1:] == [0.0, 0.0, 0.0]
    assert np.isposinf(table.F[0])
    assert table.p[0] == 0.0
    assert np.isnan(table.F[1])


def test_missing_responses_are_dropped_and_counted():
    frame = factorial(9)
    gaps = frame.assign(y=frame.y.where(frame.index % 9 > 0))
    table = ss(gaps, "y", ["a", "b"], 3)
    assert table.ss.to_numpy() == pytest.approx(ss(gaps.dropna(), "y", ["a", "b"], 3).ss.to_numpy())
    assert table.attrs == {"type": 3, "n": gaps.y.notna().sum(), "dropped": gaps.y.isna().sum()}


@pytest.mark.parametrize(
    ("change", "factors", "type", "message"),
    [
        ({}, ["a"], 4, "type 4 is none of 1, 2, 3"),
        ({}, [], 1, "factors: name at least one"),
        ({}, ["a", "k"], 1, "no column 'k'"),
        ({}, ["a", "a"], 1, "term 'a' is there twice"),
        ({}, ["a", "a:b"], 1, "'a:b' contains 'b', which is not among the terms"),
        ({"a": "u"}, ["a", "b"], 2, r"factor 'a' has one level \('u'\)"),
        ({"y": 3.0}, ["a"], 1, r"response 'y' is constant \(3 in all 120 rows\)"),
        ({"y": np.nan}, ["a"], 1, "response 'y' has no value in any of 120 rows"),
        ({"y": "high"}, ["a"], 1, "column 'y' must hold numbers, not string"),
    ],
)
def test_refusals_of_ss(change, factors, type, message):
    with pytest.raises(StudyError, match=message):
        ss(factorial().assign(**change), "y", factors, type)


def test_a_term_without_rows_of_its_own_is_refused():
    frame = factorial().query("a == 'u' or b == 1")
    with pytest.raises(StudyError, match="'a:b' cannot be told from the terms before it: too many cells are empty"):
        ss(frame, "y", ["a", "b"], 2)


# Within subjects


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_pingouin(names):
    frame = within(1, levels=(2, 3, 4)[: len(names)])
    table = anova(frame, "y", names, "s")
    oracle = pg.rm_anova(frame, dv="y", within=names, subject="s", detailed=True)[: len(table)]
    first, second = ("DF", None) if len(names) == 1 else ("ddof1", "ddof2")
    assert table.ss.to_numpy() == pytest.approx(oracle["SS"].to_numpy(float), rel=1e-10)
    assert table.df.tolist() == oracle[first].tolist()
    assert second is None or table.error_df.tolist() == oracle[second].tolist()
    for mine, theirs in {"ms": "MS", "F": "F", "p": "p_unc", "ges": "ng2"}.items():
        assert table[mine].to_numpy() == pytest.approx(oracle[theirs].to_numpy(float), rel=1e-9)


def test_pingouin_own_data():
    frame = pg.read_dataset("rm_anova")
    names = ["Disgustingness", "Frighteningness"]
    frame = frame.groupby("Subject").filter(lambda rows: rows.DesireToKill.notna().sum() == 4)
    table = anova(frame, "DesireToKill", names, "Subject")
    oracle = pg.rm_anova(frame, dv="DesireToKill", within=names, subject="Subject")
    assert table.F.to_numpy() == pytest.approx(oracle.F.to_numpy(), rel=1e-10)
    assert table.p.to_numpy() == pytest.approx(oracle.p_unc.to_numpy(), rel=1e-10)
    assert table.ges.to_numpy() == pytest.approx(oracle.ng2.to_numpy(), rel=1e-10)


def test_three_factors_equal_statsmodels():
    frame = within(2)
    table = anova(frame, "y", ["a", "b", "c"], "s")
    oracle = AnovaRM(frame, "y", "s", within=["a", "b", "c"]).fit().anova_table
    assert table.term.tolist() == ["a", "b", "c", "a:b", "a:c", "b:c", "a:b:c"]
    assert table[["F", "df", "error_df", "p"]].to_numpy() == pytest.approx(oracle.to_numpy(), rel=1e-9)


def test_effect_sizes_by_hand():
    """One factor: (ss - df ms_E) / (ss_total + ms_S) for omega squared, ss / ss_total for eta squared."""
    frame = within(3, subjects=5, levels=(4,))
    wide = frame.pivot(index="s", columns="a", values="y").to_numpy()
    grand = wide.mean()
    effect = 5 * ((wide.mean(axis=0) - grand) ** 2).sum()
    subject = 4 * ((wide.mean(axis=1) - grand) ** 2).sum()
    total = ((wide - grand) ** 2).sum()
    error = total - effect - subject
    row = anova(frame, "y", ["a"], "s").iloc[0]
    assert row.omega2p == pytest.approx((effect - 3 * error / 12) / (total + subject / 4))
    assert row.ges == pytest.approx(effect / total)
    assert row["F"] == pytest.approx(effect / 3 / (error / 12))


def test_subjects_that_differ_only_in_their_effects_are_the_error():
    """Subjects' own effects are exact, their mean is small: a pooled or a fixed-subject error would be sure of it."""
    frame = within(4, subjects=6, levels=(2,))
    slopes = np.array([-3.0, 2.5, -1.0, 3.5, -2.0, 1.0])
    frame["y"] = slopes[frame.s] * frame.a + 0.001 * np.arange(len(frame))
    row = anova(frame, "y", ["a"], "s").iloc[0]
    assert (row.df, row.error_df) == (1, 5)
    assert row.p > 0.5
    assert row["F"] == pytest.approx(slopes.mean() ** 2 / (slopes.var(ddof=1) / 6), rel=0.05)


@pytest.mark.parametrize("copies", [2, 3])
def test_several_rows_of_one_cell_are_refused(copies):
    """A frame that was joined to itself, and one whose runs have a factor that is not named."""
    frame = within(5, levels=(2, 3))
    message = (
        r"42 of 42 cells of s x a x b have several rows: 0 x 0 x 0, .* and 37 more\. Leave out copies, name the factor "
        r"that tells the rows apart, or average replicates first: frame\.groupby\(\['s', 'a', 'b'\], as_index=False\)"
    )
    with pytest.raises(StudyError, match=message):
        anova(pd.concat([frame] * copies), "y", ["a", "b"], "s")
    with pytest.raises(StudyError, match=r"1 of 42 cells of s x a x b have several rows: 3 x 1 x 2\. Leave"):
        anova(pd.concat([frame, frame[(frame.s == 3) & (frame.a == 1) & (frame.b == 2)]]), "y", ["a", "b"], "s")
    with pytest.raises(StudyError, match="14 of 14 cells of s x a have several rows"):
        anova(frame, "y", ["a"], "s")


def test_a_second_row_without_a_response_is_none():
    frame = within(5, levels=(2, 3))
    table = anova(pd.concat([frame, frame.assign(y=np.nan)]), "y", ["a", "b"], "s")
    pd.testing.assert_frame_equal(table, anova(frame, "y", ["a", "b"], "s"))
    assert table.attrs == {"subjects": 7, "n": 42, "dropped": 42}


@given(seed=st.integers(0, 10**6), shift=st.floats(-1e4, 1e4), names=st.permutations(["c1", "c2", "c3", "c4"]))
@settings(max_examples=25, deadline=None)
def test_within_order_names_and_shift(seed, shift, names):
    frame = within(6, levels=(2, 4))
    base = anova(frame, "y", ["a", "b"], "s")
    other = frame.sample(frac=1, random_state=seed)
    other = other.assign(b=other.b.map(dict(enumerate(names))), s=100 - other.s, y=other.y + shift)
    table = anova(other, "y", ["a", "b"], "s")
    for column in ("ss", "F", "omega2p", "ges"):
        assert table[column].to_numpy() == pytest.approx(base[column].to_numpy(), rel=1e-9, abs=1e-12)


def test_a_missing_response_is_as_good_as_a_missing_row():
    frame = within(7, levels=(2, 3))
    message = r"1 of 42 cells of s x a x b have no response: 0 x 1 x 0\. Every subject needs every cell"
    for gaps in (frame.assign(y=frame.y.where(frame.index != 3)), frame.drop(index=3)):
        with pytest.raises(StudyError, match=message):
            anova(gaps, "y", ["a", "b"], "s")


@pytest.mark.parametrize(
    ("change", "names", "subject", "message"),
    [
        ({}, [], "s", "within: name at least one factor, and not the subject 's'"),
        ({}, ["s"], "s", "within: name at least one factor, and not the subject 's'"),
        ({}, ["a"], "who", "no column 'who'"),
        ({}, ["a:b"], "s", "no column 'a:b'"),
        ({"s": "only"}, ["a"], "s", "subject 's' has one level: at least 2 subjects are needed"),
        ({"a": 1}, ["a", "b"], "s", r"factor 'a' has one level \('1'\)"),
        ({"y": 0.0}, ["a"], "s", "response 'y' is constant"),
        ({"y": np.nan}, ["a"], "s", "response 'y' has no value"),
        ({"y": -np.inf}, ["a"], "s", "response 'y' is infinite in 168 rows"),
        ({"s": None}, ["a"], "s", "column 's' has no label in 168 of 168 rows"),
    ],
)
def test_refusals_of_anova(change, names, subject, message):
    with pytest.raises(StudyError, match=message):
        anova(within().assign(**change), "y", names, subject)


def test_no_variation_of_effects_between_subjects():
    frame = within(8, levels=(2, 2)).assign(y=lambda f: f.s + 2.0 * f.a)
    table = anova(frame, "y", ["a", "b"], "s")
    assert np.isposinf(table.F[0])
    assert table.p[0] == 0.0
    assert table.F[1:].isna().all()
