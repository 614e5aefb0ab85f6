"""The pickled lists of older trainers: read without running what they say, and written for them.

``dataset_index.pkl`` is a list of ``(archive path, [member names])``; beside it stands
``dataset_index_metadata.pkl``, a dictionary of plain values, which is only written. The standard
library's reader is left with the few opcodes that make lists, tuples, strings and integers; none of
those can import a name or call one, whatever the file says.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from adios_tme.errors import DataError
from adios_tme.files import replacing, writing

Listing = list[tuple[str, list[str]]]
Metadata = dict[str, "str | int | float | bool | None"]

MAX_LISTING_BYTES = 4 << 30
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
#: What damaged bytes raise in the standard library's reader.
_DAMAGE = (
    *(pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError, AttributeError),
    *(LookupError, OverflowError, MemoryError),
)


def metadata_path(path: Path) -> Path:
    """Where the metadata of a list is, or would go."""
    return path.with_name(f"{path.stem}_metadata.pkl")


def read_listing(path: Path) -> Listing:
    """Read a list of archives and their members.

    Raises:
        DataError: If it is damaged, holds anything but such a list, or cannot be read.
    """
    content = _content(path)
    value = _value(content, path)
    if not _is_listing(value, most_names=len(content)):
        raise _refused(path, "it is no list of (archive path, [member names])")
    return value


def write_listing(listing: Listing, metadata: Metadata, path: Path) -> None:
    """Write a list and its metadata as older trainers read them.

    Raises:
        DataError: If they cannot be written.
    """
    with writing(path):
        for place, value in ((path, listing), (metadata_path(path), metadata)):
            with replacing(place) as partial:
                partial.write_bytes(pickle.dumps(value))


def _is_listing(value: object, most_names: int) -> TypeGuard[Listing]:
    if not isinstance(value, list) or not all(map(_is_entry, value)):
        return False
    # A pickle may name one list many times over, so that a small file would become a large one.
    if sum(len(names) for _, names in value) > most_names:
        return False
    return all(isinstance(name, str) for _, names in value for name in names)


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, (tuple, list))
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], (list, tuple))
    )


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_LISTING_BYTES:
            raise _refused(path, f"it is larger than {MAX_LISTING_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the list cannot be read ({error.strerror}). Give another data path."
        ) from error


def _value(content: bytes, path: Path) -> Any:
    try:
        # The 8-bit strings of Python 2, of whose letters nothing is known.
        return _ListingReader(BytesIO(content), encoding="latin-1").load()
    except _DAMAGE as error:
        raise _refused(path, " ".join(str(error).split())[:120] or "it is damaged") from error


def _refused(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: {reason}, so the list is not used. "
        f"Remove it, or write it again with adios-tme index --format pickle."
    )


class _Admitted(dict[int, Callable[[Any], None]]):
    """What is done at each opcode; any that is not there is refused by its name."""

    @classmethod
    def of(cls, *names: str) -> _Admitted:
        """The standard library's actions for some opcodes."""
        known = pickle._Unpickler.dispatch
        return cls((code, known[code]) for code, name in _OPCODES.items() if name in names)

    def __missing__(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError(f"it uses the pickle opcode {_OPCODES.get(code, code)}")


class _ListingReader(pickle._Unpickler):
    """Reads lists, tuples, strings and integers."""

    dispatch = _Admitted.of(
        *("PROTO", "FRAME", "MARK", "STOP"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"),
        *("BINSTRING", "SHORT_BINSTRING", "STRING"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    )
