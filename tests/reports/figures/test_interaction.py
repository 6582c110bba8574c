import numpy as np
import pytest
import xarray as xr
from gallery import changed, gallery

from ablate.effects.cells import cell_means
from ablate.errors import StudyError
from ablate.reports.figures import draw


def series(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_the_marks_are_the_means_of_the_table():
    tree = gallery()
    [ax] = draw(tree, "interaction").axes
    table = cell_means(tree)
    assert list(series(ax)) == ["first", "majority", "mean_logprob"]
    for name, line in series(ax).items():
        own = table[table["selector"] == name]
        assert line.get_ydata().tolist() == own["effect_pp"].tolist()
        assert np.round(line.get_xdata()).tolist() == [0, 1, 2]
    bars = [[part.get_segments() for part in ax.collections][i] for i in (0, 1)]
    first = table[table["selector"] == "first"]
    for segments, low, high in zip(bars, ("low", "within_low"), ("high", "within_high"), strict=True):
        assert [tuple(segment[:, 1]) for segment in segments] == list(zip(first[low], first[high], strict=True))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["none", "greedy", "clean_view"]


def test_a_cell_without_a_run_is_marked_and_said():
    def without(values):
        values[:, 1, 1] = np.nan
        return values

    figure = draw(changed(gallery(), risk_delta=without), "interaction")
    assert "Cross at the edge: no usable run." in figure.get_supxlabel().replace("\n", " ")
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [round(float(line.get_xdata()[0])) for line in crosses] == [1]


def test_scaling_has_a_panel_for_every_label_shift():
    tree = gallery(candidates=(2, 4, 8))
    figure = draw(tree, "scaling")
    table = cell_means(tree)
    assert [ax.get_title("left") for ax in figure.axes] == [
        f"label_shift = {name}" for name in ("none", "greedy", "clean_view")
    ]
    line = series(figure.axes[2])["majority"]
    own = table[(table["label_shift"] == "clean_view") & (table["selector"] == "majority")]
    assert line.get_ydata().tolist() == own["effect_pp"].tolist()
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["2", "4", "8"]


def test_candidates_that_are_no_numbers_are_refused():
    tree = gallery(candidates=(2, 4))
    groups = {f"/{name}": child.to_dataset(inherit=False) for name, child in tree.children.items()}
    groups = {name: group.drop_vars("candidates", errors="ignore") for name, group in groups.items()}
    root = tree.to_dataset(inherit=False).assign_coords(candidates=["few", "many"])
    with pytest.raises(StudyError, match="the levels of candidates are no numbers above 0"):
        draw(xr.DataTree.from_dict({"/": root, **groups}), "scaling")


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("interaction", {"shifts": ["none"], "selectors": ["first"]}, "one level each: there is no interaction"),
        ("scaling", {}, "the study does not swap labels.candidates"),
    ],
)
def test_what_cannot_be_drawn(kind, options, says):
    with pytest.raises(StudyError, match=says):
        draw(gallery(before=0.4, **options), kind)
