"""Everything that is said about a cube of 100,000 runs. Prints times and memory; asserts what was found.

Run with ``make bench``.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
import xarray as xr

from ablate import effects, findings
from ablate.effects.worlds import world
from ablate.options import Analysis

pytestmark = pytest.mark.bench


def cube() -> xr.DataTree:
    """50 organisms x 8 label shifts x 10 selectors x 25 seeds, with labels' measures that follow the effect."""
    rng = np.random.default_rng(1)
    shifts, selectors = ["none", *(f"s{i}" for i in range(1, 8))], ["first", *(f"t{i}" for i in range(1, 10))]
    effect = [0, -20, 5, *[1] * 5]
    root = world(
        0, organisms=50, seeds=25, shifts=shifts, selectors=selectors, shift=effect, selector=[0] * 10, org_shift=4
    )
    delta = root["risk_delta"]
    m_ts = (0.5 + delta + 0.02 * rng.normal(size=delta.shape)).clip(0, 1)
    m_t = m_ts.mean("selector").broadcast_like(delta).transpose(*delta.dims)
    columns = {"m_p": xr.full_like(delta, 0.5), "m_t": m_t, "m_ts": m_ts}
    columns |= {"shift_term": m_t - 0.5, "selection_term": m_ts - m_t, "kl_shift": 3 * abs(m_t - 0.5)}
    columns |= {"misaligned_delta": 0.8 * delta, "mmd2": abs(m_ts - 0.5)}
    columns |= {name: xr.full_like(delta, 0.2) for name in ("unparsed_before", "unparsed_after")}
    own = {"calibrated": np.ones(50, np.int8), "organism_risk": np.full(50, 0.5), "organism_unparsed": np.full(50, 0.2)}
    root = root.assign(columns).assign({name: ("organism", values) for name, values in own.items()})
    null = (("control", "organism", "seed"), rng.normal(0, 0.02, (1, 50, 25)))
    controls = xr.Dataset({"risk_delta": null}, {"control": ["null"]})
    return xr.DataTree.from_dict({"/": root, "/controls": controls})


def test_a_hundred_thousand_runs(capsys: pytest.CaptureFixture[str]) -> None:
    tree, bars = cube(), Analysis()
    effects.decomposition(world(organisms=4, selector=(0, 2, 4), shift=(0, 2, 4)))  # pingouin is imported on first use
    before_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines = []
    for name, run in (
        ("verdict", lambda: effects.verdict(tree, **bars.model_dump())),
        ("contrasts", lambda: effects.contrasts(tree)),
        ("decomposition", lambda: effects.decomposition(tree)),
        ("all findings", lambda: findings.find(tree, bars)),
    ):
        began, cpu = time.perf_counter(), time.process_time()
        found = run()
        lines.append(f"{name} {time.perf_counter() - began:.2f} s ({time.process_time() - cpu:.2f} s of processor)")
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with capsys.disabled():
        print(f"\n{tree['status'].size} runs: {', '.join(lines)}; peak {peak_gb:.2f} GB, {before_gb:.2f} of it before")
    assert [own.cause for own in found.verdicts] == ["label_shift"]
    assert "10,000 random" in found.frames["effects"].attrs["methods"]
