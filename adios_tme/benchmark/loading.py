"""How fast patches are read, decoded and handed over, beside what they could be.

Every way takes its turns in one run, and what is compared are medians over the turns: on a machine
that does other work as well, ratios hold where seconds do not.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import kornia_rs
import numpy as np
import PIL
import torch
from PIL import Image

from adios_tme.benchmark.machine import describe
from adios_tme.config.data import PatchSelection
from adios_tme.config.loading import LoadingConfig
from adios_tme.data.archive import read_directory
from adios_tme.data.damage import DamagedPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import Pixels, decode_image, resize_image
from adios_tme.data.index import INDEX_NAME, DatasetIndex
from adios_tme.data.indexing import index_archives
from adios_tme.data.loader import BATCHES_AHEAD, PatchLoader
from adios_tme.data.order import shuffled_rows
from adios_tme.data.selection import refuse_unsafe_names, select_patches
from adios_tme.errors import DataError

Progress = Callable[[int, int], None]

#: Patches in an archive that is written to be searched; all others are thumbnails of no size.
PATCHES_IN_ARCHIVE = 64
#: Patches that the slow way reads in a turn, at 2,000 members or fewer; fewer in larger archives.
SLOW_PATCHES = 8
#: Patches that are encoded anew in every format.
NUM_ENCODED = 12
NUM_POSITIONS = 1 << 20
LARGE_EPOCH = 10**9
#: How often it is looked whether workers have filled their slots.
POLL_SECONDS = 0.03


class Cost(NamedTuple):
    """What one patch took, in seconds."""

    wall: float
    cpu: float
    """Of the process that does the work; steadier than the wall on a busy machine."""


Way = Callable[[], Cost]


def measure_loading(config: LoadingConfig, on_progress: Progress | None = None) -> dict[str, Any]:
    """Measure a data set's loader.

    Args:
        config: What is measured, and how long.
        on_progress: Called with the parts done and their number.

    Returns:
        Plain values, as they are written to JSON; times in milliseconds a patch.

    Raises:
        ConfigError: If the folder is missing.
        DataError: If it holds no patch that can be read.
    """
    torch.set_num_threads(1)  # as in a worker
    parts: tuple[Callable[[_Bench], dict[str, Any]], ...] = (
        _measure_loader,
        _measure_archives,
        _measure_decoders,
        _measure_index,
    )
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        bench = _Bench.build(config, Path(folder))
        results: dict[str, Any] = {
            "machine": describe(torch.device("cpu")) | _versions(),
            "settings": config.model_dump(mode="json", exclude={"output", "json_output"}),
            "patches": bench.facts(),
        }
        for number, part in enumerate(parts, start=1):
            results |= part(bench)
            if on_progress:
                on_progress(number, len(parts))
    return results


def _versions() -> dict[str, str]:
    return {
        "cores": str(os.cpu_count()),
        "kornia_rs": kornia_rs.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


@dataclass
class _Bench:
    """What all parts measure on."""

    config: LoadingConfig
    folder: Path
    index: DatasetIndex
    dataset: PatchDataset
    rows: list[int]
    contents: list[bytes]

    @classmethod
    def build(cls, config: LoadingConfig, folder: Path) -> Self:
        report = index_archives(config.data_path, config.patches, folder / INDEX_NAME)
        dataset = PatchDataset(report.index, config.img_size)
        rows, contents = [], []
        for row in np.linspace(0, len(dataset) - 1, config.num_samples, dtype=int).tolist():
            try:
                contents.append(dataset.content(row))
                decode_image(contents[-1])
            except DamagedPatchError:
                continue
            rows.append(row)
        if not rows:
            raise DataError(
                f"{config.data_path}: none of {config.num_samples} patches can be read. "
                f"Run adios-tme index with --verify to see why."
            )
        return cls(config, folder, report.index, dataset, rows, contents[: len(rows)])

    def facts(self) -> dict[str, Any]:
        height, width, _ = decode_image(self.contents[0]).shape
        return {
            "count": len(self.index),
            "archives": self.index.num_archives,
            "mean_bytes": round(statistics.fmean(map(len, self.contents))),
            "first_size": [height, width],
            "suffix": Path(self.index.patch(self.rows[0]).member.name).suffix,
        }

    def turns(self, ways: dict[str, Way]) -> dict[str, list[Cost]]:
        """Costs of each way, turn by turn; a first turn warms up."""
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for turn in range(self.config.num_rounds + 1):
            for name, way in ways.items():
                cost = way()
                if turn:
                    costs[name].append(cost)
        return costs

    def each(self, function: Callable[[Any], object], items: list[Any]) -> Way:
        """The way that does something to every item in this process."""

        def way() -> Cost:
            wall, cpu = time.perf_counter(), time.process_time()
            for item in items:
                function(item)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            return Cost(spent[0] / len(items), spent[1] / len(items))

        return way

    def pillow(self, content: bytes) -> Pixels:
        """Decode and resize as most trainers do."""
        side = self.config.img_size
        with Image.open(io.BytesIO(content)) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            return np.asarray(resized)


def _measure_loader(bench: _Bench) -> dict[str, Any]:
    """Stages one by one, and the loader beside its decoder."""
    config = bench.config
    images = [decode_image(content) for content in bench.contents]
    slots = np.empty((config.batch_size, *images[0].shape), dtype=np.uint8)
    resized = [resize_image(image, config.img_size) for image in images]

    def hand_over(number: int) -> None:
        image = images[number]
        if image.shape == slots.shape[1:]:
            slots[number % config.batch_size] = image

    with ExitStack() as stack:

        def loader(num_workers: int, resize_in_worker: bool) -> Way:
            reads = _reads(bench.index, config, num_workers, resize_in_worker)
            return stack.enter_context(reads)

        costs = bench.turns(
            {
                "decode": bench.each(decode_image, bench.contents),
                "one_worker": loader(1, False),
                "one_worker_resizing": loader(1, True),
                "all_workers": loader(config.num_workers, False),
                "read": bench.each(bench.dataset.content, bench.rows),
                "resize": bench.each(lambda image: resize_image(image, config.img_size), images),
                "hand_over": bench.each(hand_over, list(range(len(images)))),
                "pillow_decode": bench.each(_pillow_decode, bench.contents),
                "pillow_way": bench.each(bench.pillow, bench.contents),
            }
        )
    assert resized[0].shape[0] == config.img_size
    speeds = ("decode", "one_worker", "one_worker_resizing", "all_workers", "pillow_way")
    stages = ("read", "decode", "resize", "hand_over", "pillow_decode", "pillow_way")
    return {
        "images_per_second": {name: _round(1 / _wall(costs[name])) for name in speeds},
        "split_ms": {name: _ms(costs[name]) for name in stages},
        "split_cpu_ms": {name: _round(_cpu(costs[name]) * 1000) for name in stages},
        "ratios": {
            "one_worker_of_decode_ceiling": _speed_ratio(costs, "one_worker", "decode"),
            "one_worker_of_decode_ceiling_by_cpu": _speed_ratio(
                costs, "one_worker", "decode", by="cpu"
            ),
            "one_worker_resizing_of_decode_ceiling": _speed_ratio(
                costs, "one_worker_resizing", "decode"
            ),
            "one_worker_over_pillow_way": _speed_ratio(costs, "one_worker", "pillow_way"),
            "all_workers_over_one": _speed_ratio(costs, "all_workers", "one_worker"),
        },
    }


def _measure_archives(bench: _Bench) -> dict[str, Any]:
    """The loader, and the way that opens the archive for every patch, by the size of archives."""
    config = bench.config
    ways: dict[str, Way] = {}
    with ExitStack() as stack:
        for members in config.members:
            path = bench.folder / str(members) / "slide.zip"
            names = _write_archive(bench, path, members)
            index = index_archives(path.parent).index
            ways[f"loader {members}"] = stack.enter_context(_reads(index, config, 1, False))
            few = max(1, SLOW_PATCHES * 2000 // max(members, 2000))

            def open_per_patch(name: str, path: Path = path) -> Pixels:
                with zipfile.ZipFile(path) as archive:
                    return bench.pillow(archive.read(name))

            ways[f"open {members}"] = bench.each(open_per_patch, names[:few])
        costs = bench.turns(ways)
    smallest = config.members[0]
    return {
        "archives": [
            {
                "members": members,
                "loader_ms": _ms(costs[f"loader {members}"]),
                "open_per_patch_ms": _ms(costs[f"open {members}"]),
                "loader_over_open_per_patch": _speed_ratio(
                    costs, f"loader {members}", f"open {members}"
                ),
                "loader_over_open_per_patch_by_cpu": _speed_ratio(
                    costs, f"loader {members}", f"open {members}", by="cpu"
                ),
                "loader_over_smallest_archive": _speed_ratio(
                    costs, f"loader {members}", f"loader {smallest}", by="cpu"
                ),
            }
            for members in config.members
        ]
    }


def _write_archive(bench: _Bench, path: Path, members: int) -> list[str]:
    """An archive of some patches among thumbnails without content; the patches' names."""
    path.parent.mkdir()
    suffix = bench.facts()["suffix"]
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


