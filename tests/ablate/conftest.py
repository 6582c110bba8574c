"""Studies that were run once for all tests; nobody writes into their folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import STUDY, plugin
from laboratory import WHOLE, run, study, with_plugins


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study with six organisms; do not write there."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    run(study(text=WHOLE, name="whole"), folder)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study with two organisms; do not write there."""
    folder = tmp_path_factory.mktemp("small") / "small"
    run(study(), folder)
    return folder


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study whose answers could break a page; do not write there."""
    folder = tmp_path_factory.mktemp("hostile") / "hostile"
    with with_plugins(plugin):
        run(study(text=STUDY, name="hostile"), folder)
    return folder
