"""Patches by row as pixels: one read at a known offset, then decoding."""

from __future__ import annotations

import os
import stat

from adios_tme.data.corrupt import ChangedSinceIndexedError, CorruptPatchError, unforeseen
from adios_tme.data.decode import Pixels, decode_image
from adios_tme.data.index import ArchiveEntry, DatasetIndex, Patch
from adios_tme.data.members import OPEN_FLAGS, Kind, printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.open_files import NO_HANDLES_LEFT, OpenFiles
from adios_tme.data.slides.slide import OPEN_SLIDES, OpenSlides
from adios_tme.data.slides.tiles import tile_of
from adios_tme.data.sources import READERS
from adios_tme.errors import AdiosError

#: Archives that a process keeps open at a time.
MAX_OPEN_ARCHIVES = 128


class OpenArchives(OpenFiles[int]):
    """The archives that a process has open, by their file descriptors."""

    def __init__(self, max_open: int = MAX_OPEN_ARCHIVES) -> None:
        super().__init__(max_open)

    def read(self, patch: Patch) -> bytes:
        """The file of a patch, checked as far as its archive allows.

        Raises:
            CorruptPatchError: If it cannot be read.
        """
        try:
            try:
                return self._read(patch)
            except OSError as error:
                if error.errno not in NO_HANDLES_LEFT or not self._handles:
                    raise
                self.close()  # others took the file descriptors; give back ours and try again
                return self._read(patch)
        except OSError as error:
            raise CorruptPatchError(f"cannot be opened or read ({error.strerror})") from error
        except (ValueError, OverflowError) as error:  # a path or a place that no file can have
            raise CorruptPatchError(f"index is damaged ({error})") from error

    def _read(self, patch: Patch) -> bytes:
        return READERS[patch.archive.kind](self.handle(patch.archive), patch.member)

    def _open(self, archive: ArchiveEntry) -> int:
        """Open an archive that is still what was indexed.

        Raises:
            CorruptPatchError: If it has changed.
            OSError: If it is gone or cannot be opened.
        """
        handle = os.open(archive.full_path, OPEN_FLAGS)
        found = os.fstat(handle)
        if archive.kind == Kind.FOLDER:
            # A folder changes with every file in it; each file is held against the index by itself.
            unchanged = stat.S_ISDIR(found.st_mode)
        else:
            unchanged = stat.S_ISREG(found.st_mode) and archive.matches(found)
        if not unchanged:
            os.close(handle)
            raise ChangedSinceIndexedError("archive has changed since it was indexed")
        return handle

    def _close(self, handle: int) -> None:
        os.close(handle)


class OpenSources:
    """The archives, folders and slides that a process has open.

    Args:
        open_slides: Slides that are kept open.
    """

    def __init__(self, open_slides: int = OPEN_SLIDES) -> None:
        self._archives = OpenArchives()
        self._slides = OpenSlides(open_slides)

    def read_patch(self, patch: Patch, needed_px: int | None = None) -> Pixels:
        """Read a patch at its own size, (H, W, 3).

        Args:
            patch: As an index has looked it up.
            needed_px: See `adios_tme.data.decode.decode_image`.

        Raises:
            CorruptPatchError: If it cannot be read.
            DataError: If that is for a reason which no reader foresees.
        """
        try:
            if patch.archive.kind == Kind.SLIDE:
                return self._slides.read(patch.archive, tile_of(patch.member))
            return decode_image(self._archives.read(patch), needed_px)
        except (CorruptPatchError, AdiosError):
            raise
        except Exception as error:
            name = printable(f"{patch.archive.full_path}: {patch.member.name}")
            raise unforeseen(error, name) from error

    def close(self) -> None:
        """Close archives and slides."""
        self._archives.close()
        self._slides.close()


class PatchReader(OpenSources):
    """Patches of an index, read by row.

    Args:
        index: Where they lie; one index, or several as one.
        open_slides: Slides that are kept open.
    """

    def __init__(self, index: DatasetIndex | PatchMixture, open_slides: int = OPEN_SLIDES) -> None:
        super().__init__(open_slides)
        self.mix = index if isinstance(index, PatchMixture) else PatchMixture([index])

    def __len__(self) -> int:
        return len(self.mix)

    def patch(self, row: int) -> Patch:
        """What the index says of one patch: its name, slide, x and y.

        Raises:
            IndexError: If there is no such row.

        Example:
            >>> from adios_tme import DatasetIndex, PatchDataset
            >>> patch = PatchDataset(DatasetIndex.open(patches)).patch(5)
            >>> patch.slide, patch.x, patch.y
            ('slide_001', 448, 0)
        """
        return self.mix.patch(row)

    def read(self, row: int, needed_px: int | None = None) -> Pixels:
        """Read one patch at its own size, (H, W, 3).

        Args:
            row: Of the index.
            needed_px: See `adios_tme.data.decode.decode_image`.

        Raises:
            CorruptPatchError: If it cannot be read.

        Example:
            >>> from adios_tme import DatasetIndex, PatchDataset
            >>> pixels = PatchDataset(DatasetIndex.open(patches)).read(0)
            >>> pixels.shape, pixels.dtype
            ((32, 32, 3), dtype('uint8'))
        """
        return self.read_patch(self.mix.patch(row), needed_px)

    def content(self, row: int) -> bytes:
        """The file of one patch, which a tile of a slide does not have.

        Raises:
            CorruptPatchError: If it cannot be read.
        """
        return self._archives.read(self.mix.patch(row))
