"""Pickled lists: read without unpickling, so that no gadget can run."""

from __future__ import annotations

import builtins
import collections
import copyreg
import functools
import io
import os
import pickle
import pickletools
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index_builder import (
    build_index,
    index_archives,
    listing_of,
    write_pickle,
)
from adios_tme.data.pickle_list import metadata_path, read_listing, write_listing
from adios_tme.errors import DataError
from tests.factories import make_dataset

LISTING = [("a.zip", ["x.png", "ü.png", "x.png"]), ("b/c.zip", []), ("d.zip", ["y.png"])]


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class WithState:
    """Pickles with a state that unpickling would set."""

    def __init__(self) -> None:
        self.value = 1


GADGETS: dict[str, bytes] = {
    f"{name}, protocol {protocol}": pickle.dumps([("a.zip", [gadget])], protocol)
    for name, gadget in {
        "os.system": Calls(os.system, "touch {mark}"),
        "subprocess": Calls(subprocess.call, ["touch", "{mark}"]),
        "eval": Calls(builtins.eval, "open('{mark}', 'w')"),
        "exec": Calls(builtins.exec, "open('{mark}', 'w')"),
        "import": Calls(builtins.__import__, "os"),
        "getattr": Calls(getattr, "", "join"),
        "partial": functools.partial(os.system, "touch {mark}"),
        "a class": collections.OrderedDict,
        "an instance": collections.OrderedDict(a=1),
        "a state": WithState(),
        "bytes": b"bytes",
        "a bytearray": bytearray(b"x"),
        "a set": {1},
        "a complex number": 1j,
        "a path": Path("x"),
    }.items()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
} | {
    "GLOBAL and REDUCE by hand": b"cos\nsystem\n(S'touch {mark}'\ntR.",
    "INST": b"(S'touch {mark}'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch {mark}'\no.",
    "NEWOBJ": b"\x80\x02cos\nsystem\nU\x0ctouch {mark}\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch {mark}\x85R.",
    "BUILD": b"\x80\x02]}b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a persistent id": b"Pid\n.",
    "a binary persistent id": b"\x80\x02U\x01xQ.",
    "an out-of-band buffer": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05]\x98.",
}


@pytest.mark.parametrize("content", GADGETS.values(), ids=list(GADGETS))
def test_gadgets_are_refused_and_do_not_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(copyreg._inverted_registry, 1, ("os", "system"))  # type: ignore[attr-defined]
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="the list is not used"):
        read_listing(path)
    assert [found.name for found in tmp_path.iterdir()] == ["dataset_index.pkl"]


def test_every_other_opcode_is_refused_by_name(tmp_path: Path) -> None:
    """No opcode that can name, call, build or fetch anything has an action."""
    from adios_tme.data.pickle_list import _ListingReader

    dangerous = {
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
        *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    }
    names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    assert dangerous <= set(names.values())
    assert not dangerous & {names[code] for code in _ListingReader.dispatch}
    for code in pickle._Unpickler.dispatch.keys() - _ListingReader.dispatch.keys():
        with pytest.raises(pickle.UnpicklingError, match=names[code]):
            _ListingReader(io.BytesIO(bytes([code]))).load()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(pickle.dumps(LISTING, protocol))
    assert read_listing(path) == LISTING


def test_what_is_written_is_read_by_pickle_and_by_us(tmp_path: Path) -> None:
    path = tmp_path / "dataset_index.pkl"
    write_listing(LISTING, {"num_patches": 4}, path)
    assert pickle.loads(path.read_bytes()) == read_listing(path) == LISTING
    assert pickle.loads(metadata_path(path).read_bytes()) == {"num_patches": 4}


@pytest.mark.parametrize(
    "value",
    [7, "a.zip", {"a.zip": ["x"]}, [("a.zip",)], [("a.zip", "names")], [(1, ["x"])], [("a", [2])]],
)
def test_anything_but_a_list_of_archives_is_refused(value: object, tmp_path: Path) -> None:
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match="the list is not used"):
        read_listing(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]r\xff\xff\xff\xff.",  # a memo of four billion places
        b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little"),  # a string without end
        b"\x80\x04\x95" + (1 << 63).to_bytes(8, "little") + b"].",  # a frame without end
        b"L" + b"9" * 100_000 + b"L\n.",  # a number of many digits
        b"\x80\x04" + b"(" * 10_000 + b".",
        b"\x80\x02]q\x00" + b"h\x00a" * 10_000 + b".",  # a list of itself
        b"\x80\x02)" + b"\x85" * 100_000 + b"K\x01s.",  # a deep tuple as a key
        b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
        b"",
        b".",
        b"]",
    ],
)
def test_bombs_are_refused_at_once(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(content)
    try:
        value = read_listing(path)
    except DataError:
        return
    assert value == []


@pytest.mark.timeout(20)
def test_one_list_named_many_times_is_refused(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(10_000)]
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(pickle.dumps([(f"{number}.zip", names) for number in range(10_000)]))
    assert path.stat().st_size < 1 << 20  # for a hundred million names
    with pytest.raises(DataError, match="no list of"):
        read_listing(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(content: bytes) -> None:
    from adios_tme.data.pickle_list import _value

    with suppress(DataError):
        _value(content, Path("x.pkl"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_read(at: int, value: int) -> None:
    from adios_tme.data.pickle_list import _value

    content = bytearray(pickle.dumps(LISTING))
    content[at % len(content)] = value
    with suppress(DataError):
        _value(bytes(content), Path("x.pkl"))


def test_a_list_is_a_data_path(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_archives=2, num_patches=3)
    whole = build_index(tmp_path / "data")
    path = tmp_path / "moved" / "dataset_index.pkl"
    path.parent.mkdir()
    write_pickle(whole, path)
    listing = read_listing(path)
    write_listing([(listing[0][0], listing[0][1][1:])], {}, path)
    index = build_index(path)
    assert index.path.name == "dataset_index.pkl.safetensors"
    assert [index.patch(row).member.name for row in range(len(index))] == listing[0][1][1:]
    assert PatchDataset(index).content(0) == PatchDataset(whole).content(1)
    write_listing(listing, {}, path)
    assert len(build_index(path)) == 6  # another list is another index


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a" * 300 + ".zip", "File name too long"),
        ("nul\0.zip", "no file can have such a name"),
        ("half\ud800.zip", "no file can have such a name"),
    ],
    ids=["too long", "nul", "half a character"],
)
def test_a_name_that_no_file_can_have_is_told(name: str, reason: str, tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=1, num_patches=2)
    (entry,) = listing_of(build_index(tmp_path))
    path = tmp_path / "dataset_index.pkl"
    path.write_bytes(pickle.dumps([entry, (name, ["x.png"])]))
    report = index_archives(path, num_workers=2)
    assert len(report.index) == 2
    assert [reason in fault.message for fault in report.faults] == [True]
    path.write_bytes(pickle.dumps([(name, ["x.png"])]))
    with pytest.raises(DataError, match=rf"no archive can be read.*{reason}"):
        build_index(path)
