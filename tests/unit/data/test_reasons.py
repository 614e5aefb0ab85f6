"""Nothing is left out without a word: every reason, in every kind of source, told every time."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adios_tme.config.data import PatchSelection
from adios_tme.data.build_report import BuildReport
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index, index_archives
from adios_tme.data.left_out import REASONS, LeftOut, Reason
from adios_tme.data.pickle_list import write_listing
from adios_tme.errors import DataError
from adios_tme.run_folder.layout import ENVIRONMENT, LOG, SETTINGS
from adios_tme.viz.contact_sheet import draw_contact_sheet
from adios_tme.viz.figure import save_figure
from tests.factories import make_archive, png
from tests.hostile import BAD, PATCHES, half, last_of_two_volumes

GOOD = {f"good_{number}_448_x0_y{number}.png": png(8, seed=number) for number in range(3)}

Build = Callable[[Path, dict[str, bytes]], None]


def as_zip(folder: Path, contents: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / "slide.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def as_tar(folder: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(folder / "slide.tar", "w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def as_folder(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


SOURCES = {"zip": as_zip, "tar": as_tar, "folder": as_folder}


def counts(report: BuildReport) -> dict[str, int]:
    return {entry["reason"]: entry["count"] for entry in report.as_json()["left_out"]}


def text(report: BuildReport) -> str:
    return "\n".join(notice.text for notice in report.notices())


@pytest.mark.parametrize("build", SOURCES.values(), ids=list(SOURCES))
@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (["._good_0_448_x0_y0.png", "a/.DS_Store", "Thumbs.db"], "junk"),
        (["tile_0.png", "tile_1.JPG"], "rule"),
        (["good_0_224_x0_y0.png"], "thumbnail"),
        (["labels.csv", "a/notes.txt"], "not_an_image"),
    ],
)
def test_members_beside_the_patches(
    build: Build, others: list[str], reason: Reason, tmp_path: Path
) -> None:
    (tmp_path / "cohort").mkdir()
    build(tmp_path / "cohort", GOOD | dict.fromkeys(others, b"x"))
    report = index_archives(tmp_path)
    assert len(report.index) == len(GOOD)
    assert counts(report) == {reason: len(others)}
    assert f"{len(others)} {REASONS[reason].words}" in text(report)
    assert any(Path(name).name in text(report) for name in others)
    again = index_archives(tmp_path)
    assert (again.num_scanned, again.as_json()) == (0, report.as_json())
    assert again.notices() == report.notices()


@pytest.mark.parametrize("build", [as_zip, as_tar])
def test_a_folder_of_junk_in_an_archive(build: Build, tmp_path: Path) -> None:
    build(tmp_path, GOOD | {f"__MACOSX/._{name}": b"x" for name in GOOD})
    assert counts(index_archives(tmp_path)) == {"junk": 3}


def test_junk_beside_archives(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD)
    as_folder(tmp_path, {"._slide.zip": b"x", "__MACOSX/a.zip": b"x", "@eaDir/p_448_.png": b"x"})
    report = index_archives(tmp_path)
    assert (counts(report), report.faults) == ({"junk": 3}, ())


def test_junk_alone_is_no_data(tmp_path: Path) -> None:
    as_folder(tmp_path, {"._p_448_.png": b"x"})
    with pytest.raises(DataError, match=r"holds no zip archive.*1 files or folders that an op"):
        build_index(tmp_path)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("encrypted", "encrypted"),
        ("strong encryption", "packing"),
        ("a method as large as a refusal", "packing"),
        ("a name that leads out", "unsafe_name"),
        ("a NUL in the name", "unsafe_name"),
        ("an absolute name", "unsafe_name"),
        ("4 GiB packed", "misplaced"),
        ("overlapping members", "misplaced"),
        ("a symbolic link in a tar", "not_regular"),
        ("a link to nothing among files", "not_regular"),
    ],
)
def test_patches_that_cannot_be_read(case: str, reason: Reason, tmp_path: Path) -> None:
    PATCHES[case].build(tmp_path)
    report = index_archives(tmp_path)
    assert counts(report) == {reason: 1}
    (notice,) = report.notices()
    assert notice.is_urgent
    assert REASONS[reason].advice in notice.text
    assert index_archives(tmp_path).notices() == [notice]


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD)
    half(tmp_path / "cut.zip")
    last_of_two_volumes(tmp_path / "part.zip")
    (tmp_path / "packed.tar.gz").touch()
    report = index_archives(tmp_path)
    assert counts(report) == {"archive_kind": 2, "unreadable": 2}  # with part.z01
    assert "Left out: cut.zip: it has no end-of-directory record" in text(report)
    assert "Left out: part.zip: it is one part of a split archive" in text(report)
    assert "packed.tar.gz, part.z01" in text(report)


def test_a_list_names_what_is_not_there(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD | {"other.png": b"x", "__MACOSX/._p.png": b"x"})
    names = [*list(GOOD)[:2], "gone.png", "__MACOSX/._p.png"]
    write_listing([("slide.zip", names), ("._slide.zip", ["p.png"])], {}, tmp_path / "list.pkl")
    report = index_archives(tmp_path / "list.pkl")
    assert len(report.index) == 2
    assert counts(report) == {"unlisted": 2, "unnamed": 1, "junk": 2}
    assert "gone.png" in text(report)


def test_how_much_was_taken_is_told_and_how_to_take_the_rest(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD | {f"tile_{number}.png": b"x" for number in range(7)})
    notices = index_archives(tmp_path).notices()
    assert notices[0].text.startswith("Took 3 of 10 images. Asked for names with _448_ as a size")
    assert "7 images whose names do not follow the rule (slide.zip/tile_0.png, " in notices[1].text
    assert "--all" in notices[1].text
    assert all(notice.is_urgent for notice in notices)
    report = index_archives(tmp_path, PatchSelection(all=True))
    assert (report.notices(), report.as_json()["num_images"]) == ([], 10)


def test_little_that_is_left_out_is_no_cause_for_alarm(tmp_path: Path) -> None:
    make_archive(tmp_path / "a.zip", num_patches=20, size_px=1)
    as_folder(tmp_path, {"overview.png": png(4)})
    report = index_archives(tmp_path)
    assert [notice.is_urgent for notice in report.notices()] == [False, False]


def test_what_changed_alone_is_counted_anew(tmp_path: Path) -> None:
    as_folder(tmp_path / "a", GOOD | {"x.png": b""})
    as_folder(tmp_path / "b", GOOD | {"y.png": b"", "z.png": b""})
    assert counts(index_archives(tmp_path)) == {"rule": 3}
    (tmp_path / "b" / "z.png").unlink()
    report = index_archives(tmp_path)
    assert (report.num_scanned, counts(report)) == (1, {"rule": 2})
    assert report.left_out.as_json()[0]["examples"] == ["a/x.png", "b/y.png"]


def test_an_index_of_an_earlier_version_is_built_again(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD | {"x.png": b""})
    path = build_index(tmp_path).path
    path.write_bytes(path.read_bytes().replace(b"archive_left_out", b"archive_lost_out"))
    old = DatasetIndex.open(path)
    assert (len(old), old.tells_left_out, bool(old.left_out())) == (3, False, False)
    report = index_archives(tmp_path)
    assert (report.num_scanned, counts(report)) == (1, {"rule": 1})


@pytest.mark.parametrize(
    "account", ["[]", '{"rule":3}', '{"rule":[1,[2]]}', "{", '{"rule":["1",[]]}']
)
def test_a_damaged_account_is_refused(account: str) -> None:
    with pytest.raises(ValueError, match=r"no account|Expecting"):
        LeftOut.parse(account)


def test_an_account_survives_being_written() -> None:
    account = LeftOut()
    account.add("rule", ["c"])
    account.add("junk", ["a", "\udce9", "b"], 7)
    assert LeftOut.parse(account.dump()).as_json() == account.as_json()
    assert LeftOut.parse('{"of a later version":[1,[]]}').as_json() == []
    assert LeftOut().dump() == ""


def test_folders_of_runs_are_no_data(tmp_path: Path) -> None:
    as_folder(tmp_path, GOOD)
    as_folder(tmp_path / "run" / "visualizations" / "masks", {BAD: png(8)})
    make_archive(tmp_path / "run" / "tissue" / "patches" / "slide.zip")
    as_folder(tmp_path / "run", dict.fromkeys((SETTINGS, ENVIRONMENT, LOG), b""))
    report = index_archives(tmp_path)
    assert (len(report.index), counts(report)) == (3, {"own": 1})
    # What is asked for by name is read, such as the tissue of a demonstration.
    assert len(build_index(tmp_path / "run" / "tissue" / "patches")) == 4


def test_the_folder_that_is_written_to_is_no_data_from_the_start(tmp_path: Path) -> None:
    as_folder(tmp_path, GOOD)
    as_folder(tmp_path / "run", {BAD: png(8)})
    assert len(index_archives(tmp_path).index) == 4
    assert len(index_archives(tmp_path, own=[tmp_path / "run", tmp_path / "none"]).index) == 3


@pytest.mark.parametrize("num_patches", [3, 1500])
def test_pictures_that_we_draw_are_no_data(num_patches: int, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    as_folder(tmp_path, {f"tile_{number:04d}.png": png(2) for number in range(num_patches)})
    every = PatchSelection(all=True)
    assert len(build_index(tmp_path, every)) == num_patches
    draw_contact_sheet([np.zeros((4, 4, 3), np.uint8)], tmp_path / "sheet.png")
    for number in range(3):
        save_figure(Figure(figsize=(1, 1)), tmp_path / f"iter_{number}.PNG")
    report = index_archives(tmp_path, every)
    assert (len(report.index), counts(report)) == (num_patches, {"own": 4})


def test_our_indexes_and_lists_are_no_news(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD)
    for name in ("dataset_index.pkl", "dataset_index_metadata.pkl", ".x.png.7.partial"):
        (tmp_path / name).touch()
    output = tmp_path / "other.safetensors"
    for _ in range(2):
        assert index_archives(tmp_path, output=output).notices() == []


def test_earlier_versions_read_the_index_too(tmp_path: Path) -> None:
    as_zip(tmp_path, GOOD)
    content = build_index(tmp_path).path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    # They know neither other settings nor other types of columns.
    selection = json.loads(header.pop("__metadata__")["selection"])
    assert selection.keys() <= {"patch_size_px", "pattern", "all"}
    assert {column["dtype"] for column in header.values()} <= {"U64", "I64", "U32", "U8"}
