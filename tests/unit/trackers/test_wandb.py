"""Weights & Biases without a network: its files, read back record by record."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from adios_tme.trackers.wandb import WandbTracker
from tests.fork_server import run_forked
from tests.unit.trackers.fakes import run_to_track

BLOCK_BYTES = 32_768


def records(path: Path) -> Iterator[Any]:
    """Records of a small ``.wandb`` file: LevelDB's log format after seven bytes of a header."""
    proto: Any = import_module("wandb.proto.wandb_internal_pb2")
    content, place = path.read_bytes(), 7
    assert content[:4] == b":W&B"
    assert len(content) < BLOCK_BYTES  # so that no record is split
    while place < len(content):
        _, length, _ = struct.unpack_from("<IHB", content, place)
        place += 7 + length
        yield proto.Record.FromString(content[place - length : place])


def history(path: Path) -> list[dict[str, Any]]:
    lines = [each.history for each in records(path) if each.WhichOneof("record_type") == "history"]
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in line.item}
        for line in lines
    ]


def track_twice(place: str) -> None:
    """In a process of its own, as the package leaves threads behind."""
    folder, run_id = Path(place), None
    Image.new("RGB", (8, 8), "pink").save(folder / "masks.png")
    for lr, steps in ((0.5, (1, 3)), (0.25, (4,))):
        tracker = WandbTracker(run_to_track(folder, run_id=run_id))
        tracker.store_init_configuration({"optim": {"lr": lr}})
        for step in steps:
            tracker.log({"mask_coverage/1": step / 8}, step)
            tracker.log_images({"masks": folder / "masks.png"}, step)
        tracker.finish()
        assert run_id in (None, tracker.run_id)
        run_id = tracker.run_id
        assert tracker.where.startswith(f"wandb sync {folder}/wandb/offline-run-")


def test_lines_stand_at_their_iteration_and_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    offline = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = run_forked(track_twice, str(tmp_path), environment=offline | {"WANDB_MODE": "offline"})
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1
    lines = [line for file in files for line in history(file)]
    shown = {line["_step"]: (line["mask_coverage/1"], line["masks/_type"]) for line in lines}
    assert shown == {step: (step / 8, "image-file") for step in (1, 3, 4)}
    runs = [each.run for file in files for each in records(file) if each.HasField("run")]
    assert {(run.project, run.display_name) for run in runs} == {("tissue", "first try")}


@pytest.mark.parametrize(("starting_step", "last_step"), [(0, 0), (25, 24)])
def test_with_a_network_the_service_tells_what_it_has(
    starting_step: int, last_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(
        id="abc",
        offline=False,
        url="https://site/abc",
        dir="run/files",
        starting_step=starting_step,
    )
    asked: dict[str, Any] = {}

    def init(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return run

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    tracker = WandbTracker(run_to_track(tmp_path, run_id="abc"))
    assert (tracker.last_step, tracker.where) == (last_step, "https://site/abc")
    assert (asked["id"], asked["resume"], asked["dir"]) == ("abc", "allow", str(tmp_path))
