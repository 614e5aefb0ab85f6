"""``adios-tme embed``: features of a plain loop, whatever the batch, workers or ranks."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from adios_tme import load_encoder
from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.config.load import build, nest
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.inference.embed.features_file import read_features
from adios_tme.inference.embed.run import run_embedding
from tests.factories import (
    make_archive,
    make_dataset,
    png,
    run_command,
    run_main,
    start_command,
    untrained_run,
)
from tests.slides import Pixels, make_slide, stained
from tests.spawn import run_on_ranks

MEAN, STD = (0.6816, 0.5640, 0.7232), (0.1617, 0.1714, 0.1389)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained_run(tmp_path / "run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three slides of 4 patches, and one of 7."""
    make_archive(tmp_path / "data" / "cohort" / "large.zip", num_patches=7, seed=9)
    return make_dataset(tmp_path / "data")


def config(run: Path | str, data: Path, output: Path, **flags: Any) -> EmbedConfig:
    given = {"run": run, "data_path": data, "output": output, "num_workers": 0, "device": "cpu"}
    return build(EmbedConfig, nest(EmbedConfig, {**given, **flags}))


def files(folder: Path) -> dict[str, Path]:
    """Files of slides by their name below the folder of features."""
    (root,) = folder.glob("448px/features_*")
    found = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root).with_suffix("")): path for path in found}


def plain_features(run: Path, archive: Path) -> tuple[list[list[float]], list[list[int]]]:
    """Class tokens by the shortest way there is, and the coordinates in the names."""
    network = load_encoder(run)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    features, coords = [], []
    with zipfile.ZipFile(archive) as patches, torch.no_grad():
        for name in patches.namelist():
            with patches.open(name) as file:
                pixels = np.asarray(Image.open(file).convert("RGB"))
            image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
            features.append(network((image / 255 - mean) / std)[0, 0].tolist())
            coords.append([int(part[1:]) for part in Path(name).stem.split("_")[3:]])
    return features, coords


def assert_right(run: Path, data: Path, output: Path) -> None:
    found = files(output)
    assert set(found) == {"cohort/large", "slide_000", "slide_001", "slide_002"}
    for name, path in found.items():
        slide = read_features(path)
        features, coords = plain_features(run, data / f"{name}.zip")
        np.testing.assert_allclose(slide.features, features, rtol=0, atol=1e-5)
        assert slide.coords is not None
        assert slide.coords.tolist() == coords
        assert slide.attributes["name"] == name.rpartition("/")[2]
        assert slide.attributes["num_left_out"] == 0


