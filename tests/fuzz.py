"""What a fuzzer feeds to index, archive and image reading: bytes in, a known error or a result out.

`tests/unit/data/test_fuzz.py` calls these through hypothesis, `tests/run_fuzzer.py` under atheris.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adios_tme.benchmark.nuclei.label_map import VOID, read_label_map
from adios_tme.benchmark.nuclei.monuseg import draw_outlines
from adios_tme.config.data import PatchSelection
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import MAX_PIXELS, decode_image
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index
from adios_tme.data.members import MAX_MEMBER_BYTES
from adios_tme.data.pickle_list import read_listing
from adios_tme.data.reader import OpenArchives
from adios_tme.errors import DataError


def fuzz_image(content: bytes) -> None:
    """An image is decoded within the limit of pixels, or is damage."""
    try:
        pixels = decode_image(content, needed_px=16)
    except CorruptPatchError:
        return
    assert pixels.shape[2] == 3
    assert pixels.size <= 3 * MAX_PIXELS


def fuzz_label(content: bytes) -> None:
    """A label map is read as ids, or refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label.tif"
        path.write_bytes(content)
        try:
            labels = read_label_map(path)
        except DataError:
            return
    assert labels.ndim == 2
    assert labels.min(initial=0) >= VOID
    assert labels.size <= MAX_PIXELS


def fuzz_outlines(content: bytes) -> None:
    """Outlines are drawn, or refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outlines.xml"
        path.write_bytes(content)
        with suppress(DataError):
            assert draw_outlines(path, 32, 48).any()


def fuzz_zip(content: bytes) -> None:
    """A zip is listed, and each member read or refused."""
    _fuzz_archive("x.zip", content)


def fuzz_tar(content: bytes) -> None:
    """A tar is listed, and each member read or refused."""
    _fuzz_archive("x.tar", content)


def _fuzz_archive(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        try:
            index = build_index(Path(folder), PatchSelection(all=True))
        except DataError:
            return
        _read_all(index)


def fuzz_index(content: bytes) -> None:
    """An index file is refused, or leads to members that are read or refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset_index.safetensors"
        path.write_bytes(content)
        try:
            index = DatasetIndex.open(path)
        except DataError:
            return
        with suppress(DataError):
            index.left_out()
        _read_all(index)


def fuzz_listing(content: bytes) -> None:
    """A pickled list is refused, or is a list of strings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pkl"
        path.write_bytes(content)
        with suppress(DataError):
            read_listing(path)


def _read_all(index: DatasetIndex) -> None:
    archives = OpenArchives()
    try:
        for row in range(min(len(index), 50)):
            patch = index.patch(row)
            assert isinstance(patch.slide, str)
            assert patch.coordinates is None or len(patch.coordinates) == 2
            try:
                content = archives.read(patch)
            except CorruptPatchError:
                continue
            assert len(content) == patch.member.size <= MAX_MEMBER_BYTES
    finally:
        archives.close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image": fuzz_image,
    "label": fuzz_label,
    "outlines": fuzz_outlines,
    "zip": fuzz_zip,
    "tar": fuzz_tar,
    "index": fuzz_index,
    "listing": fuzz_listing,
}
