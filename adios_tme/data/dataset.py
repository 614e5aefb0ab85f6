"""Patches by row: one read at a known offset, decode, resize.

Shape legend: 3 channels, S image side in pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adios_tme.data.archive import read_member
from adios_tme.data.damage import DamagedPatchError
from adios_tme.data.decode import Pixels, decode_image, resize_image
from adios_tme.data.index import ArchiveEntry, DatasetIndex

#: Archives that a process keeps open at a time.
MAX_OPEN_ARCHIVES = 128


class OpenArchives:
    """The archives a process has open, least recently used first; not inherited across fork."""

    def __init__(self, max_open: int = MAX_OPEN_ARCHIVES) -> None:
        self.max_open = max_open
        self._handles: OrderedDict[str, int] = OrderedDict()
        self._owner = os.getpid()

    def handle(self, archive: ArchiveEntry) -> int:
        """A file descriptor of an archive that is still what was indexed.

        Raises:
            DamagedPatchError: If it is gone, cannot be opened or has changed.
        """
        if self._owner != os.getpid():
            self.close()  # a forked child closes its copies and opens its own
            self._owner = os.getpid()
        key = str(archive.path)
        if key in self._handles:
            self._handles.move_to_end(key)
            return self._handles[key]
        while len(self._handles) >= self.max_open:
            os.close(self._handles.popitem(last=False)[1])
        self._handles[key] = _open(archive)
        return self._handles[key]

    def close(self) -> None:
        """Close all of them."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __getstate__(self) -> dict[str, int]:
        return {"max_open": self.max_open}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["max_open"])  # type: ignore[misc]


def _open(archive: ArchiveEntry) -> int:
    try:
        handle = os.open(archive.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise DamagedPatchError(f"archive cannot be opened ({error.strerror})") from error
    if not archive.matches(os.fstat(handle)):
        os.close(handle)
        raise DamagedPatchError("archive has changed since it was indexed")
    return handle


class PatchDataset(Dataset[Tensor]):
    """Patches of an index as uint8 tensors.

    Args:
        index: Where they lie.
        img_size: Side to which they are resized, in pixels.
    """

    def __init__(self, index: DatasetIndex, img_size: int = 224) -> None:
        self.index = index
        self.img_size = img_size
        self._archives = OpenArchives()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Tensor:
        """Read one patch.

        Returns:
            uint8 (3, S, S).

        Raises:
            DamagedPatchError: If it cannot be read.
            IndexError: If there is no such row.
        """
        pixels = resize_image(self.read(row), self.img_size)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()

    def read(self, row: int) -> Pixels:
        """Read one patch at its own size, (H, W, 3).

        Raises:
            DamagedPatchError: If it cannot be read.
        """
        patch = self.index.patch(row)
        try:
            content = read_member(self._archives.handle(patch.archive), patch.member)
        except OSError as error:
            raise DamagedPatchError(f"archive cannot be read ({error.strerror})") from error
        return decode_image(content)

    def close(self) -> None:
        """Close the archives."""
        self._archives.close()
