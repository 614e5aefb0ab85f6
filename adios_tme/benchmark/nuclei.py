"""The nuclei benchmark of every checkpoint of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adios_tme import __version__
from adios_tme.benchmark.baselines import baseline_ious
from adios_tme.benchmark.datasets import LabelFolder, LabelledImage
from adios_tme.benchmark.protocol import ChannelScores, calibration_part, score_channels
from adios_tme.benchmark.scores import iou_at_thresholds
from adios_tme.checkpoint import find_checkpoint, list_checkpoints, load_mask_model
from adios_tme.errors import CheckpointError, DataError
from adios_tme.models.generator import MaskGenerator

RESULTS_NAME = "nuclei_benchmark.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Results:
    """All that the benchmark reports."""

    protocol: dict[str, Any]
    """What was compared with what: data set, split, thresholds, versions."""
    baselines: dict[str, float]
    """Mean IoU of classical methods over the test part."""
    checkpoints: tuple[dict[str, Any], ...]
    """Scores of each checkpoint with its iteration, oldest first."""

    @property
    def newest(self) -> dict[str, Any]:
        """Scores of the last checkpoint."""
        return self.checkpoints[-1]

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The classical method that reached most."""
        return max(self.baselines.items(), key=lambda item: item[1])


def score_run(
    run: Path,
    labels: Path,
    output: Path,
    *,
    calibration: float = 0.2,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_progress: Progress | None = None,
) -> Results:
    """Score every ``checkpoint_iter_*.pth``; those that ``output`` has under this protocol stay.

    Args:
        run: Output folder of a run, or one checkpoint.
        labels: Folder with ``images/`` and ``labels/``.
        output: Folder for the results; written after every checkpoint.
        calibration: Share of images to choose channel and threshold on.
        seed: Of that choice.
        device: Where the mask models run.
        on_progress: Called with the images done and their number over all checkpoints.

    Raises:
        DataError: If labels are missing or of the wrong kind.
        CheckpointError: If there is no checkpoint, one is damaged, or its masks are not finite.
    """
    images = list(LabelFolder(labels))
    chosen = calibration_part(len(images), calibration, seed)
    protocol = {
        "labels": str(labels.resolve()),
        "num_images": len(images),
        "num_calibration": int(chosen.sum()),
        "calibration": calibration,
        "seed": seed,
        "oracle_threshold": 0.5,
        "version": __version__,
    }
    checkpoints = _checkpoints(run)
    done = _read_finished(output / RESULTS_NAME, protocol)
    todo = [(number, path) for number, path in checkpoints if str(path) not in done]
    total = len(todo) * len(images)
    baselines = _score_baselines([image for image, c in zip(images, chosen, strict=True) if not c])
    results = Results(protocol, baselines, _in_order(checkpoints, done))
    for number, (iteration, path) in enumerate(todo):
        step = (lambda at: on_progress(at, total)) if on_progress else None
        scores = score_checkpoint(path, images, chosen, device, step, number * len(images))
        done[str(path)] = {"iteration": iteration, "checkpoint": str(path), **asdict(scores)}
        results = Results(protocol, baselines, _in_order(checkpoints, done))
        write_results(results, output / RESULTS_NAME)
    return results


def score_checkpoint(
    path: Path,
    images: Sequence[LabelledImage],
    calibration: NDArray[np.bool_],
    device: str | torch.device = "cpu",
    on_progress: Callable[[int], None] | None = None,
    first: int = 0,
) -> ChannelScores:
    """Score the mask model of one checkpoint.

    Raises:
        CheckpointError: If it is damaged or its masks are not finite.
    """
    generator = load_mask_model(path, device)
    ious = []
    for number, image in enumerate(images, start=first + 1):
        masks_NHW = predict(generator, image.pixels)
        if not np.isfinite(masks_NHW).all():
            raise CheckpointError(
                f"{path}: its masks on {image.name} are not finite. "
                f"Use a checkpoint from before the run diverged."
            )
        ious.append(iou_at_thresholds(masks_NHW, image.labels > 0))
        if on_progress:
            on_progress(number)
    return score_channels(np.stack(ious), calibration)


def predict(generator: MaskGenerator, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Masks (N, H, W) of an RGB image (H, W, 3), the whole image at the model's size."""
    device = generator.normalise.mean.device
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).to(device)
    masks: NDArray[np.float32] = generator(image)[0].cpu().numpy()
    return masks


def write_results(results: Results, path: Path) -> None:
    """Write the JSON file, whole or not at all.

    Raises:
        DataError: If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: the results cannot be written ({error.strerror}). Give another --output."
        ) from error


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    if run.is_file():
        return [(0, run)]
    kept = list_checkpoints(run)
    if not kept:
        find_checkpoint(run)  # says what is missing
        raise CheckpointError(
            f"{run}: holds no checkpoint_iter_*.pth. Give the output folder of a run."
        )
    return kept


def _read_finished(path: Path, protocol: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Scores of earlier, under the same protocol, by checkpoint; none if the file is another."""
    if not path.is_file():
        return {}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["protocol"] != protocol:
            return {}
        return {scores["checkpoint"]: scores for scores in saved["checkpoints"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is not a result of this benchmark. Remove it, or give another --output."
        ) from error


def _in_order(
    checkpoints: list[tuple[int, Path]], done: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    return tuple(done[str(path)] for _, path in checkpoints if str(path) in done)


def _score_baselines(images: Sequence[LabelledImage]) -> dict[str, float]:
    scores = [baseline_ious(image.pixels, image.labels > 0) for image in images]
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
