"""Trained networks as one ONNX file each, with resizing and normalisation inside.

Pixels go in as they are read, any number of images of any one size; the file is compared with torch
before it takes its name.

Shape legend: B images, N masks, H x W pixels, P patches, D width.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adios_tme.errors import ConfigError, DataError
from adios_tme.export.resampling import cubic, resample, triangle
from adios_tme.export.timm import ExportedEncoder
from adios_tme.files import replacing
from adios_tme.models.layers import Normalise, fit_to_side, unit_range
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.student import as_vit
from adios_tme.version import __version__

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: The oldest set of operators that torch exports to, for the sake of older runtimes.
OPSET = 18
INPUT = "images"
#: Allowed difference from torch, where the largest number is one or less; relative to it above.
TOLERANCE = 1e-4
#: Protocol buffers, of which the file is made, end here.
MOST_BYTES = 2**31 - 2**24

OnProgress = Callable[[int, int], None]


def check_packages() -> None:
    """Raise unless the packages of the extra are there.

    Raises:
        ConfigError: Naming those that are missing.
    """
    missing = [name for name in PACKAGES if util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export: --format onnx needs {' and '.join(missing)}. "
            f"Install the extra with pip install 'adios-tme[onnx]'."
        )


class MaskGraph(nn.Module):
    """What `MaskGenerator` computes for whole uint8 images, without a branch on their size."""

    def __init__(self, generator: MaskGenerator) -> None:
        super().__init__()
        self.network = generator.network
        self.normalise = generator.normalise
        self.side = generator.img_size

    def forward(self, images: Tensor) -> Tensor:
        """Masks (B, N, H, W) of uint8 images (B, 3, H, W)."""
        fitted = resample(unit_range(images), self.side, self.side, cubic).clamp(0, 1)
        masks = self.network(self.normalise(fitted))
        return resample(masks, images.shape[2], images.shape[3], triangle)


class EncoderGraph(nn.Module):
    """The encoder for uint8 images of any size, brought to the size of training.

    Args:
        exported: The encoder with its normalisation.
        fit: Brings images in [0, 1] to a side in pixels; one without branches is for tracing.
    """

    def __init__(self, exported: ExportedEncoder, fit: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.encoder = as_vit(exported.encoder, "format=onnx")
        self.normalise = Normalise(exported.mean, exported.std)
        self.fit = fit
        self.side = self.encoder.patch_embed.img_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (B, D) and patch tokens (B, P, D) of uint8 images (B, 3, H, W)."""
        tokens_BTD = self.encoder(self.normalise(self.fit(unit_range(images), self.side)))
        return tokens_BTD[:, 0], tokens_BTD[:, self.encoder.num_prefix_tokens :]


@dataclass(frozen=True)
class OnnxExport:
    """A network to write."""

    graph: nn.Module
    """What is traced."""

    reference: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    """The same in torch, as others call it; the file is compared with it."""

    outputs: tuple[str, ...]
    side: int
    metadata: Mapping[str, object]


def mask_export(generator: MaskGenerator, iteration: int) -> OnnxExport:
    """The mask model, as a graph from ``images`` to ``masks``."""
    mean, std = (_rounded(part) for part in (generator.normalise.mean, generator.normalise.std))
    outputs = {"masks": "float32 (batch, masks, height, width), they add up to 1 over masks"}
    told = _metadata("mask", iteration, generator.img_size, mean, std, outputs)
    whole = partial(generator, windows=False)  # as the graph sees images of any size
    return OnnxExport(MaskGraph(generator), whole, tuple(outputs), generator.img_size, told)


def encoder_export(exported: ExportedEncoder, iteration: int) -> OnnxExport:
    """The encoder, as a graph from ``images`` to ``class_token`` and ``patch_tokens``."""
    traced = EncoderGraph(exported, lambda x, side: resample(x, side, side, cubic).clamp(0, 1))
    outputs = {
        "class_token": "float32 (batch, width)",
        "patch_tokens": "float32 (batch, patches, width), row by row",
    }
    mean, std = list(exported.mean), list(exported.std)
    told = _metadata("encoder", iteration, traced.side, mean, std, outputs)
    reference = EncoderGraph(exported, fit_to_side)
    return OnnxExport(traced, reference, tuple(outputs), traced.side, told)


