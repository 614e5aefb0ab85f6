"""What model cards tell of a run, and what they do where it tells nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adios_tme.export.model_card import encoder_card, mask_card
from adios_tme.export.timm import timm_config
from adios_tme.pretrained import load_for_export, load_mask_model_for_export
from adios_tme.run_folder.checkpoints import checkpoint_digest
from tests.factories import untrained_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained_run(tmp_path / "run")


def card(run: Path, licence: str | None = None) -> str:
    exported, facts = load_for_export(run, licence)
    return encoder_card(facts, timm_config(exported))


def log(run: Path, *lines: dict[str, Any]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def interval(mean: float | None) -> dict[str, float | None]:
    low, high = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
    return {"mean": mean, "std": 0.1, "low": low, "high": high}


def scores(run: Path, **change: Any) -> dict[str, Any]:
    """Results of the nuclei benchmark, as far as cards read them."""
    method = {
        "channel": 2,
        "fixed": {name: interval(0.5) for name in ("iou", "dice", "aji", "pq")},
        "oracle": {name: interval(None) for name in ("iou", "dice", "aji", "pq")},
    }
    checkpoint = {"iteration": 0, "sha256": checkpoint_digest(run / "checkpoint.pth"), **method}
    return {
        "protocol": {"path": "/somewhere/else/PanNuke", "num_images": 7},
        "baselines": {"otsu": method},
        "checkpoints": [checkpoint],
    } | change


def test_a_run_that_tells_nothing_has_a_card(run: Path) -> None:
    text = card(run)
    _, head, body = text.split("---\n", 2)
    assert "license" not in yaml.safe_load(head)
    assert "Licence of the weights: not stated; ask who trained it." in body
    assert "## Iteration" not in body
    assert "## Nuclei" not in body
    assert "| data | patches |" in body  # and not where they lie
    assert str(run.parent) not in body


def test_the_newest_values_up_to_that_iteration_are_told(run: Path) -> None:
    log(
        run,
        {"iteration": -2, "samples_seen": 40, "epoch": 4.0, "eval_fixed_iou": 0.25},
        {"iteration": 0, "samples_seen": 60, "epoch": 6.0, "student_loss": None}
        | {"mask_coverage": [0.125, 0.875], "num_damaged": 1},
        {"iteration": 4, "samples_seen": 80, "epoch": 8.0, "student_loss": 9.0},
    )
    text = card(run)
    assert "## Iteration 0\n" in text
    for line in (
        "| student loss, nats | not finite |",
        "| share of the image under each mask | 0.125 / 0.875 |",
        "| IoU on watched labels, one channel and threshold for all images | 0.25 |",
        "| patches that could not be read, and were replaced | 1 |",
        "| patches in an epoch | 10 |",
        "| `lr` | 0.001 |",
    ):
        assert line in text


@pytest.mark.parametrize("place", ["nuclei_benchmark.json", "scores/nuclei_benchmark.json"])
def test_scores_of_that_checkpoint_stand_beside_the_baselines(run: Path, place: str) -> None:
    path = run / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(scores(run)))
    generator, facts = load_mask_model_for_export(run)
    text = mask_card(facts, generator.settings())
    assert text.startswith("---\nlibrary_name: adios_tme\n")
    assert "Of 7 labelled images of `PanNuke`" in text
    row = "fixed | " + " | ".join(["0.500 [0.400, 0.600]"] * 4)
    for line in (f"| masks | {row} |", "| masks | oracle | - | - | - | - |", f"| otsu | {row} |"):
        assert line in text
    assert "| otsu | oracle" not in text


def test_scores_of_another_checkpoint_are_not_this_ones(run: Path) -> None:
    results = scores(run)
    results["checkpoints"][0]["sha256"] = "of another"
    (run / "nuclei_benchmark.json").write_text(json.dumps(results))
    assert "## Nuclei" not in card(run)


def test_what_cannot_be_used_is_left_out_with_a_word(run: Path) -> None:
    (run / "metrics.jsonl").write_text("no JSON\n")
    (run / "nuclei_benchmark.json").write_text('{"checkpoints": 3}')
    _, facts = load_for_export(run)
    curves, nuclei = facts.left_out
    assert curves.startswith("curves in the model card. ")
    assert "metrics.jsonl: line 1 holds no metrics of an iteration" in curves
    assert nuclei.startswith("scores in the model card. ")
    assert "nuclei_benchmark.json: is no result of the nuclei benchmark (TypeError)" in nuclei
    assert "## Load it" in card(run)


def test_every_way_to_load_it_is_told(run: Path) -> None:
    text = card(run, "cc-by-4.0")
    for tool in ("timm 1.0.16", "older versions of timm", "torch alone", "adios_tme", "LazySlide"):
        assert tool in text
    for line in (
        "In TRIDENT (written after its documentation; no test runs it):",
        "export MODEL_EXTRA_KWARGS='{model_name: \"local-dir:FOLDER\", pretrained: true}'",
        "@inproceedings{shi2022adversarial,",
        "license: cc-by-4.0\n",
        "tile_px=32, mpp=0.5",
    ):
        assert line in text
