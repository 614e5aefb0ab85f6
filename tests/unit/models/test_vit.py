"""The encoder: packing, stochastic depth, checkpointing, intermediate features."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor, nn

from adios_tme.models.attention import Packing
from adios_tme.models.heads import TMEHead
from adios_tme.models.layers import Block, Normalise, _add, fit_to_side
from adios_tme.models.student import Student
from adios_tme.models.vit import VisionTransformer


def encoder(**options: object) -> VisionTransformer:
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    torch.manual_seed(1)
    return VisionTransformer(**(settings | options))  # type: ignore[arg-type]


def views() -> list[Tensor]:
    return [torch.randn(3, 3, 32, 32), torch.randn(2, 3, 32, 32), torch.randn(4, 3, 16, 16)]


def test_packed_views_equal_one_by_one() -> None:
    network = encoder().eval()
    with torch.no_grad():
        packed = network(batches := views())
        for tokens, view in zip(packed, batches, strict=True):
            torch.testing.assert_close(tokens, network(view), rtol=1e-5, atol=1e-5)


def test_packed_gradients_equal_one_by_one() -> None:
    network = encoder()
    batches = views()

    def gradients(losses: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(torch.stack(losses).sum(), list(network.parameters())))

    packed = gradients([tokens.square().mean() for tokens in network(batches)])
    single = gradients([network(view).square().mean() for view in batches])
    for one, other in zip(packed, single, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_class_tokens_are_the_first_of_all_tokens() -> None:
    network, batches = encoder().eval(), views()
    with torch.no_grad():
        expected = torch.cat([tokens[:, 0] for tokens in network(batches)])
        torch.testing.assert_close(network.class_tokens(batches), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_registers_are_tokens(registers: int) -> None:
    network = encoder(num_register_tokens=registers)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 1 + registers + 16, 32)


def test_stochastic_depth_drops_whole_images_at_the_promised_rate() -> None:
    block = Block(8, 2, drop_path=0.4, layer_scale=1.0, backend="sdpa").train()
    packing = Packing(((500, 3), (500, 2)))
    factors = block.draw_kept(torch.zeros(2500, 8), packing)
    assert factors is not None
    assert not torch.equal(factors.attended, factors.transformed)
    kept = _add(torch.zeros(2500, 8), torch.ones(2500, 8), packing, factors.attended)
    per_image = [*kept[:1500].unflatten(0, (500, 3)), *kept[1500:].unflatten(0, (500, 2))]
    values = {round(float(image.max()), 4) for image in per_image}
    assert values == {0.0, round(1 / 0.6, 4)}
    assert all(image.min() == image.max() for image in per_image)
    share = sum(float(image.max()) == 0 for image in per_image) / 1000
    assert share == pytest.approx(0.4, abs=0.06)  # four standard deviations
    assert kept.mean() == pytest.approx(1.0, abs=0.1)
    assert block.eval().draw_kept(torch.zeros(2500, 8), packing) is None
    assert (_add(torch.zeros(5, 8), torch.ones(5, 8), Packing(((1, 5),)), None) == 1).all()


def test_stochastic_depth_rises_with_depth() -> None:
    rates = [block.drop_path for block in encoder(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_checkpointing_changes_no_gradient() -> None:
    images = torch.randn(2, 3, 32, 32)
    grads = []
    for recompute in (False, True):
        network = encoder(grad_checkpointing=recompute, drop_path_rate=0.2).train()
        torch.manual_seed(0)
        network.class_tokens([images]).square().sum().backward()
        grads.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*grads, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_intermediates_are_the_normed_quarters() -> None:
    network = encoder(depth=6).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        maps = network.forward_intermediates(images)
        tokens = network(images)
    assert [tuple(each.shape) for each in maps] == [(2, 32, 4, 6)] * 4
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tokens[:, 5:])
    assert (maps[0] - maps[1]).abs().max() > 0


def test_a_student_embeds_lists_as_it_does_batches() -> None:
    student = Student(encoder(), TMEHead(32, 16, 8, 3)).eval()
    batches = views()
    with torch.no_grad():
        together = student(batches)
        for embedding, batch in zip(together, batches, strict=True):
            torch.testing.assert_close(embedding, student(batch), rtol=1e-5, atol=1e-5)


def test_the_head_is_linear_layers_with_gelu_between() -> None:
    kinds = [type(layer).__name__ for layer in TMEHead(32)]
    assert kinds == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert [layer.out_features for layer in TMEHead(32) if hasattr(layer, "out_features")] == [
        2048,
        2048,
        256,
    ]
    with pytest.raises(ValueError, match="num_layers=0"):
        TMEHead(32, num_layers=0)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"are torch\.uint8, expected normalised"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), r"are torch\.int64, expected normalised"),
        (torch.zeros(2, 3, 32, 32).double(), r"are torch\.float64, the weights torch\.float32"),
        (torch.zeros(2, 3, 32, 32).half(), r"are torch\.float16, the weights torch\.float32"),
        (torch.zeros(3, 32, 32), r"are \(3, 32, 32\).*Add a batch axis"),
        (torch.zeros(2, 32, 32, 3), r"are \(2, 32, 32, 3\).*Put the channels first"),
        (torch.zeros(2, 3, 32, 30), "are 30 x 32 px, expected multiples of the patch size 8"),
    ],
)
def test_images_that_cannot_be_encoded_are_refused_in_words(images: Tensor, text: str) -> None:
    network = encoder().eval()
    for encode in (network, network.forward_intermediates, lambda x: network.class_tokens([x])):
        with pytest.raises(ValueError, match=f"images {text}"):
            encode(images)


def test_autocast_takes_images_of_half_the_bits() -> None:
    network, images = encoder().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(images.bfloat16()).shape == (2, 21, 32)
        with pytest.raises(ValueError, match="float64"):
            network(images.double())


class Calls(nn.Module):
    """Calls another function of an encoder than its forward."""

    def __init__(self, network: VisionTransformer, name: str) -> None:
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, images: Tensor) -> list[Tensor]:
        returned = getattr(self.network, self.name)(images)
        return [returned] if isinstance(returned, Tensor) else returned


@pytest.mark.parametrize("name", ["forward", "forward_intermediates"])
def test_a_traced_encoder_takes_any_number_of_images(name: str) -> None:
    plain = Calls(encoder().eval(), name)
    any_number = ({0: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(
            plain, (torch.randn(2, 3, 32, 32),), dynamic_shapes=any_number, strict=False
        )
        for number in (3, 5):
            images = torch.randn(number, 3, 32, 32)
            for found, expected in zip(program.module()(images), plain(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def ready(**options: object) -> VisionTransformer:
    """An encoder that knows its normalisation."""
    network = encoder(**options).eval()
    network.normalise = Normalise((0.7, 0.5, 0.6), (0.2, 0.1, 0.3))
    return network


def test_images_of_every_kind_are_encoded_alike() -> None:
    network = ready()
    assert network.state_dict().keys() == encoder().state_dict().keys()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert network.normalise is not None
    with torch.no_grad():
        expected = network(network.normalise(images))[:, 0]
    pixels = images.movedim(1, -1).numpy()
    forms: list[tuple[Any, Tensor]] = [
        (images, expected),
        (images / 255, expected),
        (images[1], expected[1]),
        (pixels, expected),
        (pixels[1] / 255, expected[1]),
        (Image.fromarray(pixels[1]), expected[1]),
    ]
    for form, features in forms:
        found = network.encode(form)
        assert isinstance(found, Tensor) is isinstance(form, Tensor)
        torch.testing.assert_close(torch.as_tensor(found), features, rtol=1e-4, atol=2e-5)


def test_images_of_any_size_are_resized_or_padded() -> None:
    network = ready()
    assert network.normalise is not None
    images = torch.rand(2, 3, 45, 61)
    with torch.no_grad():
        resized = network(network.normalise(fit_to_side(images, 32)))[:, 0]
        mirrored = functional.pad(images, (0, 3, 0, 3), mode="reflect")  # 48 x 64
        padded = network(network.normalise(mirrored))[:, 0]
    torch.testing.assert_close(network.encode(images), resized, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(network.encode(images, fit="pad"), padded, rtol=1e-4, atol=2e-5)
    assert network.encode(torch.rand(3, 3, 5), fit="pad").shape == (32,)
    whole = images[:, :, :40, :56]
    with torch.no_grad():
        expected = network(network.normalise(whole))[:, 0]
    torch.testing.assert_close(network.encode(whole, fit="pad"), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.randn(2, 3, 32, 32) * 9, "images reach from .* expected 0 to 1"),
        (torch.full((2, 3, 32, 32), torch.nan), "images reach from nan"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "images are torch.int64, expected"),
        (np.zeros((32, 32), np.uint8), r"images are \(32, 32\), expected \(H, W, 3\)"),
        ([torch.zeros(3, 32, 32)], "images are a list, expected a torch tensor"),
    ],
)
def test_what_cannot_be_encoded_is_told(images: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ready().encode(images)


def test_an_encoder_without_normalisation_encodes_nothing() -> None:
    with pytest.raises(ValueError, match=r"knows no normalisation\. Load it with"):
        encoder().encode(torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match=r"fit='crop' is unknown\. Use one of resize, pad"):
        ready().encode(torch.rand(3, 32, 32), fit=cast(Any, "crop"))
