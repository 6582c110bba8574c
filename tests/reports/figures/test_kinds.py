"""What each kind draws is what its table says."""

from itertools import pairwise

import numpy as np
import pytest
from gallery import changed, gallery, of_methods

from ablate.effects import decomposition, dose_response, isolated, methods, prediction
from ablate.effects.plane import plane
from ablate.effects.points import cells_by, organism_effects
from ablate.effects.posterior import eta_curves, p_histograms
from ablate.reports.figures import draw
from ablate.reports.figures.diversity import HIGH


def marks(ax, marker):
    """The points of a marker, [x, y] each, from the top row down."""
    found = np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == marker])
    return found[np.argsort(found[:, 1], kind="stable")]


def bars(ax):
    """The ends of horizontal lines, [low, high] each."""
    segments = [segment for part in ax.collections for segment in part.get_segments()]
    return np.array([[one[0, 0], one[1, 0]] for one in segments if one[0, 1] == one[1, 1]])


def test_organisms():
    tree = gallery()
    table, axes = organism_effects(tree), draw(tree, "organisms").axes
    for ax, (swapped, part) in zip(axes, table.groupby("swapped", sort=False), strict=True):
        assert ax.get_title("left").replace("\n", " ") == swapped
        assert marks(ax, "o")[:, 0].tolist() == part["effect_pp"].iloc[:-1].tolist()
        assert marks(ax, "D").tolist() == [[part["effect_pp"].iloc[-1], 6]]
        assert bars(ax).tolist() == [part[["low", "high"]].iloc[-1].tolist()]
        assert [text.get_text() for text in axes[0].get_yticklabels()] == [*(f"o{i}" for i in range(6)), "mean"]
        [hollow] = [line.get_xdata().tolist() for line in ax.lines if line.get_markerfacecolor() == "white"]
        assert hollow == [x for x in part["effect_pp"].iloc[:-1] if x * part["effect_pp"].iloc[-1] < 0]


def test_an_organism_without_a_run_is_said():
    def without(values):
        values[2, 1] = np.nan
        return values

    ax = draw(changed(gallery(), risk_delta=without), "organisms").axes[0]
    assert [text.get_text() for text in ax.texts] == ["no run"]
    assert ax.texts[0].get_position()[1] == 2


def test_of_many_organisms_some_are_named():
    ax = draw(gallery(organisms=60), "organisms").axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == 61
    assert [name for name in names if name] == [*(f"o{i}" for i in range(0, 58, 3)), "mean"]
    boxes = [text.get_window_extent() for text in ax.get_yticklabels() if text.get_text()]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


@pytest.mark.parametrize("kind", ["interaction", "organisms", "prediction", "dose", "embedding"])
def test_every_behavior_has_panels_of_its_own(kind):
    figure = draw(gallery(behaviors=("sums", "fa$ct$s"), organisms=3), kind)
    titles = " ".join(ax.get_title("left") for ax in figure.axes)
    assert "sums" in titles
    assert "fa$ct$s" in titles


def test_shares():
    tree = gallery()
    table = decomposition(tree)
    left, right = draw(tree, "shares").axes
    effects = table[table["source"].isin(["label_shift", "selector", "interaction"])]
    assert [bar.get_width() for bar in left.patches] == effects["effect_share"].tolist()
    assert bars(left).tolist() == effects[["effect_low", "effect_high"]].to_numpy().tolist()
    every = table[table["source"] != "effects together"]
    assert [bar.get_width() for bar in right.patches] == every["share"].tolist()
    assert [text.get_text().replace("\n", " ") for text in right.get_yticklabels()] == every["source"].tolist()


def test_a_share_that_is_not_identified_is_no_bar():
    tree = gallery(1, shift=(0, 0, 0), selector=(0, 0, 0))
    left = draw(tree, "shares").axes[0]
    assert not decomposition(tree)["identified"].any()
    assert not left.patches
    assert [text.get_text() for text in left.texts] == ["not identified"] * 3


