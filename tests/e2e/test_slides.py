"""Whole slides as they are used: the commands of docs/slides.md, and what mistakes say."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.e2e.test_help import HEAVY, imports
from tests.factories import as_flags, make_dataset, run_command, run_main, tiny_settings
from tests.slides import make_slide, on_glass, stained

#: Tiles of 64 px at 2 microns per pixel.
SMALL = "--patch-size-px 64"
TISSUE = (slice(128, 384), slice(128, 512))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides with 24 tiles each, archives, and slides that have something amiss."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("a", "b")):
        pixels = on_glass(512, 640, TISSUE, seed)
        make_slide(folder / "slides" / f"{name}.tif", pixels, mpp=2, num_levels=2)
    make_slide(folder / "glass/a.tif", np.full((256, 256, 3), 244, np.uint8), mpp=2)
    make_slide(folder / "unscaled/a.tif", stained(256, 256), mpp=None)
    dots: dict[str, Any] = {"resolution": (72, 72), "resolutionunit": "INCH"}
    make_slide(folder / "screen/a.tif", stained(256, 256), mpp=None, **dots)
    make_dataset(folder / "zips")
    (folder / "bad").mkdir()
    (folder / "bad/a.svs").write_bytes(b"no slide")
    return folder


@pytest.fixture
def slides(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two slides, beside the working directory's other files."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made / "slides", tmp_path / "slides")


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a command says that ends well."""
    return lambda words, *more: run_main(capsys, 0, *shlex.split(words), *more).out


def installed(words: str, *more: str) -> str:
    """The same of a process of its own."""
    done = run_command(*shlex.split(words), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(run: Run, words: str, output_dir: str) -> Path:
    """A tiny run of four iterations; its last checkpoint."""
    settings = tiny_settings(Path(), Path(output_dir), num_workers=1)
    del settings["data_path"]
    run(f"train {words}", *as_flags(settings))
    return Path(output_dir) / "checkpoint_iter_00000004.pth"


def test_slides_are_indexed_drawn_and_trained_on(slides: Path, run: Run) -> None:
    said = run(f"index slides --mpp 2 {SMALL} --previews previews")
    assert "48" in said
    assert Path("previews/contact_sheet.png").is_file()
    for name in ("a", "b"):
        picture = np.asarray(Image.open(f"previews/{name}.png"))
        assert (picture == (20, 60, 200)).all(axis=-1).any()  # tiles
    assert (np.asarray(Image.open("previews/a.png")) == (0, 150, 60)).all(axis=-1).any()  # tissue
    assert train(run, f"--data-path slides --mpp 2 {SMALL}", "run").is_file()


def test_training_on_slides_resumes_to_the_same_numbers(slides: Path) -> None:
    words = f"--data-path slides --mpp 2 {SMALL} --open-slides 1"
    straight = train(installed, words, "straight")
    shutil.copytree("straight", "stopped")
    Path("stopped/checkpoint_iter_00000004.pth").unlink()
    Path("stopped/checkpoint_iter_00000002.pth").rename("stopped/checkpoint.pth")
    resumed = train(installed, words, "stopped")
    assert "Resumed" in Path("stopped/train.log").read_text()
    networks = [torch.load(path, weights_only=True)["student"] for path in (straight, resumed)]
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_slides_and_archives_train_together(slides: Path, run: Run) -> None:
    make_dataset(Path("zips"))
    assert train(run, "--data-path slides --data-path zips:0.5 --mpp 0.5", "run").is_file()


def test_tiles_are_counted_cut_kept_and_trained_on(slides: Path, run: Run) -> None:
    said = run(f"tile slides patches --mpp 2 {SMALL} --dry-run")
    assert "Nothing was written" in said
    assert not Path("patches").exists()
    said = run(f"tile slides patches --mpp 2 {SMALL}")
    assert "Train on them: adios-tme train --data-path patches --patch-size-px 64" in said
    with zipfile.ZipFile("patches/a.zip") as archive:
        assert archive.namelist()[0] == "a_64_x128_y128_mpp2.jpg"
        assert len(archive.namelist()) == 24
    before = Path("patches/a.zip").stat().st_mtime_ns
    run(f"tile slides patches --mpp 2 {SMALL} --write-coordinates")
    assert Path("patches/a.zip").stat().st_mtime_ns == before
    assert train(run, f"--data-path patches {SMALL}", "run").is_file()
    said = run(f"index slides --mpp 2 {SMALL} --coordinates patches/coordinates --stats")
    assert "48 random patches" in said


def test_one_slide_may_be_given_alone(slides: Path, run: Run) -> None:
    run(f"tile slides/a.tif out --mpp 4 {SMALL} --tissue none")
    assert sorted(path.name for path in Path("out").glob("*.zip")) == ["a.zip"]


def test_a_generated_slide_is_ready_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("sample tissue --slide --slide-size-px 1024")
    assert "Train on it: adios-tme train --data-path tissue/slides --mpp 0.25" in said
    run(f"index tissue/slides --mpp 0.25 {SMALL}")


def test_finding_and_cutting_tiles_does_not_import_torch(slides: Path) -> None:
    imported, _ = imports(*f"tile slides out --mpp 2 {SMALL}".split())
    assert "openslide" in imported
    assert imported & (HEAVY - {"scipy", "skimage"}) == set()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            "index slides --tissue hsv",
            2,
            "slides: tissue=hsv would be ignored: slides are read with mpp alone. "
            "Add --mpp, such as --mpp 0.25, or drop it.",
        ),
        ("index slides --mpp 90", 2, "mpp: "),
        ("index slides --mpp 2 --tissue otsus", 2, "tissue: otsus is no rule"),
        ("index slides --mpp 2 --overlap 448", 2, "overlap=448 is not below patch_size_px=448."),
        ("index slides --mpp 2 --coordinates none", 2, "coordinates: none is not a folder."),
        ("index slides --mpp 2 --mpp-csv none.csv", 2, "mpp_csv: none.csv cannot be read"),
        (
            "index glass --mpp 2",
            1,
            "glass: no tile of tissue in 1 slides (first: a.tif). Lower --min-tissue",
        ),
        ("index unscaled --mpp 2", 1, "a.tif: does not state its microns per pixel."),
        ("index screen --mpp 2", 1, "states 352.8 microns per pixel, which no slide has"),
        ("index bad --mpp 2", 1, "a.svs: is no slide that OpenSlide reads, or is cut short."),
        ("index bad", 1, "Left out: 1 whole slides, which are read at a stated scale alone"),
        ("index bad/a.svs", 2, "bad/a.svs: is a whole slide, which is read at a"),
        ("viz report run --mpp 2", 2, "mpp=2.0 would be ignored without images."),
        (f"viz masks --checkpoint run --images a {SMALL}", 2, "patch_size_px=64 would be ignored"),
        ("tile zips out --mpp 2", 1, "zips: holds no whole slide. Slides end in"),
        ("tile none out --mpp 2", 2, "data_path: none does not exist."),
        ("tile slides out", 2, "mpp is missing. Give the scale of the tiles, such as --mpp 0.25."),
        ("tile slides out --mpp 2 --format png --quality 80", 2, "quality=80 would be ignored"),
        (f"index slides --mpp 2 --format pickle {SMALL}", 2, "slides: holds whole slides, which"),
        ("sample out --slide --num-slides 3", 2, "num_slides=3 would be ignored: slide writes no"),
        ("sample out --slide-size-px 2048", 2, "slide_size_px=2048 would be ignored"),
    ],
)
def test_mistakes_get_one_message(
    words: str,
    code: int,
    message: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, ".", dirs_exist_ok=True)
    said = run_main(capsys, code, *shlex.split(words))
    assert message in said.err.replace("\n", " ")
    assert said.err.count("Error:") == 1


