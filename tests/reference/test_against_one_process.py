"""Several ranks against one process that holds all their images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World, process_group
from adios_tme.objectives.simclr import simclr_loss
from adios_tme.training import accumulate, step
from adios_tme.training.state import Run
from tests.factories import VIT_UNET, tiny_config
from tests.spawn import run_on_ranks

NUM_IMAGES, NUM_VIEWS, WIDTH = 8, 3, 5
NUM_STEPS = 3


def embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    clean = torch.randn(NUM_IMAGES, WIDTH, generator=generator, dtype=torch.float64)
    hidden = torch.randn(NUM_VIEWS, NUM_IMAGES, WIDTH, generator=generator, dtype=torch.float64)
    return clean, hidden


def loss_and_gradient(own: slice) -> tuple[list[float], Tensor]:
    """Loss of one rank's images, and the gradient on them of the mean loss over ranks."""
    with process_group("cpu") as world:
        clean, hidden = embeddings()
        clean, hidden = clean[own], hidden[:, own].requires_grad_()
        losses = simclr_loss(clean, hidden, 0.2)
        (gradient,) = torch.autograd.grad(losses.sum() / world.num_ranks, hidden)
        return losses.tolist(), gradient


def on_own_rank(num_ranks: int) -> tuple[list[float], Any]:
    share = NUM_IMAGES // num_ranks
    start = int(os.environ["RANK"]) * share
    losses, gradient = loss_and_gradient(slice(start, start + share))
    return losses, gradient.numpy()


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_loss_and_gradient(num_ranks: int) -> None:
    losses, gradient = loss_and_gradient(slice(0, NUM_IMAGES))
    answers = run_on_ranks(on_own_rank, num_ranks, num_ranks)
    mean = torch.tensor([answer[0] for answer in answers]).mean(dim=0)
    torch.testing.assert_close(mean, torch.tensor(losses), rtol=1e-6, atol=0)
    joined = torch.cat([torch.from_numpy(answer[1]) for answer in answers], dim=1)
    torch.testing.assert_close(joined, gradient, rtol=1e-5, atol=1e-8)


Arrays = dict[str, Any]
#: Name of a case: number of bits, mask model, crops per mask, optimiser, options of the masks.
Case = tuple[int, str, int, str, str]
OBJECTIVES = ("byol", "simsiam")
#: Networks of timm's that normalise over the batch, with the activation apart and within.
BATCH_NORMS: dict[str, dict[str, Any]] = {
    name: {"arch": f"timm:{name}"} for name in ("test_resnet", "test_efficientnet")
}
#: Settings that both losses and the views have on top.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "targets": {"area_targets": (0.5, 0.2, 0.3)},
    "batch": {"area_over": "batch"},
    "targets over batch": {"area_targets": (0.5, 0.2, 0.3), "area_over": "batch"},
    "mean": {"fill": "mean"},
    "blur": {"fill": "blur"},
    "reconstruction": {"reconstruction_weight": 0.5},
    "edges": {"edge_weight": 3.0},
    "consistency": {"consistency_weight": 5.0},
    "entropy": {"alpha_entropy": 2.0},
    "stain": {"stain_weight": 2.0},
    "stain at first": {"stain_weight": 2.0, "stain_until": 0.1},
    "adios_s": {"variant": "adios_s"},
    "two views": {"views": "two", "augment": "geometric"},
    **{name: {"objective": name, "predictor_hidden_dim": 12} for name in OBJECTIVES},
}
QUICK: list[Case] = [
    (64, "adios", 1, "adamw", "none"),
    (64, "vit_unet", 0, "lars", "none"),
    (32, "adios", 0, "lars", "none"),
]
IN_PASSES: list[Case] = [(64, "adios", 0, "lars", option) for option in OPTIONS]
WITH_OPTIONS = [*IN_PASSES, *((64, "adios", 1, "lars", name) for name in BATCH_NORMS)]
CASES: list[Case] = [
    (bits, mask_model, num_crops, optimizer, "none")
    for bits in (32, 64)
    for mask_model in ("adios", "vit_unet")
    for num_crops in (0, 1)
    for optimizer in ("adamw", "lars")
] + [
    (bits, mask_model, 0, "lars", option)
    for option in OPTIONS
    for bits, mask_model in ((32, "adios"), (32, "vit_unet"), (64, "vit_unet"))
]


