"""What of a line trackers are given."""

from __future__ import annotations

from adios_tme.trackers.base import flat, scalars


def test_a_line_becomes_numbers_by_name() -> None:
    line = {
        "iteration": 3,
        "mask_coverage": [0.25, None, 0.5],
        "student_loss": None,
        "grad_norm": float("nan"),
        "lr": float("inf"),
        "device": "cpu",
        "eval": {"iou": 0.75},
    }
    assert scalars(line) == {
        "iteration": 3.0,
        "mask_coverage/1": 0.25,
        "mask_coverage/3": 0.5,
        "eval/iou": 0.75,
    }


def test_settings_are_named_by_their_path() -> None:
    settings = {"data": {"mean": (0.5, 0.25)}, "demo": False, "preset": None}
    assert dict(flat(settings)) == {
        "data/mean/1": 0.5,
        "data/mean/2": 0.25,
        "demo": False,
        "preset": None,
    }
