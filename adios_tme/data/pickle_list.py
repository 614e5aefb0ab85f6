"""The pickled lists of older trainers, read without unpickling and written for them.

``dataset_index.pkl`` is a list of ``(archive path, [member names])``; beside it stands
``dataset_index_metadata.pkl``, a dictionary of plain values. Reading interprets the few opcodes
that make lists, tuples, strings and integers; nothing in here can import a name or call one,
whatever the file says.
"""

from __future__ import annotations

import functools
import pickle
import pickletools
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

from adios_tme.errors import DataError
from adios_tme.files import replacing, writing

Listing = list[tuple[str, list[str]]]
Metadata = dict[str, "str | int | float | bool | None"]

MAX_LISTING_BYTES = 4 << 30
_MARK = object()
_PUSH = (
    *("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
)
_PUSH_PLAIN = ("FLOAT", "BINFLOAT")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NOTHING_TO_DO = ("PROTO", "FRAME")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def metadata_path(path: Path) -> Path:
    """Where the metadata of a list is, or would go."""
    return path.with_name(f"{path.stem}_metadata.pkl")


def read_listing(path: Path) -> Listing:
    """Read a list of archives and their members.

    Raises:
        DataError: If it is damaged, holds anything but such a list, or cannot be read.
    """
    content = _content(path)
    value = _value(content, path, plain_values=False)
    if not _is_listing(value, most_names=len(content)):
        raise _refused(path, "it is no list of (archive path, [member names])")
    return value


def read_metadata(path: Path) -> Metadata:
    """Read the metadata beside a list; empty where there is none.

    Args:
        path: The list.

    Raises:
        DataError: If it is damaged, holds anything but plain values, or cannot be read.
    """
    place = metadata_path(path)
    if not place.exists():
        return {}
    value = _value(_content(place), place, plain_values=True)
    plain = (str, int, float, bool, type(None))
    if not isinstance(value, dict) or not all(isinstance(each, plain) for each in value.values()):
        raise _refused(place, "it is no dictionary of plain values")
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


def _value(content: bytes, path: Path, *, plain_values: bool) -> Any:
    try:
        return _Machine(plain_values).run(content)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise _refused(path, " ".join(str(error).split())[:120] or "it is damaged") from error


def _refused(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: {reason}, so the list is not used. "
        f"Remove it, or write it again with adios-tme index --format pickle."
    )


class _Machine:
    """A stack machine for the harmless opcodes of the pickle protocols.

    Args:
        plain_values: Whether dictionaries, floats, truth values and None are admitted as well.
    """

    def __init__(self, plain_values: bool) -> None:
        self._plain_values = plain_values
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._actions = self._known_actions()

    def run(self, content: bytes) -> Any:
        """The value of a pickle.

        Raises:
            ValueError: On any other opcode, and on a damaged pickle.
        """
        for opcode, argument, _ in _opcodes(content):
            if opcode == "STOP":
                break
            if opcode in _NOTHING_TO_DO:
                continue
            if opcode not in self._actions:
                raise ValueError(f"it uses the pickle opcode {opcode}")
            self._actions[opcode](argument)
        (value,) = self._stack
        return value

    def _known_actions(self) -> dict[str, Callable[[Any], None]]:
        push = self._stack.append
        actions: dict[str, Callable[[Any], None]] = dict.fromkeys(_PUSH, push)
        actions |= {
            "MARK": lambda _: push(_MARK),
            "EMPTY_LIST": lambda _: push([]),
            "LIST": lambda _: push(self._since_mark()),
            "TUPLE": lambda _: push(tuple(self._since_mark())),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda at: push(self._memo[at])),
        }
        for opcode, length in _TUPLES.items():
            actions[opcode] = functools.partial(self._push_tuple, length)
        if self._plain_values:
            actions |= dict.fromkeys(_PUSH_PLAIN, push)
            for opcode, value in _CONSTANTS.items():
                actions[opcode] = functools.partial(self._push_constant, value)
            actions |= {
                "EMPTY_DICT": lambda _: push({}),
                "DICT": lambda _: push(_paired(self._since_mark())),
                "SETITEM": lambda _: self._update(self._last(2)),
                "SETITEMS": lambda _: self._update(self._since_mark()),
            }
        return actions

    def _push_tuple(self, length: int, _: Any) -> None:
        self._stack.append(tuple(self._last(length)))

    def _push_constant(self, value: bool | None, _: Any) -> None:
        self._stack.append(value)

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("its stack runs empty")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        taken = []
        while (value := self._stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def _remember(self, at: int) -> None:
        self._memo[at] = self._stack[-1]

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("it appends to something that is no list")
        self._stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise ValueError("it sets items of something that is no dictionary")
        self._stack[-1].update(_paired(values))


def _opcodes(content: bytes) -> Iterator[tuple[str, Any, int | None]]:
    for opcode, argument, at in pickletools.genops(BytesIO(content)):
        yield opcode.name, argument, at


def _paired(values: list[Any]) -> dict[str, Any]:
    if not all(isinstance(key, str) for key in values[::2]):
        raise ValueError("it has a key that is no string")
    return dict(zip(values[::2], values[1::2], strict=True))
