"""What is to be segmented: slides, images, patches; each with a file of its own."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from adios_tme.config.commands.segment import SegmentConfig
from adios_tme.data.by_slide import SlidePatches, digest_of, file_names, patches_by_slide
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import decode_file, is_image_name
from adios_tme.data.index import DatasetIndex, Patch
from adios_tme.data.index_builder import index_archives
from adios_tme.data.names import NameFacts, parse_name
from adios_tme.data.patch import ArchiveEntry, unique_names
from adios_tme.data.reader import PatchReader
from adios_tme.data.slides.files import check_tiling, refuse_without_scale, tiling_digest
from adios_tme.data.slides.plan import tissue_of
from adios_tme.data.slides.scale import read_mpp_csv, scale_of
from adios_tme.data.slides.slide import Slide
from adios_tme.data.sources import (
    can_be_seen,
    find_sources,
    is_archive,
    is_listing,
    only_slides,
)
from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.segment.view import ImageView, SlideView, View

#: Index of the patches, kept for the next time.
INDEX = "patches_dataset_index.safetensors"
_ADVICE = (
    "Give an image, a zip or tar of patches, a folder of images or of archives, or with --mpp a "
    "slide."
)


@dataclass(frozen=True)
class Input:
    """What shares one file of nuclei."""

    name: str
    """Of its files below the output folder, without a suffix."""
    digest: str
    """Tells the state of its files."""
    num_views: int
    views: Callable[[], Iterator[View]]
    """The slide, the image or the patches; raises CorruptPatchError or DataError."""
    unread: list[str] = field(default_factory=list)
    """Patches that could not be read so far, and why."""


def find_inputs(config: SegmentConfig, step: int) -> tuple[list[Input], list[str]]:
    """All there is to segment, and what was left out.

    Args:
        config: Where it lies, and at which scale.
        step: Of the grid of windows in pixels.

    Raises:
        ConfigError: If it is missing, or its scale is unknown and asked for.
        DataError: If there is nothing.
    """
    if not can_be_seen(config.input):
        raise ConfigError(f"input: {config.input} does not exist. {_ADVICE}")
    if config.mpp is not None:
        return _slides(config, step)
    if config.input.is_file() and is_image_name(config.input.name):
        return [_image(config)], []
    refuse_without_scale(config.input)
    if not (config.input.is_dir() or is_listing(config.input) or is_archive(config.input)):
        raise ConfigError(f"input: {config.input} is no image, no archive and no folder. {_ADVICE}")
    report = index_archives(
        config.input, config.patches, config.output / INDEX, own=[config.output]
    )
    notices = [notice.text for notice in report.notices() if notice.is_urgent]
    return list(_patches(config, report.index)), notices


def _slides(config: SegmentConfig, step: int) -> tuple[list[Input], list[str]]:
    found = only_slides(find_sources(config.input, [config.output], slides=True), config.input)
    paths = [source.path for source in found.sources]
    check_tiling(config.slides, paths)
    how = tiling_digest(config.slides)
    root = config.input if config.input.is_dir() else config.input.parent
    names = unique_names([ArchiveEntry(str(path), 0, 0, root=str(root)) for path in paths])
    inputs = [
        Input(name, _state(path, how), 1, partial(_slide_views, config, path, step))
        for name, path in zip(names, paths, strict=True)
    ]
    return inputs, [fault.message for fault in found.faults]


def _slide_views(config: SegmentConfig, path: Path, step: int) -> Iterator[View]:
    assert config.mpp is not None
    slide = Slide(path)
    scale = scale_of(path.name, slide.facts.properties, read_mpp_csv(config.mpp_csv))
    yield SlideView(
        slide, scale.mpp, config.mpp, step, tissue_of(slide, config.slides.tissue, scale.mpp)
    )


def _image(config: SegmentConfig) -> Input:
    facts = parse_name(config.input.name, config.name_pattern)
    microns = _microns(config, facts, config.input.name)

    def views() -> Iterator[View]:
        yield ImageView(decode_file(config.input), microns, config.scale)

    return Input(config.input.stem, _state(config.input), 1, views)


def _patches(config: SegmentConfig, index: DatasetIndex) -> Iterator[Input]:
    """Slides whose patches all state their place, and every other patch by itself."""
    slides = patches_by_slide(index)
    names = file_names(slides)
    reader = PatchReader(index)
    for slide in slides:
        patches = index.patches(slide.rows)
        if all(patch.coordinates is not None for patch in patches):
            yield _input(config, index, reader, names[slide.name], slide)
            continue
        stems = _file_names(patches, "" if len(slides) == 1 else names[slide.name])
        for name, row in zip(stems, slide.rows.tolist(), strict=True):
            own = SlidePatches(slide.name, ((row, row + 1),))
            yield _input(config, index, reader, name, own)


def _file_names(patches: list[Patch], folder: str) -> list[str]:
    """A path for the file of each patch: its name, with the suffix where two have one."""
    members = [PurePosixPath(patch.member.name.replace("\\", "/")) for patch in patches]
    counts = Counter(member.with_suffix("") for member in members)
    names = [
        str(one if counts[one.with_suffix("")] > 1 else one.with_suffix("")) for one in members
    ]
    parts = ([part for part in name.split("/") if part not in ("", ".", "..")] for name in names)
    return ["/".join([*filter(None, [folder]), *each]) for each in parts]


def _input(
    config: SegmentConfig, index: DatasetIndex, reader: PatchReader, name: str, slide: SlidePatches
) -> Input:
    """Patches with one file; one of many that cannot be read is left out, and noted."""
    patches = index.patches(slide.rows)
    _check_pictures(config, patches)
    facts = [
        parse_name(patch.member.name, config.name_pattern, index.location(patch.archive))
        for patch in patches
    ]
    microns = [
        _microns(config, each, patch.member.name)
        for each, patch in zip(facts, patches, strict=True)
    ]
    zooms = [_level0_zoom(config, *each) for each in zip(facts, microns, strict=True)]
    unread: list[str] = []

    def views() -> Iterator[View]:
        for patch, its, zoom in zip(patches, microns, zooms, strict=True):
            try:
                pixels = reader.read_patch(patch)
            except CorruptPatchError as error:
                unread.append(f"{patch.member.name}: {error}")
                if len(unread) == len(patches):
                    raise
                continue
            if patch.coordinates is None:
                yield ImageView(pixels, its, config.scale)
            else:
                yield ImageView(pixels, its, config.scale, patch.coordinates, zoom)

    return Input(name, digest_of(index, slide), len(patches), views, unread)


def _check_pictures(config: SegmentConfig, patches: list[Patch]) -> None:
    """Raise unless patches are pictures by themselves, if such are asked for.

    Raises:
        ConfigError: If they lie somewhere in a slide.
    """
    placed = [patch.member.name for patch in patches if patch.coordinates is not None]
    if config.ome_tiff and placed:
        raise ConfigError(
            f"ome_tiff={config.ome_tiff}: {placed[0]} is a part of a slide, and no picture by "
            f"itself. Segment the slide, with --mpp, or drop --ome-tiff."
        )


def _microns(config: SegmentConfig, facts: NameFacts, name: str) -> float | None:
    """Microns per pixel of an image.

    Raises:
        ConfigError: If they are needed and unknown.
    """
    microns = config.input_scale or facts.mpp
    if microns is None and config.scale is not None:
        raise ConfigError(
            f"{name}: the scale of the image is unknown. "
            f"Give --input-scale in microns per pixel, or drop --scale."
        )
    return microns


def _level0_zoom(config: SegmentConfig, facts: NameFacts, microns: float | None) -> float:
    """Pixels of the slide to one of a patch."""
    if config.level0_scale is not None:
        if microns is None:
            raise ConfigError(
                f"level0_scale={config.level0_scale} would be ignored: the scale of the patches is "
                f"unknown. Give --input-scale as well."
            )
        return microns / config.level0_scale
    if facts.level0_size and facts.size:
        return facts.level0_size / facts.size
    return 1.0


def _state(path: Path, how: str = "") -> str:
    """What tells a file, and how it is read, from others."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror}). Give another.") from error
    facts = f"{os.fspath(path.resolve())} {found.st_size} {found.st_mtime_ns} {how}"
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
