"""Packed attention: each token sees its own image and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adios_tme.errors import ConfigError
from adios_tme.models.attention import Packing, attention, resolve_backend

PACKING = Packing(((2, 5), (3, 4)))


def qkv(packing: Packing, width: int = 8) -> list[torch.Tensor]:
    return list(torch.randn(3, sum(packing.run_sizes), 2, width).unbind(0))


def test_packed_equals_one_image_at_a_time() -> None:
    q, k, v = qkv(PACKING)
    packed = attention(q, k, v, PACKING, PACKING, "sdpa")
    start = 0
    for length in PACKING.lengths:
        own = slice(start, start + length)
        scores = torch.einsum("ihe,jhe->hij", q[own], k[own]) / 8**0.5
        expected = torch.einsum("hij,jhe->ihe", scores.softmax(-1), v[own])
        torch.testing.assert_close(packed[own], expected)
        start += length


def test_first_tokens_ask_all_keys() -> None:
    q, k, v = qkv(PACKING)
    whole = attention(q, k, v, PACKING, PACKING, "sdpa")
    rows = torch.tensor([0, 5, 10, 14, 18])
    some = attention(q[rows], k, v, PACKING.first_tokens(), PACKING, "sdpa")
    torch.testing.assert_close(some, whole[rows])


def test_gradients_stay_within_an_image() -> None:
    q, k, v = (part.requires_grad_() for part in qkv(PACKING))
    attention(q, k, v, PACKING, PACKING, "sdpa")[:5].sum().backward()
    assert v.grad is not None
    assert v.grad[:5].abs().min() > 0
    assert v.grad[5:].abs().max() == 0


def test_packing_counts() -> None:
    assert (PACKING.num_images, PACKING.lengths) == (5, [5, 5, 4, 4, 4])


def test_a_cpu_takes_sdpa_and_refuses_the_others() -> None:
    cpu = torch.device("cpu")
    assert resolve_backend("auto", cpu, torch.float32)[0] == "sdpa"
    with pytest.raises(ConfigError, match="attention=xformers does not work on cpu"):
        resolve_backend("xformers", cpu, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["xformers", "varlen"])
@pytest.mark.parametrize("first_only", [False, True])
def test_other_back_ends_give_the_numbers_of_sdpa(backend: str, first_only: bool) -> None:
    packing = Packing(((3, 17), (2, 9)))
    tensors = [part.cuda().bfloat16().requires_grad_() for part in qkv(packing, width=64)]
    queries = packing.first_tokens() if first_only else packing
    rows = torch.tensor([0, 17, 34, 51, 60]).cuda()
    found = []
    for name in ("sdpa", backend):
        q, k, v = tensors
        out = attention(q[rows] if first_only else q, k, v, queries, packing, name)  # type: ignore[arg-type]
        grads = torch.autograd.grad(out.float().square().sum(), tensors)
        found.append([out, *grads])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.gpu
def test_auto_takes_a_kernel_of_its_own_on_cuda() -> None:
    backend, reason = resolve_backend("auto", torch.device("cuda", 0), torch.bfloat16)
    assert backend in ("xformers", "varlen"), reason


def test_scale_is_that_of_torch() -> None:
    q, k, v = (part[:5] for part in qkv(PACKING))
    packing = Packing(((1, 5),))
    out = attention(q, k, v, packing, packing, "sdpa")
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    expected = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
    torch.testing.assert_close(out, expected)
