"""How fast some patches of an index are read, and whether they still are what was indexed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adios_tme.config.data import PatchSelection
from adios_tme.data.corrupt import ChangedSinceIndexedError, CorruptPatchError
from adios_tme.data.index import INDEX_NAME, DatasetIndex
from adios_tme.data.index_builder import build_index
from adios_tme.data.inspection import sample
from adios_tme.data.reader import PatchReader
from adios_tme.data.sources import check_data_path, find_sources


@dataclass(frozen=True)
class ReadingSpeed:
    """Patches drawn from an index, read and decoded one after the other."""

    num_read: int
    num_changed: int
    """Not read, as their archive is gone, or is not the one that was indexed."""
    num_corrupt: int
    """Not read for other reasons."""
    num_bytes: int | None
    """Of those read, on the disk; None where there are tiles of slides, which lie in no file."""
    seconds: float

    @property
    def num_asked(self) -> int:
        """Patches that were drawn."""
        return self.num_read + self.num_changed + self.num_corrupt


def reading_speed(index: DatasetIndex, num_samples: int) -> ReadingSpeed:
    """Read some patches, the same ones each time."""
    reader, rows = PatchReader(index), sample(index, num_samples).tolist()
    read, num_changed, start = [], 0, time.perf_counter()
    for row in rows:
        try:
            reader.read(row)
            read.append(row)
        except CorruptPatchError as error:
            num_changed += _is_changed(error)
    seconds = time.perf_counter() - start
    reader.close()
    num_bytes = None if index.has_slides else int(index.columns["compressed_size"][read].sum())
    num_corrupt = len(rows) - len(read) - num_changed
    return ReadingSpeed(len(read), num_changed, num_corrupt, num_bytes, seconds)


def reading_speed_of_first(data_path: Path, num_samples: int) -> ReadingSpeed:
    """`reading_speed` of the first archive or folder of a data set that has no index yet.

    Raises:
        ConfigError: If there is no such data set.
        DataError: If there is no archive or image in it, or the first cannot be read.
    """
    check_data_path(data_path)
    first = find_sources(data_path).sources[0]
    with TemporaryDirectory(prefix="adios_tme_") as folder:
        index = build_index(first.path, PatchSelection(all=True), Path(folder, INDEX_NAME))
        return reading_speed(index, num_samples)


def _is_changed(error: CorruptPatchError) -> bool:
    is_gone = isinstance(error.__cause__, FileNotFoundError)
    return is_gone or isinstance(error, ChangedSinceIndexedError)
