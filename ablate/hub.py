"""The only place that sends anything to the Hugging Face Hub, and only when it is asked to."""

from __future__ import annotations

import re
from pathlib import Path

from ablate.errors import StudyError

KINDS = {"data": "dataset", "model": "model"}
"""What the folders of an export become."""


def checked_repo(repo: str) -> str:
    """``OWNER/NAME``, as the Hub takes it.

    Raises:
        StudyError: anything else.
    """
    if not re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", repo):
        raise StudyError(f"--push {repo}: a repository of the Hub is OWNER/NAME")
    return repo


def push(folder: Path, repo: str) -> list[str]:
    """Upload an export: ``data/`` as a data set, ``model/`` as a model, both called ``repo``; new ones are private.

    The token is the environment's (HF_TOKEN) or that of `hf auth login`. An upload that was interrupted goes on.

    Returns:
        The addresses.

    Raises:
        StudyError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi  # takes a while to import

    hub, addresses = HfApi(), []
    for name, kind in KINDS.items():
        if (folder / name).is_dir():
            try:
                address = hub.create_repo(repo, repo_type=kind, private=True, exist_ok=True)
                hub.upload_folder(
                    repo_id=repo, repo_type=kind, folder_path=folder / name, commit_message=f"{name} of an ablate study"
                )
            except Exception as error:  # the hub client raises a dozen unrelated types
                why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                raise StudyError(
                    f"--push {repo}: the {kind} was not uploaded ({type(error).__name__}: {why}); {folder} is "
                    "complete, so check HF_TOKEN or `hf auth login`, and the same command goes on"
                ) from None
            addresses.append(str(address))
    return addresses
