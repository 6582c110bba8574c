import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ablate.errors import StudyError
from ablate.reports.table import caption_text, render

NAN = float("nan")
FACTS = {
    "runs": 72,
    "aliased": 12,
    "failed": 1,
    "blocked": 0,
    "missing": 0,
    "unjudged": 0,
    "organisms": {"sycophancy": 6},
    "invalid": [],
    "induction_seeds": [0, 1, 2, 3, 4, 5],
    "seeds": 1,
    "items": 128,
    "evaluation": "exact risk",
    "unparsed": {"before": 0.274, "after": 0.0},
    "version": "0.1.0",
    "digest": "a1b2c3d4e5",
    "pools": "9f8e7d",
    "limited": False,
}


def line(held, swapped, effect, low=NAN, high=NAN, p=NAN, **more):
    row = {
        "behavior": "sycophancy",
        "kind": "simple",
        "held": held,
        "swapped": swapped,
        "effect_pp": effect,
        "low": low,
        "high": high,
        "p": p,
        "p_adjusted": p,
        "adjusted_by": "" if np.isnan(p) else "max-T",
        "organisms": 6,
        "identical": False,
        "note": "",
        "hashes": "",
    }
    return row | more


METHODS = "within-organism contrasts, t intervals with 5 df, 2^6 sign-flips"
EFFECTS = pd.DataFrame(
    [
        line("label_shift = none, selector = first", "null control", 0.8, -2.1, 3.7, kind="null control") | {"p": 0.5},
        line("selector = first", "label_shift none -> greedy", -17.94, -22.41, -13.4, 0.03125),
        line("label_shift = none", "selector first -> majority", 2.06, -1.3, 5.5, 0.41, hashes="9f8e 7d6c"),
        line("label_shift = none", "selector first -> best", -0.01, -0.04, 0.04, 1.0),
        line("label_shift = greedy", "selector first -> majority", 0.0, identical=True, note="identical labels"),
        line("label_shift = cot", "selector first -> majority", NAN, note="fewer than 2 organisms have both runs"),
    ]
)

EFFECTS.attrs["methods"] = METHODS


def share_line(source, **numbers):
    names = ["df1", "df2", "F", "p_corrected", "variance_pp2", "variance_low", "variance_high", "share", "share_low"]
    names += ["share_high", "effect_share", "effect_low", "effect_high", "shapley", "p_adjusted"]
    return {"behavior": "sycophancy", "source": source} | dict.fromkeys(names, NAN) | {"identified": True} | numbers


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in text.splitlines() if row.startswith("|")]


class TestMarkdown:
    def test_layout_and_numbers(self):
        header, rule, *rows = cells(render(EFFECTS, FACTS))
        assert header == ["held fixed", "swapped", "effect, pp", "95% CI", "p (max-T)", "organisms"]
        assert all(set(mark) <= {"-", ":"} for mark in rule)
        assert rows == [
            ["label_shift = none, selector = first", "null control", "+0.8", "[-2.1, +3.7]", ".500 (one test)", "6"],
            ["selector = first", "label_shift none -> greedy", "-17.9", "[-22.4, -13.4]", ".031", "6"],
            ["label_shift = none", "selector first -> majority", "+2.1", "[-1.3, +5.5]", ".410", "6"],
            ["label_shift = none", "selector first -> best", "0.0", "[0.0, 0.0]", "1", "6"],
            ["label_shift = greedy", "selector first -> majority", "0", "identical labels", "", "6"],
            ["label_shift = cot", "selector first -> majority", "-", "fewer than 2 organisms have both runs", "-", "6"],
        ]

    def test_columns_line_up(self):
        lines = [row for row in render(EFFECTS, FACTS).splitlines() if row.startswith("|")]
        assert len({len(row) for row in lines}) == 1

    def test_hostile_names_stay_in_their_cell(self):
        frame = pd.DataFrame([line("a|b\n| c", "<script>x</script> `*_ &lt;", 1.0, 0.5, 1.5, 0.03)])
        text = render(frame, FACTS)
        assert r"a\|b \| c" in text
        assert "<script>" not in text
        assert "&amp;lt;" in text
        assert len([row for row in text.splitlines() if row.startswith("|")]) == 3

    def test_behavior_is_a_column_where_there_are_several(self):
        frame = pd.concat([EFFECTS, EFFECTS.assign(behavior="reward_hacking")])
        header, _, *rows = cells(render(frame, FACTS))
        assert header[0] == "behavior"
        assert {row[0] for row in rows} == {"sycophancy", "reward_hacking"}

    def test_bh_is_marked(self):
        frame = EFFECTS.assign(adjusted_by=["", "max-T", "BH", "BH", "", ""])
        rows = cells(render(frame, FACTS))
        assert rows[0][4] == "p (adjusted)"
        assert (rows[3][4], rows[4][4]) == (".031", ".410 (BH)")


