"""What the benchmark of embedding measures, and what it says of it."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from adios_tme.benchmark.embed.measure import measure_embedding
from adios_tme.benchmark.embed.report import embed_summary, embed_tables
from adios_tme.benchmark.embed.results import EmbedRatios, EmbedResult
from adios_tme.benchmark.embed.timm_loop import TimmLoop
from adios_tme.config.commands.embed import EmbedSpeedConfig, FeatureConfig, Pool
from adios_tme.data.index_builder import build_index
from adios_tme.data.reader import PatchReader
from adios_tme.inference.embed.encoder import load_feature_encoder
from tests.factories import make_archive, make_dataset, run_main, untrained_run

RESULT = EmbedResult(
    machine={"processor": "P", "cores": 2, "device": "cpu", "timm": "1", "torch": "2"},
    settings={},
    num_patches=100,
    images_per_second={"embed": 50.0, "timm_loop": 25.0, "model": 60.0, "loader": 600.0},
    ratios=EmbedRatios(2.0, 0.83, 0.98, 0.08, 0.92, 10.0),
    limit="model",
    largest_difference=0.001,
    largest_feature=4.0,
)


@pytest.mark.parametrize("pool", ["cls", "mean", "cls_mean"])
def test_the_plain_loop_gives_the_same_features(tmp_path: Path, pool: Pool) -> None:
    run = untrained_run(tmp_path / "run")
    make_dataset(tmp_path / "zips", num_archives=2)
    index = build_index(tmp_path / "zips")
    device = torch.device("cpu")
    encoder = load_feature_encoder(str(run), FeatureConfig(pool=pool), device)
    rows = [0, 3, 5]
    loop = TimmLoop(index, rows, encoder, device, batch_size=2, num_workers=0)
    reader = PatchReader(index)
    pixels_BHWC = np.stack([reader.read(row) for row in rows])
    images = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2)
    torch.testing.assert_close(loop.run(), encoder(images), rtol=0, atol=1e-5)


def test_the_command_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = untrained_run(tmp_path / "run"), make_dataset(tmp_path / "data")
    with (data / "slide_000.zip").open("r+b") as archive:
        archive.seek(200)
        archive.write(b"damage")  # a patch that is left out of the measurement
    words = ("benchmark", "embed", run, "--data-path", data, "--num-rounds", "1")
    flags = ("--num-workers", "1", "--batch-size", "4", "--output", tmp_path / "speed.json")
    said = run_main(capsys, 0, *words, *flags)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found["images_per_second"]) == {"embed", "timm_loop", "model", "loader"}
    assert found["num_patches"] == 11
    assert found["largest_difference"] < 1e-5 < found["largest_feature"]
    assert found["limit"] in ("model", "loader")
    assert "times as fast as the plain timm loop" in said.out
    assert list(tmp_path.glob("data/*.safetensors")) == []  # the data are left as they were


def test_the_slower_one_is_the_limit() -> None:
    assert "The encoder is the limit: the loader alone is 10.0 times as fast." in embed_summary(
        RESULT
    )
    assert "embed is 0.92 times as fast as one after the other, and" in embed_summary(RESULT)
    ratios = dataclasses.replace(RESULT.ratios, loader_over_model=0.25, embed_of_model_by_cpu=None)
    slow = dataclasses.replace(
        RESULT, limit="loader", ratios=ratios, machine=RESULT.machine | {"device": "H200"}
    )
    assert "The loader is the limit: the encoder alone is 4.0 times as fast." in embed_summary(slow)
    assert "one after the other" not in embed_summary(slow)


def test_the_table_has_every_way() -> None:
    written = StringIO()
    console = Console(file=written, width=80)
    for table in embed_tables(RESULT):
        console.print(table)
    shown = written.getvalue()
    for text in ("adios-tme embed", "plain timm loop", "encoder alone", "loader alone", "600.0"):
        assert text in shown


def test_patches_of_which_none_can_be_read_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained_run(tmp_path / "run")
    path = make_archive(tmp_path / "data" / "a.zip", num_patches=1)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    said = run_main(capsys, 1, "benchmark", "embed", run, "--data-path", path.parent)
    assert "none of 1 patches can be read. Run adios-tme index with --verify" in said.err


def test_progress_is_told_for_every_timing(tmp_path: Path) -> None:
    run, data = untrained_run(tmp_path / "run"), make_dataset(tmp_path / "data", 1, 2)
    told: list[tuple[int, int]] = []
    settings = EmbedSpeedConfig(run=str(run), data_path=data, num_rounds=1, num_workers=1)
    measure_embedding(settings, lambda done, total: told.append((done, total)))
    assert told == [(number, 8) for number in range(1, 9)]