def settings_of(case: Case) -> TrainConfig:
    _, mask_model, num_crops, optimizer, option = case
    flags: dict[str, Any] = {
        "crops_per_mask": num_crops,
        "clip_grad": 0.5,  # below the norms met here
        "total_iterations": 10,
    } | (OPTIONS | BATCH_NORMS)[option]
    if mask_model == "vit_unet":
        flags |= VIT_UNET | {"mask_dropout": 0.0}
    if optimizer == "lars":
        flags |= {"optimizer_type": "sgd", "use_lars": True, "lr": 0.1}
    return tiny_config(Path(), Path(), **flags)


def same_crops(views_BCHW: Tensor, crop_size: int) -> Tensor:
    """A crop that does not depend on which rank draws it."""
    return F.interpolate(views_BCHW[:, :, 4:28, 6:30], size=crop_size, mode="bilinear")


def same_mask(masks_BNHW: Tensor) -> Tensor:
    """A mask that does not depend on which rank draws it."""
    return masks_BNHW[:, 1:2]


def train_a_little(case: Case, world: World, num_passes: int = 1) -> tuple[Arrays, Arrays]:
    """The first step's gradients, and the weights after a few steps on this rank's images."""
    precision = torch.float64 if case[0] == 64 else torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "random_crops", same_crops)
        if precision is torch.float64:
            patch.setattr(Tensor, "float", _double_unless_a_flag)
        else:
            patch.setattr(nn.ReLU, "forward", _smooth)
        torch.set_default_dtype(precision)
        try:
            run = Run.build(settings_of(case), world)
            if run.config.mask.variant == "adios_s":
                run.sampler = same_mask
            share = NUM_IMAGES // world.num_ranks
            for number in range(NUM_STEPS):
                generator = torch.Generator().manual_seed(number)
                images = torch.randn(NUM_IMAGES, 3, 32, 32, generator=generator)
                own = images[world.rank * share :][:share]
                clean = own.flip(-1) if run.config.data.views == "two" else own
                if num_passes == 1:
                    step.train_step(run, own, run.schedule(), clean)
                else:
                    parts = [list(each.chunk(num_passes)) for each in (own, clean)]
                    accumulate.accumulated_step(run, parts[0], run.schedule(), parts[1])
                run.advance()
                if number == 0:
                    gradients = {
                        name: weight.grad.numpy().copy()
                        for name, weight in named(run)
                        if weight.grad is not None
                    }
            return gradients, {name: weight.detach().numpy() for name, weight in named(run)}
        finally:
            torch.set_default_dtype(torch.float32)


def _double_unless_a_flag(tensor: Tensor) -> Tensor:
    """In place of Tensor.float: the step in double precision, fused optimisers' flag apart."""
    return tensor.to(torch.float32) if tensor.dtype is torch.bool else tensor.double()


def _smooth(relu: nn.ReLU, values: Tensor) -> Tensor:
    """In place of ReLU, whose gradient jumps where single precision rounds to the other sign."""
    return F.silu(values)


def named(run: Run) -> Iterator[tuple[str, Tensor]]:
    networks = (
        ("student", run.bare_student),
        ("student.objective", run.objective),
        ("mask", run.bare_mask_model),
    )
    for prefix, network in networks:
        statistics = ((name, each) for name, each in network.named_buffers() if "running" in name)
        for name, weight in chain(network.named_parameters(), statistics):
            yield f"{prefix}.{name}", weight


def train_all(cases: list[Case], num_passes: int = 1) -> dict[Case, tuple[Arrays, Arrays]]:
    torch.set_num_threads(1)
    # One group for all: a rank that is early for the next would meet the others in the last one's.
    with process_group("cpu") as world:
        return {case: train_a_little(case, world, num_passes) for case in cases}


def distance(some: Arrays, others: Arrays, prefix: str) -> float:
    """Norm of the difference relative to the norm, over all of a network's tensors together."""
    assert some.keys() == others.keys()
    pairs = [(some[name], others[name]) for name in others if name.startswith(prefix)]
    difference = sum(float(np.square(one - other).sum()) for one, other in pairs)
    return float(np.sqrt(difference / sum(float(np.square(other).sum()) for _, other in pairs)))


def tolerances(case: Case, network: str) -> tuple[float, float]:
    """How far the gradients, and the weights after a few steps, may be from one process's."""
    bits, _, _, optimizer, option = case
    if bits == 64:
        return 1e-13, 1e-9
    # AdamW divides each gradient by its own size, so where the true gradient is zero (the biases
    # of attention's keys) single precision leaves a step of rounding noise as long as any other.
    noise = optimizer == "adamw" and network == "mask"
    # Batch norm divides by the little that first embeddings differ by, and rounding noise with it.
    return 5e-6 if option in OBJECTIVES else 2e-6, 1e-3 if noise else 1e-6


