"""Lines of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from adios_tme.distributed.world import World
from adios_tme.run_folder.health import DiagnosticWarnings, NucleiNotice
from adios_tme.training.mask_diagnostics import measure_diagnostics
from adios_tme.training.metrics import Metrics, summary
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from adios_tme.viz.curves import curves_figure
from tests.factories import tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def test_what_is_not_finite_is_null_and_not_taken_for_a_collapse() -> None:
    run = Run.build(tiny_config(Path(), Path()), WORLD)
    metrics, now = Metrics(run, 12), run.schedule()
    images = torch.full((4, 3, 32, 32), float("nan"))
    report = train_step(run, images, now)
    metrics.note(report, 0.0)
    run.advance()
    line = metrics.line(report, measure_diagnostics(run, images, report.masks, now), now, 0)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert line["mask_coverage"] == line["mask_haematoxylin_correlation"] == [None] * 3
    assert "cover not finite/not finite/not finite" in summary(line)
    assert DiagnosticWarnings(0).warnings(line) == []
    assert NucleiNotice().notices(line) == []
    curves_figure({"run": [line, line | {"iteration": 2, "mask_coverage": [0.2, 0.3, 0.5]}]})


def test_a_frozen_mask_model_leaves_no_stale_losses() -> None:
    run = Run.build(tiny_config(Path(), Path(), train_mask_until=0.25), WORLD)
    metrics, images = Metrics(run, 12), torch.randn(4, 3, 32, 32)
    lines = []
    for _ in range(2):
        now = run.schedule()
        report = train_step(run, images, now)
        metrics.note(report, 0.0)
        run.advance()
        diagnostics = measure_diagnostics(run, images, report.masks, now)
        lines.append(metrics.line(report, diagnostics, now, 0))
    of_mask_half = {"mask_loss", "mask_grad_norm", "contrastive_loss_mask", "sparsity_penalty"}
    assert lines[0].keys() - lines[1].keys() == of_mask_half
    assert summary(lines[1]).startswith("student ")
