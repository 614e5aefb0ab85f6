"""Central directories and single members, beside the standard library's zipfile."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from adios_tme.data.archive import read_directory, read_member
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.members import Member
from adios_tme.errors import DataError
from tests.factories import make_archive, png
from tests.hostile import count_that_wraps, offsets_that_wrap


def members(path: Path) -> list[Member]:
    directory = read_directory(path)
    return [directory.member(row) for row in range(len(directory))]


def read(path: Path, member: Member) -> bytes:
    handle = os.open(path, os.O_RDONLY)
    try:
        return read_member(handle, member)
    finally:
        os.close(handle)


@pytest.mark.parametrize("length", [15, 21])
def test_a_file_shorter_than_an_end_record_is_named(length: int, tmp_path: Path) -> None:
    path = tmp_path / "short.zip"
    path.write_bytes(b"......PK\5\6".ljust(length, b"\0"))
    with pytest.raises(DataError, match=r"short\.zip: .*it has no end-of-directory record"):
        read_directory(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_member_reads_as_zipfile_reads_it(method: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    contents = {"one.png": png(8), "folder/PK\x01\x02 tricky.png": b"PK\x01\x02" * 40, "ü.png": b""}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    assert {member.name: read(path, member) for member in members(path)} == contents


def test_zip64_records_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("x.png", "w", force_zip64=True) as file,
    ):
        file.write(b"content")
    # zipfile writes the wide fields to the local header; put them into the directory as well.
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")
    extra = struct.pack("<2H3Q", 1, 24, 7, 7, 0)
    content[at + 20 : at + 28] = b"\xff" * 8
    content[at + 42 : at + 46] = b"\xff" * 4
    content[at + 30 : at + 32] = len(extra).to_bytes(2, "little")
    name_end = at + 46 + len("x.png")
    content[name_end:name_end] = extra
    end = content.rindex(b"PK\5\6")
    size = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    content[end + 12 : end + 16] = size.to_bytes(4, "little")
    path.write_bytes(content)
    (member,) = members(path)
    assert (member.offset, member.size) == (0, 7)
    assert read(path, member) == b"content"


def test_an_empty_archive_has_no_members(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    assert members(tmp_path / "a.zip") == []


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.01])
def test_a_truncated_archive_is_named(keep: float, tmp_path: Path) -> None:
    path = make_archive(tmp_path / "slide.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"slide\.zip: .*cannot be read"):
        read_directory(path)


def test_bytes_before_the_archive_are_refused(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "slide.zip")
    path.write_bytes(b"junk" + path.read_bytes())
    with pytest.raises(DataError, match="4 bytes stand before it"):
        read_directory(path)


def test_damage_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(1000))
    (member,) = members(path)
    whole = path.read_bytes()
    start = 30 + len("x.png")

    def after(change: bytes, at: int, member: Member = member) -> str:
        path.write_bytes(whole[:at] + change + whole[at + len(change) :])
        with pytest.raises(CorruptPatchError) as caught:
            read(path, member)
        return str(caught.value)

    assert "inflated" in after(b"\xff\xff\xff", start)
    assert "no member" in after(b"XX", 0)
    assert "encrypted" in after(b"\1", 6)
    assert "disagrees" in after(b"y", 30)
    assert "disagrees" in after(b"\0", 8)
    assert "unknown compression" in after(b"\x63", 8, member._replace(method=99))
    assert "CRC" in after(b"", 0, member._replace(crc32=member.crc32 ^ 1))
    assert "declared size" in after(b"", 0, member._replace(size=999))
    assert "declares" in after(b"", 0, member._replace(size=1 << 40))
    path.write_bytes(whole[: start + 3])
    with pytest.raises(CorruptPatchError, match="truncated"):
        read(path, member)


@pytest.mark.parametrize("surplus", [0, 300])
def test_more_members_than_sixteen_bits_count(surplus: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    count = count_that_wraps(path, surplus)
    directory = read_directory(path)
    assert len(directory) == count
    assert read(path, directory.member(count - 1)) == png(1)


def test_offsets_beyond_four_gibibytes_without_zip64(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    contents = offsets_that_wrap(path)
    assert {member.name: read(path, member) for member in members(path)} == contents
