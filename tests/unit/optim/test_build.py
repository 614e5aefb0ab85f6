"""Which weights decay, which optimiser moves them, and how the rate changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adios_tme.config.optim import OptimConfig
from adios_tme.models.vit import VisionTransformer
from adios_tme.optim.build import build_optimizer, parameter_groups
from adios_tme.optim.lars import LARS
from adios_tme.optim.schedule import half_cosine, warmup_cosine


def test_matrices_and_kernels_decay_and_nothing_else() -> None:
    network = VisionTransformer(32, 8, embed_dim=32, depth=1, num_heads=2)
    names = {id(weight): name for name, weight in network.named_parameters()}
    decaying, still = (
        {names[id(weight)] for weight in group["params"]}
        for group in parameter_groups(0.04, network)
    )
    assert decaying == {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
    }
    assert {"cls_token", "reg_token", "pos_embed", "blocks.0.ls1.gamma", "norm.weight"} <= still
    assert decaying | still == set(names.values())


def test_frozen_weights_are_left_out() -> None:
    network = nn.Linear(2, 2).requires_grad_(False)
    assert parameter_groups(0.1, network) == []


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, torch.optim.AdamW),
        ({"optimizer_type": "sgd"}, torch.optim.SGD),
        ({"optimizer_type": "sgd", "use_lars": True}, LARS),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_every_optimiser_moves_unless_it_is_refused(
    settings: dict[str, object], kind: type, refused: bool
) -> None:
    network = nn.Linear(4, 4)
    optimizer = build_optimizer(parameter_groups(0.04, network), OptimConfig(**settings), lr=0.1)
    assert type(optimizer) is kind
    before = network.weight.detach().clone()
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, float("nan") if refused else 1.0)
    optimizer.found_inf = torch.tensor(float(refused))  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(network.weight, before) is refused
    tensors = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    assert all(value.isfinite().all() for value in tensors)


def test_half_a_cosine_at_points_worked_out_by_hand() -> None:
    # (1 + cos(pi s)) / 2 at s = 0, 1/3, 1/2, 2/3, 1 is 1, 3/4, 1/2, 1/4, 0.
    values = [half_cosine(step, 6, start=9.0, end=1.0) for step in (0, 2, 3, 4, 6, 100)]
    assert values == pytest.approx([9.0, 7.0, 5.0, 3.0, 1.0, 1.0])


def test_warm_up_then_cosine_at_points_worked_out_by_hand() -> None:
    values = [warmup_cosine(step, 12, 4, peak=8.0, end=0.0) for step in (0, 1, 3, 4, 8, 12)]
    assert values == pytest.approx([2.0, 4.0, 8.0, 8.0, 4.0, 0.0])
    assert warmup_cosine(0, 5, 0, peak=3.0, end=0.0) == 3.0
