"""Results are written whole, and where they cannot be is told before they are measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from adios_tme.benchmark.results_file import ResultsFile, write_beside
from adios_tme.errors import DataError
from adios_tme.viz.figure import save_figure


def test_results_replace_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "speed.json"
    file = ResultsFile.checked(path)
    assert list(tmp_path.iterdir()) == []
    file.try_to_write({"cases": [1]})
    file.write({"cases": [1, 2]})
    assert json.loads(path.read_text()) == {"cases": [1, 2]}
    assert list(path.parent.iterdir()) == [path]
    ResultsFile.checked(None).write({})


def test_one_picture_laid_out_once_is_written_as_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts: list[Figure] = []
    lay_out = ConstrainedLayoutEngine.execute

    def counted(engine: ConstrainedLayoutEngine, figure: Figure) -> None:
        layouts.append(figure)
        lay_out(engine, figure)

    def picture(title: str) -> Figure:
        figure = Figure(layout="constrained")
        figure.subplots().set_title(title)
        return figure

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", counted)
    save_figure(picture("probe"), tmp_path / "alone.png")
    num_of_one = len(layouts)
    assert num_of_one > 0
    write_beside(tmp_path / "two.json", "probe", lambda text, path: None, picture)
    assert len(layouts) == 2 * num_of_one
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    assert (tmp_path / "two.svg").stat().st_size > 1000


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        ResultsFile.checked(tmp_path)


def test_what_was_written_outlives_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "speed.json"
    file = ResultsFile.checked(path)
    file.write({"cases": [1]})

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        file.write({"cases": [1, 2]})
    assert caplog.records == []
    file.try_to_write({"cases": [1, 2]})
    assert "The measurement goes on." in caplog.text
    assert json.loads(path.read_text()) == {"cases": [1]}
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(target)
    ResultsFile.checked(link).write({"cases": []})
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"cases": []}
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ResultsFile.checked(pipe).write({"cases": []})
        assert json.loads(os.read(reader, 1000)) == {"cases": []}
    finally:
        os.close(reader)
    assert pipe.is_fifo()
