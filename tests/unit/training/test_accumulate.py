"""Several passes against one, and how an update is shared out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adios_tme.distributed.world import World
from adios_tme.training import accumulate, step
from adios_tme.training.batches import Batches, plan_batches
from adios_tme.training.state import Run
from tests.factories import VIT_UNET, tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("asked", "num_ranks", "expected"),
    [
        (None, 3, Batches(4, 1, 3)),
        (16, 4, Batches(4, 1, 4, 16)),
        (16, 2, Batches(4, 2, 2, 16)),
        (16, 1, Batches(4, 4, 1, 16)),
        (16, 8, Batches(2, 1, 8, 16)),
        (18, 3, Batches(3, 2, 3, 18)),
        (12, 1, Batches(4, 3, 1, 12)),
        (16, 3, Batches(3, 2, 3, 16)),  # 15: not 16, and never more than 4 at a time
        (16, 5, Batches(3, 1, 5, 16)),
    ],
)
def test_an_update_is_shared_out(asked: int | None, num_ranks: int, expected: Batches) -> None:
    planned = plan_batches(4, asked, num_ranks)
    assert planned.images_per_pass <= 4
    assert planned == expected


def test_a_global_batch_that_cannot_be_kept_is_told() -> None:
    text = str(plan_batches(4, 16, 3))
    assert text == "18 (2 passes of 3 x 3 ranks) instead of 16, which 3 ranks do not divide"


def flat(run: Run, prefix: str) -> Tensor:
    network = run.bare_student if prefix == "student" else run.bare_mask_model
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.mark.parametrize("num_passes", [2, 4])
@pytest.mark.parametrize("mask_model", ["adios", "vit_unet"])
def test_passes_give_the_numbers_of_one_batch(
    mask_model: str, num_passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "random_crops", lambda views, size: views[..., :16, :16])
    flags: dict[str, Any] = {"crops_per_mask": 1, "optimizer_type": "sgd", "lr": 0.05}
    if mask_model == "vit_unet":
        flags |= VIT_UNET | {"mask_dropout": 0.0}
    config = tiny_config(Path(), Path(), **flags)
    images = torch.randn(8, 3, 32, 32)
    at_once, in_passes = (Run.build(config, WORLD) for _ in range(2))
    first = flat(at_once, "student")
    for _ in range(2):
        now = at_once.schedule()
        expected = step.train_step(at_once, images, now)
        found = accumulate.accumulated_step(in_passes, list(images.chunk(num_passes)), now)
        for name, value in vars(expected).items():
            if name != "masks":
                torch.testing.assert_close(getattr(found, name), value, rtol=1e-4, atol=1e-6)
        at_once.advance()
    assert not torch.equal(first, flat(at_once, "student"))
    for network in ("student", "mask"):
        one, other = flat(in_passes, network), flat(at_once, network)
        assert (one - other).norm() / other.norm() < 1e-6


@pytest.mark.parametrize("half", ["embed_with_crops", "embed_masked"])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"fill": "noise"},
        {"consistency_weight": 1.0},
        {"variant": "adios_s"},
        {"objective": "byol"},
    ],
)
def test_random_draws_are_the_same_in_both_passes(
    flags: dict[str, Any], half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, crops and noise the second forward must meet the first one's views."""
    drawing = VIT_UNET | {"crops_per_mask": 1, "drop_path_rate": 0.5}
    config = tiny_config(Path(), Path(), **drawing, **flags)
    run = Run.build(config, WORLD)
    seen: list[Tensor] = []
    real = getattr(step, half)

    def spy(*arguments: Any) -> Tensor:
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(accumulate, half, spy)
    images = torch.randn(8, 3, 32, 32)
    accumulate.accumulated_step(run, list(images.chunk(2)), run.schedule())
    first, second, first_again, second_again = seen
    torch.testing.assert_close(first, first_again)
    torch.testing.assert_close(second, second_again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("mask_forward", "num_calls"), [("shared", 4), ("separate", 6)])
def test_shared_masks_are_not_predicted_a_third_time(mask_forward: str, num_calls: int) -> None:
    run = Run.build(tiny_config(Path(), Path(), mask_forward=mask_forward), WORLD)
    calls: list[nn.Module] = []
    run.bare_mask_model.register_forward_hook(lambda network, *_: calls.append(network))
    images = torch.randn(8, 3, 32, 32)
    accumulate.accumulated_step(run, list(images.chunk(2)), run.schedule())
    assert len(calls) == num_calls