class TestShares:
    frame = pd.DataFrame(
        [
            share_line(
                "label_shift",
                df1=2,
                df2=10,
                F=5.239,
                p_corrected=0.04,
                p_adjusted=0.06,
                variance_pp2=-0.04,
                variance_low=-1,
                variance_high=2,
            )
            | {"identified": False},
            share_line(
                "residual",
                variance_pp2=3.1,
                variance_low=1.2,
                variance_high=5,
                share=0.2,
                share_low=0.1,
                share_high=0.3,
            ),
        ]
    )

    def test_what_is_not_identified_says_so(self):
        header, _, effect, residual = cells(render(self.frame, FACTS))
        assert header[:5] == ["source", "F (df)", "p (GG, BH)", "variance, pp^2", "share of variance"]
        assert effect == [
            "label_shift",
            "5.24 (2, 10)",
            ".060",
            "0.0 [-1.0, 2.0]",
            "not identified",
            "not identified",
            "",
        ]
        assert residual == ["residual", "", "", "3.1 [1.2, 5.0]", ".20 [.10, .30]", "", ""]

    def test_strata_are_columns(self):
        frame = self.frame.copy()
        frame.insert(1, "objective", "sft")
        frame.insert(2, "train.epochs", 2)
        rows = cells(render(frame, FACTS))
        assert rows[0][:3] == ["objective", "train.epochs", "source"]
        assert rows[2][:2] == ["sft", "2"]


class TestLatex:
    text = render(EFFECTS, FACTS, "latex")

    def test_braces_and_environments_balance(self):
        bare = re.sub(r"\\[{}]", "", self.text)
        assert bare.count("{") == bare.count("}")
        opened, closed = re.findall(r"\\begin\{(\w+)\}", self.text), re.findall(r"\\end\{(\w+)\}", self.text)
        assert opened == closed[::-1] == ["table", "tabular"]

    def test_every_line_has_all_cells(self):
        body = self.text[self.text.index("\\toprule\n") : self.text.index("\\bottomrule\n")]
        lines = [row for row in body.splitlines() if row.endswith(r" \\")]
        assert len(lines) == 1 + len(EFFECTS)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in lines} == {5}
        assert r"\begin{tabular}{@{}llrlrr@{}}" in self.text

    def test_rules_exist_without_booktabs(self):
        for rule in ("top", "mid", "bottom"):
            assert self.text.index(rf"\providecommand{{\{rule}rule}}{{\hline}}") < self.text.index(r"\begin{table}")

    def test_numbers_and_names(self):
        assert r"selector = first & label\_shift none $\rightarrow$ greedy & " in self.text
        assert r" & $-$17.9 & {[}$-$22.4, $-$13.4{]} & .031 & 6 \\" in self.text
        assert r"2\textasciicircum{}6" in self.text
        assert "induction seeds 0-5" in self.text

    @pytest.mark.parametrize("letter", list("&%$#_{}~^\\<>|\"'"))
    def test_special_letters_are_escaped(self, letter):
        frame = pd.DataFrame([line(f"a{letter}b", "s", 1.0, 0.5, 1.5, 0.03)])
        cell = next(row for row in render(frame, FACTS, "latex").splitlines() if row.startswith("a")).split(" & s & ")[
            0
        ]
        assert cell != f"a{letter}b"
        assert cell.startswith("a\\")
        assert cell.endswith("b")

    def test_line_breaks_and_comments_cannot_get_out(self):
        frame = pd.DataFrame([line("a\n%b\r\\end{table}\x1b", "s", 1.0, 0.5, 1.5, 0.03)])
        text = render(frame, FACTS, "latex")
        assert text.count(r"\end{table}") == 1
        assert not set(text) & {"\r", "\x1b"}


