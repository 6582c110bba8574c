"""README and docs are run as they stand there: commands, studies, code, notebook; the reference is what the code says.

A fenced block is run in the folder of its page, in the order of the page. Words behind the language, which no reader of
the rendered page sees, say what else is to be done with it:

    console real      needs the real model, hours, or an installation: it is only parsed, and its study planned
    console plugins   run where the plug-ins of README are installed
    yaml file=NAME    written into the folder of the page
    python test       a test, run by pytest where the plug-ins are installed
    python plugin     registers something: part of the package of plug-ins
    r PACKAGE         needs R, and that package
    (no language)     shown; behind a console block it is its output, numbers aside
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from laboratory import unsynced

from ablate.cli import app, main
from ablate.cube import open_cube
from ablate.findings import KINDS
from ablate.reports import figures
from ablate.study import load, loads

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
TUTORIAL = "docs/tutorial.md"
PLUGINS = "docs/how-to/level.md"
STUDY_COMMANDS = ("study", "plan", "predict")
FENCE = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"[>|;&$]|^(?!ablate )")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a console block without their comments, or those of a script that call ablate."""
        if self.language == "sh":
            return [line for line in self.text.splitlines() if line.startswith("ablate ")]
        return [line[2:].split("  #")[0].strip() for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def file(self) -> str:
        return next((mark.removeprefix("file=") for mark in self.marks if mark.startswith("file=")), "")


def blocks(page: str, text: str | None = None) -> list[Block]:
    found = FENCE.findall(text if text is not None else PAGES[page].read_text(encoding="utf-8"))
    return [Block(page, lang, tuple(marks.split()), textwrap.dedent(body)) for _, lang, marks, body in found]


EVERY = [block for page in PAGES for block in blocks(page)]
RUN = sorted({block.page for block in EVERY if block.language in ("console", "python", "yaml")} - {PLUGINS})


def prose(text: str) -> str:
    """A page without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.DOTALL)


def named(block: Block) -> str:
    return f"{block.page}: {block.text.strip().splitlines()[0][:40]}"


# What is parsed


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that a line calls, with its values; nothing is run."""
    group: Any = typer.main.get_command(app)
    top = group.make_context("ablate", list(words))
    name, command, rest = group.resolve_command(top, [*top._protected_args, *top.args])
    return name, command.make_context(name, rest, parent=top).params


def check_real(block: Block, folder: Path) -> None:
    """A command that is too much for a test: it must parse, its study be valid, its target and package exist."""
    for name, text in ((own.file, own.text) for own in blocks(block.page) if own.file):
        (folder / name).write_text(text, encoding="utf-8")
    assert block.commands
    for line in block.commands:
        words = shlex.split(re.sub(r"\$\w+", "0", line))
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[:2] == ["pip", "install"]:
            assert words[2:] == ["."]
            assert (ROOT / "pyproject.toml").is_file()
        else:
            assert words[0] == "ablate", line
            name, values = parsed(words[1:])
            written = values.get("study")
            if name in STUDY_COMMANDS and written != "study.yaml":  # which stands for any
                own = folder / str(written)
                load(str(own) if own.is_file() else str(written), values["set_"])


@pytest.mark.parametrize("block", [block for block in EVERY if "real" in block.marks], ids=named)
def test_what_needs_the_real_model_is_valid(block: Block, tmp_path: Path) -> None:
    check_real(block, tmp_path)


INLINE = [
    (page, " ".join(line.split()))
    for page, path in PAGES.items()
    for line in re.findall(r"(?<!`)`(ablate [^`]+)`(?!`)", prose(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("page", "line"), INLINE, ids=[f"{page}: {line}" for page, line in INLINE])
def test_a_command_within_a_sentence_is_valid(page: str, line: str) -> None:
    words = shlex.split(re.sub(r" --\w+ \.\.\.|\.\.\.", "", line).replace("KIND", "shares"))
    assert fault(words[1:]) in (None, "MissingParameter"), f"{page}: {line}"


def fault(words: list[str]) -> str | None:
    try:
        parsed(words)
    except Exception as error:  # typer brings its own classes of errors
        return type(error).__name__
    return None


def test_extras_that_are_named_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {name for path in PAGES.values() for name in re.findall(r"ablate-mechanisms\[(\w+)\]", path.read_text())}
    assert {"gpu"} <= extras <= set(setup["options.extras_require"])


def test_every_block_says_what_it_is() -> None:
    for block in EVERY:
        assert block.language in ("", "console", "sh", "yaml", "python", "toml", "json", "r"), named(block)
        if block.language == "sh":
            assert block.marks == ("real",), named(block)
        if block.language == "":  # what stands there as output is no command
            assert not re.search(r"^(\$ |ablate |make |pip )", block.text, re.MULTILINE), named(block)


def dead_links(page: str, text: str) -> list[str]:
    found = re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", prose(text))
    return [link for link in found if "://" not in link and not _leads(PAGES[page].parent, PAGES[page], link)]


def _leads(folder: Path, own: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = folder / name if name else own
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert dead_links(page, PAGES[page].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", *(
    f"docs/{name}.md" for name in ("decisions", "results", "calibration")))])  # fmt: skip
def test_a_page_is_linked_from_readme_and_has_no_endless_lines(page: str) -> None:
    assert f"({page})" in PAGES["README.md"].read_text(encoding="utf-8")
    lines = FENCE.sub("", PAGES[page].read_text(encoding="utf-8")).splitlines()
    assert "reference" in page or max(map(len, lines)) <= 127


# What is run


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study of the tutorial was run."""
    folder = tmp_path_factory.mktemp("tutorial")
    (block,) = [block for block in blocks(TUTORIAL) if block.file]
    (folder / block.file).write_text(block.text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.chdir(folder)
        assert called(["study", block.file]) == 0
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed package with every plug-in that a page shows, named under the entry point that a page shows."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "our_package-1.0.dist-info"
    (folder / "our_package").mkdir()
    info.mkdir()
    (folder / "our_package" / "__init__.py").touch()
    (folder / "our_package" / "levels.py").write_text("\n\n".join(block.text for block in plugins()), encoding="utf-8")
    (toml,) = [block for block in EVERY if block.language == "toml"]
    ((group, names),) = tomllib.loads(toml.text)["project"]["entry-points"].items()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-package\nVersion: 1.0\n", encoding="utf-8")
    entries = "\n".join(f"{name} = {module}" for name, module in names.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n", encoding="utf-8")
    return folder


def plugins() -> list[Block]:
    return [block for block in EVERY if block.language == "python" and "from ablate.api" in block.text]


def called(words: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    return int(exit_.value.code or 0)


def shell(line: str, folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which ``ablate`` is this one, with packages from ``paths`` installed."""
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    (tools / "ablate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ablate "$@"\n', encoding="utf-8")
    (tools / "ablate").chmod(0o755)
    python = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": python}
    done = subprocess.run(["bash", "-euc", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done


class Page:
    """Runs the blocks of a page in a folder, in their order."""

    def __init__(self, folder: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.site, self.capsys = folder, site, capsys
        self.names: dict[str, Any] = {}
        self.said: list[str] = []

    def run(self, block: Block) -> None:
        if "real" in block.marks or block in plugins():
            return
        {
            "console": self.console,
            "python": self.python,
            "yaml": self.yaml,
            "json": lambda block: [json.loads(line) for line in block.text.splitlines()],
            "": self.output,
        }.get(block.language, lambda block: None)(block)
        if block.language != "console":
            self.said = []

    def console(self, block: Block) -> None:
        assert block.commands, named(block)
        self.said = []
        for line in block.commands:
            if "plugins" in block.marks or SHELL.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
                self.said += shell(line, self.folder, self.site).stdout.splitlines()
                continue
            self.capsys.readouterr()
            with unsynced():
                code = called(shlex.split(line)[1:])
            out, err = self.capsys.readouterr()
            assert code == 0, f"{line}\n{out}\n{err}"
            assert out.strip(), line
            self.said += out.splitlines()

    def python(self, block: Block) -> None:
        if "test" in block.marks:
            (self.folder / "test_ours.py").write_text(block.text, encoding="utf-8")
            said = shell(f'"{sys.executable}" -m pytest -q -p no:cacheprovider test_ours.py', self.folder, self.site)
            assert re.search(r"^\d+ passed", said.stdout, re.MULTILINE)
        else:
            exec(compile(block.text, block.page, "exec"), self.names)

    def yaml(self, block: Block) -> None:
        assert block.file, f"{named(block)}: a study says file=NAME, so that it is run or planned"
        (self.folder / block.file).write_text(block.text, encoding="utf-8")
        if "hurried" not in block.text:  # whose plug-ins are not installed in this process
            loads(block.text, source=block.file)

    def output(self, block: Block) -> None:
        """What a page shows as the output of the block before it occurs there, whatever the numbers."""
        there = {masked(line) for line in self.said}
        for line in block.text.splitlines() if self.said else []:
            begins = masked(line.removesuffix("..."))
            assert any(own.startswith(begins) for own in there), f"{block.page}: no longer said: {line}"


def masked(line: str) -> str:
    return " ".join(re.sub(r"[-+]?\d*\.?\d+", "#", line).split())


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_stands(
    page: str,
    tmp_path: Path,
    tutorial: Path,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if page != TUTORIAL:
        shutil.copytree(tutorial, tmp_path, dirs_exist_ok=True)
    own = Page(tmp_path, site, capsys)
    for block in blocks(page):
        own.run(block)


@pytest.mark.parametrize("block", [block for block in EVERY if block.language == "r"], ids=named)
def test_the_recipes_for_r_run(block: Block, tmp_path: Path, tutorial: Path, site: Path) -> None:
    needed = block.marks or ("stats",)
    found = shutil.which("Rscript")
    if found is None:
        pytest.skip("there is no Rscript on this machine")
    if subprocess.run([found, "-e", f"library({needed[0]})"], capture_output=True, check=False).returncode:
        pytest.skip(f"R has no package {needed[0]} on this machine")
    shutil.copytree(tutorial, tmp_path, dirs_exist_ok=True)
    (export,) = [line for own in blocks(block.page) for line in own.commands if line.endswith("> runs.csv")]
    shell(export, tmp_path)
    script = [own.text for own in blocks(block.page) if own.language == "r"]
    (tmp_path / "recipe.R").write_text("\n".join(script[: script.index(block.text) + 1]), encoding="utf-8")
    assert "label_shift" in shell(f"{found} recipe.R", tmp_path).stdout


# Plug-ins


@pytest.mark.parametrize("block", plugins(), ids=lambda block: re.search(r"def (\w+)", block.text)[1])  # type: ignore[index]
def test_a_plugin_has_under_fifteen_lines(block: Block) -> None:
    assert len([line for line in block.text.splitlines() if line.strip()]) < 15


def test_the_plugins_of_readme_are_levels_of_a_study(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([block for block in plugins() if block.page == "README.md"]) == 3
    monkeypatch.chdir(tmp_path)
    own = Page(tmp_path, site, capsys)
    for block in blocks(PLUGINS):
        own.run(block)
    cube = open_cube(tmp_path / "runs" / "second").load()
    assert cube["label_shift"].values.tolist() == ["none", "hurried(plea=Quick!)"]
    assert cube["selector"].values.tolist() == ["first", "second(mean_logprob)", "argmax(surprise)"]
    assert np.isfinite(cube["risk_after"]).all()
    labels = cube["key_labels"].sel(label_shift="none")
    assert (labels.sel(selector="second(mean_logprob)") != labels.sel(selector="first")).all()


# The reference


def script(name: str) -> Any:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    for name, text in script("generate").pages().items():
        there = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert there == text, f"docs/reference/{name} is not what the code says: run `make docs`"


def test_every_kind_of_table_and_figure_is_explained() -> None:
    said = re.findall(r"^\| `(\w+)` \|", PAGES["docs/reference/results.md"].read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(said) == sorted([*KINDS, *figures.KINDS])


# The notebook


def shown(notebook: dict[str, Any]) -> list[str]:
    """What the code cells show, as text without numbers."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = output.get("text") or output["data"]["text/plain"]
            texts.append(masked("".join(text)))
    return texts


def test_the_notebook_shows_what_its_cells_say(tutorial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = script("notebook")
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")
    there = json.loads(text)
    code = [cell for cell in there["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    monkeypatch.chdir(tutorial)
    anew = notebook.executed(there)
    assert shown(anew) == shown(there), "docs/notebook.ipynb is not what its cells say: run `make docs`"
    for each in (anew, there):
        assert [kind for kind in kinds(each) if kind.startswith("image")] == ["image/png"]
    assert len(text) < 200_000
    assert not re.search(r"/(home|root|tmp|work|Users)/|\d{4}-\d\d-\d\d", re.sub(r'"image/png": ".*"', "", text))


def kinds(notebook: dict[str, Any]) -> list[str]:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [kind for output in outputs for kind in output.get("data", {})]


def test_a_cell_that_fails_is_found() -> None:
    cell = {"cell_type": "code", "source": ["1 / 0\n"]}
    with pytest.raises(ZeroDivisionError):
        script("notebook").executed({"cells": [cell]})


# The guards


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```console real\n$ make studdy\n```\n", subprocess.CalledProcessError),
        ("```console real\n$ ablate study shift_vs_selector.yaml --limti 8\n```\n", Exception),
        ("```console real\n$ ablate plan shift_vs_selector.yaml --set train.epoch=2\n```\n", Exception),
        ("```console real\nablate plan\n```\n", AssertionError),
    ],
)
def test_a_real_command_that_is_wrong_is_found(text: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        check_real(blocks("README.md", text)[0], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ ablate list selctors\n```\n",
        "```console\n$ ablate list selectors > there && false\n```\n",
        "```python\nassert 1 == 2\n```\n",
        "```yaml file=x.yaml\nquestion: without a model\n```\n",
        "```console\n$ ablate list selectors\n```\n```\nno such line\n```\n",
    ],
)
def test_a_block_that_does_not_run_is_found(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Page(tmp_path, tmp_path, capsys)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each fails in its own way
        for block in blocks("README.md", text):
            own.run(block)


def test_a_dead_link_is_found() -> None:
    assert dead_links("README.md", "[a](docs/nowhere.md) [b](docs/tutorial.md#nowhere) [c](docs/tutorial.md)") == [
        "docs/nowhere.md",
        "docs/tutorial.md#nowhere",
    ]
