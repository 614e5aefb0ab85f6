"""Writing the dataset index, archive after archive, in memory that does not grow with it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.index_columns import ARCHIVE_COLUMNS, ENDS_OF, FORMAT, PATCH_COLUMNS
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Directory, Kind
from adios_tme.data.patch import ArchiveEntry
from adios_tme.errors import DataError
from adios_tme.files import partial_name, replacing

_CODES = {"uint64": "U64", "int64": "I64", "uint32": "U32", "uint8": "U8"}
_COPY_BYTES = 16 << 20
#: What a 32-bit column holds of a larger size; far beyond the largest member that is read.
_MOST = np.uint64(0xFFFFFFFF)


def _by_width() -> dict[str, np.dtype[np.generic]]:
    """Every column with its type, widest first, so that each begins at a multiple of its width."""
    columns = PATCH_COLUMNS | ARCHIVE_COLUMNS | dict.fromkeys(ENDS_OF, "uint8")
    types = {name: np.dtype(kind) for name, kind in columns.items()}
    return dict(sorted(types.items(), key=lambda column: -column[1].itemsize))


class IndexWriter:
    """Spools each column to a file beside the index, and joins them when all is known.

    Args:
        output: The index file; it appears, whole, at `finish`.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.num_patches = 0
        self._name_bytes = 0
        self._path_bytes = 0
        self._account_bytes = 0
        self._types = _by_width()
        self._open = ExitStack()
        self._spools: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            for name in self._types:
                # A large buffer, so that many small archives cost few writes.
                spool = self._partial(name).open("w+b", buffering=1 << 20)
                self._spools[name] = self._open.enter_context(spool)
        except OSError as error:
            self._discard()
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

    def append(
        self, path: str, entry: ArchiveEntry, members: Directory, left_out: LeftOut | None = None
    ) -> None:
        """Add an archive and its patches.

        Args:
            path: Where the archive is, relative to the root of the index or absolute.
            entry: Its size, time and kind.
            members: The patches in it.
            left_out: What else it holds.

        Raises:
            DataError: If the disk does not take them.
        """
        encoded_path = os.fsencode(path)
        account = left_out.dump().encode() if left_out else b""
        firsts = self.num_patches
        num_named = 0 if entry.kind == Kind.SLIDE else len(members)
        self.num_patches += len(members)
        self._path_bytes += len(encoded_path)
        self._account_bytes += len(account)
        columns: dict[str, NDArray[np.generic]] = {
            "offset": members.offset,
            "name_ends": members.name_ends[:num_named] + self._name_bytes,
            "compressed_size": np.minimum(members.compressed_size, _MOST),
            "size": np.minimum(members.size, _MOST),
            "crc32": members.crc32,
            "method": members.method,
            "names": members.names,
            "archive_size": np.array([entry.size]),
            "archive_mtime": np.array([entry.mtime]),
            "archive_first_row": np.array([firsts]),
            "archive_path_ends": np.array([self._path_bytes]),
            "archive_kind": np.array([entry.kind]),
            "archive_paths": np.frombuffer(encoded_path, dtype=np.uint8),
            "archive_left_out_ends": np.array([self._account_bytes]),
            "archive_left_out": np.frombuffer(account, dtype=np.uint8),
        }
        self._name_bytes += len(members.names)
        try:
            for name, column in columns.items():
                self._spools[name].write(column.astype(self._types[name], copy=False).tobytes())
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self, metadata: dict[str, str]) -> None:
        """Join the columns into the index file, flush it, and put it in its place.

        Args:
            metadata: Strings for the header, beside the format.

        Raises:
            DataError: If the disk does not take them.
        """
        try:
            with replacing(self.output) as partial, partial.open("wb") as file:
                file.write(self._header(metadata))
                for spool in self._spools.values():
                    spool.seek(0)
                    shutil.copyfileobj(spool, file, _COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _header(self, metadata: dict[str, str]) -> bytes:
        header: dict[str, object] = {"__metadata__": {"format": FORMAT} | metadata}
        at = 0
        for name, kind in self._types.items():
            num_bytes = self._spools[name].tell()
            header[name] = {
                "dtype": _CODES[kind.name],
                "shape": [num_bytes // kind.itemsize],
                "data_offsets": [at, at + num_bytes],
            }
            at += num_bytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _partial(self, name: str) -> Path:
        return partial_name(self.output, name)

    def _discard(self) -> None:
        with suppress(OSError):  # a full disk refuses once more what it has refused before
            self._open.close()
        for name in self._spools:
            self._partial(name).unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.output}: the index cannot be written ({error.strerror}). "
            f"Give --output elsewhere."
        )
