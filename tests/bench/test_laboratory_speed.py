"""The tabular laboratory at 10,000 runs, from YAML to a cube on the disk. Prints times; asserts that all is there.

Run with ``make bench``.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from ablate.cube import open_cube, write
from ablate.study import loads
from ablate.workflow import cube_in_memory

pytestmark = pytest.mark.bench

STUDY = """\
question: how fast is the laboratory?
model: tabular
organism: {behavior: tabular, seeds: 50, examples: 64}
factors:
  label_shift: {swap: [none, greedy, clean_view, cot_view]}
  selector: {swap: [first, random, majority, {argmax: {scorer: mean_logprob}}, {argmin: {scorer: mean_logprob}}]}
labels: {prompts: 8, candidates: 3}
train: {batch: 8}
evaluate: {items: 12, capability: 0, samples: 1}
seeds: 10
measures: [risk, price]
"""


def test_ten_thousand_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    write(cube_in_memory(loads(STUDY, source="laboratory.yaml")), tmp_path / "cube.zarr")
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    status = open_cube(tmp_path / "cube.zarr")["status"].values
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with capsys.disabled():
        print(
            f"\n{status.size} runs from YAML to cube: {wall_s:.1f} s, {cpu_s:.1f} s of processor, peak {peak_gb:.2f} GB"
        )
    assert status.size == 10_000
    assert set(status.ravel().tolist()) == {1, 4}  # ok and aliased
