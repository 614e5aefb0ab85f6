"""One step: who moves, what they minimise, and what it costs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adios_tme.distributed.world import World
from adios_tme.masking.views import apply_masks
from adios_tme.objectives.simclr import simclr_loss
from adios_tme.objectives.sparsity import sparsity_penalty
from adios_tme.training.state import Run
from adios_tme.training.step import embed_with_crops, train_step
from adios_tme.training.update import frozen
from tests.factories import VIT_UNET, tiny_config

#: Everything that the mask model's loss may have on top.
OPTIONS: dict[str, Any] = {
    "area_targets": (0.2, 0.3, 0.5),
    "area_over": "batch",
    "fill": "blur",
    "reconstruction_weight": 0.3,
    "edge_weight": 0.4,
    "consistency_weight": 0.5,
    "alpha_entropy": 0.6,
    "stain_weight": 0.7,
}
WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def make_run(folder: Path, **flags: Any) -> Run:
    return Run.build(tiny_config(folder, folder, **flags), WORLD)


def weights(network: torch.nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in network.parameters()]


def moved(network: torch.nn.Module, before: list[Tensor]) -> bool:
    return any(
        not torch.equal(weight, old)
        for weight, old in zip(network.parameters(), before, strict=True)
    )


def test_both_networks_move_when_the_masks_are_due(tmp_path: Path) -> None:
    run = make_run(tmp_path, mask_update_freq=2, warmup_iterations=0)
    images = torch.randn(4, 3, 32, 32)
    for due in (True, False):
        before = weights(run.bare_student), weights(run.bare_mask_model)
        report = train_step(run, images, run.schedule())
        run.advance()
        assert moved(run.bare_student, before[0])
        assert moved(run.bare_mask_model, before[1]) is due
        assert (report.mask_loss is not None) is due


def test_each_network_minimises_its_own_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, alpha_sparsity=0.3, warmup_iterations=0)
    images = torch.randn(4, 3, 32, 32)
    now = run.schedule()
    with torch.no_grad():
        masks = run.bare_mask_model(images)
        views = embed_with_crops(run, run.bare_student, images, images, masks)
        before = run.objective.loss(views[0], views[1:], now).sum()
    report = train_step(run, images, now)
    assert report.student_loss.item() == pytest.approx(before.item(), rel=1e-5)
    # The mask half sees the student that has just moved.
    with torch.no_grad():
        clean = run.bare_student(images)
        masked = run.bare_student(apply_masks(images, masks)).unflatten(0, (3, 4))
        contrastive = simclr_loss(clean, masked, now.temperature).sum()
        expected = 0.3 * sparsity_penalty(masks) - contrastive
    assert report.mask_loss is not None
    assert report.mask_loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_named_penalties_are_weighed_and_added(tmp_path: Path) -> None:
    run = make_run(tmp_path, alpha_sparsity=2.0, **OPTIONS)
    report = train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    weights = {
        "area_penalty": 2.0,
        "reconstruction_penalty": 0.3,
        "edge_penalty": 0.4,
        "consistency_penalty": 0.5,
        "entropy_penalty": 0.6,
        "stain_penalty": 0.7,
    }
    assert report.penalties.keys() == weights.keys()
    assert report.mask_loss is not None
    assert report.contrastive_loss_mask is not None
    weighed = sum(weight * report.penalties[name] for name, weight in weights.items())
    torch.testing.assert_close(report.mask_loss, weighed - report.contrastive_loss_mask)
    plain = make_run(tmp_path)
    report = train_step(plain, torch.randn(4, 3, 32, 32), plain.schedule())
    assert report.penalties.keys() == {"sparsity_penalty"}


def test_a_prior_that_is_over_leaves_the_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, stain_weight=3.0, stain_until=0.25, warmup_iterations=0)
    images = torch.randn(4, 3, 32, 32)
    reports = []
    for _ in range(2):
        reports.append(train_step(run, images, run.schedule()))
        run.advance()
    first, second = reports
    assert first.penalties.keys() == {"sparsity_penalty", "stain_penalty"}
    assert second.penalties.keys() == {"sparsity_penalty"}
    assert second.mask_loss is not None
    assert second.contrastive_loss_mask is not None
    plain = 0.1 * second.penalties["sparsity_penalty"] - second.contrastive_loss_mask
    torch.testing.assert_close(second.mask_loss, plain)


def test_a_frozen_mask_model_draws_masks_and_nothing_of_it_moves(tmp_path: Path) -> None:
    run = make_run(tmp_path, train_mask_until=0.5, mask_ema=0.9, warmup_iterations=0)
    images = torch.randn(4, 3, 32, 32)
    for _ in range(2):
        train_step(run, images, run.schedule())
        run.advance()
    before = weights(run.bare_mask_model), weights(run.shown_mask_model), weights(run.bare_student)
    optimizer = copy.deepcopy(run.update_mask_model.optimizer.state_dict())
    report = train_step(run, images, run.schedule())
    assert report.mask_loss is None
    torch.testing.assert_close(report.masks, run.bare_mask_model(images).detach())
    assert not moved(run.bare_mask_model, before[0])
    assert not moved(run.shown_mask_model, before[1])
    assert moved(run.bare_student, before[2])
    after = run.update_mask_model.optimizer.state_dict()
    tensors, still = (
        [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
        for state in (optimizer, after)
    )
    assert all(map(torch.equal, tensors, still))
    assert len(tensors) == len(still) > 0


def shapes_seen_by_the_student(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Size]]:
    """A list that gets the shapes of the views of each call."""
    calls: list[list[torch.Size]] = []
    real = run.bare_student.forward

    def counting(views: Any) -> Any:
        calls.append([view.shape for view in views])
        return real(views)

    monkeypatch.setattr(run.bare_student, "forward", counting)
    return calls


def test_one_mask_drawn_is_one_view_in_each_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, variant="adios_s", crops_per_mask=1, crop_size=16)
    calls = shapes_seen_by_the_student(run, monkeypatch)
    report = train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    assert calls == [[(8, 3, 32, 32), (4, 3, 16, 16)], [(4, 3, 32, 32)], [(4, 3, 32, 32)]]
    assert report.masks.shape == (4, 3, 32, 32)
    expected = sparsity_penalty(report.masks)
    torch.testing.assert_close(report.penalties["sparsity_penalty"], expected)


def test_crops_add_a_term_for_each_mask_and_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, crops_per_mask=2, crop_size=16)
    images, masks = torch.randn(4, 3, 32, 32), torch.rand(4, 3, 32, 32).softmax(1)
    calls = shapes_seen_by_the_student(run, monkeypatch)
    embed_with_crops(run, run.bare_student, images, images, masks)
    assert calls == [[(16, 3, 32, 32), (12, 3, 16, 16), (12, 3, 16, 16)]]


def test_masked_views_are_compared_with_the_clean_view_that_is_given(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    images, clean = torch.randn(2, 4, 3, 32, 32)
    masks = torch.rand(4, 3, 32, 32).softmax(1)
    views = embed_with_crops(run, run.bare_student, images, clean, masks)
    torch.testing.assert_close(views[0], run.bare_student(clean))
    torch.testing.assert_close(views[2], run.bare_student(images * (1 - masks[:, 1:2])))


@pytest.mark.parametrize(("dropout", "expected"), [(0.0, 1), (0.2, 2)])
def test_one_mask_forward_serves_both_halves_without_dropout(
    dropout: float, expected: int, tmp_path: Path
) -> None:
    run = make_run(tmp_path, **VIT_UNET, mask_dropout=dropout)
    count = 0
    real = run.bare_mask_model.forward

    def counting(images: Tensor) -> Tensor:
        nonlocal count
        count += 1
        masks: Tensor = real(images)
        return masks

    run.bare_mask_model.forward = counting
    train_step(run, torch.randn(2, 3, 32, 32), run.schedule())
    assert count == expected


def test_the_mask_half_leaves_no_gradient_on_the_student(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    after_student_half = [weight.grad.clone() for weight in run.bare_student.parameters()]  # type: ignore[union-attr]
    run.update_student.optimizer.zero_grad()
    masks = run.predict_masks(torch.randn(4, 3, 32, 32), with_graph=True)
    with frozen(run.bare_student):
        run.bare_student(apply_masks(torch.randn(4, 3, 32, 32), masks)).sum().backward()
    assert all(weight.grad is None for weight in run.bare_student.parameters())
    assert all(weight.requires_grad for weight in run.bare_student.parameters())
    assert len(after_student_half) > 0


def test_frozen_gives_the_flags_back_after_an_error(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    network.bias.requires_grad_(False)

    def fail() -> None:
        with frozen(network):
            assert not network.weight.requires_grad
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert network.weight.requires_grad
    assert not network.bias.requires_grad


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"optimizer_type": "sgd"},
        {"optimizer_type": "sgd", "use_lars": True},
        {"precision": "bf16"},
        {"precision": "fp16"},
    ],
)
def test_a_batch_of_nan_changes_nothing_and_the_next_one_does(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    # Small, since convolutions in fp16 are a hundred times as slow on many processors.
    run = make_run(tmp_path, warmup_iterations=0, img_size=16, **flags)
    before = weights(run.bare_student) + weights(run.bare_mask_model)
    train_step(run, torch.full((2, 3, 16, 16), float("nan")), run.schedule())
    after = weights(run.bare_student) + weights(run.bare_mask_model)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not run.update_student.has_diverged()
    for _ in range(12):  # fp16 first finds a scale at which nothing overflows
        train_step(run, torch.randn(2, 3, 16, 16), run.schedule())
        after = weights(run.bare_student) + weights(run.bare_mask_model)
        if not all(map(torch.equal, before, after)):
            break
    assert all(weight.isfinite().all() for weight in after)
    assert not all(map(torch.equal, before, after))


def test_three_refused_in_a_row_are_divergence(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    bad, good = torch.full((4, 3, 32, 32), float("nan")), torch.randn(4, 3, 32, 32)
    for images in (bad, bad, good, bad, bad):
        train_step(run, images, run.schedule())
    assert not run.update_student.has_diverged()
    train_step(run, bad, run.schedule())
    assert run.update_student.has_diverged()


def test_gradients_are_clipped(tmp_path: Path) -> None:
    run = make_run(tmp_path, clip_grad=0.01, optimizer_type="sgd", momentum=0.0)
    images = torch.randn(4, 3, 32, 32)
    before = weights(run.bare_student)
    now = run.schedule()
    norm = train_step(run, images, now).student_grad_norm
    assert norm > 0.01
    steps = [
        old - weight.detach()
        for weight, old in zip(run.bare_student.parameters(), before, strict=True)
    ]
    length = torch.stack([step.norm() for step in steps]).norm()
    decay = run.config.optim.weight_decay * torch.stack([old.norm() for old in before]).norm()
    assert length <= now.lr * (0.01 + decay) * 1.01


def test_bf16_stays_close_to_fp32(tmp_path: Path) -> None:
    images = torch.randn(4, 3, 32, 32)
    losses = []
    for precision in ("fp32", "bf16"):
        run = make_run(tmp_path, precision=precision)
        losses.append(train_step(run, images, run.schedule()).student_loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mask_model", ["adios", "vit_unet"])
def test_a_cuda_step_moves_both_networks(precision: str, mask_model: str, tmp_path: Path) -> None:
    world = World(0, 1, 0, 1, torch.device("cuda", 0))
    networks = VIT_UNET if mask_model == "vit_unet" else {}
    config = tiny_config(
        tmp_path,
        tmp_path,
        device="cuda",
        precision=precision,
        crops_per_mask=1,
        warmup_iterations=0,
        **networks,
    )
    run = Run.build(config, world)
    before = weights(run.bare_student), weights(run.bare_mask_model)
    for _ in range(20):  # fp16 first finds a scale at which nothing overflows
        report = train_step(run, torch.randn(4, 3, 32, 32, device="cuda"), run.schedule())
    assert report.student_loss.isfinite()
    assert moved(run.bare_student, before[0])
    assert moved(run.bare_mask_model, before[1])


class HostReads(TorchDispatchMode):
    """Notes the operators for whose result a host would wait, were the device another one."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")
    seen: list[str]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(name in str(func) for name in self.NAMES):
            self.seen.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "flags",
    [
        {"crops_per_mask": 1, "crop_size": 16, "drop_path_rate": 0.2},
        VIT_UNET,
        {"optimizer_type": "sgd", "use_lars": True},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"grad_checkpointing": True, "mask_grad_checkpointing": True},
        OPTIONS,
        {"fill": "noise"},
        {"variant": "adios_s"},
        {"objective": "byol"},
        {"objective": "simsiam"},
        {"arch": "timm:test_resnet"},
    ],
)
def test_a_step_reads_nothing_back(flags: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, **flags)
    images = torch.randn(4, 3, 32, 32)
    train_step(run, images, run.schedule())  # optimisers make their state in the first
    reads = HostReads()  # type: ignore[no-untyped-call]
    reads.seen = []
    with reads:
        report = train_step(run, images, run.schedule())
        assert reads.seen == []
        report.student_loss.item()
    assert len(reads.seen) == 1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "flags",
    [
        {},
        OPTIONS,
        {"variant": "adios_s"},
        {"objective": "byol"},
        {"objective": "simsiam"},
        {"arch": "timm:test_resnet"},
    ],
)
def test_a_step_on_cuda_waits_for_nothing(flags: dict[str, Any], tmp_path: Path) -> None:
    world = World(0, 1, 0, 1, torch.device("cuda", 0))
    run = Run.build(tiny_config(tmp_path, tmp_path, device="cuda", **flags), world)
    images = torch.randn(4, 3, 32, 32, device="cuda")
    train_step(run, images, run.schedule())  # first calls compile and cache
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(run, images, run.schedule())
    finally:
        torch.cuda.set_sync_debug_mode("default")