@pytest.mark.parametrize(("kind", "name"), [("dose", "kl_shift"), ("prediction", "g")])
def test_points_and_slope(kind, name):
    tree = gallery()
    table = cells_by(tree, name)
    [ax] = draw(tree, kind).axes
    means = table[table["organism"] == ""]
    drawn = {line.get_label(): line.get_xydata()[0].tolist() for line in ax.lines if " | " in line.get_label()}
    assert drawn == {
        f"{row.label_shift} | {row.selector}": [row.dose, row.effect_pp] for row in means.itertuples(index=False)
    }
    [line] = [line for line in ax.lines if line.get_label() == "slope"]
    if kind == "dose":
        slope = dose_response(tree, "kl_shift")["slope"].item()
    else:
        slope = prediction(tree).query("predictor == 'g' and level == 'all'")["slope"].iloc[0]
    x, y = line.get_xydata()[-1]
    assert y / x == pytest.approx(slope)
    assert ax.texts[0].get_text().startswith(f"slope {slope:+.2f} pp per ")


def test_without_a_slope_the_caption_says_why():
    figure = draw(gallery(organisms=1), "dose")
    assert "No line: sycophancy: 1 valid organism, at least 2 are needed." in figure.get_supxlabel().replace("\n", " ")
    assert "no interval, 1 organism" in figure.get_supxlabel()


def test_eta():
    tree = gallery()
    table = eta_curves(tree)
    axes = draw(tree, "eta").axes
    assert [ax.get_title("left") for ax in axes] == ["selector = majority", "selector = mean_logprob"]
    for ax, selector in zip(axes, ("majority", "mean_logprob"), strict=True):
        for line in (line for line in ax.lines if not line.get_label().startswith("_")):
            own = table[(table["selector"] == selector) & (table["label_shift"] == line.get_label())]
            assert line.get_ydata().tolist() == own["eta"].tolist()
            assert line.get_xdata() == pytest.approx(own["u"].to_numpy(), abs=0.02)


def test_diversity():
    tree = gallery()
    table = p_histograms(tree)
    axes = draw(tree, "diversity").axes
    assert len(axes) == 4
    pools = table[table["what"] == "pool"]
    assert [-bar.get_height() / HIGH for bar in axes[0].patches] == pytest.approx(pools["share"].tolist())
    after = table[(table["what"] == "after") & (table["selector"] == "majority")]
    drawn = [bar for bar in axes[2].patches if hasattr(bar, "get_height")]
    assert [-bar.get_height() / HIGH for bar in drawn] == pytest.approx(after["share"].tolist())
    steps = [patch.get_data() for patch in axes[2].patches if not hasattr(patch, "get_height")]
    before = table[(table["what"] == "before") & (table["selector"] == "majority")]
    found = np.concatenate([(step.baseline - step.values) / HIGH for step in steps])
    assert found.tolist() == pytest.approx(before["share"].tolist())


def test_embedding():
    tree = gallery()
    table = plane(tree)
    for ax, (name, part) in zip(draw(tree, "embedding").axes, table.groupby("label_shift", sort=False), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert ax.get_title("left") == name
        assert lines["candidates"].get_xydata().tolist() == part.query("not centroid")[["x", "y"]].to_numpy().tolist()
        assert lines["centroids"].get_xydata().tolist() == part.query("centroid")[["x", "y"]].to_numpy().tolist()


def test_methods():
    tree = of_methods([f"method_{i}" for i in range(9)], isolated=False)
    table = methods(tree)
    risk, capability = draw(tree, "methods").axes
    assert marks(risk, "o").tolist() == [[value, i] for i, value in enumerate(table["effect_pp"])]
    assert bars(risk).tolist() == table[["low", "high"]].to_numpy().tolist()
    assert marks(capability, "s")[:, 0].tolist() == table["capability_pp"].tolist()
    assert [text.get_text() for text in risk.get_yticklabels()] == table["method"].tolist()


def test_isolate():
    tree = of_methods()
    table = isolated(tree)
    for ax, (method, part) in zip(draw(tree, "isolate").axes, table.groupby("method", sort=False), strict=True):
        assert ax.get_title("left") == method
        assert bars(ax).tolist() == part[["low", "high"]].to_numpy().tolist()
        assert marks(ax, "s")[:, 0].tolist() == part.query("kind == 'interaction'")["effect_pp"].tolist()
        added = marks(ax, ">")[:, 0]
        assert added[np.isfinite(added)].tolist() == part.query("kind == 'mechanism'")["added_pp"].tolist()
