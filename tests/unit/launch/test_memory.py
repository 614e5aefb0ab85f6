"""A run that does not fit into the memory at hand is refused before it begins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.config.load import build
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.launch import memory
from adios_tme.launch.local import train
from adios_tme.launch.memory import check_memory

GIB = 2**30
SMALL = {"arch": "vit_tiny", "depth": 2}


def config(**settings: object) -> TrainConfig:
    given = {"data_path": ["patches"], "img_size": 64, "batch_size_per_gpu": 64}
    tree = {"data": given, "model": SMALL, "mask": {"mask_model_type": "adios"}}
    return build(TrainConfig, tree, settings)


def world(num_ranks: int = 1) -> World:
    return World(0, num_ranks, 0, num_ranks, torch.device("cpu"))


def at_hand(monkeypatch: pytest.MonkeyPatch, bytes_: int | None) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: bytes_)


def needed(settings: TrainConfig, batch_size: int) -> int:
    return StepCost.of(settings).peak_bytes(batch_size)


def test_what_fits_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, needed(config(), 64))
    check_memory(config(), world())
    at_hand(monkeypatch, None)  # a system that does not tell
    check_memory(config(), world())


def test_what_does_not_fit_is_told_with_a_batch_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    room = needed(config(), 64) - 1
    at_hand(monkeypatch, room)
    with pytest.raises(
        ConfigError, match="A step of --arch vit_tiny on 64 images of 64 px"
    ) as told:
        check_memory(config(), world())
    assert told.value.exit_code == 2
    (proposed,) = re.findall(
        r"--batch-size-per-gpu (\d+) \(and --global-batch-size 64", str(told.value)
    )
    assert needed(config(), int(proposed)) <= 0.9 * room < needed(config(), int(proposed) + 1)
    smaller = {"data": {"batch_size_per_gpu": int(proposed)}, "optim": {"global_batch_size": 64}}
    check_memory(config(**smaller), world())
    check_memory(config(compute={"ignore_memory": True}), world())


def test_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, int(1.5 * needed(config(), 64)))
    check_memory(config(), world())
    with pytest.raises(ConfigError, match=r"GiB \(2 processes\), and there are"):
        check_memory(config(), world(2))


def test_no_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, 1000)
    with pytest.raises(
        ConfigError, match=r"0\.0 GiB on cpu\. Choose a smaller --arch or --img-size"
    ):
        check_memory(config(), world())


def test_nothing_is_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_hand(monkeypatch, 1000)
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match="patches does not exist"):  # told before the memory
        train(config(run={"output_dir": folder}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patches").mkdir()
    with pytest.raises(ConfigError, match="--ignore-memory"):
        train(config(run={"output_dir": folder}))
    assert not folder.exists()
