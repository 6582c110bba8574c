"""From a model's name to its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from ablate.errors import FatalError
from ablate.lm.hf.load import load_causal


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_a_model_is_fetched_where_it_is_to_be_run_and_nowhere_else(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: asked.update(how) or str(tmp_path))
    with pytest.raises(FatalError):  # the folder is empty
        load_causal("owner/name", dtype=torch.float32, revision=None, trust_remote_code=trusted)
    assert ("*.py" in asked["allow_patterns"]) == trusted