def _measure_decoders(bench: _Bench) -> dict[str, Any]:
    """Every format by Pillow and by the decoder that it has here."""
    images = [Image.fromarray(decode_image(content)) for content in bench.contents[:NUM_ENCODED]]
    side = bench.config.img_size
    large = [image.resize((8 * side, 8 * side)) for image in images[:2]]
    ways: dict[str, Way] = {}
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        encoded = [_encoded(image, kind) for image in images]
        ways[f"{kind} pillow"] = bench.each(_pillow_decode, encoded)
        ways[f"{kind} here"] = bench.each(decode_image, encoded)
    files = [_encoded(image, "JPEG") for image in large]
    ways["large pillow"] = bench.each(_pillow_decode, files)
    ways["large here"] = bench.each(decode_image, files)
    ways["large scaled"] = bench.each(lambda content: decode_image(content, side), files)
    costs = bench.turns(ways)
    table = [
        {
            "format": kind,
            "pillow_ms": _ms(costs[f"{kind} pillow"]),
            "here_ms": _ms(costs[f"{kind} here"]),
            "here_over_pillow": _speed_ratio(costs, f"{kind} here", f"{kind} pillow"),
        }
        for kind in ("PNG", "JPEG", "WEBP", "TIFF")
    ]
    for name in ("here", "scaled"):
        table.append(
            {
                "format": f"JPEG of {8 * side} px" + (", scaled" if name == "scaled" else ""),
                "pillow_ms": _ms(costs["large pillow"]),
                "here_ms": _ms(costs[f"large {name}"]),
                "here_over_pillow": _speed_ratio(costs, f"large {name}", "large pillow"),
            }
        )
    return {"decoders": table}


