"""The command, from archives to scores."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adios_tme.cli import demo
from adios_tme.run_folder.checkpoints import read_checkpoint
from tests.factories import (
    as_flags,
    make_archive,
    make_dataset,
    run_command,
    run_installed_command,
    run_main,
    surroundings,
    tiny_settings,
)
from tests.fork_server import run_forked, run_script


def succeed(*arguments: str | Path, run: Callable[..., Any] = run_command) -> str:
    found = run(*arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    said: str = found.stdout + found.stderr
    return said


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with archives and a finished run of four iterations."""
    folder = tmp_path_factory.mktemp("trained")
    make_dataset(folder / "data")
    usual = {"num_workers": 2, "viz_freq": 2, "report": True, "ignore_memory": False}
    flags = tiny_settings(folder / "data", folder / "run", **usual)
    said = succeed("train", *as_flags(flags), run=run_installed_command)
    assert "Indexed 3 archives" in said
    return folder


def test_a_run_leaves_what_is_promised(trained: Path) -> None:
    run = trained / "run"
    for name in (
        "config.yaml",
        "environment.json",
        "train.log",
        "checkpoint.pth",
        "checkpoint_iter_00000002.pth",
        "checkpoint_iter_00000004.pth",
        "visualizations/masks/iter_00000002.png",
        "visualizations/masks/iter_00000004.png",
        "report.html",
    ):
        assert (run / name).is_file(), name
    lines = metrics(run)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["samples_seen"] == 16
    assert lines[-1]["epoch"] == pytest.approx(16 / 12)
    assert sum(lines[-1]["mask_coverage"]) == pytest.approx(1.0, abs=1e-5)
    assert lines[-1].keys() >= {
        "student_loss",
        "mask_loss",
        "contrastive_loss_mask",
        "sparsity_penalty",
        "student_grad_norm",
        "mask_grad_norm",
        "temperature",
        "lr",
        "mask_lr",
        "images_per_second",
        "data_wait_fraction",
        "num_damaged",
        "mask_coverage_spread",
        "mask_haematoxylin_correlation",
        "mask_entropy",
        "mask_saturation",
        "mask_overlap",
        "adversarial_gap",
    }


def test_a_checkpoint_holds_what_is_promised(trained: Path) -> None:
    state = torch.load(trained / "run" / "checkpoint.pth", weights_only=True)
    assert set(state) == {
        "student",
        "mask_model",
        "student_optimizer",
        "mask_optimizer",
        "iteration",
        "mask_average",
        "config",
        "patches",
        "samples_seen",
        "rng",
        "scaler",
        "world_size",
        "version",
    }
    assert (state["iteration"], state["samples_seen"], state["world_size"]) == (4, 16, 1)
    assert not any(name.startswith("module.") for name in state["student"])


