"""Attention over packed sequences: one function, three back ends.

Images of different sizes stand one after the other in one sequence; each token attends to the
tokens of its own image.

Shape legend: T tokens of all images, H heads, E width of a head, n images of one length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.errors import ConfigError

Backend = Literal["xformers", "varlen", "sdpa"]


class Packing(NamedTuple):
    """Runs of images of one length each, in the order in which they stand in the sequence."""

    runs: tuple[tuple[int, int], ...]
    """(number of images, tokens of each)"""

    @property
    def num_images(self) -> int:
        """Images in the sequence."""
        return sum(count for count, _ in self.runs)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each image."""
        return [length for count, length in self.runs for _ in range(count)]

    @property
    def run_sizes(self) -> list[int]:
        """Tokens of each run."""
        return [count * length for count, length in self.runs]

    def first_tokens(self) -> Packing:
        """The packing that is left when each image keeps one token."""
        return Packing(tuple((count, 1) for count, _ in self.runs))

    def first_rows(self, x_TD: Tensor) -> Tensor:
        """The first token of each image (n, D), by slices, whose backward pass scatters nothing."""
        runs = zip(x_TD.split(self.run_sizes), self.runs, strict=True)
        firsts = [run_TD.unflatten(0, (count, -1))[:, 0] for run_TD, (count, _) in runs]
        return torch.cat(firsts) if len(firsts) > 1 else firsts[0]


def attention(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packing, keys: Packing, backend: Backend
) -> Tensor:
    """Softmax attention within each image.

    Args:
        q_THE: Queries, as ``queries`` says.
        k_THE: Keys, as ``keys`` says; the same images in the same order.
        v_THE: Values of the keys.
        queries: Runs of the queries; per image all tokens, or one.
        keys: Runs of the keys and values.
        backend: ``sdpa`` works everywhere; the others need CUDA.

    Returns:
        (T, H, E) in the order of the queries.
    """
    if backend == "xformers":
        return _xformers(q_THE, k_THE, v_THE, queries, keys)
    if backend == "varlen":
        return _varlen(q_THE, k_THE, v_THE, queries, keys)
    return _sdpa(q_THE, k_THE, v_THE, queries, keys)


def _sdpa(q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packing, keys: Packing) -> Tensor:
    """One batched call per run of equal lengths; runs are slices, so nothing is moved."""
    outputs = []
    parts = (
        q_THE.split(queries.run_sizes),
        k_THE.split(keys.run_sizes),
        v_THE.split(keys.run_sizes),
    )
    for (count, _), *run in zip(keys.runs, *parts, strict=True):
        q_nHTE, k_nHTE, v_nHTE = (part.unflatten(0, (count, -1)).transpose(1, 2) for part in run)
        out_nHTE = F.scaled_dot_product_attention(q_nHTE, k_nHTE, v_nHTE)
        outputs.append(out_nHTE.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _xformers(
    q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packing, keys: Packing
) -> Tensor:
    from xformers.ops import memory_efficient_attention

    bias = _block_diagonal(queries, keys)
    out: Tensor = memory_efficient_attention(q_THE[None], k_THE[None], v_THE[None], attn_bias=bias)
    return out[0]


@lru_cache(maxsize=32)
def _block_diagonal(queries: Packing, keys: Packing) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(queries.lengths, keys.lengths)


def _varlen(q_THE: Tensor, k_THE: Tensor, v_THE: Tensor, queries: Packing, keys: Packing) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    device = q_THE.device
    out = varlen_attn(
        q_THE,
        k_THE,
        v_THE,
        _offsets(queries, device),
        _offsets(keys, device),
        max(length for _, length in queries.runs),
        max(length for _, length in keys.runs),
    )
    assert isinstance(out, Tensor)
    return out


@lru_cache(maxsize=32)
def _offsets(packing: Packing, device: torch.device) -> Tensor:
    """Where each image begins, and the end, on the device."""
    ends = torch.tensor([0, *packing.lengths]).cumsum(0)
    return ends.to(device=device, dtype=torch.int32)


def resolve_backend(
    name: Literal["auto", "xformers", "varlen", "sdpa"],
    device: torch.device,
    dtype: torch.dtype,
    head_width: int = 64,
) -> tuple[Backend, str]:
    """Choose a back end that works here.

    Args:
        name: The one that is asked for; ``auto`` tries xformers, varlen and SDPA in this order on
            CUDA, and takes SDPA on a CPU.
        device: Where it will run.
        dtype: Number format of queries, keys and values.
        head_width: Width of a head.

    Returns:
        The back end, and in words why it was taken.

    Raises:
        ConfigError: If the one that is asked for does not work here.
    """
    if name == "sdpa":
        return "sdpa", "asked for"
    if name != "auto":
        fault = _fault(name, device, dtype, head_width)
        if fault:
            raise ConfigError(
                f"compute: attention={name} does not work on {device} in {dtype} ({fault}). "
                f"Use --attention auto or sdpa."
            )
        return name, "asked for"
    if device.type != "cuda":
        return "sdpa", f"the only one on {device.type}"
    faults: list[str] = []
    candidates: tuple[Backend, ...] = ("xformers", "varlen")
    for candidate in candidates:
        fault = _fault(candidate, device, dtype, head_width)
        if not fault:
            return candidate, "; ".join([*faults, "a trial forward and backward worked"])
        faults.append(f"{candidate}: {fault}")
    return "sdpa", "; ".join(faults)


def _fault(
    backend: Backend, device: torch.device, dtype: torch.dtype, head_width: int
) -> str | None:
    """Why a back end cannot run here, from a small forward and backward; None if it can."""
    if device.type != "cuda":
        return "it has kernels for CUDA only"
    packing = Packing(((1, 5), (2, 3)))
    shape = (sum(packing.run_sizes), 1, head_width)
    trial = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    try:
        attention(trial, trial, trial, packing, packing, backend).sum().backward()
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return None
