"""How long a query of 100,000 runs and an import of 1,000,000 rows take. Prints seconds; asserts answers, never times.

Run with ``make bench``. Processor seconds stand beside those on the clock, for machines with other work to do.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest

from ablate import query as queries
from ablate.api import Column
from ablate.cube import Item, Organism, Run, build, open_cube, write
from ablate.importing import import_rows
from ablate.mapping import Mapped

pytestmark = pytest.mark.bench
T = TypeVar("T")

AXES: dict[str, list[Any]] = {
    "label_shift": ["none", "greedy", "clean_view", "cot_view", "nucleus(temperature=0.7, top_p=0.9)"],
    "selector": ["first", "majority", "argmax(mean_logprob)", "argmin(mean_logprob)", "random"],
    "objective": ["sft", "dpo"],
    "candidates": [1, 2, 4, 8],
}
NAMES = ("risk_before", "risk_after", "risk_delta", *(f"measure_{i}" for i in range(45)))


def timed(what: str, run: Callable[[], T]) -> T:
    clock, processor = time.perf_counter(), time.process_time()
    result = run()
    print(f"{what}: {time.process_time() - processor:.2f} s processor, {time.perf_counter() - clock:.2f} s clock")
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of 100 organisms x 5 label shifts x 5 selectors x 2 objectives x 5 seeds x 4 settings, 48 measures."""
    rng = np.random.default_rng(0)
    organisms = [Organism("model", "sycophancy", seed, {}, 0.5, True) for seed in range(100)]
    columns = {name: Column(name, "1", "neither", "benchmark") for name in NAMES}
    before = np.full(16, 0.5, np.float32)
    runs = (
        Run(
            organism, dict(zip(AXES, point, strict=True)), seed, "ok",
            dict(zip(NAMES, rng.random(len(NAMES)).tolist(), strict=True)), before,
            rng.random(16).astype(np.float32), dict.fromkeys(("pool", "labels", "train"), f"{organism:064x}"),
        )
        for organism, *point, seed in itertools.product(range(100), *AXES.values(), range(5))
    )  # fmt: skip
    items = [[Item(f"i{i}", "risk", "in", f"i{i}") for i in range(16)]] * 100
    path = tmp_path_factory.mktemp("cube")
    write(build(organisms, AXES, list(range(5)), runs, columns, items, {"limited": False}), path / "cube.zarr")
    return path


def test_queries_of_100_000_runs(folder: Path) -> None:
    def asked() -> pd.DataFrame:
        where = ["selector=first,majority and measure_1<0.5"]
        return queries.query(open_cube(folder), where, ["label_shift"], ["risk_delta", "measure_2"])

    found = timed("\nquery with conditions, groups and two values", asked)
    assert 15_000 < found["n"].sum() < 25_000
    statement = "select selector, avg(risk_delta) as delta from runs group by 1"
    found = timed("sql over all 61 columns", lambda: queries.sql(open_cube(folder), statement))
    assert len(found) == 5


def test_an_import_of_1_000_000_rows(tmp_path: Path) -> None:
    place = np.arange(1_000_000)
    rows = pd.DataFrame(
        {"organism": place // 10_000, "label_shift": np.array(AXES["label_shift"][:4])[place // 2_500 % 4],
         "selector": np.array(AXES["selector"])[place // 500 % 5], "seed": place % 500, "risk_before": 0.5,
         "risk_after": np.random.default_rng(0).random(len(place)).round(6)}
    )  # fmt: skip
    rows.to_csv(tmp_path / "rows.csv", index=False)
    mapped = Mapped(
        factors={name: name for name in ("label_shift", "selector")}, unit=("organism",), response="risk_after",
        baseline="risk_before", seed="seed",
    )  # fmt: skip
    made = timed(
        "\nimport with tables and verdict", lambda: import_rows(tmp_path / "rows.csv", mapped, tmp_path / "out")
    )
    assert made.runs == {"ok": 1_000_000}
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
