"""Losses, norms, masks and weights of tiny runs against those that were written down."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme import load_encoder, load_mask_model, load_student
from tests.golden.runs import (
    BOUND_GROWTH,
    CASES,
    FIRST_BOUND,
    HERE,
    KEPT_PATH,
    Case,
    environment,
    play,
    read_golden,
    resume_kept,
    unpack_kept,
)
from tests.reference.test_against_timm import stock_vit


def compare(found: dict[str, Any], golden: dict[str, Any]) -> None:
    """Bit for bit where that is possible, else within the bound that the file states."""
    # What a later release measures besides is in no file; what a file has is measured for ever.
    lines = [
        {name: value for name, value in line.items() if name in known}
        for line, known in zip(found["lines"], golden["lines"], strict=True)
    ]
    if environment() == golden["made_with"]:
        assert lines == golden["lines"]
        assert found["weights_sha256"] == golden["weights_sha256"]
        return
    for count, (line, expected) in enumerate(zip(lines, golden["lines"], strict=True)):
        relative = min(FIRST_BOUND * BOUND_GROWTH**count, golden["relative_bound"])
        bounds = {"rel": relative, "abs": golden["absolute_bound"]}
        assert line.keys() == expected.keys()
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, **bounds), name


def marks_of(case: Case) -> list[pytest.MarkDecorator]:
    """A ViT-U-Net takes ten seconds for twenty updates."""
    if case.num_ranks > 1:
        return [pytest.mark.elastic]
    return [pytest.mark.slow] * case.name.startswith("vit_unet")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=marks_of(case)) for case in CASES]
)
def test_twenty_updates(case: Case, tmp_path: Path) -> None:
    compare(play(case, tmp_path), read_golden(case.name))


def test_every_golden_file_is_of_a_case() -> None:
    names = {path.stem for path in HERE.glob("*.json")}
    assert names == {case.name for case in CASES} | {"kept"}
    assert KEPT_PATH.stat().st_size < 300_000


def test_a_checkpoint_of_the_first_release_resumes(tmp_path: Path) -> None:
    compare(resume_kept(tmp_path), read_golden("kept"))


def test_a_checkpoint_of_the_first_release_loads_and_fits_stock_timm(tmp_path: Path) -> None:
    path = unpack_kept(tmp_path / "kept.pth")
    assert path.read_bytes() == lzma.decompress(KEPT_PATH.read_bytes())
    saved = torch.load(path, weights_only=True)
    student, encoder, masks = load_student(path), load_encoder(path), load_mask_model(path)
    for name, weight in student.state_dict().items():
        assert torch.equal(weight, saved["student"][name]), name
    for name, weight in masks.network.state_dict().items():
        assert torch.equal(weight, saved["mask_average"]["weights"][name]), name
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    stock = stock_vit(32, 2, 2, 8, 16, registers=4)
    stock.load_state_dict(encoder.state_dict(), strict=True)
    with torch.no_grad():
        expected = stock.forward_features(images)
        torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-5)
    assert masks(images).shape == (2, 3, 16, 16)
