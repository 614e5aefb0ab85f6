"""Nuclei as files for QuPath: the commands of docs/segment.md, and what mistakes say."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from tests.factories import make_dataset, run_command, run_main, untrained_run
from tests.slides import make_slide, on_glass, stained

#: An untrained mask follows nothing: which one is taken, and from which value on, is said.
GIVEN = "--channel 2 --threshold 0.34"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, a folder of images and a folder of slides."""
    monkeypatch.chdir(tmp_path)
    untrained_run(Path("run"))
    Path("images").mkdir()
    for number in range(2):
        Image.fromarray(stained(70, 90, number)).save(f"images/image_{number}.png")
    pixels = on_glass(200, 300, (slice(40, 160), slice(60, 260)))
    make_slide(Path("slides/a.tif"), pixels, mpp=2, num_levels=2)
    return tmp_path


Run = Callable[[str], str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a command says that ends well."""
    return lambda words: run_main(capsys, 0, *shlex.split(words)).out


def features(path: str) -> list[dict[str, Any]]:
    content = Path(path).read_bytes()
    found: list[dict[str, Any]] = json.loads(
        gzip.decompress(content) if path.endswith(".gz") else content
    )["features"]
    assert all(shape(each["geometry"]).is_valid for each in found)
    assert len({each["id"] for each in found}) == len(found)
    return found


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_are_segmented_and_kept(place: Path, run: Run) -> None:
    words = f"segment run images --output out {GIVEN} --scale 0.5 --input-scale 0.25"
    done = run_command(*shlex.split(words))
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "Channel 2 is taken for nuclei (as given), from 0.340 on (as given)." in said
    nuclei, table = features("out/image_0.geojson"), rows("out/image_0.csv")
    assert nuclei
    assert [each["id"] for each in nuclei] == [row["id"] for row in table]
    assert set(nuclei[0]["properties"]["measurements"]) == {"Mask mean", "Area um^2"}
    summary = {row["name"]: row for row in rows("out/summary.csv")}
    assert int(summary["image_0"]["num_nuclei"]) == len(nuclei)
    assert float(summary["image_0"]["area_mm2"]) == pytest.approx(70 * 90 * 0.0625 / 1e6, rel=0.03)
    before = Path("out/image_0.geojson").read_bytes()
    Path("out/image_1.geojson").rename("out/.image_1.geojson.77.partial")  # as after a kill
    said = run(words)
    assert "Channel 2, from 0.340 on, as before." in said
    assert "Finished before, and skipped: 1 of 2." in said
    assert features("out/image_1.geojson")
    assert not list(Path("out").glob(".*"))
    assert Path("out/image_0.geojson").read_bytes() == before


def test_a_changed_image_is_segmented_again(place: Path, run: Run) -> None:
    words = f"segment run images/image_0.png --output out {GIVEN}"
    run(words)
    Image.fromarray(stained(50, 60, 5)).save("images/image_0.png")
    said = run(words)
    assert "skipped" not in said
    assert "The scale of 1 is unknown: areas are in pixels" in said
    points = np.concatenate([each["geometry"]["coordinates"][0] for each in features(
        "out/image_0.geojson"
    )])  # fmt: skip
    assert points.max(axis=0).tolist() <= [60, 50]


def test_slides_get_nuclei_and_regions_of_tissue(place: Path, run: Run) -> None:
    run("segment run slides --mpp 2 --output out --channel 3 --threshold 0.34 --regions --gzip")
    found = features("out/a.geojson.gz")
    kinds = {each["properties"]["objectType"] for each in found}
    assert kinds == {"detection", "annotation"}
    (row,) = rows("out/summary.csv")
    assert float(row["area_mm2"]) == pytest.approx(120 * 200 * 4 / 1e6, rel=0.2)
    for each in found:
        left, top, right, bottom = shape(each["geometry"]).bounds
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200


@pytest.mark.parametrize("content", ["masks", "labels"])
def test_slides_get_pictures_that_tell_where_they_lie(content: str, place: Path, run: Run) -> None:
    words = f"segment run slides --mpp 4 --output out {GIVEN} --ome-tiff {content}"
    assert "NAME.ome.tiff" in run(words)
    (row,) = rows("out/summary.csv")
    with tifffile.TiffFile("out/a.ome.tiff") as file:
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
        found = file.series[0].asarray()
    assert float(pixels["PhysicalSizeX"]) == pytest.approx(float(row["microns_per_pixel"]))
    assert found.shape[-2:] == (100, 150)
    before = Path("out/a.ome.tiff").read_bytes()
    Path("out/a.ome.tiff").unlink()
    assert "skipped" not in run(words)
    assert Path("out/a.ome.tiff").read_bytes() == before
    assert "Finished before, and skipped: 1 of 1." in run(words)


def test_regions_may_lie_in_the_home_folder(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    corners = [[60, 40], [160, 40], [160, 160], [60, 160], [60, 40]]
    region = {"type": "Polygon", "coordinates": [corners]}
    Path("left.geojson").write_text(
        json.dumps({"type": "Feature", "geometry": region, "properties": {}})
    )
    run(f"segment run slides --mpp 2 --output out {GIVEN} --tissue ~/left.geojson")
    places = [float(row["x"]) for row in rows("out/a.csv")]
    assert places
    assert max(places) <= 160


def test_labels_are_the_nuclei_of_the_geojson(place: Path, run: Run) -> None:
    run(f"segment run slides --mpp 2 --output out {GIVEN} --ome-tiff labels")
    nuclei, table = features("out/a.geojson"), rows("out/a.csv")
    labels = tifffile.imread("out/a.ome.tiff")
    assert labels.dtype == np.uint32
    assert np.unique(labels).tolist() == list(range(len(nuclei) + 1))
    areas = np.bincount(labels.ravel())[1:]
    assert areas.tolist() == [float(row["area_px"]) for row in table]
    drawn = np.array([shape(each["geometry"]).area for each in nuclei])
    assert np.median(np.abs(drawn - areas) / areas) < 0.1
    for number, row in enumerate(table, start=1):
        y, x = np.nonzero(labels == number)
        assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx(
            (float(row["x"]), float(row["y"])), abs=0.01
        )


def test_masks_add_up_where_there_is_tissue(place: Path, run: Run) -> None:
    run(f"segment run images/image_0.png --output out {GIVEN} --ome-tiff masks")
    masks = tifffile.imread("out/image_0.ome.tiff")
    assert masks.shape == (3, 70, 90)
    assert np.abs(masks.sum(axis=0, dtype=int) - 255).max() <= 2


def test_patches_are_put_where_they_lie_in_their_slide(place: Path, run: Run) -> None:
    make_dataset(Path("zips"), num_archives=2)
    words = f"segment run zips --output out {GIVEN} --input-scale 0.5 --level0-scale 0.25"
    run(words)
    assert sorted(path.name for path in Path("out").glob("*.geojson")) == [
        "slide_000.geojson",
        "slide_001.geojson",
    ]
    columns = {int(float(row["x"]) // 448) for row in rows("out/slide_000.csv")}
    assert columns == {0, 1, 2, 3}
    assert max(float(row["x"]) % 448 for row in rows("out/slide_000.csv")) > 32  # 64 px wide


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_one_archive_is_segmented_as_in_its_folder(kind: str, place: Path, run: Run) -> None:
    make_dataset(Path("zips"), num_archives=1)
    if kind == "tar":
        shutil.unpack_archive("zips/slide_000.zip", "loose")
        shutil.make_archive("tars/slide_000", "tar", "loose")
    words = f"{GIVEN} --input-scale 0.5"
    run(f"segment run {kind}s --output whole {words}")
    run(f"segment run {kind}s/slide_000.{kind} --output alone {words}")
    (row,) = rows("alone/summary.csv")
    assert (row["name"], int(row["num_nuclei"])) == ("slide_000", len(rows("whole/slide_000.csv")))
    assert Path("alone/slide_000.csv").read_bytes() == Path("whole/slide_000.csv").read_bytes()
    assert "Finished before, and skipped: 1 of 1." in run(
        f"segment run {kind}s/slide_000.{kind} --output alone {words}"
    )


def test_one_damaged_patch_does_not_cost_the_others(place: Path, run: Run) -> None:
    make_dataset(Path("zips"), num_archives=1)
    path = Path("zips/slide_000.zip")
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF  # in the pixels of the first patch
    path.write_bytes(content)
    said = run(f"segment run zips --output out {GIVEN}")
    assert "Left out: slide_000: patch_000_448_x0_y0.png: " in said
    (row,) = rows("out/summary.csv")
    assert row["num_left_out"] == "1"
    assert {int(float(row["x"]) // 448) for row in rows("out/slide_000.csv")} <= {1, 2, 3}


def test_an_image_that_cannot_be_read_is_left_out_and_said(place: Path, run: Run) -> None:
    Path("images/image_0.png").write_bytes(Path("images/image_0.png").read_bytes()[:200])
    said = run(f"segment run images --output out {GIVEN}")
    assert "Left out: image_0: " in said
    assert [row["name"] for row in rows("out/summary.csv")] == ["image_1"]
    assert not Path("out/image_0.geojson").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("segment run images --channel 4", 2, "channel=4 is beyond the 3 masks of the model."),
        ("segment run white.png", 2, "channel: no mask goes with the haematoxylin (correlations"),
        ("segment run images --scale 0.5", 2, "image_0.png: the scale of the image is unknown."),
        ("segment run scans", 1, "scans: holds no zip archive, no tar and no image."),
        ("segment run scans/a.svs", 2, "a.svs: is a whole slide, which is read at a stated scale"),
        ("segment run glass --mpp 2", 1, "tissue: none was found in the slides."),
        ("segment run unscaled --mpp 2", 1, "a.tif: does not state its microns per pixel."),
        ("segment run slides --tissue hsv", 2, "tissue=hsv would be ignored: slides are read with"),
        ("segment run slides --mpp 2 --scale 2", 2, "scale=2.0 would be ignored: slides are read"),
        ("segment run images --mpp 2", 1, "images: holds no whole slide."),
        ("segment run none", 2, "input: none does not exist. Give an image,"),
        (
            "segment run zips --channel 1 --ome-tiff masks",
            2,
            "ome_tiff=masks: patch_000_448_x0_y0.png is a part of a slide, and no picture by",
        ),
        ("segment run notes.txt", 2, "input: notes.txt is no image, no archive and no folder."),
        ("segment run empty.zip", 1, "empty.zip: "),
        ("segment none images", 1, "none"),
        ("segment run bad.png --channel 1", 1, "bad.png: "),
        (
            "segment run images --channel 1 --output used",
            2,
            "used: holds nuclei with channel=2, and channel=1 is asked for. "
            "Give another --output, or remove that folder.",
        ),
        (f"segment other images {GIVEN} --output used", 2, "used: holds nuclei of another mask"),
    ],
)
def test_mistakes_get_one_message(
    words: str, code: int, message: str, place: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").touch()
    Path("empty.zip").write_bytes(b"PK\5\6" + bytes(18))
    make_dataset(Path("zips"), num_archives=1)
    Path("bad.png").write_bytes(b"no image")
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save("white.png")
    Path("scans").mkdir()
    Path("scans/a.svs").write_bytes(Path("slides/a.tif").read_bytes())
    make_slide(Path("glass/a.tif"), np.full((256, 256, 3), 244, np.uint8), mpp=2)
    make_slide(Path("unscaled/a.tif"), stained(64, 64), mpp=None)
    if "used" in words:
        untrained_run(Path("other"), seed=7)
        run(f"segment run images/image_0.png --output used {GIVEN}")
    said = run_main(capsys, code, *shlex.split(words))
    assert message in said.err.replace("\n", " ")
    assert said.err.count("Error:") == 1
    assert not list(Path("segmentation").glob("*.geojson"))