def write_onnx(export: OnnxExport, path: Path, on_progress: OnProgress | None = None) -> None:
    """Write the file and compare it with torch; it is whole and right, or as it was.

    Args:
        export: What to write.
        path: The file; its folders may be missing.
        on_progress: Called with the steps that are done, and all of them.

    Raises:
        ConfigError: If packages are missing, or the weights too many for one file.
        DataError: If the file gives other numbers than torch.
        OSError: If it cannot be written.
    """
    check_packages()
    _check_size(export.graph)
    tell = on_progress or (lambda done, total: None)
    shapes = _shapes(export.side)
    total = 2 + len(shapes)
    tell(0, total)
    path.parent.mkdir(parents=True, exist_ok=True)
    program = _trace(export)
    tell(1, total)
    with replacing(path) as partial:
        program.save(partial, external_data=False)
        tell(2, total)
        for done, shape in enumerate(shapes, start=3):
            try:
                check_against_torch(partial, export, shape)
            except ValueError as error:
                raise DataError(
                    f"{path}: was not written, since {error}. "
                    f"Install other versions of torch, onnxscript or onnxruntime."
                ) from error
            tell(done, total)


def check_against_torch(file: Path, export: OnnxExport, shape: tuple[int, int, int]) -> None:
    """Compare what onnxruntime makes of a file with torch, on noise.

    Args:
        file: The file.
        export: What it was written from.
        shape: Number of images, and their height and width in pixels.

    Raises:
        ValueError: If a number differs.
    """
    import onnxruntime

    number, height, width = shape
    generator = torch.Generator().manual_seed(0)
    size = (number, 3, height, width)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        expected = export.reference(images)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(list(export.outputs), {INPUT: images.numpy()})
    wanted = (expected,) if isinstance(expected, Tensor) else expected
    for name, ours, theirs in zip(export.outputs, wanted, found, strict=True):
        worst = _difference(ours, torch.from_numpy(theirs))
        if not worst <= TOLERANCE:  # also where one is not a number
            raise ValueError(
                f"{name} for a batch of {number}, {width} x {height} px, differs from torch by "
                f"{worst:.2g}, more than {TOLERANCE:g}"
            )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest number where that is above one."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))


def _shapes(side: int) -> tuple[tuple[int, int, int], ...]:
    """Batches that a file is tried with, none of them like the one that is traced."""
    return (1, side, side), (3, 2 * side + 5, side - 3)


def _trace(export: OnnxExport) -> torch.onnx.ONNXProgram:
    # Two or more of everything, all different: torch keeps what it takes for equal or for one.
    side = export.side
    example = torch.zeros(2, 3, side + 16, side + 40, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            export.graph.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            input_names=[INPUT],
            output_names=list(export.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _describe(program.model, export.metadata)
    return program


def _describe(model: Any, metadata: Mapping[str, object]) -> None:
    """Put what users read in place of torch's notes, which hold paths of this machine."""
    parts = [*model.graph.all_nodes(), *model.graph.inputs, *model.graph.outputs]
    values = [output for node in model.graph.all_nodes() for output in node.outputs]
    for part in (model.graph, *parts, *values, *model.graph.initializers.values()):
        part.metadata_props.clear()
    model.producer_name, model.producer_version = "adios_tme", __version__
    model.metadata_props.clear()
    for name, told in metadata.items():
        model.metadata_props[name] = told if isinstance(told, str) else json.dumps(told)


def _metadata(
    what: str,
    iteration: int,
    side: int,
    mean: list[float],
    std: list[float],
    outputs: Mapping[str, str],
) -> dict[str, object]:
    """What the file says of itself; all but texts as JSON."""
    return {
        "what": what,
        "version": __version__,
        "iteration": iteration,
        "img_size": side,
        "mean": mean,
        "std": std,
        "inputs": {INPUT: "uint8 RGB (batch, 3, height, width), as read, not normalised"},
        "outputs": dict(outputs),
    }


def _rounded(channels: Tensor) -> list[float]:
    """Buffers as the settings had them, before they became float32."""
    return [round(float(value), 6) for value in channels.flatten()]


def _check_size(network: nn.Module) -> None:
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if size > MOST_BYTES:
        raise ConfigError(
            f"export: {size / 2**30:.1f} GiB of weights do not fit into one ONNX file of 2 GiB. "
            f"Use another --format."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter tells its own developers off the terminal."""
    earlier = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(earlier)
