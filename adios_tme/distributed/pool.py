"""Processes that share the work on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from adios_tme.errors import LaunchError


@contextmanager
def process_pool(num_workers: int, what: str) -> Iterator[ProcessPoolExecutor]:
    """A pool that starts at once; what it runs must leave torch's threads alone.

    Args:
        num_workers: Processes.
        what: What they do, for the message.

    Raises:
        LaunchError: If one of them was killed before its work was done.
    """
    # Forked processes start at once, and would find torch's threads gone.
    context = get_context("fork" if sys.platform == "linux" else None)
    try:
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise LaunchError(
            f"{what}: one of {num_workers} processes was killed, most often for want of memory. "
            f"Free memory, or lower --num-workers, and start again."
        ) from error
