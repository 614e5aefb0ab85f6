"""Whether a step fits into the memory at hand, before anything is loaded into it."""

from __future__ import annotations

from adios_tme.benchmark.machine import total_memory
from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.models.resolve import resolve
from adios_tme.training.batches import plan_batches

#: Share of the memory at hand that a suggested batch may take.
MARGIN = 0.9


def check_memory(config: TrainConfig, world: World) -> None:
    """Refuse a run whose step cannot fit, by what it costs on paper.

    Raises:
        ConfigError: With a batch size that fits.
    """
    at_hand = total_memory(world.device)
    if config.compute.ignore_memory or at_hand is None:
        return
    sharing = world.ranks_per_node if world.device.type == "cpu" else 1
    resolved = resolve(config, world.device)
    cost = StepCost.of(config, resolved)
    most, asked = config.data.batch_size_per_gpu, config.optim.global_batch_size
    batch_size = plan_batches(most, asked, world.num_ranks).images_per_pass

    def needed(images: int) -> int:
        return sharing * cost.peak_bytes(images, resolved.dtype.itemsize)

    if needed(batch_size) <= at_hand:
        return
    fitting = [size for size in range(1, batch_size) if needed(size) <= MARGIN * at_hand]
    shares = f" ({sharing} processes)" if sharing > 1 else ""
    raise ConfigError(
        f"A step of --arch {config.model.arch} on {batch_size} images of {config.data.img_size} px "
        f"needs about {needed(batch_size) / 2**30:.1f} GiB{shares}, and there are "
        f"{at_hand / 2**30:.1f} GiB on {world.device}. "
        f"{_advice(fitting, asked or batch_size * world.num_ranks)} "
        f"To try it all the same, add --ignore-memory."
    )


def _advice(fitting: list[int], global_batch_size: int) -> str:
    if not fitting:
        return "Choose a smaller --arch or --img-size."
    return (
        f"Use --batch-size-per-gpu {max(fitting)} (and --global-batch-size {global_batch_size} for "
        f"the same updates, in more passes), a smaller --arch, or --grad-checkpointing."
    )
