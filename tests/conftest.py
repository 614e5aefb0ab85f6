"""What every test starts from: fixed seeds, one thread, a clean environment."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before numpy and torch are loaded, whose BLAS asks once. Several tests share the cores, which
# threads that wait for each other at every small product would use up.
os.environ["OMP_NUM_THREADS"] = "1"

# What is imported for the tests stays, and there is much to look through for garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    for item in items:
        if item.get_closest_marker("scale") and "scale" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="writes gigabytes; nox -s scale"))
        for mark, needed in (("gpu", 1), ("multi_gpu", 2)):
            if item.get_closest_marker(mark) and torch.cuda.device_count() < needed:
                item.add_marker(pytest.mark.skip(reason=f"needs {needed} CUDA device(s)"))


@pytest.fixture(autouse=True)
def _fixed_conditions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real H&E; see the README there."""
    place = os.environ.get("ADIOS_TME_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(place).is_dir():
        pytest.skip(reason=f"no real H&E at {place}; set ADIOS_TME_DATA to a folder that holds it")
    return Path(place)
