"""MLflow in a database of its own, read back by its client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adios_tme.trackers.mlflow import MlflowTracker
from tests.unit.trackers.fakes import run_to_track

mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed; nox -s extras")

#: Of the packages that it brings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return mlflow.MlflowClient()


def test_a_resumed_run_goes_on_and_one_that_is_gone_begins_anew(
    tmp_path: Path, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 8), "pink").save(tmp_path / "masks.png")
    first = MlflowTracker(run_to_track(tmp_path))
    first.store_init_configuration({f"setting_{number}": number for number in range(150)})
    first.log({"mask_coverage/1": 0.25, "lr": 1.0}, 1)
    first.log_images({"masks": tmp_path / "masks.png"}, 1)
    first.finish(failed=True)
    found = client.get_run(first.run_id)
    assert found.info.status == "FAILED"
    assert found.info.run_name == "first try"
    assert client.get_experiment(found.info.experiment_id).name == "tissue"
    assert len(found.data.params) == 150
    assert any(each.path.endswith(".png") for each in client.list_artifacts(first.run_id, "images"))

    second = MlflowTracker(run_to_track(tmp_path, run_id=first.run_id))
    second.store_init_configuration({"setting_1": "another"})
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log({"mask_coverage/1": 0.5}, 2)
    second.finish()
    points = client.get_metric_history(first.run_id, "mask_coverage/1")
    assert [(each.step, each.value) for each in points] == [(1, 0.25), (2, 0.5)]
    found = client.get_run(first.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["setting_1"] == "1"

    client.delete_run(first.run_id)
    for gone in (first.run_id, "0" * 32):
        caplog.clear()
        assert MlflowTracker(run_to_track(tmp_path, run_id=gone)).run_id != gone
        warning = f"mlflow: run {gone} is not there any more; a new one begins."
        assert warning in caplog.messages
