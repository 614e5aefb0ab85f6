"""Segment all that a user gives, one input after the other, and go on where that was stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from adios_tme.config.commands.segment import SegmentConfig
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.errors import DataError
from adios_tme.files import writing
from adios_tme.inference.segment.blocks import Block, Grid, blocks_of, cores_of
from adios_tme.inference.segment.choose import choose
from adios_tme.inference.segment.files import nuclei_files
from adios_tme.inference.segment.inputs import Input, find_inputs
from adios_tme.inference.segment.nuclei import Chosen, Nucleus, nuclei_by_block
from adios_tme.inference.segment.ome_tiff import SUFFIX, OmeTiff, ome_tiff
from adios_tme.inference.segment.records import (
    Record,
    claim_folder,
    identity_of,
    read_summary,
    write_identity,
    write_summary,
)
from adios_tme.inference.segment.regions import RegionMap
from adios_tme.inference.segment.view import View
from adios_tme.inference.sliding_window import MaskPredictor
from adios_tme.models.sizes import mask_network_sizes
from adios_tme.pretrained import load_mask_model

Progress = Callable[[int, int], None]
Say = Callable[[str], None]

#: Inputs from which channel and threshold are chosen, spread over all.
NUM_SAMPLED = 16


@dataclass
class Done:
    """What a run of the command has done."""

    records: list[Record] = field(default_factory=list)
    """Of all inputs that are finished, in their order."""
    num_kept: int = 0
    """Finished before."""
    faults: list[str] = field(default_factory=list)


def segment_all(
    config: SegmentConfig, device: torch.device, say: Say, on_progress: Progress
) -> Done:
    """Segment every input that is not finished.

    Args:
        config: What, where to, and how.
        device: Where the mask model runs.
        say: Takes lines for the user.
        on_progress: Told what is done and all there is: blocks of a single slide, else inputs.

    Raises:
        ConfigError: If settings do not fit the model, the input or the folder.
        CheckpointError: If there is no mask model.
        DataError: If nothing could be segmented, or a file cannot be written.
    """
    generator = load_mask_model(config.run, device)
    grid = Grid.of(generator.img_size, config.mpp or config.scale or config.input_scale)
    identity = identity_of(config.model_dump(mode="json"), _digest(generator))
    chosen = claim_folder(config.output, identity)
    with writing(config.output):
        config.output.mkdir(parents=True, exist_ok=True)
    inputs, faults = find_inputs(config, grid.step)
    segmenter = _Segmenter(config, grid, MaskPredictor(generator, windows=True))
    if chosen is None:
        chosen = segmenter.choose(inputs, say)
        write_identity(config.output, identity, chosen)
    else:
        say(f"Channel {chosen.channel + 1}, from {chosen.threshold:.3f} on, as before.")
    return segmenter.run(inputs, chosen, faults, on_progress)


class _Segmenter:
    """A mask model with its settings, at work on inputs."""

    def __init__(self, config: SegmentConfig, grid: Grid, predict: MaskPredictor) -> None:
        self._config, self._grid, self._predict = config, grid, predict

    def choose(self, inputs: list[Input], say: Say) -> Chosen:
        """Channel and threshold as the user has said, or from a sample of the inputs."""
        config = self._config
        channel = None if config.channel is None else config.channel - 1
        some = np.unique(np.linspace(0, len(inputs) - 1, NUM_SAMPLED, dtype=int)).tolist()
        views = [inputs[number].views for number in some]
        try:
            found, correlation = choose(views, self._grid, self._predict, channel)
        except CorruptPatchError as error:
            raise DataError(f"{config.input}: {error}. Replace or remove it.") from error
        if config.threshold is not None:
            found = Chosen(found.channel, config.threshold)
        how = (
            "as given"
            if correlation is None
            else f"correlation with haematoxylin {correlation:.2f}"
        )
        level = "as given" if config.threshold is not None else "Otsu"
        say(
            f"Channel {found.channel + 1} is taken for nuclei ({how}), from {found.threshold:.3f} "
            f"on ({level})."
        )
        return found

    def run(
        self, inputs: list[Input], chosen: Chosen, faults: list[str], on_progress: Progress
    ) -> Done:
        """Segment what is not finished."""
        folder, done = self._config.output, Done(faults=faults)
        known = read_summary(folder)
        for number, each in enumerate(inputs):
            record = known.get(each.name)
            if record is not None and record.digest == each.digest and self._is_whole(each):
                done.num_kept += 1
                done.records.append(record)
                continue
            single = on_progress if len(inputs) == 1 else _no_progress
            with writing(folder):
                try:
                    done.records.append(self._segment(each, chosen, single))
                    known[each.name] = done.records[-1]
                    done.faults.extend(f"{each.name}: {fault}" for fault in each.unread)
                    write_summary(folder, known.values())
                except CorruptPatchError as error:
                    done.faults.append(f"{each.name}: {error}")
                except DataError as error:
                    done.faults.append(str(error))
            if len(inputs) > 1:
                on_progress(number + 1, len(inputs))
        if not done.records:
            raise DataError(f"{self._config.input}: nothing was segmented. {' '.join(done.faults)}")
        return done

    def _path(self, each: Input, suffix: str = "") -> Path:
        """A file of an input; that of its features unless another suffix is given."""
        suffix = suffix or (".geojson.gz" if self._config.gzip else ".geojson")
        return self._config.output / f"{each.name}{suffix}"

    def _is_whole(self, each: Input) -> bool:
        has_picture = self._config.ome_tiff is None or self._path(each, SUFFIX).exists()
        return has_picture and self._path(each).exists()

    def _segment(self, each: Input, chosen: Chosen, on_progress: Progress) -> Record:
        """Write the files of an input; the features last, which say that it is finished."""
        path = self._path(each)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = self._path(each, ".csv")
        each.unread.clear()
        area_mm2, microns = 0.0, None
        of_blocks = on_progress if each.num_views == 1 else _no_progress
        with nuclei_files(path, table, each.name) as files:
            for number, view in enumerate(each.views(), start=1):
                microns = view.microns_per_pixel
                area_mm2 += view.area_mm2 or 0.0
                regions = RegionMap(view, chosen) if self._config.regions else None
                with self._picture(each, view, chosen) as picture:
                    for found in self._nuclei(view, chosen, of_blocks, regions, picture):
                        files.add(found)
                if regions is not None:
                    files.features.add(regions.features(each.name))
                if each.num_views > 1:
                    on_progress(number, each.num_views)
        count = files.num_nuclei
        return Record(
            each.name,
            count,
            round(files.area / count, 3) if count else 0.0,
            round(area_mm2, 6) or None,
            round(count / area_mm2, 2) if area_mm2 else None,
            len(each.unread),
            microns,
            each.digest,
        )

    def _picture(
        self, each: Input, view: View, chosen: Chosen
    ) -> AbstractContextManager[OmeTiff | None]:
        """Where the picture of a view is collected, if one is asked for."""
        if self._config.ome_tiff is None:
            return nullcontext()
        num_masks = mask_network_sizes(self._predict.generator.network)["num_masks"]
        path = self._path(each, SUFFIX)
        return ome_tiff(path, self._config.ome_tiff, view, chosen, num_masks)

    def _nuclei(
        self,
        view: View,
        chosen: Chosen,
        on_progress: Progress,
        regions: RegionMap | None,
        picture: OmeTiff | None,
    ) -> Iterator[list[Nucleus]]:
        """The nuclei of a view, block by block, while its regions and its picture are taken in."""
        cores = cores_of(view, self._grid)
        blocks = blocks_of(view, cores, self._grid, self._predict)

        def take(block: Block, found: list[Nucleus]) -> None:
            if regions is not None:
                regions.add(block)
            if picture is not None:
                picture.add(block, found)

        for number, found in enumerate(nuclei_by_block(blocks, view, chosen, take), start=1):
            yield found
            on_progress(number, len(cores))


def _no_progress(done: int, total: int) -> None:
    """Nobody looks."""


def _digest(generator: torch.nn.Module) -> str:
    """What tells the weights of a model from others."""
    digest = hashlib.sha256()
    for name, weight in generator.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
