"""The dataset index: where every patch lies, in one memory-mapped file.

A safetensors file whose columns are used in place, at the offsets of its header: opening reads the
header alone, whatever the number of patches, and all processes of a machine share the pages. A
patch costs 29 bytes and its name; a tile of a slide costs 21, and its name is worked out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling
from adios_tme.data.index_columns import (
    ENDS_OF,
    MAX_HEADER_BYTES,
    NEW_COLUMNS,
    OLD_FORMATS,
    Columns,
    map_columns,
    tiles_without_name,
)
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, Member, kinds_in_words, text
from adios_tme.data.names import names_state_slides, slide_of
from adios_tme.data.patch import ArchiveEntry as ArchiveEntry  # where readers of an index look
from adios_tme.data.patch import Patch as Patch
from adios_tme.data.patch import with_tile_name
from adios_tme.errors import DataError

INDEX_NAME = "dataset_index.safetensors"
_SEPARATORS = frozenset(b"/\\")


class DatasetIndex:
    """An opened index; rows are patches, archive after archive.

    Args:
        path: The index file.
        columns: The mapped columns.
        metadata: Strings of the header: format, root of the archives, rule of selection.

    Example:
        >>> from adios_tme import DatasetIndex
        >>> index = DatasetIndex.open(patches)
        >>> len(index), index.num_archives, index.num_slides()
        (8, 2, 2)
    """

    def __init__(self, path: Path, columns: Columns, metadata: dict[str, str]) -> None:
        self.path = path
        self.columns = columns
        self.selection = PatchSelection.model_validate_json(metadata["selection"])
        self.tiling = SlideTiling.model_validate_json(metadata.get("tiling", "{}"))
        self.tiling_digest = metadata.get("tiling_digest", "")
        self.listing_digest = metadata.get("listing_digest", "")
        self.root = (path.parent / metadata["root"]).resolve()

    @classmethod
    def open(cls, path: str | Path) -> DatasetIndex:
        """Map an index file, or the one inside a folder.

        Raises:
            DataError: If there is none, or it is damaged or of another kind.

        Example:
            >>> from adios_tme import DatasetIndex
            >>> DatasetIndex.open(patches).path.name
            'dataset_index.safetensors'
        """
        path = Path(path)
        path = path / INDEX_NAME if path.is_dir() else path
        try:
            with _reading(path):
                return cls(path, *map_columns(path))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path) from error

    def __len__(self) -> int:
        return len(self.columns["offset"])

    @property
    def num_archives(self) -> int:
        """Archives that hold patches or were found to hold none."""
        return len(self.columns["archive_size"])

    @property
    def num_bytes(self) -> int:
        """Size of the index file."""
        return self.path.stat().st_size

    @property
    def sources(self) -> str:
        """How many archives, folders and slides it has, in words."""
        return kinds_in_words(self.columns["archive_kind"].tolist())

    def content_digest(self) -> str:
        """SHA-256 of what the archives are, wherever the root lies and whenever they were copied.

        Their paths, sizes and patches' counts; a look at every patch would read the whole file.
        """
        # What a file system says of a folder's size has nothing to do with what lies in it.
        is_file = self.columns["archive_kind"] != Kind.FOLDER
        sizes = np.where(is_file, self.columns["archive_size"], 0)
        digest = hashlib.sha256(f"{len(self)} {len(self.columns['names'])} ".encode())
        for name in ("archive_paths", "archive_path_ends", "archive_first_row"):
            digest.update(self.columns[name].tobytes())
        digest.update(sizes.tobytes())
        if self.has_slides:  # whose tiles have no names that would tell them from others
            digest.update(self.tiling_digest.encode())
        return digest.hexdigest()

    @cached_property
    def has_slides(self) -> bool:
        """Whether some of its patches are tiles of whole slides."""
        return bool((self.columns["archive_kind"] == Kind.SLIDE).any())

    def archive(self, number: int) -> ArchiveEntry:
        """One archive.

        Example:
            >>> from adios_tme import DatasetIndex
            >>> DatasetIndex.open(patches).archive(1).path.name
            'slide_001.zip'
        """
        return self._archives(np.array([number]))[0]

    def archive_path(self, number: int) -> str:
        """Path of one archive as the index has it: relative to the root, or absolute."""
        return self._texts("archive_paths", np.array([number]))[0]

    def archive_rows(self, number: int) -> slice:
        """Rows of one archive's patches."""
        firsts = self.columns["archive_first_row"]
        last = number + 1 == self.num_archives
        return slice(int(firsts[number]), len(self) if last else int(firsts[number + 1]))

    def patch(self, row: int) -> Patch:
        """One patch; see `patches`.

        Example:
            >>> from adios_tme import DatasetIndex
            >>> patch = DatasetIndex.open(patches).patch(5)
            >>> patch.slide, patch.member.name, patch.coordinates
            ('slide_001', 'patch_001_448_x448_y0.png', (448, 0))
        """
        return self.patches([row])[0]

    def patches(self, rows: Sequence[int] | NDArray[np.integer]) -> list[Patch]:
        """Some patches, looked up together, which takes a fraction of the time of one by one.

        Raises:
            IndexError: If there is no such row.

        Example:
            >>> from adios_tme import DatasetIndex
            >>> [(patch.name, patch.x) for patch in DatasetIndex.open(patches).patches([0, 5])]
            [('patch_000_448_x0_y0.png', 0), ('patch_001_448_x448_y0.png', 448)]
        """
        places = np.asarray(rows, dtype=np.int64)
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            raise IndexError(f"row {places[outside][0]} of an index with {len(self)} patches")
        firsts = self.columns["archive_first_row"]
        numbers = np.searchsorted(firsts, places.astype(np.uint64), side="right") - 1
        names = self._stored_names(places, numbers)
        fields = [self.columns[name][places].tolist() for name in Member._fields[1:]]
        members = map(Member, names, *fields)
        archives = self._archives(numbers)
        if self.has_slides:
            members = map(partial(with_tile_name, mpp=self.tiling.mpp or 0), archives, members)
        return list(map(Patch, archives, members))

    @cached_property
    def _tiles_before(self) -> NDArray[np.int64]:
        """Rows before each archive that have no entry among the names."""
        tiles = tiles_without_name(self.columns)
        return tiles.cumsum() - tiles

    def _stored_names(self, places: NDArray[np.int64], numbers: NDArray[np.int64]) -> list[str]:
        """Names of some rows of given archives; tiles have none."""
        if not self.has_slides:
            return self._texts("names", places)
        is_named = self.columns["archive_kind"][numbers] != Kind.SLIDE
        entries = (places - self._tiles_before[numbers])[is_named]
        stored = iter(self._texts("names", entries))
        return [next(stored) if named else "" for named in is_named.tolist()]

    def names(self, rows: NDArray[np.integer]) -> list[str]:
        """Names of the files of some patches, by rows that exist."""
        if self.has_slides:
            return [patch.member.name for patch in self.patches(rows)]
        return self._texts("names", rows)

    def patches_per_slide(self) -> Counter[str]:
        """Number of patches of each slide (reads every name)."""
        counts: Counter[str] = Counter()
        pattern = self.selection.name_pattern
        for number in range(self.num_archives):
            rows = self.archive_rows(number)
            if rows.start == rows.stop:
                continue
            archive = self.archive(number)
            place = archive.slide
            if archive.kind == Kind.SLIDE:
                counts[place] += rows.stop - rows.start
                continue
            # The names of an archive are of one kind, so that three of them stand for all.
            some = self.names(np.array([rows.start, (rows.start + rows.stop) // 2, rows.stop - 1]))
            if names_state_slides(some, pattern):
                names = self.names(np.arange(rows.start, rows.stop))
                counts.update(slide_of(place, name, pattern) for name in names)
                continue
            for folder, count in self._folders(number).items():
                counts[slide_of(place, f"{folder}/", pattern)] += count
        return counts

    def has_folders(self, number: int) -> bool:
        """Whether some patches of an archive lie in folders of it."""
        return bool(_SEPARATORS & set(self.archive_names(number)[0].tobytes()))

    def _folders(self, number: int) -> Counter[str]:
        """How many patches of an archive lie in which of its folders."""
        rows = self.archive_rows(number)
        if not self.has_folders(number):
            return Counter({"": rows.stop - rows.start})
        names = self.names(np.arange(rows.start, rows.stop))
        return Counter(name.replace("\\", "/").rpartition("/")[0] for name in names)

    def num_slides(self) -> int:
        """Number of different slides (reads every name)."""
        return len(self.patches_per_slide())

    @property
    def tells_left_out(self) -> bool:
        """Whether it knows what its archives hold beside patches, unlike that of an old version."""
        return all(name in self.columns for name in NEW_COLUMNS)

    def archive_left_out(self, number: int) -> LeftOut:
        """What one archive holds beside its patches.

        Raises:
            DataError: If the index is damaged.
        """
        if not self.tells_left_out:
            return LeftOut()
        try:
            (account,) = self._texts("archive_left_out", np.array([number]))
            return LeftOut.parse(account)
        except (ValueError, RecursionError) as error:
            raise _damaged(self.path) from error

    def left_out(self) -> LeftOut:
        """What the archives hold beside patches.

        Raises:
            DataError: If the index is damaged.
        """
        total = LeftOut()
        if self.tells_left_out:
            ends = self.columns["archive_left_out_ends"]
            for number in np.flatnonzero(np.diff(ends, prepend=np.uint64(0))).tolist():
                place = self.archive_path(number)
                is_place = place != "." and self.columns["archive_kind"][number] != Kind.SLIDE
                total.merge(self.archive_left_out(number), place if is_place else "")
        return total

    def location(self, archive: ArchiveEntry) -> str:
        """An archive's path as it is told to people: relative to the root where it is below it."""
        below = archive.path.is_relative_to(self.root)
        return (archive.path.relative_to(self.root) if below else archive.path).as_posix()

    def archive_names(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The names of an archive's patches, one after the other, and where each ends.

        Those of a slide's tiles are empty.
        """
        rows = self.archive_rows(number)
        if self.columns["archive_kind"][number] == Kind.SLIDE:
            return np.empty(0, np.uint8), np.zeros(rows.stop - rows.start, np.int64)
        before = int(self._tiles_before[number])
        start, stop = rows.start - before, rows.stop - before
        ends = self.columns["name_ends"][max(0, start - 1) : stop].astype(np.int64)
        begin = int(ends[0]) if start and len(ends) else 0
        ends = ends[1:] if start else ends
        content = self.columns["names"][begin : int(ends[-1]) if len(ends) else begin]
        return content.view(np.uint8), ends - begin

    def _archives(self, numbers: NDArray[np.int64]) -> list[ArchiveEntry]:
        root = str(self.root)
        paths = self._texts("archive_paths", numbers)
        sizes, mtimes, kinds = (
            self.columns[name][numbers].tolist()
            for name in ("archive_size", "archive_mtime", "archive_kind")
        )
        return [
            ArchiveEntry(
                path if path.startswith("/") else f"{root}/{path}",
                size,
                mtime,
                Kind(kind),
                root,
                self.selection.name_pattern,
            )
            for path, size, mtime, kind in zip(paths, sizes, mtimes, kinds, strict=True)
        ]

    def _texts(self, blob: str, numbers: NDArray[np.integer]) -> list[str]:
        """Strings of a blob, by their numbers."""
        stops = self.columns[ENDS_OF[blob]]
        starts = np.where(numbers > 0, stops[numbers - 1], 0)
        content = self.columns[blob].data
        return [
            text(content[start:stop])
            for start, stop in zip(starts.tolist(), stops[numbers].tolist(), strict=True)
        ]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = (
            "Run adios-tme index first."
            if isinstance(error, FileNotFoundError)
            else "Allow it to be read, or remove it and run adios-tme index."
        )
        raise DataError(f"{path}: the index cannot be read ({error.strerror}). {advice}") from error


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: is damaged or not an index. Remove it and run adios-tme index.")


def has_old_format(path: Path) -> bool:
    """Whether an index was written by an older version, in another format.

    Raises:
        DataError: If it cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    return any(f'"{old}"'.encode() in start for old in OLD_FORMATS)
