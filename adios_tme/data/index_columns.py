"""The columns of an index file: what they are, and how they are mapped and checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.members import Kind

Columns = dict[str, NDArray[np.generic]]

FORMAT = "adios_tme dataset index 2"
OLD_FORMATS = ("adios_tme dataset index 1",)

#: Columns and their types, as they stand in the file. ``*_ends`` close each name of a blob; tiles
#: of slides have no name, and no entry there.
PATCH_COLUMNS = {
    "offset": "uint64",
    "name_ends": "uint64",
    "compressed_size": "uint32",
    "size": "uint32",
    "crc32": "uint32",
    "method": "uint8",
}
ARCHIVE_COLUMNS = {
    "archive_size": "uint64",
    "archive_mtime": "int64",
    "archive_first_row": "uint64",
    "archive_path_ends": "uint64",
    "archive_kind": "uint8",
    "archive_left_out_ends": "uint64",
}
#: Blobs of strings, each with the column that closes its strings.
ENDS_OF = {
    "names": "name_ends",
    "archive_paths": "archive_path_ends",
    "archive_left_out": "archive_left_out_ends",
}
#: Indexes of earlier versions lack them.
NEW_COLUMNS = ("archive_left_out_ends", "archive_left_out")

_DTYPES = {"U64": np.uint64, "I64": np.int64, "U32": np.uint32, "U8": np.uint8}
MAX_HEADER_BYTES = 1 << 20


def _check_lengths(columns: Columns) -> None:
    """Raise ValueError if columns do not fit each other."""
    absent = set(NEW_COLUMNS) - columns.keys()
    for blob, ends in ENDS_OF.items():
        if blob in absent:
            continue
        last = int(columns[ends][-1]) if len(columns[ends]) else 0
        if last != len(columns[blob]):
            raise ValueError(f"{blob} do not fit")
    for group in (PATCH_COLUMNS.keys() - {"name_ends"}, ARCHIVE_COLUMNS):
        if len({len(columns[name]) for name in group if name not in absent}) != 1:
            raise ValueError("columns differ in length")


def tiles_without_name(columns: Columns) -> NDArray[np.int64]:
    """Of each archive, the rows that have no entry in ``name_ends``: the tiles of a slide.

    In an index of an earlier version every row has one.

    Raises:
        ValueError: If the entries do not fit the rows.
    """
    num_rows, num_entries = len(columns["offset"]), len(columns["name_ends"])
    if num_entries == num_rows:
        return np.zeros(len(columns["archive_kind"]), np.int64)
    counts = np.diff(columns["archive_first_row"].astype(np.int64), append=num_rows)
    tiles: NDArray[np.int64] = np.where(columns["archive_kind"] == Kind.SLIDE, counts, 0)
    if num_entries != num_rows - tiles.sum() or counts.min() < 0:
        raise ValueError("names do not fit the rows")
    return tiles


def map_columns(path: Path) -> tuple[Columns, dict[str, str]]:
    """Columns as views of one mapping, each checked against the file's size."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 0 < header_bytes <= MAX_HEADER_BYTES:
            raise ValueError("the header is too large")
        header = json.loads(file.read(header_bytes))
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"format {metadata['format']!r}")
    # As a plain array: every view of a memmap pays for being one, several times a patch.
    content = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))[8 + header_bytes :]
    columns: Columns = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        column = content[start:end].view(_DTYPES[entry["dtype"]])
        if not 0 <= start <= end or [len(column)] != entry["shape"]:
            raise ValueError(f"column {name} does not fit the file")
        columns[name] = column
    _check_lengths(columns)
    firsts = columns["archive_first_row"].view(np.uint64)
    if len(firsts) and (firsts[0] != 0 or (firsts[1:] < firsts[:-1]).any()):
        raise ValueError("archives are out of order")
    if len(firsts) and columns["archive_kind"].view(np.uint8).max() > max(Kind):
        raise ValueError("an archive is of an unknown kind")
    tiles_without_name(columns)
    return columns, metadata
