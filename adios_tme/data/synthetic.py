"""Generated H&E: tissue rendered by optical density, with the exact outline of every nucleus.

Light is absorbed by haematoxylin (nuclei, a little cytoplasm) and eosin (stroma, cytoplasm)
following Beer and Lambert; stains, density, brightness and focus vary from image to image.

Shape legend: n images, H x W pixels, C channels, K of the images, w x w pixels of the window around
a nucleus; nuclei are placed one after the other, in all images at a time.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adios_tme.data.stain import STAINS
from adios_tme.errors import ConfigError

Floats = NDArray[np.float32]

#: Largest half axis of a nucleus in pixels, with its irregular outline; half of a window.
REACH_PX = 16
#: Pixels per nucleus that is tried; those that would overlap or lie in a lumen are dropped.
PIXELS_PER_TRIAL = 130
BATCH = 64


class Kind(NamedTuple):
    """One kind of nucleus: half axes in pixels, and how dark it is."""

    long_px: tuple[float, float]
    short_px: tuple[float, float]
    density: tuple[float, float]


EPITHELIAL = Kind((5.5, 8.0), (4.5, 6.0), (0.9, 1.3))
LYMPHOCYTE = Kind((3.6, 4.6), (3.4, 4.2), (1.5, 2.0))
SPINDLE = Kind((7.0, 11.0), (2.0, 3.0), (1.1, 1.6))
KINDS = (EPITHELIAL, LYMPHOCYTE, SPINDLE)
LIMITS = np.array([[kind.long_px, kind.short_px, kind.density] for kind in KINDS])
#: Chance of each kind in epithelium and in stroma, and of it or one before it.
CHANCES = ((0.85, 0.12, 0.03), (0.08, 0.37, 0.55))
CUMULATED = np.cumsum(CHANCES, axis=1)


@dataclass(frozen=True)
class SamplePaths:
    """Where a written sample lies."""

    patches: Path
    """Zip archives in the training layout."""
    nuclei: Path
    """``images/`` and ``labels/`` for the benchmark."""


def render_tissue(
    num_images: int, size_px: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Render images of tissue and their nuclei.

    Args:
        num_images: How many.
        size_px: Side in pixels; nuclei keep their size of about 8 to 16 px.
        seed: Equal seeds give equal images.

    Returns:
        RGB images (n, H, W, 3) and instance ids (n, H, W), 0 where there is no nucleus.
    """
    rng = np.random.default_rng(seed)
    shape = (num_images, size_px, size_px)
    epithelium = _sharpen(_blobs(rng, shape, 14 + size_px / 10), rng.normal(0, 0.5, num_images))
    lumen = _sharpen(_blobs(rng, shape, 7 + size_px / 16), rng.normal(-1.5, 0.4, num_images), 8)
    nuclei, labels = _place_nuclei(rng, epithelium, lumen)
    tissue = 1 - lumen
    fibres = _fibres(rng, shape)
    eosin = tissue * (
        epithelium * (0.30 + 0.05 * _blobs(rng, shape, 2))
        + (1 - epithelium) * (0.48 + 0.22 * fibres)
    )
    cytoplasm = tissue * epithelium * 0.22
    haematoxylin = nuclei * (1 + 0.18 * _blobs(rng, shape, 1.1)) + cytoplasm * (1 - (labels > 0))
    eosin_left = np.where(labels > 0, 0.35, 1).astype(np.float32) * eosin
    return _photograph(rng, haematoxylin.clip(0), eosin_left.clip(0)), labels


def write_sample(
    out: Path,
    *,
    num_slides: int = 8,
    patches_per_slide: int = 64,
    size_px: int = 448,
    num_labelled: int = 32,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> SamplePaths:
    """Write training archives and a labelled benchmark of generated tissue.

    Args:
        out: A new or empty folder.
        num_slides: Archives.
        patches_per_slide: Patches in each.
        size_px: Side of patches and labelled images in pixels.
        num_labelled: Images with 16-bit instance labels; none of them is in an archive.
        seed: Equal seeds give equal files.
        on_progress: Called with the images written and their number.

    Raises:
        ConfigError: If the folder holds something.
    """
    check_empty(out)
    paths = SamplePaths(out / "patches", out / "nuclei")
    total, done = num_slides * patches_per_slide + num_labelled, 0
    paths.patches.mkdir(parents=True, exist_ok=True)
    for slide in range(num_slides):
        images, _ = _render_in_batches(patches_per_slide, size_px, seed * 100_003 + slide + 1)
        with zipfile.ZipFile(paths.patches / f"slide_{slide + 1:03d}.zip", "w") as archive:
            for number, image in enumerate(images):
                name = f"patch_{number + 1:03d}_{size_px}_x{number * size_px}_y0.png"
                archive.writestr(name, _png(image))
        done += patches_per_slide
        if on_progress:
            on_progress(done, total)
    images, labels = _render_in_batches(num_labelled, size_px, seed * 100_003)
    for folder in ("images", "labels"):
        (paths.nuclei / folder).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=1):
        (paths.nuclei / "images" / f"tissue_{number:03d}.png").write_bytes(_png(image))
        (paths.nuclei / "labels" / f"tissue_{number:03d}.png").write_bytes(_png(label))
    if on_progress:
        on_progress(total, total)
    return paths


