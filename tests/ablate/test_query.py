"""The filter language, SQL and renderings, on a synthetic cube with known numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate import query as query_module
from ablate.api import Column
from ablate.cube import Item, Organism, Run, build
from ablate.errors import StudyError
from ablate.query import Condition, column_levels, parquet, parse, query, render, sql

NUCLEUS = "nucleus(temperature=0.7, top_p=0.9)"
AXES: dict[str, list[Any]] = {
    "label_shift": ["none", NUCLEUS, "greedy and clean"],
    "selector": ["majority", "first"],  # not alphabetical: results keep this order
    "objective": ["sft"],
    "labels.candidates": [1, 4],
    "packed": [True, False],
}
COLUMNS = {
    "risk_delta": Column("change of risk", "pp", "higher is worse", "evaluation"),
    "kl_total": Column("KL(s||p)", "nats", "neither", "divergence"),
}


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    """3 organisms x 24 cells; risk_delta = 10 organism + selector, kl_total only for seed 0; organism 2 is invalid."""
    organisms = [Organism("tiny", behavior, seed, {}, 0.5, seed < 2) for seed, behavior in enumerate(["a", "a", "b"])]
    runs = []
    for organism, *labels, seed in itertools.product(range(3), *AXES.values(), [0, 3]):
        point = dict(zip(AXES, labels, strict=True))
        delta = 10.0 * organism + AXES["selector"].index(point["selector"])
        failed = point["label_shift"] == "none" and seed == 3
        runs.append(
            Run(
                organism, point, seed,
                "failed" if failed else "aliased" if point["label_shift"] == NUCLEUS else "ok",
                {} if failed else {"risk_delta": delta, "kl_total": 0.5 if seed == 0 else math.nan},
                np.array([0.0, 1.0], np.float32), None if failed else np.array([0.25, np.nan], np.float32),
                {"pool": f"hash{organism}"}, "it \x1b[31mbroke" if failed else "",
            )
        )  # fmt: skip
    items = [[Item("x", "risk", "in", "x"), Item("y", "capability", "in", "y")]] * 3
    return build(organisms, AXES, [0, 3], runs, COLUMNS, items, {"limited": False})


LEVELS: dict[str, Any] = {
    "label_shift": AXES["label_shift"],
    "selector": ["first", "majority", "first, then majority"],
    "seed": [0, 3],
    "lr": [0.0005, 1.0],
    "packed": [True, False],
    "risk_delta": None,
    "key_pool": (),
}


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("selector=first", [("selector", "=", "first")]),
        ("  selector  ==  first  ", [("selector", "=", "first")]),
        ("selector!=first,majority", [("selector", "!=", "first", "majority")]),
        ("selector = first , majority", [("selector", "=", "first", "majority")]),
        ("selector=first, then majority", [("selector", "=", "first, then majority")]),
        (f"label_shift={NUCLEUS}", [("label_shift", "=", NUCLEUS)]),
        ("label_shift=nucleus(temperature=0.7,top_p=0.9),none", [("label_shift", "=", NUCLEUS, "none")]),
        (f"label_shift=none,{NUCLEUS} and seed<3", [("label_shift", "=", "none", NUCLEUS), ("seed", "<", 3.0)]),
        ("label_shift=greedy and clean and seed=3", [("label_shift", "=", "greedy and clean"), ("seed", "=", 3)]),
        ("risk_delta<=-1.5e1 AND risk_delta>-20", [("risk_delta", "<=", -15.0), ("risk_delta", ">", -20.0)]),
        ("risk_delta>=0", [("risk_delta", ">=", 0.0)]),
        ("lr=5e-4,1", [("lr", "=", 0.0005, 1.0)]),
        ("packed=true", [("packed", "=", True)]),
        ("packed!=0", [("packed", "!=", False)]),
        ("key_pool=9f8e7d", [("key_pool", "=", "9f8e7d")]),
    ],
)
def test_conditions(text: str, conditions: list[tuple[Any, ...]]) -> None:
    found = [(condition.column, condition.operator, *condition.values) for condition in parse(text, LEVELS)]
    assert found == conditions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "where: cannot read ''; write name=value, name!=value or name<number"),
        ("selector", "where: cannot read 'selector'; write"),
        ("=first", "where: cannot read '=first'; write"),
        ("selector=first and ", "no level of selector called 'first and'"),
        (
            "selctor=first",
            "no column called 'selctor'; did you mean 'selector'? (columns: label_shift, selector, seed,",
        ),
        ("selector=frist", "no level of selector called 'frist'; did you mean 'first'? (levels: first, majority,"),
        ("selector=first,", "no level of selector called '' (levels:"),
        (
            "label_shift=nucleus(temperature=0.9, top_p=0.9)",
            "no level of label_shift called 'nucleus(temperature=0.9, t",
        ),
        ("label_shift=nucleus(temperature", "no level of label_shift called 'nucleus(temperature'"),
        ("seed=1", "no level of seed called '1' (levels: 0, 3)"),
        ("seed=nan", "no level of seed called 'nan' (levels: 0, 3)"),
        ("packed=maybe", "no level of packed called 'maybe' (levels: true, false)"),
        ("risk_delta=low", "where: risk_delta is compared to numbers, and 'low' is none"),
        ("risk_delta>nan", "where: risk_delta is compared to numbers, and 'nan' is none"),
        ("risk_delta<1,2", "where: risk_delta < takes one number, not 1, 2"),
        ("selector<first", "where: 'selector' is no number; it takes = and !=, not <"),
        ("packed>0", "where: 'packed' is no number; it takes = and !=, not >"),
        ("key_pool>=a", "where: 'key_pool' is no number; it takes = and !=, not >="),
        ("selector=first or seed=3", "no level of selector called 'first or seed=3'"),
        ("__import__('os').system('true')", "where: cannot read"),
    ],
)
def test_conditions_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        parse(text, LEVELS)
    assert str(error.value).startswith(message)


WORDS = st.sampled_from(
    [*LEVELS, *AXES["label_shift"], "first", "=", "!=", "<", " and ", ",", "(", ")", " ", "3", "nan"]
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=12).map("".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        conditions = parse(text, LEVELS)
    except StudyError:
        return
    assert conditions
    for condition in conditions:
        own = LEVELS[condition.column]
        assert condition.values
        if condition.operator in ("=", "!=") and own:
            assert set(condition.values) <= set(own)


@given(st.lists(st.sampled_from(LEVELS["label_shift"]), min_size=1), st.lists(st.sampled_from([0, 3]), min_size=1))
def test_what_is_written_is_what_is_read(shifts: list[str], seeds: list[int]) -> None:
    text = f"label_shift={', '.join(shifts)} and seed={','.join(map(str, seeds))}"
    assert parse(text, LEVELS) == [
        Condition("label_shift", "=", tuple(shifts)),
        Condition("seed", "=", tuple(seeds)),
    ]


def test_an_error_does_not_list_thousands_of_names() -> None:
    with pytest.raises(StudyError, match=r"level39, and 960 more\)$"):
        parse("many=no", {"many": [f"level{number}" for number in range(1000)]})


def test_levels_of_a_cube(tree: xr.DataTree) -> None:
    levels = column_levels(tree)
    assert levels["selector"] == ["majority", "first"]
    assert levels["packed"] == [True, False]
    assert levels["behavior"] == ["a", "b"]
    assert levels["status"] == ("missing", "ok", "failed", "blocked", "aliased")
    assert levels["risk_delta"] is levels["organism_risk"] is None
    assert levels["key_pool"] == levels["error"] == ()


def test_query_groups_in_the_order_of_the_levels(tree: xr.DataTree) -> None:
    result = query(tree, ["behavior=a"], ["label_shift", "selector"], ["risk_delta", "kl_total"])
    assert list(result) == [
        "label_shift", "selector", "n", "organisms", "risk_delta_mean", "risk_delta_sd", "kl_total_mean", "kl_total_sd",
    ]  # fmt: skip
    assert result["label_shift"].tolist() == [level for level in AXES["label_shift"] for _ in range(2)]
    assert result["selector"].tolist() == ["majority", "first"] * 3
    assert result["n"].tolist() == [8, 8, 16, 16, 16, 16]  # at `none` seed 3 failed
    assert result["organisms"].tolist() == [2] * 6
    assert result["risk_delta_mean"].tolist() == [5.0, 6.0] * 3
    values = np.repeat([0.0, 10.0], [8, 8])
    assert result["risk_delta_sd"].tolist()[2] == pytest.approx(np.std(values, ddof=1))  # numpy
    assert result["kl_total_mean"].tolist() == [0.5] * 6
    assert result.attrs == {"excluded": 0, "missing": {"risk_delta": 0, "kl_total": 32}}


@pytest.mark.parametrize(
    ("where", "n", "organisms", "excluded"),
    [
        ([], 80, 2, 40),
        (["selector=first"], 40, 2, 20),
        (["selector=first", "packed=true"], 20, 2, 10),
        (["selector=first and packed=true"], 20, 2, 10),
        (["valid_organism=true"], 80, 2, 0),
        (["valid_organism=false"], 40, 1, 0),
        (["valid_organism=0,1"], 120, 3, 0),
        (["status=aliased"], 32, 2, 16),
        (["status=failed"], 16, 2, 8),
        (["kl_total>0"], 48, 2, 24),
        (["kl_total!=7"], 48, 2, 24),  # a missing number fulfills no condition
        (["kl_total<=0.5"], 48, 2, 24),
        (["labels.candidates>=4"], 40, 2, 20),
        (["labels.candidates<4"], 40, 2, 20),
        (["key_pool=hash1"], 40, 1, 0),
        ([f"label_shift={NUCLEUS}"], 32, 2, 16),
    ],
)
def test_which_runs_count(tree: xr.DataTree, where: list[str], n: int, organisms: int, excluded: int) -> None:
    result = query(tree, where, [], ["risk_delta"])
    assert result[["n", "organisms"]].values.tolist() == [[n, organisms]]
    assert result.attrs["excluded"] == excluded


def test_a_statistic_of_nothing_is_missing(tree: xr.DataTree) -> None:
    result = query(tree, ["status=failed"], ["packed", "labels.candidates"], ["risk_delta"], "median")
    assert result["packed"].tolist() == [True, True, False, False]
    assert result["labels.candidates"].tolist() == [1, 4, 1, 4]
    assert result["risk_delta_median"].isna().all()
    assert result.attrs["missing"] == {"risk_delta": 16}
    assert query(tree, ["risk_delta>1000"], ["selector"], ["risk_delta"]).empty
    assert query(tree, ["risk_delta>1000"], [], ["risk_delta"]).empty


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], ["selctor"], []), "no column called 'selctor'; did you mean 'selector'? (columns: organism, behavior,"),
        (([], [], ["risk_delt"]), "no column called 'risk_delt'; did you mean 'risk_delta'?"),
        (
            ([], ["selector"], ["label_shift"]),
            "value: 'label_shift' is no number (numbers: calibrated, organism_risk, organism_unparsed, kl_total, risk",
        ),
        (([], [], ["key_pool"]), "value: 'key_pool' is no number"),
        (([], [], ["packed"]), "value: 'packed' is no number"),
        (([], ["seed"], ["seed"]), "'seed' is named twice in by and value"),
        (([], [], [], "meen"), "no stat called 'meen'; did you mean 'mean'? (stats: mean, median, min, max)"),
        ((["selector=first"], ["organisms"], []), "no column called 'organisms'; did you mean 'organism'?"),
    ],
)
def test_questions_that_have_no_answer(tree: xr.DataTree, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(StudyError) as error:
        query(tree, *arguments)
    assert str(error.value).startswith(message)


def test_an_option_with_the_name_of_a_result_is_refused() -> None:
    axes = {"label_shift": ["none"], "selector": ["first"], "objective": ["sft"], "n": [1, 2]}
    small = build([Organism("m", "b", 0, {}, 0.5, True)], axes, [0], [], {}, [[]], {"limited": True})
    with pytest.raises(StudyError, match="by: the result has its own column 'n'; use --sql"):
        query(small, [], ["n"], [])


def test_sql_over_runs_and_items(tree: xr.DataTree) -> None:
    answer = sql(
        tree,
        "select selector, count(*) as n, count(kl_total) as judged, avg(risk_delta) as mean from runs "
        "where status in ('ok', 'aliased') and valid_organism group by 1 order by 1",
    )
    assert answer.values.tolist() == [["first", 40, 24, 6.0], ["majority", 40, 24, 5.0]]
    answer = sql(
        tree, 'select kind, avg(outcome_after) m, count(*) n from ITEMS where "labels.candidates" = 4 group by 1'
    )
    assert sorted(map(str, answer["kind"])) == ["capability", "risk"]
    assert answer["n"].tolist() == [72, 72]
    assert answer.set_index("kind")["m"].to_dict() == pytest.approx({"risk": 0.25, "capability": math.nan}, nan_ok=True)


def test_items_are_only_made_where_they_are_asked_for(tree: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tree: xr.DataTree) -> pd.DataFrame:
        raise AssertionError

    monkeypatch.setattr(query_module, "items_frame", refuse)
    assert sql(tree, "select count(*) as n from runs")["n"].tolist() == [144]
    with pytest.raises(AssertionError):
        sql(tree, "select count(*) from items")


SECRET = pd.DataFrame({"token": ["secret"]})


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "select * from sniff_csv('{file}')",
        "copy runs to '{folder}/out.csv'",
        "copy (select 1) to '{folder}/out.parquet'",
        "export database '{folder}/out'",
        "attach '{folder}/out.db'",
        "create table t as select 1; copy t from '{file}'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "set temp_directory = '{folder}'",
        "select getenv('HOME')",
        "select * from SECRET",
        "select * from tree",
    ],
)
def test_sql_reaches_nothing_but_the_cube(tree: xr.DataTree, tmp_path: Path, statement: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("token\nsecret\n")
    with pytest.raises(StudyError, match=r"^sql: ") as error:
        sql(tree, statement.format(file=file, folder=tmp_path))
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.csv"]
    assert file.read_text() == "token\nsecret\n"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("", "sql: the statement is empty"),
        ("-- nothing", "sql: the statement is empty"),
        ("selec 1", 'sql: Parser Error: syntax error at or near "selec"'),
        ("select nope from runs", 'sql: Binder Error: Referenced column "nope" not found in FROM clause!'),
        (
            "select selctor from runs",
            "sql: Binder Error: Referenced column \"selctor\" not found in FROM clause!; did you mean 'selector'?",
        ),
        ("select \x00", "sql: "),
    ],
)
def test_sql_that_is_wrong(tree: xr.DataTree, statement: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        sql(tree, statement)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


FRAME = pd.DataFrame(
    {
        "selector": ["first", "argmax(mean_logprob)", None],
        "n": [72, 8, 10_000],
        "lr": [5e-4, 1.0, 0.1],
        "risk_delta_mean": [-17.9123456, 0.1, math.nan],
        "tiny": [1.5e-9, math.nan, -2e-9],
        "flag": [True, False, True],
    }
)


def test_a_table_is_aligned() -> None:
    assert render(FRAME) == (
        "selector                  n      lr  risk_delta_mean        tiny   flag\n"
        "first                    72  0.0005           -17.91   1.500e-09   True\n"
        "argmax(mean_logprob)      8  1.0000             0.10           -  False\n"
        "-                     10000  0.1000                -  -2.000e-09   True\n"
    )


def test_csv_is_exact() -> None:
    rows = list(csv.DictReader(io.StringIO(render(FRAME, "csv"))))
    assert [row["risk_delta_mean"] for row in rows] == ["-17.9123456", "0.1", ""]
    assert float(rows[0]["tiny"]) == 1.5e-9


def test_parquet_keeps_numbers_and_says_what_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": [1.5, np.nan], "n": [1, 2], "ok": [True, False], "text": ["a'b", None], "mixed": [(1, 2), "z"]}
    )
    (tmp_path / "t.parquet").write_bytes(parquet(frame, "it's 'so'"))
    with duckdb.connect(":memory:") as database:
        read = database.execute(f"select * from '{tmp_path}/t.parquet'").df()
        key, said = database.execute(f"select key, value from parquet_kv_metadata('{tmp_path}/t.parquet')").fetchone()
        texts = database.execute(f"select text, mixed from '{tmp_path}/t.parquet'").fetchall()
    pd.testing.assert_frame_equal(read[["x", "n", "ok"]], frame[["x", "n", "ok"]], check_dtype=False)
    assert texts == [("a'b", "(1, 2)"), (None, "z")]
    assert (key, said) == (b"about", b"it's 'so'")
    assert parquet(frame.iloc[:0])


def test_json_has_null_for_what_is_missing() -> None:
    records = json.loads(render(FRAME, "json"))
    assert records[0] == {
        "selector": "first", "n": 72, "lr": 0.0005, "risk_delta_mean": -17.9123456, "tiny": 1.5e-09, "flag": True,
    }  # fmt: skip
    assert records[2]["selector"] is records[2]["risk_delta_mean"] is records[1]["tiny"] is None


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_whatever_sql_gives_can_be_rendered(tree: xr.DataTree, format: Any) -> None:
    strange = sql(
        tree,
        "select list(kl_total) as l, {'a': 'nan'::double} as s, date '2026-01-02' as d, null as x, 'inf'::double as i, "
        "1.5::decimal(4,2) as c, 'x'::blob as b, interval 3 day as t, sum(seed) as h, [] as e, "
        "null::date as nd, max(packed) as p, max(selector) as m, 1 as m from runs",
    )
    text = render(strange, format)
    assert "2026-01-02" in text
    if format == "json":
        record = json.loads(text)[0]
        assert record["x"] is record["nd"] is record["i"] is None
        assert record["h"] == 216
        assert record["s"] == {"a": None}
        assert record["l"].count(None) > 0


def test_an_empty_answer_and_empty_questions_render(tree: xr.DataTree) -> None:
    empty = query(tree, ["risk_delta>1000"], ["selector"], ["risk_delta"])
    assert render(empty) == "selector  n  organisms  risk_delta_mean  risk_delta_sd\n(no rows)\n"
    assert render(empty, "csv") == "selector,n,organisms,risk_delta_mean,risk_delta_sd\n"
    assert json.loads(render(empty, "json")) == []


def test_text_from_a_model_does_not_steer_the_terminal(tree: xr.DataTree) -> None:
    text = render(sql(tree, "select distinct error from runs where status = 'failed'"))
    assert text == "error\nit \\x1b[31mbroke\n"
    assert render(pd.DataFrame({"a": ["x\ny\u202ez"]})) == "a\nx\\ny\\u202ez\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats()))
def test_any_number_has_a_cell_and_a_null_or_itself(values: list[float]) -> None:
    frame = pd.DataFrame({"x": np.array(values, float)})
    cells = render(frame).splitlines()[1:]
    for value, cell in zip(values, cells, strict=False):
        assert (cell.strip() == "-") == math.isnan(value)
    finite = [value if math.isfinite(value) else None for value in values]
    assert [record["x"] for record in json.loads(render(frame, "json"))] == finite


def test_sql_and_its_names_do_not_steer_a_terminal(tree: xr.DataTree) -> None:
    assert render(sql(tree, 'select 1 as "\x1b[31mred"')).splitlines()[0] == r"\x1b[31mred"
    with pytest.raises(StudyError, match="sql: the statement is not UTF-8"):
        sql(tree, "select '\udcff'")
