"""What the commands say: names as they are, and mistakes as one message before long work."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from pathlib import Path

import pytest
import torch

from adios_tme.cli.app import main
from adios_tme.data import inspection
from adios_tme.data.index import DatasetIndex
from adios_tme.distributed.world import World
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.factories import FULL_DISK, make_dataset, png, run_main, tiny_config


def make_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 1, "student_loss": 1.0}) + "\n")
    return folder


@pytest.mark.parametrize("name", ["p[/x]_448_x1_y0.png", "[red]:heart:_448_x1_y0.png"])
def test_a_damaged_patch_is_shown_by_its_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "[bold]:heart:"
    data.mkdir()
    with zipfile.ZipFile(data / "slide.zip", "w") as archive:
        archive.writestr(name, b"no image")
        archive.writestr("whole_448_x0_y0.png", png(8))
    said = run_main(capsys, 1, "index", data, "--verify")
    assert name in said.out
    assert "[bold]:heart:" in said.out  # the table's title
    assert "1 of 2 patches" in said.err


def test_paths_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "c[best]:heart:.png"
    said = run_main(capsys, 0, "viz", "curves", make_run(tmp_path / "run"), "--output", picture)
    assert said.out == f"Wrote {picture}\n"
    assert picture.exists()
    missing = tmp_path / "no[/x]:heart:"
    assert str(missing) in run_main(capsys, 1, "viz", "curves", missing, "--output", picture).err


def test_the_command_that_is_named_next_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--num-slides 1 --patches-per-slide 1 --num-labelled 1 --size-px 64"
    said = run_main(capsys, 0, "sample", "my tissue; 2", *words.split()).out
    named = [shlex.split(line.partition(": adios-tme ")[2]) for line in said.splitlines()]
    assert named == [
        ["train", "--data-path", "my tissue; 2/patches", "--patch-size-px", "64"],
        ["benchmark", "nuclei", "RUN", "--labels", "my tissue; 2/nuclei"],
    ]


@pytest.mark.parametrize(("rank", "times"), [(None, 1), ("0", 1), ("1", 0)])
def test_of_the_processes_of_torchrun_the_first_one_says_that_it_is_done(
    rank: str | None,
    times: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("adios_tme.launch.local.train", lambda config: tmp_path / "checkpoint.pth")
    said = run_main(capsys, 0, "train", "--data-path", tmp_path)
    assert said.out.count("Done. Newest checkpoint:") == times


@pytest.mark.parametrize("command", ["masks", "curves"])
@pytest.mark.parametrize(
    ("output", "code", "text"),
    [
        ("file/c.png", 1, "c.png: cannot be written (Not a directory)"),
        ("folder.png", 1, "folder.png: cannot be written (Is a directory)"),
        ("c.jpg", 2, "c.jpg: is of no kind that can be written here"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_first(
    command: str,
    output: str,
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    of = {"masks": ("--checkpoint", "no", "--images", "no"), "curves": ("no",)}[command]
    assert text in run_main(capsys, code, "viz", command, *of, "--output", tmp_path / output).err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--contact-sheet", "s.jpg"), 2, "s.jpg: is of no kind that can be written here"),
        (("--contact-sheet", "file/s.png"), 1, "s.png: cannot be written (Not a directory)"),
        (("--format", "pickle", "--output", "."), 1, ".: cannot be written (Is a directory)"),
        (("--output", "."), 2, ".: is a folder. Give --output the name of a file."),
        (("--output", "a.pkl"), 2, "a.pkl: what ends in .pkl is read as a list of --format pickle"),
        (("--format", "pickle", "--output", "a.bin"), 2, "End the name of a list in .pkl"),
    ],
)
def test_an_index_is_not_measured_for_what_cannot_be_written(
    words: tuple[str, ...],
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_dataset(tmp_path / "data")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(inspection, "measure_index")
    monkeypatch.delattr(inspection, "verify_index")
    assert text in run_main(capsys, code, "index", "data", "--stats", "--verify", *words).err


@pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "c.png"
    picture.symlink_to(FULL_DISK)
    text = "c.png: cannot be written (No space left on device)"
    folder = make_run(tmp_path / "run")
    assert text in run_main(capsys, 1, "viz", "curves", folder, "--output", picture).err
    data = make_dataset(tmp_path / "data")
    assert text in run_main(capsys, 1, "index", data, "--contact-sheet", picture).err


@pytest.mark.parametrize("name", ["file", "file/new"])
def test_tissue_has_no_place_in_a_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    text = f"{tmp_path / name}: cannot be written (Not a directory)"
    assert text in run_main(capsys, 1, "sample", tmp_path / name).err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_names_that_the_terminal_cannot_show_are_escaped(
    flags: tuple[str, ...], encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(tmp_path / "\u5207\u7247 \U0001f600 \udce9 \u00e9")
    (data / "\u5207.txt").touch()
    out = io.BytesIO()
    monkeypatch.setattr("sys.argv", ["adios-tme", "index", str(data), *flags])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding=encoding, write_through=True))
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    if flags:
        assert json.loads(out.getvalue())["path"] == str(data / "dataset_index.safetensors")
    else:
        assert rb"\u5207\u7247 \U0001f600 \udce9" in out.getvalue()


def test_what_was_left_out_is_said_and_how_to_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(9):
            archive.writestr(f"p{number}{'_448_' if number < 3 else ''}.png", png(8))
    for _ in range(2):
        out = run_main(capsys, 0, "index", tmp_path).out
        assert "Took 3 of 9 images." in out
        assert "(a.zip/p3.png, a.zip/p4.png). Take every image with --all" in out
    found = json.loads(run_main(capsys, 0, "index", tmp_path, "--json").out)
    assert (found["num_patches"], found["num_images"]) == (3, 9)
    (entry,) = found["left_out"]
    assert (entry["reason"], entry["count"]) == ("rule", 6)
    assert "Took" not in run_main(capsys, 0, "index", tmp_path, "--all").out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("train", "--mean", "0.5", "--output-dir", "run"), "expected 3 numbers in a row, got"),
        (("train", "--lr", "fast"), "'--lr': expected a number, got 'fast'."),
        (("train", "--num-masks", "1.5"), "'--num-masks': expected a whole number, got '1.5'."),
        (
            ("train", "--compile", "maybe"),
            "'--compile': 'maybe' is not one of 'auto', 'on', 'off'.",
        ),
        (("index", "x", "--num-samples", "x"), "expected a whole number, got 'x'."),
        (("export", "a", "b", "--what", "mess"), "'mess' is not one of 'encoder', 'mask'."),
        (("viz", "masks", "--num-images", "0.5"), "expected a whole number, got '0.5'."),
        (("train", "--config", "kinds.yaml"), "mask: expected settings by name, got 3."),
        (("train", "--config", "kinds.yaml"), "data.mean: expected 3 values."),
        (("train", "--config", "kinds.yaml"), "data.std: expected several values, got 'red'."),
        (("train", "--config", "kinds.yaml"), "run.output_dir: expected a path, got 5."),
    ],
)
def test_values_that_do_not_fit_are_told_in_our_words(
    words: tuple[str, ...],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kinds.yaml").write_text(
        "mask: 3\ndata: {data_path: [x], mean: [1], std: red}\nrun: {output_dir: 5}\n"
    )
    said = run_main(capsys, 2, *words).err
    assert text in said
    assert not any(word in said for word in ("Input should", "Value error", "instance of"))


def test_one_archive_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "data")
    (tmp_path / "run").mkdir()
    config = tiny_config(tmp_path / "data", tmp_path / "run")
    write_checkpoint(
        Run.build(config, World(0, 1, 0, 1, torch.device("cpu"))).state(), tmp_path / "run"
    )
    monkeypatch.chdir(tmp_path)
    run_main(capsys, 0, "index", "data/slide_001.zip")
    index = DatasetIndex.open(tmp_path / "data" / "slide_001.zip.safetensors")
    assert [patch.slide for patch in index.patches(range(4))] == ["slide_001"] * 4
    text = "slide_001.zip: is a file, no folder that takes the list. Give --output."
    words = ("index", "data/slide_001.zip", "--format", "pickle")
    assert text in run_main(capsys, 2, *words).err
    for images in ("data", "data/slide_001.zip"):
        run_main(capsys, 0, "viz", "masks", "--checkpoint", "run", "--images", images)
