"""What is found on machines where something is missing."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adios_tme import build_index, doctor
from adios_tme.cli.app import main
from adios_tme.config.commands.doctor import DoctorConfig
from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling
from adios_tme.config.tracking import TrackerName
from adios_tme.data.index import INDEX_NAME
from adios_tme.doctor import CHECKS, Finding, examine
from adios_tme.errors import ConfigError
from tests.factories import make_dataset
from tests.slides import make_slide, stained

DOCS = Path(__file__).parents[2] / "docs"


def finding(name: str, **settings: object) -> Finding:
    return CHECKS[name](DoctorConfig.model_validate(settings))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["adios-tme", "doctor", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def only(monkeypatch: pytest.MonkeyPatch, **checks: Callable[[DoctorConfig], Finding]) -> None:
    monkeypatch.setattr(doctor, "CHECKS", checks)


def test_a_failure_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = Finding("a", "ok", "there")
    only(monkeypatch, a=lambda _: fine, b=lambda _: Finding("b", "warn", "small", "Make room."))
    assert run(monkeypatch) == 0
    only(monkeypatch, a=lambda _: fine, b=lambda _: Finding("b", "fail", "gone", "Plug it in."))
    assert run(monkeypatch) == 1
    assert "Plug it in." in capsys.readouterr().out
    assert run(monkeypatch, "--json") == 1
    lines = json.loads(capsys.readouterr().out)
    assert [line["status"] for line in lines] == ["ok", "fail"]


def test_json_is_such_as_every_terminal_can_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, a=lambda _: Finding("a", "ok", "T\u00fcbingen"))
    assert run(monkeypatch, "--json") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)[0]["found"] == "T\u00fcbingen"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: DoctorConfig) -> Finding:
        raise RuntimeError("cuBLAS said no")

    def refuses(_: DoctorConfig) -> Finding:
        raise ConfigError("device=cuda, but there is none.")

    only(monkeypatch, one=breaks, two=refuses)
    one, two = examine(DoctorConfig())
    assert (one.status, one.found) == ("fail", "RuntimeError: cuBLAS said no")
    assert (two.status, two.found) == ("fail", "device=cuda, but there is none.")


def test_data_that_is_read_corrupt_or_not_indexed(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    assert finding("data").status == "ok"
    found = finding("data", data_path=data)
    assert found.status == "warn"
    assert re.fullmatch(
        r"no index yet; in the first archive [\d,]+ read and decoded a second by one core, "
        r"[\d,]+ MiB/s",
        found.found,
    )
    assert "Run adios-tme index" in found.advice
    assert not (data / INDEX_NAME).exists()
    build_index(data)
    assert finding("data", data_path=data).found.startswith("12 patches")
    content = bytearray((data / "slide_000.zip").read_bytes())
    content[400] ^= 1
    before = (data / "slide_000.zip").stat()
    (data / "slide_000.zip").write_bytes(content)
    os.utime(data / "slide_000.zip", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = finding("data", data_path=data)
    assert found.status == "warn"
    assert found.found.endswith("1 of 12 are corrupt")
    assert "--verify" in found.advice


def test_data_that_are_no_longer_what_was_indexed_are_not_called_corrupt(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    build_index(data)
    os.utime(data / "slide_000.zip", (1, 1))  # as a copy without times has it
    (data / "slide_001.zip").unlink()
    found = finding("data", data_path=data)
    assert (found.status, found.advice) == (
        "warn",
        f"Run adios-tme index {data}; training does it, too.",
    )
    assert found.found.endswith("; 8 of 12 have changed since they were indexed")
    os.utime(data / "slide_002.zip", (1, 1))
    found = finding("data", data_path=data)
    assert found.found == "12 patches; none was read; 12 of 12 have changed since they were indexed"


def test_data_that_are_not_there_fail(tmp_path: Path) -> None:
    found = finding("data", data_path=tmp_path / "nowhere")
    assert (found.status, found.advice) == ("fail", "")
    assert "nowhere does not exist. Give a folder" in found.found
    (tmp_path / "empty").mkdir()
    assert finding("data", data_path=tmp_path / "empty").status == "fail"


@pytest.mark.parametrize("name", ["slides", "slides/slide.svs"])
def test_slides_without_an_index_are_in_order(name: str, tmp_path: Path) -> None:
    make_slide(tmp_path / "slides" / "slide.svs", stained(256, 320))
    found = finding("data", data_path=tmp_path / name)
    assert found.status == "warn"
    assert "with --mpp for whole slides" in found.advice


def test_tiles_of_slides_are_read(tmp_path: Path) -> None:
    make_slide(tmp_path / "slide.tiff", stained(256, 320))
    build_index(tmp_path, PatchSelection(patch_size_px=64), tiling=SlideTiling(mpp=0.5))
    found = finding("data", data_path=tmp_path)
    assert found.status == "ok"
    assert found.found.endswith("read and decoded a second by one core")


def test_the_output_folder_is_tried_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TRIAL_BYTES", 1 << 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    assert finding("output", output_dir=tmp_path / "new" / "run").status == "ok"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    assert finding("output", output_dir=tmp_path).status == "warn"


def test_small_limits_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert finding("open files") == Finding("open files", "warn", "at most 256", "ulimit -n 1024")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 20))
    if Path("/dev/shm").is_dir():
        assert "--shm-size" in finding("shared memory").advice
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert finding("compile").status == "warn"
    assert finding("slurm").found == "no sbatch on this machine"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert finding("slurm").advice == "pip install 'adios-tme[slurm]'"
    assert "slurm" in finding("extras").found


def test_a_driver_whose_gpus_torch_does_not_see_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert finding("torch").found.endswith("; no GPU, trains on the CPU")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/proc/driver/nvidia/version")
    found = finding("torch")
    assert (found.status, found.found.endswith("sees no GPU, though a driver is there")) == (
        "fail",
        True,
    )
    assert "see nvidia-smi" in found.advice


def test_gpus_are_named_and_missed_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert finding("gpus") == Finding("gpus", "ok", "none")
    assert finding("gpus", device="cuda") == Finding("gpus", "fail", "none", "Use --device cpu.")
    gpu = SimpleNamespace(name="A100", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    assert finding("gpus").found == "A100 (80 GiB), A100 (80 GiB)"


def test_too_few_cores_for_the_gpus_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores_at_hand", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert finding("cores").status == "ok"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = finding("cores")
    assert (found.status, found.advice) == (
        "warn",
        "Use --num-workers 1, or ask for more cores.",
    )


def test_a_compiler_that_gives_other_numbers_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert finding("compile", device="cpu").status == "ok"
    monkeypatch.setattr(torch, "compile", lambda function, **_: torch.cos)
    found = finding("compile", device="cpu")
    assert (found.status, found.advice) == ("fail", "Use --compile off.")


def test_every_extra_is_known() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])
    assert set(typing.get_args(TrackerName)) <= set(doctor.EXTRAS)
    _, table = (DOCS / "installation.md").read_text().split("| extra | for |")
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(doctor.EXTRAS)


def test_wrong_attention_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("attention", device="cpu").status == "ok"
    monkeypatch.setattr(doctor, "_attention_difference", lambda *_: 0.5)
    assert finding("attention", device="cpu").status == "fail"


def test_attention_that_does_not_run_at_all_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> float:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(doctor, "_attention_difference", breaks)
    found = finding("attention", device="cpu")
    assert (found.status, found.advice) == ("fail", "Install another torch.")
    assert found.found.startswith("sdpa does not run (RuntimeError)")


def test_a_loss_that_is_not_finite_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NUM_STEPS", 1)
    assert finding("training", device="cpu").status == "ok"
    monkeypatch.setattr(
        doctor, "render_tissue", lambda *_, **__: (np.full((24, 64, 64, 3), np.nan), None)
    )
    assert finding("training", device="cpu").status == "fail"


@pytest.mark.elastic
def test_processes_add_up() -> None:
    assert finding("processes", device="cpu").found.startswith("2 processes added up by gloo")
