"""Run docs/notebook.ipynb on the study of the tutorial and write what its cells show: `make docs`.

A kernel would bring 37 packages and a process with sockets to run six cells; this is one namespace. It keeps what a
reader needs: printed text, the last value of a cell as text, frames as HTML too, figures as PNG. No time, no path.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
NOTEBOOK = HERE / "notebook.ipynb"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells have in the current folder, one after the other."""
    names: dict[str, Any] = {}
    cells, count = [], 0
    with pd.option_context("display.width", 100, "display.max_columns", 20):  # whatever terminal this runs in
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = _outputs("".join(cell["source"]), names, count)
                cell = {**cell, "execution_count": count, "outputs": outputs}
            cells.append(cell)
    return {**notebook, "cells": cells}


def as_text(notebook: dict[str, Any]) -> str:
    """The file, as Jupyter writes it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    code = ast.parse(source, f"cell {count}")
    last = code.body.pop() if code.body and isinstance(code.body[-1], ast.Expr) else None
    value = None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, f"cell {count}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if value is not None:
        result = {"data": _shown(value), "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """What a notebook shows of a value, by media type."""
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_png_"):
        data["image/png"] = base64.b64encode(value._repr_png_()).decode()
    elif hasattr(value, "to_html"):
        data["text/html"] = value.to_html().splitlines(keepends=True)
    return data


def study_in(folder: Path) -> None:
    """Run the study of the tutorial in a folder."""
    tutorial = (HERE / "tutorial.md").read_text(encoding="utf-8")
    ((name, text),) = re.findall(r"^```yaml file=(\S+)\n(.*?)^```$", tutorial, re.MULTILINE | re.DOTALL)
    (folder / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ablate", "study", name], cwd=folder, env={**os.environ}, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        study_in(Path(scratch))
        NOTEBOOK.write_text(as_text(executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))), encoding="utf-8")
