"""Batch norms over the images of all ranks, and what a bad batch leaves in them."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from adios_tme.models.batch_norm import share_batch_norms


def trained(norm: nn.Module) -> nn.Sequential:
    """A network with a norm that has statistics, scale and shift of its own."""
    network = nn.Sequential(norm)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.rand_like(weight) + 0.5)
    for _ in range(3):
        network(torch.randn(8, 4, 5, 5) * 2 + 1)
    return network


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), BatchNormAct2d(4)])
def test_numbers_and_statistics_are_those_of_the_usual_one(norm: nn.Module) -> None:
    usual = trained(norm)
    shared = copy.deepcopy(usual)
    share_batch_norms(shared)
    for training in (True, False):
        x = torch.randn(6, 4, 5, 5, requires_grad=True)
        found, expected = (each.train(training)(x) for each in (shared, usual))
        torch.testing.assert_close(found, expected)
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), [x, *shared.parameters()]),
            torch.autograd.grad(expected.square().sum(), [x, *usual.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(shared[0], name), getattr(usual[0], name))


def test_what_is_not_finite_leaves_no_trace() -> None:
    network = trained(nn.BatchNorm2d(4))
    share_batch_norms(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.full((2, 4, 5, 5), float("nan")))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_frozen_weights_leave_statistics_alone() -> None:
    network = trained(nn.BatchNorm2d(4)).requires_grad_(False)
    share_batch_norms(network)
    before = network.state_dict()["0.running_mean"].clone()
    network(torch.randn(2, 4, 5, 5) + 9)
    assert torch.equal(network.state_dict()["0.running_mean"], before)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.BatchNorm2d(4, track_running_stats=False),
    ],
)
def test_norms_that_would_see_one_process_alone_are_refused(norm: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{type(norm).__name__} sees the images of one process"):
        share_batch_norms(nn.Sequential(norm))
