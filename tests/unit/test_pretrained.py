"""Weights from elsewhere, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from adios_tme import load_encoder, load_mask_model, load_student
from adios_tme.distributed.world import World
from adios_tme.errors import CheckpointError
from adios_tme.models.student import as_vit
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.start import take_weights
from adios_tme.training.state import Run
from tests.factories import tiny_config, untrained_run

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def tiny_run(**flags: Any) -> Run:
    return Run.build(tiny_config(Path(), Path(), **flags), WORLD)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="adios_tme")


def test_a_run_gives_both_networks_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, run = tiny_run(seed=1), tiny_run(seed=2, mask_ema=0.9)
    source.iteration = 5
    write_checkpoint(source.state(), tmp_path)
    take_weights(run, str(tmp_path))
    assert run.iteration == run.samples_seen == 0
    for one, other in (
        (run.bare_student, source.bare_student),
        (run.bare_mask_model, source.bare_mask_model),
        (run.shown_mask_model, source.bare_mask_model),
    ):
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name]), name
    assert "0 tensors did not fit" in caplog.text


def test_every_tensor_that_does_not_fit_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tiny_run(depth=3).state(), tmp_path)
    run = tiny_run(tme_output_dim=8, num_register_tokens=2)
    take_weights(run, str(tmp_path / "checkpoint.pth"))
    extra = [line for line in caplog.messages if "student.encoder.blocks.2." in line]
    assert len(extra) == len([n for n in run.bare_student.state_dict() if ".blocks.1." in n])
    assert all(line.startswith("Not used: ") for line in extra)
    assert "Not used: student.head.4.weight 16x32, which is 8x32 here" in caplog.messages
    assert "Not used: student.encoder.reg_token 1x4x32, which is 1x2x32 here" in caplog.messages
    assert f"{len(extra) + 3} tensors did not fit" in caplog.text  # the head's bias is the third


def test_a_folder_of_an_encoder_fits_another_image_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, run = tiny_run(seed=1), tiny_run(seed=2, img_size=64)
    save_file(source.bare_student.encoder.state_dict(), tmp_path / "model.safetensors")
    take_weights(run, str(tmp_path))
    assert "0 tensors did not fit" in caplog.text
    old, new = (as_vit(each.bare_student.encoder, "").pos_embed for each in (source, run))
    assert (old.shape[1], new.shape[1]) == (16, 64)
    torch.testing.assert_close(new.mean(), old.mean(), rtol=0.05, atol=1e-4)


def test_timm_weights_are_taken_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
    }
    pretrained = timm.create_model("vit_tiny_patch16_224", **small)
    ready = {"vit_tiny_patch16_224": pretrained}
    monkeypatch.setattr(timm, "create_model", lambda name, **_: ready[name])
    run = tiny_run()
    take_weights(run, "timm:vit_tiny_patch16_224")
    weights, own = pretrained.state_dict(), run.bare_student.encoder.state_dict()
    assert torch.equal(own["blocks.1.attn.qkv.weight"], weights["blocks.1.attn.qkv.weight"])
    assert torch.equal(own["pos_embed"], weights["pos_embed"][:, 1:])  # ours has none for the class
    assert "Left as drawn: encoder.reg_token 1x4x32, which timm:vit_tiny" in caplog.text
    assert "Not used: encoder.head.weight 1000x32, which this model has not" in caplog.text


def test_what_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run()
    with pytest.raises(CheckpointError, match="has no such model"):
        take_weights(run, "timm:vit_of_nobody")

    def unreachable(name: str, pretrained: bool) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"cannot be had \(ConnectionError\)"):
        take_weights(run, "timm:vit_tiny_patch16_224")
    with pytest.raises(CheckpointError, match="does not exist"):
        take_weights(run, str(tmp_path / "nothing"))
    (tmp_path / "model.safetensors").write_bytes(b"not that")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        take_weights(run, str(tmp_path))
    save_file({"alien": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not one of its 1 tensors fits the encoder"):
        take_weights(run, str(tmp_path))


@pytest.mark.parametrize("load", [load_encoder, load_student, load_mask_model])
def test_a_device_that_is_none_is_told_in_our_words(
    load: Callable[..., object], tmp_path: Path
) -> None:
    run = untrained_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"device='gpu' is unknown\. Use 'cpu', 'cuda'"):
        load(run, device="gpu")
