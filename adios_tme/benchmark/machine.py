"""What the machine can do: its matrix peak, and the memory that is used."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

#: Side of the square product that stands for the matrix peak.
PEAK_SIDE = {"cpu": 2048, "cuda": 8192}
PEAK_REPEATS = 7


class GroupFiles(NamedTuple):
    """Names of what a control group says about memory."""

    limit: str
    used: str
    cache: str
    """Key of the page cache in ``memory.stat``."""


GROUP_V1 = GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
GROUP_V2 = GroupFiles("memory.max", "memory.current", "file")


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large square matrix product: what networks could reach at best."""
    side = PEAK_SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    left @ right
    seconds = [_seconds(lambda: left @ right, device) for _ in range(PEAK_REPEATS)]
    return 2 * side**3 / min(seconds)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def total_memory(device: torch.device) -> int | None:
    """Bytes that this process could have in all; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    available, own = _kib("/proc/meminfo", "MemAvailable"), _kib("/proc/self/status", "VmRSS")
    if available is None or own is None:
        return None
    rooms = [available * 1024, *_rooms_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    return min(rooms) + own * 1024


def _rooms_of_groups(listed: Path, root: Path) -> Iterator[int]:
    """Bytes that are left below the limits of jobs and containers, which /proc/meminfo ignores.

    Args:
        listed: The control groups of this process, as ``/proc/self/cgroup`` has them.
        root: Where the system shows control groups.
    """
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            files, base = GROUP_V2, root
        elif controllers == "memory":
            files, base = GROUP_V1, root / "memory"
        else:
            continue
        group = base / path.lstrip("/")
        for each in (group, *group.parents):
            if each.is_relative_to(base) and (room := _room_of_group(each, files)) is not None:
                yield room


def _room_of_group(group: Path, files: GroupFiles) -> int | None:
    """What a group may still take; None without a limit. Its page cache gives way."""
    limit, used, stat = (group / name for name in (files.limit, files.used, "memory.stat"))
    if not (limit.exists() and used.exists() and stat.exists()):
        return None
    most = limit.read_text().strip()
    if most == "max":
        return None
    counts = dict(line.split() for line in stat.read_text().splitlines())
    return int(most) - max(0, int(used.read_text()) - int(counts.get(files.cache, 0)))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory was missing, which torch tells by a type on CUDA, by a message on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


class PeakMemory:
    """Most bytes in use since it was made, beyond those in use then.

    On CUDA torch's allocator knows. On Linux it is resident memory, whose high-water mark the
    system keeps; elsewhere it is not known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._before: int | None = torch.cuda.memory_allocated(device)
        else:
            self._before = _reset_high_water()

    def read(self) -> int | None:
        """The bytes; None where the system does not tell."""
        if self._before is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        peak = peak_resident()
        return peak - self._before if peak is not None else None


def peak_resident() -> int | None:
    """Most bytes that were resident in this process since its start; None where nobody knows."""
    peak = _kib("/proc/self/status", "VmHWM")
    return peak * 1024 if peak is not None else None


def _reset_high_water() -> int | None:
    """Give freed pages back, start the mark anew, and return what stays resident."""
    if sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    resident = _kib("/proc/self/status", "VmRSS")
    return resident * 1024 if resident is not None else None


def _kib(path: str, name: str) -> int | None:
    """A line such as ``VmHWM:  1234 kB`` of a file of Linux's."""
    if not Path(path).exists():
        return None
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None
