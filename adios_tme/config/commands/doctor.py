"""What is looked at before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from adios_tme.config.base import Config, Flag


class DoctorConfig(Config):
    """Check this machine before a run: versions, devices, kernels, processes, disks and data.

    Each line is ok, warn or fail, and says what to do. The exit code is 1 if any line fails. It
    takes about a minute, most of it for starting processes and for three training steps on
    generated tissue; nothing is left behind.
    """

    data_path: Path | None = None
    """Folder of patches whose index and reading speed are looked at; absent: not looked at."""

    output_dir: Path = Path()
    """Folder whose writing speed and room are looked at; made if it is not there."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the training steps run; auto: CUDA when there is one."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the lines as JSON instead of a table."""
