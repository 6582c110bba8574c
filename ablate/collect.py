"""From a plan and its folder to the cube: every cell's state, its numbers, and the hashes that prove what was fixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ablate import cube as cubes
from ablate import registry
from ablate.api import Column, Evaluation, FloatArray, mean_outcome
from ablate.methods import METHOD, point
from ablate.options import DEFAULT_LEVELS
from ablate.plan import Plan, level, measures_of
from ablate.records import METHOD_NAME
from ablate.stages import checked, read_evaluation
from ablate.states import State
from ablate.store import Store
from ablate.workplace import generator

VALID_RISK = (0.1, 0.9)
"""An organism whose risk before training lies outside has no room to move: `invalid_organism`."""


PER_PROMPT = {
    "label_risk": Column(
        "risk of the label", "1", "higher is worse", "weighted mean of M over the judged labels of a prompt"
    ),
    "label_tokens": Column("length of the label", "tokens", "neither", "weighted mean over the labels of a prompt"),
}
"""Columns of the group ``labels``, one number a label prompt."""

PER_CANDIDATE = {
    "pool_outcome": Column(
        "outcome M of a candidate", "1", "higher is worse", "the behavior's indicator; NaN was not judged"
    ),
    "pool_class": Column(
        "class of a candidate", "1", "neither", "candidates of a prompt that state one answer; -1 states none"
    ),
    "label_score": Column("score of a candidate", "of the scorer", "neither", "what the selector saw; NaN saw none"),
    "pool_x": Column("first principal component of a candidate's embedding", "1", "neither", "PCA of all pools"),
    "pool_y": Column("second principal component of a candidate's embedding", "1", "neither", "PCA of all pools"),
}
"""Columns of the group ``labels``, one number a candidate: of every pool, and of every run."""


MAPPED = 20_000
"""Embeddings from which the plane of `pool_x` and `pool_y` is found; all are put on it."""


class MeasureFailedError(RuntimeError):
    """A measure of a run raised; that run has no numbers, the others do."""


class Collector:
    """Reads every evaluation once, measures the runs, and puts the cube together.

    A run of which a measure raises has failed, from then on in ``states`` too; the digest that comes of it is
    none that a new collector has, so that the same command tries again.
    """

    def __init__(self, plan: Plan, store: Store, found: Sequence[State]) -> None:
        self.plan, self.store = plan, store
        self.measures = [level(m) for m in measures_of(plan.study.options, "run")]
        names = [m["name"] for m in (*self.measures, *(level(m) for m in measures_of(plan.study.options, "labels")))]
        self.columns: dict[str, Column] = {}
        for name in names:
            self.columns |= registry.get("measure", name).traits["columns"]
        self.states = list(found)
        self._evaluations: dict[str, Evaluation] = {}
        self._own: dict[int, list[str]] = defaultdict(list)  # evaluations of each organism itself
        for key, i in dict.fromkeys((state.cell.before, state.cell.organism) for state in self.states):
            if store.has(key):
                self._own[i].append(key)
        self._places: dict[int, dict[str, int]] = {}

    def cube(self, attrs: Mapping[str, Any]) -> xr.DataTree:
        """The cube of the study as far as it got."""
        runs = [self._run(i) for i in range(len(self.plan.cells))]
        tree = cubes.build(
            [self._organism(i) for i in range(len(self.plan.organisms))],
            {axis.dim: axis.labels for axis in self.plan.axes},
            self.plan.study.options.seeds,
            runs,
            {**self.columns, **PER_PROMPT},
            [list(self._items(i).values()) for i in range(len(self.plan.organisms))],
            attrs,
            labels=self._labels(),
        )
        tree["labels"] = tree.children["labels"].to_dataset(inherit=False).assign(self._candidates())
        tree["controls"] = self._controls()
        tree.dataset = tree.to_dataset(inherit=False).assign_coords(self._points())
        if family := self.plan.study.options.analysis.family:
            tree.attrs["family"] = list(family)
        return tree

    def _points(self) -> dict[str, Any]:
        """Which level of each mechanism a method is, by method; nothing where none are compared."""
        methods = [method for axis in self.plan.axes if axis.path == METHOD for method in axis.levels]
        return {
            f"method_{family}": (
                METHOD_NAME,
                np.array([point(method)[family].label for method in methods], object),
                cubes.text_attrs(f"the method's own {family}"),
            )
            for family in (DEFAULT_LEVELS if methods else ())
        }

    def _evaluation(self, key: str) -> Evaluation:
        """An evaluation, kept: many runs are compared to that of their organism, and aliased runs share theirs."""
        if key not in self._evaluations:
            self._evaluations[key] = read_evaluation(self.store.read(key))
        return self._evaluations[key]

    def _measured(self, i: int) -> tuple[State, dict[str, float], FloatArray | None, FloatArray | None]:
        """Run ``i`` with its numbers, or as failed."""
        try:
            return self.states[i], *self._values(self.states[i])
        except MeasureFailedError as failed:
            self.states[i] = replace(self.states[i], status="failed", after="", error=str(failed))
            return self.states[i], {}, None, None

    def _values(self, state: State) -> tuple[dict[str, float], FloatArray | None, FloatArray | None]:
        if not state.after:
            return {}, None, None
        before, after = self._evaluation(state.cell.before), self._evaluation(state.after)
        values = {name: float(value) for name, value in self.store.read(state.cell.measure).json("values.json").items()}
        for measure in self.measures:
            plugin = registry.get("measure", measure["name"])
            rng = generator("measure", self.plan.organisms[state.cell.organism].induction_seed, state.cell.seed)
            try:
                values |= checked(plugin, plugin(before, None, after, rng, **measure["options"]))
            except Exception as error:  # whatever a plug-in raises is this run's failure, not the study's
                raise MeasureFailedError(f"measure '{plugin.name}': {type(error).__name__}: {error}") from error
        return values, self._placed(state, before), self._placed(state, after)

    def _placed(self, state: State, evaluation: Evaluation) -> FloatArray:
        """Mean outcome of every item of the organism; NaN where this evaluation did not ask it."""
        i = state.cell.organism
        if i not in self._places:
            self._places[i] = {name: place for place, name in enumerate(self._items(i))}
        means = np.full(len(self._places[i]), np.nan, np.float32)
        means[[self._places[i][prompt.id] for prompt in evaluation.prompts]] = item_means(evaluation)
        return means

    def _run(self, i: int) -> cubes.Run:
        state, values, before, after = self._measured(i)
        cell = state.cell
        keys = {"organism": self.plan.organisms[cell.organism].stage, "pool": cell.pool}
        keys |= {
            name: key
            for name, key in (("labels", state.content), ("train", state.train), ("after", state.after))
            if key
        }
        point = dict(zip((axis.dim for axis in self.plan.axes), cell.point, strict=True))
        return cubes.Run(cell.organism, point, cell.seed, state.status, values, before, after, keys, state.error)

    def _organism(self, i: int) -> cubes.Organism:
        own = self.plan.organisms[i]
        outcomes = [_risk_items(self._evaluation(key)) for key in self._own[i]]
        risks = [mean_outcome(outcome) for outcome in outcomes]
        risk, unparsed = (
            float(np.mean(values)) if values else float("nan")
            for values in (risks, [np.isnan(outcome).mean() for outcome in outcomes])
        )
        valid = (
            not risks or VALID_RISK[0] <= risk <= VALID_RISK[1]
        )  # one that was not made is not invalid, it is missing
        calibration = self.store.read(own.stage).json("calibration.json") if self.store.has(own.stage) else {}
        reached = calibration.get("reached", True)
        return cubes.Organism(own.model, own.behavior, own.induction_seed, own.options, risk, valid, unparsed, reached)

    def _items(self, i: int) -> dict[str, cubes.Item]:
        """Every evaluation prompt of an organism by id: where their number is swapped, the union."""
        prompts = (prompt for key in self._own[i] for prompt in self._evaluation(key).prompts)
        return {prompt.id: cubes.Item(prompt.id, prompt.kind, prompt.split, prompt.item) for prompt in prompts}

    def _labels(self) -> dict[str, Any]:
        """What the labels of every run are, prompt by prompt: [*cells, prompt], NaN where a prompt got none."""
        axes = self.plan.axes
        dims = [len(self.plan.organisms), *(len(axis.labels) for axis in axes[:3]), len(self.plan.study.options.seeds)]
        dims += [len(axis.labels) for axis in axes[3:]]
        prompts = max(state.cell.options.labels.prompts for state in self.states)
        arrays = {name: np.full((*dims, prompts), np.nan) for name in PER_PROMPT}
        seeds = list(self.plan.study.options.seeds)
        for state in self.states[: len(self.plan.cells)]:
            if state.content:
                point = [axis.labels.index(label) for axis, label in zip(axes, state.cell.point, strict=True)]
                at = (state.cell.organism, *point[:3], seeds.index(state.cell.seed), *point[3:])
                for name, values in self._of_labels(state).items():
                    arrays[name][at][: len(values)] = values
        return arrays

    def _candidates(self) -> dict[str, Any]:
        """Every pool's candidates as they were judged, scored and selected from; once for all selectors of a pool."""
        axes, seeds = self.plan.axes, list(self.plan.study.options.seeds)
        sizes = {"organism": len(self.plan.organisms)} | {axis.dim: len(axis.labels) for axis in axes[:3]}
        sizes |= {"seed": len(seeds)} | {axis.dim: len(axis.labels) for axis in axes[3:]}
        ours = [axis.dim for axis in axes[3:] if axis.path == METHOD or axis.path.startswith("labels.")]
        own = ["organism", axes[0].dim, "seed", *ours]  # a method brings a label shift and a number of candidates
        options = [state.cell.options.labels for state in self.states]
        last = (max(labels.prompts for labels in options), max(labels.candidates for labels in options))
        dims = {name: list(sizes) if name == "label_score" else own for name in PER_CANDIDATE}
        arrays = {
            # a score keeps its precision, or answers would tie that did not
            name: np.full((*(sizes[dim] for dim in on), *last), np.nan, "f8" if name == "label_score" else "f4")
            for name, on in dims.items()
        }
        laws: dict[int, set[str]] = defaultdict(set)
        pools: dict[tuple[int, ...], str] = {}  # what lies where; methods may share one
        clouds: dict[str, FloatArray] = {}
        for state in self.states[: len(self.plan.cells)]:
            at = {axis.dim: axis.labels.index(label) for axis, label in zip(axes, state.cell.point, strict=True)}
            at |= {"organism": state.cell.organism, "seed": seeds.index(state.cell.seed)}
            found: dict[str, FloatArray] = {}
            if (here := tuple(at[dim] for dim in own)) not in pools and self.store.has(state.cell.pool):
                pools[here] = state.cell.pool
                pool = self.store.read(state.cell.pool).arrays("pool.safetensors")
                found = {"pool_outcome": pool["outcome"], "pool_class": pool["classes"]}
                embedded = self.plan.stages[state.cell.measure].inputs.get("embedding", "")
                if embedded and self.store.has(embedded):
                    cloud = self.store.read(embedded).arrays("embedding.safetensors")["embedding"]
                    clouds[state.cell.pool] = cloud
            if state.content:
                labels = self.store.read(state.cell.labels)
                found["label_score"] = labels.arrays("labels.safetensors")["scores"]
                laws[at[axes[1].dim]].add(labels.notes["law"] or "")
            for name, values in found.items():
                place = tuple(at[dim] for dim in dims[name])
                arrays[name][place][: values.shape[0], : values.shape[1]] = values
        plane = _plane(clouds)
        for place, points in ((place, plane[key]) for place, key in pools.items() if key in plane):
            for name, axis in (("pool_x", 0), ("pool_y", 1)):
                arrays[name][place][: points.shape[0], : points.shape[1]] = points[..., axis]
        data: dict[str, Any] = {
            name: ((*dims[name], "prompt", "candidate"), array, cubes.column_attrs(PER_CANDIDATE[name]))
            for name, array in arrays.items()
        }
        # methods may mean different selectors by one level: then it has no one law
        law = np.array([next(iter(laws[i])) if len(laws[i]) == 1 else "" for i in range(len(axes[1].labels))], object)
        return data | {"law": (axes[1].dim, law, cubes.text_attrs("how the selector's labels are distributed"))}

    def _of_labels(self, state: State) -> dict[str, FloatArray]:
        pool = self.store.read(state.cell.pool).arrays("pool.safetensors")
        weights = self.store.read(state.cell.labels).arrays("labels.safetensors")["weights"]
        judged = np.where(np.isnan(pool["outcome"]), 0.0, weights)
        outcome = np.nan_to_num(pool["outcome"])

        def mean(values: FloatArray, by: FloatArray) -> FloatArray:
            total = by.sum(1)
            means: FloatArray = np.divide((values * by).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)
            return means

        return {"label_risk": mean(outcome, judged), "label_tokens": mean(pool["lengths"], weights)}

    def _controls(self) -> xr.Dataset:
        """Runs with a known answer, outside the design: dims (control, organism, seed, *settings of other options)."""
        order = {name: i for i, name in enumerate(dict.fromkeys(control.name for control in self.plan.controls))}
        seeds = {seed: i for i, seed in enumerate(self.plan.study.options.seeds)}
        settings = {axis.dim: list(axis.labels) for axis in self.plan.axes if axis.setting}
        shape = (len(order), len(self.plan.organisms), len(seeds), *map(len, settings.values()))
        values = {name: np.full(shape, np.nan) for name in self.columns}
        status = np.zeros(shape, np.int8)
        for i, control in enumerate(self.plan.controls, len(self.plan.cells)):
            state, numbers, _, _ = self._measured(i)
            point = (own.index(label) for own, label in zip(settings.values(), control.setting, strict=True))
            at = order[control.name], state.cell.organism, seeds[state.cell.seed], *point
            status[at] = cubes.STATUSES.index(state.status)
            for column, value in numbers.items():
                values[column][at] = value
        dims = ("control", "organism", "seed", *settings)
        data = {name: (dims, array, cubes.column_attrs(self.columns[name])) for name, array in values.items()}
        data["status"] = (dims, status, cubes.flags("how far the control got", cubes.STATUSES))
        coords = {"control": np.array(list(order), object), "organism": range(shape[1]), "seed": list(seeds)}
        return xr.Dataset(data, {**coords, **settings})


