"""Versions and machine, as they stand beside every run and every number.

torch is imported where it is asked, so that commands that need none can describe themselves, too.
"""

from __future__ import annotations

import platform
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adios_tme.version import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "timm", "xformers", "numpy", "pillow", "kornia-rs")


def environment() -> dict[str, Any]:
    """Versions, machine and command of this process."""
    import torch

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "adios_tme": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "gpus": gpus,
        "command": sys.argv,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Device, cores and versions, as they stand beside every number."""
    import torch

    facts: dict[str, Any] = {
        "adios_tme": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": metadata.version("timm"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
