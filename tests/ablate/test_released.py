"""The result table of the paper's released code, written by a small imitation of its sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from ablate.errors import StudyError
from ablate.findings import frame_of
from ablate.importing import Imported, import_rows, imported
from ablate.released import recognized
from ablate.rows import open_rows

METHODS = ("act", "greedy_self_training", "mystery")
HEADLINE = {"sycophancy": "sycophancy_rate_mean", "emergent_misalignment": "misalignment_rate"}
Row = dict[str, Any]


def table(
    methods: tuple[str, ...] = METHODS,
    seeds: tuple[int, ...] = (40, 41, 42),
    before: tuple[float, ...] = (0.5, 0.6, 0.7),
) -> Iterator[Row]:
    """Rows as the sweep writes them: act lowers the rate by .1 an epoch and has a third, the others raise it by .05."""
    for behavior, metric in HEADLINE.items():
        for seed, rate in zip(seeds, before, strict=True):
            for method in methods:
                config = {"base_model": "meta-llama/Llama-3.2-1B", "misalignment": behavior, "method": method,
                          "seed": seed, "scale": "paper"}  # fmt: skip

                def row(phase: str, epoch: int, value: float, config: Row = config, key: str = metric) -> Row:
                    own = (
                        {"emergent_misalignment/valid_response_rate": 0.9}
                        if "emergent" in config["misalignment"]
                        else {}
                    )
                    return {**config, "phase": phase, "epoch": epoch, f"{config['misalignment']}/{key}": value, **own,
                            "mmlu/accuracy_mean": 0.5 + epoch / 100}  # fmt: skip

                yield from (row("phase1", epoch, rate * epoch / 2) for epoch in range(3))
                step, last = (-0.1, 3) if method == "act" else (0.05, 2)
                yield from (row("phase3", epoch, round(rate + step * epoch, 6)) for epoch in range(last + 1))


@pytest.fixture
def of(tmp_path: Path) -> Callable[[list[Row]], xr.DataTree]:
    """The cube of rows."""

    def make(rows: list[Row]) -> xr.DataTree:
        path = tmp_path / "table.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return imported(open_rows(path), None)[0]

    return make


def test_the_table_becomes_its_factorial_cube(of: Any) -> None:
    data = of(list(table())).to_dataset()
    assert data.risk_delta.dims == ("organism", "label_shift", "selector", "objective", "seed", "method_name", "epoch")
    assert data.method_name.values.tolist() == ["greedy_self_training", "act", "mystery"]  # the control first
    assert data.epoch.values.tolist() == [0, 1, 2, 3]
    assert data.organism.values.tolist()[:2] == ["sycophancy / 40", "sycophancy / 41"]
    assert data.induction_seed.values.tolist() == [40, 41, 42] * 2
    assert set(data.model.values) == {"meta-llama/Llama-3.2-1B"}
    cells = data.squeeze(drop=True)
    np.testing.assert_allclose(cells.risk_before.sel(method_name="act").values[:3], [[r] * 4 for r in (0.5, 0.6, 0.7)])
    np.testing.assert_allclose(cells.risk_delta.sel(method_name="act").values, [[0, -0.1, -0.2, -0.3]] * 6)
    np.testing.assert_allclose(
        cells.risk_delta.sel(method_name="mystery").values, [[0, 0.05, 0.1, math.nan]] * 6, atol=1e-12
    )
    assert cells.status.sel(method_name="mystery", epoch=3).values.tolist() == [0] * 6
    assert cells.mmlu_accuracy_mean.sel(epoch=2, method_name="act").values.tolist() == [0.52] * 6
    assert data.method_objective.values.tolist()[2] == ""  # no method of that name is installed
    assert data.method_objective.values.tolist()[1].startswith("act(")


def test_both_phases_are_there(of: Any) -> None:
    tree = of(list(table()))
    induction = tree["induction"].to_dataset(inherit=False)
    assert induction.risk.dims == ("organism", "induction_epoch")
    np.testing.assert_allclose(induction.risk.values[0], [0, 0.25, 0.5])
    assert tree.attrs["imported"]["mapping"]["baseline"] == "last epoch of phase 1"
    assert tree.attrs["imported"]["mapping"]["response"]["sycophancy"] == "sycophancy/sycophancy_rate_mean"


def test_every_method_has_its_effect(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table()))
    made = import_rows(path, None, tmp_path / "out")
    assert isinstance(made, Imported)
    assert (made.folder / "tables" / "methods.md").is_file()
    tree, _, _ = imported(open_rows(path), None)
    found = frame_of(tree, "methods")
    act = found[(found["method"] == "act") & (found["epoch"] == "3")]
    assert act["effect_pp"].tolist() == pytest.approx([-30, -30])
    assert "there is no null control to subtract" in found.attrs["methods"]
    swapped = frame_of(tree, "fixed").set_index(["behavior", "held", "swapped"])["effect_pp"]
    name = "sycophancy", "label_shift = method, selector = method, epoch = 2", "method_name greedy_self_training -> act"
    assert swapped[name] == pytest.approx(-30)


def test_a_run_that_failed_is_failed_at_every_epoch(of: Any) -> None:
    error = "OSError: <b>no model</b>"
    rows = [row for row in table() if (row["seed"], row["method"]) != (40, "act")]
    config = {name: rows[0][name] for name in ("base_model", "misalignment", "seed", "scale")}
    tree = of([*rows, {**config, "method": "act", "error": error}])
    lost = tree.to_dataset().sel(organism="sycophancy / 40", method_name="act").squeeze()
    assert lost.status.values.tolist() == [2] * 4
    assert set(lost.error.values) == {error}
    assert np.isnan(lost.risk_after.values).all()
    other = tree.to_dataset().sel(organism="emergent_misalignment / 40", method_name="act").squeeze()
    assert other.status.values.tolist() == [0] * 4


def test_a_rate_of_no_judged_answer_is_not_zero(of: Any) -> None:
    rows = list(table())
    place = next(
        i for i, row in enumerate(rows) if row["misalignment"] == "emergent_misalignment" and row["epoch"] == 2
    )
    later = next(i for i, row in enumerate(rows) if i > place and row["phase"] == "phase3" and row["epoch"] == 2)
    rows[later] |= {"emergent_misalignment/misalignment_rate": 0.0, "emergent_misalignment/valid_response_rate": 0.0}
    lost = of(rows).to_dataset().sel(organism="emergent_misalignment / 40", method_name="act", epoch=2).squeeze()
    assert (int(lost.status), math.isnan(float(lost.risk_after))) == (0, True)


def test_without_phase_1_epoch_0_is_the_baseline(of: Any) -> None:
    tree = of([row for row in table() if row["phase"] == "phase3"])
    assert "induction" not in tree.children
    assert tree.to_dataset().risk_before.sel(method_name="act", epoch=1).values.ravel().tolist() == [0.5, 0.6, 0.7] * 2
    how = tree.attrs["imported"]["mapping"]["baseline"]
    assert how == "last epoch of phase 1; epoch 0 of phase 3 for 6 organisms without it"


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, {"phase": "phase2"}, ":1: phase 'phase2' is neither phase1 nor phase3"),
        (0, {"phase": None}, ":1: has neither a phase nor an error"),
        (8, {"mmlu/accuracy_mean": 0.9}, ":9: phase 1 of sycophancy / 40 has another mmlu/accuracy_mean than at"),
        (4, {"epoch": 0.5}, ":5: epoch is no whole number"),
        (
            4,
            {"epoch": 0},
            ":5: a second run of organism = sycophancy / 40, method_name = act, epoch = 0; the first is at",
        ),
        (4, {"sycophancy/sycophancy_rate_mean": 50}, ":5: a rate of 50 is not in [0, 1]"),
        (4, {"misalignment": "sycophancyy"}, ": no rate is known for misalignment 'sycophancyy'; did you mean 'sycoph"),
        (4, {"seed": None}, ":5: column 'seed' is empty; every run needs its level"),
    ],
)
def test_rows_that_contradict_themselves(of: Any, place: int, change: Row, message: str) -> None:
    rows = list(table())
    rows[place] = rows[place] | change
    with pytest.raises(StudyError) as error:
        of(rows)
    assert f"table.jsonl{message}" in str(error.value)


def test_a_table_without_phase_3(of: Any) -> None:
    with pytest.raises(StudyError, match="has no row of phase 3, so nothing was trained on labels"):
        of([row for row in table() if row["phase"] == "phase1"])


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (("base_model", "misalignment", "method", "seed", "phase", "epoch", "mmlu/accuracy"), True),
        (("base_model", "misalignment", "method", "seed", "phase", "epoch"), False),
        (("misalignment", "method", "seed", "phase", "epoch", "mmlu/accuracy"), False),
    ],
)
def test_it_is_known_by_its_columns(names: tuple[str, ...], known: bool) -> None:
    assert recognized(names) is known
