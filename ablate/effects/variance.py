"""Variance components of the runs of a cube: what organisms, seeds and runs differ by, item noise as its own line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ablate.api import FloatArray
from ablate.effects.block import Block, BoolArray
from ablate.effects.components import drawn, noise
from ablate.effects.contrasts import degrees, gather
from ablate.effects.grid import balanced
from ablate.effects.intervals import Interval, drawn_shares, fieller, t_interval
from ablate.effects.itemnoise import outcomes, samples_of, sampling_variance
from ablate.effects.reml import variance_components
from ablate.errors import StudyError

FOLDS = 10
"""Groups of organisms that a jackknife leaves out at most."""


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The runs of one setting of the other factors on which a residual can be told: [organism, shift, selector, seed].

    ``there`` marks those with a risk; ``sampling`` is the item noise of each, by ``after`` and ``before``, and
    ``how`` says by which method it is known.
    """

    y: FloatArray
    there: BoolArray
    sampling: Mapping[str, FloatArray]
    how: Mapping[str, str]
    of_seed: bool  # whether each seed has an evaluation before training of its own
    notes: tuple[str, ...]

    @property
    def crossed(self) -> list[str]:
        """The factors that have levels here."""
        return [name for name, size in zip(("label_shift", "selector"), self.y.shape[1:3], strict=True) if size > 1]

    @property
    def seeds(self) -> bool:
        """Whether there are several."""
        return bool(self.y.shape[3] > 1)


def variance(cube: xr.DataTree, *, samples: int | None = None) -> pd.DataFrame:
    """The random part of a run's variance, taken apart, for each behavior and setting of the other factors.

    Model: risk_delta ~ label_shift * selector + organism + organism:label_shift + organism:selector +
    organism:label_shift:selector + seed within organism + residual; only factors with several levels are in it, and
    only label shifts under which selection can act where there are several selectors. With one seed the largest
    interaction cannot be told from the residual nor the seed from the organism: the names say so. The sampling of
    the answers is taken out of the line that holds it (after training: the residual; before: the seed, or the
    organism where its seeds share an evaluation) and stands on its own. All lines sum to what they summed to.

    Columns:

    - ``behavior``, the other swapped factors, ``term``.
    - ``variance_pp2, low, high``: by expected mean squares where every organism has every run, unbiased, perhaps
      negative, with modified large-sample limits; else by REML, never negative, with profile limits (see
      `variance_components`; both move by the item noise that was taken out). Of the item lines: the mean
      over organisms with its t limits.
    - ``share, share_low, share_high``: of the sum of all lines; 95% generalized pivotal limits (`components.drawn`);
      with REML, or one factor, Fieller limits over jackknife pseudo-values of at most 10 groups of organisms, NaN
      below three organisms and where the sum itself may be 0.
    - ``method``: ems or reml; of the item lines see `itemnoise.sampling_variance`.
    - ``organisms, runs``: those on which the row rests; ``.attrs["notes"]`` say which runs are left out.

    Args:
        cube: a whole cube, with its group ``items``.
        samples: answers to each item; read from ``attrs["evaluation"]`` where None.

    Raises:
        StudyError: no group ``items``, no factor with two levels, runs that leave no residual; what `contrasts`
            and `variance_components` refuse.
    """
    samples = samples_of(cube) if samples is None else samples

    def rows(block: Block) -> pd.DataFrame:
        frames = [_of_stratum(cube, block, stratum, samples) for stratum in np.ndindex(block.shape[2:])]
        joined = pd.concat(frames, ignore_index=True)
        notes = list(dict.fromkeys(note for frame in frames for note in frame.attrs["notes"]))
        used, made = sum(int(frame["runs"].iloc[0]) for frame in frames), block.counts["runs"]
        joined.attrs["notes"] = [*notes, *([f"{block.behavior}: {used} of {made} runs used"] if used < made else [])]
        return joined

    table = gather(cube, rows)
    how = {"ems": "expected mean squares (modified large-sample limits)", "reml": "REML (profile limits)"}
    used = " and ".join(how[name] for name in how if name in set(table["method"]))
    groups = "" if table["organisms"].max() <= FOLDS else f" (shares by REML or of one factor: {FOLDS} groups of them)"
    table.attrs["methods"] = (
        f"random effects of organisms by {used}, item noise subtracted and shown with t limits, shares with "
        "generalized pivotal limits (by REML or of one factor: Fieller), over organisms with "
        f"{degrees(table)} df{groups}"
    )
    return table


