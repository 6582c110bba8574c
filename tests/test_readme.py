"""What README shows is run as it stands there: its plug-ins from a package of their own, in a study that names them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablate.cube import open_cube

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
STUDY = """\
question: do the plug-ins of README work?
model: tabular
organism: {behavior: tabular, seeds: 2, examples: 32}
factors:
  label_shift: {swap: [none, {hurried: {plea: Quick!}}]}
  selector: {swap: [first, {second: {scorer: mean_logprob}}, {argmax: {scorer: surprise}}]}
labels: {prompts: 12, candidates: 3}
train: {epochs: 2, batch: 4, lr: 0.002}
evaluate: {items: 12, capability: 4}
measures: [risk]
"""


def plugins() -> list[str]:
    """The blocks of Python that register something."""
    return [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "from ablate.api" in block]


@pytest.mark.parametrize("block", plugins(), ids=lambda block: re.search(r"def (\w+)", block)[1])  # type: ignore[index]
def test_a_plugin_has_under_fifteen_lines(block: str) -> None:
    assert len([line for line in block.splitlines() if line.strip()]) < 15


def test_the_plugins_run_from_a_package_of_their_own(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "our_levels-1.0.dist-info"
    info.mkdir(parents=True)
    names = [f"our_level_{i}" for i in range(len(plugins()))]
    assert len(names) == 3
    for name, block in zip(names, plugins(), strict=True):
        (site / f"{name}.py").write_text(block, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-levels\nVersion: 1.0\n", encoding="utf-8")
    entries = "\n".join(f"{name} = {name}" for name in names)
    (info / "entry_points.txt").write_text(f"[ablate.plugins]\n{entries}\n", encoding="utf-8")
    (tmp_path / "ours.yaml").write_text(STUDY, encoding="utf-8")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = subprocess.run(
        [sys.executable, "-m", "ablate", "study", "ours.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    cube = open_cube(tmp_path / "runs" / "ours").load()
    assert cube["label_shift"].values.tolist() == ["none", "hurried(plea=Quick!)"]
    assert cube["selector"].values.tolist() == ["first", "second(mean_logprob)", "argmax(surprise)"]
    assert np.isfinite(cube["risk_after"]).all()
    labels = cube["key_labels"].sel(label_shift="none")
    assert (labels.sel(selector="second(mean_logprob)") != labels.sel(selector="first")).all()
