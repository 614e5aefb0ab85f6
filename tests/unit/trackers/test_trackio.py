"""trackio in a folder of its own, read back from its database."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adios_tme.trackers.trackio import TrackioTracker
from tests.fork_server import run_forked
from tests.unit.trackers.fakes import run_to_track

pytest.importorskip("trackio", reason="trackio is heavy and is not installed; nox -s extras")


def track_twice(place: str) -> None:
    """In a process of its own, as the package reads the environment when it is imported."""
    folder, run_id = Path(place), None
    Image.new("RGB", (8, 8), "pink").save(folder / "masks.png")
    for steps in ((1, 2), (3,)):
        tracker = TrackioTracker(run_to_track(folder, run_id=run_id))
        tracker.store_init_configuration({"optim": {"lr": 0.5}})
        for step in steps:
            tracker.log({"mask_coverage/1": step / 8}, step)
            tracker.log_images({"masks": folder / "masks.png"}, step)
        tracker.finish()
        run_id = tracker.run_id
    storage: Any = import_module("trackio.sqlite_storage").SQLiteStorage
    assert storage.get_runs("tissue") == [run_id]
    assert storage.get_run_config("tissue", run_id)["optim/lr"] == 0.5
    (folder / "told.json").write_text(json.dumps(storage.get_logs("tissue", run_id)))


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path) -> None:
    places = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    done = run_forked(track_twice, str(tmp_path), environment=places)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "told.json").read_text())
    name = "mask_coverage/1"
    covered = [(line["step"], line[name]) for line in lines if name in line]
    assert covered == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert [line["step"] for line in lines if "masks" in line] == [1, 2, 3]
