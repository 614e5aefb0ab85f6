"""Where a run lives, what it computes with, and how often it looks at itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from adios_tme.config.base import Config


class RunConfig(Config):
    """The output folder and what is written to it."""

    output_dir: Path = Path("output")
    """Folder for checkpoints, metrics and pictures."""

    overwrite: bool = False
    """Start afresh in a folder that already holds a run; its files are removed."""

    resume: str = "auto"
    """`auto` goes on from the newest checkpoint in the output folder, `never` does not; else the
    path of a checkpoint or run folder to go on from."""

    init_from: str | None = None
    """Weights to start from, and nothing else of a run: a run, a checkpoint, a folder with
    model.safetensors, or `timm:NAME` for the encoder; what does not fit is logged by name."""

    seed: int = Field(default=42, ge=0)
    """Seed of weights, sample order, crops and dropout."""

    save_freq: int = Field(default=2000, ge=1)
    """Iterations between checkpoints."""

    keep_checkpoints: int | None = Field(default=None, ge=1)
    """Keep every k-th checkpoint_iter_*.pth for evaluation, and the newest two; absent: all."""

    log_samples: bool = False
    """Write the epoch, position and index row of every patch seen to samples/rank_*.csv."""

    log_freq: int = Field(default=10, ge=1)
    """Iterations between lines of metrics.jsonl."""

    viz_freq: int = Field(default=500, ge=0)
    """Iterations between pictures of the masks; 0 draws none."""


class ComputeConfig(Config):
    """Device, number format and kernels."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to train; auto: CUDA when there is one."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number format of the networks' arithmetic; auto: bf16 on CUDA, fp32 on a CPU."""

    attention: Literal["auto", "xformers", "varlen", "sdpa"] = "auto"
    """Attention back end; auto tries xformers, then varlen, on CUDA, and takes SDPA elsewhere."""

    grad_checkpointing: bool = False
    """Recompute the student's activations in the backward pass to save memory."""

    mask_grad_checkpointing: bool = False
    """Recompute the mask model's activations in the backward pass to save memory."""

    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the networks' blocks; auto: off, as it gains little on a CPU and has not
    been measured on CUDA."""
