"""The guard can fail: what the acceptance simulations say when a known mistake is put back into the statistics."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from ablate.effects import components
from ablate.effects.acceptance import WORLDS, acceptance
from ablate.effects.intervals import Interval

contrasts = import_module("ablate.effects.contrasts")  # the package names its function so
WORLD = {kind.name: kind for kind in WORLDS}


def organism_as_fixed(monkeypatch):
    """Every pair of runs is a unit: the error term has no organism x factor in it, as if organisms were fixed."""
    honest = contrasts.main_contrasts

    def fixed(block, factor):
        for row in honest(block, factor):
            pairs = block.differences(factor, block.levels[factor].index(row.end))
            yield replace(row, differences=pairs.reshape(-1))

    monkeypatch.setattr(contrasts, "main_contrasts", fixed)


def percentile_intervals(monkeypatch):
    """The percentile bootstrap of organisms in place of t."""

    def percentile(values, level=0.95):
        there = values[np.isfinite(values)]
        drawn = np.random.default_rng(0).choice(there, (500, there.size)).mean(axis=1)
        return Interval(float(there.mean()), *map(float, np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])))

    monkeypatch.setattr(contrasts, "t_interval", percentile)


def raw_eta_squared(monkeypatch):
    """Sums of squares of the means over organisms as they are, noise included."""

    def raw(vectors):
        average = vectors.mean(axis=0)
        return ((average**2).sum() + 2 * (vectors - average) @ average) / vectors.shape[1]

    monkeypatch.setattr(components, "squared_mean", raw)


@pytest.mark.parametrize(
    ("mutate", "world", "organisms", "simulations", "failing"),
    [
        (organism_as_fixed, "organisms alone", 8, 24, {"coverage", "type I", "familywise"}),
        (percentile_intervals, "label shift", 6, 30, {"coverage"}),
        (raw_eta_squared, "label shift, organisms differ", 10, 20, {"share bias"}),
    ],
)
def test_a_mutation_of_the_statistics_is_caught(monkeypatch, mutate, world, organisms, simulations, failing):
    def check():
        table = acceptance(simulations, organisms=(organisms,), worlds=[WORLD[world]])
        return set(table.loc[~table["passed"], "quantity"])

    assert check() == set()
    mutate(monkeypatch)
    assert check() == failing
