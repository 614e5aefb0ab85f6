"""What the mask model costs, counted on one that is built."""

from __future__ import annotations

from functools import cache, cached_property

import torch
from torch import Tensor, nn

from adios_tme.benchmark.throughput.counting import count_passes, kept_bytes
from adios_tme.benchmark.throughput.live_bytes import peak_bytes
from adios_tme.config.data import DataConfig
from adios_tme.config.model import MaskConfig, StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.resolve import resolve

#: Images whose memory is counted beside that of twice as many, to see what one adds.
MANY = 32
#: Where arithmetic has shapes and costs no time.
META = torch.device("meta")
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


class MaskModelCost:
    """What the mask model does for one image; each number is counted when it is first asked for.

    Args:
        mask: Settings of the network.
        student: Its patches and registers.
        size: Side of the images in pixels.
        recompute: Whether activations are computed again on the way back.
    """

    def __init__(
        self, mask: MaskConfig, student: StudentConfig, size: int, recompute: bool
    ) -> None:
        self._mask, self._student, self._size = mask, student, size
        self._recompute = recompute

    @classmethod
    def of(cls, config: TrainConfig) -> MaskModelCost:
        """That of these settings, the same for all that build the same network."""
        mask = config.mask.model_copy(update=NOT_OF_THE_NETWORK)
        patches, registers = config.model.patch_size, config.model.num_register_tokens
        student = StudentConfig(patch_size=patches, num_register_tokens=registers)
        recompute = config.compute.mask_grad_checkpointing
        return _shared(mask, student, config.data.img_size, recompute)

    @property
    def forward(self) -> int:
        """FLOPs of one pass."""
        return self._flops[0]

    @property
    def backward(self) -> int:
        """FLOPs of the pass back, to the weights that learn; nothing is computed again."""
        return self._flops[1]

    @cached_property
    def kept_bytes(self) -> int:
        """What it keeps between the two, in single precision."""
        network, image = self._network, self._images(1)
        return kept_bytes(network, lambda: network(image))

    @cached_property
    def peak_bytes(self) -> int:
        """What it needs at its fullest moment beside weights and gradients, single precision."""
        one, two = (self._peak(number * MANY) for number in (1, 2))
        return (two - one) // MANY

    @property
    def num_weights(self) -> int:
        """That learn."""
        return sum(weight.numel() for weight in self._network.parameters() if weight.requires_grad)

    @cached_property
    def _flops(self) -> tuple[int, int]:
        network, image = self._build(recompute=False), self._images(1)
        return count_passes(lambda: network(image))

    def _peak(self, num_images: int) -> int:
        """Most bytes alive in a pass forward and back."""
        network, images = self._network, self._images(num_images)
        network.zero_grad()
        return peak_bytes(lambda: network(images).sum().backward())

    def _images(self, count: int) -> Tensor:
        return torch.empty(count, 3, self._size, self._size, device=META)

    @cached_property
    def _network(self) -> nn.Module:
        return self._build(self._recompute)

    def _build(self, recompute: bool) -> nn.Module:
        compute = ComputeConfig(attention="sdpa", compile="off", mask_grad_checkpointing=recompute)
        data = DataConfig(data_path=("patches",), img_size=self._size)
        config = TrainConfig(data=data, model=self._student, compute=compute)
        with META:
            resolved = resolve(config.model_copy(update={"mask": self._mask}), META)
            return build_mask_model(self._mask, self._student, self._size, resolved).train()


@cache
def _shared(mask: MaskConfig, student: StudentConfig, size: int, recompute: bool) -> MaskModelCost:
    return MaskModelCost(mask, student, size, recompute)
