"""What the mask model costs, counted on one that is built."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from adios_tme.benchmark.throughput.counting import count_flops, kept_bytes
from adios_tme.benchmark.throughput.live_bytes import peak_bytes
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.resolve import resolve

#: Images whose memory is counted beside that of twice as many, to see what one adds.
MANY = 32


@dataclass(frozen=True)
class MaskModelCost:
    """What the mask model does for one image."""

    forward: int
    """FLOPs of one pass."""
    backward: int
    """FLOPs of the pass back, to the weights that learn."""
    kept_bytes: int
    """What it keeps between the two, in single precision."""
    peak_bytes: int
    """What it needs at its fullest moment beside weights and gradients, in single precision."""
    num_weights: int
    """That learn."""

    @classmethod
    def of(cls, config: TrainConfig) -> MaskModelCost:
        """Counted on a network of these settings."""
        size = config.data.img_size
        network = _mask_model(config, recompute=config.compute.mask_grad_checkpointing)
        images = torch.zeros(1, 3, size, size)
        kept = kept_bytes(network, lambda: network(images))
        # On the meta device arithmetic has shapes and costs no time.
        peak = (_peak_of_pass(network, 2 * MANY, size) - _peak_of_pass(network, MANY, size)) // MANY
        network, images = _mask_model(config, recompute=False).to("meta"), images.to("meta")
        forward = count_flops(lambda: network(images))
        both = count_flops(lambda: network(images).sum().backward())
        weights = [weight.numel() for weight in network.parameters() if weight.requires_grad]
        return cls(forward, both - forward, kept, peak, sum(weights))


def _mask_model(config: TrainConfig, *, recompute: bool) -> nn.Module:
    compute = ComputeConfig(attention="sdpa", compile="off", mask_grad_checkpointing=recompute)
    plain = resolve(config.model_copy(update={"compute": compute}), torch.device("cpu"))
    return build_mask_model(config.mask, config.model, config.data.img_size, plain).train()


def _peak_of_pass(network: nn.Module, num_images: int, size: int) -> int:
    """Most bytes alive in a pass forward and back; the network is on the meta device afterwards."""
    network.to("meta").zero_grad()
    images = torch.empty(num_images, 3, size, size, device="meta")
    return peak_bytes(lambda: network(images).sum().backward())
