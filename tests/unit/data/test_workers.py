"""Workers that fail, die, are stopped or hang: one message, and none is left behind."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from adios_tme.data import reader, workers
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import decode_image
from adios_tme.data.index_builder import build_index
from adios_tme.data.loader import PatchLoader
from adios_tme.data.slots import Batch
from adios_tme.distributed import process_state
from adios_tme.errors import AdiosError, DataError, LaunchError
from tests.factories import make_archive, make_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")

real_decode = decode_image


@pytest.fixture(autouse=True)
def _nobody_is_left_behind() -> Iterator[None]:
    before = set(children())
    yield
    deadline = time.monotonic() + 30  # a busy machine takes its time to end what was killed
    while not set(children()) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(children()) <= before


def children() -> list[int]:
    """Processes of this one that have not ended."""
    listed = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text()
    return [int(pid) for pid in listed.split() if process_state.state(int(pid)) != "Z"]


def loader(folder: Path, num_workers: int, **settings: Any) -> PatchLoader:
    index = build_index(make_dataset(folder))
    return PatchLoader(index, img_size=16, batch_size=2, num_workers=num_workers, **settings)


def failure(loading: PatchLoader, then: Callable[[], None] = lambda: None) -> AdiosError:
    """What taking batches ends with."""
    batches: Iterator[Batch] = iter(loading)
    try:
        with pytest.raises(AdiosError) as error:
            take_on(batches, then)
        return error.value
    finally:
        loading.close()


def take_on(batches: Iterator[Batch], then: Callable[[], None]) -> None:
    next(batches)
    then()
    for _ in range(50):
        next(batches)


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_an_error_that_nobody_foresaw_names_the_patch(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def decode(content: bytes, needed_px: int | None = None) -> Any:
        nonlocal count
        count += 1
        if count > 3:
            raise ZeroDivisionError("division by zero")
        return real_decode(content, needed_px)

    loading = loader(tmp_path, num_workers)
    monkeypatch.setattr(reader, "decode_image", decode)
    error = failure(loading)
    assert isinstance(error, DataError)
    assert "\n" not in str(error)
    assert "_448_x" in str(error)
    assert "ZeroDivisionError: division by zero; in decode" in str(error)


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_a_hundred_corrupt_patches_in_a_row_end_it(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(content: bytes, needed_px: int | None = None) -> Any:
        raise CorruptPatchError("made up")

    loading = loader(tmp_path, num_workers)
    monkeypatch.setattr(reader, "decode_image", decode)
    batches = iter(loading)
    with pytest.raises(DataError, match=r"100 patches in a row could not be read .*made up"):
        next(batches)
    loading.close()


@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_killed_worker_is_told(num_workers: int, tmp_path: Path) -> None:
    loading = loader(tmp_path, num_workers)
    error = failure(loading, lambda: os.kill(active_children()[0].pid or 0, signal.SIGKILL))
    assert isinstance(error, LaunchError)
    assert "was killed by SIGKILL, most often for want of memory" in str(error)
    assert "lower --num-workers" in str(error)


def test_a_crash_is_told_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONFAULTHANDLER", raising=False)
    loading, trace = loader(tmp_path, 1), tmp_path / "trace"
    with trace.open("w") as file:
        faulthandler.enable(file)  # as torch's launcher does in the processes that it starts
        try:
            error = failure(loading, lambda: os.kill(active_children()[0].pid or 0, signal.SIGSEGV))
        finally:
            faulthandler.enable()
    assert "was ended by SIGSEGV while it read" in str(error)
    assert trace.read_text() == ""


@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_stopped_worker_is_told(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.02)
    loading = loader(tmp_path, num_workers)
    error = failure(loading, lambda: os.kill(active_children()[0].pid or 0, signal.SIGSTOP))
    assert isinstance(error, LaunchError)
    assert "was stopped (SIGSTOP) while it read" in str(error)


def test_a_worker_that_hangs_is_told_after_the_time_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decode(content: bytes, needed_px: int | None = None) -> Any:
        time.sleep(600)

    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(workers, "SLOW_SECONDS", 0.1)
    loading = loader(tmp_path, 1, read_timeout_seconds=0.3)
    monkeypatch.setattr(reader, "decode_image", decode)
    batches = iter(loading)
    with pytest.raises(LaunchError, match=r"has not read .*_448_x.*it sleeps.*--read-timeout"):
        next(batches)
    loading.close()
    assert caplog.text.count("Waiting for loader worker") == 1


def test_a_worker_that_leaves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = loader(tmp_path, 1)
    monkeypatch.setattr(reader, "decode_image", lambda *_: os._exit(7))
    batches = iter(loading)
    with pytest.raises(LaunchError, match="ended with exit code 7 while it read"):
        next(batches)
    loading.close()


def test_images_of_another_size_come_through_the_shared_slots(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_archives=2, num_patches=3)
    make_archive(tmp_path / "data" / "odd.zip", num_patches=2, size_px=50, seed=9)
    index = build_index(tmp_path / "data")
    batches = []
    for num_workers in (0, 2):
        loading = PatchLoader(
            index, img_size=16, batch_size=8, num_workers=num_workers, resize_in_worker=False
        )
        batch = next(iter(loading))
        assert len(batch.odd) == 2
        batches.append(batch.on(batch.images.device, 16).clone())
        loading.close()
    assert (batches[0] == batches[1]).all()


def test_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    loading = loader(tmp_path, 2)
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(LaunchError, match="2 loader workers cannot be started"):
        loading.start()
