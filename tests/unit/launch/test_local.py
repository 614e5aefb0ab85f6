"""Processes that cannot be started."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adios_tme.errors import LaunchError
from adios_tme.launch import local
from tests.factories import make_dataset, tiny_config


def full_shared_memory(*_: object) -> Callable[..., Any]:
    """In place of torch's launcher: its first semaphore finds no room."""

    def workers(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return workers


def test_no_room_for_the_locks_of_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(make_dataset(tmp_path / "data"), tmp_path / "run", nproc_per_node="2")
    monkeypatch.setattr(local, "elastic_launch", full_shared_memory)
    with pytest.raises(LaunchError, match=r"2 processes cannot .*\(No space left.*/dev/shm"):
        local.train(config)
