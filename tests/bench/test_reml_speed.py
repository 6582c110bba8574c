"""Variance components against statsmodels, in one process on the same frame. Prints ratios; asserts equal results.

Run with ``make bench``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM

from ablate.effects.reml import variance_components

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]

RANDOM = ["organism", "organism:shift", "organism:selector", "organism:shift:selector", "organism:seed"]


def world(organisms: int, shifts: int, selectors: int, seeds: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    shape = {"organism": organisms, "shift": shifts, "selector": selectors, "seed": seeds}
    frame = pd.MultiIndex.from_product(map(range, shape.values()), names=shape).to_frame(index=False)
    o, a, b, s = frame.to_numpy().T
    y = rng.normal(0, 4, organisms)[o] + rng.normal(0, 3, (organisms, shifts))[o, a] + 2.0 * a - b
    y += rng.normal(0, 2, (organisms, selectors))[o, b] + rng.normal(0, 1.5, (organisms, seeds))[o, s]
    y += rng.normal(0, 2, (organisms, shifts, selectors))[o, a, b] + rng.normal(0, 2.5, len(frame))
    return frame.astype(str).assign(y=y)


def timed(run: Callable[[], Any], times: int) -> tuple[float, Any]:
    took, result = [], None
    for _ in range(times):
        began = time.perf_counter()
        result = run()
        took.append(time.perf_counter() - began)
    return min(took), result


@pytest.mark.parametrize("seeds", [2, 8])
def test_five_components(seeds: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is nested in organisms, which is the case that MixedLM factors group by group, too."""
    frame = world(20, 6, 5, seeds)
    terms = {"b": "shift", "c": "selector", "d": "shift:selector", "e": "seed"}
    parts = {name: f"0 + {term}" for name, term in terms.items()}
    ours_s, table = timed(lambda: variance_components(frame, "y", ["shift", "selector"], RANDOM), 5)
    options = {"groups": "organism", "re_formula": "1", "vc_formula": parts}
    theirs_s, oracle = timed(lambda: MixedLM.from_formula("y ~ shift + selector", frame, **options).fit(), 1)
    with capsys.disabled():
        rows = f"{len(frame)} rows, 5 components"
        print(f"\n{rows}: {theirs_s / ours_s:.0f} times as fast as MixedLM ({ours_s:.3f} s with all intervals)")
    found = [oracle.cov_re.iloc[0, 0], *oracle.vcomp, oracle.scale]
    assert table.variance.to_numpy() == pytest.approx(found, rel=0.02)
    assert table.attrs["criterion"] <= -2 * oracle.llf + 1e-6


def test_one_component(capsys: pytest.CaptureFixture[str]) -> None:
    frame = world(20, 6, 5, 8).iloc[::3]
    ours_s, table = timed(lambda: variance_components(frame, "y", ["shift"], ["organism"]), 5)
    theirs_s, oracle = timed(lambda: MixedLM.from_formula("y ~ shift", frame, groups="organism").fit(), 3)
    with capsys.disabled():
        print(f"\n{len(frame)} rows, 1 component: {theirs_s / ours_s:.1f} times as fast as MixedLM, intervals included")
    assert table.variance.to_numpy() == pytest.approx([oracle.cov_re.iloc[0, 0], oracle.scale], rel=1e-3)