def _of_stratum(cube: xr.DataTree, block: Block, stratum: tuple[int, ...], samples: int | None) -> pd.DataFrame:
    runs = _runs(cube, block, stratum, samples)
    if not runs.crossed:
        raise StudyError(f"{block.behavior}: label_shift and selector have one level each, no residual to tell")
    complete = bool(runs.there.all())
    method = "ems" if complete else "reml"
    names = _names(runs)
    try:
        found = _components(runs, method)
    except StudyError as fault:
        raise StudyError(f"{block.behavior}: {fault}") from None
    limits = {names[term]: Interval(*line) for term, *line in found.itertuples(index=False)}
    item = {when: _per_organism(runs, when) for when in runs.sampling}
    receiver = {"after": names["residual"], "before": names["seed" if runs.seeds and runs.of_seed else "organism"]}
    for when, part in item.items():
        taken, line = float(part.mean()), limits[receiver[when]]
        limits[receiver[when]] = Interval(*(value - taken for value in line))
        limits[f"item sampling, {when}"] = t_interval(part)._replace(estimate=taken)
    shares = _shares(runs, method, names, item, receiver)
    setting = {
        factor: block.levels[factor][level]
        for factor, level in zip(list(block.levels)[2:], stratum, strict=True)
        if factor in block.several
    }
    frame = pd.DataFrame(
        [
            {
                "behavior": block.behavior,
                **setting,
                "term": term,
                "variance_pp2": line.estimate,
                "low": line.low,
                "high": line.high,
                **dict(zip(("share", "share_low", "share_high"), shares[term], strict=True)),
                "method": runs.how.get(term, method),
                "organisms": int(runs.there.any(axis=(1, 2, 3)).sum()),
                "runs": int(runs.there.sum()),
            }
            for term, line in limits.items()
        ]
    )
    bounded = [term for term, how in runs.how.items() if how in ("bound", "replicates")]
    notes = [f"{block.behavior}: {', '.join(bounded)}: upper bounds, what they are taken from lower ones"]
    frame.attrs["notes"] = [*runs.notes, *(notes if bounded else [])]
    return frame


def _runs(cube: xr.DataTree, block: Block, stratum: tuple[int, ...], samples: int | None) -> _Runs:
    there = np.isfinite(block.response)
    grid = balanced(replace(block, response=np.where(there, block.response, 0.0)), [stratum])
    shifts = grid.active

    def placed(values: FloatArray) -> FloatArray:
        """Values of every run [organism, *levels, seed] on the same levels as the grid, gaps as 0."""
        whole = np.where(there, np.broadcast_to(values, there.shape), 0.0)
        return balanced(replace(block, response=whole), [stratum]).runs[:, :, :, 0][:, shifts]

    sampling, how = {}, {}
    for when in ("after", "before"):
        variances, method = sampling_variance(outcomes(cube, block, when), samples)
        sampling[when], how[f"item sampling, {when}"] = placed(np.nan_to_num(variances)), method
    of_seed = "seed" in cube["items"]["outcome_before"].dims
    kept = placed(there.astype(float)) > 0
    left = [
        f"{block.behavior}: label_shift {name} is left out, since selection cannot act under it"
        for name, used in zip(grid.shifts, shifts, strict=True)
        if not used
    ]
    return _Runs(grid.runs[:, :, :, 0][:, shifts], kept, sampling, how, of_seed, (*grid.notes, *left))


def _names(runs: _Runs) -> dict[str, str]:
    """What the terms of the model are called in the table."""
    both = ":".join(["organism", *runs.crossed])
    names = {term: term for term in _terms(runs)} | {"residual": "residual"}
    if runs.seeds:
        return {**names, "organism:seed": "seed", "seed": "seed"}
    return {**names, "organism": "organism and seed", "residual": f"{both} and residual"}


def _terms(runs: _Runs) -> list[str]:
    single = [f"organism:{name}" for name in runs.crossed]
    terms = ["organism", *(single if runs.seeds or len(single) > 1 else [])]
    if runs.seeds:
        terms += ["organism:label_shift:selector"] if len(single) > 1 else []
        terms.append("organism:seed")
    return terms


