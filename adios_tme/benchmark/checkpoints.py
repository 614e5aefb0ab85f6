"""The checkpoints of a run that a benchmark scores."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from adios_tme.errors import CheckpointError
from adios_tme.export.folder import is_exported
from adios_tme.run_folder.checkpoints import (
    checkpoint_digest,
    find_checkpoint,
    list_checkpoints,
)


class KeptCheckpoint(NamedTuple):
    """Weights, and the iteration after which they were saved."""

    iteration: int
    path: Path
    sha256: str

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others, wherever the file lies."""
        return self.iteration, self.sha256

    @classmethod
    def of(cls, iteration: int, path: Path) -> KeptCheckpoint:
        """A file with its digest.

        Raises:
            CheckpointError: If it cannot be read.
        """
        return cls(iteration, path, checkpoint_digest(path))


def kept_checkpoints(run: Path) -> list[KeptCheckpoint]:
    """Every ``checkpoint_iter_*.pth`` of a run, oldest first.

    Raises:
        CheckpointError: If there is none, as in an exported folder.
    """
    if is_exported(run):
        raise CheckpointError(
            f"{run}: is an exported folder, which holds no checkpoint and tells no iteration. "
            f"Give the run that it came from, or one of its checkpoints."
        )
    kept = list_checkpoints(run)
    if not kept:
        only = find_checkpoint(run)  # says what is missing
        raise CheckpointError(
            f"{run}: holds no checkpoint_iter_*.pth, which tell their iterations. "
            f"Give its one checkpoint: {only}."
        )
    return [KeptCheckpoint.of(iteration, path) for iteration, path in kept]
