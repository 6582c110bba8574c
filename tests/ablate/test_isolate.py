"""Methods from their study to what is said: run on the tabular laboratory, where the clean view is honest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from laboratory import cube_of, run, study, with_plugins

from ablate import api
from ablate.errors import StudyError
from ablate.findings import Findings, find, frame_of
from ablate.options import Analysis
from ablate.summary import rendered

TEXT = """\
question: which mechanism of a method does it?
model: tabular
organism: {behavior: tabular, seeds: 6, examples: 32}
factors: FACTORS
labels: {prompts: 12, candidates: 3}
train: {epochs: 2, batch: 4, lr: 0.002}
evaluate: {items: 12, capability: 4}
measures: [risk, capability]
"""
METHODS = "[cleaned, greedy_self_training]"
FACTORS = {"isolate": f"{{isolate: {METHODS}}}", "method": f"{{method: {{swap: {METHODS}}}}}"}


def cleaned() -> api.Method:
    """Any of the answers to the clean view: all of its effect is that of the label shift."""
    return api.Method("clean_view", "random")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A finished study that takes two methods apart, and one that runs them as a whole; do not write there."""
    made = {word: tmp_path_factory.mktemp(word) / word for word in FACTORS}
    with with_plugins(lambda: api.method(cleaned)):
        for word, factors in FACTORS.items():
            run(study(text=TEXT.replace("FACTORS", factors), name=word), made[word])
        yield made


@pytest.fixture(scope="module")
def cubes(folders: dict[str, Path]) -> dict[str, xr.DataTree]:
    """Their cubes."""
    return {word: cube_of(folder) for word, folder in folders.items()}


@pytest.fixture(scope="module")
def found(cubes: dict[str, xr.DataTree]) -> dict[str, Findings]:
    """What their cubes say."""
    return {word: find(cube, Analysis()) for word, cube in cubes.items()}


def test_the_effect_of_a_clean_view_is_that_of_its_label_shift(found: dict[str, Findings]) -> None:
    verdict, greedy = found["isolate"].verdicts
    assert (verdict.behavior, verdict.cause) == ("cleaned, tabular", "label_shift")
    rows = found["isolate"].frames["isolate"].query("method == 'cleaned'").set_index("part")
    assert rows.index.tolist() == ["total", "label_shift", "selector", "label_shift x selector"]
    assert rows["level"].tolist() == ["", "clean_view", "random", ""]
    assert rows.loc["total", "high"] < -20
    assert rows.loc["label_shift", "high"] < -20
    assert rows.loc["selector", "low"] < 0 < rows.loc["selector", "high"], "a placebo"
    assert verdict.sentence.startswith(f"cleaned changes tabular by {rows.loc['total', 'effect_pp']:+.1f} pp [")
    assert ", of which the label shift clean_view -" in verdict.sentence
    assert " label_shift: the label shift changes tabular (label_shift none -> method " in verdict.sentence
    assert (greedy.behavior, greedy.cause) == ("greedy_self_training, tabular", "undetermined")


def test_the_parts_sum_to_the_total(found: dict[str, Findings]) -> None:
    for _, own in found["isolate"].frames["isolate"].groupby("method"):
        total, alone, averaged, interaction = (
            own.loc[own["kind"] == kind, column].sum()
            for kind, column in (
                ("total", "effect_pp"),
                ("mechanism", "added_pp"),
                ("mechanism", "effect_pp"),
                ("interaction", "effect_pp"),
            )
        )
        assert averaged == pytest.approx(total, abs=1e-12)
        assert alone + interaction == pytest.approx(total, abs=1e-12)


def test_a_mechanism_that_a_method_lacks_is_the_same_run(
    cubes: dict[str, xr.DataTree], found: dict[str, Findings]
) -> None:
    """Greedy self-training selects nothing: its runs with the selector on are those with it off."""
    root = cubes["isolate"].to_dataset().sel(method_name="greedy_self_training")
    off, on = (root.sel(selector=level) for level in ("first", "method"))
    for name in ("key_pool", "key_labels", "key_train", "risk_delta"):
        np.testing.assert_array_equal(off[name], on[name])
    table = found["isolate"].frames["isolate"].query("method == 'greedy_self_training'")
    assert table["part"].tolist() == ["total", "label_shift", "objective", "label_shift x objective"]


def test_a_whole_method_moves_as_much_as_its_mechanisms_together(found: dict[str, Findings]) -> None:
    """With as many candidates as the study has, the null control is the cell in which every mechanism is off."""
    whole, apart = (found[word].frames["methods"].iloc[0].drop("p_adjusted") for word in ("method", "isolate"))
    pd.testing.assert_series_equal(whole, apart)


