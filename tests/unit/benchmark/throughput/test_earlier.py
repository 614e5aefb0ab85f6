"""What is compared with an earlier measurement, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adios_tme.benchmark.throughput.earlier import compare, read_earlier
from adios_tme.errors import ConfigError, DataError


def measured(work: dict[str, Any] | None = None, **figures: Any) -> dict[str, Any]:
    return {
        "work": {"model.depth": 4, "model.patch_size": 4} | (work or {}),
        "precision": "float32",
        "images_per_second": 10.0,
        "gflop_per_image": 2.0,
        "peak_memory_gib": 1.0,
        "out_of_memory": False,
    } | figures


def test_the_same_work_gives_ratios_to_the_last_one_of_it() -> None:
    earlier = [measured(images_per_second=speed) for speed in (2, 5)]
    earlier.append(measured({"model.depth": 1}, images_per_second=1))
    assert compare(measured(), earlier) == {"against": {"speed": 2, "flops": 1, "memory": 1}}


def test_other_work_gives_no_ratio_but_what_differs() -> None:
    earlier = [
        measured({"model.depth": 1, "model.patch_size": 8}),
        measured({"model.depth": 1}),
    ]
    assert compare(measured(), earlier) == {"differs_from_earlier": {"model.depth": [1, 4]}}
    (halved,) = compare(measured(precision="bfloat16"), [measured()]).values()
    assert halved == {"precision": ["float32", "bfloat16"]}
    (unknown,) = compare(measured({"model.new": None}), [measured()]).values()
    assert unknown == {"model.new": [None, None]}


def test_cases_without_figures_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"cases": [measured(), {"out_of_memory": True}]}))
    assert read_earlier(path) == [measured()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a measurement of adios-tme benchmark throughput"),
        ("{", "is not a measurement"),
        ('{"cases": [3]}', "is not a measurement"),
        ('{"cases": [{"settings": {}, "images_per_second": 1}]}', "does not hold all settings"),
        ('{"cases": [{"out_of_memory": true}]}', "holds no case that was measured"),
    ],
)
def test_a_file_that_cannot_be_compared_with_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "speed.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_earlier(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_earlier(tmp_path / "none.json")
