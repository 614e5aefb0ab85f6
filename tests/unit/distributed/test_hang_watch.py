"""A rank that waits says on whom."""

from __future__ import annotations

import logging
import time

import pytest

from adios_tme.distributed import hang_watch
from adios_tme.distributed.collectives import barrier
from adios_tme.distributed.hang_watch import HangWatch
from adios_tme.distributed.world import process_group
from tests.spawn import run_on_ranks


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def wait_for_a_slow_rank() -> list[str]:
    heard = Heard()
    logging.getLogger("adios_tme").addHandler(heard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hang_watch, "HEARTBEAT_SECONDS", 0.1)
        with process_group("cpu", 60) as world, HangWatch(world, timeout_seconds=3) as watch:
            watch.at("reading")
            if world.rank == 1:
                watch.at("dreaming")
                time.sleep(5)
            else:
                watch.at("computing")
                watch.at("end of iteration 7")
            barrier()
    return heard.messages


def test_the_one_behind_is_named_once_and_with_its_place() -> None:
    waiting, slow = run_on_ranks(wait_for_a_slow_rank, 2)
    (message,) = waiting
    assert message.startswith(
        "Rank 0 has been at: end of iteration 7 for 1 s. It waits for rank 1 ("
    )
    assert message.endswith("which is at: dreaming.")
    assert all("waits for nobody" in message for message in slow)
