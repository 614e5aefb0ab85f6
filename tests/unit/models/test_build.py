"""What --compile on does: the same numbers, one form for each shape, names as they were."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from adios_tme.config.model import StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.distributed.world import World
from adios_tme.models.build import build_student
from adios_tme.models.resolve import resolve
from adios_tme.models.student import Student
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import VIT_UNET, run_of, tiny_config

CPU = torch.device("cpu")
#: Count and side.
VIEWS = ((6, 32), (4, 16))
#: Torch's compiler hides this one of its own where it is shown, which raising it comes before.
pytestmark = pytest.mark.filterwarnings("default:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    """Torch's lists of compiled forms and its counters are global."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture and guard as ever, but run the operators as they are: a second, not a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def tiny_student(how: str, drop_path_rate: float = 0.4, **recompute: bool) -> Student:
    """Two blocks: one without stochastic depth, and one with it of which first tokens are read."""
    torch.manual_seed(3)
    model = StudentConfig(
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=1,
        drop_path_rate=drop_path_rate,
        tme_hidden_dim=32,
        tme_output_dim=16,
    )
    compute = ComputeConfig(compile=how, precision="fp32", **recompute)
    return build_student(model, 32, resolve(run_of(model=model, compute=compute), CPU)).train()


def losses_and_gradients(student: Student) -> list[Tensor]:
    """Of one random draw of stochastic depth, on views of two sizes."""
    generator = torch.Generator().manual_seed(4)
    views = [torch.randn(count, 3, side, side, generator=generator) for count, side in VIEWS]
    torch.manual_seed(5)
    loss = torch.cat(student(views)).square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, list(student.parameters()))]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_compiled_kernels_give_the_plain_numbers() -> None:
    plain, compiled = (losses_and_gradients(tiny_student(how)) for how in ("off", "on"))
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
    # Every block was compiled whole, the one of which first tokens are read among them.
    assert counters["frames"] == {"total": 2, "ok": 2}
    assert not counters["graph_break"]


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("drop_path_rate", [0.0, 0.4])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_is_captured_is_the_plain_block(recompute: bool, drop_path_rate: float) -> None:
    plain, compiled = (
        losses_and_gradients(tiny_student(how, drop_path_rate, grad_checkpointing=recompute))
        for how in ("off", "on")
    )
    assert counters["frames"]["ok"] == 2
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("recompute", [False, True])
def test_steps_after_the_first_compile_nothing(recompute: bool, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        tmp_path,
        compile="on",
        depth=12,  # as many rates of stochastic depth, more than torch keeps forms by default
        drop_path_rate=0.4,
        crops_per_mask=1,
        crop_size=16,
        grad_checkpointing=recompute,
        mask_grad_checkpointing=recompute,
        **VIT_UNET,
    )
    run = Run.build(config, World(0, 1, 0, 1, CPU))
    images = torch.randn(2, 3, 32, 32)
    train_step(run, images, run.schedule())
    after_first = dict(counters["frames"])
    assert after_first["total"] == after_first["ok"] <= 14
    train_step(run, images, run.schedule())
    assert counters["frames"] == after_first
    assert not counters["graph_break"]


@pytest.mark.usefixtures("plain_kernels")
def test_a_compiled_network_is_copied_and_saved_as_a_plain_one() -> None:
    compiled = tiny_student("on")
    assert compiled.state_dict().keys() == tiny_student("off").state_dict().keys()
    expected = losses_and_gradients(compiled)
    for twin in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        with torch.no_grad():
            for weight in compiled.parameters():
                weight.zero_()
        for one, other in zip(losses_and_gradients(twin), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        compiled.load_state_dict(twin.state_dict())
