"""Processes that share work: the order of results, and what is said when one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adios_tme.benchmark.nuclei import scorer
from adios_tme.benchmark.nuclei.label_folder import LabelFolder
from adios_tme.data import index_builder, inspection, scan
from adios_tme.data.synthetic import write_sample
from adios_tme.distributed.pool import CALLS_AHEAD, in_order
from adios_tme.errors import LaunchError
from tests.factories import make_dataset


def be_killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_while_archives_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path)
    monkeypatch.setattr(scan, "FEWEST_FOR_PROCESSES", 1)
    monkeypatch.setattr(scan, "scan_source", be_killed)
    with pytest.raises(LaunchError, match=r"one of 2 processes was killed.* --num-workers"):
        index_builder.index_archives(tmp_path, num_workers=2)
    assert not list(tmp_path.glob("*.safetensors*"))


def test_while_patches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_builder.build_index(make_dataset(tmp_path))
    monkeypatch.setattr(inspection, "_verify", be_killed)
    with pytest.raises(LaunchError, match=r"one of 2 processes was killed.* --num-workers"):
        inspection.verify_index(index, num_workers=2)


def test_while_images_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tissue = write_sample(tmp_path, num_slides=1, patches_per_slide=1, size_px=32, num_labelled=4)
    monkeypatch.setattr(scorer, "score_image", be_killed)
    with pytest.raises(LaunchError, match=r"one of 2 processes was killed.* --num-workers"):
        score_with_two_processes(LabelFolder(tissue.nuclei))


def score_with_two_processes(images: LabelFolder) -> None:
    calibration = np.array([True, False, False, False])
    with scorer.scoring_pool(2) as pool:
        scores = scorer.Scorer(images, calibration, 0, pool, num_workers=2)
        scores.score(lambda pixels: np.ones((1, *pixels.shape[:2]), np.float32), "a method")


def test_results_come_in_order_with_few_calls_ahead() -> None:
    submitted: list[int] = []

    def arguments() -> Iterator[tuple[int]]:
        for number in range(100):
            submitted.append(number)
            yield (-number,)

    with ThreadPoolExecutor(2) as pool:
        for number, result in enumerate(in_order(pool, abs, arguments(), num_workers=2)):
            assert result == number
            assert len(submitted) - number <= CALLS_AHEAD * 2 + 1
    assert len(submitted) == 100
