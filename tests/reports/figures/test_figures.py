"""Every kind on every cube that allows it: labels with units, bytes that repeat, names as text, nothing outside."""

import hashlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from gallery import changed, gallery

import ablate
from ablate.errors import StudyError
from ablate.reports.figures import FORMATS, KINDS, draw, save, style

GRID = ("interaction", "organisms", "shares", "prediction", "dose", "eta", "diversity", "embedding")
ALLOWED = {
    "study": GRID,
    "scaling": (*GRID, "scaling"),
    "isolated": ("organisms", "shares", "methods", "isolate"),
    "methods": ("organisms", "methods"),
    "two by two": GRID,
    "one organism": ("interaction", "organisms", "prediction", "dose", "eta", "diversity", "embedding"),
    "one selector": ("interaction", "organisms", "prediction", "dose", "diversity", "embedding"),
    "hostile": GRID,
}
CASES = [(name, kind) for name, kinds in ALLOWED.items() for kind in kinds]
UNITS = r"pp\b|nats|P\(M = 1\)|\(level\)|\(name\)|number|share of variance|quantile|embedding units|100%"


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, allowed in ALLOWED.items() for kind in KINDS if kind not in allowed]
)
def test_what_a_cube_does_not_allow_is_refused_with_a_reason(cubes, name, kind):
    with pytest.raises(StudyError, match=r"^[^\n]{20,}$"):
        draw(cubes[name], kind)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_labels_and_room(cubes, name, kind):
    figure = draw(cubes[name], kind)
    assert figure.get_supxlabel(), "no caption"
    check_units(figure)
    with style.styled():
        check_nothing_is_cut(figure)
        check_names_are_apart(figure)


def check_units(figure):
    """Every axis has a label with a unit; only what shares the axis of a labeled neighbor has none of its own."""
    for text in (text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel()) if text):
        assert re.search(UNITS, text), text
    for ax in figure.axes:
        assert ax.get_xlabel() or ax.get_shared_x_axes().get_siblings(ax) != [ax]
        assert ax.get_ylabel() or ax.get_position().x0 > figure.axes[0].get_position().x0


def check_nothing_is_cut(figure):
    """All that is drawn lies inside of the page, which is no wider than two columns."""
    inside, whole = figure.get_tightbbox(), figure.bbox_inches
    assert min(inside.x0, inside.y0) >= -0.02
    assert inside.x1 <= whole.x1 + 0.02
    assert inside.y1 <= whole.y1 + 0.02
    assert whole.width <= style.DOUBLE


def check_names_are_apart(figure):
    """No two names of ticks touch; boxes of turned text overlap where the text does not."""
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        texts = [text for text in axis.get_ticklabels() if text.get_text() and text.get_visible()]
        if not any(text.get_rotation() for text in texts):
            boxes = [text.get_window_extent() for text in texts]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes)), [t.get_text() for t in texts]


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        (check_units, lambda ax: ax.set_xlabel("effect")),
        (check_units, lambda ax: ax.set_ylabel("")),
        (check_nothing_is_cut, lambda ax: ax.set_title("a title " * 40)),
        (check_names_are_apart, lambda ax: ax.set_xticks([0, 0.01], ["none", "greedy"])),
    ],
)
def test_the_guards_can_fail(check, spoil):
    figure = draw(gallery(), "interaction")
    spoil(figure.axes[0])
    with style.styled(), pytest.raises(AssertionError):
        check(figure)


@pytest.mark.parametrize("kind", GRID)
def test_the_same_bytes_twice(kind):
    tree = gallery(shifts=["none", "greedy"], selectors=["first", "best"])
    one, two = (draw(tree, kind) for _ in range(2))
    for format in FORMATS:
        assert save(one, format) == save(two, format)


def test_another_process_writes_the_same_bytes_and_needs_no_pyplot(finished):
    program = (
        "import sys, hashlib, ablate; from ablate.reports.figures import save; "
        "figure = ablate.figure(ablate.open(sys.argv[1]), 'organisms'); "
        "print(*(hashlib.sha256(save(figure, f)).hexdigest() for f in ('svg', 'png', 'pdf'))); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = [sys.executable, "-c", program, str(finished)]
    said = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    figure = ablate.figure(ablate.open(finished), "organisms")
    own = [hashlib.sha256(save(figure, format)).hexdigest() for format in ("svg", "png", "pdf")]
    assert said.stdout == f"{' '.join(own)}\nFalse\n"


@pytest.mark.parametrize("kind", GRID)
def test_hostile_names_are_text(cubes, kind):
    svg = save(draw(cubes["hostile"], kind), "svg").decode()
    root = ET.fromstring(svg)
    assert not [node for node in root.iter() if node.tag.endswith("}script")]
    texts = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text"))
    if kind not in ("shares", "eta"):
        assert "$x^2$" in texts
        assert "<script>" in texts
        assert "two lines" in texts
    if kind == "eta":
        assert "argmax($a_b^c$)" in texts


def test_a_pdf_embeds_its_fonts_and_has_no_date(cubes):
    pdf = save(draw(cubes["study"], "interaction"), "pdf")
    assert b"/FontFile2" in pdf
    assert b"CreationDate" not in pdf
    assert b"/Type3" not in pdf


def test_an_unknown_kind():
    with pytest.raises(StudyError, match="no figure 'forrest'; known: interaction, organisms, shares"):
        draw(gallery(), "forrest")
    with pytest.raises(StudyError, match="no figure 'organism'; did you mean 'organisms'\\?"):
        ablate.figure(gallery(), "organism")


def test_organisms_that_are_not_valid_are_said():
    tree = changed(gallery(), valid_organism=lambda values: np.array([1, 0, 1, 1, 1, 1], np.int8))
    for kind in ("interaction", "organisms", "prediction", "eta", "diversity", "embedding"):
        caption = draw(tree, kind).get_supxlabel().replace("\n", " ")
        assert "1 organism not valid" in caption, kind
        assert "5 organisms" in caption, kind
