"""Pictures: what is in them, and what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from adios_tme.errors import ConfigError, DataError
from adios_tme.run_folder.metrics import read_metrics
from adios_tme.viz import curves
from adios_tme.viz.curves import curves_figure, draw_curves
from adios_tme.viz.masks import OVERLAY_WEIGHT, mask_figure, overlay, plot_masks
from adios_tme.viz.palette import PALETTE
from adios_tme.viz.panels import PANELS

LINE = {
    "iteration": 10,
    "student_loss": 1.0,
    "mask_coverage": [0.2, 0.8],
    "lr": 0.1,
    "mask_lr": 0.05,
}


def write_log(folder: Path, *lines: dict[str, object], rest: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + rest)
    return folder


def images_and_masks(num_masks: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    return images, torch.rand(2, num_masks, 16, 16).softmax(dim=1)


@pytest.mark.parametrize("num_masks", [2, 3, 6])
def test_a_row_shows_the_image_each_mask_and_the_overlay(num_masks: int) -> None:
    images, masks = images_and_masks(num_masks)
    figure = mask_figure(images, masks, "title")
    cells = np.array(figure.axes).reshape(2, num_masks + 2)
    expected = ["Image", *(f"Mask {n + 1}" for n in range(num_masks)), "Overlay"]
    assert [cell.get_title() for cell in cells[0]] == expected
    shown = cells[1, 2].images[0].get_array()
    np.testing.assert_allclose(shown, masks[1, 1].numpy())
    np.testing.assert_allclose(
        cells[0, 0].images[0].get_array(), images[0].permute(1, 2, 0).numpy() / 255
    )


def test_the_overlay_mixes_each_masks_colour() -> None:
    masks = np.zeros((2, 1, 2))
    masks[0, 0, 0] = masks[1, 0, 1] = 1
    mixed = overlay(np.full((1, 2, 3), 0.4), masks)
    for pixel in (0, 1):
        colour = [int(PALETTE[pixel][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        expected = OVERLAY_WEIGHT * np.array(colour) + (1 - OVERLAY_WEIGHT) * 0.4
        np.testing.assert_allclose(mixed[0, pixel], expected)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_written_as_their_name_says(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"masks.{suffix}"
    plot_masks(*images_and_masks(), path)
    if suffix == "png":
        with Image.open(path) as picture:
            assert picture.width > 400
    else:
        assert b"<svg" in path.read_bytes()[:600]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"masks\.jpg: .* ends in \.png or \.svg"):
        plot_masks(*images_and_masks(), tmp_path / "masks.jpg")


def test_images_and_masks_must_fit() -> None:
    images, masks = images_and_masks()
    with pytest.raises(ValueError, match="differ"):
        mask_figure(images, masks[:1])


def test_a_resumed_run_counts_as_it_was_last(tmp_path: Path) -> None:
    again = LINE | {"student_loss": 2.0}
    write_log(tmp_path, LINE, LINE | {"iteration": 20}, again, rest='{"iteration": 3')
    lines = read_metrics(tmp_path)
    assert [(line["iteration"], line["student_loss"]) for line in lines] == [(10, 2.0), (20, 1.0)]


def test_every_metric_has_its_panel(tmp_path: Path) -> None:
    write_log(tmp_path / "a", LINE, LINE | {"iteration": 20, "student_loss": None})
    write_log(tmp_path / "b", LINE)
    lines = {name: read_metrics(tmp_path / name) for name in "ab"}
    figure = curves_figure(lines)
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == [
        panel.title for panel in PANELS if not LINE.keys().isdisjoint(panel.metrics)
    ]
    assert "Speed" not in panels  # nothing of it was logged
    assert len(panels["Student loss"].lines) == 2  # one for each run
    assert len(panels["Mask coverage"].lines) == 4  # two masks of two runs
    draw_curves([tmp_path / "a", tmp_path / "b"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_runs_are_named_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    for name, lr in (("a", 0.1), ("b", 0.2)):
        write_log(tmp_path / name, LINE)
        text = f"optim:\n  lr: {lr}\nrun:\n  seed: 1\n  output_dir: {name}\n"
        (tmp_path / name / "config.yaml").write_text(text)
    draw_curves([tmp_path / "a", tmp_path / "b"], tmp_path / "c.svg")
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == [f"{tmp_path / 'a'}: --lr 0.1", f"{tmp_path / 'b'}: --lr 0.2"]


def test_a_run_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path)
    with pytest.raises(DataError, match="no metrics yet"):
        read_metrics(write_log(tmp_path))


@pytest.mark.parametrize("line", ["no JSON", '{"student_loss": 1.0}', "[1, 2]", "null", "{"])
def test_a_line_that_is_none_of_a_run_is_named(line: str, tmp_path: Path) -> None:
    run = write_log(tmp_path, LINE)
    with (run / "metrics.jsonl").open("a") as log:
        log.write(f"{line}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 holds no metrics"):
        read_metrics(run)


def test_runs_without_a_metric_that_is_drawn_are_named(tmp_path: Path) -> None:
    run = write_log(tmp_path, {"iteration": 1, "of another tool": 2.0})
    with pytest.raises(DataError, match=r"no metric that is drawn, such as student_loss"):
        draw_curves([run], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
