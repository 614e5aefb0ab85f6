"""Files as a command leaves them: tried before long work, whole or as they were, failures told."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adios_tme.errors import ConfigError, DataError

#: What stands in every folder that a run has written to.
RUN_FILES = frozenset({"config.yaml", "environment.json", "train.log"})
#: What pictures that we draw say of themselves, so that they are never taken for data.
PNG_METADATA = {"Software": "adios_tme"}


def check_output(path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Raise unless a file can be written there; leaves no trace.

    Args:
        path: The file; its folders may be missing.
        suffixes: With which its name may end, in lower case; none: with any.

    Raises:
        ConfigError: If its name ends otherwise.
        DataError: If it cannot be written.
    """
    if suffixes:
        check_suffix(path, suffixes)
    with writing(path):
        if path.is_file() or path.is_dir():
            path.open("ab").close()
        elif not path.exists():  # a pipe or a device is not tried: opening it would wait
            folder = next(parent for parent in path.parents if parent.exists())
            tempfile.TemporaryFile(dir=folder).close()


def check_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    """Raise unless a file's name ends in one of some suffixes.

    Raises:
        ConfigError: Naming the suffixes.
    """
    if path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"{path}: is of no kind that can be written here. "
            f"Give a name that ends in {' or '.join(suffixes)}."
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file in place of the one that is there; it is whole or as it was.

    The block writes to the name that it is given; once it ends, that file takes the place of the
    other in one step. After an error, or a kill, the file that was there is untouched.

    Raises:
        OSError: If it cannot be written.
    """
    partial = partial_name(path)
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Write files into a folder; they are all there or none is.

    The block writes into the folder that it is given. Once it ends, that folder becomes the new one
    in one step; into one that exists its files are moved, each in one step, beside what is there.

    Raises:
        OSError: If they cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            for file in sorted(partial.iterdir()):
                file.replace(path / file.name)
        else:
            partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_name(path: Path, part: str = "") -> Path:
    """Name for a file that is not whole yet: hidden, and of this process alone.

    Args:
        path: The file that it becomes.
        part: Tells several for the same file apart.
    """
    return path.with_name(f".{path.name}.{os.getpid()}{part and '.'}{part}.partial")


def write_whole(path: Path, text: str) -> None:
    """Write a text in place of the file that is there; see `replacing`.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def writing(path: Path, advice: str = "Give another path.") -> Iterator[None]:
    """Turn what the disk refuses while the block writes a file or folder into a message.

    Args:
        path: What is written.
        advice: What its user should do.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). {advice}"
        ) from error
