"""Exported folders to a hub of models, by huggingface_hub, which finds hub and token itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_token

from adios_tme.errors import HubError


def check_token(repo: str) -> None:
    """Raise HubError where there is no token to push with, which can be known before all work."""
    if not get_token():
        raise HubError(
            f"{repo}: there is no token to push with. Set HF_TOKEN, or run hf auth login once."
        )


def push_folder(folder: Path, files: Sequence[str], repo: str, *, private: bool) -> str:
    """Make a repository where there is none, and put files of a folder into it as one commit.

    Args:
        folder: Where they lie.
        files: Their names; nothing else in the folder leaves the machine.
        repo: Name of the repository.
        private: Make a new repository private; one that exists stays as it is.

    Returns:
        Its address.

    Raises:
        HubError: If the hub cannot be reached, or refuses.
    """
    try:
        api = HfApi(library_name="adios_tme")
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message="Export by adios_tme",
        )
    except Exception as error:  # whatever the hub's client raises
        reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
        raise HubError(
            f"{repo}: was not pushed ({type(error).__name__}: {reason.rstrip('.')}). {folder} is "
            f"whole; check the token's rights and the network, then push it by hf upload {repo} "
            f"{folder}."
        ) from error
    return str(made)
