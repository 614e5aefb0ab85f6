"""Building the dataset index: central directories alone, in parallel, changed archives only."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from adios_tme.config.data import DataConfig, PatchSelection, cores_at_hand
from adios_tme.data.archive import Directory, read_directory
from adios_tme.data.index import (
    ARCHIVE_COLUMNS,
    FORMAT,
    INDEX_NAME,
    PATCH_COLUMNS,
    DatasetIndex,
)
from adios_tme.data.selection import describe, select_patches
from adios_tme.errors import ConfigError, DataError

PICKLE_NAME = "dataset_index.pkl"
#: Archives under which starting processes costs more than it saves.
FEWEST_FOR_PROCESSES = 64
NUM_NAMES_SHOWN = 3

Progress = Callable[[int, int], None]


@dataclass
class Scan:
    """What one archive holds, or why it cannot be read."""

    path: Path
    size: int
    mtime: int
    directory: Directory
    names_seen: list[str] = field(default_factory=list)
    fault: str | None = None


@dataclass(frozen=True)
class BuildReport:
    """What building the index found."""

    index: DatasetIndex
    num_scanned: int
    faults: list[str]
    """One message for each archive that was left out."""


def build_index(
    data_path: Path,
    selection: PatchSelection | None = None,
    output: Path | None = None,
    *,
    rebuild: bool = False,
) -> DatasetIndex:
    """Index a folder of zip archives, or bring its index up to date; see `index_archives`."""
    return index_archives(Path(data_path), selection, output, rebuild=rebuild).index


def index_archives(
    data_path: Path,
    selection: PatchSelection | None = None,
    output: Path | None = None,
    *,
    rebuild: bool = False,
    num_workers: int | None = None,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Index a folder of zip archives; only archives that changed are read again.

    Args:
        data_path: Folder, searched with its subfolders.
        selection: Which members count; default: names with ``_448_``.
        output: The index file; default: inside ``data_path``.
        rebuild: Read every archive.
        num_workers: Processes; default: the cores at hand.
        on_progress: Called with the archives done and their number.

    Raises:
        ConfigError: If the folder is missing.
        DataError: If no archive can be read or none holds a patch.
    """
    selection = selection or PatchSelection()
    output = output or data_path / INDEX_NAME
    archives = find_archives(data_path)
    old = None if rebuild else _reusable(output, selection)
    kept = _unchanged(old, archives) if old else {}
    to_scan = [path for path in archives if path not in kept]
    if old and not to_scan and len(kept) == old.num_archives:
        return BuildReport(old, 0, [])
    scans: dict[Path, Scan] = {}
    for scan in _scan_all(to_scan, selection, num_workers or cores_at_hand()):
        scans[scan.path] = scan
        if on_progress:
            on_progress(len(kept) + len(scans), len(archives))
    kept_scans = {path: _rescan(old, number) for path, number in kept.items() if old}
    found = kept_scans | scans
    parts = [found[path] for path in archives]
    faults = [scan.fault for scan in scans.values() if scan.fault]
    usable = [scan for scan in parts if not scan.fault]
    if not any(len(scan.directory) for scan in usable):
        raise _nothing_found(data_path, selection, parts, faults)
    _write(output, data_path, selection, usable)
    return BuildReport(DatasetIndex.open(output), len(to_scan), faults)


def open_or_build(
    data: DataConfig, fallback_dir: Path, on_progress: Progress | None = None
) -> BuildReport:
    """The index of a run's patches, built or brought up to date where needed.

    Args:
        data: Says where the patches are and which count.
        fallback_dir: Where the index goes when ``data_path`` cannot be written.
        on_progress: See `index_archives`.

    Raises:
        ConfigError: If the folder is missing.
        DataError: If no archive can be read or none holds a patch.
    """
    assert data.data_path is not None
    output = index_path(data.data_path, fallback_dir)
    return index_archives(data.data_path, data.patches, output, on_progress=on_progress)


def index_path(data_path: Path, fallback_dir: Path) -> Path:
    """Where the index of a folder is, or would go."""
    writable = os.access(data_path, os.W_OK) or not data_path.exists()
    return (data_path if writable else fallback_dir) / INDEX_NAME


def find_archives(data_path: Path) -> list[Path]:
    """Zip files below a folder, sorted.

    Raises:
        ConfigError: If the folder is missing.
        DataError: If it holds none.
    """
    if not data_path.is_dir():
        what = "is not a folder" if data_path.exists() else "does not exist"
        raise ConfigError(f"data_path: {data_path} {what}. Give a folder of zip archives.")
    archives = sorted(path for path in data_path.rglob("*.zip") if path.is_file())
    if not archives:
        raise DataError(
            f"{data_path}: holds no zip archive. Patches are read from .zip files in this folder "
            f"or below it."
        )
    return archives


def write_pickle(index: DatasetIndex, path: Path) -> None:
    """Write the list of ``(zip_path, [names])`` that older trainers read."""
    listing = []
    for number in range(index.num_archives):
        rows = index.archive_rows(number)
        names = [index.patch(row).member.name for row in range(rows.start, rows.stop)]
        listing.append((str(index.archive(number).path), names))
    with path.open("wb") as file:
        pickle.dump(listing, file)


def _reusable(output: Path, selection: PatchSelection) -> DatasetIndex | None:
    """An index that is already there and was made by the same rule."""
    if not output.exists():
        return None
    index = DatasetIndex.open(output)
    return index if index.selection == selection else None


