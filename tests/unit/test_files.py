"""Files that are asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adios_tme.errors import ConfigError, DataError
from adios_tme.files import check_output, replacing, write_whole, writing


@pytest.mark.parametrize("name", ["m.png", "new/and/newer/m.PNG", "old.png"])
def test_what_can_be_written_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    check_output(tmp_path / name, (".png",))
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("folder.png", DataError, "folder.png: cannot be written (Is a directory)"),
        ("file/m.png", DataError, "m.png: cannot be written (Not a directory)"),
        ("file/new/m.png", DataError, "m.png: cannot be written (Not a directory)"),
        ("m.jpg", ConfigError, "Give a name that ends in .png or .svg."),
        ("m", ConfigError, "Give a name that ends in .png or .svg."),
    ],
)
def test_what_cannot_be_written_is_told_beforehand(
    name: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error) as told:
        check_output(tmp_path / name, (".png", ".svg"))
    assert text in str(told.value)


def test_what_the_disk_refuses_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(DataError, match=r"folder: cannot be written \(Is a dir"), writing(path):
        path.write_bytes(b"")


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_output(tmp_path / "pipe")


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_whole(path, "old")

    def stop_half_way() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        stop_half_way()
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
