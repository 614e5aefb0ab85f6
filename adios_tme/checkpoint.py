"""Checkpoints: written whole or not at all, verified when read, loaded as a run or one network."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import shutil
import threading
from collections import deque
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


class CheckpointWriter:
    """Writes checkpoints beside the training: the caller waits for the copy to memory alone.

    A copy that still waits for the disk when the next one comes is left out, with a warning. One
    failed write is a warning, too, and training goes on; a second in a row gives up. An error of
    another kind is raised by the next `save` or by `close`.

    Args:
        run_dir: Folder of the run.
        keep_every: Iterations between the checkpoints that stay for evaluation; the newest two
            always stay. None keeps all.
        check_owner: Raises `CheckpointError` when the folder has become another run's.
    """

    def __init__(
        self,
        run_dir: Path,
        keep_every: int | None = None,
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        self.run_dir = run_dir
        self.keep_every = keep_every
        self._check_owner = check_owner
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()
        self._waiting: dict[str, Any] | None = None
        self._writes: deque[Future[None]] = deque()
        self._failures: list[CheckpointError] = []

    def save(self, state: dict[str, Any]) -> None:
        """Copy the state, to be written in the background."""
        while self._writes and self._writes[0].done():
            self._writes.popleft().result()
        copied = tree_map(_to_host, state)
        with self._lock:
            if self._waiting is not None:
                logger.warning(
                    "%s: %s is left out, because the disk is slower than the checkpoints come. "
                    "Raise --save-freq, or write to a faster disk.",
                    self.run_dir,
                    checkpoint_name(self._waiting["iteration"]),
                )
            self._waiting = copied
        self._writes.append(self._thread.submit(self._write_waiting))

    def gave_up(self) -> CheckpointError | None:
        """The error of the last write when two in a row have failed."""
        with self._lock:
            return self._failures[-1] if len(self._failures) > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.close()

    def close(self) -> None:
        """Wait for the last write.

        Raises:
            CheckpointError: If it failed.
        """
        self._thread.shutdown()
        for write in self._writes:
            write.result()
        if self._failures:
            raise self._failures[-1]

    def _write_waiting(self) -> None:
        with self._lock:
            state, self._waiting = self._waiting, None
        if state is None:
            return
        try:
            self._check_owner()
            write_checkpoint(state, self.run_dir)
            self._remove_passed()
        except CheckpointError as error:
            with self._lock:
                self._failures.append(error)
            if len(self._failures) == 1:
                logger.warning("%s Training goes on until the next checkpoint.", error)
        else:
            with self._lock:
                self._failures.clear()

    def _remove_passed(self) -> None:
        """Delete what is neither kept for evaluation nor among the newest two."""
        for iteration, path in list_checkpoints(self.run_dir)[:-2]:
            if not self.keep_every or iteration % self.keep_every == 0:
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s: cannot be removed (%s); it stays.", path, error.strerror)


def remove_partial_writes(run_dir: Path) -> None:
    """Delete what writes that were killed have left; no other write may be under way."""
    for partial in run_dir.glob(".checkpoint*.partial"):
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
            _verify_hash(path, "")
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


def checkpoint_digest(path: Path) -> str:
    """The SHA-256 that a checkpoint carries, in hexadecimal; it is not verified.

    Raises:
        CheckpointError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64))
            return file.read().decode("latin-1")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


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
