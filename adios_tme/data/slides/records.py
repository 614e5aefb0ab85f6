"""``slides.jsonl``: what each archive of tiles was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adios_tme.data.patch import ArchiveEntry
from adios_tme.version import __version__

RECORDS_NAME = "slides.jsonl"


@dataclass
class Record:
    """What an archive of tiles was made from; a line of ``slides.jsonl``."""

    slide: str
    """Path of the slide, below the folder that was given where it lies there."""
    archive: str
    num_tiles: int
    num_unreadable: int
    unreadable: list[str]
    """Reasons, each once."""
    num_bytes: int
    slide_size: int
    slide_mtime: int
    width: int
    height: int
    slide_mpp: float
    mpp_source: str
    settings: dict[str, Any]
    version: str = __version__

    def is_of(self, archive: ArchiveEntry, settings: dict[str, Any], out: Path) -> bool:
        """Whether it tells of a slide as it is now, cut by these settings, whose archive is there.

        Args:
            archive: The slide.
            settings: As in the record.
            out: Folder of the archive.
        """
        same = (self.slide_size, self.slide_mtime) == (archive.size, archive.mtime)
        path = out / self.archive
        whole = path.is_file() and path.stat().st_size == self.num_bytes
        return same and self.settings == settings and whole


def read_records(path: Path) -> Iterator[Record]:
    """Records of earlier runs; those that are no whole record of this version are passed over."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Record(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut short when a process was killed, or of another version; it is cut again


def line_of(record: Record) -> str:
    """A record as it is written."""
    return json.dumps(asdict(record)) + "\n"
