"""Every file that a run writes to its output folder, named once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

SETTINGS = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
LOG = "train.log"
CORRUPT = "corrupt.jsonl"
LOCK = "run.lock"
#: Which runs of the trackers are this one.
TRACKERS = "trackers.json"
TENSORBOARD = "tensorboard"
#: Its name is the package's own.
WANDB = "wandb"
SAMPLES = "samples"
#: Newest checkpoint, for resuming.
NEWEST = "checkpoint.pth"
MASK_PICTURES = Path("visualizations", "masks")
REPORT = "report.html"
#: Of the demo.
TISSUE = "tissue"
PARTIAL_TISSUE = f".{TISSUE}.partial"
NUCLEI = "nuclei"
DEMO_MASKS = "masks.png"
DEMO_CURVES = "curves.png"
#: What writes that were killed have left.
PARTIAL_FILES = ".*.partial"

#: All that a run writes; nothing else in its folder is ever touched. The lock is the owner's.
FILES_OF_A_RUN = (
    SETTINGS,
    ENVIRONMENT,
    METRICS,
    LOG,
    CORRUPT,
    TRACKERS,
    TENSORBOARD,
    WANDB,
    "checkpoint*.pth",
    SAMPLES,
    "*dataset_index.safetensors",  # one a root, where the data cannot be written
    MASK_PICTURES.parts[0],
    REPORT,
    TISSUE,
    NUCLEI,
    DEMO_MASKS,
    DEMO_CURVES,
    PARTIAL_FILES,
)

_KEPT = re.compile(r"checkpoint_iter_(\d{8})\.pth")


def checkpoint_name(iteration: int) -> str:
    """File name of the checkpoint written after ``iteration`` updates."""
    return f"checkpoint_iter_{iteration:08d}.pth"


def iteration_of(checkpoint: Path) -> int | None:
    """After how many updates a kept checkpoint was written, by its name; None for other names."""
    match = _KEPT.fullmatch(checkpoint.name)
    return int(match[1]) if match else None


def mask_picture_name(iteration: int) -> str:
    """File name of the picture drawn after ``iteration`` updates."""
    return f"iter_{iteration:08d}.png"


def clear_run(folder: Path) -> None:
    """Delete all that a run has written to a folder, and nothing else."""
    for pattern in FILES_OF_A_RUN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
