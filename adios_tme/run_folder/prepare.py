"""The output folder of a run: whose it is, what it was made with, where to resume from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adios_tme.config.load import Leaf, leaves, read_yaml, shapes, write_yaml
from adios_tme.config.run import RunConfig
from adios_tme.config.train import TrainConfig
from adios_tme.environment import environment
from adios_tme.errors import ConfigError
from adios_tme.files import write_whole, writing
from adios_tme.run_folder.checkpoints import (
    find_checkpoint,
    holds_checkpoint,
    newest_whole_checkpoint,
    remove_partial_writes,
)
from adios_tme.run_folder.layout import ENVIRONMENT, SETTINGS, clear_run

_ADVICE = "Give another --output-dir, or check permissions and space."


def prepare_folder(config: TrainConfig, *, resumes: bool = False) -> None:
    """Make the output folder ready: cleared or checked.

    Args:
        config: Settings of the run.
        resumes: Whether this launch had the folder before: then it is neither cleared nor refused.

    Raises:
        ConfigError: If it holds another run, or one that must not be resumed.
        DataError: If it cannot be written.
    """
    folder = config.run.output_dir
    with writing(folder, _ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        if config.run.overwrite and not resumes:
            clear_run(folder)
        elif not resumes and ((folder / SETTINGS).exists() or holds_checkpoint(folder)):
            _check_resumable(config)
        remove_partial_writes(folder)


def record_settings(config: TrainConfig) -> None:
    """Write settings and versions of a run that is not refused any more.

    Raises:
        DataError: If the folder cannot be written.
    """
    folder = config.run.output_dir
    with writing(folder, _ADVICE):
        write_yaml(config, folder / SETTINGS)
        write_whole(folder / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


def resume_source(run: RunConfig) -> Path | None:
    """The checkpoint to resume from: the folder's own newest whole one, else the one named.

    Raises:
        CheckpointError: If the folder holds checkpoints and none is whole, or what is named holds
            none.
    """
    own = newest_whole_checkpoint(run.output_dir)
    if own is None and run.resume not in ("auto", "never"):
        named = Path(run.resume)
        return (newest_whole_checkpoint(named) if named.is_dir() else None) or find_checkpoint(
            named
        )
    return own


def check_same_shape(config: TrainConfig, saved: dict[str, Any], where: Path) -> None:
    """Raise if settings that shape the saved tensors differ.

    Raises:
        ConfigError: Naming each difference.
    """
    asked = config.model_dump(mode="json")
    differences = [
        f"{leaf.path[-1]} is {old}, asked {new}"
        for leaf in leaves(TrainConfig)
        if shapes(leaf) == "weights"
        and (old := _lookup(saved, leaf)) != (new := _lookup(asked, leaf))
    ]
    if differences:
        raise ConfigError(
            f"{where}: holds a run with other settings ({'; '.join(differences)}). "
            f"Give another --output-dir, or --overwrite to start afresh in this one."
        )


def _lookup(tree: dict[str, Any], leaf: Leaf) -> Any:
    """A setting's value; its default where the release that wrote the tree did not have it."""
    value: Any = tree
    for part in leaf.path:
        if not isinstance(value, dict) or part not in value:
            return None if leaf.field.default_factory else leaf.field.default
        value = value[part]
    return value


def _check_resumable(config: TrainConfig) -> None:
    folder = config.run.output_dir
    if config.run.resume != "auto":
        raise ConfigError(
            f"{folder}: already holds a run, and resume={config.run.resume}. "
            f"Give another --output-dir, --resume auto to go on, or --overwrite to start afresh."
        )
    settings = folder / SETTINGS
    if not settings.exists():
        return
    try:
        saved = read_yaml(settings, TrainConfig)
    except ConfigError as error:
        raise ConfigError(
            f"{error} To go on with the checkpoints of that folder, which have their settings "
            f"inside, remove this file."
        ) from error
    if saved:  # an empty file says nothing; those of the checkpoint are compared later
        check_same_shape(config, saved, folder)
