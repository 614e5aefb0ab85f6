"""Cutting slides to files: one stored zip archive a slide, and a line on what it was made from."""

from __future__ import annotations

import io
import itertools
import statistics
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from adios_tme.config.slides import TileConfig
from adios_tme.data.colour import Pixels
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.index import DatasetIndex
from adios_tme.data.members import printable
from adios_tme.data.patch import unique_names
from adios_tme.data.reader import PatchReader
from adios_tme.data.slides.coordinates import write_coordinates
from adios_tme.data.slides.records import RECORDS_NAME, Record, line_of, read_records
from adios_tme.data.slides.scale import read_mpp_csv, scale_of
from adios_tme.data.slides.slide import Slide
from adios_tme.data.slides.tiles import places_of
from adios_tme.distributed.pool import in_order, process_pool
from adios_tme.files import replacing, write_whole

Progress = Callable[[int, int], None]

COORDINATES_FOLDER = "coordinates"
#: Tiles that a process cuts before it hands them over.
CHUNK = 32
#: Tiles from which bytes are estimated.
NUM_SAMPLED = 64
#: Share of a slide's tiles that must be readable for an archive of it.
LEAST_READABLE = 0.5
_FORMATS = {"jpg": "JPEG", "png": "PNG"}
#: Of the members, so that equal slides give equal archives.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass
class Cut:
    """What cutting has done."""

    num_kept: int = 0
    """Archives that were there already."""
    num_archives: int = 0
    """All of them."""
    num_tiles: int = 0
    num_bytes: int = 0
    num_unreadable: int = 0
    faults: list[str] = field(default_factory=list)


class Estimate(NamedTuple):
    """What cutting would write."""

    num_slides: int
    num_tiles: int
    num_bytes: int


def estimate(index: DatasetIndex, config: TileConfig) -> Estimate:
    """Tiles and bytes that cutting would write, from some tiles spread over all."""
    rows = np.unique(np.linspace(0, len(index) - 1, NUM_SAMPLED, dtype=int)).tolist()
    reader, sizes = PatchReader(index), []
    for row in rows:
        try:
            sizes.append(len(encode(reader.read(row), config.format, config.quality)))
        except CorruptPatchError:
            continue  # counted when it is cut
    reader.close()
    mean = statistics.fmean(sizes) if sizes else 0.0
    return Estimate(index.num_archives, len(index), round(mean * len(index)))


def encode(pixels: Pixels, kind: str, quality: int) -> bytes:
    """The file of an image (H, W, 3), ``jpg`` or ``png``."""
    stream = io.BytesIO()
    options = {"quality": quality} if kind == "jpg" else {"compress_level": 1}
    Image.fromarray(pixels).save(stream, format=_FORMATS[kind], **options)
    return stream.getvalue()


