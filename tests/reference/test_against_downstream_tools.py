"""Exports in the tools that model cards name, by the code of the cards; nox -s downstream."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from adios_tme import load_encoder
from tests.factories import run_main, untrained_run

pytestmark = pytest.mark.filterwarnings("ignore")  # of what these tools import


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run = untrained_run(tmp_path / "run", img_size=64)
    run_main(capsys, 0, "export", run, tmp_path / "encoder")
    return tmp_path / "encoder"


def code_of(card: Path, tool: str) -> str:
    """The code below the line of a tool, with FOLDER where the card lies."""
    found = re.search(
        rf"^(?:In|With) {tool}[^\n]*:\n\n```\w+\n(.*?)```", card.read_text(), re.M | re.S
    )
    assert found, tool
    return found[1].replace("FOLDER", str(card.parent))


def test_eva_builds_the_encoder_from_its_environment(folder: Path) -> None:
    models = pytest.importorskip("eva.vision.models", reason="kaiko-eva[vision] is not installed")
    code = code_of(folder / "README.md", "eva")
    given = {
        name: yaml.safe_load(value.strip("'"))
        for name, value in re.findall(r"\b([A-Z_]+)=('[^']*'|\S+)", code)
    }
    # As eva's configurations hand them on.
    encoder = models.ModelFromRegistry(
        given["MODEL_NAME"], model_extra_kwargs=given["MODEL_EXTRA_KWARGS"]
    ).eval()
    assert (given["IN_FEATURES"], given["RESIZE_DIM"]) == (32, 64)
    assert given["NORMALIZE_MEAN"] == [0.6816, 0.564, 0.7232]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = load_encoder(folder)(images)[:, 0]
        torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-5)


def test_lazyslide_extracts_features_of_a_slide(folder: Path, real_data: Path) -> None:
    pytest.importorskip("lazyslide", reason="lazyslide is not installed")
    slide = real_data / "slides" / "cmu_small_region.svs"
    names: dict[str, Any] = {}
    code = code_of(folder / "README.md", "LazySlide")
    exec(code.replace('"slide.svs"', repr(str(slide))), names)
    features = np.asarray(names["features"])
    assert features.shape[1] == 32
    assert len(features) > 100
    assert np.ptp(features, axis=0).max() > 0.1  # not the same for every tile
