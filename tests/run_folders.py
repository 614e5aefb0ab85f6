"""Folders of runs that were never trained, written in milliseconds for reports to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from adios_tme.config.data import PatchSelection
from adios_tme.data.index_builder import index_archives
from tests.factories import make_dataset, tiny_config

#: What HTML would take for a script, in whatever a user may name.
HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit=1'>&\"'{{ 7 * 7 }}"


def line_of(iteration: int, **metrics: Any) -> dict[str, Any]:
    """A line of metrics of a healthy run."""
    return {
        "iteration": iteration,
        "samples_seen": 4 * iteration,
        "epoch": iteration / 3,
        "student_loss": 5.0 - iteration / 100,
        "mask_loss": 2.0 + iteration / 100,
        "mask_coverage": [0.3, 0.3, 0.4],
        "mask_haematoxylin_correlation": [-0.2, 0.1, 0.8],
        "mask_entropy": 1 - iteration / 1000,
        "mask_saturation": 0.2,
        "mask_overlap": 0.25,
        "adversarial_gap": 0.05,
        "embedding_std": 0.6,
        "rankme": 12.0,
        "student_grad_norm": 10.0,
        "mask_grad_norm": 1.0,
        "lr": 1e-3,
        "mask_lr": 2e-4,
        "images_per_second": 12.0,
        "data_wait_fraction": 0.01,
        "num_damaged": 0,
        "seconds": 27.0 * iteration,
    } | metrics


def interval(value: float) -> dict[str, float]:
    """A score as the benchmark of nuclei writes it."""
    return {"mean": value, "std": 0.1, "low": value - 0.05, "high": value + 0.05}


def nuclei_results(model: float, otsu: float) -> dict[str, Any]:
    """Results of the nuclei benchmark with one checkpoint."""

    def method(iou: float) -> dict[str, Any]:
        scores = {name: interval(iou) for name in ("iou", "aji", "pq")}
        return {"fixed": scores, "oracle": scores, "random_channel_iou": 0.2}

    return {
        "protocol": {"data_set": "folder", "num_images": 20, "num_calibration": 5},
        "baselines": {"otsu_haematoxylin": method(otsu)},
        "checkpoints": [{"iteration": 200, **method(model)}],
    }


def probe_results(difference: float, note: str = "") -> dict[str, Any]:
    """Results of the probe of one set, with the paired difference of the last checkpoint."""

    def scores(value: float) -> dict[str, Any]:
        each = {"value": value, "low": value - 0.02, "high": value + 0.02}
        return {name: {"balanced_accuracy": each, "auroc": each} for name in ("knn", "logistic")}

    paired = {"value": difference, "low": difference - 0.05, "high": difference + 0.05}
    return {
        "sets": [
            {
                "name": "organs",
                "protocol": {"classes": ["a", "b"]},
                "test_images": ["1", "2"],
                "checkpoints": [{"iteration": 200, "scores": scores(0.7 + difference)}],
                "rivals": {
                    "random_encoder": {"scores": scores(0.6)},
                    "colour_statistics": {"scores": scores(0.7)},
                },
                "differences": [
                    {"classifier": "knn", "rival": "colour_statistics", "difference": paired}
                ],
                "notes": [note],
            }
        ]
    }


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    """The log of metrics of a run."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def make_run_folder(folder: Path, **flags: Any) -> Path:
    """A finished run of 200 iterations, with its data beside it.

    Args:
        folder: Of the run.
        flags: Settings by their names.
    """
    data = folder.parent / "data"
    if not data.exists():
        index_archives(make_dataset(data), PatchSelection())
    folder.mkdir(parents=True)
    config = tiny_config(data, folder, total_iterations=200, **flags)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    facts = {"python": "3.11", "packages": {"torch": "2.14"}, "gpus": [], "command": ["a b", "c"]}
    (folder / "environment.json").write_text(json.dumps(facts))
    write_lines(folder, [line_of(iteration) for iteration in range(10, 210, 10)])
    log = [
        "2026-01-01 10:00:00,000 INFO Started from seed 42",
        "2026-01-01 11:30:00,000 INFO 200/200  student 3.000  mask 4.000",
    ]
    (folder / "train.log").write_text("\n".join(log) + "\n")
    pictures = folder / "visualizations" / "masks"
    pictures.mkdir(parents=True)
    for iteration in (50, 100, 150, 200):
        colour = (iteration, 80, 255 - iteration)
        Image.new("RGB", (600, 300), colour).save(pictures / f"iter_{iteration:08d}.png")
    return folder
