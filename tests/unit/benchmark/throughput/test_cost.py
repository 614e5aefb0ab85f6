"""Counted arithmetic and memory against the formulas, on networks small enough to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.benchmark.throughput.counting import count_flops, kept_bytes
from adios_tme.benchmark.throughput.live_bytes import peak_bytes
from adios_tme.benchmark.throughput.student_cost import ViewCost, kept_of_views, num_weights
from adios_tme.config.load import build, nest
from adios_tme.config.model import StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World
from adios_tme.models.build import build_student
from adios_tme.models.resolve import resolve
from adios_tme.models.student import Student
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from adios_tme.training.update import frozen
from tests.factories import VIT_UNET, run_of, tiny_config

CPU, META = torch.device("cpu"), torch.device("meta")
#: Narrow blocks, at a thousandth of a real student's cost: the last one, which treats class tokens
#: alone, and as many before it as show what each of them adds.
NARROW: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 1,
    "batch_size_per_gpu": 2,
}
MASK_MODELS: dict[str, dict[str, Any]] = {"adios": {}, "vit_unet": VIT_UNET}


def narrow(folder: Path, mask_model: str, **flags: Any) -> TrainConfig:
    return tiny_config(folder, folder, **NARROW | MASK_MODELS[mask_model] | flags)


def with_masks(config: TrainConfig, num_masks: int) -> TrainConfig:
    """Any number of masks: settings ask for two or more, the arithmetic does not."""
    mask = config.mask.model_copy(update={"num_masks": num_masks})
    return config.model_copy(update={"mask": mask})


def flops_of_a_step(config: TrainConfig) -> float:
    """Counted, per image."""
    run = Run.build(config, World(0, 1, 0, 1, CPU))
    size = config.data.img_size
    images = torch.randn(config.data.batch_size_per_gpu, 3, size, size)
    return count_flops(lambda: train_step(run, images, run.schedule())) / len(images)


@pytest.mark.parametrize("mask_model", MASK_MODELS)
@pytest.mark.parametrize("crops", [0, 1])
@pytest.mark.parametrize("num_masks", [1, 3, 6])
def test_a_step_costs_no_more_than_its_floor(
    num_masks: int, crops: int, mask_model: str, tmp_path: Path
) -> None:
    config = with_masks(narrow(tmp_path, mask_model, crops_per_mask=crops), num_masks)
    cost = StepCost.of(config)
    counted = flops_of_a_step(config)
    assert counted < cost.floor_flops
    assert counted == pytest.approx(cost.flops, rel=1e-3)


@pytest.mark.parametrize(("mask_forward", "passes"), [("shared", 1), ("auto", 2), ("separate", 2)])
def test_a_second_mask_forward_is_paid_where_it_is_asked_for(
    mask_forward: str, passes: int, tmp_path: Path
) -> None:
    config = narrow(tmp_path, "vit_unet", mask_dropout=0.2, mask_forward=mask_forward)
    cost = StepCost.of(config)
    assert cost.mask_models_part == passes * cost.mask_model.forward + cost.mask_model.backward
    assert flops_of_a_step(config) == pytest.approx(cost.flops, rel=1e-3)


@pytest.mark.parametrize(("width", "gflop"), [(64, 3.8), (128, 7.2), (256, 20.8), (512, 74.9)])
def test_the_documents_costs_of_decoders(width: int, gflop: float, tmp_path: Path) -> None:
    cost = StepCost.of(settings_of_a_run(tmp_path, mask_decoder_width=width))
    assert cost.mask_model.forward / 1e9 == pytest.approx(gflop, abs=0.05)
    page = (DOCS / "training.md").read_text().replace("GFLOP ", "")
    assert f"{gflop} with {width}" in page


def test_a_frozen_mask_encoder_goes_forward_only(tmp_path: Path) -> None:
    config = narrow(tmp_path, "vit_unet", mask_dropout=0.0, freeze_mask_encoder=True)
    cost = StepCost.of(config)
    learning = StepCost.of(narrow(tmp_path, "vit_unet", mask_dropout=0.0))
    assert cost.mask_model.forward == learning.mask_model.forward
    assert cost.mask_model.backward < learning.mask_model.backward
    assert flops_of_a_step(config) == pytest.approx(cost.flops, rel=1e-3)


@pytest.mark.parametrize(
    "flags",
    [
        {"reconstruction_weight": 1.0},
        {"consistency_weight": 1.0},
        {
            "area_targets": (0.2, 0.4, 0.4),
            "area_over": "batch",
            "edge_weight": 1.0,
            "stain_weight": 1.0,
            "stain_until": 0.5,
        },
        {"fill": "mean"},
        {"fill": "blur"},
        {"fill": "noise"},
    ],
)
@pytest.mark.parametrize("mask_model", MASK_MODELS)
def test_options_of_the_masks_cost_the_passes_that_they_add(
    mask_model: str, flags: dict[str, Any], tmp_path: Path
) -> None:
    plain, cost = (StepCost.of(narrow(tmp_path, mask_model, **chosen)) for chosen in ({}, flags))
    network = cost.mask_model
    assert cost.mask_models_part - plain.mask_models_part == (
        network.forward + network.backward if "consistency_weight" in flags else 0
    )
    assert (cost.students_part > plain.students_part) is ("reconstruction_weight" in flags)
    assert flops_of_a_step(cost.config) == pytest.approx(cost.flops, rel=1e-3)


@pytest.mark.parametrize("objective", ["simclr", "byol", "simsiam"])
@pytest.mark.parametrize("variant", ["adios", "adios_s"])
@pytest.mark.parametrize("crops", [0, 2])
def test_every_objective_and_variant_stays_below_its_floor(
    crops: int, variant: str, objective: str, tmp_path: Path
) -> None:
    flags = {"objective": objective, "variant": variant, "crops_per_mask": crops, "crop_size": 16}
    if not crops:
        del flags["crop_size"]
    config = narrow(tmp_path, "adios", **flags)
    cost = StepCost.of(config)
    counted = flops_of_a_step(config)
    assert counted < cost.floor_flops
    assert counted == pytest.approx(cost.flops, rel=1e-3)


@pytest.mark.parametrize("objective", ["byol", "simsiam"])
def test_the_number_of_weights_with_a_predictor(objective: str, tmp_path: Path) -> None:
    config = narrow(tmp_path, "adios", objective=objective)
    run = Run.build(config, World(0, 1, 0, 1, CPU))
    trained = [
        weight.numel()
        for updater in run.updaters().values()
        for group in updater.optimizer.param_groups
        for weight in group["params"]
    ]
    assert StepCost.of(config).num_weights == sum(trained)


def test_crops_cost_what_their_tokens_cost(tmp_path: Path) -> None:
    without = flops_of_a_step(narrow(tmp_path, "adios", crops_per_mask=0))
    config = narrow(tmp_path, "adios", crops_per_mask=2, crop_size=16)
    crop = ViewCost.of(config.model, 16, class_only=True)
    assert flops_of_a_step(config) - without == pytest.approx(6 * crop.learning, rel=5e-3)
    whole = ViewCost.of(config.model, 32, class_only=True)
    assert crop.forward < whole.forward / 3


def plain_student(model: StudentConfig, size: int, compute: ComputeConfig | None = None) -> Student:
    """A student of some sizes, in single precision."""
    compute = compute or ComputeConfig(precision="fp32")
    return build_student(model, size, resolve(run_of(model=model, compute=compute), CPU))


def shapes_of_student(model: StudentConfig, size: int) -> Student:
    """The same without numbers, which large ones take seconds to draw."""
    compute = ComputeConfig(attention="sdpa", compile="off")
    with META:
        return build_student(model, size, resolve(run_of(model=model, compute=compute), META))


@pytest.mark.parametrize("arch", ["vit_tiny", "vit_small", "vit_base", "vit_large"])
def test_the_formula_of_a_view_is_what_is_counted(arch: str) -> None:
    model = StudentConfig(arch=arch, depth=3)
    student = shapes_of_student(model, 224)
    view = torch.empty(1, 3, 224, 224, device=META)
    every_token = count_flops(lambda: student.head(student.encoder(view)[:, 0]))
    assert ViewCost.of(model, 224, class_only=False).forward == every_token
    assert ViewCost.of(model, 224, class_only=True).forward == count_flops(lambda: student(view))


@pytest.mark.parametrize(
    ("mask_model", "flags", "floor", "saved"),
    [
        ("adios", {}, 189.3, 0.069),
        ("vit_unet", {"mask_dropout": 0.0}, 242.9, 0.069),
        ("vit_unet", {}, 263.8, 0.069),
    ],
)
def test_vit_small_at_full_size(
    mask_model: str, flags: dict[str, Any], floor: float, saved: float, tmp_path: Path
) -> None:
    config = settings_of_a_run(
        tmp_path, arch="vit_small", crops_per_mask=0, mask_model_type=mask_model, **flags
    )
    cost = StepCost.of(config)
    assert cost.floor_flops / 1e9 == pytest.approx(floor, abs=0.05)
    students_floor = cost.floor_flops - cost.mask_models_part
    assert 1 - cost.students_part / students_floor == pytest.approx(saved, abs=0.001)


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("number_bytes", [4, 2])
def test_what_a_view_leaves_in_memory(number_bytes: int, is_frozen: bool, tmp_path: Path) -> None:
    model = StudentConfig(arch="vit_tiny", depth=4, drop_path_rate=0.2)
    student = plain_student(model, 224).train()

    def kept_of(num_views: int) -> int:
        views = torch.randn(num_views, 3, 224, 224, requires_grad=is_frozen)
        with (
            frozen(student) if is_frozen else nullcontext(),
            torch.autocast("cpu", torch.bfloat16, enabled=number_bytes == 2),
        ):
            return kept_bytes(student, lambda: student(views))

    # The difference: folded and cast weights are there once, whatever the number of views.
    expected = kept_of_views(model, 224, number_bytes=number_bytes, frozen=is_frozen)
    assert kept_of(2) - kept_of(1) == pytest.approx(expected, rel=0.02)


def test_recomputing_leaves_the_inputs_of_blocks() -> None:
    model = StudentConfig(arch="vit_tiny", depth=4)
    compute = ComputeConfig(grad_checkpointing=True)
    student = plain_student(model, 64, compute).train()

    def kept_of(num_views: int) -> int:
        return kept_bytes(student, lambda: student(torch.randn(num_views, 3, 64, 64)))

    expected = kept_of_views(model, 64, number_bytes=4, frozen=False, recompute=True)
    assert kept_of(2) - kept_of(1) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("arch", ["vit_tiny", "vit_base"])
def test_the_number_of_weights(arch: str) -> None:
    model = StudentConfig(arch=arch, depth=2)
    student = shapes_of_student(model, 64)
    assert num_weights(model, 64) == sum(weight.numel() for weight in student.parameters())


def present(run: Run) -> Iterator[Tensor]:
    """What a step finds there; one by one, so that nothing here keeps a gradient alive."""
    for network in (run.bare_student, run.bare_mask_model, run.objective):
        for weight in network.parameters():
            yield weight
            if weight.grad is not None:
                yield weight.grad
    for updater in run.updaters().values():
        for state in updater.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


@pytest.mark.parametrize(
    ("number_bytes", "recompute", "crops", "mask_model", "flags"),
    [
        *product([4], [False, True], [0, 1], MASK_MODELS, [{}]),
        # In bf16 convolutions take minutes on CPUs without instructions for it.
        (2, False, 0, "adios", {}),
        *product([4], [False], [0], MASK_MODELS, [{"consistency_weight": 1.0}]),
        *product([4], [False], [0], MASK_MODELS, [{"reconstruction_weight": 1.0}]),
        (4, False, 1, "adios", {"objective": "byol", "predictor_hidden_dim": 64}),
        (4, True, 0, "adios", {"objective": "byol", "predictor_hidden_dim": 64}),
        (4, False, 0, "adios", {"variant": "adios_s"}),
        (4, False, 0, "adios", {"views": "two", "augment": "geometric"}),
    ],
)
def test_the_most_that_a_step_has_in_memory(
    number_bytes: int,
    recompute: bool,
    crops: int,
    mask_model: str,
    flags: dict[str, Any],
    tmp_path: Path,
) -> None:
    config = narrow(
        tmp_path,
        mask_model,
        depth=6,  # the proportions of a real student
        crops_per_mask=crops,
        grad_checkpointing=recompute,
        mask_grad_checkpointing=recompute,
        precision="fp32" if number_bytes == 4 else "bf16",
        **flags,
    )
    run = Run.build(config, World(0, 1, 0, 1, CPU))
    images = torch.randn(8, 3, 32, 32)
    clean = images.clone() if config.data.views == "two" else images
    train_step(run, images[:2], run.schedule())  # makes the moments
    counted = peak_bytes(
        lambda: train_step(run, images, run.schedule(), clean),
        chain([images, clean], present(run)),
    )
    cost = StepCost.of(config)
    # Beside weights, gradients and moments, which the two have in common.
    assert cost.peak_bytes(8, number_bytes) - cost.state_bytes == pytest.approx(
        counted - cost.state_bytes, rel=0.1
    )


DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "scaling.md").read_text()
ROWS = re.findall(r"^\| `(vit_\w+)` \| `(\w+)` \| (\d) \| ([\d. |]+) \|$", PAGE, re.M)


def settings_of_a_run(folder: Path, **flags: Any) -> TrainConfig:
    return build(TrainConfig, nest(TrainConfig, {"data_path": folder} | flags))


@pytest.mark.parametrize(("arch", "mask_model", "crops", "figures"), ROWS)
def test_the_documents_table_of_costs(
    arch: str, mask_model: str, crops: str, figures: str, tmp_path: Path
) -> None:
    config = settings_of_a_run(
        tmp_path, arch=arch, mask_model_type=mask_model, crops_per_mask=int(crops)
    )
    cost = StepCost.of(config)
    expected = [
        cost.floor_flops / 1e9,
        cost.flops / 1e9,
        cost.kept_bytes(4) / 1e6,
        cost.kept_bytes(2) / 1e6,
        cost.num_weights / 1e6,
    ]
    assert figures.split(" | ") == [
        f"{value:.{places}f}" for value, places in zip(expected, (1, 1, 0, 0, 1), strict=True)
    ]


@pytest.mark.parametrize("column", ["vit_unet", "adios"])
def test_the_documents_table_of_options(column: str, tmp_path: Path) -> None:
    rows = re.findall(r"^\| (`--.*`) \| .* \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M)
    plain = StepCost.of(settings_of_a_run(tmp_path, mask_model_type=column))
    told = {}
    for flags, vit_unet, adios in rows:
        for flag in re.findall(r"--([\w-]+)", flags):
            told[flag.replace("-", "_")] = vit_unet if column == "vit_unet" else adios
    values: dict[str, Any] = {
        "area_targets": (0.2, 0.4, 0.4),
        "area_over": "batch",
        "alpha_entropy": 1.0,
        "fill": "blur",
    }
    weights = {name: 1.0 for name in told if name.endswith("_weight")}
    assert told.keys() == values.keys() | weights.keys()
    assert len(weights) == 4
    for name, value in (values | weights).items():
        options = {name: value, "mask_model_type": column}
        cost = StepCost.of(settings_of_a_run(tmp_path, **options))
        assert told[name] == f"{(cost.flops - plain.flops) / 1e9:.2f}", name


OBJECTIVE_ROWS = re.findall(r"^\| `(\w+)` \| `(adios\w*)` \| (\d+\.\d [\d. |]+) \|$", PAGE, re.M)


def test_the_documents_table_of_objectives(tmp_path: Path) -> None:
    assert len(OBJECTIVE_ROWS) == 6
    for objective, variant, figures in OBJECTIVE_ROWS:
        flags = {"objective": objective, "variant": variant}
        cost = StepCost.of(settings_of_a_run(tmp_path, **flags))
        expected = [
            cost.floor_flops / 1e9,
            cost.flops / 1e9,
            cost.kept_bytes(4) / 1e6,
            cost.num_weights / 1e6,
            cost.embedding_bytes(64) / 1e6,
        ]
        assert figures.split(" | ") == [
            f"{value:.{places}f}" for value, places in zip(expected, (1, 1, 0, 1, 1), strict=True)
        ]


def test_the_documents_table_of_ranks(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (8|64|512) \| ([\d. |]+) \|$", PAGE, re.M)
    cost = StepCost.of(settings_of_a_run(tmp_path))
    seconds = 64 * cost.flops / (0.45 * 989e12)
    assert [int(ranks) for ranks, _ in rows] == [8, 64, 512]
    for ranks, figures in ((int(ranks), figures) for ranks, figures in rows):
        speed = 64 * ranks / seconds
        gradients = 2 * (ranks - 1) / ranks * cost.gradient_bytes
        embeddings = 2 * (ranks - 1) * cost.embedding_bytes(64)
        expected = [
            1000 * seconds,
            speed,
            gradients / 1e6,
            embeddings / 1e6,
            (gradients + embeddings) / seconds / 1e9,
            speed * 0.327e6 / 1e9,
        ]
        assert figures.split(" | ") == [
            f"{value:.{places}f}"
            for value, places in zip(expected, (0, 0, 0, 0, 1, 1), strict=True)
        ]
