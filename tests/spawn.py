"""Real process groups on one machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import start_processes


def run_on_ranks(
    function: Callable[..., Any], num_ranks: int, *arguments: Any, timeout: float = 120
) -> list[Any]:
    """Call ``function(*arguments)`` in that many processes of one gloo group.

    Returns:
        What each rank returned. A child's error is raised again here.
    """
    context = mp.get_context("spawn")
    results = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = start_processes(
        _child, (num_ranks, port, results, function, arguments), nprocs=num_ranks, join=False
    )
    assert processes is not None
    answers: dict[int, Any] = {}
    failed = False
    while len(answers) < num_ranks and not failed:
        rank, answers[rank], failed = results.get(timeout=timeout)
    while not processes.join(timeout=timeout):
        pass
    return [answers[rank] for rank in range(num_ranks)]


def _child(
    rank: int, num_ranks: int, port: int, results: Any, function: Any, arguments: Any
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_WORLD_SIZE=str(num_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        results.put((rank, function(*arguments), False))
    except BaseException:
        results.put((rank, None, True))  # wakes the parent, which raises the error when it joins
        raise
