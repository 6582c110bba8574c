"""Curves of eta and histograms of p_x. Oracles: `ablate.measures.posterior` of one organism, counting by hand."""

import numpy as np
import pytest
import xarray as xr
from gallery import gallery

from ablate.effects.posterior import FIFTHS, eta_curves, p_histograms
from ablate.errors import StudyError
from ablate.measures.posterior import eta


def with_labels(tree, **change):
    labels = tree["labels"].to_dataset(inherit=False).copy(deep=True)
    for name, function in change.items():
        labels[name] = labels[name].copy(data=function(labels[name].values.copy()))
    groups = {"/": tree.to_dataset(inherit=False), "/items": tree["items"].to_dataset(inherit=False)}
    return xr.DataTree.from_dict({**groups, "/labels": labels})


def test_one_organism_is_eta_of_the_measure():
    tree = gallery(1, organisms=1)
    table = eta_curves(tree).query("label_shift == 'clean_view' and selector == 'majority'")
    labels = tree["labels"].to_dataset()
    expected = eta(labels["label_score"].values[0, 2, 1, 0, 0], labels["pool_outcome"].values[0, 2, 0]).table
    assert table["u"].tolist() == expected["u"].tolist()
    assert table["eta"].tolist() == pytest.approx(expected["eta"].tolist())
    assert table["scored"].tolist() == expected["n"].tolist()
    assert table[["low", "high"]].isna().all(axis=None)


def test_the_mean_is_over_organisms_with_a_t_interval():
    tree = gallery(1)
    own = [eta_curves(tree.isel(organism=[i])).query("selector == 'majority'")["eta"].to_numpy() for i in range(6)]
    table = eta_curves(tree).query("selector == 'majority'")
    assert table["eta"].tolist() == pytest.approx(np.mean(own, axis=0).tolist())
    half = 2.5705818 * np.std(own, axis=0, ddof=1) / np.sqrt(6)
    assert (table["high"] - table["eta"]).tolist() == pytest.approx(half.tolist())


def test_ties_share_their_places():
    """All scores equal: every place has the mean outcome, however the candidates are ordered."""
    tree = with_labels(gallery(1, organisms=2), label_score=lambda values: np.where(np.isnan(values), np.nan, 1.0))
    table = eta_curves(tree)
    outcome = tree["labels"]["pool_outcome"].values
    for i, shift in enumerate(("none", "greedy", "clean_view")):
        own = table.query(f"label_shift == '{shift}'")["eta"]
        assert own.tolist() == pytest.approx([outcome[:, i].mean()] * len(own))


def test_a_selector_without_scores_has_no_curve():
    assert set(eta_curves(gallery())["selector"]) == {"majority", "mean_logprob"}
    with pytest.raises(StudyError, match="no selector reads a score"):
        eta_curves(gallery(selectors=["first"]))


def test_what_was_not_judged_is_as_if_it_were_not_there():
    def without(values):
        values[..., 2:] = np.nan
        return values

    table = eta_curves(with_labels(gallery(1), pool_outcome=without))
    assert sorted(set(table["u"])) == [0.25, 0.75], "two candidates of a prompt are left"


def test_histograms_by_hand():
    tree = gallery(1)
    table = p_histograms(tree)
    p = tree["labels"]["pool_outcome"].values[:, 1, 0].mean(-1)  # greedy, [organism, prompt]
    counts = np.stack([np.histogram(row, FIFTHS)[0] for row in p]) / p.shape[1]
    own = table.query("what == 'pool' and label_shift == 'greedy'")
    assert own["share"].tolist() == pytest.approx(counts.mean(0).tolist())
    assert own["count"].tolist() == [12] * 5
    items = tree["items"].to_dataset()
    risky = items["kind"].values[0] == "risk"
    for what, values in (
        ("after", items["outcome_after"].values[:, 1, 2, 0, 0][:, risky]),
        ("before", items["outcome_before"].values[:, risky]),
    ):
        own = table.query(f"what == '{what}' and label_shift == 'greedy' and selector == 'mean_logprob'")
        counts = np.stack([np.histogram(row, FIFTHS)[0] for row in values]) / risky.sum()
        assert own["share"].tolist() == pytest.approx(counts.mean(0).tolist())
    assert table.groupby(["label_shift", "selector", "what"])["share"].sum().tolist() == pytest.approx([1.0] * 21)


@pytest.mark.parametrize(
    ("lacks", "says"),
    [("/items", "the cube has no group items"), ("/labels", "the cube has no pool_outcome in its group labels")],
)
def test_a_group_that_is_not_there(lacks, says):
    tree = gallery()
    groups = {f"/{name}": child.to_dataset(inherit=False) for name, child in tree.children.items()}
    del groups[lacks]
    with pytest.raises(StudyError, match=says):
        p_histograms(xr.DataTree.from_dict({"/": tree.to_dataset(inherit=False), **groups}))
