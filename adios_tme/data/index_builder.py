"""Building the dataset index: tables of contents alone, in parallel, changed archives only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from adios_tme.config.base import cores_at_hand
from adios_tme.config.data import DataConfig, DataRoot, PatchSelection
from adios_tme.config.slides import SlideTiling
from adios_tme.data.build_report import BuildReport, report_on
from adios_tme.data.decode import TIFF_SUFFIXES
from adios_tme.data.index import INDEX_NAME, ArchiveEntry, DatasetIndex, has_old_format
from adios_tme.data.index_columns import PATCH_COLUMNS
from adios_tme.data.index_writer import IndexWriter
from adios_tme.data.members import Directory, Kind, kinds_in_words, printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.names import has_group
from adios_tme.data.pickle_list import Listing, Metadata, write_listing
from adios_tme.data.scan import NUM_NAMES_SHOWN, Scan, scan_all
from adios_tme.data.selection import describe, sort_members
from adios_tme.data.slides.files import check_tiling, tiling_digest
from adios_tme.data.sources import (
    Fault,
    Found,
    Source,
    can_be_seen,
    check_data_path,
    find_sources,
    is_listing,
    only_slides,
)
from adios_tme.errors import ConfigError, DataError

PICKLE_NAME = "dataset_index.pkl"

Progress = Callable[[int, int], None]


def build_index(
    data_path: Path,
    selection: PatchSelection | None = None,
    output: Path | None = None,
    *,
    tiling: SlideTiling | None = None,
    rebuild: bool = False,
) -> DatasetIndex:
    """Index the patches below a folder, or bring their index up to date; see `index_archives`.

    Example:
        >>> from adios_tme import build_index
        >>> index = build_index(patches)
        >>> len(index), index.patch(0).slide
        (8, 'slide_000')
    """
    path = Path(data_path)
    return index_archives(path, selection, output, tiling=tiling, rebuild=rebuild).index


def index_archives(
    data_path: Path,
    selection: PatchSelection | None = None,
    output: Path | None = None,
    *,
    tiling: SlideTiling | None = None,
    rebuild: bool = False,
    num_workers: int | None = None,
    own: Iterable[Path] = (),
    on_progress: Progress | None = None,
    slides_alone: bool = False,
) -> BuildReport:
    """Index archives and folders of images; only those that changed are read again.

    Args:
        data_path: Folder, searched with its subfolders for zip archives, tars and images; one
            archive; or a ``dataset_index.pkl``, which names archives and their members.
        selection: Which members count; default: names with ``_448_``. A list decides for itself.
        output: The index file; default: inside ``data_path``, or beside the file that it is.
        tiling: How whole slides are cut; without a scale, they are left out.
        rebuild: Read every archive.
        num_workers: Processes; default: the cores at hand.
        own: Files and folders to which we write, and which are no data.
        on_progress: Called with the archives done and their number.
        slides_alone: Pass over all that is no slide.

    Raises:
        ConfigError: If the folder is missing, the index file is a folder, or slides need a package
            or file that is missing.
        DataError: If no archive can be read, none holds a patch, or the pattern of names fits none.
        LaunchError: If one of the processes is killed.
    """
    selection, tiling = selection or PatchSelection(), tiling or SlideTiling()
    slides = tiling.mpp is not None
    check_data_path(data_path, slides=slides)
    output = output or index_path(data_path)
    if output.is_dir():
        raise ConfigError(f"{output}: is a folder. Give --output the name of a file.")
    found = find_sources(data_path, (output, *own), slides=slides)
    if slides_alone:
        found = only_slides(found, data_path)
    sources = found.sources
    selection = _settled(selection, found)
    check_tiling(tiling, [source.path for source in sources if source.kind == Kind.SLIDE])
    digest = _digest(data_path)
    old = None if rebuild else _reusable(output, selection, digest)
    root = data_path.parent if data_path.is_file() else data_path
    tiling_now = tiling_digest(tiling)
    kept = _unchanged(old, sources, root, tiling_now) if old else {}
    to_scan = [source for source in sources if source.path not in kept]
    if old and not to_scan and len(kept) == old.num_archives:
        return report_on(old, 0, found)
    scans = scan_all(to_scan, selection, tiling, num_workers or cores_at_hand())
    seen: list[str] = []
    num_images = 0
    with IndexWriter(output) as writer:
        for number, source in enumerate(sources):
            number_there = kept.get(source.path)
            scan = _rescan(old, number_there) if old and number_there is not None else next(scans)
            seen.extend(scan.names_seen[: NUM_NAMES_SHOWN - len(seen)])
            num_images += scan.num_images
            if scan.fault is None:
                writer.append(_relative(source.path, root), scan.entry, scan.members, scan.left_out)
            else:
                found.faults.append(Fault(source.path, scan.fault))
            if on_progress:
                on_progress(number + 1, len(sources))
        if not writer.num_patches:
            raise _nothing_found(data_path, selection, found, num_images, seen)
        inside = output.parent.resolve() == root.resolve()
        writer.finish(
            {
                "root": "." if inside else str(root.resolve()),
                # Without what is absent, so that earlier versions read it, too.
                "selection": selection.model_dump_json(exclude_none=True),
                "listing_digest": digest,
                "tiling": tiling.model_dump_json(exclude_none=True),
                "tiling_digest": tiling_now,
            }
        )
    return report_on(DatasetIndex.open(output), len(to_scan), found)


def open_or_build(
    data: DataConfig, fallback_dir: Path, on_progress: Progress | None = None
) -> list[BuildReport]:
    """The indexes of a run's patches, one for each root, built or brought up to date.

    Args:
        data: Says where the patches are and which count.
        fallback_dir: Where an index goes when its root cannot be written; what is in it is no data.
        on_progress: See `index_archives`.

    Raises:
        ConfigError: If a folder is missing.
        DataError: If no archive of a root can be read or none holds a patch.
    """
    return [
        index_archives(
            root.path,
            data.patches,
            output,
            tiling=data.slides,
            own=[fallback_dir],
            on_progress=on_progress,
        )
        for root, output in _outputs(data, fallback_dir)
    ]


def open_indexes(data: DataConfig, fallback_dir: Path) -> PatchMixture:
    """Open what `open_or_build` has brought up to date, as one training set.

    Raises:
        DataError: If an index is missing or damaged.
    """
    indexes = [DatasetIndex.open(output) for _, output in _outputs(data, fallback_dir)]
    return PatchMixture(indexes, [root.weight for root in data.roots])


def _outputs(data: DataConfig, fallback_dir: Path) -> list[tuple[DataRoot, Path]]:
    return [
        (root, index_path(root.path, fallback_dir, number))
        for number, root in enumerate(data.roots)
    ]


def index_path(data_path: Path, fallback_dir: Path | None = None, number: int = 0) -> Path:
    """Where the index of some patches is, or would go.

    Args:
        data_path: Folder, archive, list or slide.
        fallback_dir: Where it goes when it cannot stand beside the patches.
        number: Of the root, among several in one run.
    """
    alone = data_path.is_file()
    folder = data_path.parent if alone else data_path
    if fallback_dir is None or os.access(folder, os.W_OK) or not can_be_seen(folder):
        return folder / (f"{data_path.name}.safetensors" if alone else INDEX_NAME)
    return fallback_dir / (f"{number}_{INDEX_NAME}" if number else INDEX_NAME)


def listing_of(index: DatasetIndex) -> Listing:
    """The list of ``(archive path, [names])`` that older trainers read.

    Raises:
        ConfigError: If some patches are tiles of slides, which they do not read.
    """
    if index.has_slides:
        raise ConfigError(
            f"{index.root}: holds whole slides, which a list of archives cannot name. "
            f"Cut them with adios-tme tile, or drop --format pickle."
        )
    listing = []
    for number in range(index.num_archives):
        rows = index.archive_rows(number)
        names = index.names(np.arange(rows.start, rows.stop))
        listing.append((index.archive(number).full_path, names))
    return listing


def write_pickle(index: DatasetIndex, path: Path) -> None:
    """Write an index as ``dataset_index.pkl`` and its ``_metadata.pkl``.

    Raises:
        DataError: If they cannot be written.
    """
    selection = index.selection
    metadata: Metadata = {
        "num_archives": index.num_archives,
        "num_patches": len(index),
        "patch_size_px": selection.patch_size_px,
        "pattern": selection.pattern,
        "all": selection.all,
    }
    write_listing(listing_of(index), metadata, path)


def _digest(data_path: Path) -> str:
    """Tells one list from another; empty for a folder."""
    if not is_listing(data_path):
        return ""
    with data_path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path.resolve())


def _reusable(output: Path, selection: PatchSelection, digest: str) -> DatasetIndex | None:
    """An index that is already there and was made by the same rule."""
    if not output.exists() or has_old_format(output):
        return None
    index = DatasetIndex.open(output)
    if not index.tells_left_out:
        return None
    return index if (index.selection, index.listing_digest) == (selection, digest) else None


def _unchanged(
    index: DatasetIndex, sources: list[Source], root: Path, tiling: str
) -> dict[Path, int]:
    """Sources whose size and time are still as indexed, with their numbers there.

    Slides must also be cut as they were.
    """
    numbers = {index.archive_path(number): number for number in range(index.num_archives)}
    kept = {}
    for source in sources:
        number = numbers.get(_relative(source.path, root))
        if source.kind == Kind.SLIDE and index.tiling_digest != tiling:
            continue
        if number is not None and _matches(index.archive(number), source):
            kept[source.path] = number
    return kept


def _matches(entry: ArchiveEntry, source: Source) -> bool:
    try:
        return entry.kind == source.kind and entry.matches(source.path.stat())
    except OSError:  # scanning it says why
        return False


def _rescan(index: DatasetIndex, number: int) -> Scan:
    """What scanning an unchanged archive would find, from the index."""
    return Scan(index.archive(number), _directory_of(index, number), index.archive_left_out(number))


def _directory_of(index: DatasetIndex, number: int) -> Directory:
    rows = index.archive_rows(number)
    column = {name: index.columns[name][rows] for name in PATCH_COLUMNS if name != "name_ends"}
    names, name_ends = index.archive_names(number)
    return Directory(
        names=names,
        name_ends=name_ends,
        offset=column["offset"].astype(np.uint64),
        compressed_size=column["compressed_size"].astype(np.uint64),
        size=column["size"].astype(np.uint64),
        crc32=column["crc32"].astype(np.uint32),
        method=column["method"].astype(np.uint8),
    )


def _settled(selection: PatchSelection, found: Found) -> PatchSelection:
    """The rule: every image where none is given and plain folders have names without a size.

    TIFFs are never taken so: they may be whole slides, whose scale is missing.
    """
    is_given = selection != PatchSelection(name_pattern=selection.name_pattern)
    by_name = selection.name_pattern is not None and has_group(selection.name_pattern, "size")
    if is_given or by_name or any(source.kind != Kind.FOLDER for source in found.sources):
        return selection
    for source in found.sources:
        try:
            members = source.list_members()
            told = sort_members(members, selection)
        except (OSError, DataError):  # scanning says why
            return selection
        is_tiff = any(name.lower().endswith(TIFF_SUFFIXES) for name in members.all_names())
        if told.patches.any() or told.thumbnails.any() or is_tiff:
            return selection
    found.sizes_are_unsaid = bool(found.sources)
    return selection.model_copy(update={"all": found.sizes_are_unsaid})


def _nothing_found(
    data_path: Path, selection: PatchSelection, found: Found, images: int, seen: list[str]
) -> DataError:
    slides = [source for source in found.sources if source.kind == Kind.SLIDE]
    only_slides_there = bool(slides) and len(slides) == len(found.sources)
    if found.faults and not seen and len(found.faults) >= len(found.sources):
        what = "slide" if only_slides_there else "archive"
        return DataError(f"{data_path}: no {what} can be read. {found.faults[0].message}")
    if only_slides_there:
        return DataError(
            f"{data_path}: no tile of tissue in {len(slides)} slides (first: "
            f"{printable(slides[0].path.name)}). Lower --min-tissue, choose another "
            f"--tissue, or take every tile with --tissue none."
        )
    unread = f" Not read: {found.faults[0].message}" if found.faults else ""
    listed = is_listing(data_path)
    rule = "the names of the list" if listed else describe(selection)
    shown = ", ".join(map(printable, seen))
    advice = (
        "Write the list again with adios-tme index --format pickle."
        if listed
        else "Take every image with --all, or choose with --patch-size-px or --pattern."
    )
    sources = kinds_in_words(source.kind for source in found.sources)
    return DataError(
        f"{data_path}: no patch among {images} images in {sources}. "
        f"Asked for {rule}; names there are like {shown or 'none at all'}. {advice}{unread}"
    )
