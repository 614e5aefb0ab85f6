"""An index of 10^8 patches, made of generated columns: opening, memory, first batch, order.

Run by ``nox -s scale``: it writes six gigabytes and takes minutes. ``ADIOS_TME_SCALE_ROWS`` makes
it smaller. The one real archive stands for all: every archive of the index leads to it, so that
what is read is really read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adios_tme.config.data import PatchSelection
from adios_tme.data.archive import read_directory
from adios_tme.data.index import INDEX_NAME, ArchiveEntry, DatasetIndex
from adios_tme.data.index_writer import IndexWriter
from adios_tme.data.members import Directory
from adios_tme.data.order import shuffled_rows
from tests.factories import make_archive
from tests.permutation import positions_of

pytestmark = [pytest.mark.scale, pytest.mark.timeout(1800)]

NUM_ROWS = int(float(os.environ.get("ADIOS_TME_SCALE_ROWS", "1e8")))
ROWS_PER_ARCHIVE = 100_000
PATCHES_IN_ARCHIVE = 100
#: Batches after which a worker's memory is looked at.
NUM_BATCHES = 40
MOST_SECONDS_TO_OPEN = 0.2
MOST_SECONDS_TO_FIRST_BATCH = 1.0
MOST_PRIVATE_MIB = 100


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index file."""
    folder = tmp_path_factory.mktemp("scale")
    archive = make_archive(folder / "slide.zip", PATCHES_IN_ARCHIVE, size_px=64)
    found = archive.stat()
    entry = ArchiveEntry(str(archive), found.st_size, found.st_mtime_ns)
    rows = min(NUM_ROWS, ROWS_PER_ARCHIVE)
    members = repeated(read_directory(archive), rows)
    with IndexWriter(folder / INDEX_NAME) as writer:
        for _ in range(NUM_ROWS // rows):
            writer.append("slide.zip", entry, members)
        writer.finish({"root": ".", "selection": PatchSelection().model_dump_json()})
    return folder / INDEX_NAME


def repeated(members: Directory, rows: int) -> Directory:
    times = rows // len(members)
    return Directory(
        names=np.tile(members.names, times),
        name_ends=np.cumsum(np.tile(members.name_lengths, times)),
        offset=np.tile(members.offset, times),
        compressed_size=np.tile(members.compressed_size, times),
        size=np.tile(members.size, times),
        crc32=np.tile(members.crc32, times),
        method=np.tile(members.method, times),
    )


def in_a_process(program: str, *arguments: object) -> list[float]:
    """Numbers that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [float(word) for word in done.stdout.split()]


OPEN = """
import sys, time
from pathlib import Path
from adios_tme.data.index import DatasetIndex
start = time.perf_counter()
index = DatasetIndex.open(Path(sys.argv[1]))
patch = index.patch(len(index) - 1)
print(time.perf_counter() - start, len(index))
"""

#: Private memory is what a worker has written for itself; pages of the index belong to the cache of
#: the kernel, which all processes share and which is given back when memory is short.
WORKER = """
import multiprocessing, sys, time
from pathlib import Path
from adios_tme.data.index import DatasetIndex
from adios_tme.data.loader import PatchLoader
def private(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024
index = DatasetIndex.open(Path(sys.argv[1]))
start = time.perf_counter()
loader = PatchLoader(index, img_size=64, batch_size=64, seed=1, num_workers=2)
batches = iter(loader)
next(batches)
first = time.perf_counter() - start
for _ in range(int(sys.argv[2])):
    next(batches)
print(first, *(private(child.pid) for child in multiprocessing.active_children()))
"""


def test_it_opens_at_once(large: Path) -> None:
    # Three programs: the first may wait for the disk that has just been written to.
    tries = [in_a_process(OPEN, large) for _ in range(3)]
    seconds = [f"{seconds:.4f}" for seconds, _ in tries]
    size = large.stat().st_size / 1e9
    report(f"opened {tries[0][1]:,.0f} rows, {size:.2f} GB, in {', '.join(seconds)} s")
    assert {rows for _, rows in tries} == {NUM_ROWS}
    assert min(seconds for seconds, _ in tries) < MOST_SECONDS_TO_OPEN


def test_workers_are_small_and_the_first_batch_is_quick(large: Path) -> None:
    tries = [in_a_process(WORKER, large, NUM_BATCHES) for _ in range(3)]
    firsts = [first for first, *_ in tries]
    private = [mib for _, *workers in tries for mib in workers]
    report(
        f"first batch of 64 after {', '.join(f'{first:.3f}' for first in firsts)} s; "
        f"private MiB of workers: {', '.join(f'{mib:.1f}' for mib in private)}"
    )
    assert min(firsts) < MOST_SECONDS_TO_FIRST_BATCH
    assert len(private) == 6
    assert max(private) < MOST_PRIVATE_MIB


def test_every_sampled_position_leads_to_a_row_of_its_own(large: Path) -> None:
    index = DatasetIndex.open(large)
    positions = np.unique(np.random.default_rng(0).integers(0, len(index), size=20_000))
    rows = shuffled_rows(positions, len(index), seed=1, epoch=3)
    assert len(np.unique(rows)) == len(positions)
    assert np.array_equal(positions_of(rows, len(index), seed=1, epoch=3), positions)
    patch = index.patch(int(rows[0]))
    assert patch.member.name.endswith(f"_448_x{rows[0] % PATCHES_IN_ARCHIVE * 448}_y0.png")


def report(line: str) -> None:
    sys.stderr.write(f"\nscale: {line}\n")
