"""A rendezvous that does not answer."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from adios_tme.distributed.worker_channel import WorkerChannel
from adios_tme.launch import rendezvous
from adios_tme.launch.rendezvous import SavingRendezvous


class Mute:
    """A rendezvous behind a cut link."""

    def __init__(self) -> None:
        self.healed = threading.Event()

    def num_nodes_waiting(self) -> int:
        self.healed.wait()
        return 0

    def shutdown(self) -> bool:
        raise AssertionError("asked in vain, which could hang as well")


def test_no_answer_is_an_error_and_leaving_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 0.1)
    mute = Mute()
    saving = SavingRendezvous(cast("Any", mute), WorkerChannel(1))
    try:
        with pytest.raises(RendezvousConnectionError, match="no answer"):
            saving.num_nodes_waiting()
        assert saving.shutdown() is False
    finally:
        mute.healed.set()
    assert saving.num_nodes_waiting() == 0
