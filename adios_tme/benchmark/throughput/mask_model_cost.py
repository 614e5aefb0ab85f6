"""What the mask model costs, counted on one that is built."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from adios_tme.benchmark.throughput.counting import count_flops, kept_bytes
from adios_tme.benchmark.throughput.live_bytes import peak_bytes
from adios_tme.config.data import DataConfig
from adios_tme.config.model import MaskConfig, StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.resolve import resolve

#: Images whose memory is counted beside that of twice as many, to see what one adds.
MANY = 32
#: Settings of the masks that the network is built without, at their defaults.
NOT_OF_THE_NETWORK = {
    name: MaskConfig.model_fields[name].default
    for name in (
        "variant",
        "crops_per_mask",
        "crop_size",
        "mask_source",
        "mask_ema",
        "fill",
        "mask_update_freq",
        "train_mask_until",
        "mask_forward",
        "mask_encoder_checkpoint",
    )
}


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
        """Counted on a network of these settings; once for each of them, as it takes a second."""
        mask = config.mask.model_copy(update=NOT_OF_THE_NETWORK)
        patches, registers = config.model.patch_size, config.model.num_register_tokens
        student = StudentConfig(patch_size=patches, num_register_tokens=registers)
        recompute = config.compute.mask_grad_checkpointing
        return _count(mask, student, config.data.img_size, recompute)


@functools.cache
def _count(mask: MaskConfig, student: StudentConfig, size: int, recompute: bool) -> MaskModelCost:
    network = _mask_model(mask, student, size, recompute=recompute)
    images = torch.zeros(1, 3, size, size)
    kept = kept_bytes(network, lambda: network(images))
    # On the meta device arithmetic has shapes and costs no time.
    peaks = [_peak_of_pass(network, number * MANY, size) for number in (1, 2)]
    network = _mask_model(mask, student, size, recompute=False).to("meta")
    images = images.to("meta")
    forward = count_flops(lambda: network(images))
    both = count_flops(lambda: network(images).sum().backward())
    weights = [weight.numel() for weight in network.parameters() if weight.requires_grad]
    return MaskModelCost(forward, both - forward, kept, (peaks[1] - peaks[0]) // MANY, sum(weights))


def _mask_model(
    mask: MaskConfig, student: StudentConfig, img_size: int, *, recompute: bool
) -> nn.Module:
    compute = ComputeConfig(attention="sdpa", compile="off", mask_grad_checkpointing=recompute)
    data = DataConfig(data_path=("patches",), img_size=img_size)
    config = TrainConfig(data=data, model=student, compute=compute)
    plain = resolve(config.model_copy(update={"mask": mask}), torch.device("cpu"))
    return build_mask_model(mask, student, img_size, plain).train()


def _peak_of_pass(network: nn.Module, num_images: int, size: int) -> int:
    """Most bytes alive in a pass forward and back; the network is on the meta device afterwards."""
    network.to("meta").zero_grad()
    images = torch.empty(num_images, 3, size, size, device="meta")
    return peak_bytes(lambda: network(images).sum().backward())