@pytest.mark.parametrize(
    "flags",
    [
        {"batch_size": 1},
        {"batch_size": 5, "num_workers": 2},
        {"batch_size": 64, "num_workers": 3, "format": "safetensors"},
    ],
)
def test_features_are_those_of_a_plain_loop(
    run: Path, data: Path, tmp_path: Path, flags: dict[str, Any]
) -> None:
    assert run_embedding(config(run, data, tmp_path / "out", **flags)) == tmp_path / "out"
    assert_right(run, data, tmp_path / "out")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A slide whose tiles are its pixels, and one that is twice as fine, with a telling name."""
    folder = tmp_path / "slides"
    make_slide(folder / "a.tif", stained(100, 170), mpp=0.5, num_levels=2)
    make_slide(folder / "cohort" / "TCGA-AA-0001-01Z-00-DX1_40x.tif", stained(200, 340), mpp=0.25)
    return folder


def features_of_tiles(
    run: Path, pixels: Pixels, coords: NDArray[np.int64], side: int
) -> list[list[float]]:
    """Class tokens of squares cut from an image, by the shortest way there is."""
    network, features = load_encoder(run), []
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    with torch.no_grad():
        for x, y in coords.tolist():
            tile = Image.fromarray(pixels[y : y + side, x : x + side])
            tile = tile.resize((32, 32), Image.Resampling.BICUBIC)
            image = torch.from_numpy(np.asarray(tile).copy()).permute(2, 0, 1)[None]
            features.append(network((image / 255 - mean) / std)[0, 0].tolist())
    return features


@pytest.mark.parametrize(("overlap", "step", "num_workers"), [(None, 32, 0), (16, 16, 2)])
def test_slides_are_embedded_tile_by_tile(
    run: Path, slides: Path, tmp_path: Path, overlap: int | None, step: int, num_workers: int
) -> None:
    flags = {"mpp": 0.5, "patch_size_px": 32, "tissue": "none", "overlap": overlap}
    settings = config(run, slides, tmp_path / "out", num_workers=num_workers, **flags)
    run_embedding(settings)
    folder = tmp_path / "out" / f"32px_{overlap or 0}px_overlap" / "features_run"
    names = {"a": 1, "cohort/TCGA-AA-0001-01Z-00-DX1_40x": 2}
    assert set(folder.rglob("*.h5")) == {folder / f"{name}.h5" for name in names}
    places = [(x, y) for y in range(0, 69, step) for x in range(0, 139, step)]
    for name, zoom in names.items():
        slide = read_features(folder / f"{name}.h5")
        assert slide.coords is not None
        assert slide.coords.tolist() == [[zoom * x, zoom * y] for x, y in places]
        pixels = stained(100 * zoom, 170 * zoom)
        expected = features_of_tiles(run, pixels, slide.coords, 32 * zoom)
        np.testing.assert_allclose(slide.features, expected, rtol=0, atol=1e-5)
        attributes = dict(slide.attributes)
        assert attributes.pop("patches_digest")
        assert attributes.pop("savetodir") == str((folder / name).parent)
        assert attributes == {
            "name": name.rpartition("/")[2],
            "encoder": "run",
            "patch_size": 32,
            "patch_size_level0": 32 * zoom,
            "overlap": overlap or 0,
            "mpp": 0.5,
            "num_left_out": 0,
        }


def test_a_slide_that_has_changed_is_embedded_again(
    run: Path, slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = [
        *("embed", run, "--data-path", slides, "--output", tmp_path / "out", "--num-workers", "0"),
        *("--mpp", "0.5", "--patch-size-px", "32", "--target-magnification", "20"),
    ]
    run_main(capsys, 0, *words)
    files = sorted((tmp_path / "out").glob("20x_32px_0px_overlap/features_run/**/*.h5"))
    assert len(files) == 2
    assert "2 of 2 slides are finished already." in run_main(capsys, 0, *words).err
    make_slide(slides / "a.tif", stained(100, 170, seed=1), mpp=0.5, num_levels=2)
    before = read_features(files[0]).features
    said = run_main(capsys, 0, *words).err
    assert "1 of 2 slides are finished already." in said
    assert np.abs(read_features(files[0]).features - before).max() > 1e-3
    said = run_main(capsys, 2, *words[:-5], "0.25", *words[-4:]).err
    assert "holds features with mpp=0.5, and mpp=0.25 is asked for." in said


def embed_on_a_rank(settings: EmbedConfig) -> str:
    return str(run_embedding(settings))


@pytest.mark.elastic
@pytest.mark.parametrize("num_ranks", [2, 5])
def test_ranks_share_the_slides(run: Path, data: Path, tmp_path: Path, num_ranks: int) -> None:
    settings = config(run, data, tmp_path / "out", batch_size=3)
    assert run_on_ranks(embed_on_a_rank, num_ranks, settings) == [str(tmp_path / "out")] * num_ranks
    assert_right(run, data, tmp_path / "out")


def refused_on_a_rank(settings: EmbedConfig) -> str:
    try:
        return str(run_embedding(settings))
    except Exception as error:
        return str(error)


def test_ranks_fail_together(run: Path, data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data / "slide_001.zip", "a") as archive:
        archive.writestr("patch_448_.png", png())
    settings = config(run, data, tmp_path / "out")
    first, *others = run_on_ranks(refused_on_a_rank, 3, settings)
    assert "slide_001.zip: patch_448_.png: the name states no x and y" in first
    assert others == [first, first]
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_did_and_does_nothing_twice(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("embed", run, "--data-path", data, "--output", tmp_path / "out", "--num-workers", "1")
    said = run_main(capsys, 0, *words)
    assert said.out == f"Done. Features: {tmp_path / 'out'}\n"
    assert "19 patches of 4 slides to embed" in said.err
    assert "Wrote 4 of 4 slides." in said.err
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path / "out").values()}
    files(tmp_path / "out")["slide_002"].unlink()
    make_archive(data / "slide_001.zip", num_patches=4, seed=77)  # other pixels, the same names
    files(tmp_path / "out")["slide_000"].write_bytes(b"damaged")
    said = run_main(capsys, 0, *words)
    assert "1 of 4 slides are finished already." in said.err
    assert "2 slides have other patches than their files, or damaged files, and are" in said.err
    assert "Wrote 3 of 3 slides." in said.err
    assert_right(run, data, tmp_path / "out")
    kept = files(tmp_path / "out")["cohort/large"]
    assert kept.stat().st_mtime_ns == before[kept]


def damage(archive: Path, patch: str) -> None:
    """Break the pixels of a patch where the index does not look."""
    with zipfile.ZipFile(archive) as whole:
        at = whole.getinfo(patch).header_offset + 200
    content = bytearray(archive.read_bytes())
    content[at] ^= 0xFF
    archive.write_bytes(content)


def test_a_patch_that_cannot_be_read_has_no_row(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = plain_features(run, data / "slide_001.zip")
    damage(data / "slide_001.zip", "patch_002_448_x896_y0.png")
    damage(make_archive(data / "lost.zip", num_patches=1), "patch_000_448_x0_y0.png")
    out = tmp_path / "out"
    words = ("embed", run, "--data-path", data, "--output", out, "--num-workers", "0")
    said = run_main(capsys, 0, *words)
    slide = read_features(files(out)["slide_001"])
    features, coords = (each[:2] + each[3:] for each in expected)
    np.testing.assert_allclose(slide.features, features, rtol=0, atol=1e-5)
    assert slide.coords is not None
    assert slide.coords.tolist() == coords
    assert slide.attributes["num_left_out"] == 1
    assert "lost" not in files(out)
    assert "lost: none of its 1 patches could be read, so that it has no file." in said.err
    assert "Left out: 2 patches of 2 slides, which cannot be read; 1 of these slides" in said.err
    told = [json.loads(line)["name"] for line in (out / "corrupt.jsonl").read_text().splitlines()]
    assert sorted(told) == ["patch_000_448_x0_y0.png", "patch_002_448_x896_y0.png"]


def test_too_many_of_them_stop_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for number in range(12):
        damage(make_archive(data / f"s{number:02d}.zip", num_patches=1), "patch_000_448_x0_y0.png")
    out = tmp_path / "out"
    words = ("embed", run, "--data-path", data, "--output", out, "--num-workers", "0")
    said = run_main(capsys, 1, *words, "--batch-size", "1")
    assert "11 of 11 patches could not be read, more than the fraction 0.01 allows" in said.err


def test_patches_without_coordinates_have_their_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data" / "slide", tmp_path / "out"
    data.mkdir(parents=True)
    for number in range(3):
        (data / f"tile{number}.png").write_bytes(png(seed=number))
    words = (
        "embed",
        run,
        "--data-path",
        data.parent,
        "--output",
        out,
        "--all",
        "--num-workers",
        "0",
    )
    said = run_main(capsys, 1, *words)
    assert "slide: tile0.png: the name states no x and y in pixels." in said.err
    assert not out.exists()
    said = run_main(capsys, 0, *words, "--no-coords")
    assert "3 patches of 1 slide to embed" in said.err
    slide = read_features(out / "features_run" / "slide.h5")
    assert slide.coords is None
    assert slide.names == ("tile0.png", "tile1.png", "tile2.png")


def test_patches_that_share_a_place_are_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = [f"patch_{number}_448_x{x}_y0.png" for number, x in enumerate((0, 0, 448, 0))]
    write_zip(tmp_path / "data" / "slide_1.zip", pieces)
    write_zip(tmp_path / "data" / "slide_2.zip", pieces[1:3])
    said = run_main(
        capsys, 0, "embed", run, "--data-path", tmp_path / "data", "--output", tmp_path / "out"
    )
    assert "3 of the patches to embed, first of slide_1, have the x and y of another" in said.err


def write_zip(path: Path, names: list[str]) -> None:
    """An archive of different images under given names."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(name, png(seed=seed))


