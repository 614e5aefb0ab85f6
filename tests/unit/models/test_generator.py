"""The mask model as others use it: every form of images, its folder, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors

from adios_tme.errors import CheckpointError
from adios_tme.inference.sliding_window import MaskPredictor
from adios_tme.models.images import take_images
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.mask_models.windows import CPU_BATCH
from adios_tme.models.vit import VisionTransformer

MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.1, 0.3)


@pytest.fixture
def generator() -> MaskGenerator:
    return MaskGenerator(AdiosUNet(32), 32, MEAN, STD).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)


def test_masks_are_of_the_images_size_and_add_up_to_one(
    generator: MaskGenerator, images: torch.Tensor
) -> None:
    masks = generator(images)
    assert masks.shape == (2, 3, 50, 70)
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, 50, 70))
    assert not masks.requires_grad


def test_every_form_of_the_same_images_gives_the_same_masks(
    generator: MaskGenerator, images: torch.Tensor
) -> None:
    expected = generator(images)
    pixels = images.movedim(1, -1).numpy()
    read_only = pixels.copy()
    read_only.setflags(write=False)
    forms: list[tuple[Any, Any]] = [
        (images / 255, expected),
        (images.double() / 255, expected),
        (images[1], expected[1]),
        (tv_tensors.Image(images[1]), expected[1]),
        (pixels, expected),
        (read_only, expected),
        (pixels[:, ::-1][:, ::-1], expected),
        (pixels.astype(">f4") / 255, expected),
        (pixels[1] / 255, expected[1]),
        (Image.fromarray(pixels[1]), expected[1]),
    ]
    for form, masks in forms:
        drawn = generator(form)
        assert isinstance(drawn, torch.Tensor) is isinstance(form, torch.Tensor)
        torch.testing.assert_close(torch.as_tensor(drawn), masks, rtol=0, atol=2e-6)
    half = generator((images / 255).half())
    assert half.dtype == torch.float32
    assert (half - expected).abs().max() < 0.01


def test_the_network_sees_normalised_images() -> None:
    class Seen(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            self.seen = x_BCHW
            return x_BCHW.softmax(dim=1)

    generator = MaskGenerator(network := Seen(), 4, MEAN, STD)
    generator(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(network.seen[0, :, 2, 1], expected)


def test_another_precision_draws_nearly_the_same_masks(
    generator: MaskGenerator, images: torch.Tensor
) -> None:
    expected = generator(images)
    lower = copy.deepcopy(generator).to(torch.bfloat16)
    assert next(lower.parameters()).dtype == torch.bfloat16
    masks = lower(images)
    assert masks.dtype == torch.float32
    assert 0 < (masks - expected).abs().max() < 0.02


@pytest.mark.gpu
def test_masks_come_back_to_the_images_device(
    generator: MaskGenerator, images: torch.Tensor
) -> None:
    expected = generator(images)
    generator.cuda()
    for device in ("cpu", "cuda"):
        masks = generator(images.to(device))
        assert masks.device.type == device
        torch.testing.assert_close(masks.cpu(), expected, rtol=0, atol=1e-4)
    assert isinstance(generator(images.movedim(1, -1).numpy()), np.ndarray)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda x: x.float(), "reach from 0 to 255, expected 0 to 1.*Divide by 255"),
        (lambda x: x.short(), r"are torch\.int16, expected torch\.uint8"),
        (lambda x: x.long(), r"are torch\.int64, expected torch\.uint8"),
        (lambda x: x > 7, r"are torch\.bool"),
        (lambda x: x / 255 - 0.5, "reach from -0.5 to 0.5"),
        (lambda x: x / 0, "reach from nan to nan"),
        (lambda x: x[:, :1], r"are \(2, 1, 32, 32\).*Give a batch of RGB"),
        (lambda x: x.movedim(1, -1), r"are \(2, 32, 32, 3\).*Put the channels first"),
        (lambda x: x[0].movedim(0, -1), r"are \(32, 32, 3\).*Put the channels first"),
        (lambda x: x[None], r"are \(1, 2, 3, 32, 32\).*Give a batch of RGB"),
        (lambda x: x[..., :0], r"are \(2, 3, 32, 0\), without a pixel"),
        (lambda x: x.numpy(), r"are \(2, 3, 32, 32\), expected \(H, W, 3\).*channels last"),
        (lambda x: x[0, 0].numpy(), r"are \(32, 32\), expected \(H, W, 3\).*Give RGB"),
        (lambda x: np.zeros((8, 8, 4), np.uint8), r"are \(8, 8, 4\).*Drop the alpha channel"),
        (lambda x: np.zeros((8, 8, 3), np.int64), r"are int64, expected uint8.*\.astype"),
        (lambda x: np.zeros((8, 8, 3), object), "are object, expected uint8"),
        (lambda x: np.full((8, 8, 3), 2.0), "reach from 2 to 2, expected 0 to 1"),
        (list, "are a list, expected a torch tensor, a NumPy array or a Pillow image"),
    ],
)
def test_images_that_mean_something_else_are_refused(
    spoil: Callable[[torch.Tensor], Any], text: str, generator: MaskGenerator
) -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.int64).remainder(256).byte()
    with pytest.raises(ValueError, match=f"images {text}"):
        generator(spoil(images.view(2, 3, 32, 32)))


def test_a_pillow_image_of_another_mode_is_refused(generator: MaskGenerator) -> None:
    with pytest.raises(ValueError, match=r'of mode L, expected RGB. Use image.convert\("RGB"\)'):
        generator(Image.new("L", (8, 8)))


@pytest.mark.parametrize("number", [torch.uint8, torch.float32, torch.float16])
def test_images_are_given_back_in_the_form_they_came_in(number: torch.dtype) -> None:
    images = torch.rand(2, 3, 5, 7)
    tensor = (images * 255).byte() if number == torch.uint8 else images.to(number)
    array = tensor.movedim(1, -1).numpy()
    forms: list[Any] = [tensor, tensor[0], tv_tensors.Image(tensor[0]), array, array[0]]
    if number == torch.uint8:
        forms.append(Image.fromarray(array[0]))
    for form in forms:
        taken = take_images(form)
        back = taken.images_like(taken.unit())
        assert type(back) is type(form) or isinstance(form, Image.Image)
        np.testing.assert_array_equal(np.asarray(back), np.asarray(form))


def test_colours_are_rounded_to_the_nearest_of_uint8() -> None:
    taken = take_images(torch.zeros(3, 1, 1, dtype=torch.uint8))
    back = taken.images_like(torch.full((1, 3, 1, 1), 6.9 / 255))
    assert torch.equal(torch.as_tensor(back), torch.full((3, 1, 1), 7, dtype=torch.uint8))


def trained_like(kind: str) -> MaskGenerator:
    """A mask model whose every weight has moved from where it began."""
    encoder = VisionTransformer(32, 8, 64, 4, 2, num_register_tokens=2)
    network: nn.Module = AdiosUNet(48, 4)
    if kind == "vit_unet":
        network = ViTUNet(encoder, 8, num_masks=2, decoder_width=64)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    return MaskGenerator(network, 48 if kind == "adios" else 32, MEAN, STD).eval()


@pytest.mark.parametrize("kind", ["adios", "vit_unet"])
def test_a_saved_folder_gives_the_same_masks(
    kind: str, tmp_path: Path, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = trained_like(kind)
    saved.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    loaded = MaskGenerator.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.settings() == saved.settings()
    assert torch.equal(loaded(images), saved(images))
    assert capsys.readouterr().out == ""
    again = pickle.loads(pickle.dumps(loaded))
    assert torch.equal(again(images), saved(images))


def test_a_folder_that_does_not_state_its_decoder_has_that_of_the_first_release(
    tmp_path: Path,
) -> None:
    encoder = VisionTransformer(16, 8, 64, 4, 1)
    saved = MaskGenerator(ViTUNet(encoder, 8), 16, MEAN, STD)
    saved.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    assert settings.pop("decoder_width") == 256
    path.write_text(json.dumps(settings))
    assert MaskGenerator.from_pretrained(tmp_path).settings() == saved.settings()


@pytest.mark.parametrize(
    "change",
    [
        {"num_masks": 5},
        {"sizes": {"img_size": 48, "no_such": 1}},
        {"mask_model_type": "of tomorrow"},
        {"mean": None},
        {"mean": "abc"},
        {"img_size": None, "sizes": None},
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    trained_like("adios").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="holds no mask model that adios-tme export"):
        MaskGenerator.from_pretrained(tmp_path)


def test_damaged_or_missing_weights_are_told(tmp_path: Path) -> None:
    trained_like("adios").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="holds no mask model"):
        MaskGenerator.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        MaskGenerator.from_pretrained(tmp_path)


def test_a_folder_that_is_not_there_is_not_looked_for_on_a_hub(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing: does not exist\. Give the folder"):
        MaskGenerator.from_pretrained(tmp_path / "nothing")


def test_a_network_of_somebody_else_is_not_saved(tmp_path: Path) -> None:
    generator = MaskGenerator(nn.Conv2d(3, 2, 1), 8, MEAN, STD)
    with pytest.raises(ValueError, match="is a Conv2d, which no folder can describe"):
        generator.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Darkness(nn.Module):
    """Masks by the darkness of a pixel against its window's mean, which differs by window."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        light = x_BCHW.mean(dim=1, keepdim=True)
        share = torch.sigmoid(light - 0.1 * light.mean(dim=(2, 3), keepdim=True))
        return torch.cat([share, 1 - share], dim=1)


