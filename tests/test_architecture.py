"""What each room of the code may import, and what no file may contain, and what is installed."""

from __future__ import annotations

import ast
import configparser
import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = ("factors", "measures", "reports", "studies")
"""Packages of `ablate` whose folders stand at the top of the repository."""


def _modules() -> Iterator[tuple[str, Path]]:
    for folder in ("ablate", *OUTSIDE):
        prefix = () if folder == "ablate" else ("ablate",)
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT)
            if folder != "ablate" or inner.parts[1] not in OUTSIDE:  # reached by its link otherwise
                yield ".".join((*prefix, *inner.with_suffix("").parts)).removesuffix(".__init__"), path


MODULES = dict(_modules())


def imports(source: str) -> set[str]:
    """Every module and name that a source imports, at its top or inside a function, but not for types alone."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return found


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a module, or a name in it, is one of the patterns: ``ablate.lm`` stands for all that is in it."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def strangers(module: str, source: str, patterns: tuple[str, ...]) -> set[str]:
    """What a module imports from `ablate` beyond its own package and ``patterns``."""
    return {name for name in imports(source) if matches(name, ("ablate",)) and not matches(name, (module, *patterns))}


# Who may import what from the engine: the first pattern that fits a module decides.
ROOMS: dict[str, tuple[str, ...]] = {
    "ablate.errors": (),
    "ablate.version": (),
    "ablate.registry": ("ablate.errors",),
    "ablate.rubric": ("ablate.errors",),
    "ablate.records": (),
    "ablate.api": ("ablate.records", "ablate.registry", "ablate.rubric"),
    "ablate.keys": ("ablate.errors",),
    "ablate.store": ("ablate.errors", "ablate.keys"),
    "ablate.yamlfile": ("ablate.errors",),
    "ablate.wording": ("ablate.errors", "ablate.yamlfile"),
    "ablate.levels": ("ablate.errors", "ablate.keys", "ablate.registry", "ablate.wording", "ablate.yamlfile"),
    "ablate.bars": (),
    "ablate.options": ("ablate.bars", "ablate.errors", "ablate.levels"),
    "ablate.methods": ("ablate.levels", "ablate.options", "ablate.records", "ablate.registry", "ablate.yamlfile"),
    "ablate.study": ("ablate.errors", "ablate.keys", "ablate.levels", "ablate.methods", "ablate.options",
                     "ablate.reading", "ablate.records", "ablate.registry", "ablate.yamlfile"),
    "ablate.plan": ("ablate.errors", "ablate.keys", "ablate.levels", "ablate.options", "ablate.registry",
                    "ablate.study"),
    "ablate.cube": ("ablate.api", "ablate.errors", "ablate.version"),
    "ablate.query": ("ablate.cube", "ablate.errors"),
    "ablate.rows": ("ablate.errors",),
    "ablate.imported": ("ablate.api", "ablate.cube", "ablate.errors"),
    "ablate.mapping": ("ablate.api", "ablate.cube", "ablate.errors", "ablate.imported", "ablate.records",
                       "ablate.registry", "ablate.rows"),
    "ablate.tuning": (),
    "ablate.organisms": ("ablate.api", "ablate.errors", "ablate.lm.base", "ablate.tuning"),
    "ablate.matching": ("ablate.api", "ablate.errors", "ablate.tuning"),
    "ablate.foresight": ("ablate.effects", "ablate.keys", "ablate.plan", "ablate.records", "ablate.states",
                         "ablate.store"),
    "ablate.lm.hf": ("ablate.api", "ablate.errors", "ablate.keys", "ablate.lm.base", "ablate.lm.beams",
                     "ablate.lm.embedded", "ablate.lm.hf"),
    "ablate.lm": ("ablate.api", "ablate.errors", "ablate.keys", "ablate.lm"),
    "ablate.effects": ("ablate.api", "ablate.bars", "ablate.effects", "ablate.errors", "ablate.records",
                       "ablate.version"),
    "ablate.reports": ("ablate.effects", "ablate.errors", "ablate.reports", "ablate.version"),
    "ablate.engines": ("ablate.engines", "ablate.errors", "ablate.plan", "ablate.stages", "ablate.store",
                       "ablate.workplace"),
    "ablate.outfolder": ("ablate.errors",),
    "ablate.hub": ("ablate.errors",),
    "ablate.dataset": ("ablate.plan", "ablate.states", "ablate.store"),
    "ablate.run": ("ablate.engines", "ablate.errors", "ablate.plan", "ablate.store"),
    "ablate.factors.*.*": ("ablate.api", "ablate.errors"),
    "ablate.factors.methods": ("ablate.api", "ablate.errors"),
    "ablate.measures.*": ("ablate.api", "ablate.errors"),
}  # fmt: skip

LIBRARIES: dict[str, tuple[str, ...]] = {
    "torch": ("ablate.lm.hf",),
    "transformers": ("ablate.lm.hf",),
    "peft": ("ablate.lm.hf",),
    "httpx": ("ablate.lm.http",),
    "optuna": ("ablate.tuning",),
    "matplotlib": ("ablate.reports",),
    "jinja2": ("ablate.reports",),
    "huggingface_hub": ("ablate.hub", "ablate.lm.hf"),
    "ruamel": ("ablate.yamlfile",),
    "typer": ("ablate.cli",),
    "zarr": ("ablate.cube",),
    "duckdb": ("ablate.query", "ablate.rows"),
    "safetensors": ("ablate.store", "ablate.lm.hf"),
    "filelock": ("ablate.store", "ablate.lm.hf"),
    "xarray": (
        "ablate.compare",
        "ablate.collect",
        "ablate.cube",
        "ablate.effects",
        "ablate.findings",
        "ablate.imported",
        "ablate.importing",
        "ablate.query",
        "ablate.released",
    ),
    "rich": ("ablate.cli", "ablate.progress"),
}
"""The only rooms that may import a library; what is not named here anyone may."""

NUMPY_FREE = (
    "errors",
    "registry",
    "levels",
    "methods",
    "options",
    "reading",
    "study",
    "plan",
    "schema",
    "wording",
    "yamlfile",
    "run",
    "states",
    "workflow",
    "forecast",
    "cli",
)
"""Modules of the engine that handle no array."""


def _room(module: str) -> str | None:
    return next((room for room in ROOMS if matches(module, (room,))), None)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if _room(name)))
def test_a_room_imports_from_the_engine_what_it_may_know(module: str) -> None:
    room = _room(module)
    assert room is not None
    allowed = ROOMS[room]
    if room.startswith(("ablate.factors", "ablate.measures")):  # and its own family
        allowed += (".".join(module.split(".")[: 3 if room.startswith("ablate.factors") else 2]),)
    assert strangers(module, MODULES[module].read_text(), allowed) == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_room_alone(library: str) -> None:
    users = {name for name, path in MODULES.items() if any(matches(i, (library,)) for i in imports(path.read_text()))}
    assert {name for name in users if not matches(name, LIBRARIES[library])} == set()


@pytest.mark.parametrize("name", NUMPY_FREE)
def test_what_handles_no_array_imports_no_numpy(name: str) -> None:
    assert not {i for i in imports(MODULES[f"ablate.{name}"].read_text()) if matches(i, ("numpy", "pandas", "scipy"))}


def test_nothing_imports_a_plug_in_by_name() -> None:
    plugins = ("ablate.factors", "ablate.measures")
    for module, path in MODULES.items():
        if not matches(module, plugins):
            assert {name for name in imports(path.read_text()) if matches(name, plugins)} == set(), module


def test_measures_know_no_factor() -> None:
    from ablate import registry

    families = ("behavior", "label_shift", "scorer", "selector", "objective", "method")
    factors = {name for family in families for name in registry.names(family)}
    assert {"first", "greedy", "sft", "sycophancy"} <= factors
    for module, path in MODULES.items():
        if matches(module, ("ablate.measures",)):
            words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not words & factors, module


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("def f():\n    from torch import nn", {"torch.nn"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import os", {"os"}),
        ("from ablate import store", {"ablate.store"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: set[str]) -> None:
    assert imports(source) - {"typing.TYPE_CHECKING"} == found


def test_the_guards_of_the_rooms_can_fail() -> None:
    assert strangers("ablate.store", "from ablate.lm import load_model", ROOMS["ablate.store"]) == {
        "ablate.lm.load_model"
    }
    assert strangers("ablate.store", "from ablate.errors import StudyError", ROOMS["ablate.store"]) == set()
    family = ("ablate.factors.selectors",)
    assert strangers("ablate.factors.selectors.a", "import ablate.factors.scorers.b", family) == {
        "ablate.factors.scorers.b"
    }
    assert strangers("ablate.factors.selectors.a", "import ablate.factors.selectors.b", family) == set()
    assert _room("ablate.lm.hf.model") == "ablate.lm.hf"
    assert _room("ablate.lm.tabular") == "ablate.lm"
    assert not matches("torchvision", ("torch",))


# What no file contains

LONG = {
    "ablate.cube": "the schema of the cube: what is built, written and read must agree line by line",
    "ablate.store": "artifacts, journal and lock share how a folder is synced and what a disk may refuse",
    "ablate.lm.tabular": "one exact world; half of it is the known answers that tests compare to",
    "ablate.testing": "the contracts of all families, so that a plug-in's tests need one import",
}
"""Files of more than 400 lines, each with its reason."""


def sins(source: str) -> list[str]:
    """What is wrong with a source whatever it does: swallowed errors, empty checks, foreign code, a global RNG."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            names = ast.unparse(node.type) if node.type else ""
            if not names:
                found.append("bare except")
            if all(isinstance(line, ast.Pass) for line in node.body):
                found.append(f"except {names}: pass")
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and node.test.value:
            found.append("assert True")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "yaml.load", "os.system"):
                found.append(f"{called}()")
            kind = called.removeprefix("np.random.") if called.startswith("np.random.") else "Generator"
            if kind not in ("Generator", "default_rng", "SeedSequence", "Philox", "PCG64"):
                found.append(f"{called}() draws from the global generator")
    found += [f"import {name}" for name in imports(source) if matches(name, ("pickle", "random", "shelve", "marshal"))]
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_sins(module: str) -> None:
    assert sins(MODULES[module].read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_empty(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert not [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and node.test.value
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("try:\n    f()\nexcept:\n    raise", ["bare except"]),
        ("try:\n    f()\nexcept OSError:\n    pass", ["except OSError: pass"]),
        ("assert True", ["assert True"]),
        ("eval('1')", ["eval()"]),
        ("np.random.shuffle(x)", ["np.random.shuffle() draws from the global generator"]),
        ("np.random.default_rng(0)", []),
        ("import pickle", ["import pickle"]),
        ("from random import random", ["import random.random"]),
    ],
)
def test_the_guards_of_the_sources_can_fail(source: str, found: list[str]) -> None:
    assert sins(source) == found


def test_files_stay_short() -> None:
    long = {module for module, path in MODULES.items() if len(path.read_text().splitlines()) > 400}
    assert long - LONG.keys() == set(), "split it, or give a reason above"
    assert LONG.keys() - long == set(), "no longer long: take it off the list"


# The packages as they are installed


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def _declared() -> list[str]:
    return _setup()["options"]["packages"].split()


def test_the_packages_of_the_distribution_are_those_on_the_disk() -> None:
    """A package that is not listed works in a checkout and is missing in a wheel."""
    on_disk = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    folders = {".".join(module.split(".")[:-1]) for module, path in MODULES.items() if path.name != "__init__.py"}
    assert folders <= on_disk, "a folder of modules without __init__.py"
    assert set(_declared()) == on_disk
    assert len(_declared()) == len(set(_declared()))


def test_packages_outside_the_engine_are_mapped_and_linked() -> None:
    mapped = dict(line.replace(" ", "").split("=") for line in _setup()["options"]["package_dir"].strip().splitlines())
    assert mapped == {f"ablate.{name}": name for name in OUTSIDE}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_link_lets_type_checkers_follow(name: str) -> None:
    link = ROOT / "ablate" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"
    assert link.resolve() == ROOT / name
    assert Path(str(import_module(f"ablate.{name}").__file__)).resolve().parent == ROOT / name


def test_every_family_of_plug_ins_is_an_entry_point() -> None:
    entries = _setup()["options.entry_points"]["ablate.plugins"].strip().splitlines()
    named = {line.split("=")[1].strip() for line in entries}
    families = {module for module in MODULES if module.count(".") == 2 and module.startswith("ablate.factors.")}
    assert named == families | {"ablate.measures"}


@pytest.mark.parametrize(
    "package", sorted(name for name in _declared() if matches(name, ("ablate.factors.*", "ablate.measures")))
)
def test_a_package_of_plug_ins_imports_all_of_its_modules(package: str) -> None:
    """A file that is put into the folder is found only if the package imports it."""
    folder = MODULES[package].parent
    source = MODULES[package].read_text()
    imported = {name.rsplit(".", 1)[-1] for name in imports(source)}
    inner = {name.split(".")[len(package.split("."))] for path in folder.glob("*.py") if path.name != "__init__.py"
             for name in imports(path.read_text()) if name.startswith(f"{package}.")}  # fmt: skip
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= imported | inner


def test_what_is_shipped_beside_the_code_is_declared() -> None:
    data = dict(_setup()["options.package_data"])
    shipped = {path.suffix for folder in OUTSIDE for path in (ROOT / folder).rglob("*") if path.is_file()}
    shipped -= {".py", ".pyc"}
    assert {f"*{suffix}" for suffix in shipped} <= {pattern for line in data.values() for pattern in line.split()}