@pytest.mark.parametrize("prefix", ["", "timm:local-dir:"])
def test_an_exported_encoder_gives_the_same_features(
    prefix: str, run: Path, data: Path, tmp_path: Path
) -> None:
    write_timm(ExportedEncoder(load_encoder(run), MEAN, STD), tmp_path / "encoder")
    run_embedding(config(f"{prefix}{tmp_path / 'encoder'}", data, tmp_path / "out"))
    assert_right(run, data, tmp_path / "out")
    assert (tmp_path / "out" / "448px" / "features_encoder").is_dir()


def test_another_encoder_or_setting_is_not_mixed_in(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = untrained_run(tmp_path / "other", seed=5), tmp_path / "out"
    run_embedding(config(run, data, out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = ("--data-path", data, "--output", out)
    said = run_main(capsys, 2, "embed", other, *words)
    assert f"Error: {out}: holds features of another encoder (run, weights " in said.err
    said = run_main(capsys, 2, "embed", run, *words, "--pool", "mean")
    assert f"{out}: holds features with pool=cls, and pool=mean is asked for." in said.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nowhere", "--data-path", "data"), 1, "nowhere"),
        (("run", "--data-path", "nowhere"), 2, "nowhere"),
        (("run",), 2, "data_path"),
        (("timm:no_such_model", "--data-path", "data"), 1, "timm:no_such_model: timm "),
        (("run", "--data-path", "data", "--pool", "max"), 2, "pool"),
        (("run", "--data-path", "data", "--encoder-name", "a/b"), 2, "got 'a/b'"),
        (("run", "--data-path", "data", "--output", "file/out"), 1, "file/out"),
        (("run", "--data-path", "data", "--icc"), 2, "icc=True would be ignored: slides are read"),
        (
            ("run", "--data-path", "data", "--mpp", "0.5", "--overlap", "448"),
            2,
            "overlap=448 is not below patch_size_px=448. Lower --overlap.",
        ),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    words: tuple[str, ...],
    code: int,
    text: str,
    run: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    before = sorted(
        path for path in tmp_path.rglob("*") if path.name != "dataset_index.safetensors"
    )
    said = run_main(capsys, code, "embed", *words)
    assert text in said.err
    assert "Traceback" not in said.err
    after = sorted(path for path in tmp_path.rglob("*") if path.name != "dataset_index.safetensors")
    assert after == before


def test_without_h5py_nothing_begins(
    run: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    words = ("embed", run, "--data-path", data, "--output", tmp_path / "out")
    said = run_main(capsys, 2, *words)
    assert "pip install 'adios-tme[hdf5]'" in said.err
    assert not (tmp_path / "out").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_stopped_or_killed_goes_on(run: Path, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_archives=40, num_patches=20)
    out, log = tmp_path / "out", tmp_path / "log"
    words = ("embed", run, "--data-path", data, "--output", out)
    slow = (*words, "--batch-size", "1", "--num-workers", "0")

    def written() -> set[Path]:
        return set(out.glob("448px/features_run/*.h5"))

    def wait_for_two_beside(before: set[Path]) -> None:
        wait_for(lambda: len(written() - before) > 1)

    codes = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = written()
        process = start_command(*slow, log=log)
        wait_for_two_beside(before)
        os.kill(process.pid, number)
        codes.append(process.wait(60))
        finished = {path: path.stat().st_mtime_ns for path in written()}
        assert 0 < len(finished) < 40
        assert all(len(read_features(path).features) == 20 for path in finished)
        if number == signal.SIGTERM:
            assert "SIGTERM: stopped; slides that are finished stay." in log.read_text()
    assert codes == [143, -9]
    ended = run_command(*words, "--num-workers", "0")
    assert ended.returncode == 0, ended.stderr
    assert f"{len(finished)} of 40 slides are finished already." in ended.stderr
    assert len(written()) == 40
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in finished.items())
    assert list(out.rglob("*.partial")) == []
    assert not (out / "run.lock").exists()


def test_two_at_once_in_one_folder_are_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    make_dataset(data, num_archives=40, num_patches=20)
    words = ("embed", run, "--data-path", data, "--output", out, "--num-workers", "0")
    process = start_command(*words, "--batch-size", "1", log=tmp_path / "log")
    try:
        wait_for(lambda: (out / "embed.json").exists())
        said = run_main(capsys, 2, *words)
        assert f"{out}: is in use by process {process.pid}" in said.err
        assert "Give another --output, stop that run" in said.err
    finally:
        process.kill()


@pytest.mark.elastic
def test_processes_are_launched_as_for_training(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("embed", run, "--data-path", data, "--output", out, "--device", "cpu")
    found = run_command(*words, "--nproc-per-node", "2", "--num-workers", "1")
    assert found.returncode == 0, found.stderr
    assert "on 2 x cpu" in found.stderr
    assert found.stdout == f"Done. Features: {out}\n"
    assert_right(run, data, out)
    refused = run_command(*words, "--nproc-per-node", "2", "--pool", "mean")
    assert refused.returncode == 2
    assert "holds features with pool=cls, and pool=mean is asked for." in refused.stderr


def test_the_page_on_features_does_what_it_says(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text().replace("\\\n", "")
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        make_archive(tmp_path / "patches" / f"slide_{number:03d}.zip", seed=number)
    commands = re.findall(r"^\$ adios-tme (embed .*)$", page, re.M)
    alone = [line for line in commands if not re.search("--(nproc|nnodes|slurm)", line)]
    assert len(alone) == 3
    make_slide(tmp_path / "slides" / "a.tif", stained(448, 448), mpp=0.5)
    for line in alone:
        run_main(capsys, 0, *shlex.split(line), "--num-workers", "0")
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    of_slides = read_features(
        tmp_path / "features_of_slides" / "224px_0px_overlap" / "features_run" / "a.h5"
    )
    assert of_slides.attributes["patch_size_level0"] == 224
    for word in ("embed.json", "448px/features_run/slide_001.h5"):
        assert word.rpartition("/")[2] in shown
        assert (tmp_path / "features" / word).is_file()
    assert (
        read_features(
            tmp_path / "features_20x" / "20x_448px_0px_overlap" / "features_run" / "slide_002.h5"
        ).attributes["patch_size_level0"]
        == 896
    )
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(code, names)
    assert names["features"].shape == (4, 32)
    assert names["coords"].dtype == np.int64
    assert capsys.readouterr().out.startswith("(4, 32) [0 0] 448")