@pytest.mark.parametrize(
    ("num_ranks", "num_passes", "cases"),
    [
        pytest.param(2, 1, QUICK, id="2-quick"),
        pytest.param(2, 1, WITH_OPTIONS, id="2-options", marks=pytest.mark.elastic),
        pytest.param(1, 2, IN_PASSES, id="1-options-in-passes", marks=pytest.mark.elastic),
        pytest.param(2, 2, IN_PASSES, id="2-options-in-passes", marks=pytest.mark.elastic),
        pytest.param(2, 1, CASES, id="2-all", marks=pytest.mark.thorough),
        pytest.param(4, 2, CASES, id="4-all-in-passes", marks=pytest.mark.thorough),
        pytest.param(4, 1, CASES, id="4-all", marks=pytest.mark.thorough),
    ],
)
def test_steps_of_several_ranks_and_passes_are_those_of_one(
    num_ranks: int, num_passes: int, cases: list[Case]
) -> None:
    alone = train_all(cases)
    first, *others = run_on_ranks(train_all, num_ranks, cases, num_passes, timeout=400)
    far = {}
    for case in cases:
        for network in ("student", "mask"):
            found = [distance(first[case][i], alone[case][i], network) for i in (0, 1)]
            limits = tolerances(case, network)
            if any(value >= limit for value, limit in zip(found, limits, strict=True)):
                far[(*case, network)] = found
            assert all(distance(rank[case][1], first[case][1], network) == 0 for rank in others)
    assert not far


def make_mode(mode: Any) -> Any:
    """Make a dispatch mode, whose constructor torch leaves without types."""
    return mode()


class Wire(TorchDispatchMode):
    """Notes how many numbers each collective on tensors sends from this rank."""

    sent: list[tuple[str, int]]

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation.namespace == "c10d":
            sizes = [item.numel() for item in tree_leaves(args) if isinstance(item, Tensor)]
            # Of a gather or scatter that names both ends, this rank's own part is the smaller.
            self.sent.append((operation._schema.name.removeprefix("c10d::"), min(sizes)))
        return operation(*args, **(kwargs or {}))


def traffic_of_a_step(folder: str) -> tuple[list[tuple[str, int]], int, int]:
    with process_group("cpu") as world:
        run = Run.build(tiny_config(Path(folder), Path(folder)), world)
        for number in range(2):  # torch lays its buckets anew in the first step
            images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
            wire: Any = make_mode(Wire)
            wire.sent = []
            with wire:
                step.train_step(run, images, run.schedule())
        sizes = [
            sum(weight.numel() for weight in network.parameters())
            for network in (run.bare_student, run.bare_mask_model)
        ]
        return wire.sent, sizes[0], sizes[1]


def test_the_mask_half_sends_embeddings_and_its_own_gradients_alone(tmp_path: Path) -> None:
    sent, student_size, mask_size = run_on_ranks(traffic_of_a_step, 2, str(tmp_path))[0]
    sent = [transfer for transfer in sent if transfer[0] != "broadcast_"]
    second_half = [name for name, _ in sent].index("_allgather_base_", 1)
    embeddings_size = (1 + 3) * 4 * 16  # the clean and N hidden views of B images, D wide
    gathers = [("_allgather_base_", embeddings_size), ("_reduce_scatter_base_", embeddings_size)]
    assert sent[:2] == sent[second_half:][:2] == gathers
    for half, size in ((sent[:second_half], student_size), (sent[second_half:], mask_size)):
        assert {name for name, _ in half[2:]} == {"allreduce_"}
        assert sum(count for _, count in half[2:]) == size


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation makes."""

    size = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        made = (item.numel() for item in tree_leaves(result) if isinstance(item, Tensor))
        self.size = max(self.size, *made, 0)
        return result


@pytest.mark.parametrize("num_ranks", [1, 4, 16])
def test_a_rank_computes_its_own_rows_alone(num_ranks: int) -> None:
    own, width = 32, 8
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_ranks)
    clean = torch.randn(own, width, requires_grad=True)
    hidden = torch.randn(NUM_VIEWS, own, width, requires_grad=True)
    with FlopCounterMode(display=False) as counter, make_mode(Largest) as largest:
        simclr_loss(clean, hidden, 0.2).sum().backward()
    # Two rows an image, two columns an image of every rank: b * R b of each, never (R b)^2.
    assert largest.size == NUM_VIEWS * 2 * own * 2 * own * num_ranks
    products = 1 + 3 * NUM_VIEWS  # clean with clean once; the other three for each view
    assert counter.get_total_flops() == 3 * products * 2 * own * own * num_ranks * width


def test_a_world_of_one_is_no_group() -> None:
    with process_group("cpu") as world:
        assert world == World(0, 1, 0, 1, torch.device("cpu"))