def test_the_saved_settings_start_the_same_run(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    succeed("train", "--config", trained / "run" / "config.yaml", "--output-dir", again)
    one, other = (read_checkpoint(run / "checkpoint.pth") for run in (trained / "run", again))
    assert all(torch.equal(one["student"][name], other["student"][name]) for name in one["student"])


def test_a_finished_run_goes_on_when_more_is_asked(trained: Path, tmp_path: Path) -> None:
    flags = tiny_settings(trained / "data", tmp_path, total_iterations=6)
    succeed("train", *as_flags(flags))
    said = succeed("train", *as_flags(flags | {"total_iterations": 8, "resume": "auto"}))
    assert "at iteration 6" in said
    assert [line["iteration"] for line in metrics(tmp_path)] == list(range(1, 9))


def test_weights_of_another_run_start_a_new_one(trained: Path, tmp_path: Path) -> None:
    flags = tiny_settings(trained / "data", tmp_path, total_iterations=1, lr=1e-12, min_lr=0)
    said = succeed(
        "train", *as_flags(flags), "--warmup-iterations", "0", "--init-from", trained / "run"
    )
    assert "Started from the weights of" in said
    source, state = (read_checkpoint(run / "checkpoint.pth") for run in (trained / "run", tmp_path))
    assert state["iteration"] == 1
    for name, weight in source["student"].items():
        torch.testing.assert_close(state["student"][name], weight, rtol=0, atol=1e-6)


@pytest.mark.elastic
def test_two_processes_train_one_run(trained: Path, tmp_path: Path) -> None:
    flags = tiny_settings(trained / "data", tmp_path, nproc_per_node=2, batch_size_per_gpu=2)
    said = succeed("train", *as_flags(flags))
    assert "global batch 4 (2 x 2 ranks)" in said
    assert [line["iteration"] for line in metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_checkpoint(tmp_path / "checkpoint.pth")["world_size"] == 2


@pytest.mark.elastic
def test_a_mistake_in_two_processes_is_one_message(trained: Path) -> None:
    flags = tiny_settings(trained / "data", trained / "run", nproc_per_node=2, embed_dim=64)
    found = run_command("train", *as_flags(flags))
    assert found.returncode == 2, found.stderr
    assert found.stderr.count("holds a run with other settings") == 1
    assert "Traceback" not in found.stderr


def test_indexes_are_built_and_written_as_older_trainers_read_them(trained: Path) -> None:
    said = succeed("index-dataset", trained / "data", "--format", "pickle")
    assert "12" in said
    assert (trained / "data" / "dataset_index.pkl").is_file()


def test_pictures_are_drawn(trained: Path, tmp_path: Path) -> None:
    run = trained / "run"
    succeed("viz", "curves", run, run, "--output", tmp_path / "curves.svg")
    archive = trained / "data" / "slide_000.zip"
    picture = tmp_path / "masks.png"
    succeed("viz", "masks", "--checkpoint", run, "--images", archive, "--output", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    succeed("viz", "features", run, "--images", archive, "--output", tmp_path / "features.png")
    succeed("viz", "report", run, run, "--images", archive, "--output", tmp_path / "two.html")
    assert "Images, patch tokens as colours" in (tmp_path / "two.html").read_text()
    assert "<svg" in (tmp_path / "curves.svg").read_text()[:600]


@pytest.mark.parametrize("words", [["benchmark", "nuclei"], ["benchmark-nuclei"]])
def test_a_run_is_scored(words: list[str], trained: Path, tmp_path: Path) -> None:
    small = ["--num-slides", "1", "--patches-per-slide", "1", "--num-labelled", "4"]
    succeed("sample", tmp_path / "tissue", *small, "--size-px", "64")
    flags: list[str | Path] = [
        "--labels",
        tmp_path / "tissue" / "nuclei",
        "--output",
        tmp_path / "scores",
    ]
    succeed(*words, trained / "run", *flags)
    saved = json.loads((tmp_path / "scores" / "nuclei_benchmark.json").read_text())
    assert [scores["iteration"] for scores in saved["checkpoints"]] == [2, 4]
    printed = run_command(*words, trained / "run", *flags, "--json").stdout
    assert json.loads(printed) == saved


def with_little_tissue(*words: str) -> None:
    """Be the command, with fewer patches in the demo than are worth training on."""
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("NUM_SLIDES", 3), ("PATCHES_PER_SLIDE", 16), ("NUM_LABELLED", 12)):
            patch.setattr(demo, name, number)
        run_script(*words)


def run_demo(*words: str) -> subprocess.CompletedProcess[str]:
    return run_forked(with_little_tissue, *words, environment=surroundings())


def test_the_demo_ends_with_pictures_and_scores(tmp_path: Path) -> None:
    short = ("--total-iterations", "2", "--save-freq", "2")
    interrupted = tmp_path / "demo" / ".tissue.partial" / "patches"
    interrupted.mkdir(parents=True)
    (tmp_path / "demo" / "config.yaml").write_text("model: {embed_dim: 7}")
    flags = ("--demo", *short, "--overwrite", "--output-dir", str(tmp_path / "demo"))
    said = succeed("train", *flags, run=run_demo)
    assert not interrupted.parent.exists()
    assert "A randomly chosen channel reaches" in said
    for name in ("masks.png", "curves.png", "nuclei/nuclei_benchmark.json", "checkpoint.pth"):
        assert (tmp_path / "demo" / name).is_file()
        assert name in said


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        ({"data_path": "nowhere"}, 2, "data_path: nowhere does not exist"),
        ({"num_heads": 10, "embed_dim": 768}, 2, "Use --num-heads 8 or 12"),
        ({"totl_iterations": 4}, 2, "--total-iterations"),
        ({"patch_size_px": 256}, 1, "patch_000_448_x0_y0.png"),
        ({"arch": "vit_huge"}, 2, "vit_large"),
        ({"resume": "nowhere"}, 1, "nowhere: does not exist"),
        ({"device": "cuda"}, 2, "no CUDA device"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_trace(
    flags: dict[str, Any],
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "device" in flags and torch.cuda.is_available():
        pytest.skip(reason="asks for CUDA where there is none, and this machine has it")
    make_dataset(tmp_path / "data")
    settings = tiny_settings(tmp_path / "data", tmp_path / "run") | flags
    assert text in run_main(capsys, code, "train", *as_flags(settings)).err
    assert not (tmp_path / "run" / "checkpoint.pth").exists()
    if "resume" not in flags and "device" not in flags:
        assert not (tmp_path / "run").exists()


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("num_mask: 4\n")
    found = run_installed_command(
        "train", "--config", tmp_path / "run.yaml", "--data-path", tmp_path
    )
    assert found.returncode == 2
    assert "Did you mean mask.num_masks?" in found.stderr
    assert "Traceback" not in found.stderr


def test_another_run_in_the_folder_is_kept(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "run" / "config.yaml").read_bytes()
    flags = tiny_settings(trained / "data", trained / "run", num_masks=4)
    assert "num_masks is 3, asked 4" in run_main(capsys, 2, "train", *as_flags(flags)).err
    assert (trained / "run" / "config.yaml").read_bytes() == before


def test_a_corrupt_checkpoint_is_named_by_every_command(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.pth"
    content = bytearray((trained / "run" / "checkpoint.pth").read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    archive = trained / "data" / "slide_000.zip"
    said = run_main(capsys, 1, "viz", "masks", "--checkpoint", bad, "--images", archive)
    assert f"{bad}: is damaged or not a checkpoint" in said.err
    flags = tiny_settings(trained / "data", tmp_path / "run", resume=bad)
    assert "is damaged" in run_main(capsys, 1, "train", *as_flags(flags)).err


def test_a_truncated_archive_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path / "data")
    half = (tmp_path / "data" / "slide_001.zip").read_bytes()
    (tmp_path / "data" / "slide_001.zip").write_bytes(half[: len(half) // 2])
    said = succeed("train", *as_flags(tiny_settings(tmp_path / "data", tmp_path / "run")))
    assert "Left out: slide_001.zip" in said
    assert "8 patches in 2 archives" in said
    for name in ("slide_000.zip", "slide_002.zip"):
        (tmp_path / "data" / name).unlink()
    said = run_main(capsys, 1, "index", tmp_path / "data").err
    assert "no archive can be read. slide_001.zip" in said


def test_a_flipped_byte_in_a_patch_is_logged_and_survived(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "data" / "slide.zip", num_patches=6)
    content = bytearray(path.read_bytes())
    content[400] ^= 1  # within the first patch
    path.write_bytes(content)
    succeed("train", *as_flags(tiny_settings(tmp_path / "data", tmp_path / "run")))
    (line,) = (tmp_path / "run" / "corrupt.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "archive": "slide.zip",
        "name": "patch_000_448_x0_y0.png",
        "reason": "wrong CRC",
    }
    assert metrics(tmp_path / "run")[-1]["num_damaged"] >= 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to folders whatever their mode")
def test_a_data_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data").chmod(0o555)
    succeed("train", *as_flags(tiny_settings(tmp_path / "data", tmp_path / "run")))
    assert (tmp_path / "run" / "dataset_index.safetensors").is_file()


def test_real_patches_are_trained_on_and_scored(real_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "tiles"
    data.mkdir()
    for archive in (real_data / "tiles").glob("*.zip"):
        (data / archive.name).symlink_to(archive.resolve())
    # Most of the time goes into the labelled images: one checkpoint, and six of them.
    for part in ("images", "labels"):
        (tmp_path / "labelled" / part).mkdir(parents=True)
        for image in sorted((real_data / "nuclei" / "folder" / part).iterdir())[:6]:
            (tmp_path / "labelled" / part / image.name).symlink_to(image.resolve())
    flags = tiny_settings(data, tmp_path / "run", img_size=64, batch_size_per_gpu=8, save_freq=4)
    said = succeed("train", *as_flags(flags))
    assert "151 patches in 26 archives" in said
    scoring = (
        "--labels",
        tmp_path / "labelled",
        "--label-scale",
        "0.25",
        "--scale",
        "1",
    )
    succeed("benchmark", "nuclei", tmp_path / "run", *scoring, "--output", tmp_path / "s")
    saved = json.loads((tmp_path / "s" / "nuclei_benchmark.json").read_text())
    assert saved["protocol"]["num_images"] == 6
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["img_size"] == 64
