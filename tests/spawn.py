"""Real process groups on one machine."""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.fork_server import fork, wait_for_all


def run_on_ranks(
    function: Callable[..., Any], num_ranks: int, *arguments: Any, timeout: float = 240
) -> list[Any]:
    """Call ``function(*arguments)`` in that many processes of one gloo group.

    Returns:
        What each rank returned.

    Raises:
        AssertionError: If a rank fails; with what all of them said.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reserve_port())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            fork(
                _answer,
                folder / f"{rank}.answer",
                function,
                arguments,
                environment=os.environ | address | _place(rank, num_ranks),
                out=folder / f"{rank}.log",
            )
            for rank in range(num_ranks)
        ]
        try:
            codes = wait_for_all(ranks, timeout)
        finally:
            for rank in ranks:
                rank.kill()
        logs = [path.read_text() for path in sorted(folder.glob("*.log"))]
        assert not any(codes), "\n".join(logs)
        return [pickle.loads((folder / f"{rank}.answer").read_bytes()) for rank in range(num_ranks)]


def reserve_port() -> int:
    """A port that nobody is given for a minute, but that can be asked for by its number.

    A connection that was closed here first stays in TIME_WAIT, so that the system hands its port to
    no one else, while a server, which sets SO_REUSEADDR, may take it.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)  # waits for the closing to arrive
    return port


def _place(rank: int, num_ranks: int) -> dict[str, str]:
    """As a launcher tells it."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
    }


def _answer(path: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    path.write_bytes(pickle.dumps(function(*arguments)))
