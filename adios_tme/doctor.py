"""What works on this machine, checked by doing it."""

from __future__ import annotations

import logging
import os
import platform
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from adios_tme.config.base import cores_at_hand
from adios_tme.config.commands.doctor import DoctorConfig
from adios_tme.config.data import DataConfig
from adios_tme.config.load import build
from adios_tme.config.train import DEMO, TrainConfig
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import index_path
from adios_tme.data.members import Kind
from adios_tme.data.reading_speed import ReadingSpeed, reading_speed, reading_speed_of_first
from adios_tme.data.slides.files import SLIDE_SUFFIXES
from adios_tme.data.sources import find_sources
from adios_tme.data.synthetic import render_tissue
from adios_tme.distributed.world import World, choose_device
from adios_tme.errors import AdiosError
from adios_tme.models.attention import Backend, Packing, attention
from adios_tme.models.layers import Normalise
from adios_tme.terminal import command
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from adios_tme.version import __version__

Status = Literal["ok", "warn", "fail"]

#: Files that a training process may have open: archives, workers, sockets.
FEWEST_FILES = 1024
LEAST_SHARED_MEMORY = 256 << 20
LEAST_ROOM = 10 << 30
TRIAL_BYTES = 64 << 20
NUM_READ = 64
NUM_STEPS = 3
#: Largest difference of attention and its gradients from torch's, by number format.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
#: What is not needed for training, by its extra: the module that it brings, and what it is for.
EXTRAS = {
    "slurm": ("submitit", "--slurm of adios-tme train and embed"),
    "onnx": ("onnxscript", "adios-tme export --format onnx"),
    "slides": ("openslide", "whole slides"),
    "hdf5": ("h5py", "features and coordinates in HDF5 files"),
    "probe": ("sklearn", "adios-tme benchmark probe"),
    "umap": ("umap", "maps of features by UMAP"),
    "tensorboard": ("tensorboard", "adios-tme train --trackers tensorboard"),
    "wandb": ("wandb", "adios-tme train --trackers wandb"),
    "mlflow": ("mlflow", "adios-tme train --trackers mlflow"),
    "trackio": ("trackio", "adios-tme train --trackers trackio"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    status: Status
    found: str
    advice: str = ""


Check = Callable[[DoctorConfig], Finding]


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Make every check, one after the other; one that breaks is a finding, too."""
    for name, check in CHECKS.items():
        try:
            yield check(config)
        except AdiosError as error:
            yield Finding(name, "fail", str(error))
        except Exception as error:  # what it was is the finding
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            yield Finding(name, "fail", reason, "Report this line if the reason is not clear.")


def _enough(is_enough: bool, name: str, found: str, advice: str) -> Finding:
    """Ok where there is enough of something, else a warning with what to do."""
    return Finding(name, "ok", found) if is_enough else Finding(name, "warn", found, advice)


def _python(config: DoctorConfig) -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{found}; adios_tme {__version__}")


def _torch(config: DoctorConfig) -> Finding:
    found = f"torch {torch.__version__}, timm {metadata.version('timm')}"
    if torch.cuda.is_available():
        return Finding("torch", "ok", f"{found}; CUDA {torch.version.cuda}")
    if Path("/proc/driver/nvidia/version").exists():
        advice = (
            f"The driver must be as new as CUDA {torch.version.cuda}: see nvidia-smi, and "
            f"update the driver or install a torch for an older CUDA."
        )
        return Finding("torch", "fail", f"{found} sees no GPU, though a driver is there", advice)
    return Finding("torch", "ok", f"{found}; no GPU, trains on the CPU")


def _gpus(config: DoctorConfig) -> Finding:
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    if not gpus:
        status: Status = "fail" if config.device == "cuda" else "ok"
        return Finding("gpus", status, "none", "Use --device cpu." if status == "fail" else "")
    shown = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
    return Finding("gpus", "ok", shown)


def _attention(config: DoctorConfig) -> Finding:
    """Each back end beside float64 arithmetic, forward and backward."""
    device = choose_device(config.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    backends: tuple[Backend, ...] = ("sdpa",)
    if device.type == "cuda":
        backends = ("sdpa", "varlen", "xformers")
    words: list[str] = []
    wrong: list[Backend] = []
    working: list[Backend] = []
    for backend in backends:
        try:
            difference = _attention_difference(backend, device, dtype)
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            words.append(f"{backend} does not run ({type(error).__name__})")
            continue
        words.append(f"{backend} differs by {difference:.1e}")
        (working if difference < TOLERANCE[dtype] else wrong).append(backend)
    found = f"{'; '.join(words)}, in {str(dtype).removeprefix('torch.')} on {device.type}"
    if wrong or not working:
        advice = f"Train with --attention {working[0]}." if working else "Install another torch."
        return Finding("attention", "fail", found, advice)
    return Finding("attention", "ok", found)


def _attention_difference(backend: Backend, device: torch.device, dtype: torch.dtype) -> float:
    packing = Packing(((2, 5), (1, 17)))
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(sum(packing.run_sizes), 2, 64, generator=generator, dtype=torch.float64)
    pairs = []
    for inputs, kernel in ((exact, "sdpa"), (exact.to(device, dtype), backend)):
        leaf = inputs.detach().requires_grad_()
        outputs = attention(leaf, leaf, leaf, packing, packing, kernel)  # type: ignore[arg-type]
        outputs.square().sum().backward()
        assert leaf.grad is not None
        pairs.append((outputs.detach().double().cpu(), leaf.grad.double().cpu()))
    differences = [
        float((one - other).norm() / one.norm()) for one, other in zip(*pairs, strict=True)
    ]
    return max(differences)


def _compiler(config: DoctorConfig) -> Finding:
    advice = "Install a C++ compiler (gcc) to use --compile on; training works without."
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        return Finding("compile", "warn", "no C++ compiler", advice)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for CUDA
    compiled = torch.compile(lambda x: x.sin() * 2, dynamic=False)
    numbers = torch.linspace(0, 1, 8, device=choose_device(config.device))
    difference = (compiled(numbers) - numbers.sin() * 2).abs().max().item()
    if difference > 1e-5:
        return Finding("compile", "fail", f"differs by {difference:.1e}", "Use --compile off.")
    return Finding("compile", "ok", "torch.compile works")


def _processes(config: DoctorConfig) -> Finding:
    """A sum over processes, by the back end that training takes."""
    num_ranks = max(2, torch.cuda.device_count())
    on_gpus = config.device != "cpu" and torch.cuda.device_count() >= 2
    backend = "nccl" if on_gpus else "gloo"
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        meeting = Path(folder) / "store"
        start = time.perf_counter()
        start_processes(_add_up, (num_ranks, backend, str(meeting)), nprocs=num_ranks)
        seconds = time.perf_counter() - start
    return Finding(
        "processes", "ok", f"{num_ranks} processes added up by {backend} in {seconds:.1f} s"
    )


def _add_up(rank: int, num_ranks: int, backend: str, store: str) -> None:
    """Runs in each process; raises where the sum is wrong."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    total = torch.tensor([rank + 1.0], device=device)
    dist.all_reduce(total)
    dist.destroy_process_group()
    expected = num_ranks * (num_ranks + 1) / 2
    if total.item() != expected:
        raise ValueError(f"{num_ranks} ranks added up to {total.item()}, not {expected}.")


def _files(config: DoctorConfig) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"ulimit -n {FEWEST_FILES}"
    return _enough(soft >= FEWEST_FILES, "open files", f"at most {soft:,}", advice)


def _shared_memory(config: DoctorConfig) -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding("shared memory", "ok", "this system has no /dev/shm")
    free = shutil.disk_usage(place).free
    found = f"{free / 2**20:,.0f} MiB free in /dev/shm"
    advice = "Start the container with --shm-size=2g, or use --num-workers 0."
    return _enough(free >= LEAST_SHARED_MEMORY, "shared memory", found, advice)


def _cores(config: DoctorConfig) -> Finding:
    cores, workers = cores_at_hand(), DataConfig().num_workers
    found = f"{cores} cores on {socket.gethostname()}; {workers} workers a process by default"
    gpus = torch.cuda.device_count()
    if gpus > 1 and cores < gpus * (1 + workers):
        advice = f"Use --num-workers {max(1, cores // gpus - 1)}, or ask for more cores."
        return Finding("cores", "warn", found, advice)
    return Finding("cores", "ok", found)


def _data(config: DoctorConfig) -> Finding:
    if config.data_path is None:
        return Finding("data", "ok", "not looked at", "Give --data-path to look at patches.")
    path = index_path(config.data_path)
    if not path.exists():
        return _data_without_index(config.data_path)
    index = DatasetIndex.open(path)
    speed = reading_speed(index, NUM_READ)
    found = f"{len(index):,} patches; {_in_words(speed)}"
    advice = []
    if speed.num_changed:
        found += f"; {speed.num_changed} of {speed.num_asked} have changed since they were indexed"
        advice.append(f"Run {command('index', config.data_path)}; training does it, too.")
    if speed.num_corrupt:
        found += f"; {speed.num_corrupt} of {speed.num_asked} are corrupt"
        advice.append(f"Run {command('index', config.data_path, '--verify')} to list them all.")
    return _enough(not advice, "data", found, " ".join(advice))


def _data_without_index(data_path: Path) -> Finding:
    indexed = command("index", data_path)
    advice = f"Run {indexed}, with --mpp for whole slides; training does it, too."
    try:
        speed = reading_speed_of_first(data_path, NUM_READ)
    except AdiosError as error:
        status: Status = "warn" if _holds_slides(data_path) else "fail"
        return Finding("data", status, str(error), advice if data_path.exists() else "")
    found = f"no index yet; in the first archive {_in_words(speed)}"
    return Finding("data", "warn", found, advice)


def _holds_slides(data_path: Path) -> bool:
    """Whether there are whole slides, which are in order, but read at the scale of an index."""
    if data_path.is_file():
        return data_path.suffix.lower() in SLIDE_SUFFIXES
    try:
        found = find_sources(data_path, slides=True)
    except AdiosError:  # there are none, or their reader is missing
        return False
    return any(source.kind is Kind.SLIDE for source in found.sources)


def _in_words(speed: ReadingSpeed) -> str:
    if not speed.num_read:
        return "none was read"
    found = f"{speed.num_read / speed.seconds:,.0f} read and decoded a second by one core"
    if speed.num_bytes is None:
        return found
    return f"{found}, {speed.num_bytes / speed.seconds / 2**20:,.0f} MiB/s"


def _output(config: DoctorConfig) -> Finding:
    folder = config.output_dir
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
            seconds = time.perf_counter() - start
        free = shutil.disk_usage(folder).free
    finally:
        for parent in made:
            parent.rmdir()
    speed = f"{TRIAL_BYTES / seconds / 2**20:,.0f} MiB/s written"
    found = f"{folder.absolute()}: {speed}, {free / 2**30:,.0f} GiB free"
    advice = "Make room, or keep fewer checkpoints with --keep-checkpoints."
    return _enough(free >= LEAST_ROOM, "output", found, advice)


def _steps(config: DoctorConfig) -> Finding:
    device = choose_device(config.device)
    shape = {"data": {"data_path": "."}, "compute": {"device": config.device}}
    settings = build(TrainConfig, DEMO, shape)
    run = Run.build(settings, World(0, 1, 0, 1, device))
    pixels, _ = render_tissue(settings.data.batch_size_per_gpu, settings.data.img_size, seed=0)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    images_BCHW = Normalise(settings.data.mean, settings.data.std).to(device)(images)
    losses: list[Tensor] = []
    start = time.perf_counter()
    for _ in range(NUM_STEPS):
        losses.append(train_step(run, images_BCHW, run.schedule()).student_loss)
        run.advance()
    if not torch.stack(losses).isfinite().all():
        advice = "Train with --precision fp32 to see whether the number format is the reason."
        return Finding("training", "fail", "the loss is not finite", advice)
    seconds = (time.perf_counter() - start) / NUM_STEPS
    shown = ", ".join(f"{loss.item():.3f}" for loss in losses)
    dtype = str(run.resolved.dtype).removeprefix("torch.")
    return Finding(
        "training",
        "ok",
        f"{NUM_STEPS} steps of the demo on {device} in {dtype}, "
        f"{seconds:.2f} s each; student loss {shown}",
    )


def _slurm(config: DoctorConfig) -> Finding:
    if not shutil.which("sbatch"):
        return Finding("slurm", "ok", "no sbatch on this machine")
    if util.find_spec("submitit") is None:
        advice = "pip install 'adios-tme[slurm]'"
        return Finding("slurm", "warn", "sbatch is there, submitit is not", advice)
    return Finding("slurm", "ok", "sbatch and submitit are there")


def _extras(config: DoctorConfig) -> Finding:
    missing = [
        f"{name} (for {purpose})"
        for name, (module, purpose) in EXTRAS.items()
        if util.find_spec(module) is None
    ]
    if not missing:
        return Finding("extras", "ok", "all installed")
    advice = "Where needed: pip install 'adios-tme[NAME]'"
    return Finding("extras", "ok", f"not installed: {', '.join(missing)}", advice)


CHECKS: dict[str, Check] = {
    "python": _python,
    "torch": _torch,
    "gpus": _gpus,
    "attention": _attention,
    "compile": _compiler,
    "processes": _processes,
    "open files": _files,
    "shared memory": _shared_memory,
    "cores": _cores,
    "data": _data,
    "output": _output,
    "training": _steps,
    "slurm": _slurm,
    "extras": _extras,
}
