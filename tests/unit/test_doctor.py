"""What is found on machines where something is missing."""

from __future__ import annotations

import json
import os
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

from adios_tme import build_index, doctor
from adios_tme.cli.app import main
from adios_tme.config.commands.doctor import DoctorConfig
from adios_tme.config.tracking import TrackerName
from adios_tme.doctor import CHECKS, Finding, examine
from adios_tme.errors import ConfigError
from tests.factories import make_dataset


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
    assert "Run adios-tme index" in finding("data", data_path=data).advice
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


def test_the_output_folder_is_tried_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TRIAL_BYTES", 1 << 10)
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


def test_every_extra_is_known() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])
    assert set(typing.get_args(TrackerName)) <= set(doctor.EXTRAS)


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
