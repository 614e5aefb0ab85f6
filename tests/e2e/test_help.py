"""Help that answers at once and teaches, and the flags that are a promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adios_tme.config.load import leaves
from adios_tme.config.train import TrainConfig
from tests.factories import command, make_dataset, run_command
from tests.fork_server import ROOT

COMMANDS = [
    [],
    ["train"],
    ["index"],
    ["index-dataset"],
    ["tile"],
    ["segment"],
    ["export"],
    ["doctor"],
    ["embed"],
    ["viz"],
    ["viz", "masks"],
    ["viz", "curves"],
    ["viz", "features"],
    ["viz", "report"],
    ["benchmark"],
    ["benchmark", "nuclei"],
    ["benchmark", "probe"],
    ["benchmark", "throughput"],
    ["benchmark", "data"],
    ["benchmark", "embed"],
    ["benchmark", "segment"],
    ["benchmark-nuclei"],
    ["sample"],
    ["presets"],
]

#: What takes seconds to import, and what only pictures and scores need.
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "xformers",
    "matplotlib",
    "skimage",
    "scipy",
    "sklearn",
    "h5py",
    "umap",
}

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


def imports(*words: str | Path) -> tuple[set[str], str]:
    """What a command imports, in its worker processes, too, and what it says."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", *command(*words)],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "adios_tme.cli.app" in imported
    return imported, found.stdout


#: In a fresh interpreter: what each command has imported and says, in a process forked for it.
ASK_FOR_HELP = """
import contextlib, io, json, os, sys
from adios_tme.cli.app import main

for words in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.argv = ["adios-tme", *words, "--help"]
        said = io.StringIO()
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
            main()
        print(json.dumps([" ".join(words), sorted(sys.modules), said.getvalue()]))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[set[str], str]]:
    """Of every command, what is imported for its help, and the help."""
    found = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, json.dumps(COMMANDS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    answers = map(json.loads, found.stdout.splitlines())
    return {name: (set(imported), said) for name, imported, said in answers}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_does_not_import_torch(
    words: list[str], helps: dict[str, tuple[set[str], str]]
) -> None:
    imported, said = helps[" ".join(words)]
    assert "adios_tme.cli.app" in imported
    assert imported & HEAVY == set()
    assert len(said) > 400


def test_the_installed_help_does_not_import_torch() -> None:
    imported, said = imports("--help")
    assert imported & HEAVY == set()
    assert len(said) > 400


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("index data", "adios_tme.data.index_builder"),
        ("index data --rebuild --format pickle", "adios_tme.data.pickle_list"),
        (
            "index data --stats --verify --contact-sheet sheet.png --num-workers 2",
            "adios_tme.data.inspection",
        ),
        (
            "sample out --num-slides 1 --patches-per-slide 1 --num-labelled 1 --size-px 64",
            "adios_tme.data.synthetic",
        ),
        ("viz curves run --output curves.png", "matplotlib.figure"),
        ("viz report run", "jinja2.environment"),
    ],
)
def test_what_needs_no_network_does_not_import_torch(
    words: str, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data", num_archives=2, num_patches=2)
    (tmp_path / "run").mkdir()
    line = {"iteration": 1, "student_loss": 1.0}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    imported, _ = imports(*words.split())
    assert needed in imported
    assert imported & (HEAVY - {needed.partition(".")[0]}) == set()


def test_processes_of_a_run_load_what_training_needs() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import sys, adios_tme.launch.jobs; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    loaded = set(found.stdout.split())
    assert {"torch", "adios_tme.training.loop", "adios_tme.pretrained"} <= loaded
    # Four seconds and two hundred megabytes for each process.
    others = {"timm", "torchvision", "torch._dynamo", "matplotlib", "scipy", "skimage"}
    assert loaded.isdisjoint(others)


def test_every_promised_flag_is_there_with_its_default() -> None:
    fields = {leaf.path[-1]: leaf.field for leaf in leaves(TrainConfig)}
    assert {name: fields[name].default for name in PROMISED} == PROMISED
    shown = run_command("train", "--help-all", COLUMNS="250").stdout
    missing = [name for name in fields if f"--{name.replace('_', '-')}" not in shown]
    assert missing == []


def test_paragraphs_are_broken_by_the_terminal_alone() -> None:
    shown = run_command("benchmark", "data", "--help", COLUMNS="80").stdout
    lines = [line.strip() for line in shown.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("Timing is"))
    paragraph = lines[first : lines.index("", first)]
    assert len(paragraph) > 2
    assert all(len(line) > 60 for line in paragraph[:-1]), paragraph


def test_help_shows_what_a_first_run_needs() -> None:
    shown = run_command("train", "-h").stdout
    flags = re.findall(r"^│ (--[a-z-]+)", shown, re.MULTILINE)
    assert flags == [
        "--help-all",
        "--help",
        *("--demo", "--preset", "--data-path", "--img-size", "--batch-size-per-gpu", "--arch"),
        *("--mask-model-type", "--lr", "--total-iterations", "--device", "--output-dir"),
        "--config",
    ]
    assert f"({len(list(leaves(TrainConfig))) - 11} more)" in " ".join(shown.split())
    assert "--help-all" not in run_command("index", "--help").stdout


def test_help_is_grouped() -> None:
    shown = run_command("train", "--help-all").stdout
    for panel in ("Patches and how they are read", "The model that draws the masks", "Optimisers"):
        assert panel in shown


@pytest.mark.parametrize("start", [command(), [sys.executable, "-m", "adios_tme"]])
def test_the_version_is_printed(start: list[str]) -> None:
    from adios_tme.version import __version__

    said = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"adios-tme {__version__}"
