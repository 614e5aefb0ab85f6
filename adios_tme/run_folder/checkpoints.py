"""Checkpoints: their names, written whole or not at all, verified when read, found again."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch

from adios_tme.errors import CheckpointError
from adios_tme.files import replacing
from adios_tme.run_folder.layout import NEWEST, PARTIAL_FILES, checkpoint_name, iteration_of

_HASH_MARK = b"sha256:"
_COMMENT_LENGTH = len(_HASH_MARK) + 64
_KEYS = {"student", "mask_model", "config"}
_OPTIMIZERS = ("student_optimizer", "mask_optimizer")
#: How files of torch.save begin that are no zip archives: a pickled number.
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

logger = logging.getLogger(__name__)


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """The kept checkpoints of a run with their iterations, oldest first."""
    found = [(iteration_of(path), path) for path in run_dir.glob("checkpoint_iter_*.pth")]
    return sorted((iteration, path) for iteration, path in found if iteration is not None)


def write_checkpoint(state: dict[str, Any], run_dir: Path) -> Path:
    """Write ``checkpoint_iter_*.pth`` and make it the newest; each name is whole or absent.

    Raises:
        CheckpointError: If the disk is full or not writable; older checkpoints are untouched.
    """
    path = run_dir / checkpoint_name(state["iteration"])
    try:
        _write_durably(state, path)
        _replace_with_link(path, run_dir / NEWEST)
        _flush_folder(run_dir)
    except (OSError, RuntimeError) as error:
        # torch's zip writer hides what went wrong with the file behind an error of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"{path}: the checkpoint could not be written ({cause.strerror}). "
            f"Make room or check permissions; older checkpoints are whole."
        ) from error
    return path


def remove_partial_writes(run_dir: Path) -> None:
    """Delete what writes that were killed have left; no other write may be under way."""
    for partial in run_dir.glob(PARTIAL_FILES):
        if partial.is_file():
            partial.unlink(missing_ok=True)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint file that a path means: itself, or the newest one of a run folder.

    Raises:
        CheckpointError: If there is none.
    """
    if path.is_file():
        return path
    if (path / NEWEST).is_file():
        return path / NEWEST
    kept = list_checkpoints(path) if path.is_dir() else []
    if kept:
        return kept[-1][1]
    what = "holds no checkpoint" if path.is_dir() else "does not exist"
    raise CheckpointError(f"{path}: {what}. Give a checkpoint file or the output folder of a run.")


def holds_checkpoint(run_dir: Path) -> bool:
    """Whether a folder holds a checkpoint, whole or not."""
    return bool(_newest_first(run_dir))


def newest_whole_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run that is whole; those passed over are warned of.

    Returns:
        Its path; None if the folder holds no checkpoint at all.

    Raises:
        CheckpointError: If there are checkpoints and every one is damaged.
    """
    candidates = _newest_first(run_dir)
    for path in candidates:
        try:
            _verify(path, "")
        except (CheckpointError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is damaged"
            logger.warning("%s: %s; falling back to the checkpoint before it.", path, reason)
        else:
            return path
    if not candidates:
        return None
    raise CheckpointError(
        f"{run_dir}: none of its {len(candidates)} checkpoints is whole. "
        f"Give another --output-dir, or --overwrite to start afresh in this one."
    )


def _newest_first(run_dir: Path) -> list[Path]:
    """Every checkpoint file of a run once, the newest first."""
    paths = [path for _, path in reversed(list_checkpoints(run_dir))]
    newest = run_dir / NEWEST
    # A second name of the newest, or, where there are no hard links, a copy of it.
    if newest.is_file() and not any(newest.samefile(path) for path in paths):
        paths.insert(1, newest)
    return paths


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and verify a checkpoint, tensors on the host; no code in it is run.

    One that somebody saved again with ``torch.save`` has no hash any more, and is verified by what
    its format holds: a CRC for each of its parts.

    Raises:
        CheckpointError: If it is missing, damaged or not one of ours.
    """
    return _read(path, mapped=False)


def read_without_optimizers(path: Path) -> dict[str, Any]:
    """`read_checkpoint` for those who go on from its networks and not from their training.

    One that carries its hash is mapped to memory: of its tensors only those that are used take any.

    Raises:
        CheckpointError: If it is missing, damaged or not one of ours.
    """
    state = _read(path, mapped=True)
    for name in _OPTIMIZERS:
        state.pop(name, None)
    return state


def _read(path: Path, *, mapped: bool) -> dict[str, Any]:
    advice = "Use another checkpoint_iter_*.pth of the run."
    try:
        is_ours = _verify(path, advice)
        # Only what we wrote is known to hold its tensors as they are in memory.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_ours)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {advice}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: is damaged or not a checkpoint: it holds Python objects other than tensors "
            f"and plain values, which are not loaded. {advice}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is damaged or not a checkpoint. {advice}") from error
    state: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    missing = sorted(_KEYS - state.keys())
    if missing:
        raise CheckpointError(
            f"{path}: was not written by adios-tme train: it lacks {', '.join(missing)}. {advice}"
        )
    return state


def checkpoint_digest(path: Path) -> str:
    """The SHA-256 that a checkpoint carries, in hexadecimal, not verified; else that of its bytes.

    Raises:
        CheckpointError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = _digest_in(file, size)
            return _hash(file, size) if digest is None else digest
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def _write_durably(state: dict[str, Any], path: Path) -> None:
    with replacing(path) as partial, partial.open("w+b") as file:
        _save_with_hash(state, file)
        file.flush()
        os.fsync(file.fileno())


def _replace_with_link(path: Path, name: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    with replacing(name) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def _flush_folder(folder: Path) -> None:
    """Make the renames themselves durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _save_with_hash(state: dict[str, Any], file: BinaryIO) -> None:
    """Save, then put the hash of all bytes so far into the comment that ends a zip file."""
    torch.save(state, file)
    file.seek(-2, os.SEEK_END)
    length_at = file.tell()
    digest = _hash(file, length_at)
    file.seek(length_at)
    file.write(_COMMENT_LENGTH.to_bytes(2, "little") + _HASH_MARK + digest.encode())


def _verify(path: Path, advice: str) -> bool:
    """Raise CheckpointError unless a file is whole, by its hash or, saved again, by its CRCs.

    Returns:
        Whether it carries its hash, as we wrote it.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = _digest_in(file, size)
        if digest is None:
            damage = _damage_of_saved_again(file)
        else:
            whole = _hash(file, size - _COMMENT_LENGTH - 2) == digest
            damage = None if whole else "its bytes do not have the hash that it carries"
    if damage:
        raise CheckpointError(f"{path}: is damaged or not a checkpoint: {damage}. {advice}")
    return digest is not None


def _digest_in(file: BinaryIO, size: int) -> str | None:
    """The hash in the comment that ends a checkpoint; None for a file without such a comment."""
    file.seek(max(0, size - _COMMENT_LENGTH))
    comment = file.read()
    return comment[-64:].decode("latin-1") if comment.startswith(_HASH_MARK) else None


def _damage_of_saved_again(file: BinaryIO) -> str | None:
    """What is wrong with a file that carries no hash; None for a whole one of ``torch.save``."""
    file.seek(0)
    if file.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
        return None  # it holds nothing to verify it by; reading it finds what is cut off
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.comment:
                return "its hash is damaged"
            first_bad = archive.testzip()
    except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
        return f"it is not a whole file of torch.save ({error})"
    return f"its part {first_bad} does not have the CRC that it carries" if first_bad else None


def _hash(file: BinaryIO, length: int) -> str:
    """SHA-256 of the first ``length`` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()
