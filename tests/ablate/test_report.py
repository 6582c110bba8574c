"""The report of a study's folder: it says what the cube says, and never costs a result."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from laboratory import SMALL, Quiet, cube_of, run, study, unsynced, with_plugins

from ablate import api, cube, report
from ablate.errors import StudyError
from ablate.findings import frame_of
from ablate.proof import proof
from ablate.report import opened, page, write
from ablate.reports.html import LIMIT
from ablate.store import Store
from ablate.summary import rendered, write_figures
from ablate.workflow import label_study, limited


def html_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """What a page says, without its tags and what it embeds."""
    body = re.sub(r"<(script|style).*?</\1>|</?strong>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def rows_of(html: str, section: str) -> list[list[str]]:
    """The cells of the first table body after an id."""
    body = html[html.index(f'id="{section}"') :].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr.*?</tr>", body, re.S)
    return [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.S)] for row in rows
    ]


def cells_of(table: str) -> list[list[str]]:
    """The cells of a table in Markdown."""
    lines = [line.strip("| ").split("|") for line in table.splitlines()[2:] if line.startswith("|")]
    return [[cell.strip().replace("\\", "") for cell in line] for line in lines]


def test_a_study_ends_with_the_report_of_its_cube(whole: Path) -> None:
    html, tree = html_of(whole), cube_of(whole)
    said = text_of(html)
    assert tree["analysis/verdict"]["sentence"].values.item() in said
    for name, detail in zip(*(tree["analysis/gates"][column].values for column in ("name", "detail")), strict=True):
        assert f"{name} yes {detail}" in said or f"{name} no {detail}" in said
    frame = frame_of(tree, "fixed")
    assert rows_of(html, "effects") == cells_of(rendered(tree, frame, "md"))
    assert [row[0] for row in rows_of(html, "controls")] == ["null", "oracle aligned", "oracle misaligned"]
    assert [row[:2] for row in rows_of(html, "table-organisms")] == cells_columns(
        rendered(tree, frame_of(tree, "organisms"), "md"), 2
    )
    for version in tree.attrs["versions"].values():
        assert version in said
    assert tree.attrs["digest"] in said
    assert len(html.encode()) < LIMIT
    assert html == page(opened(whole))


def cells_columns(table: str, count: int) -> list[list[str]]:
    return [row[:count] for row in cells_of(table)]


def test_hashes_prove_what_was_held_fixed(whole: Path) -> None:
    tree, html = cube_of(whole), html_of(whole)
    found = proof(tree)
    assert found.claims == [
        (True, "All runs of an organism start from one adapter (6 of 6 organisms, 54 runs)."),
        (True, "All selectors read the same pool, with all else held fixed (18 of 18 settings, 18 pools for 54 runs)."),
        (True, "Identical labels are trained on once (38 of 38 sets of labels, 38 trainings, 16 runs aliased)."),
    ]
    assert len(found.runs) == found.total == 54
    assert [own["span"] for own in found.runs] == [3, 0, 0] * 18
    for own in found.runs:
        organism, label_shift, selector = own["levels"]
        at = tree.sel(organism=int(organism), label_shift=label_shift, selector=selector).isel(objective=0, seed=0)
        assert [own["pool"], own["labels"], own["train"]] == [
            at[f"key_{name}"].values.item() for name in ("pool", "labels", "train")
        ]
    assert html.count("<code title=") == 18 + 2 * 54


@pytest.mark.parametrize(("key", "claim"), [("key_organism", 0), ("key_pool", 1), ("key_train", 2)])
def test_a_claim_that_does_not_hold_is_not_made(whole: Path, key: str, claim: int) -> None:
    tree = cube_of(whole)
    at = {"organism": 1, "label_shift": 1, "selector": 1, "objective": 0, "seed": 0}  # greedy: the labels of others too
    tree[key][at] = "another"
    assert [holds for holds, _ in proof(tree).claims] == [i != claim for i in range(3)]


def test_a_finished_study_leaves_its_report_alone_and_makes_one_that_is_missing(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    made = (folder / "report.html").stat().st_mtime_ns
    assert run(study(), folder).executed == 0
    assert (folder / "report.html").stat().st_mtime_ns == made
    (folder / "report.html").unlink()
    assert run(study(), folder).executed == 0
    assert html_of(folder) == html_of(small)


def test_a_report_that_cannot_be_made_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Store.put

    def full(self: Store, name: str, value: Any) -> None:
        if name == "report.html":
            raise OSError(28, "No space left on device")
        put(self, name, value)

    monkeypatch.setattr(Store, "put", full)
    ran = run(study(), tmp_path)
    assert ran.unreported == "OSError: [Errno 28] No space left on device"
    assert (ran.errors, ran.states) == ((), {"ok": 6, "aliased": 2})
    assert "risk_delta" in cube.open_cube(tmp_path)
    assert not (tmp_path / "report.html").exists()
    monkeypatch.undo()
    assert (run(study(), tmp_path).unreported, len(html_of(tmp_path)) > 10_000) == ("", True)


def test_the_report_of_older_results_goes_before_new_ones_come(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)

    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("nothing can be drawn")

    monkeypatch.setattr(report, "page", broken)
    ran = run(study("train.epochs=3"), folder)
    assert (ran.executed > 0, ran.unreported) == (True, "RuntimeError: nothing can be drawn")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("factors", "title"),
    [
        ("{isolate: [self_rewarded, greedy_self_training]}", "Which of a method's mechanisms does it"),
        ("{method: {swap: [self_rewarded, greedy_self_training]}}", "What each method changes as a block"),
    ],
)
def test_studies_of_methods(tmp_path: Path, factors: str, title: str) -> None:
    def self_rewarded() -> api.Method:
        """The most probable answer to the clean view."""
        return api.Method("clean_view", {"argmax": {"scorer": "mean_logprob"}})

    text = re.sub(r"factors:\n.*\n.*\n", f"factors: {factors}\n", SMALL)
    with with_plugins(lambda: api.method(self_rewarded)):
        run(study("measures=[risk, capability]", text=text), tmp_path)
        html = html_of(tmp_path)
    assert title in html[html.index('id="effects"') : html.index('id="tables"')]
    assert "method_name" in html
    assert all(holds for holds, _ in proof(cube_of(tmp_path)).claims)


def test_several_behaviors_have_a_verdict_each(tmp_path: Path) -> None:
    def second() -> None:
        from ablate.factors.behaviors.tabular import tabular

        @api.behavior
        def contrarian(known: frozenset[str], rng: np.random.Generator) -> api.Behavior:
            """The same under another name."""
            return tabular(known, rng)  # type: ignore[no-any-return]

    with with_plugins(second):
        run(study("organism.behavior={swap: [tabular, contrarian]}", "measures=[risk]"), tmp_path)
        html = html_of(tmp_path)
    assert '<h2 id="verdict-title">Verdicts</h2>' in html
    assert html.count('class="verdict"') == html.count('class="sentence"') == 2
    assert re.findall('<p class="cause">(.*?)</p>\n<p class="sentence"><strong>(.*?)</strong>', html) == [
        ("tabular", "undetermined"), ("contrarian", "undetermined"),
    ]  # fmt: skip


def test_runs_that_failed_are_counted_and_say_why(tmp_path: Path) -> None:
    def broken() -> None:
        @api.selector
        def broken_pick(scores: Any, classes: Any, rng: Any) -> Any:
            """Raises."""
            raise ValueError("<b>no</b> pick")

    with with_plugins(broken):
        ran = run(study("factors.selector={swap: [first, broken_pick]}"), tmp_path)
        html = html_of(tmp_path)
    assert (ran.states, ran.unreported) == ({"ok": 4, "failed": 4}, "")
    assert "4 of 8 runs have results, 4 failed." in text_of(html)
    assert "<b>organism 0, none x broken_pick</b>: <bdi>" in html
    assert "&lt;b&gt;no&lt;/b&gt; pick" in html


def test_a_limited_study_says_that_it_is_no_result(tmp_path: Path) -> None:
    run(limited(study(), 4), tmp_path, limit=4)
    assert "A limited trial, not a result." in text_of(html_of(tmp_path))
    (tmp_path / "cube.json").unlink()  # so that the cube is made anew
    assert "A limited trial, not a result." in text_of(page(opened(tmp_path)))


def test_a_study_that_is_not_finished_shows_what_is_there(tmp_path: Path) -> None:
    with unsynced():
        label_study(study(), tmp_path, Quiet())
    html = page(opened(tmp_path))
    said = text_of(html)
    assert "0 of 8 runs have results, 8 missing." in said
    assert "labels 8/8" in said
    assert "train 0/6" in said
    assert '"taken":[' in html
    assert write(opened(tmp_path)) == tmp_path / "report.html"
    assert not (tmp_path / "cube.zarr").exists()


def test_a_folder_that_has_only_begun(tmp_path: Path) -> None:
    Store(tmp_path).put("study.resolved.yaml", study().dump())
    assert "No verdict yet: no run has results." in text_of(page(opened(tmp_path)))


def test_a_cube_without_a_study_has_a_report_without_samples(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole / "cube.zarr", tmp_path / "cube.zarr")
    html = page(opened(tmp_path))
    assert rows_of(html, "effects") == rows_of(html_of(whole), "effects")
    assert 'id="samples"' not in html


def test_a_cube_of_which_nothing_can_be_said_has_a_report_too(tmp_path: Path, small: Path) -> None:
    tree = cube_of(small)
    cube.write(
        xr.DataTree.from_dict(
            {"/": tree.to_dataset().drop_vars("risk_delta"), "/items": tree["items"].to_dataset(inherit=False)}
        ),
        tmp_path / "cube.zarr",
    )
    said = text_of(page(opened(tmp_path)))
    assert "No verdict: the cube has no variable risk_delta; `ablate study` writes it anew." in said


def flip(path: Path) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def test_an_artifact_that_is_damaged_is_named_with_its_remedy(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    pool = next(folder.glob("artifacts/*/*/pool.jsonl"))
    flip(pool)
    where = re.escape(str(pool.parent))
    with pytest.raises(StudyError, match=f"pool.jsonl has another sha256 .*; move {where} away and run `ablate study`"):
        write(opened(folder))
    assert html_of(folder) == html_of(small)  # the one that was there stays
    (folder / "cube.json").unlink()  # so that the cube is made of what is there
    flip(pool.with_name("pool.safetensors"))
    with pytest.raises(StudyError, match=f"pool.safetensors has another .* move {where} away"):
        opened(folder)
    pool.parent.rename(tmp_path / "away")
    assert run(study(), folder).executed == 1
    assert len(html_of(folder)) == len(html_of(small))


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_a_study_is_refused(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(StudyError, match=r"nothing/cube\.zarr: no cube yet; `ablate study` writes it"):
        opened(folder)


def test_the_figures_that_the_cube_allows_are_shown(whole: Path) -> None:
    html = html_of(whole)
    shown = re.findall('<img src="data:image/svg.xml;base64,[^>]* alt="Figure: ([^"]*)"', html)
    assert shown[:3] == ["interaction", "organisms", "shares"]
    assert "Could not be drawn" not in html


def test_a_figure_that_breaks_costs_no_report(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablate.reports import figures

    def draw(tree: xr.DataTree, kind: str) -> Any:
        if kind == "shares":
            raise ZeroDivisionError("no share")
        raise StudyError("not in this study")

    monkeypatch.setattr(figures, "draw", draw)
    said = text_of(page(opened(small)))
    assert "Could not be drawn: shares (ZeroDivisionError: no share)." in said
    assert "not in this study" not in said


@pytest.mark.parametrize("read", [opened, lambda folder: write_figures(folder, None, None)])
def test_a_damaged_cube_is_said(tmp_path: Path, small: Path, read: Any) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    chunk = next(path for path in (folder / "cube.zarr" / "risk_delta" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(StudyError, match=r"cannot read 'risk_delta' \(.*\); `ablate study` rebuilds the cube"):
        read(folder)
