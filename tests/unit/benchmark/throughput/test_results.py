"""The JSON of a measured training step, whose keys users parse, and the way back from it."""

from __future__ import annotations

import json
from dataclasses import replace

from adios_tme.benchmark.throughput.results import (
    Kernel,
    Measurement,
    Ratio,
    VariantResult,
    case_of_json,
)
from tests.factories import measured_case

FIGURES = [
    "images_per_second",
    "step_seconds",
    "step_seconds_range",
    "phases",
    "gflop_per_image",
    "gflop_per_second",
    "peak_memory_gib",
]
SETTINGS = [
    "settings",
    "work",
    "precision",
    "attention_back_end",
    "floor_gflop_per_image",
    "estimated_memory_gib",
    "out_of_memory",
]
PLAIN = VariantResult(5.0, 0.8, (0.7, 0.9), {"rest": 0.8}, 4.0, 20.0, 2.0)
CASE = replace(
    measured_case(
        baselines={"naive": PLAIN, "naive_checkpointing": None},
        kernels=(Kernel("aten::mm", 3, 0.1, 0.25),),
    ),
    against=Ratio(speed=2.0, flops=1.0, memory=None),
)


def test_keys_of_a_case_are_those_that_users_know() -> None:
    written = Measurement({"torch": "2"}, (CASE,)).as_json()
    assert list(written) == ["machine", "cases"]
    (case,) = written["cases"]
    assert list(case) == [
        *SETTINGS,
        *FIGURES,
        "matrix_peak_gflop_per_second",
        "mfu",
        "student_mfu",
        "largest_batch",
        "baselines",
        "kernels",
        "against",
    ]
    assert list(case["baselines"]["naive"]) == ["out_of_memory", *FIGURES, "ratio"]
    assert case["baselines"]["naive"]["out_of_memory"] is case["out_of_memory"] is False
    assert case["baselines"]["naive"]["ratio"] == {"speed": 2.0, "flops": 0.5, "memory": 0.5}
    assert case["against"] == {"speed": 2.0, "flops": 1.0, "memory": None}
    assert case["kernels"] == ({"name": "aten::mm", "calls": 3, "seconds": 0.1, "share": 0.25},)


def test_what_did_not_fit_the_memory_says_only_that() -> None:
    too_large = replace(CASE, step=None, against=None)
    written = Measurement({}, (too_large, CASE)).as_json()["cases"]
    assert list(written[0]) == SETTINGS
    assert written[0]["out_of_memory"] is True
    assert written[1]["baselines"]["naive_checkpointing"] == {"out_of_memory": True}


def test_a_case_that_differs_from_earlier_ones_says_in_what() -> None:
    differs = replace(CASE, against=None, differs_from_earlier={"model.depth": (4, 3)})
    (written,) = Measurement({}, (differs,)).as_json()["cases"]
    assert list(written)[-1] == "differs_from_earlier"
    assert json.loads(json.dumps(written["differs_from_earlier"])) == {"model.depth": [4, 3]}


def test_reading_gives_the_case_that_was_written() -> None:
    differs = replace(CASE, against=None, differs_from_earlier={"model.depth": (4, 3)})
    for case in (CASE, differs):
        (written,) = Measurement({}, (case,)).as_json()["cases"]
        assert case_of_json(json.loads(json.dumps(written))) == case
