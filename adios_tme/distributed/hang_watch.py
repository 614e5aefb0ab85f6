"""Heartbeats: each rank says where it is, and one that waits long says who is behind."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from typing import Any, Self

from adios_tme.distributed.world import World, shared_store

HEARTBEAT_SECONDS = 2.0
LONGEST_PATIENCE_SECONDS = 60.0
#: Readings from which to tell that a rank sends no heartbeats any more.
NUM_LOOKS = 4

Heartbeats = dict[int, dict[str, Any]]
"""What each rank wrote last."""

logger = logging.getLogger(__name__)


class HangWatch:
    """Watches the other ranks beside the training; silent while everybody moves.

    Args:
        world: Place of this process.
        timeout_seconds: When a collective gives up; the first word comes well before.
    """

    def __init__(self, world: World, timeout_seconds: float) -> None:
        self._world = world
        self._patience = min(LONGEST_PATIENCE_SECONDS, timeout_seconds / 3)
        self._num_places = 0
        self._place = "starting"
        self._since = time.monotonic()
        self._ended = threading.Event()
        #: What was read while this rank waited: the first readings, and the last one.
        self._seen: list[Heartbeats] = []
        store = shared_store()
        # A connection of its own: the other one may be held by a call that waits.
        self._store = store.clone() if store is not None else None
        # Two threads, because the store may be what does not answer.
        self._threads = [
            threading.Thread(target=target, name="heartbeat", daemon=True)
            for target in (self._exchange_heartbeats, self._watch)
        ]

    def at(self, place: str) -> None:
        """Say where this rank is now."""
        self._num_places += 1
        self._place = place
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        if self._store is not None:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._since

    def _exchange_heartbeats(self) -> None:
        number = 0
        try:
            # At once: who hangs soon after the start shall have a name.
            self._write_heartbeat(number)
            while not self._ended.wait(HEARTBEAT_SECONDS):
                number += 1
                self._write_heartbeat(number)
                if self._waited < self._patience:
                    self._seen = []
                else:
                    self._seen = [*self._seen[: NUM_LOOKS - 1], self._read_heartbeats()]
        except RuntimeError:
            return  # the store is gone; the other thread says so if that keeps this rank waiting

    def _watch(self) -> None:
        warned_at = -1
        while not self._ended.wait(HEARTBEAT_SECONDS):
            waited, seen = self._waited, self._seen
            if waited < self._patience or warned_at == self._num_places:
                continue
            if len(seen) >= NUM_LOOKS:
                whom = self._behind(seen[-1], seen[0])
            elif waited > self._patience + 2 * NUM_LOOKS * HEARTBEAT_SECONDS:
                whom = "rank 0, which keeps the store of the group and does not answer"
            else:
                continue
            warned_at = self._num_places
            logger.warning(
                "Rank %d has been at: %s for %.0f s. It waits for %s.",
                self._world.rank,
                self._place,
                waited,
                whom,
            )

    def _write_heartbeat(self, number: int) -> None:
        assert self._store is not None
        heartbeat = {
            "number": number,
            "num_places": self._num_places,
            "place": self._place,
            "who": f"rank {self._world.rank} (process {os.getpid()} on {socket.gethostname()})",
        }
        self._store.set(_key(self._world.rank), json.dumps(heartbeat))

    def _read_heartbeats(self) -> Heartbeats:
        assert self._store is not None
        return {
            rank: json.loads(self._store.get(_key(rank)))
            for rank in range(self._world.num_ranks)
            if self._store.check([_key(rank)])
        }

    def _behind(self, heartbeats: Heartbeats, before: Heartbeats) -> str:
        """The ranks that have not come as far as this one, in words."""
        behind = []
        for rank in range(self._world.num_ranks):
            if rank not in heartbeats:
                behind.append(f"rank {rank}, which has not been heard of")
            elif rank in before and heartbeats[rank]["number"] == before[rank]["number"]:
                behind.append(f"{heartbeats[rank]['who']}, which sends no heartbeat")
            elif heartbeats[rank]["num_places"] < self._num_places:
                behind.append(
                    f"{heartbeats[rank]['who']}, which is at: {heartbeats[rank]['place']}"
                )
        return "; ".join(behind) or "nobody: all ranks are as far, so look at network and disks"


def _key(rank: int) -> str:
    return f"adios_tme/heartbeat/{rank}"
