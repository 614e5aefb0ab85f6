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
from adios_tme.models.mask_models.windows import is_large, masks_by_windows
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
    def forward(
        self, images: Tensor, *, scale: float = ..., windows: bool | None = ...
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        images: NDArray[Any] | Image.Image,
        *,
        scale: float = ...,
        windows: bool | None = ...,
    ) -> NDArray[Any]: ...

    @torch.no_grad()
    def forward(
        self, images: AnyImages, *, scale: float = 1.0, windows: bool | None = None
    ) -> Tensor | NDArray[Any]:
        """Draw masks on RGB images of any size.

        An image up to twice as large as the model's own (`img_size`) is resized to it, whatever its
        shape (bicubic), and its masks back. A larger one is seen through overlapping windows of the
        model's size, whose masks are blended: one pixel of the image is one pixel as the model saw
        it in training, unless ``scale`` says otherwise. In memory are the image, its masks and a
        few windows.

        Args:
            images: One image or a batch of them: a torch tensor (3, H, W) or (B, 3, H, W), a NumPy
                array (H, W, 3) or (B, H, W, 3), or a Pillow image; uint8, or floating point from 0
                to 1, which give the same masks. Not normalised.
            scale: Microns per pixel of the images divided by those that the model was trained at;
                images are resized by it and then seen through windows. A model of 224 px that was
                trained on patches of 448 px sees half of their resolution: images as fine as its
                patches take 0.5.
            windows: Whether to look through windows; absent: by the rule above.

        Returns:
            Masks (N, H, W) or (B, N, H, W), float32; they add up to one over N. A tensor on the
            images' device for a tensor, else an array.

        Raises:
            ValueError: If images are none of these, of another range, or not finite; or a scale is
                not above zero, or would be ignored.

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
        given.check_range()
        if self._needs_windows(given, scale, windows):
            device = self.normalise.mean.device
            each = [
                masks_by_windows(self._draw, image[None].to(device), self.img_size, scale)
                for image in given.batch
            ]
            return given.results_like(torch.cat(each))
        return given.results_like(self._draw(given.batch))

    def _needs_windows(self, given: Images, scale: float, windows: bool | None) -> bool:
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale={scale}, expected a number above 0.")
        if scale != 1 and windows is False:
            raise ValueError(
                f"scale={scale} would be ignored with windows=False, which shows the model the "
                f"whole image at its own size. Drop one of the two."
            )
        height, width = given.batch.shape[-2:]
        large = scale != 1 or is_large(height, width, self.img_size)
        return len(given.batch) > 0 and (large if windows is None else windows)

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