def _unchanged(index: DatasetIndex, archives: list[Path]) -> dict[Path, int]:
    """Archives whose size and time are still as indexed, with their numbers there."""
    wanted = {path.resolve(): path for path in archives}
    kept = {}
    for number in range(index.num_archives):
        entry = index.archive(number)
        path = wanted.get(entry.path)
        if path is not None and entry.matches(path.stat()):
            kept[path] = number
    return kept


def _rescan(index: DatasetIndex, number: int) -> Scan:
    """What scanning an unchanged archive would find, from the index."""
    entry = index.archive(number)
    return Scan(index.root / entry.path, entry.size, entry.mtime, _directory_of(index, number))


def _directory_of(index: DatasetIndex, number: int) -> Directory:
    rows = index.archive_rows(number)
    column = {name: index.columns[name][rows] for name in PATCH_COLUMNS}
    start = int(index.columns["name_ends"][rows.start - 1]) if rows.start else 0
    ends = column["name_ends"].astype(np.int64)
    return Directory(
        names=index.columns["names"][start : int(ends[-1]) if len(ends) else start].view(np.uint8),
        name_ends=ends - start,
        offset=column["offset"].astype(np.uint64),
        compressed_size=column["compressed_size"].astype(np.uint64),
        size=column["size"].astype(np.uint64),
        crc32=column["crc32"].astype(np.uint32),
        method=column["method"].astype(np.uint8),
    )


def _scan_all(paths: list[Path], selection: PatchSelection, num_workers: int) -> Iterator[Scan]:
    scan = partial(_scan, selection=selection)
    if num_workers < 2 or len(paths) < FEWEST_FOR_PROCESSES:
        yield from map(scan, paths)
        return
    # Forked workers start at once; they only parse, and touch neither torch nor its threads.
    context = get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(scan, paths, chunksize=8)


def _scan(path: Path, selection: PatchSelection) -> Scan:
    try:
        stat = path.stat()
        members = read_directory(path)
    except OSError as error:
        return Scan(path, 0, 0, _EMPTY, fault=f"{path}: cannot be read ({error.strerror}).")
    except DataError as error:
        return Scan(path, 0, 0, _EMPTY, fault=str(error))
    patches = members.select(select_patches(members, selection))
    seen = [members.name(row) for row in range(min(NUM_NAMES_SHOWN, len(members)))]
    return Scan(path, stat.st_size, stat.st_mtime_ns, patches, seen)


_EMPTY = Directory(
    names=np.empty(0, np.uint8),
    name_ends=np.empty(0, np.int64),
    offset=np.empty(0, np.uint64),
    compressed_size=np.empty(0, np.uint64),
    size=np.empty(0, np.uint64),
    crc32=np.empty(0, np.uint32),
    method=np.empty(0, np.uint8),
)


def _nothing_found(
    data_path: Path, selection: PatchSelection, scans: list[Scan], faults: list[str]
) -> DataError:
    if len(faults) == len(scans):
        return DataError(f"{data_path}: no archive can be read. {faults[0]}")
    seen = [name for scan in scans for name in scan.names_seen][:NUM_NAMES_SHOWN]
    return DataError(
        f"{data_path}: no patch among {len(scans)} archives. Asked for {describe(selection)}; "
        f"names there are like {', '.join(seen) or 'none at all'}. "
        f"Change --patch-size-px, give a --pattern, or take --all images."
    )


def _write(output: Path, data_path: Path, selection: PatchSelection, scans: list[Scan]) -> None:
    """Write the columns beside the index, flush them, and put them in its place."""
    sizes = [len(scan.directory) for scan in scans]
    relative = [scan.path.relative_to(data_path).as_posix().encode() for scan in scans]
    name_lengths = [np.diff(scan.directory.name_ends, prepend=0) for scan in scans]
    columns: dict[str, NDArray[np.generic]] = {
        name: np.concatenate([getattr(scan.directory, name) for scan in scans])
        for name in ("offset", "compressed_size", "size", "crc32", "method", "names")
    }
    columns |= {
        "name_ends": np.cumsum(np.concatenate(name_lengths)),
        "archive_size": np.array([scan.size for scan in scans]),
        "archive_mtime": np.array([scan.mtime for scan in scans]),
        "archive_first_row": np.cumsum([0, *sizes[:-1]]),
        "archive_path_ends": np.cumsum([len(path) for path in relative]),
        "archive_paths": np.frombuffer(b"".join(relative), dtype=np.uint8),
    }
    for name, dtype in (PATCH_COLUMNS | ARCHIVE_COLUMNS).items():
        columns[name] = columns[name].astype(dtype)
    inside = output.parent.resolve() == data_path.resolve()
    metadata = {
        "format": FORMAT,
        "root": "." if inside else str(data_path.resolve()),
        "selection": selection.model_dump_json(),
    }
    partial_path = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_file(columns, partial_path, metadata)
        partial_path.chmod(0o644)
        with partial_path.open("rb") as file:
            os.fsync(file.fileno())
        partial_path.replace(output)
    except OSError as error:
        raise DataError(
            f"{output}: the index cannot be written ({error.strerror}). Give --output elsewhere."
        ) from error
    finally:
        partial_path.unlink(missing_ok=True)
