"""What is compared with an earlier measurement, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adios_tme.benchmark.throughput.earlier import compare, read_earlier
from adios_tme.benchmark.throughput.results import Measurement, Ratio
from adios_tme.errors import ConfigError, DataError
from tests.factories import measured_case


def test_the_same_work_gives_ratios_to_the_last_one_of_it() -> None:
    earlier = [measured_case(images_per_second=speed) for speed in (2, 5)]
    earlier.append(measured_case({"model.depth": 1}, images_per_second=1))
    compared = compare(measured_case(), earlier)
    assert compared.against == Ratio(speed=2, flops=1, memory=1)
    assert compared.differs_from_earlier is None


def test_other_work_gives_no_ratio_but_what_differs() -> None:
    earlier = [
        measured_case({"model.depth": 1, "model.patch_size": 8}),
        measured_case({"model.depth": 1}),
    ]
    compared = compare(measured_case(), earlier)
    assert compared.differs_from_earlier == {"model.depth": (1, 4)}
    assert compared.against is None
    halved = compare(measured_case(precision="bfloat16"), [measured_case()])
    assert halved.differs_from_earlier == {"precision": ("float32", "bfloat16")}
    unknown = compare(measured_case({"model.new": None}), [measured_case()])
    assert unknown.differs_from_earlier == {"model.new": (None, None)}


def test_without_figures_nothing_is_compared() -> None:
    case = measured_case()
    too_large = replace(case, step=None)
    assert compare(too_large, [case]) == too_large
    assert compare(case, [too_large]) == case
    assert compare(case, []) == case


def test_cases_without_figures_are_passed_over(tmp_path: Path) -> None:
    case = measured_case()
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(Measurement({}, (case, replace(case, step=None))).as_json()))
    assert read_earlier(path) == [case]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a measurement of adios-tme benchmark throughput"),
        ("{", "is not a measurement"),
        ('{"cases": [3]}', "is not a measurement"),
        ('{"cases": [{"baselines": {"naive": 3}}]}', "is not a measurement"),
        ('{"cases": [{"settings": {}, "images_per_second": 1}]}', "does not hold all settings"),
        ('{"cases": [{"settings": {}, "images_per_second": "x"}]}', "is not a measurement"),
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
