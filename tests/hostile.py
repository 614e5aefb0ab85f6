"""Archives and images as nobody should write them: a corpus, made by hand.

Each entry builds a folder of data in which one patch (or one archive) is bad, and says what must be
told of it.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.factories import make_archive, png

BAD = "bad_448_x0_y0.png"


@dataclass
class Entry:
    """A zip member whose every field may lie; None: the truth."""

    name: bytes
    content: bytes = b""
    packed: bytes | None = None
    method: int = 0
    flags: int = 0
    crc32: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    offset: int | None = None
    volume: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    extra: bytes = b""


def write_zip(path: Path, entries: list[Entry], comment: bytes = b"") -> Path:
    """Write members as they claim to be."""
    body, directory = b"", b""
    for entry in entries:
        packed = entry.content if entry.packed is None else entry.packed
        crc = zlib.crc32(entry.content) if entry.crc32 is None else entry.crc32
        size = len(entry.content) if entry.size is None else entry.size
        compressed = len(packed) if entry.compressed_size is None else entry.compressed_size
        offset = len(body) if entry.offset is None else entry.offset
        shared = (entry.flags, entry.method, 0, 0, crc, compressed, size)
        local_name = entry.name if entry.local_name is None else entry.local_name
        local_method = entry.method if entry.local_method is None else entry.local_method
        local = (entry.flags, local_method, 0, 0, crc, compressed, size)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *local, len(local_name), 0)
        body += local_name + packed
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\1\2", 20, 20, *shared, len(entry.name), len(entry.extra)),
            *(0, entry.volume, 0, 0, offset),
        )
        directory += entry.name + entry.extra
    counts = (len(entries), len(entries), len(directory), len(body), len(comment))
    path.write_bytes(
        body + directory + struct.pack("<4s2H2H2LH", b"PK\5\6", 0, 0, *counts) + comment
    )
    return path


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def among_good(folder: Path, bad: Entry) -> None:
    """One archive with a bad member between good ones."""
    good = [Entry(f"good_{n}_448_x0_y{n}.png".encode(), png(32, seed=n)) for n in range(3)]
    write_zip(folder / "slide.zip", [good[0], bad, *good[1:]])


def member(**lies: object) -> Callable[[Path], None]:
    fields = {"name": BAD.encode(), "content": png(32, seed=9), **lies}
    return lambda folder: among_good(folder, Entry(**fields))  # type: ignore[arg-type]


def png_claiming(width: int, height: int, colour: int = 2) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, 8, colour, 0, 0, 0)
    check = struct.pack(">L", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + b"IHDR" + header + check + png()[33:]


def png_of_zeros(num_bytes: int) -> bytes:
    """A small PNG whose stream of pixels inflates to far more than its header says."""
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", 32, 32, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(num_bytes), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def tiff_claiming(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(stream, format="TIFF")
    return tiff_with(stream.getvalue(), {256: width, 257: height})


def tiff_with(content: bytes, tags: dict[int, int]) -> bytes:
    """A little-endian TIFF whose first page has other numbers in some tags."""
    changed = bytearray(content)
    (at,) = struct.unpack_from("<L", changed, 4)
    (count,) = struct.unpack_from("<H", changed, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", changed, place)
        if tag in tags:
            struct.pack_into("<HHLL", changed, place, tag, 4, 1, tags[tag])
    return bytes(changed)


def many_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    stream = io.BytesIO()
    pixels = np.zeros((64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stream, format="JPEG", progressive=True)
    content = stream.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + b"\xff\xd9"


def overlapping(folder: Path) -> None:
    """Two names for the same bytes, and a member that swallows the header of the next."""
    first = Entry(b"a_448_x0_y0.png", png(32, seed=1))
    second = Entry(b"b_448_x0_y0.png", png(32, seed=2))
    swallowing = len(first.content) + 30 + len(second.name)
    first.compressed_size = swallowing
    good = [Entry(f"good_{n}_448_x0_y{n}.png".encode(), png(32, seed=n)) for n in range(3)]
    write_zip(folder / "slide.zip", [first, second, *good])


def zip64(size: int) -> bytes:
    return struct.pack("<2H2Q", 1, 16, size, size)


def tar_with(folder: Path, *infos: tarfile.TarInfo) -> None:
    with tarfile.open(folder / "slide.tar", "w") as archive:
        for number in range(3):
            content = png(32, seed=number)
            info = tarfile.TarInfo(f"good_{number}_448_x0_y0.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in infos:
            archive.addfile(info)


def tar_link(kind: bytes, target: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        info = tarfile.TarInfo(BAD)
        info.type, info.linkname = kind, target
        tar_with(folder, info)

    return build


def truncated_tar(folder: Path) -> None:
    info = tarfile.TarInfo(BAD)
    info.size = 5000
    tar_with(folder)
    content = (folder / "slide.tar").read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512) + info.tobuf() + bytes(700)
    (folder / "slide.tar").write_bytes(content)


def in_folder(build: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for number in range(3):
            (folder / f"good_{number}_448_x0_y0.png").write_bytes(png(32, seed=number))
        build(folder / BAD)

    return write


def beside_good(build: Callable[[Path], object]) -> Callable[[Path], None]:
    """A bad archive beside a good one."""

    def write(folder: Path) -> None:
        make_archive(folder / "good.zip", num_patches=4)
        build(folder / "bad.zip")

    return write


def half(path: Path) -> None:
    content = make_archive(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def two_disagree(path: Path) -> None:
    content = bytearray(make_archive(path).read_bytes())
    content[-12] ^= 1  # number of entries
    path.write_bytes(content)


def compressed_tar(path: Path) -> None:
    with tarfile.open(path.with_suffix(".tar"), "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x_448_.png"))


def last_of_two_volumes(path: Path) -> Path:
    """The part of a split zip that holds the directory, with the first part beside it."""
    names = [f"p{number}_448_x{number}_y0.png".encode() for number in range(4)]
    write_zip(path, [Entry(name, png(8), volume=1) for name in names])
    content = bytearray(path.read_bytes())
    struct.pack_into("<2H", content, len(content) - 18, 1, 1)
    path.write_bytes(content)
    path.with_suffix(".z01").write_bytes(bytes(100))
    return path


def count_that_wraps(path: Path, surplus: int) -> int:
    """More members than 16 bits count and no ZIP64, as macOS writes; how many there are."""
    count = (1 << 16) + surplus
    content = png(1)
    crc, body, directory = zlib.crc32(content), bytearray(), bytearray()
    for number in range(count):
        name = f"p{number}_448_x{number}_y0.png".encode()
        facts = (20, 0, 0, 0, 0, crc, len(content), len(content), len(name))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *facts, 0, 0, 0, 0, 0, len(body))
        directory += name
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *facts, 0) + name + content
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, surplus, surplus, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return count


def offsets_that_wrap(path: Path) -> dict[str, bytes]:
    """Members on both sides of 4 GiB and no ZIP64, with a hole between; what they hold."""
    contents = {f"p{number}_448_x{number}_y0.png": png(8, seed=number) for number in range(4)}
    directory = b""
    with path.open("wb") as file:
        for number, (name, content) in enumerate(contents.items()):
            if number == 2:
                file.seek((1 << 32) + 7)
            facts = (20, 0, 0, 0, 0, zlib.crc32(content), len(content), len(content), len(name))
            place = file.tell() % (1 << 32)
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *facts, 0, 0, 0, 0, 0, place)
            directory += name.encode()
            file.write(struct.pack("<4s5H3L2H", b"PK\3\4", *facts, 0) + name.encode() + content)
        start = file.tell() % (1 << 32)
        file.write(directory)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, len(directory), start, 0))
    return contents


@dataclass(frozen=True)
class Case:
    """How a folder of data is made, and the reason that must be told of its bad patch."""

    build: Callable[[Path], object]
    reason: str
    names: tuple[str, ...] = field(default=(BAD,))


PATCHES = {
    "wrong CRC": Case(member(crc32=1), "wrong CRC"),
    "another name in the local header": Case(
        member(local_name=BAD.encode()[:-5] + b"1.png"), "disagrees"
    ),
    "another method in the local header": Case(member(local_method=8), "disagrees"),
    "encrypted": Case(member(flags=1), "encrypted"),
    "strong encryption": Case(member(method=99), "unknown compression method 99"),
    "a method as large as a refusal": Case(member(method=251), "unknown compression method"),
    "a method beyond a byte": Case(member(method=0x1234), "unknown compression method"),
    "4 GiB declared": Case(member(size=0xFFFFFFFE), "declares 4294967294 bytes"),
    "4 GiB packed": Case(member(compressed_size=0xFFFFFFFE), "reaches beyond"),
    "2^63 in ZIP64": Case(
        member(size=0xFFFFFFFF, compressed_size=0xFFFFFFFF, extra=zip64(1 << 63)), "reaches beyond"
    ),
    "no ZIP64 record at all": Case(member(offset=0xFFFFFFFF), "reaches beyond"),
    "an offset in another member": Case(
        member(offset=1), "overlaps|no member", (BAD, "good_0_448_x0_y0.png")
    ),
    "not of the declared size": Case(
        member(method=8, packed=deflated(png(32, 9)), size=77), "size"
    ),
    "a deflate bomb": Case(
        member(method=8, packed=deflated(bytes(64 << 20)), crc32=0, size=4096), "declared size"
    ),
    "no deflate stream": Case(member(method=8, packed=b"\xff" * 90), "inflated"),
    "overlapping members": Case(overlapping, "overlaps another member", ("a_448_x0_y0.png",)),
    "a name that leads out": Case(
        member(name=b"../../etc/bad_448_x0_y0.png"), "its name", ("../../etc/bad_448_x0_y0.png",)
    ),
    "an absolute name": Case(
        member(name=b"/etc/bad_448_x0_y0.png"), "its name", ("/etc/bad_448_x0_y0.png",)
    ),
    "a NUL in the name": Case(
        member(name=b"bad\0_448_x0_y0.png"), "its name", ("bad\0_448_x0_y0.png",)
    ),
    "no image": Case(member(content=b"just text"), "not a PNG"),
    "an empty file": Case(member(content=b""), "not a PNG"),
    "half a PNG": Case(member(content=png(32)[:900]), "not a whole PNG"),
    "a PNG bomb by its header": Case(member(content=png_claiming(1 << 20, 1 << 20)), "more than"),
    "a PNG bomb for Pillow": Case(
        member(content=png_claiming(50000, 50000, colour=6)), "larger|more"
    ),
    "a TIFF bomb": Case(member(content=tiff_claiming(60000, 60000)), "larger|more than"),
    "a JPEG of too many scans": Case(member(content=many_scans(500)), "scans"),
    "a symbolic link in a tar": Case(tar_link(tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
    "a hard link in a tar": Case(tar_link(tarfile.LNKTYPE, "../../etc/passwd"), "is a link"),
    "a device in a tar": Case(tar_link(tarfile.CHRTYPE, ""), "is a link"),
    "a tar that is cut short": Case(truncated_tar, "reaches beyond"),
    "a FIFO among files": Case(in_folder(os.mkfifo), "no regular file"),
    "a device among files": Case(
        in_folder(lambda path: path.symlink_to("/dev/zero")), "no regular file"
    ),
    "a link to nothing among files": Case(
        in_folder(lambda path: path.symlink_to("gone")), "is a link"
    ),
}

ARCHIVES = {
    "a truncated archive": Case(beside_good(half), "no end-of-directory record"),
    "an archive of zeros": Case(beside_good(lambda path: path.write_bytes(bytes(5000))), "no end"),
    "an empty archive file": Case(beside_good(lambda path: path.touch()), "no end-of-directory"),
    "a directory that counts wrongly": Case(beside_good(two_disagree), "names 5 entries"),
    "a FIFO": Case(beside_good(os.mkfifo), "no regular file"),
    "a device": Case(beside_good(lambda path: path.symlink_to("/dev/zero")), "no regular file"),
    "a link to nothing": Case(beside_good(lambda path: path.symlink_to("gone")), "cannot be read"),
    "a compressed tar": Case(beside_good(compressed_tar), "is no tar"),
    "one part of several": Case(beside_good(last_of_two_volumes), r"one part.*zip -s 0"),
}


def readable_oddities(path: Path) -> dict[str, bytes]:
    """An archive of names that are odd and harmless, with what it holds."""
    names = [
        b"caf\xe9_448_x0_y0.png",  # Latin-1, as old tools write it
        "größe_448_x0_y0.png".encode(),
        b"\x1b[31mred_448_x0_y0.png",
        b"a" * (65535 - len(b"_448_x0_y0.png")) + b"_448_x0_y0.png",
        b"PK\1\2_448_x0_y0.png",
    ]
    contents = {name: png(16, seed=number) for number, name in enumerate(names)}
    entries = [Entry(name, content) for name, content in contents.items()]
    write_zip(path, entries, comment=b"PK\5\6 is how an archive ends" + bytes(100))
    return {name.decode("utf-8", "surrogateescape"): content for name, content in contents.items()}


def streamed(path: Path) -> None:
    """A zip with data descriptors, as writers make it that cannot go back."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"p_{number}_448_x0_y0.png", png(16, seed=number))
    path.write_bytes(pipe.getvalue())


#: What OME-TIFF says of three channels, each on a page of its own.
OME_PLANES = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" SizeX="14" SizeY="9" '
    'SizeC="3" SizeZ="1" SizeT="1" Type="uint8"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
    '<TiffData IFD="0" FirstC="0" PlaneCount="1"/><TiffData IFD="1" FirstC="1" PlaneCount="1"/>'
    '<TiffData IFD="2" FirstC="2" PlaneCount="1"/></Pixels></Image></OME>'
)


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What is seen of an array (H, W, ...) that is stored with an orientation tag (1 to 8)."""
    if orientation > 4:
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return stored
