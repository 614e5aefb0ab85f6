"""A rank that waits says on whom."""

from __future__ import annotations

import logging
import re
import time

import pytest

from adios_tme.distributed import hang_watch
from adios_tme.distributed.collectives import barrier
from adios_tme.distributed.hang_watch import HangWatch
from adios_tme.distributed.world import process_group, shared_store
from tests.spawn import run_on_ranks


class Heard(logging.Handler):
    """Keeps what is logged, and lets the other ranks know by the group's store."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        shared_store().set(f"heard by {self.rank}", "")


def wait_for_a_slow_rank() -> list[str]:
    with pytest.MonkeyPatch.context() as patch, process_group("cpu", 60) as world:
        patch.setattr(hang_watch, "HEARTBEAT_SECONDS", 0.1)
        heard = Heard(world.rank)
        logging.getLogger("adios_tme").addHandler(heard)
        barrier()  # both begin at the same time, however long one took to come here
        with HangWatch(world, timeout_seconds=3) as watch:
            watch.at("reading")
            if world.rank == 1:
                watch.at("dreaming")
                shared_store().wait(["heard by 0"])
                time.sleep(5 * hang_watch.HEARTBEAT_SECONDS)  # in which it could be said again
            else:
                watch.at("computing")
                watch.at("end of iteration 7")
            barrier()
    return heard.messages


def test_the_one_behind_is_named_once_and_with_its_place() -> None:
    waiting, slow = run_on_ranks(wait_for_a_slow_rank, 2)
    (message,) = waiting
    place = r"Rank 0 has been at: end of iteration 7 for \d+ s. It waits for rank 1 \("
    assert re.match(place, message)
    assert message.endswith("which is at: dreaming.")
    assert all("waits for nobody" in message for message in slow)
