"""``adios-tme export --push``: to a hub on this machine, and what a hub refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from adios_tme import load_mask_model
from tests.factories import run_main, surroundings, untrained_run
from tests.hub import Hub, serving

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "config.json", "model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as started:
        # What HF_ENDPOINT is read to when huggingface_hub is imported.
        monkeypatch.setattr(constants, "ENDPOINT", started.address)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", started.token)
        yield started


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained_run(tmp_path / "run")


def test_the_folder_arrives_as_one_commit_and_nothing_else(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words = ("export", run, out, "--overwrite", "--push", "lab/encoder", "--private")
    said = run_main(capsys, 0, *words)
    assert f"Pushed it: {hub.address}/lab/encoder" in said.out
    assert hub.repositories == {"lab/encoder": True}
    assert hub.num_commits == 1
    assert hub.files == {f"lab/encoder/{name}": (out / name).read_bytes() for name in FILES}


def test_a_repository_that_exists_takes_another_commit(
    hub: Hub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in ("one", "two"):
        run_main(capsys, 0, "export", run, tmp_path / out, "--push", "masks", "--what", "mask")
    assert hub.repositories == {"me/masks": False}
    assert hub.num_commits == 2


def test_a_pushed_mask_model_loads_from_the_hub(run: Path, tmp_path: Path) -> None:
    script = (
        "import sys, torch\n"
        "from adios_tme.cli.app import main\n"
        f"sys.argv = ['adios-tme', 'export', {str(run)!r}, {str(tmp_path / 'out')!r}, "
        "'--what', 'mask', '--push', 'lab/masks']\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "from adios_tme import MaskGenerator\n"
        "masks = MaskGenerator.from_pretrained('lab/masks')\n"
        f"torch.save(masks(torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).byte()), "
        f"{str(tmp_path / 'drawn.pth')!r})\n"
    )
    with serving() as hub:
        around = surroundings(
            HF_ENDPOINT=hub.address,
            HF_TOKEN=hub.token,
            HF_HOME=str(tmp_path / "cache"),
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        )
        subprocess.run([sys.executable, "-c", script], env=around, check=True, timeout=240)
    images = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).byte()
    drawn = torch.load(tmp_path / "drawn.pth", weights_only=True)
    torch.testing.assert_close(drawn, load_mask_model(run)(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("repo", "token", "reason"),
    [
        ("others/it", "hf_known", "You don't have the rights to create a model here"),
        ("lab/it", "hf_expired", "Unauthorized"),
    ],
)
def test_what_the_hub_refuses_is_one_message(
    repo: str,
    token: str,
    reason: str,
    hub: Hub,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    out = tmp_path / "out"
    said = run_main(capsys, 1, "export", run, out, "--push", repo)
    assert f"Error: {repo}: was not pushed (HfHubHTTPError: " in said.err
    assert reason in said.err
    assert f"{out} is whole; check the token's rights and the network, then push" in said.err
    assert sorted(path.name for path in out.iterdir()) == list(FILES)
    assert hub.files == {}


def test_a_hub_that_cannot_be_reached_is_one_message(
    hub: Hub,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = run_main(capsys, 1, "export", run, tmp_path / "out", "--push", "lab/it")
    assert "Error: lab/it: was not pushed (ConnectError: " in said.err


def test_without_a_token_nothing_is_written(
    hub: Hub,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    said = run_main(capsys, 1, "export", run, tmp_path / "out", "--push", "lab/it")
    text = "lab/it: there is no token to push with. Set HF_TOKEN, or run hf auth login once."
    assert text in said.err
    assert not (tmp_path / "out").exists()
