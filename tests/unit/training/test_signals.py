"""Requests to stop."""

from __future__ import annotations

import os
import signal

import pytest

from adios_tme.training.signals import STOPPING, stop_on_signal


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop.on_any_rank()
        os.kill(os.getpid(), number)
        assert stop.on_any_rank()
        assert stop.number == number
        assert signal.getsignal(number) is signal.SIG_DFL  # a second one acts at once
    assert signal.getsignal(number) is before
