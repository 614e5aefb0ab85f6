"""Facts about masks, the warnings that follow, random masks, and the moving average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2hed

from adios_tme.distributed.world import World
from adios_tme.masking.controls import misplaced, random_partition
from adios_tme.models.ema import MovingAverage
from adios_tme.run_folder.health import GAP_LINES, STEADY_LINES, DiagnosticWarnings, NucleiNotice
from adios_tme.training.mask_diagnostics import measure_diagnostics
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def line(**facts: Any) -> dict[str, Any]:
    return {
        "iteration": 100,
        "mask_coverage": [0.3, 0.7],
        "mask_overlap": 0.1,
        "adversarial_gap": 0.5,
    } | facts


def test_random_masks_have_the_areas_asked_for_and_smooth_borders() -> None:
    area = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    masks = random_partition(area, (40, 60))
    assert masks.shape == (3, 3, 40, 60)
    assert ((masks == 0) | (masks == 1)).all()
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(3, 40, 60))
    torch.testing.assert_close(masks.mean(dim=(2, 3)), area, rtol=0, atol=1 / 2400)
    changes = (masks[..., 1:] != masks[..., :-1]).float().mean()
    assert changes < 0.1  # of pixels without structure half would differ from their neighbour


def test_misplaced_masks_are_the_same_ones_elsewhere() -> None:
    masks = torch.rand(3, 2, 8, 12).softmax(dim=1)
    moved = misplaced(masks, torch.Generator().manual_seed(0))
    for image in range(3):
        ways = [
            (dy, dx)
            for dy in range(8)
            for dx in range(12)
            if torch.equal(moved[image], masks[image].roll((-dy, -dx), (1, 2)))
        ]
        ((dy, dx),) = ways
        assert 2 <= dy < 6
        assert 3 <= dx < 9


def test_a_generator_of_its_own_leaves_torchs_alone() -> None:
    before = torch.get_rng_state()
    area = torch.full((2, 2), 0.5)
    first, second = (
        random_partition(area, (8, 8), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_sharp_and_undecided_masks_are_told_apart(tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), WORLD)
    images = torch.randn(4, 3, 32, 32)
    flat = torch.full((4, 3, 32, 32), 1 / 3)
    sharp = random_partition(torch.tensor([[0.5, 0.25, 0.25]] * 4), (32, 32))
    before = torch.get_rng_state()
    undecided = measure_diagnostics(run, images, flat, run.schedule())
    decided = measure_diagnostics(run, images, sharp, run.schedule())
    assert torch.equal(torch.get_rng_state(), before)
    assert run.bare_student.training
    assert undecided.mask_entropy.item() == pytest.approx(1.0, abs=1e-5)
    assert undecided.mask_saturation.item() == 0
    assert undecided.mask_overlap.item() == pytest.approx(1.0)
    assert decided.mask_entropy.item() == pytest.approx(0.0, abs=1e-5)
    assert decided.mask_saturation.item() == 1
    assert decided.mask_overlap.item() == 0
    assert decided.mask_coverage.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=1e-3)
    assert decided.mask_coverage_spread.max() < 1e-3
    # Masks that are the same everywhere lie nowhere in particular.
    assert undecided.adversarial_gap.item() == pytest.approx(0.0, abs=1e-5)
    assert abs(decided.adversarial_gap.item()) > 1e-4


def test_masked_views_are_compared_with_the_other_view(tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), WORLD)
    images, other = torch.randn(2, 4, 3, 32, 32)
    nothing = torch.zeros(4, 3, 32, 32)  # so that a masked view is the image

    def alignment(clean: torch.Tensor | None) -> float:
        now = run.schedule()
        return measure_diagnostics(run, images, nothing, now, clean).alignment.item()

    with torch.no_grad():
        embedded = [F.normalize(run.bare_student.eval()(view), dim=1) for view in (images, other)]
    apart = (embedded[0] - embedded[1]).square().sum(dim=1).mean().item()
    assert apart > 1e-3
    assert alignment(other) == pytest.approx(apart, rel=1e-4)
    assert alignment(images) == alignment(None) == pytest.approx(0, abs=1e-9)


def test_the_channel_of_the_nuclei_is_told_by_the_haematoxylin(tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), WORLD)
    pixels = np.random.default_rng(0).integers(60, 250, (4, 32, 32, 3), dtype=np.uint8)
    amounts = np.stack([rgb2hed(image)[..., 0] for image in pixels])
    soft = (amounts - amounts.min()) / np.ptp(amounts)
    masks = np.stack([np.full_like(soft, 0.2), 0.8 * soft, 0.8 * (1 - soft)], axis=1)
    images = run.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    found = measure_diagnostics(run, images, torch.from_numpy(masks).float(), run.schedule())
    # The stain vectors differ in the third digit.
    assert found.mask_haematoxylin_correlation.tolist() == pytest.approx([0, 1, -1], abs=0.01)


def test_the_nuclei_are_noticed_once_it_is_plain() -> None:
    notice = NucleiNotice()

    def said(*correlations: float, times: int = STEADY_LINES) -> list[str]:
        line = {"mask_haematoxylin_correlation": list(correlations)}
        return [text for _ in range(times) for text in notice.notices(line)]

    assert said(0.45, 0.1, -0.3) == []
    assert said(0.7, 0.6, -0.9) == []
    assert said(0.2, 0.77, -0.6, times=STEADY_LINES - 1) == []
    assert said(0.4, 0.45, -0.6, times=1) == []
    (text,) = said(0.2, 0.77, -0.6, times=STEADY_LINES + 5)
    assert text == (
        "Mask 2 follows the haematoxylin (correlation 0.77): it is the nuclei's channel."
    )
    assert said(0.1, 0.4, -0.2) + said(0.2, 0.77, -0.6) == []
    assert len(said(0.8, 0.1, -0.6)) == 1


def test_each_warning_comes_once_until_it_has_passed() -> None:
    watch = DiagnosticWarnings(first_iteration=0)
    assert watch.warnings(line()) == []
    (text,) = watch.warnings(line(mask_coverage=[0.004, 0.996]))[:1]
    assert text.startswith("Mask 1 has collapsed: it covers 0.4%")
    assert watch.warnings(line(mask_coverage=[0.004, 0.996])) == []
    assert watch.warnings(line()) == []
    assert len(watch.warnings(line(mask_coverage=[0.5, 0.994]))) == 1
    assert "nearly the same" in watch.warnings(line(mask_overlap=0.95))[0]


def test_a_gap_is_told_over_several_lines_after_the_warm_up() -> None:
    watch = DiagnosticWarnings(first_iteration=50)
    for _ in range(30):
        assert watch.warnings(line(iteration=10, adversarial_gap=-1.0)) == []
    said = [watch.warnings(line(adversarial_gap=-0.1)) for _ in range(GAP_LINES)]
    assert [len(texts) for texts in said] == [0] * (GAP_LINES - 1) + [1]
    assert "adversarial gap -0.100 over" in said[-1][0]


@pytest.mark.parametrize(("source", "trains"), [("learned", True), ("random", False)])
def test_controls_leave_the_mask_model_alone(source: str, trains: bool, tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path, mask_source=source), WORLD)
    before = [weight.clone() for weight in run.bare_mask_model.parameters()]
    report = train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    moved = any(
        not torch.equal(weight, old)
        for weight, old in zip(run.bare_mask_model.parameters(), before, strict=True)
    )
    assert moved is trains
    assert (report.mask_loss is not None) is trains
    assert report.masks.shape == (4, 3, 32, 32)


def test_without_masks_views_differ_by_crops_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, mask_source="none", crops_per_mask=1)
    run = Run.build(config, WORLD)
    assert train_step(run, torch.randn(4, 3, 32, 32), run.schedule()).masks.sum() == 0


def test_the_average_follows_and_forgets_its_start() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, decay=0.9)
    expected = network.weight.item()
    for step in range(30):
        with torch.no_grad():
            network.weight.fill_(step)
        average.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    (weight,) = average.network.parameters()
    assert weight.item() == pytest.approx(expected, rel=1e-5)
    assert not average.network.training


def test_the_average_is_what_is_shown_saved_and_restored(tmp_path: Path) -> None:
    from adios_tme.pretrained import load_mask_model
    from adios_tme.run_folder.checkpoints import write_checkpoint

    config = tiny_config(tmp_path, tmp_path, mask_ema=0.5, lr=0.05)
    run = Run.build(config, WORLD)
    for _ in range(3):
        train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
        run.advance()
    path = write_checkpoint(run.state(), tmp_path)
    images = torch.rand(1, 3, 32, 32)
    generator = load_mask_model(path)
    with torch.no_grad():
        shown = run.shown_mask_model(generator.normalise(images))
        trained = run.bare_mask_model.eval()(generator.normalise(images))
    torch.testing.assert_close(generator(images), shown)
    assert (shown - trained).abs().max() > 1e-4
    again = Run.build(config, WORLD)
    again.load_state(run.state())
    assert again.averaged_mask_model is not None
    assert again.averaged_mask_model.num_updates == 3
