"""Masked views as a transform: what they are, in which form, and that they repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from adios_tme.config.model import Fill
from adios_tme.masking.augment import MaskAugment
from adios_tme.masking.views import apply_masks
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.unet import AdiosUNet

MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.1, 0.3)


@pytest.fixture
def masks() -> MaskGenerator:
    return MaskGenerator(AdiosUNet(16, fbase=8), 16, MEAN, STD)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 40, 24)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "noise"])
def test_views_are_those_that_the_student_is_trained_on(
    fill: Fill, masks: MaskGenerator, image: Tensor
) -> None:
    views = MaskAugment(masks, fill=fill, generator=seeded())(image)
    normal = masks.normalise(image[None])
    trained = apply_masks(normal, masks(image[None]), fill, generator=seeded())
    expected = masks.normalise.undo(trained).clamp(0, 1)
    torch.testing.assert_close(torch.stack(views), expected, rtol=0, atol=1e-6)
    assert (torch.stack(views) - image).abs().max() > 0.1


def test_a_batch_is_augmented_as_its_images_are(masks: MaskGenerator) -> None:
    images = torch.rand(4, 3, 20, 20)
    augment = MaskAugment(masks)
    views = augment(images)
    assert [tuple(view.shape) for view in views] == [(4, 3, 20, 20)] * 3
    alone = augment(images[2])
    for of_batch, of_image in zip(views, alone, strict=True):
        torch.testing.assert_close(of_batch[2], of_image, rtol=0, atol=1e-5)


def test_views_are_of_the_kind_that_the_image_is(masks: MaskGenerator, image: Tensor) -> None:
    pixels = (image * 255).byte()
    augment = MaskAugment(masks)
    expected = augment(pixels)
    assert expected[0].dtype == torch.uint8
    array = pixels.movedim(0, -1).numpy()
    for form, kind in ((array, np.ndarray), (Image.fromarray(array), Image.Image)):
        views = augment(form)
        assert all(isinstance(view, kind) for view in views)
        for view, tensor in zip(views, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(view), tensor.movedim(0, -1))
    assert all(isinstance(view, tv_tensors.Image) for view in augment(tv_tensors.Image(pixels)))


def test_crops_come_mask_by_mask_and_repeat_under_a_generator(masks: MaskGenerator) -> None:
    images = torch.rand(2, 3, 40, 24)
    options: dict[str, Any] = {"crops_per_mask": 2, "crop_size": 12}
    crops, same, others = (
        MaskAugment(masks, **options, generator=seeded(seed))(images) for seed in (1, 1, 2)
    )
    assert [tuple(crop.shape) for crop in crops] == [(2, 3, 12, 12)] * 6
    assert all(torch.equal(one, other) for one, other in zip(crops, same, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(crops, others, strict=True))
    # Where one mask takes all, its crops show the fill alone, and those of the others the image.
    whole = MaskGenerator(First(), 16, MEAN, STD)
    shown = MaskAugment(whole, **options)(torch.ones(1, 3, 16, 16))
    colours = [crop.mean(dim=(0, 2, 3)) for crop in shown]
    for number, colour in enumerate(colours):
        expected = torch.tensor(MEAN) if number < 2 else torch.ones(3)
        torch.testing.assert_close(colour, expected, rtol=0, atol=1e-5)
    assert MaskAugment(masks, crops_per_mask=1)(images)[0].shape == (2, 3, 24, 24)


class First(nn.Module):
    """The first of two masks takes every pixel."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(x_BCHW[:, 0]), torch.zeros_like(x_BCHW[:, 0])], dim=1)


def test_the_state_of_torch_decides_without_a_generator(
    masks: MaskGenerator, image: Tensor
) -> None:
    augment = MaskAugment(masks, crops_per_mask=1)
    torch.manual_seed(3)
    first = augment(image)
    torch.manual_seed(3)
    assert torch.equal(first[0], augment(image)[0])
    assert not torch.equal(first[0], augment(image)[0])


class OneImage(Dataset[list[Tensor]]):
    """The same image at every place, so that what differs was drawn."""

    def __init__(self, transform: Callable[[Any], Any], length: int = 8) -> None:
        self.transform, self.length = transform, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> list[Tensor]:
        views: list[Tensor] = self.transform(torch.full((3, 16, 16), 0.25))
        return views


