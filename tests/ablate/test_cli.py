"""The command line as a person meets it: every command, its exit code, and where its words go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from laboratory import SMALL, WHOLE, cube_of

from ablate import cli, registry
from ablate.cli import main
from ablate.cli.app import fitted
from ablate.reports.figures import KINDS as FIGURES
from ablate.version import __version__

COMMANDS = (
    "study",
    "isolate",
    "plan",
    "predict",
    "calibrate",
    "status",
    "table",
    "report",
    "view",
    "figure",
    "query",
    "import",
    "compare",
    "export",
    "list",
    "schema",
    "new",
)


class Said:
    """The exit code and the words of a command."""

    def __init__(self, code: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.code = code
        self.out, self.err = capsys.readouterr()


@pytest.fixture
def ablate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls the command in an empty folder that holds small.yaml and whole.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "whole.yaml").write_text(WHOLE)

    def call(*words: object) -> Said:
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        return Said(exit_.value.code, capsys)

    return call


# Help


def test_help_names_every_command(ablate: Any) -> None:
    said = ablate("--help")
    assert (said.code, said.err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in said.out
    assert "Begin with: ablate study smoke.yaml" in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(ablate: Any, command: str) -> None:
    said = ablate(command, "--help")
    assert said.code == 0
    assert f"Example: ablate {command}" in said.out


def test_version(ablate: Any) -> None:
    assert ablate("--version").out == f"ablate {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stduy", "small.yaml"], "No such command 'stduy'"),
        (["plan"], "Missing argument 'STUDY'"),
        (["table", "runs/x", "--format", "pdf"], "'pdf' is not one of 'md', 'latex', 'html', 'csv', 'parquet'"),
        (["study", "small.yaml", "--limit", "0"], "greater than or equal to 1"),
        (["plan", "small.yaml", "--no-such"], "No such option"),
    ],
)
def test_a_command_that_cannot_be_read_exits_2(ablate: Any, words: list[str], says: str) -> None:
    said = ablate(*words)
    assert said.code == 2
    assert says in said.err
    assert "Traceback" not in said.err


# Plan


def test_plan_in_words(ablate: Any) -> None:
    said = ablate("plan", "whole.yaml")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "whole: does the engine work?"
    assert [" ".join(line.split()) for line in lines[1:6]] == [
        "model tabular (fixed)",
        "organism tabular, 6 organisms (random unit)",
        "label_shift none | greedy | clean_view (swapped)",
        "selector first | majority | argmax(mean_logprob) (swapped)",
        "objective sft (fixed)",
    ]
    assert "54 runs from 6 organisms, 18 pools, 24 score sets, 66 label sets, at most 66 trainings" in lines
    assert "  held fixed by sharing: every selector reads the same pool (18 pools, not 54)" in lines
    assert "  pool            18       0      54" in lines
    assert any(line.startswith("  cached 0, to run 337 stages, time unknown") for line in lines)
    assert any(line.startswith("  5% verdict attainable: yes") for line in lines)
    assert not Path("runs").exists(), "planning writes nothing"


def test_plan_as_data(ablate: Any, whole: Path) -> None:
    found = json.loads(ablate("plan", "whole.yaml", "--json").out)
    assert (found["runs"], found["organisms"], found["wall_s"]) == (54, 6, None)
    assert found["stages"]["pool"] == {"needed": 18, "cached": 0, "to_run": 18, "shared": 54}
    assert found["controls"] == {"null": 6, "oracle_aligned": 6, "oracle_misaligned": 6}
    found = json.loads(ablate("plan", "whole.yaml", "--json", "--out", whole).out)
    assert found["stages"]["pool"] == {"needed": 18, "cached": 18, "to_run": 0, "shared": 54}
    assert all(stage["to_run"] == 0 for stage in found["stages"].values()), "aliased trainings are not to be run"
    assert found["wall_s"] >= 0, "the journal has timings"
    assert found["timings"] > 300


@pytest.mark.parametrize(
    ("factors", "design"),
    [
        (
            "factors.method={swap: [self_certainty, bct]}",
            [
                "label_shift method (fixed)",
                "selector method (fixed)",
                "objective method (fixed)",
                "method self_certainty | bct (swapped)",
            ],
        ),
        (
            "factors.isolate=[self_certainty, bct]",
            [
                "label_shift none | method (swapped)",
                "selector first | method (swapped)",
                "objective sft | method (swapped)",
                "method self_certainty | bct (swapped)",
            ],
        ),
    ],
    ids=["as a whole", "taken apart"],
)
def test_plan_of_methods(ablate: Any, factors: str, design: list[str]) -> None:
    Path("mine.yaml").write_text("question: why?\nmodel: tabular\norganism: {behavior: tabular, seeds: 2}\n")
    said = ablate("plan", "mine.yaml", "--set", factors)
    assert (said.code, said.err) == (0, "")
    assert [" ".join(line.split()) for line in said.out.splitlines()[3:7]] == design


def test_plan_with_options_set(ablate: Any) -> None:
    found = json.loads(
        ablate("plan", "small.yaml", "--json", "--set", "organism.seeds=4", "--set", "train.epochs={swap: [1, 2]}").out
    )
    assert (found["runs"], found["organisms"]) == (4 * 2 * 2 * 2, 4)
    assert {"path": "train.epochs", "levels": [1, 2], "role": "swapped"} in found["design"]


def test_an_option_set_wrongly_says_where(ablate: Any) -> None:
    said = ablate("plan", "small.yaml", "--set", "labels.promts=3", "--set", "seeds=0")
    assert (said.code, said.out) == (2, "")
    assert "labels.promts" in said.err
    assert "did you mean 'prompts'?" in said.err
    assert said.err.endswith("2 mistakes, nothing was run or written.\n")


def test_a_study_that_is_not_there(ablate: Any) -> None:
    said = ablate("study", "smokee.yaml")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(
        "smokee.yaml: no such file, and no study of that name is shipped; did you mean 'smoke'? (shipped: "
    )


# Study and status


def test_a_study_from_its_file_to_its_folder(ablate: Any) -> None:
    said = ablate("study", "small.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("stages to run: organisms 3, pools ")
    assert "null control" in said.out
    assert "VERDICT  undetermined: no 5% verdict is possible with 2 valid organisms" in said.out
    assert "undetermined: undetermined" not in said.out
    assert said.out.endswith(
        "table   runs/small/tables/fixed.md\nreport  runs/small/report.html\ncube    runs/small/cube.zarr\n"
    )
    again = ablate("study", "small.yaml")
    assert again.code == 0
    assert "nothing to do: the study is finished\n" in again.out
    status = ablate("status", "runs/small")
    assert status.code == 0
    assert status.out.startswith("small: does the engine work?\n  runs  6 ok, 2 aliased\n")
    for kind in ("screen", "organism", "pool", "embed", "scores", "labels", "measure", "train", "evaluate"):
        assert f"\n  {kind:<9} " in status.out


SMALLER = ("model=tabular", "organism.seeds=2", "organism.examples=32", "labels.prompts=12", "evaluate.items=60",
           "evaluate.capability=4", "measures=[risk, capability]")  # fmt: skip


def test_isolate_takes_methods_apart_without_a_file(ablate: Any) -> None:
    sets = [word for item in SMALLER for word in ("--set", item)]
    words = ["isolate", "self_certainty", "dual_decoding: {scorer: mean_logprob}", "--behavior", "tabular", *sets]
    said = ablate(*words)
    assert (said.code, said.err) == (0, "")
    folder = Path("runs/isolate_self_certainty_dual_decoding_scorer_mean_logprob_tabular")
    assert said.out.endswith(
        f"table   {folder}/tables/isolate.md\nreport  {folder}/report.html\ncube    {folder}/cube.zarr\n"
    )
    for method in ("self_certainty", "dual_decoding(scorer=mean_logprob)"):
        assert f"VERDICT  {method}, tabular: No effect of {method} on tabular is shown (" in said.out
    assert "undetermined: no 5% verdict is possible with 2 valid organisms" in said.out
    sizes = cube_of(folder).sizes
    assert [sizes[name] for name in ("organism", "label_shift", "selector", "objective", "method_name")] == [2] * 5
    table = ablate("table", folder, "--kind", "isolate")
    assert (table.code, table.err) == (0, "")
    assert "added to nothing, pp" in table.out
    assert ablate("status", folder).out.startswith(f"{folder.name}: is it the label shift, the selector or the ")
    assert "nothing to do: the study is finished\n" in ablate(*words).out


def test_isolate_of_a_method_that_is_not_there(ablate: Any) -> None:
    said = ablate("isolate", "slef_certainty")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "--set factors.isolate=[slef_certainty]: factors.isolate[0]: no method called 'slef_certainty'; did you mean "
        "'self_certainty'? (`ablate list methods`)\n1 mistake, nothing was run or written.\n"
    )
    assert not Path("runs").exists()


def test_out_names_the_folder(ablate: Any) -> None:
    assert ablate("study", "small.yaml", "--out", "here/there").code == 0
    assert Path("here/there/cube.zarr").is_dir()
    assert not Path("runs").exists()
    said = ablate("study", "whole.yaml", "--out", "here/there")
    assert said.code == 2
    assert said.err == "here/there holds study 'small', not 'whole'; choose another folder for 'whole'\n"


def test_a_limited_study_is_marked_and_has_no_verdict(ablate: Any) -> None:
    said = ablate("study", "whole.yaml", "--limit", "4")
    assert said.code == 0
    assert "the study was limited, so its numbers are not a result" in said.out
    folder = Path("runs/whole.limit4")
    tree = cube_of(folder)
    assert tree.attrs["limited"] is True
    assert tree["/analysis/verdict"]["cause"].values.tolist() == ["undetermined"]
    assert (tree["/items"]["kind"].isel(organism=0) == "risk").sum() == 4
    assert "limited" in ablate("table", folder).out.lower()


@pytest.mark.parametrize("command", ["status", "table", "query"])
def test_a_folder_without_a_study(ablate: Any, command: str) -> None:
    said = ablate(command, "nowhere")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("nowhere")
    assert len(said.err.splitlines()) == 1


# Tables and queries


@pytest.mark.parametrize("kind", ["fixed", "shares", "variance", "missing", "price", "stability", "mediation"])
@pytest.mark.parametrize(("format", "begins"), [("md", "| "), ("latex", r"\begin{"), ("csv", "")])
def test_a_table_in_every_format(ablate: Any, whole: Path, kind: str, format: str, begins: str) -> None:
    said = ablate("table", whole, "--kind", kind, "--format", format)
    assert (said.code, said.err) == (0, "")
    assert begins in said.out
    suffix = {"md": "md", "latex": "tex", "csv": "csv"}[format]
    assert said.out == (whole / "tables" / f"{kind}.{suffix}").read_text(), "what the study wrote"
    if kind == "fixed":
        assert "clean_view" in said.out.replace(r"\_", "_")


def test_a_table_as_html(ablate: Any, whole: Path) -> None:
    said = ablate("table", whole, "--format", "html")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith('<figure>\n<table>\n<thead>\n<tr><th scope="col">held fixed</th>')
    assert "label_shift none -&gt; clean_view" in said.out


@pytest.mark.parametrize("words", [["table"], ["query", "--by", "selector"]], ids=str)
def test_parquet_goes_to_a_file(whole: Path, words: list[str], capfdbinary: Any, monkeypatch: Any) -> None:
    command, *more = words
    with pytest.raises(SystemExit):
        main([command, str(whole), *more, "--format", "parquet"])
    out = capfdbinary.readouterr().out
    assert out[:4] == out[-4:] == b"PAR1"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(SystemExit) as refused:
        main([command, str(whole), *more, "--format", "parquet"])
    assert refused.value.code == 2
    assert capfdbinary.readouterr().err.startswith(b"parquet is no text; send it to a file: ")


def test_lines_are_broken_between_words_on_a_terminal_alone(monkeypatch: Any) -> None:
    text = f"VERDICT  {'word ' * 30}[-1.5, +2.5]\n\nlabel_shift     largest: clean_view\n{'x' * 90}"
    monkeypatch.setenv("COLUMNS", "60")
    assert fitted(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = fitted(text).splitlines()
    assert max(len(line) for line in lines if "x" not in line) <= 60
    assert " ".join(fitted(text).split()) == " ".join(text.split())
    assert "label_shift     largest: clean_view" in lines
    assert lines[-1] == "x" * 90


def test_the_caption_states_what_the_numbers_rest_on(ablate: Any, whole: Path) -> None:
    caption = ablate("table", whole).out.splitlines()[-1]
    for fact in ("54 runs", "6 organisms (induction seeds 0-5)", "1 training seed", "12 items", "2 sampled at T = 1",
                 "2^6 sign-flips"):  # fmt: skip
        assert fact in caption


@pytest.mark.parametrize("kind", ["methods", "isolate"])
def test_a_study_without_methods_has_no_table_of_them(ablate: Any, whole: Path, kind: str) -> None:
    said = ablate("table", whole, "--kind", kind)
    assert (said.code, said.out) == (2, "")
    assert said.err == "the study compares no methods; name some under `method` or `isolate` in its factors\n"


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_a_query_in_every_format(ablate: Any, whole: Path, format: str) -> None:
    said = ablate("query", whole, "--where", "label_shift!=greedy", "--by", "label_shift,selector",
                  "--value", "risk_delta,kl_shift", "--format", format)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    if format == "json":
        rows = json.loads(said.out)
        assert len(rows) == 6
        assert rows[0]["n"] == rows[0]["organisms"] == 6
        assert rows[0]["kl_shift_mean"] == pytest.approx(0, abs=1e-12)
        assert rows[-1]["kl_shift_mean"] > 0
    elif format == "csv":
        assert said.out.splitlines()[0].split(",")[:4] == ["label_shift", "selector", "n", "organisms"]
    else:
        assert len(said.out.splitlines()) == 1 + 6


# Figure


def test_every_figure_that_a_study_allows(ablate: Any, small: Path, tmp_path: Path) -> None:
    said = ablate("figure", small, "--out", tmp_path / "here")
    assert (said.code, said.err) == (0, "")
    written = [line.split() for line in said.out.splitlines() if not line.startswith("no ")]
    refused = dict(line[3:].split(": ", 1) for line in said.out.splitlines() if line.startswith("no "))
    assert written[0] == ["interaction", f"{tmp_path / 'here' / 'interaction'}.svg,", ".png,", ".pdf"]
    assert {"organisms", "embedding"} <= {name for name, *_ in written}
    assert (
        refused["scaling"] == "the study does not swap labels.candidates: there is no scaling with their number to draw"
    )
    files = {path.name for path in (tmp_path / "here").iterdir()}
    assert files == {f"{name}.{format}" for name, *_ in written for format in ("svg", "png", "pdf")}
    assert {name for name, *_ in written} | refused.keys() == set(FIGURES)


def test_one_figure_into_the_folder_of_the_study(ablate: Any, small: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(small / "cube.zarr", tmp_path / "copy" / "cube.zarr").parent
    said = ablate("figure", copy, "--kind", "organisms")
    assert (said.code, said.out) == (0, f"organisms    {copy}/figures/organisms.svg, .png, .pdf\n")
    pdf = (copy / "figures" / "organisms.pdf").read_bytes()
    assert ablate("figure", copy / "cube.zarr", "--kind", "organisms").code == 0
    assert (copy / "figures" / "organisms.pdf").read_bytes() == pdf
    assert sorted(path.name for path in copy.iterdir()) == ["cube.zarr", "figures"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kind", "scaling"], "the study does not swap labels.candidates"),
        (["--kind", "methods"], "the study compares no methods"),
        (["--kind", "pie"], "'pie' is not one of 'interaction', 'organisms', 'shares'"),
        (["--kind", "organisms", "--out", "small.yaml"], "small.yaml/organisms.svg cannot be written: File exists"),
    ],
)
def test_a_figure_that_cannot_be_drawn_exits_2(ablate: Any, small: Path, words: list[str], says: str) -> None:
    said = ablate("figure", small, *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert "Traceback" not in said.err


def test_the_kinds_of_the_command_are_those_that_can_be_drawn() -> None:
    kind = typing.get_args(typing.get_type_hints(cli.results.figure, include_extras=True)["kind"])[0]
    assert typing.get_args(typing.get_args(kind)[0]) == FIGURES


def test_a_query_by_a_statistic(ablate: Any, whole: Path) -> None:
    [row] = json.loads(ablate("query", whole, "--stat", "max", "--value", "risk_after", "--format", "json").out)
    assert row["risk_after_max"] == float(cube_of(whole)["risk_after"].max())


def test_sql(ablate: Any, whole: Path) -> None:
    statement = "select selector, count(*) as n from runs group by 1 order by 1"
    rows = json.loads(ablate("query", whole, "--sql", statement, "--format", "json").out)
    assert rows == [{"selector": name, "n": 18} for name in ("argmax(mean_logprob)", "first", "majority")]
    [row] = json.loads(ablate("query", whole, "--sql", "select count(*) as n from items", "--format", "json").out)
    assert row == {"n": 54 * (12 + 4)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--by", "selctor"], "no column called 'selctor'; did you mean 'selector'?"),
        (["--where", "selector=fisrt"], "did you mean 'first'?"),
        (["--sql", "select nothing from runs"], "sql: Binder Error"),
        (["--sql", "copy runs to 'x.csv'"], "sql: Permission Error"),
        (["--value", "error"], "value: 'error' is no number"),
        (["--sql", "select 1", "--by", "selector"], "--sql: takes the place of --where, --by, --value and --stat;"),
    ],
)
def test_a_query_that_cannot_be_answered(ablate: Any, whole: Path, words: list[str], says: str) -> None:
    said = ablate("query", whole, *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert "Traceback" not in said.err


# List, schema, new


def test_list_of_everything_and_of_one_family(ablate: Any) -> None:
    everything = ablate("list").out
    for name in ("behaviors", "label_shifts", "scorers", "selectors", "objectives", "methods", "measures"):
        assert f"{name}\n" in everything
    selectors = ablate("list", "selectors").out
    assert selectors.startswith("selectors\n")
    assert "  argmax(scorer)\n" in selectors
    assert "label_shifts" not in selectors
    assert "  nucleus(temperature=1.0, top_p=0.9)\n" in ablate("list", "label_shifts").out


def test_list_of_methods_is_a_table_of_their_points(ablate: Any) -> None:
    lines = [" ".join(line.split()) for line in ablate("list", "methods").out.splitlines()]
    assert lines[:3] == ["methods", "", "method label shift candidates scorer selector objective"]
    table = lines[3 : lines.index("", 3)]
    assert [line.split()[0] for line in table] == registry.names("method")
    assert "self_certainty nucleus(temperature=0.7) 4 mean_logprob argmax sft(on=all)" in table
    assert "bct none - - first bct(alignment=tail, teacher=live)" in table
    assert "self_certainty(k=4)" in lines[len(table) + 3 :]


def test_a_family_that_is_not_there(ablate: Any) -> None:
    said = ablate("list", "selecters")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("no family called 'selecters'; did you mean 'selectors'?")


def test_schema_is_json_schema(ablate: Any) -> None:
    schema = json.loads(ablate("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "label_shift" in schema["$defs"]["Factors"]["properties"]


def test_a_new_study_can_be_planned_and_is_not_overwritten(ablate: Any) -> None:
    said = ablate("new", "mine")
    assert (said.code, said.out) == (0, "wrote mine.yaml and study.schema.json; next: ablate plan mine.yaml\n")
    assert ablate("plan", "mine.yaml").code == 0
    again = ablate("new", "mine.yaml")
    assert (again.code, again.err) == (2, "mine.yaml is there already; choose another name\n")


def test_a_new_study_in_another_folder_has_its_schema_beside_it(ablate: Any, tmp_path: Path) -> None:
    there = tmp_path / "studies"
    nowhere = ablate("new", str(there / "mine"))
    assert (nowhere.code, nowhere.err) == (2, f"{there}/mine.yaml cannot be written: No such file or directory\n")
    there.mkdir()
    assert ablate("new", str(there / "mine")).code == 0
    assert sorted(path.name for path in there.iterdir()) == ["mine.yaml", "study.schema.json"]


# In a process of its own


def _process(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT there")
def test_interrupted_it_stops_with_130_and_goes_on_later(ablate: Any, tmp_path: Path) -> None:
    journal = tmp_path / "runs" / "whole" / "journal.jsonl"
    # a suite that was started in the background ignores SIGINT, and so would what it starts
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = _process("study", "whole.yaml", cwd=tmp_path, preexec_fn=heard)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped; the same command goes on from here\n")
    assert ablate("status", "runs/whole").code == 0
    said = ablate("study", "whole.yaml")
    assert said.code == 0
    assert " stages are there already\n" in said.out


IMPORTED = """
import sys
from ablate.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = {"torch", "transformers", "peft", "optuna", "sklearn", "xarray", "pandas", "zarr", "duckdb", "matplotlib"}
    print(end.code, *sorted(heavy & {*sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["plan", "small.yaml"], ["list"], ["new", "mine"], ["schema"]])
def test_what_asks_no_model_and_no_cube_imports_none(ablate: Any, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == "0\n"


def test_a_mistake_in_a_process_of_its_own(ablate: Any, tmp_path: Path) -> None:
    process = _process("study", "small.yaml", "--set", "labels.prompts=0", cwd=tmp_path, env={**os.environ})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("--set labels.prompts=0: labels.prompts: 0 is not >= 1")
    assert err.endswith("1 mistake, nothing was run or written.\n")
