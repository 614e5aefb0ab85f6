"""What is written as ONNX, and what is not."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from adios_tme.errors import ConfigError, DataError
from adios_tme.export.onnx import OnnxExport, check_against_torch, write_onnx
from adios_tme.version import __version__


class Thirds(nn.Module):
    """The smallest network that takes images."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Parameter(torch.full((), 1 / 3))

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255 * self.third


def thirds() -> OnnxExport:
    graph = Thirds()
    return OnnxExport(graph, graph, ("masks",), 16, {"what": "thirds", "mean": [0.5, 0.25, 0.1]})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file, alone in a folder that was not there."""
    steps: list[tuple[int, int]] = []
    path = tmp_path_factory.mktemp("onnx") / "new folder" / "thirds.onnx"
    write_onnx(thirds(), path, lambda done, total: steps.append((done, total)))
    assert steps == [(done, 4) for done in range(5)]
    return path


def test_the_file_says_what_it_is_and_nothing_of_where_it_was_made(written: Path) -> None:
    assert list(written.parent.iterdir()) == [written]
    model = onnx.load(written)
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.producer_version) == ("adios_tme", __version__)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told.keys() == {"what", "mean"}
    assert told["what"] == "thirds"
    assert json.loads(told["mean"]) == [0.5, 0.25, 0.1]
    content = written.read_bytes()
    assert b".py" not in content
    assert b"pkg.torch" not in content


@pytest.mark.parametrize(
    ("reference", "worst"),
    [
        (lambda images: images.float() / 255 / 3 + 2e-4, "0.0002"),
        (lambda images: images.float() / 255 / 3 * float("nan"), "nan"),
        (lambda images: images[:1].float() / 255 / 3, "inf"),
    ],
)
def test_numbers_and_shapes_that_differ_are_noticed(
    reference: nn.Module, worst: str, written: Path
) -> None:
    check_against_torch(written, thirds(), (2, 16, 24))
    with pytest.raises(ValueError, match="masks for a batch of 2, 24 x 16 px,") as refused:
        check_against_torch(written, replace(thirds(), reference=reference), (2, 16, 24))
    assert str(refused.value).endswith(f"differs from torch by {worst}, more than 0.0001")


def test_a_file_that_differs_from_torch_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "masks.onnx"
    path.write_text("what was there")
    doubled = replace(thirds(), reference=lambda images: images.float() / 255 / 3 * 2)
    with pytest.raises(DataError) as refused:
        write_onnx(doubled, path)
    assert str(refused.value) == (
        f"{path}: was not written, since masks for a batch of 1, 16 x 16 px, differs from torch by "
        f"0.33, more than 0.0001. Install other versions of torch, onnxscript or onnxruntime."
    )
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_packages_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.startswith("onnx") else found(name)
    )
    with pytest.raises(ConfigError) as refused:
        write_onnx(thirds(), tmp_path / "thirds.onnx")
    assert str(refused.value) == (
        "export: --format onnx needs onnx and onnxscript and onnxruntime. "
        "Install the extra with pip install 'adios-tme[onnx]'."
    )
    assert list(tmp_path.iterdir()) == []


def test_weights_for_more_than_one_file_are_refused(tmp_path: Path) -> None:
    huge = OnnxExport(nn.Linear(1 << 15, 1 << 14, device="meta"), Thirds(), ("masks",), 16, {})
    with pytest.raises(ConfigError) as refused:
        write_onnx(huge, tmp_path / "huge.onnx")
    assert str(refused.value) == (
        "export: 2.0 GiB of weights do not fit into one ONNX file of 2 GiB. Use another --format."
    )