def _measure_index(bench: _Bench) -> dict[str, Any]:
    """Members a second of listing an archive, and the cost of a position of the order."""
    members = max(bench.config.members)
    path = bench.folder / str(members) / "slide.zip"

    def list_here(_: object) -> None:
        directory = read_directory(path)
        refuse_unsafe_names(directory.select(select_patches(directory, PatchSelection(all=True))))

    def list_by_zipfile(_: object) -> None:
        with zipfile.ZipFile(path) as archive:
            archive.namelist()

    positions = np.arange(NUM_POSITIONS)
    costs = bench.turns(
        {
            "here": bench.each(list_here, [0]),
            "zipfile": bench.each(list_by_zipfile, [0]),
            "order": bench.each(lambda _: shuffled_rows(positions, LARGE_EPOCH, 0, 0), [0]),
        }
    )
    return {
        "indexing": {
            "members": members,
            "members_per_second": _round(members / _wall(costs["here"])),
            "members_per_second_by_cpu": _round(members / _cpu(costs["here"])),
            "zipfile_members_per_second": _round(members / _wall(costs["zipfile"])),
            "over_zipfile": _speed_ratio(costs, "here", "zipfile"),
        },
        "order": {
            "patches": LARGE_EPOCH,
            "microseconds_per_position": _round(_wall(costs["order"]) / NUM_POSITIONS * 1e6),
        },
    }


@contextmanager
def _reads(
    index: DatasetIndex, config: LoadingConfig, num_workers: int, resize_in_worker: bool
) -> Iterator[Way]:
    """The way through a loader, whose workers rest while other ways take their turn."""
    before = set(multiprocessing.active_children())
    loader = PatchLoader(
        index,
        img_size=config.img_size,
        batch_size=config.batch_size,
        num_workers=num_workers,
        resize_in_worker=resize_in_worker,
    )
    loader.start()
    workers = [child.pid for child in set(multiprocessing.active_children()) - before]
    batches = iter(loader)
    num_batches = max(1, round(config.num_samples / config.batch_size))
    ready = num_workers * BATCHES_AHEAD

    def way() -> Cost:
        cpu = _cpu_seconds(workers)
        for _ in range(ready):  # what was read while others had their turn
            next(batches)
        wall = time.perf_counter()
        for _ in range(num_batches):
            next(batches)
        wall = time.perf_counter() - wall
        _wait_until_idle(workers)  # from rest to rest they have read as many as were taken
        cpu = _cpu_seconds(workers) - cpu
        batch_size = config.batch_size
        return Cost(wall / (num_batches * batch_size), cpu / ((ready + num_batches) * batch_size))

    _wait_until_idle(workers)
    try:
        yield way
    finally:
        loader.close()


def _wait_until_idle(workers: list[int | None]) -> None:
    spent = -1.0
    while (now := _cpu_seconds(workers)) != spent:
        spent = now
        time.sleep(POLL_SECONDS)


def _cpu_seconds(workers: list[int | None]) -> float:
    """CPU time that processes have used so far, in nanosecond steps where the system tells."""
    nanoseconds = 0
    for worker in workers:
        place = Path(f"/proc/{worker}/schedstat")
        nanoseconds += int(place.read_text().split()[0]) if place.exists() else 0
    return nanoseconds / 1e9


def _pillow_decode(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **({"quality": 90} if kind in ("JPEG", "WEBP") else {}))
    return stream.getvalue()


def _wall(costs: list[Cost]) -> float:
    return statistics.median(cost.wall for cost in costs)


def _cpu(costs: list[Cost]) -> float:
    return statistics.median(cost.cpu for cost in costs)


def _ms(costs: list[Cost]) -> float:
    return _round(_wall(costs) * 1000)


def _speed_ratio(costs: dict[str, list[Cost]], fast: str, slow: str, by: str = "wall") -> float:
    """How many times as fast one way is as another, the median over their turns."""
    return _round(
        statistics.median(
            getattr(theirs, by) / getattr(ours, by)
            for ours, theirs in zip(costs[fast], costs[slow], strict=True)
        )
    )


def _round(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}")
