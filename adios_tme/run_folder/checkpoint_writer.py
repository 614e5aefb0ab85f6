"""Checkpoints written beside the training, by a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.utils._pytree import tree_map

from adios_tme.errors import CheckpointError
from adios_tme.run_folder.checkpoints import list_checkpoints, write_checkpoint
from adios_tme.run_folder.layout import checkpoint_name

logger = logging.getLogger(__name__)


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

    def wait(self) -> None:
        """Wait until nothing is being written; what failed is told by `save` and `close`."""
        wait(self._writes)

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


def _to_host(item: Any) -> Any:
    """A copy that later steps do not change."""
    if not isinstance(item, Tensor):
        return item
    return item.detach().to("cpu", copy=True)
