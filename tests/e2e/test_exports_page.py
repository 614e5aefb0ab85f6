"""The code of the page on exports, run as it stands there."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from tests.factories import png, run_main, untrained_run

PAGE = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
CODE = {
    section.splitlines()[0]: code
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)
    for code in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    if "onnxruntime" not in code  # which test_export.py runs
}
NUM_MASKS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both exports and a patch, as the page has them."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(autouse=True)
def _in_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    if not (place / "run").exists():
        untrained_run(place / "run", img_size=64)
        (place / "patch.png").write_bytes(png(size_px=80))
        run_main(capsys, 0, "export", "run", "encoder")
        run_main(capsys, 0, "export", "run", "masks", "--what", "mask")


@pytest.fixture
def patch() -> Image.Image:
    return Image.open("patch.png").convert("RGB")


def run(section: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": section}
    exec(CODE[section], names)
    return names


def test_every_section_with_code_is_run() -> None:
    tests = Path(__file__).read_text()
    assert [section for section in CODE if f'run("{section}")' not in tests] == []


def test_timm() -> None:
    assert run("timm")["data"]["input_size"][1:] == [64, 64]


def test_masks() -> None:
    names = run("The mask model")
    assert names["drawn"].shape == (8, NUM_MASKS, 224, 224)


def test_masked_views(patch: Image.Image) -> None:
    names = run("Masked views in another trainer")
    assert [view.size for view in names["views"]] == [patch.size] * NUM_MASKS
    assert [crop.size for crop in names["crops"]] == [(96, 96)] * 2 * NUM_MASKS


def test_torchvision(patch: Image.Image) -> None:
    views = run("torchvision")["pipeline"](patch)
    assert [view.shape for view in views] == [(3, 80, 80)] * NUM_MASKS
    assert min(view.min() for view in views) < -1  # each is normalised


def test_batches() -> None:
    crops = run("Batches on a GPU")["crops"]
    assert [crop.shape for crop in crops] == [(16, 3, 32, 32)] * NUM_MASKS


def test_lightly(patch: Image.Image) -> None:
    pytest.importorskip("lightly.transforms", reason="lightly is not installed")
    views = run("lightly")["transform"](patch)
    assert [view.shape[-1] for view in views] == [64] * 2 + [32] * (2 + NUM_MASKS)


def crop_of(side: int) -> Callable[[Any], Any]:
    crop: Callable[[Any], Any] = transforms.Compose(
        [transforms.RandomResizedCrop(side), transforms.ToTensor()]
    )
    return crop


class OfDINO:
    """What the page uses of DINO's and DINOv2's `DataAugmentationDINO`."""

    def __init__(self, _global: Sequence[float], _local: Sequence[float], num_local: int) -> None:
        self.num_local = num_local
        self.geometric_augmentation_local = transforms.RandomResizedCrop(24)
        self.local_transfo = crop_of(24)

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        return [crop_of(48)(image)] * 2 + [crop_of(24)(image)] * self.num_local


class OfDINOv2(OfDINO):
    def __call__(self, image: Image.Image) -> Any:
        crops = super().__call__(image)
        return {"global_crops": crops[:2], "local_crops": crops[2:]}


class NCropAugmentation:
    def __init__(self, transform: Callable[[Any], Any], num_crops: int) -> None:
        self.transform, self.num_crops = transform, num_crops

    def __call__(self, image: Any) -> list[Any]:
        return [self.transform(image) for _ in range(self.num_crops)]


class FullTransformPipeline:
    def __init__(self, of_views: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = of_views

    def __call__(self, image: Any) -> list[Any]:
        return [view for transform in self.transforms for view in transform(image)]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """A module of a trainer that no registry has."""
    module = types.ModuleType(name)
    vars(module).update(members)
    *packages, _ = name.split(".")
    for depth in range(len(packages)):
        package = ".".join(packages[: depth + 1])
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)


def test_dino(monkeypatch: pytest.MonkeyPatch, patch: Image.Image) -> None:
    stand_in(monkeypatch, "main_dino", DataAugmentationDINO=OfDINO)
    crops = run("DINO")["transform"](patch)
    assert [crop.shape[-1] for crop in crops] == [48] * 2 + [24] * (8 + NUM_MASKS)


def test_dinov2(monkeypatch: pytest.MonkeyPatch, patch: Image.Image) -> None:
    stand_in(monkeypatch, "dinov2.data.augmentations", DataAugmentationDINO=OfDINOv2)
    crops = run("DINOv2")["transform"](patch)
    assert [crop.shape[-1] for crop in crops["local_crops"]] == [24] * (8 + NUM_MASKS)


def test_solo_learn(monkeypatch: pytest.MonkeyPatch, patch: Image.Image) -> None:
    stand_in(
        monkeypatch,
        "solo.data.pretrain_dataloader",
        FullTransformPipeline=FullTransformPipeline,
        NCropAugmentation=NCropAugmentation,
    )
    views = run("solo-learn")["transform"](patch)
    assert [view.shape for view in views] == [(3, 64, 64)] * (2 + NUM_MASKS)
    assert not np.allclose(views[0], views[-1])