def cut_slides(index: DatasetIndex, config: TileConfig, on_progress: Progress | None = None) -> Cut:
    """Cut the slides of an index to archives; those that are there and still right are kept.

    Args:
        index: Tiles of slides.
        config: Where to, in which format, and with how many processes.
        on_progress: Called with the tiles done and their number.

    Raises:
        ConfigError: If coordinates are asked for and h5py is missing.
        LaunchError: If one of the processes is killed.
        OSError: If the folder cannot be written.
    """
    cut = Cut()
    entries = [index.archive(number) for number in range(index.num_archives)]
    names = [f"{name}.zip" for name in unique_names(entries)]
    records = _keep_records(index, names, config)
    todo = [
        number for number in range(len(names)) if number not in records and _count(index, number)
    ]
    cut.num_kept = len(records)
    done = sum(_count(index, number) for number in records)
    with process_pool(config.num_workers, f"{index.root}: cutting slides") as pool:
        chunks = in_order(pool, _cut, _chunks_of(index, todo, config), config.num_workers)
        for number in todo:
            own = itertools.islice(chunks, -(-_count(index, number) // CHUNK))
            try:
                written = _write_archive(config.out / names[number], own)
            except CorruptPatchError as error:
                cut.faults.append(f"{printable(index.archive_path(number))}: {error}")
                continue
            finally:
                done += _count(index, number)
                if on_progress:
                    on_progress(done, len(index))
            records[number] = _record(index, number, names[number], config, written)
            with (config.out / RECORDS_NAME).open("a", encoding="utf-8") as file:
                file.write(line_of(records[number]))
    cut.num_archives = len(records)
    for number, record in records.items():
        cut.num_tiles += record.num_tiles
        cut.num_bytes += record.num_bytes
        cut.num_unreadable += record.num_unreadable
        if config.write_coordinates:
            _write_coordinates(index, number, record, config)
    return cut


def _count(index: DatasetIndex, number: int) -> int:
    rows = index.archive_rows(number)
    return len(range(rows.start, rows.stop))


def _settings(index: DatasetIndex, config: TileConfig) -> dict[str, Any]:
    """What decides the pixels of an archive, as plain values."""
    return config.slides.model_dump(mode="json") | {
        "patch_size_px": config.patch_size_px,
        "format": config.format,
        "quality": config.quality if config.format == "jpg" else None,
        "digest": index.tiling_digest,
    }


def _keep_records(index: DatasetIndex, names: list[str], config: TileConfig) -> dict[int, Record]:
    """The records of archives that are still right, by the slide's number; others are dropped."""
    path = config.out / RECORDS_NAME
    known = {record.slide: record for record in read_records(path)}
    settings = _settings(index, config)
    kept = {}
    for number, name in enumerate(names):
        record = known.get(index.archive_path(number))
        if record is not None and record.archive == name:
            same_count = record.num_tiles + record.num_unreadable == _count(index, number)
            if same_count and record.is_of(index.archive(number), settings, config.out):
                kept[number] = record
    write_whole(path, "".join(map(line_of, kept.values())))
    return kept


class _Member(NamedTuple):
    """A tile as a file, or why there is none."""

    name: str
    content: bytes
    reason: str = ""


class _Written(NamedTuple):
    """What an archive got."""

    num_tiles: int
    num_bytes: int
    reasons: list[str]
    """Of each tile that could not be read."""


def _write_archive(path: Path, chunks: Iterable[list[_Member]]) -> _Written:
    """Write the tiles of a slide to an archive that appears whole, or not at all.

    Raises:
        CorruptPatchError: If too few of them can be read.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    num_tiles, reasons = 0, []
    with replacing(path) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, content, reason in itertools.chain.from_iterable(chunks):
                if reason:
                    reasons.append(reason)
                else:
                    archive.writestr(zipfile.ZipInfo(name, _DATE), content)
                    num_tiles += 1
        total = num_tiles + len(reasons)
        if num_tiles < LEAST_READABLE * total:
            raise CorruptPatchError(
                f"{len(reasons)} of {total} tiles cannot be read (first: {reasons[0]}). "
                f"Copy or export the slide again, and run adios-tme tile again."
            )
        num_bytes = partial.stat().st_size
    return _Written(num_tiles, num_bytes, reasons)


def _chunks_of(
    index: DatasetIndex, numbers: list[int], config: TileConfig
) -> Iterator[tuple[Path, range, str, int]]:
    """The tiles of some slides, chunk by chunk, as `_cut` takes them."""
    for rows in map(index.archive_rows, numbers):
        for start in range(rows.start, rows.stop, CHUNK):
            some = range(start, min(start + CHUNK, rows.stop))
            yield index.path, some, config.format, config.quality


def _cut(path: Path, rows: range, kind: str, quality: int) -> list[_Member]:
    reader = _reader(path)
    members = []
    for patch in reader.mix.patches(rows):
        name = f"{patch.member.name}.{kind}"
        try:
            members.append(_Member(name, encode(reader.read_patch(patch), kind, quality)))
        except CorruptPatchError as error:
            members.append(_Member(name, b"", str(error)))
    return members


@cache
def _reader(path: Path) -> PatchReader:
    """The tiles, opened once a process; slides come one after the other."""
    return PatchReader(DatasetIndex.open(path), open_slides=2)


def _record(
    index: DatasetIndex, number: int, name: str, config: TileConfig, written: _Written
) -> Record:
    entry = index.archive(number)
    facts = Slide(entry.path).facts
    scale = scale_of(entry.path.name, facts.properties, read_mpp_csv(config.slides.mpp_csv))
    return Record(
        slide=index.archive_path(number),
        archive=name,
        num_tiles=written.num_tiles,
        num_unreadable=len(written.reasons),
        unreadable=list(dict.fromkeys(written.reasons)),
        num_bytes=written.num_bytes,
        slide_size=entry.size,
        slide_mtime=entry.mtime,
        width=facts.size[0],
        height=facts.size[1],
        slide_mpp=scale.mpp,
        mpp_source=scale.source,
        settings=_settings(index, config),
    )


def _write_coordinates(
    index: DatasetIndex, number: int, record: Record, config: TileConfig
) -> None:
    rows = index.archive_rows(number)
    stem = Path(record.archive).with_suffix("")
    write_coordinates(
        config.out / COORDINATES_FOLDER / f"{stem}_patches.h5",
        places_of(index.columns["offset"][rows]),
        slide=stem.name,
        slide_size=(record.width, record.height),
        side=int(index.columns["compressed_size"][rows.start]),
        size_px=config.patch_size_px,
        overlap=config.slides.overlap,
    )