def _components(runs: _Runs, method: Any) -> pd.DataFrame:
    """Terms of the model with variance, low and high."""
    columns = dict(zip(("organism", "label_shift", "selector", "seed"), np.nonzero(runs.there), strict=True))
    # as text: a numeric column would be a covariate
    data: dict[str, Any] = {name: pd.Categorical(codes).rename_categories(str) for name, codes in columns.items()}
    fixed = [*runs.crossed, *([":".join(runs.crossed)] if len(runs.crossed) > 1 else [])]
    found = variance_components(pd.DataFrame({**data, "y": runs.y[runs.there]}), "y", fixed, _terms(runs), method)
    return found[["term", "variance", "low", "high"]]


def _per_organism(runs: _Runs, when: str) -> FloatArray:
    """Mean item noise of the runs of each organism that has any, [organism]."""
    count = runs.there.sum(axis=(1, 2, 3))
    return np.asarray((runs.sampling[when] * runs.there).sum(axis=(1, 2, 3))[count > 0] / count[count > 0])


def _shares(
    runs: _Runs, method: str, names: Mapping[str, str], item: Mapping[str, FloatArray], receiver: Mapping[str, str]
) -> dict[str, Interval]:
    lines = (
        _pseudo_values(runs, names) if method == "ems" and len(runs.crossed) > 1 else _jackknife(runs, method, names)
    )
    pseudo: dict[str, FloatArray] = {}
    groups = len(next(iter(lines.values())))
    for when, part in item.items():
        part = part if len(part) == groups else np.array([fold.mean() for fold in np.array_split(part, groups)])
        lines[receiver[when]] = lines[receiver[when]] - part
        pseudo[f"item sampling, {when}"] = part
    pseudo = {**lines, **pseudo}
    if method == "ems" and len(runs.crossed) > 1 and groups > 2:
        draws = _named(runs, names, drawn(runs.y))
        for when, part in item.items():
            taken = float(part.mean())
            draws[receiver[when]] = draws[receiver[when]] - taken
            draws[f"item sampling, {when}"] = np.full(len(draws[receiver[when]]), taken)
        return drawn_shares(draws, {term: float(part.mean()) for term, part in pseudo.items()})
    total = np.sum(list(pseudo.values()), axis=0)
    if not total.mean() > 0:
        return dict.fromkeys(pseudo, Interval(np.nan, np.nan, np.nan))
    found = {term: fieller(part, total) for term, part in pseudo.items()}
    return found if groups > 2 else {term: Interval(own.estimate, np.nan, np.nan) for term, own in found.items()}


def _pseudo_values(runs: _Runs, names: Mapping[str, str]) -> dict[str, FloatArray]:
    """`components.noise` under the names of the table."""
    return _named(runs, names, noise(runs.y))


def _named(runs: _Runs, names: Mapping[str, str], parts: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    order = ["organism", "organism:seed", "organism:label_shift", "organism:selector"]
    order += ["organism:label_shift:selector", "residual"]
    own = [term for term in order if term in (*_terms(runs), "residual")]
    return {names[term]: part for term, part in zip(own, parts.values(), strict=True)}


def _jackknife(runs: _Runs, method: str, names: Mapping[str, str]) -> dict[str, FloatArray]:
    """Pseudo-values of every component, [group of organisms]; where one group is all there is, the estimate twice."""
    made = np.flatnonzero(runs.there.any(axis=(1, 2, 3)))
    folds = np.array_split(made, min(FOLDS, len(made)))
    whole = _components(runs, method)
    terms, count = [names[term] for term in whole["term"]], len(folds)
    if count < 3:
        return {term: np.full(2, value) for term, value in zip(terms, whole["variance"], strict=True)}
    without = np.array(
        [_components(_only(runs, np.setdiff1d(made, fold)), method)["variance"].to_numpy() for fold in folds]
    )
    values = count * whole["variance"].to_numpy() - (count - 1) * without
    # the spread of the pseudo-values around the estimate itself, so that the shares of the table's lines sum to 1
    values += whole["variance"].to_numpy() - values.mean(axis=0)
    return dict(zip(terms, values.T, strict=True))


def _only(runs: _Runs, organisms: Any) -> _Runs:
    sampling = {when: part[organisms] for when, part in runs.sampling.items()}
    return replace(runs, y=runs.y[organisms], there=runs.there[organisms], sampling=sampling)
