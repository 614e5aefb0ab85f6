"""Where a run lives, what it computes with, and how often it looks at itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from adios_tme.config.base import Basic, Config, MayBePath, OtherNames, Shapes, expand_user
from adios_tme.config.model import TIMM


class RunConfig(Config):
    """The output folder and what is written to it."""

    output_dir: Annotated[Path, Basic(), OtherNames("output", "out", "save_dir")] = Path("output")
    """Folder for checkpoints, metrics and pictures."""

    overwrite: bool = False
    """Start afresh in a folder that already holds a run; its files are removed."""

    resume: Annotated[str, MayBePath("auto", "never")] = "auto"
    """`auto` resumes from the newest checkpoint in the output folder, `never` does not; else the
    path of a checkpoint or run folder to resume from."""

    accept_new_data: bool = False
    """Resume also when the patches are others than the run has seen."""

    init_from: Annotated[str | None, MayBePath(TIMM)] = None
    """Weights to start from, and nothing else of a run: a run, a checkpoint, an exported folder of
    the encoder or the mask model, or `timm:NAME` for the encoder; what does not fit is logged by
    name."""

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

    report: bool = True
    """Write report.html to the output folder when the run is finished: what `viz report` writes."""

    @field_validator("resume", "init_from")
    @classmethod
    def _may_be_paths(cls, given: str | None) -> str | None:
        return given and expand_user(given)


class ComputeConfig(Config):
    """Device, number format and kernels."""

    device: Annotated[Literal["auto", "cuda", "cpu"], Basic()] = "auto"
    """Where to train; auto: CUDA when there is one."""

    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"], Shapes("step"), OtherNames("amp", "dtype")
    ] = "auto"
    """Number format of the networks' arithmetic; auto: bf16 on CUDA, fp32 on a CPU."""

    attention: Annotated[Literal["auto", "xformers", "varlen", "sdpa"], Shapes("step")] = "auto"
    """Attention back end; auto tries xformers, then varlen, on CUDA, and takes SDPA elsewhere."""

    ignore_memory: bool = False
    """Begin also when a step needs more memory than there is, by what it costs on paper."""

    grad_checkpointing: Annotated[bool, Shapes("step")] = False
    """Recompute the student's activations in the backward pass to save memory."""

    mask_grad_checkpointing: Annotated[bool, Shapes("step")] = False
    """Recompute the mask model's activations in the backward pass to save memory."""

    compile: Annotated[Literal["auto", "on", "off"], Shapes("step")] = "auto"
    """torch.compile of the networks' blocks; auto: off, as it gains little on a CPU and has not
    been measured on CUDA."""
