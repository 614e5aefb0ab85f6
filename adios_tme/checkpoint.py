"""Checkpoints: written whole or not at all, verified when read, loaded as a run or one network."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from adios_tme.config.load import build
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.errors import CheckpointError
from adios_tme.models.build import build_mask_model, build_student
from adios_tme.models.generator import MaskGenerator
from adios_tme.models.student import Student
from adios_tme.models.vit import VisionTransformer

NEWEST = "checkpoint.pth"
KEPT = re.compile(r"checkpoint_iter_(\d{8})\.pth")

_HASH_MARK = b"sha256:"
_COMMENT_LENGTH = len(_HASH_MARK) + 64

logger = logging.getLogger(__name__)


def checkpoint_name(iteration: int) -> str:
    """File name of the checkpoint written after ``iteration`` updates."""
    return f"checkpoint_iter_{iteration:08d}.pth"


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """The kept checkpoints of a run with their iterations, oldest first."""
    found = [(KEPT.fullmatch(path.name), path) for path in run_dir.glob("checkpoint_iter_*.pth")]
    return sorted((int(match[1]), path) for match, path in found if match)


def write_checkpoint(state: dict[str, Any], run_dir: Path) -> Path:
    """Write ``checkpoint_iter_*.pth`` and make it the newest; each name is whole or absent.

    Raises:
        CheckpointError: If the disk is full or not writable; older checkpoints are untouched.
    """
    path = run_dir / checkpoint_name(state["iteration"])
    try:
        _write_atomically(path, lambda file: _save_with_hash(state, file))
        _replace_with_link(path, run_dir / NEWEST)
        _flush_folder(run_dir)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the checkpoint could not be written ({error.strerror}). "
            f"Make room or check permissions; older checkpoints are whole."
        ) from error
    return path


class CheckpointWriter:
    """Writes checkpoints beside the training: the caller waits for the copy to memory alone.

    One failed write is a warning and training goes on; a second in a row, or the last one, raises.

    Args:
        run_dir: Folder of the run.
        keep: How many ``checkpoint_iter_*.pth`` stay, the newest ones; None keeps all.
    """

    def __init__(self, run_dir: Path, keep: int | None) -> None:
        self.run_dir = run_dir
        self.keep = keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None
        self._failed_before = False

    def save(self, state: dict[str, Any]) -> None:
        """Copy the state and write it in the background, after the write before is done."""
        self._settle(last=False)
        copied = tree_map(_to_host, state)
        self._pending = self._thread.submit(self._write, copied)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the last write.

        Raises:
            CheckpointError: If it failed.
        """
        try:
            self._settle(last=True)
        finally:
            self._thread.shutdown()

    def _write(self, state: dict[str, Any]) -> Path:
        path = write_checkpoint(state, self.run_dir)
        if self.keep:
            for _, old in list_checkpoints(self.run_dir)[: -self.keep]:
                old.unlink()
        return path

    def _settle(self, *, last: bool) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except CheckpointError as error:
            if last or self._failed_before:
                raise
            self._failed_before = True
            logger.warning("%s Training goes on until the next checkpoint.", error)
        else:
            self._failed_before = False


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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and verify a checkpoint, tensors on the host; no code in it is run.

    Raises:
        CheckpointError: If it is missing, damaged or not one of ours.
    """
    advice = "Use another checkpoint_iter_*.pth of the run."
    try:
        _verify_hash(path, advice)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {advice}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: is damaged or not a checkpoint. {advice}") from error
    if not isinstance(state, dict) or not {"student", "mask_model", "config"} <= state.keys():
        raise CheckpointError(f"{path}: was not written by adios-tme train. {advice}")
    return state


def load_student(path: Path, device: str | torch.device = "cpu") -> Student:
    """Load the encoder and its head from a checkpoint or run folder, ready to evaluate.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    place = torch.device(device)
    student = build_student(config.model, config.data.img_size, ComputeConfig(), place)
    student.load_state_dict(state["student"])
    return student.eval()


def load_encoder(path: Path, device: str | torch.device = "cpu") -> VisionTransformer:
    """Load the student's encoder; see `load_student`."""
    return load_student(path, device).encoder


def load_mask_model(path: Path, device: str | torch.device = "cpu") -> MaskGenerator:
    """Load the mask model with its normalisation from a checkpoint or run folder.

    Where the run kept a moving average of it (``mask_ema``), that is what is loaded.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    data, place = config.data, torch.device(device)
    network = build_mask_model(config.mask, config.model, data.img_size, ComputeConfig(), place)
    average = state.get("mask_average")
    network.load_state_dict(average["weights"] if average else state["mask_model"])
    return MaskGenerator(network, data.img_size, data.mean, data.std).to(place).eval()


def _read_with_config(path: Path) -> tuple[dict[str, Any], TrainConfig]:
    checkpoint = find_checkpoint(path)
    state = read_checkpoint(checkpoint)
    return state, build(TrainConfig, state["config"], source=str(checkpoint))


def _to_host(item: Any) -> Any:
    """A copy that later steps do not change."""
    if not isinstance(item, Tensor):
        return item
    return item.detach().to("cpu", copy=True)


def _write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _replace_with_link(path: Path, name: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    partial = name.with_name(f".{name.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        shutil.copyfile(path, partial)
    partial.replace(name)


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


def _verify_hash(path: Path, advice: str) -> None:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _COMMENT_LENGTH))
        comment = file.read()
        whole = comment.startswith(_HASH_MARK)
        if not whole or _hash(file, size - _COMMENT_LENGTH - 2) != comment[-64:].decode("latin-1"):
            raise CheckpointError(f"{path}: is damaged or not a checkpoint. {advice}")


def _hash(file: BinaryIO, length: int) -> str:
    """SHA-256 of the first ``length`` bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()