def _plane(clouds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Every cloud [P, K, D] on the plane of the two directions in which all of them together vary most, [P, K, 2]."""
    if not clouds or next(iter(clouds.values())).shape[-1] < 2:
        return {}
    from sklearn.decomposition import PCA  # takes a while to import

    analysis: Any = PCA  # parts of scikit-learn are untyped
    flat = [cloud.reshape(-1, cloud.shape[-1]) for cloud in clouds.values()]
    every = np.concatenate(flat)
    plane = analysis(2, svd_solver="covariance_eigh").fit(every[:: len(every) // MAPPED + 1])
    return {
        pool: plane.transform(own).reshape(*cloud.shape[:-1], 2)
        for (pool, cloud), own in zip(clouds.items(), flat, strict=True)
    }


def item_means(evaluation: Evaluation) -> FloatArray:
    """Mean outcome of each item over its judged samples, float32 [I]; NaN where none was."""
    judged = ~np.isnan(evaluation.outcome)
    total = np.where(judged, evaluation.outcome, 0.0).sum(1)
    means: FloatArray = np.divide(total, judged.sum(1), out=np.full(len(total), np.nan), where=judged.any(1))
    return means.astype(np.float32)


def _risk_items(evaluation: Evaluation) -> FloatArray:
    return evaluation.outcome[[i for i, prompt in enumerate(evaluation.prompts) if prompt.kind == "risk"]]
