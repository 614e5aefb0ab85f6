"""Everything a run carries from one iteration to the next: networks, optimisers, counters, RNG."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from adios_tme.config.train import TrainConfig
from adios_tme.distributed.collectives import from_all_ranks
from adios_tme.distributed.world import World
from adios_tme.masking.controls import random_partition
from adios_tme.masking.samplers import SAMPLERS, Sampler
from adios_tme.models.build import build_mask_model, build_student
from adios_tme.models.ema import MovingAverage
from adios_tme.models.layers import Normalise
from adios_tme.models.resolve import Resolved, resolve
from adios_tme.models.student import Student, as_vit
from adios_tme.objectives.base import Objective
from adios_tme.objectives.build import build_objective
from adios_tme.objectives.penalty import MaskPenalty
from adios_tme.optim.build import build_optimizer, parameter_groups
from adios_tme.optim.schedule import Schedule, schedule_at
from adios_tme.training.batches import plan_batches
from adios_tme.training.update import Updater
from adios_tme.version import __version__


class Run:
    """Student and mask model, their objective and optimisers, and how far they have come."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        resolved: Resolved,
        student: Student,
        mask_model: nn.Module,
        objective: Objective,
    ) -> None:
        self.config = config
        self.world = world
        self.resolved = resolved
        self.objective = objective
        self.sampler: Sampler = SAMPLERS[config.mask.variant]
        self.normalise = Normalise(config.data.mean, config.data.std).to(world.device)
        self.mask_penalty = MaskPenalty(config.loss, self.normalise).to(world.device)
        self.bare_student = student
        self.bare_mask_model = mask_model
        self.student = self._on_all_ranks(student)
        self.mask_model = self._on_all_ranks(mask_model)
        lr, ratio = config.optim.lr, config.optim.mask_lr_ratio
        self.update_student = self._updater(lr, student, objective)
        self.update_mask_model = self._updater(lr * ratio, mask_model)
        self.averaged_mask_model = (
            MovingAverage(mask_model, config.mask.mask_ema) if config.mask.mask_ema else None
        )
        self.batches = plan_batches(
            config.data.batch_size_per_gpu, config.optim.global_batch_size, world.num_ranks
        )
        self.iteration = 0
        self.samples_seen = 0
        self.patches: dict[str, Any] | None = None
        """What it trains on, as `adios_tme.data.mixture.PatchMixture.content` tells it."""

    @classmethod
    def build(cls, config: TrainConfig, world: World) -> Run:
        """Networks with the same first weights on every rank, then a random stream per rank.

        Raises:
            ConfigError: If the attention back end that is asked for does not work here.
        """
        torch.manual_seed(config.run.seed)
        resolved, img_size = resolve(config, world.device), config.data.img_size
        student = build_student(config.model, img_size, resolved)
        mask_model = build_mask_model(config.mask, config.model, img_size, resolved)
        objective = build_objective(config.loss, student).to(world.device)
        torch.manual_seed(config.run.seed + 1 + world.rank)
        networks = student.train(), mask_model.train(), objective.train()
        return cls(config, world, resolved, *networks)

    def _on_all_ranks(self, network: nn.Module) -> nn.Module:
        if self.world.num_ranks == 1:
            return network
        device_ids = [self.world.device.index] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)

    def _updater(self, lr: float, *networks: nn.Module) -> Updater:
        optim, resolved = self.config.optim, self.resolved
        scaler = GradScaler(resolved.device.type) if resolved.dtype is torch.float16 else None
        groups = parameter_groups(optim.weight_decay, *networks)
        return Updater(networks, build_optimizer(groups, optim, lr), optim.clip_grad, scaler)

    @property
    def global_batch_size(self) -> int:
        """Images per iteration over all ranks."""
        return self.batches.global_size

    @property
    def is_finished(self) -> bool:
        """Whether every iteration asked for has been done."""
        return self.iteration >= self.config.optim.total_iterations

    def schedule(self) -> Schedule:
        """Settings of the next step."""
        config = self.config
        return schedule_at(config.optim, config.loss, config.mask, self.iteration)

    def autocast(self) -> AbstractContextManager[None]:
        """Arithmetic of the networks in the run's precision."""
        dtype = self.resolved.dtype
        enabled = dtype is not torch.float32
        return torch.autocast(self.resolved.device.type, dtype=dtype, enabled=enabled)

    def predict_masks(self, images_BCHW: Tensor, *, with_graph: bool) -> Tensor:
        """Masks (B, N, H, W) of a batch, with or without a graph for the mask half."""
        mask = self.config.mask
        if mask.mask_source != "learned":
            shape = (len(images_BCHW), mask.num_masks, *images_BCHW.shape[-2:])
            if mask.mask_source == "none":
                return images_BCHW.new_zeros(shape)
            return random_partition(images_BCHW.new_full(shape[:2], 1 / mask.num_masks), shape[2:])
        network = self.mask_model if with_graph else self.bare_mask_model
        with torch.set_grad_enabled(with_graph), self.autocast():
            masks: Tensor = network(images_BCHW)
        return masks

    def patch_features(self, images_BCHW: Tensor) -> Tensor:
        """The student's features (B, D, h, w) of the patches of whole images, without a graph."""
        with torch.no_grad(), self.autocast():
            encoder = as_vit(self.bare_student.encoder, "reconstruction_weight")
            return encoder.patch_map(images_BCHW)

    def follow(self, now: Schedule) -> None:
        """Let what follows the networks follow them, after the updates of a step."""
        self.objective.after_update(self.bare_student, now)
        if now.mask_is_due and self.averaged_mask_model:
            self.averaged_mask_model.update(self.bare_mask_model)

    @property
    def shown_mask_model(self) -> nn.Module:
        """The mask model that pictures and scores look at: the average where there is one."""
        average = self.averaged_mask_model
        return average.network if average else self.bare_mask_model

    def advance(self) -> None:
        """Count a finished iteration."""
        self.iteration += 1
        self.samples_seen += self.global_batch_size

    def state(self) -> dict[str, Any]:
        """The checkpoint of this moment, by reference; a collective, every rank must call it."""
        objective = self.objective.state_dict()
        return {
            "student": self.bare_student.state_dict(),
            "mask_model": self.bare_mask_model.state_dict(),
            "mask_average": self.averaged_mask_model.state() if self.averaged_mask_model else None,
            "student_optimizer": self.update_student.optimizer.state_dict(),
            "mask_optimizer": self.update_mask_model.optimizer.state_dict(),
            "iteration": self.iteration,
            "samples_seen": self.samples_seen,
            "patches": self.patches,
            "config": self.config.model_dump(mode="json"),
            "rng": from_all_ranks(random_state(self.world.device)),
            "scaler": {
                name: updater.scaler.state_dict() if updater.scaler else None
                for name, updater in self.updaters().items()
            },
            "world_size": self.world.num_ranks,
            "version": __version__,
        } | ({"objective": objective} if objective else {})

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take the weights of both networks and the objective, and nothing else."""
        self.bare_student.load_state_dict(state["student"])
        self.bare_mask_model.load_state_dict(state["mask_model"])
        self.objective.load_state_dict(state.get("objective", {}))
        if self.averaged_mask_model:
            self.averaged_mask_model.restart(self.bare_mask_model)

    def load_state(self, state: dict[str, Any]) -> bool:
        """Go back to the moment of a checkpoint.

        Returns:
            Whether the random streams went back too; they do when the number of ranks is the same.
        """
        self.load_weights(state)
        if self.averaged_mask_model and state["mask_average"]:
            self.averaged_mask_model.load_state(state["mask_average"])
        for name, updater in self.updaters().items():
            updater.optimizer.load_state_dict(state[f"{name}_optimizer"])
            if updater.scaler and state["scaler"][name]:
                updater.scaler.load_state_dict(state["scaler"][name])
        self.iteration = state["iteration"]
        self.samples_seen = state["samples_seen"]
        same_ranks = state["world_size"] == self.world.num_ranks
        if same_ranks:
            set_random_state(state["rng"][self.world.rank], self.world.device)
        return bool(same_ranks)

    def updaters(self) -> dict[str, Updater]:
        """Both networks' updaters, by the name their optimiser has in a checkpoint."""
        return {"student": self.update_student, "mask": self.update_mask_model}


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The random streams of this process, on the host and on its device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Take the random streams back to a moment."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