def check_empty(out: Path) -> None:
    """Raise unless a folder is empty or still missing.

    Raises:
        ConfigError: If it holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty. Give a new folder for the generated tissue.")


def _render_in_batches(
    num_images: int, size_px: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Many images without holding the densities of all of them at once."""
    parts = [
        render_tissue(min(BATCH, num_images - start), size_px, seed * 1009 + start)
        for start in range(0, num_images, BATCH)
    ]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _blobs(rng: np.random.Generator, shape: tuple[int, int, int], scale_px: float) -> Floats:
    """Smooth noise of unit variance with features of about that size."""
    frequency_y = np.fft.fftfreq(shape[1])[:, None]
    frequency_x = np.fft.rfftfreq(shape[2])[None]
    low_pass = np.exp(-2 * (np.pi * scale_px / 2) ** 2 * (frequency_y**2 + frequency_x**2))
    return _unit_variance(_filtered(rng.standard_normal(shape), low_pass))


def _fibres(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Noise drawn out along a direction of each image, like collagen."""
    angle = rng.uniform(0, np.pi, (shape[0], 1, 1))
    frequency_y = np.fft.fftfreq(shape[1])[None, :, None]
    frequency_x = np.fft.rfftfreq(shape[2])[None, None]
    along = frequency_x * np.cos(angle) + frequency_y * np.sin(angle)
    across = frequency_y * np.cos(angle) - frequency_x * np.sin(angle)
    low_pass = np.exp(-2 * np.pi**2 * ((9 * along) ** 2 + (1.4 * across) ** 2))
    return _unit_variance(_filtered(rng.standard_normal(shape), low_pass))


def _filtered(noise: NDArray[np.floating], response: NDArray[np.floating]) -> Floats:
    spectrum = np.fft.rfft2(noise) * response
    return np.fft.irfft2(spectrum, s=noise.shape[1:]).astype(np.float32)


def _unit_variance(field: Floats) -> Floats:
    spread: Floats = field.std(axis=(1, 2), keepdims=True)
    return field / (spread + np.float32(1e-6))


def _sharpen(field: Floats, offset: NDArray[np.floating], steepness: float = 4) -> Floats:
    """A region with soft borders where field + offset is above zero."""
    region = 1 / (1 + np.exp(-steepness * (field + offset[:, None, None])))
    return region.astype(np.float32)


def _place_nuclei(
    rng: np.random.Generator, epithelium: Floats, lumen: Floats
) -> tuple[Floats, NDArray[np.uint16]]:
    """Haematoxylin of the nuclei and their instance ids.

    All images get their k-th nucleus at the same time, unless it would touch an earlier one. Only
    outlines that may be kept are worked out, which is most of the cost; all are drawn by lot.
    """
    num_images, size, _ = epithelium.shape
    padded = (num_images, size + 2 * REACH_PX, size + 2 * REACH_PX)
    density, labels = np.zeros(padded, np.float32), np.zeros(padded, np.uint16)
    each = np.arange(num_images)
    steps = np.arange(-REACH_PX, REACH_PX + 1)
    abundance = rng.uniform(0.5, 1.0, num_images)
    for trial in range(max(1, size * size // PIXELS_PER_TRIAL)):
        centre = rng.integers(0, size, (2, num_images))
        outlines = _draw_outlines(rng, _draw_kinds(rng, epithelium[each, *centre] > 0.5))
        wanted = (lumen[each, *centre] < 0.3) & (rng.random(num_images) < abundance)
        centre += REACH_PX
        images = np.flatnonzero(wanted & (labels[each, *centre] == 0))
        radius = outlines.radius(images, steps)
        window = _windows(images, centre, steps)
        # A margin keeps neighbours apart, so that each label is one nucleus.
        free = ~((radius < 1.25) & (labels[window] > 0)).any(axis=(1, 2))
        images, radius = images[free], radius[free]
        window = _windows(images, centre, steps)
        labels[window] = np.where(radius < 1, trial + 1, labels[window])
        edge = 1 / (1 + np.exp((14 * (radius - 1)).clip(max=50)))
        rim = 1 + 0.35 * np.exp(-(((radius - 0.85) / 0.15) ** 2))
        density[window] = np.maximum(density[window], outlines.darkness(images) * edge * rim)
    inner = (slice(None), slice(REACH_PX, -REACH_PX), slice(REACH_PX, -REACH_PX))
    return density[inner], labels[inner]


def _windows(
    images: NDArray[np.int64], centre: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], ...]:
    """Index of the pixels (K, w, w) around the centres in some of the images."""
    rows, columns = centre[:, images, None]
    return images[:, None, None], (rows + steps)[:, :, None], (columns + steps)[:, None, :]


def _draw_kinds(rng: np.random.Generator, in_epithelium: NDArray[np.bool_]) -> NDArray[np.int64]:
    chances = np.where(in_epithelium[:, None], *CUMULATED)
    drawn: NDArray[np.int64] = (rng.random((len(in_epithelium), 1)) > chances).sum(axis=1)
    return drawn.clip(max=len(KINDS) - 1)


class _Outlines(NamedTuple):
    """One nucleus in each image."""

    sizes: NDArray[np.float64]
    """Half axes in pixels and darkness (n, 3)."""
    angle: NDArray[np.float64]
    phases: NDArray[np.float64]
    """Of the waves that make it irregular (2, n)."""

    def radius(self, images: NDArray[np.int64], steps: NDArray[np.int64]) -> Floats:
        """Distance from the centre in units of the nucleus (K, w, w), in some of the images."""
        long_px, short_px, _ = self.sizes[images].T[..., None, None]
        angle, phases = self.angle[images, None, None], self.phases[:, images, None, None]
        y, x = steps[None, :, None], steps[None, None, :]
        along = (x * np.cos(angle) + y * np.sin(angle)) / long_px
        across = (y * np.cos(angle) - x * np.sin(angle)) / short_px
        turn = np.arctan2(across, along)
        wobble = 1 + 0.06 * np.cos(2 * turn + phases[0]) + 0.05 * np.cos(3 * turn + phases[1])
        radius: Floats = (np.hypot(along, across) / wobble).astype(np.float32)
        return radius

    def darkness(self, images: NDArray[np.int64]) -> Floats:
        """Of some of the images (K, 1, 1)."""
        return self.sizes[images, 2, None, None].astype(np.float32)


def _draw_outlines(rng: np.random.Generator, kind: NDArray[np.int64]) -> _Outlines:
    limits = LIMITS[kind]
    sizes = rng.uniform(limits[..., 0], limits[..., 1])
    angle = rng.uniform(0, np.pi, len(kind))
    return _Outlines(sizes, angle, rng.uniform(0, 2 * np.pi, (2, len(kind))))


def _photograph(rng: np.random.Generator, haematoxylin: Floats, eosin: Floats) -> NDArray[np.uint8]:
    """From amounts of stain to pixels: colour, focus, brightness and noise of each image."""
    num_images = len(haematoxylin)
    stains = np.array(STAINS[:2])[None] + rng.normal(0, 0.035, (num_images, 2, 3))
    amounts = rng.uniform((0.85, 0.7), (1.25, 1.3), (num_images, 2))
    stains = stains.clip(0.02) * amounts[..., None]
    density = np.einsum("nshw,nsc->nchw", np.stack([haematoxylin, eosin], axis=1), stains)
    blur_px = rng.uniform(0.35, 0.95, (num_images, 1, 1, 1))
    frequency_y = np.fft.fftfreq(density.shape[2])[:, None]
    frequency_x = np.fft.rfftfreq(density.shape[3])[None]
    focus = np.exp(-2 * (np.pi * blur_px) ** 2 * (frequency_y**2 + frequency_x**2))
    light = np.fft.irfft2(np.fft.rfft2(np.exp(-density)) * focus, s=density.shape[2:])
    brightness = rng.uniform(0.90, 0.98, (num_images, 1, 1, 1))
    light = light * brightness + rng.normal(0, 0.012, light.shape)
    pixels = (light * 255).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
