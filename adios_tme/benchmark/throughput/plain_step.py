"""The plain step, which the step of a run must equal and is measured against.

Two halves that share nothing. The student embeds all views in one call and every token is carried
to the end; the mask model draws its masks again for its own half, where the clean view has a
gradient like the others and the student's weights get gradients that nobody uses.

Shape legend: B images, N masks, C channels, H x W pixels, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.config.train import TrainConfig
from adios_tme.masking.views import hole
from adios_tme.models.build import build_mask_model, build_student
from adios_tme.models.layers import Normalise
from adios_tme.models.resolve import Resolved, resolve
from adios_tme.models.student import Student, as_vit
from adios_tme.objectives.penalty import MaskPenalty
from adios_tme.optim.build import build_optimizer, parameter_groups
from adios_tme.optim.schedule import Schedule

Crop = Callable[[Tensor], Tensor]
"""From views (B, C, H, W) to one crop of each."""


@dataclass
class PlainNetworks:
    """Both networks and their optimisers."""

    student: Student
    mask_model: nn.Module
    student_optimizer: torch.optim.Optimizer
    mask_optimizer: torch.optim.Optimizer
    mask_penalty: MaskPenalty
    config: TrainConfig
    resolved: Resolved
    crop: Crop

    @classmethod
    def build(cls, config: TrainConfig, device: torch.device, crop: Crop) -> PlainNetworks:
        """The networks of a run with the same settings and seed, at their first weights."""
        torch.manual_seed(config.run.seed)
        resolved, img_size, optim = resolve(config, device), config.data.img_size, config.optim
        student = build_student(config.model, img_size, resolved).train()
        mask_model = build_mask_model(config.mask, config.model, img_size, resolved).train()
        torch.manual_seed(config.run.seed + 1)
        student_optimizer, mask_optimizer = (
            build_optimizer(parameter_groups(optim.weight_decay, network), optim, lr)
            for network, lr in ((student, optim.lr), (mask_model, optim.lr * optim.mask_lr_ratio))
        )
        normalise = Normalise(config.data.mean, config.data.std)
        return cls(
            student,
            mask_model,
            student_optimizer,
            mask_optimizer,
            MaskPenalty(config.loss, normalise).to(device),
            config,
            resolved,
            crop,
        )

    def predict_masks(self, images_BCHW: Tensor, *, with_graph: bool) -> Tensor:
        """Masks of normalised images, for penalties that look at more of them."""
        with torch.set_grad_enabled(with_graph):
            masks: Tensor = self.mask_model(images_BCHW)
        return masks

    def patch_features(self, images_BCHW: Tensor) -> Tensor:
        """The student's features of the patches, without a graph."""
        with torch.no_grad():
            return as_vit(self.student.encoder, "reconstruction_weight").patch_map(images_BCHW)


def plain_step(
    networks: PlainNetworks, images_BCHW: Tensor, now: Schedule
) -> tuple[Tensor, Tensor]:
    """Update the student, then the mask model, on one batch of normalised images.

    Returns:
        Loss of the student and of the mask model.
    """
    config, dtype = networks.config, networks.resolved.dtype
    with torch.autocast(images_BCHW.device.type, dtype, enabled=dtype is not torch.float32):
        with torch.no_grad():
            masks_BNHW = networks.mask_model(images_BCHW)
        crops = config.mask.crops_per_mask
        student_loss = plain_loss(networks, images_BCHW, masks_BNHW, now.temperature, crops)
    _update(networks, networks.student_optimizer, networks.student, student_loss)

    with torch.autocast(images_BCHW.device.type, dtype, enabled=dtype is not torch.float32):
        masks_BNHW = networks.mask_model(images_BCHW)
        contrastive = plain_loss(networks, images_BCHW, masks_BNHW, now.temperature, crops=0)
        penalties = networks.mask_penalty(networks, images_BCHW, masks_BNHW, now)
        mask_loss = networks.mask_penalty.loss(contrastive, penalties)
    _update(networks, networks.mask_optimizer, networks.mask_model, mask_loss)
    return student_loss.detach(), mask_loss.detach()


def plain_loss(
    networks: PlainNetworks, images_BCHW: Tensor, masks_BNHW: Tensor, temperature: float, crops: int
) -> Tensor:
    """NT-Xent of the clean view to each masked view, and to so many crops of each."""
    fill = hole(images_BCHW, networks.config.mask.fill)
    masked = [
        images_BCHW * (1 - mask_B1HW) + fill * mask_B1HW
        for mask_B1HW in masks_BNHW.unsqueeze(2).unbind(1)
    ]
    cropped = [networks.crop(torch.cat(masked)) for _ in range(crops)]
    views = [images_BCHW, *masked, *cropped]
    tokens = networks.student.encoder(views)
    embeddings = torch.cat([networks.student.head(view[:, 0]) for view in tokens])
    clean_BD, *masked_views = embeddings.split(len(images_BCHW))
    return torch.stack([nt_xent(clean_BD, view_BD, temperature) for view_BD in masked_views]).sum()


def nt_xent(one_BD: Tensor, other_BD: Tensor, temperature: float) -> Tensor:
    """Equation 1 of Chen et al. 2020 (arXiv:2002.05709) as one square matrix of both views."""
    z = F.normalize(torch.cat([one_BD, other_BD]).float(), dim=1)
    similarity = z @ z.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(z), device=z.device).bool(), float("-inf"))
    places = torch.arange(len(z), device=z.device)
    return F.cross_entropy(similarity, places.roll(len(one_BD)))


def _update(
    networks: PlainNetworks, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor
) -> None:
    networks.student_optimizer.zero_grad()
    networks.mask_optimizer.zero_grad()
    loss.backward()
    limit = networks.config.optim.clip_grad or float("inf")
    nn.utils.clip_grad_norm_(network.parameters(), limit)
    optimizer.step()
