"""Help that answers at once and teaches, and the flags that are a promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adios_tme.config.load import leaves
from adios_tme.config.train import TrainConfig
from tests.factories import command, run_command

COMMANDS = [
    [],
    ["train"],
    ["index"],
    ["index-dataset"],
    ["export"],
    ["doctor"],
    ["viz"],
    ["viz", "masks"],
    ["viz", "curves"],
    ["benchmark"],
    ["benchmark", "nuclei"],
    ["benchmark", "throughput"],
    ["benchmark", "data"],
    ["benchmark-nuclei"],
    ["sample"],
]

#: Names and defaults that users' scripts rely on.
PROMISED = {
    "output_dir": Path("output"),
    "arch": "vit_base",
    "patch_size": 16,
    "drop_path_rate": 0.4,
    "num_register_tokens": 4,
    "img_size": 224,
    "tme_hidden_dim": 2048,
    "tme_output_dim": 256,
    "tme_layers": 3,
    "mask_model_type": "vit_unet",
    "num_masks": 3,
    "crops_per_mask": 1,
    "crop_size": None,
    "mask_update_freq": 1,
    "mask_encoder_dim": 192,
    "mask_encoder_depth": 12,
    "mask_dropout": 0.2,
    "mask_encoder_checkpoint": None,
    "freeze_mask_encoder": False,
    "alpha_sparsity": 0.1,
    "sparsity_penalty_type": "inverse_sin",
    "initial_temp": 0.2,
    "final_temp": 0.05,
    "optimizer_type": "adamw",
    "use_lars": False,
    "lars_eta": 0.02,
    "momentum": 0.9,
    "mask_lr_ratio": 0.25,
    "lr": 5e-5,
    "min_lr": 1e-6,
    "weight_decay": 0.04,
    "clip_grad": 1.0,
    "total_iterations": 300_000,
    "batch_size_per_gpu": 64,
    "seed": 42,
    "precision": "auto",
    "grad_checkpointing": False,
    "compile": "auto",
    "attention": "auto",
    "device": "auto",
    "save_freq": 2000,
    "keep_checkpoints": None,
    "log_freq": 10,
    "viz_freq": 500,
    "resume": "auto",
    "init_from": None,
    "overwrite": False,
    "nproc_per_node": "auto",
    "nnodes": "1",
    "rdzv_endpoint": None,
    "max_restarts": 3,
    "mean": (0.6816, 0.5640, 0.7232),
    "std": (0.1617, 0.1714, 0.1389),
    "augment": "none",
    "shuffle_block": 1,
    "max_corrupt_fraction": 0.01,
    "patch_size_px": 448,
    "pattern": None,
    "all": False,
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_does_not_import_torch(words: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-X", "importtime", *command(*words, "--help")],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "adios_tme.cli.app" in imported
    assert imported & {"torch", "timm", "matplotlib", "skimage", "xformers"} == set()
    assert len(found.stdout) > 400


def test_every_promised_flag_is_there_with_its_default() -> None:
    fields = {leaf.path[-1]: leaf.field for leaf in leaves(TrainConfig)}
    assert {name: fields[name].default for name in PROMISED} == PROMISED
    shown = run_command("train", "--help", COLUMNS="250").stdout
    missing = [name for name in fields if f"--{name.replace('_', '-')}" not in shown]
    assert missing == []


def test_help_is_grouped() -> None:
    shown = run_command("train", "--help").stdout
    for panel in ("Patches and how they are read", "The model that draws the masks", "Optimisers"):
        assert panel in shown


@pytest.mark.parametrize("start", [command(), [sys.executable, "-m", "adios_tme"]])
def test_the_version_is_printed(start: list[str]) -> None:
    from adios_tme.version import __version__

    said = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"adios-tme {__version__}"