def test_an_image_of_up_to_twice_the_models_size_is_drawn_whole(generator: MaskGenerator) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 40), dtype=torch.uint8)
    assert torch.equal(generator(images), generator(images, windows=False))
    larger = torch.nn.functional.pad(images, (0, 0, 0, 1))
    assert not torch.equal(generator(larger), generator(larger, windows=False))


def test_a_large_image_has_the_benchmarks_masks(generator: MaskGenerator) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    masks = generator(pixels)
    np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(masks, MaskPredictor(generator)(pixels))
    assert np.array_equal(masks, MaskPredictor(generator, windows=True)(pixels))
    halved = MaskPredictor(generator, windows=True, zoom=0.5)(pixels)
    assert np.array_equal(generator(pixels, scale=0.5), halved)
    batch = generator(np.stack([pixels, pixels[::-1]]))
    np.testing.assert_allclose(batch[0], masks, atol=1e-5)


def test_windows_leave_no_seams() -> None:
    generator = MaskGenerator(Darkness(), 32, (0,) * 3, (1,) * 3)
    ramp = torch.linspace(0, 1, 300).expand(1, 3, 70, 300)
    steps = generator(ramp)[0, 0, 35].diff()
    smooth = torch.sigmoid(ramp[0, 0, 35] * 0.9).diff()
    assert (steps - smooth).abs().max() < 2e-4


def test_only_some_windows_are_drawn_at_a_time() -> None:
    class Counting(Darkness):
        most = 0

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            self.most = max(self.most, len(x_BCHW))
            return super().forward(x_BCHW)

    MaskGenerator(network := Counting(), 8, (0,) * 3, (1,) * 3)(torch.rand(2, 3, 90, 90))
    assert network.most == CPU_BATCH


def test_a_scale_that_means_nothing_is_refused(
    generator: MaskGenerator, images: torch.Tensor
) -> None:
    for scale in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number above 0"):
            generator(images, scale=scale)
    with pytest.raises(ValueError, match="would be ignored with windows=False"):
        generator(images, scale=0.5, windows=False)