def test_methods_that_run_as_a_whole_have_no_cause(found: dict[str, Findings]) -> None:
    assert [verdict.cause for verdict in found["method"].verdicts] == ["undetermined"] * 2
    assert found["method"].refused["isolate"].startswith("tabular: methods were run as a whole, ")
    with pytest.raises(StudyError, match=r"^the study compares no methods; name some under `method` or `isolate` "):
        frame_of(xr.DataTree(xr.Dataset()), "isolate")


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (
            "isolate",
            "method | part | effect, pp | p (max-T) | added to nothing, pp | removed from all, pp | organisms",
        ),
        ("methods", "method | effect, pp | p (max-T) | capability, pp | organisms"),
    ],
)
def test_tables_lie_in_the_folder_in_every_format(
    folders: dict[str, Path], cubes: dict[str, xr.DataTree], found: dict[str, Findings], kind: str, headers: str
) -> None:
    frame, tables = found["isolate"].frames[kind], folders["isolate"] / "tables"
    text = {suffix: (tables / f"{kind}.{suffix}").read_text() for suffix in ("md", "tex", "csv")}
    assert text["md"] == rendered(cubes["isolate"], frame, "md")
    assert text["tex"] == rendered(cubes["isolate"], frame, "latex")
    assert r"\begin{tabular}" in text["tex"]
    lines = text["md"].splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == headers.split(" | ")
    rows = [line for line in lines[2:] if line.startswith("| ")]
    assert len(rows) == len(frame)
    for row, (_, numbers) in zip(rows, frame.iterrows(), strict=True):
        assert row.startswith(f"| {numbers.method}")
        if not np.isnan(numbers.low):
            assert f"| {numbers.effect_pp:+.1f} [{numbers.low:+.1f}, {numbers.high:+.1f}]" in row
    read = pd.read_csv(io.StringIO(text["csv"]), comment="#")
    assert len(read) == len(frame)
    np.testing.assert_allclose(read["effect_pp"], frame["effect_pp"])
    assert not (folders["method"] / "tables" / "isolate.md").exists()


def said(folder: Path) -> list[str]:
    """The lines of a summary, with single spaces."""
    return [" ".join(line.split()) for line in (folder / "summary.txt").read_text().splitlines()]


def p_equals(p: float) -> str:
    return f"p = {p:.3f}".replace("0.", ".").replace("1.000", "1")


def test_the_summary_has_a_line_for_each_method(folders: dict[str, Path], found: dict[str, Findings]) -> None:
    lines = said(folders["method"])
    for _, row in found["method"].frames["methods"].iterrows():
        effect = f"{row.effect_pp:+.1f} pp [{row.low:+.1f}, {row.high:+.1f}]"
        assert f"{row.method} tabular {effect} {p_equals(row.p_adjusted)} (max-T)" in lines
        assert any(line.startswith(f"VERDICT {row.method}, tabular: undetermined: the effect of ") for line in lines)
    assert not any(line.startswith("no shares") for line in lines)


def test_the_summary_has_a_line_for_each_mechanism(folders: dict[str, Path], found: dict[str, Findings]) -> None:
    lines = said(folders["isolate"])
    for _, row in found["isolate"].frames["isolate"].iterrows():
        effect = f"{row.effect_pp:+.1f} pp [{row.low:+.1f}, {row.high:+.1f}] {p_equals(row.p_adjusted)}"
        if row.kind == "total":
            assert f"{row.method} on tabular: {effect}; its parts" in lines
            said_of = (f"VERDICT {row.method}, tabular: {row.method} changes tabular by ",
                       f"VERDICT {row.method}, tabular: No effect of {row.method} on tabular is shown (")  # fmt: skip
            assert any(line.startswith(said_of) for line in lines)
        elif row.kind == "mechanism" and row.part != "objective":
            alone = f"{row.added_pp:+.1f} [{row.added_low:+.1f}, {row.added_high:+.1f}]"
            assert f"{row.part} {row.level} alone {alone} order-free {effect} (max-T)" in lines
    assert any(line.startswith("null control tabular ") for line in lines)
    assert not any(line.startswith("no shares") for line in lines)


def test_what_was_found_lies_in_the_cube(cubes: dict[str, xr.DataTree], found: dict[str, Findings]) -> None:
    stored = cubes["isolate"]["/analysis/verdict"].to_dataset()
    assert stored["cause"].values.tolist() == ["label_shift", "undetermined"]
    assert [str(name) for name in stored["behavior"].values] == ["cleaned, tabular", "greedy_self_training, tabular"]
    removed = cubes["isolate"]["/analysis/isolate"]["removed_pp"]
    np.testing.assert_array_equal(removed.values, found["isolate"].frames["isolate"]["removed_pp"])
    own = cubes["isolate"].to_dataset().sel(method_name="cleaned")
    assert [str(own[f"method_{name}"].values) for name in ("label_shift", "selector", "objective")] == [
        "clean_view",
        "random",
        "sft",
    ]