def test_reading_slides_is_measured(slides: Path, run: Run) -> None:
    few = "--num-rounds 1 --num-samples 8 --batch-size 2 --num-workers 1"
    found = json.loads(run(f"benchmark data slides --mpp 2 {SMALL} {few} --json"))
    assert (found["num_slides"], found["num_tiles"]) == (2, 48)
    assert set(found["tiles_per_second"]) >= {"openslide", "one_worker", "open_per_tile"}
    assert found["reader_of_openslide"] > 0
    assert not (slides / "dataset_index.safetensors").exists()


def test_pictures_and_speed_take_tiles_of_slides(slides: Path, run: Run) -> None:
    tiles = f"--mpp 2 {SMALL}"
    train(run, f"--data-path slides {tiles}", "run")
    said = run(f"viz masks --checkpoint run --images slides {tiles} --num-images 3 --json")
    assert json.loads(said)["num_images"] == 3
    assert Path("masks.png").is_file()
    run(f"viz features run --images slides/a.tif {tiles} --num-images 2")
    assert Path("features.png").is_file()
    run(f"viz report run --images slides {tiles} --output report.html")
    few = "--num-rounds 1 --num-samples 8 --batch-size 2 --num-workers 1"
    tiles = "--mpp 2 --patch-size-px 32"  # as large as the encoder's images
    found = json.loads(run(f"benchmark embed run --data-path slides {tiles} {few} --json"))
    assert found["num_patches"] == 8
    assert found["largest_difference"] < 1e-5 < found["largest_feature"]


def test_a_missing_extra_says_what_to_install(
    slides: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adios_tme.data.slides.reader import load_openslide

    load_openslide.cache_clear()
    monkeypatch.setitem(sys.modules, "openslide", None)
    said = run_main(capsys, 2, "index", "slides", "--mpp", "2")
    assert "pip install 'adios-tme[slides]'" in said.err
    said = run_main(capsys, 1, "index", "slides")  # without a scale, nothing needs it
    load_openslide.cache_clear()
