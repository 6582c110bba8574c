import numpy as np
import pytest
from gallery import gallery

from ablate.effects import plane as module
from ablate.effects.plane import plane
from ablate.errors import StudyError


def test_every_candidate_and_the_centroid_of_each_organism():
    tree = gallery(1)
    table = plane(tree)
    own = table.query("label_shift == 'clean_view'")
    x = tree["labels"]["pool_x"].values[:, 2]
    assert own.query("not centroid")["x"].tolist() == x.ravel().tolist()
    assert own.query("centroid")["x"].tolist() == pytest.approx(x.reshape(6, -1).mean(1).tolist())
    assert set(own["pooled"]) == {6 * 12 * 4}


def test_many_candidates_are_thinned_evenly_and_the_centroids_are_of_all(monkeypatch):
    tree, every = gallery(1), plane(gallery(1))
    monkeypatch.setattr(module, "SHOWN", 60)
    table = plane(tree)
    assert table.query("not centroid").groupby("label_shift").size().tolist() == [60] * 3
    assert set(table.query("not centroid")["organism"]) == {f"o{i}" for i in range(6)}
    assert table.query("centroid")["x"].tolist() == every.query("centroid")["x"].tolist()


def test_a_pool_a_number_of_candidates():
    table = plane(gallery(candidates=(2, 4)))
    assert list(table.columns[:3]) == ["behavior", "candidates", "label_shift"]
    assert table.groupby(["candidates", "label_shift"]).size().tolist() == [6 * 12 * 4 + 6] * 6


def test_nothing_was_embedded():
    tree = gallery()
    tree["labels"] = tree["labels"].to_dataset(inherit=False).assign(pool_x=np.nan * tree["labels"]["pool_x"])
    with pytest.raises(StudyError, match="no candidates were embedded; add embedding_shift to `measures`"):
        plane(tree)
