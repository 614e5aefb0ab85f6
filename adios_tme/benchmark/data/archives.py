"""The loader by the size of archives, and their listing."""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from pathlib import Path

from adios_tme.benchmark.data.bench import Bench, reads
from adios_tme.benchmark.data.results import ArchiveResult, IndexingResult
from adios_tme.benchmark.interleave import (
    Cost,
    Timed,
    cpu,
    cpu_ratio,
    each,
    interleave,
    milliseconds,
    rounded,
    speed_ratio,
    wall,
)
from adios_tme.config.data import PatchSelection
from adios_tme.data.archive import read_directory
from adios_tme.data.decode import Pixels
from adios_tme.data.index_builder import index_archives
from adios_tme.data.selection import refuse_unsafe_names, select_patches

#: Patches in an archive that is written to be searched; all others are thumbnails of no size.
PATCHES_IN_ARCHIVE = 64
#: Patches that are read in a round by opening the archive for each, at 2,000 members or fewer, and
#: at the least.
SLOW_PATCHES, FEWEST_SLOW_PATCHES = 8, 4


def measure_archives(bench: Bench) -> tuple[ArchiveResult, ...]:
    """The loader, and opening the archive for every patch, by the size of archives."""
    config = bench.config
    variants: dict[str, Timed] = {}
    with ExitStack() as stack:
        for members in config.members:
            path = bench.folder / str(members) / "slide.zip"
            names = _write_archive(bench, path, members)
            index = index_archives(path.parent).index
            variants[f"loader {members}"] = stack.enter_context(reads(index, config, 1, False))
            few = max(FEWEST_SLOW_PATCHES, SLOW_PATCHES * 2000 // max(members, 2000))

            def open_per_patch(name: str, path: Path = path) -> Pixels:
                with zipfile.ZipFile(path) as archive:
                    return bench.pillow(archive.read(name))

            variants[f"open {members}"] = each(open_per_patch, names[:few])
        costs = interleave(bench.config.num_rounds, variants)
    smallest = f"loader {config.members[0]}"
    return tuple(_result(costs, members, smallest) for members in config.members)


def _result(costs: dict[str, list[Cost]], members: int, smallest: str) -> ArchiveResult:
    loader, opening = f"loader {members}", f"open {members}"
    return ArchiveResult(
        members=members,
        loader_ms=milliseconds(costs[loader]),
        open_per_patch_ms=milliseconds(costs[opening]),
        loader_over_open_per_patch=speed_ratio(costs, loader, opening),
        loader_over_open_per_patch_by_cpu=cpu_ratio(costs, loader, opening),
        loader_over_smallest_archive=cpu_ratio(costs, loader, smallest),
    )


def _write_archive(bench: Bench, path: Path, members: int) -> list[str]:
    """An archive of some patches among thumbnails without content; the patches' names."""
    path.parent.mkdir()
    suffix = bench.patches().suffix
    spacing = max(1, members // PATCHES_IN_ARCHIVE)
    names: list[str] = []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(members):
            place = f"x{number % 300 * 448}_y{number // 300 * 448}{suffix}"
            if number % spacing == 0 and len(names) < PATCHES_IN_ARCHIVE:
                names.append(f"patch_{number:06d}_448_{place}")
                content = bench.contents[len(names) % len(bench.contents)]
                archive.writestr(names[-1], content)
            else:
                archive.writestr(f"patch_{number:06d}_224_{place}", b"")
    return names


def measure_indexing(bench: Bench) -> IndexingResult:
    """Members a second of listing the largest archive."""
    members = max(bench.config.members)
    path = bench.folder / str(members) / "slide.zip"

    def list_here(_: object) -> None:
        directory = read_directory(path)
        refuse_unsafe_names(directory.select(select_patches(directory, PatchSelection(all=True))))

    def list_by_zipfile(_: object) -> None:
        with zipfile.ZipFile(path) as archive:
            archive.namelist()

    variants = {"here": each(list_here, [0]), "zipfile": each(list_by_zipfile, [0])}
    costs = interleave(bench.config.num_rounds, variants)
    cpu_seconds = cpu(costs["here"])
    return IndexingResult(
        members=members,
        members_per_second=rounded(members / wall(costs["here"])),
        members_per_second_by_cpu=rounded(members / cpu_seconds) if cpu_seconds else None,
        zipfile_members_per_second=rounded(members / wall(costs["zipfile"])),
        over_zipfile=speed_ratio(costs, "here", "zipfile"),
    )