class TestCsv:
    def test_full_precision_and_hashes_come_back(self):
        frame = EFFECTS.assign(effect_pp=[np.pi, 1 / 3, 1e-17, -0.1, 0.0, NAN])
        back = pd.read_csv(
            io.StringIO(render(frame, FACTS, "csv")), keep_default_na=False, na_values={"effect_pp": [""]}
        )
        np.testing.assert_array_equal(back.effect_pp, frame.effect_pp)
        assert list(back.hashes) == list(frame.hashes)
        assert list(back.columns) == list(frame.columns)


class TestCaption:
    def test_says_it_all(self):
        assert caption_text(FACTS, METHODS) == (
            "72 runs, 6 organisms (induction seeds 0-5), 1 training seed, 128 items x exact risk; "
            "within-organism contrasts, t intervals with 5 df, 2^6 sign-flips; ablate 0.1.0, study a1b2c3, "
            "pools 9f8e7d (hash per row in the CSV). "
            "Risk is over judged answers; not judged: 27% before training, 0% after training. "
            "Left out or shared: 1 run failed; 12 runs aliased (identical labels)."
        )

    def test_invalid_organisms_and_limits(self):
        text = caption_text(
            FACTS | {"invalid": ["o3", "o4"], "limited": True, "unjudged": 2, "blocked": 3, "missing": 1}
        )
        assert "Left out or shared: 2 organisms not valid (o3, o4); 1 run failed; 3 runs blocked; 1 run missing" in text
        assert "2 runs without a risk" in text
        assert text.endswith("Limited study: not a result.")

    def test_unknown_facts_are_left_out(self):
        unknown = dict.fromkeys(("items", "evaluation", "digest", "pools", "unparsed"))
        text = caption_text(FACTS | unknown | {"induction_seeds": []})
        assert "None" not in text
        assert "items" not in text

    def test_several_behaviors(self):
        facts = {
            "organisms": {"a": 6, "b": 8},
            "items": {"a": 128, "b": 64},
            "induction_seeds": [0, 2],
        }
        text = caption_text(FACTS | facts)
        assert "6 organisms of a, 8 organisms of b (induction seeds 0, 2)" in text
        assert "128 a, 64 b items" in text

    def test_one_behavior_needs_no_name_beside_its_items(self):
        assert ", 128 items x exact risk;" in caption_text(FACTS | {"items": {"sycophancy": 128}})

    def test_facts_of_the_frame_s_own_go_first(self):
        frame = EFFECTS.copy()
        frame.attrs = {"methods": METHODS, "facts": {"items": None, "unparsed": None}}
        text = render(frame, FACTS)
        assert "1 training seed; within-organism contrasts" in text
        assert "not judged" not in text

    def test_what_the_frame_left_out_is_named(self):
        frame = EFFECTS.copy()
        frame.attrs = {
            "methods": METHODS,
            "notes": ["sycophancy: 5 of 6 organisms have every run"],
            "refused": {"b": "b: 0 valid organisms"},
        }
        assert render(frame, FACTS).endswith("organisms have every run. b: 0 valid organisms.\n")


