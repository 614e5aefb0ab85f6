"""Small synthetic things that tests are made of; milliseconds to build."""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.benchmark.throughput.results import CaseResult, RunStepResult
from adios_tme.cli.app import main
from adios_tme.config.base import Config
from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.config.data import DataConfig
from adios_tme.config.load import build, nest
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.fork_server import SCRIPT, Forked, fork, run_forked, run_script

#: A process that has looked for CUDA devices, as imports do, cannot use them after a fork.
CAN_FORK = not torch.cuda.is_available()
#: Whatever is written to it finds no space left; on Linux.
FULL_DISK = Path("/dev/full")


def png(size_px: int = 32, seed: int = 0) -> bytes:
    """A PNG of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def make_archive(path: Path, num_patches: int = 4, size_px: int = 32, seed: int = 0) -> Path:
    """A zip archive in the training layout, patches named for 448 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(num_patches):
            name = f"patch_{number:03d}_448_x{number * 448}_y0.png"
            archive.writestr(name, png(size_px, seed=seed * 1000 + number))
    return path


def make_dataset(folder: Path, num_archives: int = 3, num_patches: int = 4) -> Path:
    """A folder of archives."""
    for number in range(num_archives):
        make_archive(folder / f"slide_{number:03d}.zip", num_patches, seed=number)
    return folder


#: A ViT-U-Net with as little in its encoder and its decoder as there can be.
VIT_UNET: dict[str, Any] = {
    "mask_model_type": "vit_unet",
    "mask_encoder_dim": 64,
    "mask_encoder_depth": 4,
    "mask_decoder_width": 64,
}


def tiny_settings(data_path: Path, output_dir: Path, **flags: Any) -> dict[str, Any]:
    """Flags of a run that takes milliseconds a step."""
    settings = {
        "data_path": data_path,
        "output_dir": output_dir,
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "drop_path_rate": 0.0,
        "tme_hidden_dim": 32,
        "tme_output_dim": 16,
        "mask_model_type": "adios",
        "crops_per_mask": 0,
        "batch_size_per_gpu": 4,
        "num_workers": 0,
        "total_iterations": 4,
        "warmup_iterations": 1,
        "lr": 1e-3,
        "save_freq": 2,
        "log_freq": 1,
        "viz_freq": 0,
        "report": False,
        "ignore_memory": True,  # counting it takes as long as such a run
        "device": "cpu",
    }
    if str(flags.get("arch")).startswith("timm:"):  # whose sizes are its own
        for name in ("patch_size", "embed_dim", "depth", "num_heads"):
            del settings[name]
    return settings | flags


def tiny_config(data_path: Path, output_dir: Path, **flags: Any) -> TrainConfig:
    """The settings tree of such a run."""
    return build(TrainConfig, nest(TrainConfig, tiny_settings(data_path, output_dir, **flags)))


def untrained_run(folder: Path, **flags: Any) -> Path:
    """The folder of a run with one checkpoint, of networks as they were drawn."""
    folder.mkdir(parents=True)
    world = World(0, 1, 0, 1, torch.device("cpu"))
    config = tiny_config(folder.parent / "patches", folder, **flags)
    write_checkpoint(Run.build(config, world).state(), folder)
    return folder


def run_of(**sections: Config) -> TrainConfig:
    """A run with some sections of settings, and defaults for the others."""
    return TrainConfig(data=DataConfig(data_path=("patches",)), **sections)


TINY_SPEED: dict[str, Any] = {
    "arch": "vit_tiny",
    "embed_dim": 64,
    "num_heads": 1,
    "depth": 2,
    "patch_size": 4,
    "img_size": 32,
    "batch_size": 4,
    "mask_model_type": "adios",
    "crops_per_mask": 0,
    "steps": 1,
    "device": "cpu",
}


def speed_settings(**flags: Any) -> ThroughputConfig:
    """A measurement of the training step that takes a second."""
    return build(ThroughputConfig, nest(ThroughputConfig, TINY_SPEED | flags))


def measured_case(work: Mapping[str, Any] | None = None, **figures: Any) -> CaseResult:
    """A case of a measurement of the training step, with settings and figures at will."""
    step: dict[str, Any] = {
        "images_per_second": 10.0,
        "step_seconds": 0.4,
        "step_seconds_range": (0.3, 0.5),
        "phases": {"student forward": 0.4},
        "gflop_per_image": 2.0,
        "gflop_per_second": 20.0,
        "peak_memory_gib": 1.0,
        "matrix_peak_gflop_per_second": 40.0,
        "mfu": 0.5,
        "student_mfu": 0.5,
        "largest_batch": 8,
        "baselines": {},
        "kernels": None,
    }
    return CaseResult(
        settings={},
        work={"model.depth": 4, "model.patch_size": 4, **(work or {})},
        precision=figures.pop("precision", "float32"),
        attention_back_end="sdpa",
        floor_gflop_per_image=2.5,
        estimated_memory_gib=0.75,
        step=RunStepResult(**step | figures),
    )


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed."""
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def command(*arguments: str | Path) -> list[str]:
    """The installed command with arguments."""
    return [str(SCRIPT), *map(str, arguments)]


def start_command(*arguments: str | Path, log: Path) -> Forked | subprocess.Popen[bytes]:
    """Start the command on one thread, forked where it can be; the log takes what it says."""
    if CAN_FORK:
        return fork(run_script, *map(str, arguments), environment=surroundings(), out=log)
    return start_program(*command(*arguments), log=log)


def start_program(*words: str | Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a program on one thread that finds our command; the log takes what it says."""
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=surroundings(PATH=path),
        )


def run_command(
    *arguments: str | Path, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end on one thread, and capture what it says."""
    if not CAN_FORK:
        return run_installed_command(*arguments, timeout=timeout, **environment)
    around = surroundings(**environment)
    return run_forked(run_script, *map(str, arguments), timeout=timeout, environment=around)


def run_installed_command(
    *arguments: str | Path, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The same in a process as users start it, which loads torch: seconds."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=surroundings(**environment),
        check=False,
    )


def surroundings(**environment: str) -> dict[str, str]:
    """Environment of what a test starts: one thread, wide lines."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment


class Said(NamedTuple):
    """What a command has written."""

    out: str
    err: str


def run_main(capsys: pytest.CaptureFixture[str], code: int, *words: str | Path) -> Said:
    """What the command says that leaves with this exit code; within this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["adios-tme", *map(str, words)])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            main()
    said = Said(*capsys.readouterr())
    assert left.value.code == code, said.err
    return said
