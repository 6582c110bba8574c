"""What all figures share. Oracles: CIE L*a*b* and Machado, Oliveira and Fernandes (2009) for color deficiencies."""

import re
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from ablate.errors import StudyError
from ablate.reports.figures import save, style

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, vision="normal"):
    """CIE L*a*b* of a color as it is seen."""
    s = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.clip(np.array(VISION[vision]) @ np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4), 0, 1)
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in TO_XYZ @ linear / (0.95047, 1, 1.08883))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colors_stay_apart(vision):
    apart = [np.linalg.norm(lab(one, vision) - lab(other, vision)) for one, other in combinations(style.COLORS, 2)]
    assert min(apart) > 15


def test_colors_stay_apart_in_grayscale_and_on_white():
    lightness = sorted(lab(color)[0] for color in style.COLORS)
    assert min(high - low for low, high in pairwise(lightness)) > 9
    assert 100 - lightness[-1] > 20


def test_the_guard_of_colors_can_fail():
    assert np.linalg.norm(lab("#ff0000", "deuteranopia") - lab("#8a8000", "deuteranopia")) < 15


def test_series_differ_without_color():
    looks = [style.look(i) for i in range(36)]
    marks = [(look["marker"], look["linestyle"], look["markerfacecolor"] == "white") for look in looks]
    assert len(set(marks)) == 36
    assert len({look["marker"] for look in looks[:9]}) == 9


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("none", ["none"]),
        ("argmax(mean_logprob)", ["argmax(mean_", "logprob)"]),
        ("two\nlines\x00\u2028here", ["two lines here"]),
        ("x" * 30, ["x" * 14, "x" * 14, "x" * 2]),
        ("", ["(no name)"]),
        ("a" * 20 + "b" * 200, ["a" * 14, "a" * 6 + "b" * 4 + "…" + "b" * 3, "b" * 14, "b" * 3]),
    ],
)
def test_names_are_wrapped(name, lines):
    found = style.wrapped(name, 14).split("\n")
    assert max(map(len, found)) <= 14
    if len(name) < 100:
        assert found == lines
    else:
        assert len(found) <= 4
        assert "…" in "".join(found)


def test_an_unknown_format():
    with pytest.raises(StudyError, match="no figure format 'pgn'; did you mean 'png'\\?"):
        save(Figure(), "pgn")


def test_matplotlib_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    with style.styled():
        figure, [ax] = style.canvas(3, 2)
        ax.set_title("$x$")
        style.finish(figure, ["a caption"])
        assert matplotlib.rcParams["svg.hashsalt"] == "ablate"
    save(figure, "svg")
    assert dict(matplotlib.rcParams) == before


def test_names_at_line_ends_do_not_overlap():
    with style.styled():
        figure, [ax] = style.canvas(4, 2)
        ax.set_ylim(0, 1)
        for i in range(6):
            style.ended(ax, 1, 0.5 + i / 1000, f"name {i}", "#000000")
        style.finish(figure, [""])
        boxes = [text.get_window_extent() for text in ax.texts]
        tall = [12 * 1.25 / 2 for _ in boxes]
        heights = sorted(text.get_position()[1] * ax.get_window_extent().height for text in ax.texts)
    assert [text.get_position()[1] for text in ax.texts] == sorted(text.get_position()[1] for text in ax.texts)
    assert min(high - low for low, high in pairwise(heights)) > min(tall)


def test_a_caption_says_what_is_left_out():
    import pandas as pd

    frame = pd.DataFrame()
    counts = {"invalid": 1, "failed": 2, "blocked": 0, "missing": 0, "unjudged": 0}
    frame.attrs = {"counts": {"sums": counts}, "notes": ["a note"], "refused": {"facts": "facts: no organism"}}
    assert style.left_out(frame, 20) == [
        "Left out (sums): 1 organism not valid, 2 runs failed.",
        "a note.",
        "facts: no organism.",
        "The first 12 of 20 panels.",
    ]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([6, 6], "95% t interval, 6 organisms"),
        ([5, 6, 0], "95% t interval, 5 to 6 organisms"),
        ([1], "no interval, 1 organism"),
    ],
)
def test_intervals_are_named(counts, says):
    assert style.intervals(counts) == says


def test_a_notebook_shows_a_figure_by_itself():
    figure, _ = style.canvas(2, 2)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert not re.search(rb"20\d\d-\d\d", save(figure, "svg"))