class _Cells(HTMLParser):
    """The text of every cell of a page, row by row, and the tags that it opens."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self.open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open = tag in ("th", "td", "figcaption")
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        if self.open and self.tags[-1] in ("th", "td"):
            self.rows[-1][-1] += data


class TestHtml:
    def test_cells_are_those_of_markdown(self):
        found = _Cells(render(EFFECTS, FACTS, "html"))
        lines = render(EFFECTS, FACTS, "md").splitlines()
        rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("|")]
        assert found.rows[0] == rows[0]
        assert [row[:3] for row in found.rows[1:]] == [row[:3] for row in rows[2:]]

    def test_names_stay_text(self):
        frame = EFFECTS.assign(held="<script>alert('&')</script>\u2028x")
        page = render(frame, FACTS, "html")
        found = _Cells(page)
        assert "script" not in found.tags
        assert "<script" not in page
        assert found.rows[1][0] == "<script>alert('&')</script> x"
        assert set(found.tags) == {"figure", "table", "thead", "tbody", "tr", "th", "td", "figcaption"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.parametrize("packages", ["", "booktabs", "booktabs,graphicx"])
def test_latex_compiles_as_it_is(tmp_path, packages):
    hostile = EFFECTS.assign(held="50% of $x_1 & {y}^2 ~ \\ # <a> [1] \"q\" 'r' | *b*")
    tables = [render(frame, FACTS, "latex") for frame in (EFFECTS, hostile)]
    used = rf"\usepackage{{{packages}}}" if packages else ""
    document = "\n".join([r"\documentclass{article}", used, r"\begin{document}", *tables, r"\end{document}"])
    (tmp_path / "tables.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
    assert ("Overfull \\hbox" in done.stdout) == ("graphicx" not in packages)  # wider than the text, or shrunk to it


class TestRefusals:
    def test_format(self):
        with pytest.raises(
            StudyError, match="no table format 'latexx'; did you mean 'latex'\\?; known: md, latex, html, csv"
        ):
            render(EFFECTS, FACTS, "latexx")

    def test_frame(self):
        with pytest.raises(StudyError, match="no table layout for the columns a, b"):
            render(pd.DataFrame({"a": [1], "b": [2]}), FACTS)


def limited(name, estimate, low=NAN, high=NAN, unit=""):
    return {f"{name}{unit}": estimate, f"{name}_low": low, f"{name}_high": high}


TERMS = ("label_change", "shift_term", "selection_term", "interaction", "shift_shapley", "selection_shapley")
PRICE = {
    "behavior": "sycophancy",
    "objective": "sft",
    "label_shift": "greedy",
    "selector": "first",
    **{key: value for name in TERMS for key, value in limited(name, -1.23, -2.0, 0.5, "_pp").items()},
    **limited("split_half", NAN, unit="_pp"),
    "organisms": 6,
    "prompts": 83.6,
}
STABLE = {"behavior": "a", "pair": "none, greedy", "between_shifts": 0.2, "same_shift": 0.05, "difference": 0.15}
MEDIATED = {"behavior": "a", "swapped": "label_shift none -> greedy", "dose": "kl_shift", "organisms": 6}
LOST = {"behavior": "a", "swapped": "selector first -> majority", "effect_pp": 2.0, "low": -1.0, "high": 5.0}


@pytest.mark.parametrize(
    ("rows", "header", "first"),
    [
        (
            [{"behavior": "a", "term": "seed", "variance_pp2": 4.0, "low": 1.0, "high": 9.5, "method": "ems"}
             | limited("share", 0.2, -0.1, 0.5) | {"organisms": 6, "runs": 54}],
            ["source of variance", "variance, pp^2", "share", "method", "organisms", "runs"],
            ["seed", "4.0 [1.0, 9.5]", ".20 [-.10, .50]", "ems", "6", "54"],
        ),
        (
            [{"behavior": "a", "dose": "kl_shift", "slope": -5.0, "low": -8.0, "high": -2.0, "p": 0.03, "r2": 0.8,
              "p_adjusted": 0.04, "curvature_p_adjusted": 0.25, "r2_predicted": 0.7, "cells": 9, "organisms": 6}
             | limited("spearman", -0.45, -0.5, -0.4)],
            ["dose", "effect, pp per unit", "p (BH)", "p of curvature (BH)", "rank correlation", "R2 of cells",
             "predicted", "cells", "organisms"],
            ["kl_shift", "-5.0 [-8.0, -2.0]", ".040", ".250", "-.45 [-.50, -.40]", ".80", ".70", "9", "6"],
        ),
        (
            [{"fold": "selector", "level": "all", "predictor": "g", "cells": 54, "predicted": 46, "organisms": 6}
             | limited("accuracy", 0.86, 0.63, 0.96) | limited("error", 9.5, 4.2, 14.8, "_pp")
             | limited("slope", 1.1, 0.9, 1.25)],
            ["left out", "predictor", "cells", "predicted", "sign right", "error, pp", "calibration slope",
             "organisms"],
            ["selector: all", "g", "54", "46", ".86 [.63, .96]", "+9.5 [+4.2, +14.8]", "1.10 [.90, 1.25]", "6"],
        ),
        (
            [PRICE],
            ["objective", "label_shift", "selector", "labels' change, pp", "shift term", "selection term",
             "interaction",
             "shift, order-free", "selection, order-free", "selection, split-half", "organisms", "prompts"],
            ["sft", "greedy", "first", *["-1.2 [-2.0, +0.5]"] * 6, "", "6", "84"],
        ),
        (
            [STABLE | {"low": 0.1, "high": 0.2, "organisms": 6, "prompts": 40.0}],
            ["label shifts", "JS between, nats", "within one", "difference", "organisms", "prompts"],
            ["none, greedy", ".200", ".050", ".150 [.100, .200]", "6", "40"],
        ),
        (
            [STABLE | dict.fromkeys(("between_shifts", "same_shift", "difference", "low", "high"), NAN)
             | {"organisms": 0, "prompts": NAN}],
            ["label shifts", "JS between, nats", "within one", "difference", "organisms", "prompts"],
            ["none, greedy", "-", "-", "-", "0", "-"],
        ),
        (
            [MEDIATED | {"part": "indirect", "estimate": -3.0, "low": -5.0, "high": -1.0, "unit": "pp", "rho": -0.4}],
            ["swapped", "dose", "part (model-based)", "estimate", "indirect vanishes at rho", "organisms"],
            ["label_shift none -> greedy", "kl_shift", "indirect", "-3.0 pp [-5.0, -1.0]", "-.40", "6"],
        ),
        (
            [MEDIATED | {"part": "R^2", "estimate": 0.9, "low": 0.8, "high": 0.97, "unit": "1", "rho": NAN}],
            ["swapped", "dose", "part (model-based)", "estimate", "indirect vanishes at rho", "organisms"],
            ["label_shift none -> greedy", "kl_shift", "R^2", ".90 [.80, .97]", "", "6"],
        ),
        *(
            (
                [LOST | {"missing": n, "bound_low": -4.0, "bound_high": 8.0, "outer_low": -9.0, "outer_high": 12.0,
                         "tipping_pp": tipping, "failure_p": p}],
                ["swapped", "effect, pp", "missing", "worst to best case, pp", "with t limits", "tipping point, pp",
                 "p (failing by level)"],
                ["selector first -> majority", "+2.0 [-1.0, +5.0]", str(n), *cells_],
            )
            for n, tipping, p, cells_ in [
                (3, -12.5, 0.031, ["-4.0 to +8.0", "-9.0 to +12.0", "-12.5", ".031"]),
                (3, float("inf"), 1.0, ["-4.0 to +8.0", "-9.0 to +12.0", "none", "1"]),
                (0, NAN, NAN, ["", "", "", ""]),
            ]
        ),
    ],
)  # fmt: skip
def test_layouts_of_the_other_tables(rows, header, first):
    found = cells(render(pd.DataFrame(rows)))
    assert found[0] == header
    assert found[2] == first
