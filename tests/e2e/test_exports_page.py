"""The code of the pages on exports, run as it stands there."""

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

from adios_tme.config.data import DataConfig
from adios_tme.config.model import StudentConfig
from adios_tme.export import snippets
from adios_tme.export.model_card import eva
from tests.factories import png, run_main, untrained_run

FOLDER = Path(__file__).parents[2] / "docs" / "exports"
PAGES = {page.stem: page.read_text() for page in FOLDER.glob("*.md")}
#: Not run here: the first two have the code of the model card, test_export.py runs the third.
NOT_HERE = ("trident", "lazyslide", "onnx")
#: By the heading above it.
CODE = {
    section.splitlines()[0]: code
    for name, page in PAGES.items()
    if name not in NOT_HERE
    for section in re.split(r"^## ", page, flags=re.MULTILINE)
    for code in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
}
#: As a model card of `vit_base` has it.
EVA = eva(
    {
        "architecture": "vit_giant_patch14_reg4_dinov2",
        "num_features": StudentConfig().embed_dim,
        "pretrained_cfg": {
            "input_size": (3, 224, 224),
            "mean": DataConfig().mean,
            "std": DataConfig().std,
        },
    }
)
NUM_MASKS = 3
#: Of the run's images in pixels: half that of the page's, which are then not cut into windows.
SIDE = 112


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the exports and a patch, as the pages have them."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(autouse=True)
def _in_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    if not (place / "run").exists():
        untrained_run(place / "run", img_size=SIDE)
        (place / "patch.png").write_bytes(png(size_px=80))
        run_main(capsys, 0, "export", "run", "encoder")
        run_main(capsys, 0, "export", "run", "masks", "--what", "mask")
        run_main(capsys, 0, "export", "run", "teacher.pth", "--format", "dinov2")


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


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("timm", snippets.TIMM),
        ("timm", snippets.OLD_TIMM),
        ("timm", snippets.PLAIN_TORCH),
        ("timm", snippets.OURS),
        ("trident", snippets.TRIDENT),
        ("lazyslide", snippets.LAZYSLIDE),
        ("eva", EVA),
    ],
)
def test_page_has_the_code_of_model_cards(page: str, code: str) -> None:
    assert code.replace("FOLDER", "encoder").replace("SIDE", "224") in PAGES[page]


def test_every_page_is_in_the_table_and_in_the_sidebar() -> None:
    index = PAGES["index"]
    _, sidebar = index.split("```{toctree}")
    for page in PAGES.keys() - {"index"}:
        assert f"]({page}.md)" in index
        assert f"\n{page}\n" in sidebar


def test_timm() -> None:
    names = run("timm")
    assert names["data"]["input_size"][1:] == [SIDE, SIDE]
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = names["encoder"](images)
        for other in (run("Older versions of timm"), run("torch alone")):
            torch.testing.assert_close(other["encoder"](images), expected, rtol=0, atol=1e-5)


def test_our_own() -> None:
    assert run("adios_tme")["tokens"].shape == (1, 1 + 4 + (224 // 8) ** 2, 32)


def test_images_as_they_are_read() -> None:
    assert run("Images as they are read")["features"].shape == (8, 32)


def test_teacher() -> None:
    assert "blocks.0.mlp.w12.weight" in run("Read it")["weights"]


def test_masks() -> None:
    names = run("Draw masks")
    assert names["drawn"].shape == (8, NUM_MASKS, 224, 224)


def test_masked_views(patch: Image.Image) -> None:
    names = run("A transform")
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
