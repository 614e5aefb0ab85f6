"""Batches of patches that workers decode into memory which they share with the process that asks.

No pixel is sent through a pipe; on CUDA the memory is page-locked, so that the copy to the device
runs while the step before it computes.

Shape legend: B images of this rank, H x W pixels, S image side, 3 channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.data.corrupt import CorruptPatch, CorruptPatchError, unforeseen
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import Pixels
from adios_tme.data.index import Patch
from adios_tme.data.members import printable
from adios_tme.data.resize import resize_image, resize_images
from adios_tme.data.workers import BATCHES_AHEAD, Workers, shared_memory
from adios_tme.errors import AdiosError, DataError

#: How long one patch may take, unless told otherwise.
READ_TIMEOUT_SECONDS = 300.0
#: Slots beyond those that workers fill: the batch in use, and the one that is still being copied.
SLOTS_IN_USE = 2
#: Patches that are tried to learn the size most of them have.
NUM_PROBED = 8

#: What a worker is asked for: the slot to fill, the batch's first sample, and its rows.
Planned = tuple[int, int, list[int]]
#: What a worker says of a batch: the slot that it filled, the places of images of another size,
#: rows, damage.
Filled = tuple[int, list[int], list[int], tuple[CorruptPatch, ...]]


class Replacements(Protocol):
    """What is shown in place of a patch that cannot be read."""

    def candidates(self, sample: int, planned: int) -> Iterable[int]:
        """The rows to try for a sample, the planned one first, until one can be read."""

    def none_left(self, damaged: Sequence[CorruptPatch]) -> None:
        """None of them could be read: leave the sample out, or raise."""


@dataclass(frozen=True)
class Batch:
    """Images of one rank, and what could not be read on the way.

    The pixels stand in a slot that is filled again when the batch after the next one is asked for.
    """

    images: Tensor
    """uint8 (B, H, W, 3): as they are, or resized already."""
    odd: dict[int, Tensor]
    """Places of images of another size, with those images, uint8 (S, S, 3)."""
    rows: Tensor
    """int64 (B,): the patches that are shown."""
    damaged: tuple[CorruptPatch, ...]

    def on(self, device: torch.device, img_size: int) -> Tensor:
        """The images on a device, in memory of their own.

        Returns:
            uint8 (B, 3, S, S).
        """
        images_BHWC = self.images.to(device, non_blocking=True)
        resized = resize_images(images_BHWC.permute(0, 3, 1, 2), img_size).contiguous()
        if resized.data_ptr() == self.images.data_ptr():
            resized = resized.clone()
        for place, image in self.odd.items():
            resized[place] = image.permute(2, 0, 1).to(device)
        return resized


@dataclass(frozen=True)
class Reading:
    """How patches reach the memory of the process that asks for them."""

    img_size: int
    """Side in pixels."""
    batch_size: int
    """Images per batch at most."""
    num_workers: int = 0
    """Reading processes; 0 reads in this one."""
    resize_in_worker: bool = True
    """Hand over images of img_size; else as they are, and `Batch.on` resizes."""
    pin_memory: bool = False
    """Hand over page-locked memory, for copies to a GPU."""
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS
    """How long a worker may be at one patch."""

    @property
    def num_slots(self) -> int:
        """Batches for which there is memory."""
        return self.num_workers * BATCHES_AHEAD + SLOTS_IN_USE


class SlotLoader:
    """Batches of a plan, in its order, read by workers ahead of when they are needed.

    Args:
        patches: Where they come from.
        reading: How they are read.
        plan: Batches without an end; those with no rows are read at once.
        replacements: What a sample shows whose patch cannot be read.
    """

    def __init__(
        self,
        patches: PatchDataset,
        reading: Reading,
        plan: Iterable[Planned],
        replacements: Replacements,
    ) -> None:
        side = reading.img_size
        shape = (side, side) if reading.resize_in_worker else _usual_size(patches)
        size = (reading.num_slots, reading.batch_size, *shape, 3)
        self._slots = shared_memory(size, torch.uint8)
        self._img_size = side
        self._pin_memory = reading.pin_memory
        self._plan = plan
        self._reader = _Reader(patches, replacements, self._slots)
        self._workers: Workers[Planned, Filled] | None = None
        if reading.num_workers:
            self._workers = Workers(
                self._reader.fill,
                self._reader.name_of,
                reading.num_workers,
                reading.read_timeout_seconds,
            )
        self._is_open = False

    def start(self) -> None:
        """Start the workers; best before any other thread runs.

        Raises:
            LaunchError: If the system does not allow as many.
        """
        self._is_open = True
        if self._workers:
            self._workers.start()
        if self._pin_memory:
            _register(self._slots)  # after the workers have left, who need no CUDA

    def __iter__(self) -> Iterator[Batch]:
        if not self._is_open:
            self.start()
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        filled = self._workers.answers(iter(self._plan)) if self._workers else self._fill_here()
        for slot, odd, rows, damaged in filled:
            images = {place: self._odd_image(slot, place) for place in odd}
            shown = torch.tensor(rows, dtype=torch.int64)
            yield Batch(self._slots[slot, : len(rows)], images, shown, damaged)

    def _fill_here(self) -> Iterator[Filled]:
        note = torch.zeros(2, dtype=torch.int64)
        for planned in self._plan:
            if not self._is_open:
                return
            yield self._reader.fill(planned, note)

    def _odd_image(self, slot: int, place: int) -> Tensor:
        side = self._img_size
        return self._slots[slot, place].flatten()[: side * side * 3].view(side, side, 3)

    def close(self) -> None:
        """Stop the workers."""
        if self._workers:
            self._workers.close()
        if self._is_open and self._pin_memory:
            _unregister(self._slots)
        self._is_open = False


class _Reader:
    """Reads the patches of a batch into a slot; runs in the workers."""

    def __init__(self, patches: PatchDataset, replacements: Replacements, slots: Tensor) -> None:
        self.patches = patches
        self.mix = patches.mix
        self.replacements = replacements
        self.slots = slots

    def fill(self, planned: Planned, note: Tensor) -> Filled:
        """Read a batch, and note which patch is at hand."""
        try:
            return self._fill(planned, note.numpy())
        except AdiosError:
            raise
        except Exception as error:
            raise unforeseen(error, self.name_of(int(note[1]))) from error

    def name_of(self, row: int) -> str:
        """A patch, as messages call it."""
        patch = self.mix.damage(row, "")
        return printable(f"{patch.archive}: {patch.name}")

    def _fill(self, planned: Planned, note: NDArray[np.int64]) -> Filled:
        slot, first, rows = planned
        places = self.slots[slot].numpy()
        shape = places.shape[1:]
        odd: list[int] = []
        shown: list[int] = []
        damaged: list[CorruptPatch] = []
        for number, patch in enumerate(self.mix.patches(rows)):
            found = self._read(first + number, rows[number], patch, damaged, note)
            if found is None:
                continue
            pixels, row = found
            place = len(shown)
            shown.append(row)
            if pixels.shape != shape:
                pixels = resize_image(pixels, self.patches.img_size)
            if pixels.shape == shape:
                places[place] = pixels
            else:
                places[place].reshape(-1)[: pixels.size] = pixels.reshape(-1)
                odd.append(place)
            del found, pixels  # so that the next image takes its memory while caches hold it
        return slot, odd, shown, tuple(damaged)

    def _read(
        self,
        sample: int,
        planned: int,
        patch: Patch,
        damaged: list[CorruptPatch],
        note: NDArray[np.int64],
    ) -> tuple[Pixels, int] | None:
        """The patch of a sample, or of the next candidate that can be read."""
        for row in self.replacements.candidates(sample, planned):
            if row != planned:
                patch = self.mix.patch(row)
            note[:] = note[0] + 1, row
            try:
                return self.patches.read_patch(patch, self.patches.img_size), row
            except CorruptPatchError as error:
                damaged.append(self.mix.damage(row, str(error)))
        self.replacements.none_left(damaged)
        return None


def _usual_size(patches: PatchDataset) -> tuple[int, int]:
    """Height and width that most of a few patches have; the model's where those are no smaller."""
    side, sizes = patches.img_size, []
    for row in np.linspace(0, len(patches) - 1, NUM_PROBED, dtype=int):
        try:
            height, width, _ = patches.read(int(row), side).shape
        except (CorruptPatchError, DataError):
            continue  # told when its turn comes
        sizes.append((height, width))
    patches.close()  # workers open their own, and inherit nothing
    usual = max(sizes, key=sizes.count, default=(side, side))
    return usual if usual[0] * usual[1] > side * side else (side, side)


def _register(slots: Tensor) -> None:
    """Lock the pages of the slots, so that the GPU reads them directly."""
    status = torch.cuda.cudart().cudaHostRegister(slots.data_ptr(), slots.numel(), 0)
    torch.cuda.check_error(status)


def _unregister(slots: Tensor) -> None:
    torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(slots.data_ptr()))
