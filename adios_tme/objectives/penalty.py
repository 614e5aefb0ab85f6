"""What the mask model minimises beside its part against the student: named, weighed penalties.

Shape legend: B images, N masks, C channels, H x W pixels, h x w patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from adios_tme.config.objective import LossConfig
from adios_tme.data.stain import batch_haematoxylin, optical_density
from adios_tme.models.layers import Normalise
from adios_tme.objectives.area import AreaPenalty
from adios_tme.objectives.consistency import consistency_penalty, mirrored
from adios_tme.objectives.reconstruction import reconstruction_penalty
from adios_tme.objectives.smoothness import edge_penalty
from adios_tme.objectives.sparsity import entropy_penalty
from adios_tme.objectives.stain_prior import stain_penalty
from adios_tme.optim.schedule import Schedule


class Networks(Protocol):
    """What penalties may ask of the networks, in their precision; a run answers."""

    def predict_masks(self, images_BCHW: Tensor, *, with_graph: bool) -> Tensor:
        """Masks (B, N, H, W) of normalised images."""

    def patch_features(self, images_BCHW: Tensor) -> Tensor:
        """The student's features (B, D, h, w) of the patches, without a graph."""


Term = Callable[[Networks, Tensor, Tensor], Tensor]
"""From the networks, normalised images and their masks to a scalar, averaged over the images."""
#: The one term that may end before the run does.
STAIN = "stain_penalty"


class MaskPenalty(nn.Module):
    """The penalties that the settings ask for, on areas always.

    Args:
        loss: Settings.
        normalise: What the images have been through.
    """

    def __init__(self, loss: LossConfig, normalise: Normalise) -> None:
        super().__init__()
        self._area = AreaPenalty(loss)
        self._normalise = normalise
        others: dict[str, tuple[float, Term]] = {
            "entropy_penalty": (loss.alpha_entropy, _entropy),
            "reconstruction_penalty": (loss.reconstruction_weight, _reconstruction),
            "edge_penalty": (loss.edge_weight, self._edges),
            "consistency_penalty": (loss.consistency_weight, _consistency),
            STAIN: (loss.stain_weight, self._stain),
        }
        self._terms = {name: term for name, (weight, term) in others.items() if weight > 0}
        self._weights = {self._area.name: loss.alpha_sparsity} | {
            name: weight for name, (weight, _) in others.items()
        }

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a penalty depends on the other images of the update, on every rank."""
        return self._area.needs_whole_batch

    def update_area(self, masks_of_passes: Sequence[Tensor]) -> Tensor | None:
        """Mean areas over an update in several passes; see `AreaPenalty.update_area`."""
        return self._area.update_area(masks_of_passes)

    def forward(
        self,
        networks: Networks,
        images_BCHW: Tensor,
        masks_BNHW: Tensor,
        now: Schedule,
        update_area_N: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each penalty by its name in the metrics, before it is weighed.

        Args:
            networks: The mask model, and the student frozen.
            images_BCHW: Normalised images.
            masks_BNHW: Their masks, with a graph.
            now: Settings of this step; a term that is over is left out.
            update_area_N: Mean areas over an update in several passes.
        """
        penalties = {self._area.name: self._area(masks_BNHW, update_area_N)}
        for name, term in self._terms.items():
            if name != STAIN or not now.stain_is_over:
                penalties[name] = term(networks, images_BCHW, masks_BNHW)
        return penalties

    def loss(self, contrastive: Tensor, penalties: Mapping[str, Tensor]) -> Tensor:
        """What the mask model minimises: weighed penalties - contrastive.

        Shi et al. 2022, equation 4, where the penalty on areas is the only one.

        Args:
            contrastive: The objective's losses on the masked views, summed over them.
            penalties: As `forward` gives them.
        """
        total, *others = (self._weights[name] * value for name, value in penalties.items())
        for other in others:
            total = total + other
        return total - contrastive

    def _edges(self, networks: Networks, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
        density_BHW = optical_density(self._normalise.undo(images_BCHW)).mean(dim=1)
        return edge_penalty(masks_BNHW, density_BHW)

    def _stain(self, networks: Networks, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
        haematoxylin_BHW = batch_haematoxylin(self._normalise.undo(images_BCHW))
        return stain_penalty(masks_BNHW, haematoxylin_BHW)


def _entropy(networks: Networks, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
    return entropy_penalty(masks_BNHW)


def _reconstruction(networks: Networks, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
    return reconstruction_penalty(masks_BNHW, networks.patch_features(images_BCHW))


def _consistency(networks: Networks, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
    again_BNHW = networks.predict_masks(mirrored(images_BCHW), with_graph=True)
    return consistency_penalty(masks_BNHW, again_BNHW)
