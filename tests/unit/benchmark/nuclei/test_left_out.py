"""What is left out of labelled images, from the reader to the results, the terminal and JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from adios_tme.benchmark.nuclei import report
from adios_tme.benchmark.nuclei.during_training import evaluator
from adios_tme.benchmark.nuclei.results import RESULTS_NAME
from adios_tme.benchmark.nuclei.run import score_run
from adios_tme.cli import benchmark, viz
from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.config.commands.viz import VizMasksConfig
from adios_tme.data.left_out import REASONS, LeftOut, from_json
from adios_tme.data.synthetic import render_tissue
from adios_tme.distributed.world import World
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.factories import tiny_config

NUM_IMAGES = 4


@pytest.fixture
def run(tmp_path: Path) -> Path:
    state = Run.build(tiny_config(tmp_path, tmp_path), World(0, 1, 0, 1, torch.device("cpu")))
    state.advance()
    (tmp_path / "run").mkdir()
    write_checkpoint(state.state(), tmp_path / "run")
    return tmp_path / "run"


def tissue() -> list[tuple[np.ndarray, np.ndarray]]:
    images, labels = render_tissue(NUM_IMAGES, 32, seed=1)
    return list(zip(images, labels.astype(np.int16), strict=True))


def folder(path: Path) -> None:
    """With void in every label, junk, a text file and a label that no image belongs to."""
    for part in ("images", "labels"):
        (path / part).mkdir(parents=True)
        (path / part / "Thumbs.db").write_bytes(b"junk")
    (path / "images" / "notes.txt").write_text("x")
    for number, (pixels, ids) in enumerate(tissue()):
        ids[-4:] = -1
        Image.fromarray(pixels).save(path / "images" / f"a{number}.png")
        Image.fromarray(ids.astype(np.int32)).save(path / "labels" / f"a{number}.tif")
    Image.fromarray(ids.astype(np.int32)).save(path / "labels" / "alone.tif")


def pannuke(path: Path) -> None:
    """From 0 to 1, with tissues that are pickled."""
    for kind in ("images", "masks"):
        (path / "Fold 1" / kind / "fold1").mkdir(parents=True)
    pixels, ids = (np.stack(part) for part in zip(*tissue(), strict=True))
    masks = np.zeros((*ids.shape, 6))
    masks[..., 0] = ids
    np.save(path / "Fold 1/images/fold1/images.npy", pixels / 255)
    np.save(path / "Fold 1/masks/fold1/masks.npy", masks)
    tissues = np.array(["Breast"] * NUM_IMAGES, dtype=object)
    np.save(path / "Fold 1/images/fold1/types.npy", tissues, allow_pickle=True)


def monuseg(path: Path) -> None:
    """With regions that are not drawn, and a file of another kind."""
    path.mkdir()
    (path / "notes.txt").write_text("x")
    square = '<Vertex X="2" Y="2"/><Vertex X="9" Y="2"/><Vertex X="9" Y="9"/><Vertex X="2" Y="9"/>'
    regions = [("0", square), ("0", ""), ("3", square), ("0", square.replace('"9"', '"-9"'))]
    regions[3] = ("0", square.replace('X="', 'X="9'))
    text = "".join(f'<Region Type="{kind}">{corners}</Region>' for kind, corners in regions)
    for number, (pixels, _) in enumerate(tissue()):
        Image.fromarray(pixels).save(path / f"a{number}.tif")
        (path / f"a{number}.xml").write_text(f"<Annotations>{text}</Annotations>")


CASES = {
    "labels": (folder, {"junk": 2, "not_an_image": 1, "label_alone": 1, "void": NUM_IMAGES}),
    "pannuke": (pannuke, {"pickled_tissues": 1, "rescaled": 1}),
    "monuseg": (
        monuseg,
        {
            "neither_tiff_nor_xml": 1,
            "few_vertices": NUM_IMAGES,
            "other_shape": NUM_IMAGES,
            "outside_image": NUM_IMAGES,
        },
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_reader_tells_the_results_the_terminal_and_json(
    kind: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "draw_results", lambda results: Figure())  # says nothing of it
    build, expected = CASES[kind]
    build(tmp_path / "data")
    config = NucleiConfig.model_validate(
        {"run": run, kind: tmp_path / "data", "output": tmp_path / "out", "num_workers": 1}
    )
    benchmark.nuclei(config)
    said = " ".join(capsys.readouterr().out.split())
    saved = json.loads((tmp_path / "out" / RESULTS_NAME).read_text())["left_out"]
    assert {entry["reason"]: entry["count"] for entry in saved} == expected
    for line in from_json(saved).lines():
        assert line in said
    # Nothing is scored anew, and what was left out is told all the same.
    benchmark.nuclei(config.model_copy(update={"json_output": True}))
    assert json.loads(capsys.readouterr().out)["left_out"] == saved
    assert score_run(config).as_json()["left_out"] == saved


def test_every_reason_has_two_examples_and_what_to_do() -> None:
    for reason in REASONS:
        account = LeftOut()
        account.add(reason, ["a", "b", "c"], 3)
        assert account.lines() == from_json(account.as_json()).lines()
        assert account.as_json()[0]["examples"] == ["a", "b"]


def test_scores_while_training_tell_it_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path / "data")
    config = tiny_config(tmp_path, tmp_path, eval_labels=tmp_path / "data", eval_freq=1)
    evaluator(config.watch)
    assert f"Note: {NUM_IMAGES} labels with numbers below 0" in caplog.text


@pytest.fixture
def drawing(run: Path, tmp_path: Path) -> Callable[..., VizMasksConfig]:
    folder(tmp_path / "data")

    def config(**flags: object) -> VizMasksConfig:
        given = {"checkpoint": run, "images": tmp_path / "data" / "images", "device": "cpu"}
        return VizMasksConfig.model_validate(given | {"output": tmp_path / "m.png"} | flags)

    return config


def test_pictures_of_masks_tell_the_terminal_and_json(
    drawing: Callable[..., VizMasksConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    output = drawing().images / "masks.png"
    viz.masks(drawing(output=output))
    capsys.readouterr()
    viz.masks(drawing(output=output))  # the first picture is none of the images
    said = capsys.readouterr().out
    assert "Left out: 1 pictures or output folders that adios-tme wrote (images/masks.png)." in said
    output.unlink()
    assert "Left out: 1 files that are not images (images/notes.txt)" in said
    assert "(images/Thumbs.db)" in said
    viz.masks(drawing(json_output=True))
    told = json.loads(capsys.readouterr().out)
    assert told["num_images"] == NUM_IMAGES
    assert {entry["reason"] for entry in told["left_out"]} == {"junk", "not_an_image"}


def test_logging_is_not_needed_where_nothing_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder(tmp_path / "data")
    for spare in ("images/Thumbs.db", "labels/Thumbs.db", "images/notes.txt", "labels/alone.tif"):
        (tmp_path / "data" / spare).unlink()
    for path in (tmp_path / "data" / "labels").iterdir():
        Image.fromarray(np.ones((32, 32), np.int32)).save(path)
    config = tiny_config(tmp_path, tmp_path, eval_labels=tmp_path / "data", eval_freq=1)
    evaluator(config.watch)
    assert caplog.text == ""
