"""The mask model as others use it: pixels in, masks at the same size out.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from adios_tme.errors import CheckpointError
from adios_tme.files import write_whole
from adios_tme.models.images import AnyImages, Images, take_images
from adios_tme.models.layers import Normalise, check_batch, fit_to_side, unit_range
from adios_tme.models.sizes import mask_network_of, mask_network_sizes
from adios_tme.models.weights import save_weights


class MaskGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="adios_tme",
    tags=["histopathology", "adios"],
    pipeline_tag="image-segmentation",
    paper_url="https://arxiv.org/abs/2201.13100",
):
    """A mask network with its image size and normalisation.

    ``MaskGenerator.from_pretrained(FOLDER)`` loads one that ``adios-tme export --what mask`` has
    written, or one of a hub's repository; ``save_pretrained(FOLDER)`` writes such a folder. Move it
    with ``.to("cuda")``, and to another precision with ``.to(torch.bfloat16)``.

    Args:
        network: Draws masks (B, N, S, S) on normalised images of side S.
        img_size: That side in pixels.
        mean: Channel means of the normalisation, 0 to 1.
        std: Channel standard deviations, 0 to 1.

    Example:
        >>> import torch
        >>> from adios_tme import AdiosUNet, MaskGenerator
        >>> masks = MaskGenerator(AdiosUNet(32), 32, mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2))
        >>> masks(torch.rand(3, 100, 80)).shape
        torch.Size([3, 100, 80])
    """

    def __init__(
        self, network: nn.Module, img_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.img_size = img_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.normalise = Normalise(mean, std)

    @overload
    def forward(self, images: Tensor) -> Tensor: ...

    @overload
    def forward(self, images: NDArray[Any] | Image.Image) -> NDArray[Any]: ...

    @torch.no_grad()
    def forward(self, images: AnyImages) -> Tensor | NDArray[Any]:
        """Draw masks on RGB images.

        Args:
            images: One image or a batch of them: a torch tensor (3, H, W) or (B, 3, H, W), a NumPy
                array (H, W, 3) or (B, H, W, 3), or a Pillow image; uint8, or floating point from 0
                to 1, which give the same masks. Not normalised. Of any size: they are resized to
                the network's (bicubic, whatever their shape), and the masks back.

        Returns:
            Masks (N, H, W) or (B, N, H, W), float32; they add up to one over N. A tensor on the
            images' device for a tensor, else an array.

        Raises:
            ValueError: If images are none of these, of another range, or not finite.

        Example:
            >>> import numpy as np
            >>> from adios_tme import load_mask_model
            >>> drawn = load_mask_model(run)(np.zeros((2, 50, 70, 3), dtype=np.uint8))
            >>> drawn.shape, drawn.dtype
            ((2, 3, 50, 70), dtype('float32'))
        """
        if torch.compiler.is_compiling() and isinstance(images, Tensor):
            return self._draw(images)  # a batch: what traces it knows no other form
        given = self.take(images)
        return given.masks_like(self._draw(given.batch))

    def take(self, images: AnyImages) -> Images:
        """Images as the batch that masks are drawn on, and what it takes to give back their like.

        Raises:
            ValueError: If images are of another kind, shape or number format.
        """
        return take_images(images)

    def _draw(self, images_BCHW: Tensor) -> Tensor:
        """Masks on the network's device; its number format is that of its weights."""
        check_batch(images_BCHW)
        size = images_BCHW.shape[-2:]
        images = unit_range(images_BCHW)
        if images_BCHW.is_floating_point() and not torch.compiler.is_compiling():
            _check_range(images)
        images = fit_to_side(images.to(self.normalise.mean.device), self.img_size)
        weight = next(self.network.parameters(), images)
        masks: Tensor = self.network(self.normalise(images).to(weight.dtype))
        if size != masks.shape[-2:]:
            masks = F.interpolate(masks, size, mode="bilinear", antialias=True)
        return masks

    def settings(self) -> dict[str, Any]:
        """What ``config.json`` of a folder states.

        Raises:
            ValueError: If the network is none of ours.
        """
        return {
            **mask_network_sizes(self.network),
            "img_size": self.img_size,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **options: Any
    ) -> MaskGenerator:
        """Load a mask model, ready to evaluate.

        Args:
            pretrained_model_name_or_path: A folder that ``adios-tme export --what mask`` or
                ``save_pretrained`` has written, or the name of a hub's repository that holds one.
            **options: ``map_location``, the device; of a repository, too, what
                `huggingface_hub.PyTorchModelHubMixin` takes, such as ``revision`` and ``token``.

        Raises:
            CheckpointError: If it is damaged, or something else than a mask model.

        Example:
            >>> from adios_tme import MaskGenerator
            >>> masks = MaskGenerator.from_pretrained(exported)
            >>> masks.img_size, masks.training
            (32, False)
        """
        path = pretrained_model_name_or_path
        if isinstance(path, Path) and not path.is_dir():
            raise CheckpointError(
                f"{path}: does not exist. Give the folder of an export, or the name of a "
                f"repository as text."
            )
        loaded: MaskGenerator = super().from_pretrained(path, **options)
        return loaded

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and settings; each of the files is whole or as it was."""
        settings = json.dumps(self.settings(), indent=2)
        save_weights(self.network, save_directory / constants.SAFETENSORS_SINGLE_FILE)
        write_whole(save_directory / constants.CONFIG_NAME, settings + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        config: Mapping[str, Any] | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **_: Any,
    ) -> Self:
        """Build what the settings state, with the weights beside them, ready to evaluate.

        Raises:
            CheckpointError: If it is damaged, or something else than a mask model.
        """
        if Path(model_id).is_dir():
            weights_file = Path(model_id) / constants.SAFETENSORS_SINGLE_FILE
        else:
            weights_file = Path(
                hf_hub_download(
                    model_id,
                    constants.SAFETENSORS_SINGLE_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        try:
            settings = dict(config or {})
            network = mask_network_of(settings)
            network.load_state_dict(load_file(weights_file))
            generator = cls(network, settings["img_size"], settings["mean"], settings["std"])
        except OSError as error:
            raise CheckpointError(
                f"{model_id}: cannot be read ({error.strerror or error}). Export it again."
            ) from error
        except (ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{model_id}: holds no mask model that adios-tme export --what mask has written. "
                f"Export it again, or give the run it came from."
            ) from error
        return generator.to(map_location).eval()


def _check_range(images_BCHW: Tensor) -> None:
    if not images_BCHW.numel():
        return
    lowest, highest = (float(end) for end in torch.aminmax(images_BCHW))  # host sync
    if not (lowest >= 0 and highest <= 1):  # also where one is not a number
        raise ValueError(
            f"images reach from {lowest:g} to {highest:g}, expected 0 to 1 for floating point. "
            f"Divide by 255, undo a normalisation, clamp(0, 1), or give torch.uint8."
        )
