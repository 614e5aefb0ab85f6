"""What is not taken is said: how many, why, two names, what to do; and what is taken is right."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adios_tme.cli.app import main
from adios_tme.config.base import expand_user
from adios_tme.config.data import DataConfig, DataRoot, PatchSelection
from adios_tme.config.load import read_yaml
from adios_tme.config.train import TrainConfig
from adios_tme.data.archive import read_directory
from adios_tme.data.build_report import BuildReport
from adios_tme.data.decode import is_image_name
from adios_tme.data.index_builder import build_index, index_archives
from adios_tme.data.left_out import LeftOut
from adios_tme.data.selection import sort_members
from adios_tme.errors import ConfigError, DataError
from adios_tme.training.loop import run_training
from tests.factories import make_archive, make_dataset, png, tiny_config


def account(report: BuildReport) -> dict[str, tuple[int, list[str]]]:
    """Reasons, how many, and examples."""
    return {
        entry["reason"]: (entry["count"], entry["examples"])
        for entry in report.as_json()["left_out"]
    }


def write_zip(path: Path, *names: str, content: bytes | None = None, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name in names:
            archive.writestr(name, png(8) if content is None else content)
    return path


def test_each_reason_is_counted_with_two_names(tmp_path: Path) -> None:
    taken = [f"p{n}_448_x{n}_y0.png" for n in range(3)]
    junk = ["__MACOSX/._p0_448_x0_y0.png", "Thumbs.db", ".DS_Store"]
    others = ["a_x448_y0.png", "b_256_x0_y0.png", "c_256_x0_y0.png"]
    write_zip(tmp_path / "s.zip", *taken, *junk, *others, "p0_448_224_x0_y0.png", "notes.txt")
    (tmp_path / "t.tar.gz").write_bytes(b"packed")
    write_zip(tmp_path / "b.zip", "q_448_x0_y0.png", compression=zipfile.ZIP_BZIP2)
    report = index_archives(tmp_path)
    assert len(report.index) == 4  # what cannot be unpacked is met as corrupt when it is read
    found = account(report)
    assert found["rule"] == (3, ["s.zip/a_x448_y0.png", "s.zip/b_256_x0_y0.png"])
    assert found["junk"][0] == 3
    assert found["thumbnail"][0] == 1
    assert found["archive_kind"] == (1, ["t.tar.gz"])
    assert found["packing"] == (1, ["b.zip/q_448_x0_y0.png"])
    again = index_archives(tmp_path)  # nothing is scanned, and the same is said
    assert again.num_scanned == 0
    assert account(again) == found
    texts = [text for text, _ in report.notices()]
    assert any("--all" in text for text in texts)


def test_folders_are_asked_as_archives_are(tmp_path: Path) -> None:
    for name in ("p_448_x0_y0.png", "._p_448_x0_y0.png", "q_256_x0_y0.PNG", "desktop.ini"):
        (tmp_path / name).write_bytes(png(8))
    found = account(index_archives(tmp_path))
    assert found["rule"] == (1, ["q_256_x0_y0.PNG"])
    assert found["junk"][0] == 2


def test_a_list_says_what_it_names_and_nobody_holds(tmp_path: Path) -> None:
    make_archive(tmp_path / "s.zip", num_patches=3)
    named = ["patch_000_448_x0_y0.png", "patch_009_448_x0_y0.png"]
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([("s.zip", named)]))
    found = account(index_archives(tmp_path / "list.pkl"))
    assert found["unnamed"] == (1, ["s.zip/patch_009_448_x0_y0.png"])
    assert found["unlisted"][0] == 2


def test_a_coordinate_is_no_size_and_no_patch_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    write_zip(tmp_path / "s.zip", *(f"S1_{n * 448}_0.png" for n in range(4)))
    with pytest.raises(DataError, match=r"no patch among 4 images .*--all"):
        build_index(tmp_path)
    assert len(build_index(tmp_path, PatchSelection(all=True))) == 4


def test_plain_folders_whose_names_state_no_size_are_taken_whole(tmp_path: Path) -> None:
    folder = tmp_path / "slide_a"
    folder.mkdir()
    for n in range(3):
        (folder / f"S1_{n * 448}_0.png").write_bytes(png(8, seed=n))
    report = index_archives(tmp_path)
    assert len(report.index) == 3
    assert [(notice.text, notice.is_urgent) for notice in report.notices()] == [
        (
            "No name in these folders states a size, so all 3 images are taken. Choose some with "
            "--pattern or --patch-size-px.",
            False,
        )
    ]
    again = index_archives(tmp_path)
    assert (again.num_scanned, again.notices()) == (0, report.notices())
    # A slide without its scale, a size that is asked for, one that a name states, and an archive
    # leave the rule as it is.
    (folder / "slide.tif").write_bytes(png(8))
    with pytest.raises(DataError, match="no patch among 4 images"):
        index_archives(tmp_path)
    (folder / "slide.tif").unlink()
    with pytest.raises(DataError, match="no patch among 3 images"):
        index_archives(tmp_path, PatchSelection(patch_size_px=256))
    (folder / "p_448_x0_y0.png").write_bytes(png(8))
    report = index_archives(tmp_path)
    assert len(report.index) == 1
    assert report.notices()[0].text.startswith("Took 1 of 4 images.")
    (folder / "p_448_x0_y0.png").unlink()
    make_archive(tmp_path / "s.zip", num_patches=2)
    assert len(index_archives(tmp_path).index) == 2


def test_one_part_of_an_archive_says_so(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "s.zip")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x05\x06")
    content[at + 4 : at + 8] = struct.pack("<2H", 1, 1)  # the second of two disks
    path.write_bytes(content)
    with pytest.raises(DataError, match="one part of a split archive"):
        build_index(tmp_path)


def test_a_count_that_wraps_is_no_limit(tmp_path: Path) -> None:
    count = 65_536 + 10
    content = png(2)
    facts = (20, 0, 0, 0, 0, zlib.crc32(content), len(content), len(content), 18)
    local, central = bytearray(), bytearray()
    for number in range(count):
        name = f"p{number:06d}_448_x0.png".encode()
        central += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *facts, *[0] * 5, len(local)) + name
        local += struct.pack("<4s5H3L2H", b"PK\3\4", *facts, 0) + name + content
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10, 10, len(central), len(local), 0)
    (tmp_path / "s.zip").write_bytes(local + central + end)
    assert len(build_index(tmp_path)) == count


def test_backslashes_separate_and_slides_are_told_apart_by_path(tmp_path: Path) -> None:
    names = [f"S{s}\\{n}_x{n * 448}_y0.png" for s in (1, 2) for n in range(3)]
    path = write_zip(tmp_path / "one" / "dump.zip", *(n.replace("\\", "/") for n in names))
    content = path.read_bytes()
    for name in names:
        content = content.replace(name.replace("\\", "/").encode(), name.encode())
    path.write_bytes(content)
    assert build_index(tmp_path / "one").num_slides() == 2
    for cohort in ("a", "b"):
        make_archive(tmp_path / "two" / cohort / "slide_1.zip", num_patches=3)
    assert sorted(build_index(tmp_path / "two").patches_per_slide().values()) == [3, 3]


def test_the_files_own_coordinates_count(tmp_path: Path) -> None:
    write_zip(tmp_path / "s.zip", "roi_x10000_y20000/tile_448_x448_y896.png")
    assert build_index(tmp_path).patch(0).coordinates == (448, 896)


def test_what_a_run_writes_is_never_data(tmp_path: Path) -> None:
    for number in range(4):
        image = Image.open(io.BytesIO(png(32, seed=number)))
        image.save(tmp_path / f"tile_{number}.png")
    shape = {"all": True, "viz_freq": 1, "batch_size_per_gpu": 2}
    for total in (2, 4):
        config = tiny_config(tmp_path, tmp_path / "run", total_iterations=total, **shape)
        run_training(config)
        assert len(build_index(tmp_path, PatchSelection(all=True))) == 4


def test_few_patches_are_warned_of_and_one_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_archive(tmp_path / "three" / "s.zip", num_patches=3)
    with caplog.at_level(logging.WARNING):
        run_training(tiny_config(tmp_path / "three", tmp_path / "run", total_iterations=2))
    assert "3 patches are fewer than a global batch of 4" in caplog.text
    make_archive(tmp_path / "one" / "s.zip", num_patches=1)
    with pytest.raises(DataError, match="one patch alone leaves no other image"):
        run_training(tiny_config(tmp_path / "one", tmp_path / "other"))


def test_corrupt_patches_are_counted_over_all_that_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adios_tme.data.corrupt.FEWEST_JUDGED", 1)
    path = tmp_path / "data" / "s.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):
            content = png(32, seed=number) if number % 2 else b"no image"
            archive.writestr(f"p{number}_448_x0_y0.png", content)
    shape = {"total_iterations": 20, "max_corrupt_fraction": 0.3}
    with pytest.raises(DataError) as error:
        run_training(tiny_config(tmp_path / "data", tmp_path / "run", **shape))
    corrupt, seen = (int(word) for word in str(error.value).split() if word.isdigit())
    assert 0.3 < corrupt / seen < 0.8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list folders whatever their mode")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a")
    (tmp_path / "b").mkdir(mode=0)
    (fault,) = index_archives(tmp_path).faults
    assert "b: cannot be listed" in fault.message


def test_a_folder_whose_listing_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "a")
    make_dataset(tmp_path / "b")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = index_archives(tmp_path)
    assert len(report.index) == 12
    assert ["b: cannot be listed" in fault.message for fault in report.faults] == [True]


def test_names_beyond_the_terminal_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "données-日本")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["adios-tme", "index", str(tmp_path / "données-日本")])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code


def test_json_holds_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zip(tmp_path / "s.zip", "p_448_x0_y0.png", "q_256_x0_y0.png")
    monkeypatch.setattr(sys, "argv", ["adios-tme", "index", str(tmp_path), "--json"])
    with pytest.raises(SystemExit):
        main()
    said = json.loads(capsys.readouterr().out)
    assert said["num_images"] == 2
    assert [entry["reason"] for entry in said["left_out"]] == ["rule"]


def test_a_home_folder_is_meant_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/a") == f"{tmp_path}/a"
    config = TrainConfig.model_validate(
        {"data": {"data_path": "~/patches"}, "run": {"output_dir": "~/runs", "init_from": "~/old"}}
    )
    assert config.data.data_path == (f"{tmp_path}/patches",)
    assert (config.run.output_dir, config.run.init_from) == (tmp_path / "runs", f"{tmp_path}/old")


@pytest.mark.parametrize(
    ("text", "lines"),
    [("lr: 1\nseed: 2\nlr: 3\n", "1 and 3"), ("lr: 1\noptim:\n  lr: 3\n", "1 and 3")],
)
def test_a_setting_named_twice_is_refused(text: str, lines: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"lr is given twice, in lines {lines}"):
        read_yaml(tmp_path / "run.yaml", TrainConfig)


def test_a_path_that_is_there_may_hold_a_colon(tmp_path: Path) -> None:
    (tmp_path / "run:2").mkdir()
    assert DataRoot.parse(f"{tmp_path}/run:2") == DataRoot(tmp_path / "run:2", 1.0)
    assert DataRoot.parse(f"{tmp_path}/run:2:0.5") == DataRoot(tmp_path / "run:2", 0.5)
    assert DataRoot.parse(f"{tmp_path}/other:2") == DataRoot(tmp_path / "other", 2.0)


@pytest.mark.parametrize("pattern", ["(?P<sldie>a)", "a", "(", "(?P<x>1)"])
def test_a_name_pattern_that_says_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="name_pattern"):
        PatchSelection(name_pattern=pattern)


def test_a_name_pattern_says_how_names_are_meant(tmp_path: Path) -> None:
    write_zip(tmp_path / "s.zip", "S1-7-9-512.png", "S2-7-9-512.png", "S2-7-9-256.png")
    pattern = r"(?P<slide>S\d)-(?P<x>\d+)-(?P<y>\d+)-(?P<size>\d+)"
    index = build_index(tmp_path, PatchSelection(name_pattern=pattern, patch_size_px=512))
    assert (len(index), index.num_slides()) == (2, 2)
    assert index.patch(0).coordinates == (7, 9)
    assert DataConfig(data_path=("x",)).patches.name_pattern is None


@pytest.mark.parametrize(
    "name",
    ["a/.png", ".png", "a\\.webp", "a.png", "a/b.TIFF", ".b.jpg", "png", "a/b.txt", "a.png/"],
)
def test_one_rule_says_what_is_an_image(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x_448.png", png(8))
        archive.writestr(name, b"")
    images = sort_members(read_directory(tmp_path / "a.zip"), PatchSelection(all=True)).patches
    assert images.tolist()[1] is is_image_name(name)
    assert is_image_name(name) is (name in ("a.png", "a/b.TIFF", ".b.jpg"))


def test_what_is_used_all_the_same_is_noted_and_not_left_out() -> None:
    account = LeftOut()
    account.add("too_coarse", ["a.svs"])
    account.add("junk", ["._a.png"])
    junk, coarse = account.lines()
    assert junk.startswith("Left out: 1 files or folders that an operating system put")
    assert coarse.startswith("Note: 1 slides that were scanned at a coarser scale than asked for")