def epoch(loader: DataLoader[list[Tensor]]) -> list[Tensor]:
    return [views[0][0] for views in loader]


def test_workers_draw_apart_from_each_other_and_repeat(masks: MaskGenerator) -> None:
    augment = MaskAugment(masks, crops_per_mask=1, generator=seeded())

    def views_of_two_epochs() -> list[Tensor]:
        loader = DataLoader(OneImage(augment), batch_size=1, num_workers=2, generator=seeded(7))
        return [*epoch(loader), *epoch(loader)]

    views, again = views_of_two_epochs(), views_of_two_epochs()
    assert len(views) == 16
    assert all(torch.equal(one, other) for one, other in zip(views, again, strict=True))
    for number, view in enumerate(views):
        assert not any(torch.equal(view, other) for other in views[:number]), number


def test_a_gpu_in_a_worker_is_refused_in_words(
    masks: MaskGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks.normalise.to("meta")
    monkeypatch.setattr("adios_tme.masking.augment.get_worker_info", lambda: "a worker")
    with pytest.raises(ValueError, match="mask model is on meta, which a DataLoader worker"):
        MaskAugment(masks)(torch.rand(3, 16, 16))


@pytest.mark.gpu
def test_batches_on_a_device_give_the_views_of_the_cpu(masks: MaskGenerator) -> None:
    images = torch.rand(2, 3, 40, 24)
    expected = MaskAugment(masks, crops_per_mask=1, fill="noise", generator=seeded())(images)
    masks.cuda()
    for device in ("cuda", "cpu"):
        augment = MaskAugment(masks, crops_per_mask=1, fill="noise", generator=seeded())
        views = augment(images.to(device))
        for one, other in zip(views, expected, strict=True):
            assert one.device.type == device
            torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-3)


def test_it_stands_in_torchvisions_compose(masks: MaskGenerator, image: Tensor) -> None:
    pipeline = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomCrop(20),
            MaskAugment(masks),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    pixels = (image * 255).byte()
    torch.manual_seed(1)
    views = pipeline(Image.fromarray(pixels.movedim(0, -1).numpy()))
    torch.manual_seed(1)
    crop = v2.RandomCrop(20)(tv_tensors.Image(pixels))
    expected = [masks.normalise(view)[0] for view in MaskAugment(masks)(crop)]
    assert len(views) == 3
    for one, other in zip(views, expected, strict=True):  # not the first view alone
        torch.testing.assert_close(one.as_subclass(Tensor), other.as_subclass(Tensor))


def test_a_pipelines_own_transform_is_applied_to_each_view(
    masks: MaskGenerator, image: Tensor
) -> None:
    views = MaskAugment(masks, view_transform=v2.CenterCrop(8))(image)
    whole = MaskAugment(masks)(image)
    for view, of_whole in zip(views, whole, strict=True):
        assert torch.equal(view, v2.functional.center_crop(of_whole, [8]))


def test_it_stands_in_the_transform_of_lightly(masks: MaskGenerator, image: Tensor) -> None:
    lightly = pytest.importorskip("lightly.transforms", reason="lightly is not installed")
    dino = lightly.DINOTransform(global_crop_size=32, local_crop_size=16, n_local_views=2)
    augment = MaskAugment(masks, view_transform=dino.transforms[-1])
    picture = Image.fromarray((image * 255).byte().movedim(0, -1).numpy())

    def views_of(picture: Image.Image) -> list[Tensor]:
        views: list[Tensor] = [*dino(picture), *augment(picture)]
        return views

    views = views_of(picture)
    assert [tuple(view.shape[1:]) for view in views] == [(32, 32)] * 2 + [(16, 16)] * 5
    assert all(isinstance(view, Tensor) for view in views)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crops_per_mask": -1}, "crops_per_mask=-1, expected 0 or more"),
        ({"crop_size": 32}, "crop_size=32 with crops_per_mask=0"),
        ({"fill": "black"}, "fill='black' is unknown. Use one of zero, mean, blur, noise"),
        ({"crop_size": 0, "crops_per_mask": 1}, "crop_size=0 with crops_per_mask=1"),
    ],
)
def test_settings_that_make_no_views_are_refused(
    options: dict[str, Any], text: str, masks: MaskGenerator
) -> None:
    with pytest.raises(ValueError, match=text):
        MaskAugment(masks, **options)
