"""What the benchmark of segmenting measures, and what it says of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from adios_tme.benchmark.segment.bench import Bench
from adios_tme.benchmark.segment.report import segment_summary, segment_tables
from adios_tme.benchmark.segment.results import SegmentRatios, SegmentResult
from adios_tme.benchmark.segment.stages import STAGES, Clock, stage_seconds
from adios_tme.config.commands.segment import SegmentSpeedConfig
from adios_tme.inference.segment import blocks
from tests.factories import run_main, untrained_run
from tests.slides import make_slide, on_glass

RESULT = SegmentResult(
    machine={"processor": "P", "cores": 2, "device": "cpu", "torch": "2"},
    settings={},
    channel=2,
    threshold=0.5,
    microns_per_pixel=0.5,
    img_size=64,
    num_blocks=4,
    num_blocks_of_slide=40,
    num_windows=1000,
    num_nuclei=2500,
    windows_per_second={"segment": 50.0, "model": 60.0},
    nuclei_per_second=125.0,
    ratios=SegmentRatios(0.83, 0.85),
    stage_seconds={"reading": 1.0, "model": 16.0, "blending": 1.0, "nuclei": 1.5, "writing": 0.5},
    peak_memory_bytes=3 << 29,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a slide with a piece of tissue."""
    folder = tmp_path_factory.mktemp("made")
    untrained_run(folder / "run")
    tissue = (slice(24, 96), slice(12, 228))
    make_slide(folder / "slide.tif", on_glass(120, 240, tissue), mpp=2)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both, in blocks of 64 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "CORE_PX", 64)
    monkeypatch.setattr(blocks, "CORE_WINDOWS", 1)
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def bench(**settings: float) -> Bench:
    given = {"run": "run", "slide": "slide.tif", "mpp": 2, "channel": 2, "threshold": 0.34}
    return Bench.open(SegmentSpeedConfig(**given | settings), torch.device("cpu"))


def test_the_command_writes_what_it_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "benchmark segment run slide.tif --mpp 2 --channel 2 --threshold 0.34 --num-rounds 1"
    said = run_main(capsys, 0, *words.split(), "--num-blocks", "2", "--output", "speed.json")
    found = json.loads(Path("speed.json").read_text())
    assert set(found["windows_per_second"]) == {"segment", "model"}
    assert set(found["stage_seconds"]) == set(STAGES)
    assert 0 < found["ratios"]["segment_of_model"] < 2
    assert found["num_blocks"] == 2
    assert found["num_nuclei"] > 0
    assert found["peak_memory_bytes"] > 100 << 20
    assert "times as fast as its mask model alone" in said.out
    assert sorted(path.name for path in place.iterdir()) == ["run", "slide.tif", "speed.json"]


def test_the_model_alone_sees_as_many_windows_in_batches_of_the_same_sizes(place: Path) -> None:
    ours = bench()
    seen: list[int] = []
    ours.generator.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    sizes = ours.batches()
    assert seen == []
    ours.segment()
    assert {size: seen.count(size) for size in seen} == dict(sizes)
    assert len(sizes) > 1  # the last batch of a block is smaller
    seen.clear()
    ours.model_alone(sizes)()
    assert {size: seen.count(size) for size in seen} == dict(sizes)


def test_blocks_are_spread_over_the_tissue(place: Path) -> None:
    every = bench(num_blocks=100)
    assert len(every.cores) == every.num_cores_of_slide > 3
    assert bench(num_blocks=2).cores == [every.cores[0], every.cores[-1]]
    assert bench(num_blocks=2).segment() < every.segment()


def test_a_stage_within_another_counts_for_itself() -> None:
    clock = Clock(iter([0.0, 1.0, 3.0, 7.0]).__next__)
    with clock.stage("blending"), clock.stage("model"):
        pass
    assert (clock.seconds["blending"], clock.seconds["model"]) == (5, 2)


def test_every_stage_takes_time(place: Path) -> None:
    seconds, num_nuclei = stage_seconds(bench())
    assert min(seconds.values()) > 0
    assert num_nuclei == bench().segment() > 0


def test_memory_of_the_process_is_left_out_where_nobody_knows() -> None:
    assert "takes 1.50 GiB of memory at most." in segment_summary(RESULT)
    unknown = dataclasses.replace(RESULT, peak_memory_bytes=None, ratios=SegmentRatios(0.83, None))
    assert "memory" not in segment_summary(unknown)
    assert "CPU time" not in segment_summary(unknown)


def test_the_tables_have_every_way_and_stage() -> None:
    written = StringIO()
    console = Console(file=written, width=80)
    for table in segment_tables(RESULT):
        console.print(table)
    shown = written.getvalue()
    for text in ("adios-tme segment", "mask model alone", "1.20", "reading the slide", "80%"):
        assert text in shown


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run none.tif --mpp 2", 2, "slide: none.tif does not exist. Give a whole slide."),
        ("run slide.tif", 2, "mpp is missing."),
        ("run slides --mpp 2", 2, "slide: slides holds 2 slides. Give one of them."),
        ("run slide.tif --mpp 2 --channel 4", 2, "channel=4 is beyond the 3 masks of the model."),
        ("none slide.tif --mpp 2", 1, "none: "),
        ("run damaged.tif --mpp 2", 1, "Error: damaged.tif: cannot be opened as a slide"),
    ],
)
def test_mistakes_get_one_message(
    words: str, code: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        make_slide(Path("slides", f"{name}.tif"), on_glass(64, 64, (slice(9), slice(9))))
    Path("damaged.tif").write_bytes(Path("slide.tif").read_bytes()[:500])
    said = run_main(capsys, code, "benchmark", "segment", *words.split())
    assert message in said.err.replace("\n", " ")
