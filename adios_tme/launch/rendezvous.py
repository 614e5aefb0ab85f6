"""torch's c10d rendezvous of machines, which lets the workers save before it changes them.

torch's elastic agent stops its workers the moment another machine waits to join. Here they are
asked to save first, so that a machine that joins costs no iteration.
"""

from __future__ import annotations

import logging
import threading
import time

from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.errors import LaunchError

BACKEND = "adios_tme"
#: Time that workers have to finish their step and save before a machine joins all the same.
SAVE_SECONDS = 120
#: Time in which the rendezvous endpoint answers, or is lost. torch's store, whose own time-out
#: waits for an answer as well, would notice a cut link only when TCP does, after 15 minutes.
ANSWER_SECONDS = 60

logger = logging.getLogger(__name__)


def register(channel: WorkerChannel) -> str:
    """Make the rendezvous known to torch for one launch, and return its name."""

    def create(parameters: RendezvousParameters) -> RendezvousHandler:
        backend, store = create_backend(parameters)
        return SavingRendezvous(create_handler(store, backend, parameters), channel)

    rendezvous_handler_registry._registry.pop(BACKEND, None)  # of a launch before in this process
    rendezvous_handler_registry.register(BACKEND, create)
    return BACKEND


class SavingRendezvous(RendezvousHandler):
    """A rendezvous that gives the workers time, and ends where a new start would be in vain.

    Args:
        inner: The rendezvous that does the work.
        channel: Shared with the workers of this machine.
    """

    def __init__(self, inner: RendezvousHandler, channel: WorkerChannel) -> None:
        self._inner = inner
        self._channel = channel
        self._num_starts = 0
        self._asked_at: float | None = None
        self._is_lost = False

    def get_backend(self) -> str:
        """Name of the backend."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """Whether workers share the agent's store."""
        return self._inner.use_agent_store

    def next_rendezvous(self) -> RendezvousInfo:
        """Meet the other machines, unless a worker has met an error that would only come again.

        Raises:
            AdiosError: That error.
            LaunchError: If the run has ended on another machine.
        """
        if error := self._channel.error:
            raise error
        if self._num_starts:
            why = "machines join" if self._asked_at else "processes failed or were killed"
            logger.warning("Start %d: %s.", self._num_starts + 1, why)
        try:
            info = self._inner.next_rendezvous()
        except RendezvousClosedError as error:
            raise LaunchError(
                "The run has ended on another machine; see its message. "
                "Run the same command again on every machine to go on from what is saved."
            ) from error
        logger.info("Machine %d of %d in this run.", info.rank + 1, info.world_size)
        self._num_starts += 1
        self._asked_at = None
        self._channel.begin_again()
        return info

    def num_nodes_waiting(self) -> int:
        """Machines that wait to join; 0 while the workers are still saving for them.

        Raises:
            RendezvousConnectionError: If the rendezvous endpoint does not answer.
        """
        waiting = self._ask_num_waiting()
        if waiting <= 0:
            return waiting
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            if self._channel.request == Request.CONTINUE:
                self._channel.request = Request.CHANGE_MEMBERSHIP
        is_late = time.monotonic() - self._asked_at > SAVE_SECONDS
        return waiting if is_late or self._channel.all_ready else 0

    def _ask_num_waiting(self) -> int:
        answers: list[int | Exception] = []

        def ask() -> None:
            try:
                answers.append(self._inner.num_nodes_waiting())
            except Exception as error:
                answers.append(error)

        asking = threading.Thread(target=ask, name="rendezvous", daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        self._is_lost = not answers
        if not answers:
            raise RendezvousConnectionError(f"no answer for {ANSWER_SECONDS} s")
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def is_closed(self) -> bool:
        """Whether the run has ended somewhere."""
        return self._inner.is_closed()

    def set_closed(self) -> None:
        """End the run everywhere."""
        self._inner.set_closed()

    def get_run_id(self) -> str:
        """Name of the run."""
        return self._inner.get_run_id()

    def shutdown(self) -> bool:
        """Leave; without a word where nobody listens."""
        return not self._is_lost and self._inner.shutdown()
