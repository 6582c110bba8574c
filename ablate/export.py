"""A study as two folders that the Hugging Face Hub takes as they are: adapters (a model), and everything else (data).

::

    data/     README.md  labels.jsonl  items.jsonl  runs.jsonl  cube.zarr/  tables/  study.yaml  provenance.json
    model/    README.md  adapters.jsonl  organism-0/  run-<key>/ ...    each as PEFT loads it
    export.json                                                        says that this folder may be written anew
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate.dataset import (
    ITEM_COLUMNS,
    LABEL_COLUMNS,
    features,
    item_rows,
    label_rows,
    numbers,
    run_features,
    run_rows,
    where,
)
from ablate.errors import StudyError
from ablate.lm.adapter import adapter_config
from ablate.lm.embedded import EMBEDDED
from ablate.outfolder import OutFolder, rewritten
from ablate.plan import Plan, compile_study
from ablate.states import State, states
from ablate.store import Store
from ablate.study import Study, load
from ablate.yamlfile import to_text

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Adapters = Literal["none", "organisms", "all"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of an export: the folder it gets, the artifact it is, and what it is."""

    folder: str
    key: str
    bytes: int
    base: str
    facts: Mapping[str, Any]


class Export:
    """What of a study would be exported, and how large that is; :meth:`write` writes it.

    Raises:
        StudyError: no finished study there, or its cube is not of these results.
    """

    def __init__(self, folder: Path, adapters: Adapters = "organisms", license: str = "") -> None:
        from ablate import cube
        from ablate.workflow import current

        source = folder / "study.resolved.yaml"
        if not source.is_file():
            raise StudyError(f"{folder}: no study has been run here (there is no study.resolved.yaml)")
        self.study: Study = load(source)
        self.plan: Plan = compile_study(self.study)
        self.store, self.wanted = Store(folder), adapters
        self.tree: xr.DataTree = cube.open_cube(folder)
        self.found: Sequence[State] = list(states(self.plan, self.store))
        if not current(self.plan, list(self.found), self.store):
            raise StudyError(
                f"{folder}: the cube is not of what the folder holds; run `ablate study` once more, or wait for it"
            )
        known = {EMBEDDED[name].license for name in self._models() if name in EMBEDDED}
        self.license = license or (known.pop() if len(known) == 1 and len(self._models()) == 1 else "")
        with self.store.intact():
            self._left = list(self._adapters())

    @cached_property
    def adapters(self) -> list[Adapter]:
        """Those that are asked for."""
        return [own for own in self._left if self.wanted == "all" or (self.wanted == "organisms" and self._first(own))]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run."""
        from ablate.cube import runs_frame

        return runs_frame(self.tree)

    @cached_property
    def bytes(self) -> dict[str, int]:
        """About how large it becomes: ``organisms``, ``runs`` (adapters, asked for or not) and ``data``."""
        data = sum(path.stat().st_size for path in (self.store.root / "cube.zarr").rglob("*") if path.is_file())
        for state in self.found[: len(self.plan.cells)]:
            for key, file in ((state.cell.pool, "pool.jsonl"), (state.after, "answers.jsonl")):
                data += self.store.read(key).stamp(file)["bytes"] if key and self.store.has(key) else 0
        sizes = {"organisms": 0, "runs": 0, "data": data}
        for own in self._left:
            sizes["organisms" if self._first(own) else "runs"] += own.bytes
        return sizes

    @property
    def counts(self) -> dict[str, int]:
        """Adapters that there are of ``organisms`` and ``runs``."""
        first = sum(map(self._first, self._left))
        return {"organisms": first, "runs": len(self._left) - first}

    def of_this_machine(self) -> list[str]:
        """Names of models in the study that are folders here: they mean nothing elsewhere."""
        return sorted(name for name in self._models() if Path(name).expanduser().is_dir())

    def write(self, out: Path, repo: str = "") -> list[str]:
        """Write all of it; ``repo`` is what the cards say that it is called on the Hub.

        Returns:
            The cards that were edited since the last export, and were kept.

        Raises:
            StudyError: ``out`` holds something else, no room, a damaged artifact, or a secret in what would be written.
        """
        size = sum(own.bytes for own in self.adapters) + self.bytes["data"]
        with self.store.intact(), rewritten(out, self.study.name, size) as folder:
            self._data(folder)
            if self.adapters:
                self._model(folder)
            for name, text in self._cards(repo).items():
                folder.card(name, text)
        return folder.kept

    def _first(self, own: Adapter) -> bool:
        return own.folder.startswith("organism-")

    def _models(self) -> set[str]:
        return {str(self._base_options(i)["name"]) for i in range(len(self.plan.organisms))}

    def _base_options(self, organism: int) -> Mapping[str, Any]:
        model: Mapping[str, Any] = self.plan.stages[self.plan.organisms[organism].stage].options["model"]
        return model

    def _adapters(self) -> Iterator[Adapter]:
        """Of valid organisms, then of their runs: one for each training, whatever number of runs share it."""
        valid = self.tree["valid_organism"].to_numpy()
        risk = self.tree["organism_risk"].to_numpy()
        seen: set[str] = set()
        for i, organism in enumerate(self.plan.organisms):
            base = hub_name(str(self._base_options(i)["name"]))
            if base and valid[i] and self.store.has(organism.stage):
                facts = {"organism": i, "model": organism.model, "behavior": organism.behavior}
                facts |= {"induction_seed": organism.induction_seed, **organism.options, "risk": numbers([risk[i]])[0]}
                yield self._adapter(f"organism-{i}", organism.stage, base, facts)
        for state in self.found[: len(self.plan.cells)]:
            i = state.cell.organism
            base = hub_name(str(self._base_options(i)["name"]))
            if base and valid[i] and state.after and state.train not in seen:
                seen.add(state.train)
                yield self._adapter(f"run-{state.train[:12]}", state.train, base, where(self.plan, state.cell))

    def _adapter(self, folder: str, key: str, base: str, facts: Mapping[str, Any]) -> Adapter:
        size = self.store.read(key).stamp("adapter.safetensors")["bytes"]
        return Adapter(folder, key, size, base, facts)

    def _data(self, folder: OutFolder) -> None:
        folder.check("data/cube.zarr", str(self.tree.attrs))  # its texts are those of the runs
        folder.lines("data/runs.jsonl", run_rows(self.runs))
        folder.lines("data/labels.jsonl", label_rows(self.plan, self.store, self.found))
        folder.lines("data/items.jsonl", item_rows(self.plan, self.store, self.found))
        folder.text("data/study.yaml", self.study.dump())
        folder.text("data/provenance.json", json.dumps(self.store.get("provenance.json"), indent=2) + "\n")
        for file in sorted((self.store.root / "tables").glob("*")):
            folder.text(f"data/tables/{file.name}", file.read_text(encoding="utf-8"))
        shutil.copytree(self.store.root / "cube.zarr", folder.path / "data" / "cube.zarr")

    def _model(self, folder: OutFolder) -> None:
        for own in self.adapters:
            artifact = self.store.read(own.key)
            config = adapter_config(artifact.arrays("adapter.safetensors"), own.base)
            folder.raw(f"model/{own.folder}/adapter_model.safetensors", artifact.raw("adapter.safetensors"))
            folder.json(f"model/{own.folder}/adapter_config.json", config)
        folder.lines("model/adapters.jsonl", ({"folder": own.folder, **own.facts} for own in self.adapters))

    def _cards(self, repo: str) -> dict[str, str]:
        from ablate.reports.cards import data_card, model_card

        facts = self._facts(repo)
        cards = {"data/README.md": data_card({**facts, "front": to_text(self._front_of_data())})}
        if self.adapters:
            cards["model/README.md"] = model_card({**facts, "front": to_text(self._front_of_model(repo))})
        return cards

    def _front_of_data(self) -> dict[str, Any]:
        columns = {
            "labels": features(self.plan, LABEL_COLUMNS),
            "items": features(self.plan, ITEM_COLUMNS),
            "runs": run_features(self.runs),
        }
        return {
            **_license(self.license),
            "pretty_name": self.study.name,
            "tags": self._tags(),
            "configs": [{"config_name": name, "data_files": f"{name}.jsonl"} for name in columns],
            "dataset_info": [{"config_name": name, "features": own} for name, own in columns.items()],
        }

    def _front_of_model(self, repo: str) -> dict[str, Any]:
        bases = sorted({own.base for own in self.adapters if "/" in own.base})
        front = {**_license(self.license), "library_name": "peft", "tags": [*self._tags(), "lora", "model-organism"]}
        front |= {"base_model": bases, "base_model_relation": "adapter"} if bases else {}
        return front | ({"datasets": [repo]} if repo else {})

    def _tags(self) -> list[str]:
        behaviors = sorted({own.behavior.partition("(")[0] for own in self.plan.organisms})
        return ["ablate", "alignment", "misalignment", *(name.replace("_", "-") for name in behaviors)]

    def _facts(self, repo: str) -> dict[str, Any]:
        """What the cards say."""
        tables = [self.store.root / "tables" / f"{kind}.md" for kind in ("isolate", "methods", "fixed")]
        table = next((file.read_text(encoding="utf-8") for file in tables if file.is_file()), "")
        return {
            "name": self.study.name,
            "question": self.study.question,
            "limited": bool(self.tree.attrs["limited"]),
            "license": self.license,
            "repo": repo or "OWNER/NAME",
            "behaviors": sorted({own.behavior for own in self.plan.organisms}),
            "models": sorted({own.model for own in self.plan.organisms}),
            "verdicts": [str(text) for text in self.tree["analysis/verdict"]["sentence"].to_numpy()],
            "table": table,
            "columns": [LABEL_COLUMNS, ITEM_COLUMNS],
            "variables": _variables(self.tree.to_dataset()),
            "runs": len(self.plan.cells),
            "organisms": len(self.plan.organisms),
            "adapters": self.adapters,
            "provenance": self.store.get("provenance.json"),
            "digest": self.study.digest,
            "pools": len({state.cell.pool for state in self.found[: len(self.plan.cells)]}),
            "trainings": len({state.train for state in self.found[: len(self.plan.cells)] if state.after}),
        }


def in_words(found: Export) -> str:
    """What would be written and how large it is, before it is."""
    sizes, counts = {name: f"{size / 1e6:.1f} MB" for name, size in found.bytes.items()}, found.counts
    lines = [f"data      labels, items, cube: about {sizes['data']}"]
    if not any(counts.values()):
        lines.append("adapters  none: no valid organism of a model that has adapters")
    else:
        asked = {"none": (), "organisms": ("organisms",), "all": ("organisms", "runs")}[found.wanted]
        said = {name: f"{counts[name]} of {name}, {sizes[name]}" for name in counts}
        more = [f"{said[name]} left out" for name in counts if name not in asked]
        lines.append(f"adapters  {'; '.join([*(said[name] for name in asked), *more])}")
        lines.append("          organisms are misaligned models on purpose; the card says so")
    if not found.license:
        lines.append("license   not known: the cards point to the base model; state one with --license")
    lines += [
        f"note      {name} is a folder of this machine, and the study names it" for name in found.of_this_machine()
    ]
    return "\n".join(lines)


def hub_name(model: str) -> str:
    """What a model is called elsewhere: its Hub id, the last part of a folder's name, nothing for the tabular world."""
    if model == "tabular":
        return ""
    if model in EMBEDDED:
        return EMBEDDED[model].hub
    return Path(model).name if Path(model).expanduser().is_dir() else model


def _license(known: str) -> dict[str, str]:
    return {"license": known or "unknown"}


def _variables(data: xr.Dataset) -> list[tuple[str, str, str]]:
    """Name, meaning and unit of every number of a run."""
    own = [
        name for name, array in data.data_vars.items() if array.dims == data["status"].dims and array.dtype.kind == "f"
    ]
    return sorted((str(name), data[name].attrs["long_name"], data[name].attrs["units"]) for name in own)
