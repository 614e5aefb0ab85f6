"""Patches by row as tensors of the size that a model takes.

Shape legend: 3 channels, S image side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adios_tme.data.index import DatasetIndex
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.reader import PatchReader
from adios_tme.data.resize import resize_image
from adios_tme.data.slides.slide import OPEN_SLIDES


class PatchDataset(PatchReader, Dataset[Tensor]):
    """Patches of an index as uint8 tensors.

    Args:
        index: Where they lie; one index, or several as one.
        img_size: Side to which they are resized, in pixels.
        open_slides: Slides that are kept open.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from adios_tme import DatasetIndex, PatchDataset
        >>> dataset = PatchDataset(DatasetIndex.open(patches), img_size=24)
        >>> batch = next(iter(DataLoader(dataset, batch_size=4)))
        >>> batch.shape, batch.dtype
        (torch.Size([4, 3, 24, 24]), torch.uint8)
    """

    def __init__(
        self,
        index: DatasetIndex | PatchMixture,
        img_size: int = 224,
        open_slides: int = OPEN_SLIDES,
    ) -> None:
        super().__init__(index, open_slides)
        self.img_size = img_size

    def __getitem__(self, row: int) -> Tensor:
        """Read one patch.

        Returns:
            uint8 (3, S, S).

        Raises:
            CorruptPatchError: If it cannot be read.
            IndexError: If there is no such row.

        Example:
            >>> from adios_tme import DatasetIndex, PatchDataset
            >>> PatchDataset(DatasetIndex.open(patches), img_size=24)[0].shape
            torch.Size([3, 24, 24])
        """
        pixels = resize_image(self.read(row, self.img_size), self.img_size)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
