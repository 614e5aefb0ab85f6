"""Endless batches of patches: exact sharding, damage replaced, the same for any worker count.

Workers decode into slots of memory that they share with the training process, so that no pixel is
sent through a pipe; on CUDA the slots are page-locked, so that the copy to the device runs while
the step before it computes.

Shape legend: B images of this rank, H x W pixels, S image side, 3 channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.data.corrupt import CorruptPatch, CorruptPatchError, unforeseen
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import Pixels
from adios_tme.data.index import DatasetIndex, Patch
from adios_tme.data.members import printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.order import Rows
from adios_tme.data.resize import resize_image, resize_images
from adios_tme.data.slides.slide import OPEN_SLIDES
from adios_tme.data.workers import BATCHES_AHEAD, Workers, shared_memory
from adios_tme.errors import AdiosError, DataError

#: Damaged patches in a row after which the loader gives up.
MAX_REPLACEMENTS = 100
#: How long one patch may take, unless told otherwise.
READ_TIMEOUT_SECONDS = 300.0
#: Slots beyond those that workers fill: the batch in use, and the one that is still being copied.
SLOTS_IN_USE = 2
#: Batches whose patches are worked out together.
BATCHES_PLANNED = 64
#: Patches that are tried to learn the size most of them have.
NUM_PROBED = 8


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


class PatchLoader:
    """Batches of one rank, from a given sample on, for ever.

    Samples are counted over the whole run: each global batch of R*B samples is the next stretch of
    the shuffled epochs, and rank r takes its r-th part. So every patch comes exactly once an epoch,
    whatever the number of ranks and workers, and epochs follow each other without a gap.

    Args:
        index: The patches; one index, or several as one.
        img_size: Side in pixels.
        batch_size: Images of this rank per batch.
        rank: This rank.
        num_ranks: All ranks.
        seed: Seed of the order.
        first_sample: Samples that the run has seen before.
        num_workers: Reading processes; 0 reads in this one.
        shuffle_block: See `adios_tme.data.order.shuffled_rows`.
        resize_in_worker: Hand over images of img_size; else as they are, and `Batch.on` resizes.
        pin_memory: Hand over page-locked memory, for copies to a GPU.
        read_timeout_seconds: How long a worker may be at one patch.
        open_slides: Slides that each worker keeps open.

    Raises:
        LaunchError: While batches are taken: if a worker was killed or stopped, or takes too long.
        DataError: Then: if none of many patches can be read, or one for an unforeseen reason.
    """

    def __init__(
        self,
        index: DatasetIndex | PatchMixture,
        *,
        img_size: int,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        seed: int = 0,
        first_sample: int = 0,
        num_workers: int = 0,
        shuffle_block: int = 1,
        resize_in_worker: bool = True,
        pin_memory: bool = False,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        open_slides: int = OPEN_SLIDES,
    ) -> None:
        mix = index if isinstance(index, PatchMixture) else PatchMixture([index])
        patches = PatchDataset(mix, img_size, open_slides)
        order = _Order(mix, seed, shuffle_block)
        shape = (img_size, img_size) if resize_in_worker else _usual_size(patches)
        num_slots = num_workers * BATCHES_AHEAD + SLOTS_IN_USE
        self._slots = shared_memory((num_slots, batch_size, *shape, 3), torch.uint8)
        self._img_size = img_size
        self._pin_memory = pin_memory
        self._plan = _Plan(order, batch_size, rank, num_ranks, first_sample, num_slots)
        self._reader = _Reader(patches, order, self._slots)
        self._workers: Workers[Planned, Filled] | None = None
        if num_workers:
            self._workers = Workers(
                self._reader.fill, self._reader.name_of, num_workers, read_timeout_seconds
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
            yield Batch(self._slots[slot], images, torch.tensor(rows), damaged)

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


@dataclass(frozen=True)
class _Order:
    """Which patch each sample of the run is."""

    mix: PatchMixture
    seed: int
    shuffle_block: int

    def rows(self, samples: NDArray[np.integer]) -> Rows:
        return self.mix.rows(samples, self.seed, self.shuffle_block)


#: What a worker is asked for: the slot to fill, the batch's first sample, and its rows.
Planned = tuple[int, int, list[int]]
#: What a worker says of a batch: the slot that it filled, the places of images of another size,
#: rows, damage.
Filled = tuple[int, list[int], list[int], tuple[CorruptPatch, ...]]


class _Plan:
    """This rank's batches, worked out by the training process, many at a time."""

    def __init__(
        self,
        order: _Order,
        batch_size: int,
        rank: int,
        num_ranks: int,
        first_sample: int,
        num_slots: int,
    ) -> None:
        self.order = order
        self.start = first_sample + rank * batch_size
        self.stride = num_ranks * batch_size
        self.batch = np.arange(batch_size)
        self.num_slots = num_slots

    def __iter__(self) -> Iterator[Planned]:
        for begin in itertools.count(0, BATCHES_PLANNED):
            numbers = np.arange(begin, begin + BATCHES_PLANNED)
            firsts = self.start + numbers * self.stride
            rows = self.order.rows(firsts[:, np.newaxis] + self.batch)
            slots = numbers % self.num_slots
            yield from zip(slots.tolist(), firsts.tolist(), rows.tolist(), strict=True)


class _Reader:
    """Reads the patches of a batch into a slot; runs in the workers."""

    def __init__(self, patches: PatchDataset, order: _Order, slots: Tensor) -> None:
        self.patches = patches
        self.mix = patches.mix
        self.order = order
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
        for place, patch in enumerate(self.mix.patches(rows)):
            pixels, row = self._read(first + place, rows[place], patch, damaged, note)
            shown.append(row)
            if pixels.shape != shape:
                pixels = resize_image(pixels, self.patches.img_size)
            if pixels.shape == shape:
                places[place] = pixels
            else:
                places[place].reshape(-1)[: pixels.size] = pixels.reshape(-1)
                odd.append(place)
            del pixels  # so that the next image takes its memory while caches hold it
        return slot, odd, shown, tuple(damaged)

    def _read(
        self,
        sample: int,
        row: int,
        patch: Patch,
        damaged: list[CorruptPatch],
        note: NDArray[np.int64],
    ) -> tuple[Pixels, int]:
        """The patch of a sample, or of the next one in the order that can be read."""
        for step in range(MAX_REPLACEMENTS):
            if step:
                (row,) = self.order.rows(np.array([sample + step])).tolist()
                patch = self.mix.patch(row)
            note[:] = note[0] + 1, row
            try:
                return self.patches.read_patch(patch, self.patches.img_size), row
            except CorruptPatchError as error:
                damaged.append(self.mix.damage(row, str(error)))
        last = damaged[-1]
        raise DataError(
            f"{last.archive}: {MAX_REPLACEMENTS} patches in a row could not be read "
            f"(last: {printable(last.name)}, {last.reason}). "
            f"Run adios-tme index again if archives have changed."
        )


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
