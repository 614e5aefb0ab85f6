"""Features as pictures: colours, neighbours, maps, and what the command says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.errors import CheckpointError, ConfigError, DataError
from adios_tme.models.layers import Normalise
from adios_tme.models.vit import VisionTransformer
from adios_tme.training.loop import run_training
from adios_tme.viz.embedding_map import embedding_map, map_figure
from adios_tme.viz.features import draw_features, nearest, principal_colours
from adios_tme.viz.palette import PALETTE
from tests.factories import make_dataset, run_main, tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    make_dataset(folder / "data")
    run_training(tiny_config(folder / "data", folder / "run", total_iterations=2))
    return folder


def test_colours_are_the_first_components_of_all_images_together() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, 4, 5, 6)) * [9, 5, 3, 0.1, 0.1, 0.1]
    tokens[1] += 4  # an image of its own level keeps it
    colours, shares = principal_colours(tokens)
    flat = tokens.reshape(-1, 6)
    left, sizes, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(shares, (sizes**2 / (sizes**2).sum())[:3], rtol=1e-9)
    for channel in range(3):
        values = colours.reshape(-1, 3)[:, channel]
        inside = (values > 0) & (values < 1)
        assert inside.mean() > 0.9
        ratio = np.corrcoef(values[inside], left[inside, channel])[0, 1]
        assert abs(ratio) == pytest.approx(1, abs=1e-9)


def test_the_foreground_is_the_darker_side_and_has_a_basis_of_its_own() -> None:
    rng = np.random.default_rng(0)
    images = np.full((2, 32, 32, 3), 240, dtype=np.uint8)
    images[:, :, 16:] = 60
    tokens = rng.normal(size=(2, 4, 4, 5)) * [1, 0.5, 0.3, 0.1, 0.1]
    for sign in (1, -1):  # of the first component, which is arbitrary
        tokens[..., 2:, 4] = sign * 50
        tokens[..., :2, 4] = 0
        colours, shares = principal_colours(tokens, images)
        assert (colours[:, :, :2] == 1).all()
        assert (colours[:, :, 2:].min(axis=-1) < 1).all()
        assert shares[0] < 0.9  # without the background, one component is not nearly all


def test_tokens_that_are_all_alike_are_drawn() -> None:
    flat = np.ones((1, 2, 2, 4))
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    for shown in (principal_colours(flat), principal_colours(flat, images)):
        assert np.isfinite(shown[0]).all()
        assert shown[1].tolist() == [0, 0, 0]


def test_neighbours_are_the_nearest_by_angle_and_never_the_image_itself() -> None:
    degrees = np.radians([0, 10, 170, 25, 90])
    classes = np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * [[1], [9], [1], [0.1], [2]]
    places, similarities = nearest(classes, np.array([0, 2]), 3)
    assert places.tolist() == [[1, 3, 4], [4, 3, 1]]
    np.testing.assert_allclose(similarities[0], np.cos(np.radians([10, 25, 90])), atol=1e-12)
    assert nearest(classes, np.array([0]), 99)[0].shape == (1, 4)


def encoder() -> tuple[VisionTransformer, Normalise]:
    network = VisionTransformer(16, 8, 16, 2, 2, num_register_tokens=1).eval()
    return network, Normalise((0.5,) * 3, (0.2,) * 3)


def test_a_row_shows_the_image_its_tokens_each_head_and_its_neighbours() -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    drawn = draw_features(*encoder(), images, 2, num_neighbours=3)
    cells = np.array(drawn.figure.axes).reshape(2, 7)
    titles = [cell.get_title() for cell in cells[0]]
    assert titles[:4] == ["Image", "Patch tokens (PCA)", "Head 1", "Head 2"]
    assert titles[4:] == ["Neighbour 1", "Neighbour 2", "Neighbour 3"]
    assert drawn.classes is not None
    places, _ = nearest(drawn.classes, np.array([0, 5]), 3)  # rows are taken evenly
    shown = cells[1, 5].images[0].get_array()
    np.testing.assert_array_equal(shown, images[places[1, 1]].permute(1, 2, 0).numpy())


def test_weights_that_are_not_finite_are_told() -> None:
    network, normalise = encoder()
    with torch.no_grad():
        network.norm.weight[0] = torch.nan
    images = torch.zeros((1, 3, 16, 16), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="run: its patch tokens are not finite"):
        draw_features(network, normalise, images, 1, title="run")


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_map_keeps_groups_together(method: Literal["tsne", "umap"]) -> None:
    if method == "umap":
        pytest.importorskip("umap", reason="umap-learn is not installed; nox -s extras")
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(2, 8) * 10, 12, axis=0)
    places = embedding_map(centres + rng.normal(size=(24, 8)) * 0.1, method)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 12 == np.arange(24) // 12).all()


def test_too_few_images_for_a_map_are_told() -> None:
    with pytest.raises(DataError, match="--map tsne: 4 images are too few, it needs 5"):
        embedding_map(np.eye(4), "tsne")


@pytest.mark.parametrize(("method", "extra"), [("tsne", "probe"), ("umap", "umap")])
def test_a_missing_package_is_told_before_any_work(
    method: str,
    extra: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, {"tsne": "sklearn", "umap": "umap"}[method], None)
    flags = ("--images", "no", "--map", method, "--output", tmp_path / "f.png")
    said = run_main(capsys, 2, "viz", "features", "no", *flags)
    assert f"pip install 'adios-tme[{extra}]'" in said.err


def test_more_groups_than_colours_share_one() -> None:
    groups = [f"slide {number}" for number in range(12) for _ in range(12 - number)]
    figure = map_figure(np.random.default_rng(0).normal(size=(len(groups), 2)), groups)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(PALETTE)
    assert labels[-1] == f"others ({sum(range(1, 6))})"


def test_the_command_draws_both_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run / "features.svg"
    flags = ("--neighbours", 2, "--map", "tsne", "--colour-by", "class", "--foreground")
    words = ("viz", "features", run / "run", "--images", run / "data", "--output", output)
    said = run_main(capsys, 0, *words, *map(str, flags))
    assert said.out == f"Wrote {output}\nWrote {run / 'features_map.svg'}\n"
    assert "slide_002 (4)" in (run / "features_map.svg").read_text()
    told = json.loads(run_main(capsys, 0, *words, "--json", "--num-images", "3").out)
    assert told["num_images"] == 3
    assert 0 < sum(told["explained_variance"]) <= 1


def test_an_image_that_cannot_be_read_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"none")
    words = ("viz", "features", run / "run", "--output", tmp_path / "f.png", "--images")
    said = run_main(capsys, 1, *words, tmp_path / "images")
    assert "b.png cannot be read" in said.err
    assert not (tmp_path / "f.png").exists()


def test_a_setting_that_would_be_ignored_is_refused() -> None:
    from adios_tme.config.commands.viz import VizFeaturesConfig

    with pytest.raises(ConfigError, match="colour_by=class would be ignored without map"):
        VizFeaturesConfig(checkpoint=Path("r"), images=Path("i"), colour_by="class")
    with pytest.raises(ConfigError, match="gallery=9 would be ignored without map or neighbours"):
        VizFeaturesConfig(checkpoint=Path("r"), images=Path("i"), gallery=9)
