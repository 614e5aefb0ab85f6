"""The report of runs: what it says, that nothing in it can run, its size, and its mistakes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adios_tme.errors import DataError
from adios_tme.viz.report import page
from adios_tme.viz.report.charts import MOST_LINES, charts_of
from adios_tme.viz.report.embedded import embed_series
from adios_tme.viz.report.history import history_of
from adios_tme.viz.report.page import write_report
from adios_tme.viz.report.run_files import read_run
from adios_tme.viz.report.verdicts import verdicts
from tests.factories import run_main
from tests.run_folders import (
    HOSTILE,
    interval,
    line_of,
    make_run_folder,
    nuclei_results,
    probe_results,
    write_lines,
)


class Read(HTMLParser):
    """The visible text of a page, its elements, and what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.targets: list[str | None] = []
        self.handlers: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.targets += [value for name, value in attrs if name in {"src", "href", "srcset"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._inside not in {"script", "style"}:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def written(*runs: Path, **options: Any) -> tuple[str, Read]:
    path = runs[0].parent / "r.html"
    write_report(runs, path, **options)
    text = path.read_text()
    return text, Read(text)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_report_tells_what_the_run_was(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", lr=0.25)
    (run / "nuclei").mkdir()
    results = json.dumps(nuclei_results(0.5, 0.6))
    (run / "nuclei" / "nuclei_benchmark.json").write_text(results)
    text, read = written(run)
    said = " ".join(read.text.split())
    close = said.replace(" ", "")
    assert "data1231.0" in close  # patches, archives and weight of the root
    assert "--lr0.255e-05" in close
    assert "1 h 30 min" in said
    assert "'a b' c" in said
    assert "IoU 0.500, Otsu haematoxylin 0.600." in said
    assert "0.500 [0.450, 0.550]" in said
    assert f'run = "{run}"' in read.text
    data = data_of(text)
    assert [entry["iteration"] for entry in data["series"][0]] == [50, 100, 150, 200]
    titles = [chart["title"] for chart in data["charts"]]
    assert titles[:2] == ["Student loss", "Mask model loss"]
    assert data["charts"][0]["data"][0] == list(range(10, 210, 10))
    assert data["charts"][0]["data"][1][0] == 4.9
    assert read.tags.count("img") == 2  # the last masks, and the contact sheet


def test_nothing_is_asked_of_a_network_and_nothing_but_our_scripts_may_run(tmp_path: Path) -> None:
    text, read = written(make_run_folder(tmp_path / "run"))
    assert all(target.startswith(("data:", "#")) for target in read.targets if target)
    assert read.handlers == []
    assert "default-src &#39;none&#39;" in text
    assert "The MIT License" in text
    assert len(text) < 400_000


def test_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    plain = written(make_run_folder(tmp_path / "plain"))[1]
    hostile = make_run_folder(tmp_path / HOSTILE.replace("/", ""))
    damage = {"archive": HOSTILE, "name": HOSTILE, "reason": HOSTILE}
    (hostile / "corrupt.jsonl").write_text(json.dumps(damage) + '\n{"archive": "cut')
    with (hostile / "train.log").open("a") as log:
        log.write(f"2026-01-01 12:00:00,000 WARNING {HOSTILE}\n")
    text, read = written(hostile)
    assert read.text.count(HOSTILE) == 4
    for tag in ("script", "img"):
        assert read.tags.count(tag) == plain.tags.count(tag)
    assert "<script>window" not in text
    assert "49" not in re.findall(r"\d+", read.text.partition(HOSTILE)[0][:200])
    both, several = written(hostile, tmp_path / "plain")
    assert data_of(both)["charts"][0]["curves"][0]["label"] == hostile.name
    assert several.handlers == []


def test_several_runs_are_compared(tmp_path: Path) -> None:
    one = make_run_folder(tmp_path / "a" / "run", lr=0.25)
    other = make_run_folder(tmp_path / "b" / "run", num_masks=4)
    text, read = written(one, other)
    said = " ".join(read.text.split())
    assert "2 runs" in said
    assert "--lr0.250.001" in said.replace(" ", "")
    assert "--num-masks34" in said.replace(" ", "")
    assert "--output-dir" not in said.partition("All settings")[0]
    loss, *_ = data_of(text)["charts"]
    assert [curve["label"] for curve in loss["curves"]] == ["a/run", "b/run"]
    assert [curve["colour"] for curve in loss["curves"]] == [0, 1]
    again = written(one, one)[1]
    assert "All settings are the same." in again.text


def test_ids_are_unique_and_links_lead_somewhere(tmp_path: Path) -> None:
    runs = [make_run_folder(tmp_path / name / "run") for name in "ab"]
    for shown in (runs[:1], runs):
        text, read = written(*shown)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        assert {each[1:] for each in read.targets if each and each[0] == "#"} <= set(ids)


def titles(run: Path) -> dict[str, str]:
    return {each.title: each.level for each in verdicts(read_run(run))}


def test_a_healthy_run_is_called_so(tmp_path: Path) -> None:
    said = titles(make_run_folder(tmp_path / "run"))
    assert set(said.values()) == {"good"}
    assert {"Finished", "Masks are hard for the student", "Mask 3 follows the nuclei"} <= set(said)


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        ({"mask_coverage": [0.995, 0.003, 0.002]}, "A mask has collapsed"),
        ({"mask_coverage": [None, None, None]}, "Masks are not finite"),
        ({"mask_overlap": 0.97}, "Two masks are the same"),
        ({"adversarial_gap": -0.1}, "The student has caught up with the masks"),
        ({"embedding_std": 0.001, "rankme": 1.0}, "The student has collapsed"),
        ({"rankme": 1.02}, "The student has collapsed"),
        ({"student_loss": None}, "Losses are not finite"),
        ({"data_wait_fraction": 0.4}, "Data come too slowly"),
        ({"num_damaged": 3}, "Some patches are corrupt"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    metrics: dict[str, Any], title: str, tmp_path: Path
) -> None:
    run = make_run_folder(tmp_path / "run")
    write_lines(run, [line_of(iteration, **metrics) for iteration in range(10, 210, 10)])
    assert titles(run)[title] == "warn"


def test_what_was_wrong_for_a_while_is_said_with_its_iterations(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run")
    shares = [0.995, 0.003, 0.002]
    write_lines(
        run, [line_of(at, **({"mask_coverage": shares} if at == 50 else {})) for at in (40, 50, 60)]
    )
    found = {each.title: each.text for each in verdicts(read_run(run))}
    assert found["Every mask is in use"].endswith("It was otherwise from iteration 50.")
    assert "iteration 60 of 200" in found["Not finished"]
    assert "has 3 lines" in found["Too early to say whether masks are hard"]


@pytest.mark.parametrize(
    ("model", "title"),
    [
        (0.7, "Nuclei are found better than by every baseline"),
        (0.6, "Nuclei are found as well as by the best baseline"),
        (0.5, "A baseline finds nuclei better"),
    ],
)
def test_scores_are_compared_with_the_best_baseline(
    model: float, title: str, tmp_path: Path
) -> None:
    run = make_run_folder(tmp_path / "run")
    (tmp_path / "n.json").write_text(json.dumps(nuclei_results(model, 0.6)))
    assert title in {each.title for each in verdicts(read_run(run, tmp_path / "n.json"))}


@pytest.mark.parametrize(
    ("low", "high", "title"),
    [
        (0.01, 0.05, "Nuclei are found better than by every baseline"),
        (-0.01, 0.07, "Nuclei are found as well as by the best baseline"),
        (-0.2, -0.1, "A baseline finds nuclei better"),
    ],
)
def test_intervals_of_scores_decide_where_there_are_some(
    low: float, high: float, title: str, tmp_path: Path
) -> None:
    run, results = make_run_folder(tmp_path / "run"), nuclei_results(0.5, 0.9)
    paired = {"than": "otsu_cleaned", "mean": (low + high) / 2, "low": low, "high": high}
    results["checkpoints"][0]["differences"] = {"fixed": {"iou": paired}}
    for method in (results["checkpoints"][0], results["baselines"]["otsu_haematoxylin"]):
        method["no_labels"] = {"iou": interval(0.44)}
    (run / "nuclei_benchmark.json").write_text(json.dumps(results))
    found = {each.title: each.text for each in verdicts(read_run(run))}
    assert found[title].startswith("The difference of IoU from that of Otsu cleaned is ")
    said = written(run)[1].text
    assert "No labels IoU" in said
    assert said.count("0.440") == 2


@pytest.mark.parametrize(
    ("difference", "title"),
    [
        (0.1, "Features are better than those without training"),
        (0.0, "Features are not told apart from those without training"),
        (-0.1, "Features without training are better"),
    ],
)
def test_features_are_compared_with_those_that_need_no_training(
    difference: float, title: str, tmp_path: Path
) -> None:
    run = make_run_folder(tmp_path / "run")
    results = json.dumps(probe_results(difference, "Slides stand in both parts."))
    (run / "probe.json").write_text(results)
    found = {each.title: each.text for each in verdicts(read_run(run))}
    assert "Colour statistics 0.700; the difference is" in found[title]
    said = " ".join(written(run)[1].text.split())
    assert "organs: 2 test images, 2 classes." in said
    assert "Note: Slides stand in both parts." in said
    assert f"Iteration200{0.7 + difference:.3f}[" in said.replace(" ", "")


def test_restarts_are_told_with_what_is_known_of_their_cause() -> None:
    log = [
        "INFO Started from seed 42",
        "INFO Resumed run/checkpoint.pth at iteration 20; random streams restored",
        "WARNING checkpoint.pth: cannot be written.",
        "INFO Resumed run/checkpoint.pth at iteration 30; random streams restored",
    ]
    # The first start saves at iteration 20 and is stopped; the second is killed after its 50th.
    seconds = {(10, 20): (9, 19), (30, 40, 50): (8, 18, 28), (40, 50, 60): (11, 20, 31)}
    metrics = [
        line_of(at, seconds=spent)
        for ats, spents in seconds.items()
        for at, spent in zip(ats, spents, strict=True)
    ]
    history = history_of([f"2026-01-01 10:00:00,000 {text}" for text in log], metrics)
    first, second, third = history.starts
    assert (first.cause, second.iteration, third.iteration) == ("", 20, 30)
    assert second.cause.startswith("Nothing that was logged is lost")
    assert third.cause.startswith("Ended without saving, so that 20 iterations or more were done")
    assert third.cause.endswith("Last warning before it: checkpoint.pth: cannot be written.")
    assert history.seconds == 19 + 28 + 31


def test_long_curves_are_thinned_and_keep_their_peaks() -> None:
    lines = [line_of(at, student_loss=1.0) for at in range(10 * MOST_LINES)]
    lines[777]["student_loss"], lines[888]["student_loss"] = 55.0, -7.0
    lines[5000]["student_loss"] = None
    chart = charts_of({"run": lines})[0]
    places, values = chart["data"]
    assert len(places) <= 2 * MOST_LINES
    assert values[places.index(777)] == 55
    assert values[places.index(888)] == -7
    assert places == sorted(places)


def test_a_long_run_fits_into_its_page(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run")
    rng = np.random.default_rng(0)
    names = [name for name, value in line_of(1).items() if isinstance(value, float)]
    write_lines(
        run,
        [
            line_of(at, **dict(zip(names, rng.random(len(names)).tolist(), strict=True)))
            | {"mask_coverage": rng.random(3).tolist()}
            for at in range(10, 60_000, 10)
        ],
    )
    text, _ = written(run)
    assert len(text) + page.PICTURE_BYTES < page.MOST_BYTES


def test_pictures_are_left_out_when_there_is_no_room(tmp_path: Path) -> None:
    paths = [tmp_path / f"iter_{number:08d}.png" for number in range(30)]
    rng = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    one = len(embed_series(paths[:1], 10**9).pictures[0][1].uri)
    few = embed_series(paths, 10 * one)
    assert 5 <= len(few.pictures) <= 10
    assert len(few.pictures) + few.num_left_out == 30
    assert (few.pictures[0][0], few.pictures[-1][0]) == (0, 29)
    paths[29].write_bytes(b"none")
    assert embed_series(paths[28:], 10**9).num_left_out == 1


def test_a_page_that_would_be_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match=r"r\.html: would be larger than 0 MB. Give fewer runs"):
        written(make_run_folder(tmp_path / "run"))
    assert not (tmp_path / "r.html").exists()


def test_a_folder_with_metrics_alone_and_data_that_are_gone_is_told(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    write_lines(bare, [{"iteration": 1, "student_loss": 1.0}])
    said = " ".join(written(bare)[1].text.split())
    assert "does not tell what the run was trained on" in said
    run = make_run_folder(tmp_path / "x" / "run")
    for path in (tmp_path / "x" / "data").iterdir():
        path.unlink()
    assert "not there any more" in written(run)[1].text


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("none",), 1, "metrics.jsonl: cannot be read"),
        (("run", "--output", "r.pdf"), 2, "r.pdf: is of no kind that can be written here"),
        (("run", "--nuclei", "none.json"), 1, "none.json: is no file"),
        (("run", "--nuclei", "run/environment.json"), 1, "environment.json: holds no results"),
        (("run", "--probe", "odd.json"), 1, "probe.json: is of another form than this version"),
        (("run", "--nuclei", "odd.json"), 1, "nuclei_benchmark.json: is of another form"),
        (("run", "--nuclei", "run/train.log"), 1, "train.log: is damaged"),
        (("run", "run", "--nuclei", "n.json"), 2, "1 --nuclei and 2 runs are given"),
        (("run", "--device", "cpu"), 2, "device=cpu would be ignored without images"),
    ],
)
def test_mistakes_are_told(
    words: tuple[str, ...],
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_run_folder(tmp_path / "run")
    odd = {"sets": [{"name": "a"}], "protocol": {"x": 1}, "checkpoints": [{"fixed": 3}]}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    monkeypatch.chdir(tmp_path)
    assert text in run_main(capsys, code, "viz", "report", *words).err
    assert not list(tmp_path.glob("**/*.html"))


def test_a_report_of_one_run_goes_to_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run_folder(tmp_path / "run")
    assert run_main(capsys, 0, "viz", "report", run).out == f"Wrote {run / 'report.html'}\n"
    assert (run / "report.html").is_file()
