"""What is timed: blocks of a slide from reading to files, and the mask model alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adios_tme.config.commands.segment import SegmentSpeedConfig
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.segment.blocks import Grid, blocks_of, cores_of
from adios_tme.inference.segment.choose import choose
from adios_tme.inference.segment.files import NucleiFiles, nuclei_files
from adios_tme.inference.segment.inputs import find_inputs
from adios_tme.inference.segment.nuclei import Chosen, nuclei_by_block
from adios_tme.inference.segment.view import Box, View
from adios_tme.inference.sliding_window import MaskPredictor
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.windows import window_starts, windows_at_once
from adios_tme.pretrained import load_mask_model


@dataclass(frozen=True)
class Bench:
    """A mask model, a slide, and some of its blocks."""

    generator: MaskGenerator
    grid: Grid
    view: View
    cores: list[Box]
    """Of the blocks that are segmented."""
    num_cores_of_slide: int
    chosen: Chosen
    device: torch.device

    @classmethod
    def open(cls, config: SegmentSpeedConfig, device: torch.device) -> Bench:
        """Load the model, open the slide, and choose as the command does.

        Raises:
            ConfigError: If settings do not fit the model or the slide.
            CheckpointError: If there is no mask model.
            DataError: If the slide cannot be read, or has no tissue.
        """
        if not config.slide.exists():
            raise ConfigError(f"slide: {config.slide} does not exist. Give a whole slide.")
        generator = load_mask_model(config.run, device)
        grid = Grid.of(generator.img_size, config.mpp)
        inputs, _ = find_inputs(config.segment, grid.step)
        if len(inputs) > 1:
            raise ConfigError(
                f"slide: {config.slide} holds {len(inputs)} slides. Give one of them."
            )
        predict = MaskPredictor(generator, windows=True)
        channel = None if config.channel is None else config.channel - 1
        try:
            view = next(inputs[0].views())
            chosen, _ = choose([lambda: iter([view])], grid, predict, channel)
        except CorruptPatchError as error:
            raise DataError(f"{config.slide}: {error}. Give another slide.") from error
        if config.threshold is not None:
            chosen = Chosen(chosen.channel, config.threshold)
        cores = cores_of(view, grid)
        some = np.unique(np.linspace(0, len(cores) - 1, config.num_blocks).astype(int))
        return cls(generator, grid, view, [cores[n] for n in some], len(cores), chosen, device)

    @property
    def predict(self) -> MaskPredictor:
        """As the command looks at a block."""
        return MaskPredictor(self.generator, windows=True)

    @contextmanager
    def files(self) -> Iterator[NucleiFiles]:
        """New files in a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
            place = Path(folder)
            with nuclei_files(place / "slide.geojson", place / "slide.csv", "slide") as files:
                yield files

    def segment(self) -> int:
        """As the command does, from reading to files; the number of nuclei."""
        blocks = blocks_of(self.view, self.cores, self.grid, self.predict)
        with self.files() as files:
            for found in nuclei_by_block(blocks, self.view, self.chosen):
                files.add(found)
        return files.num_nuclei

    def model_alone(self, batches: Counter[int]) -> Callable[[], None]:
        """The mask model on random images that are on the device already.

        Args:
            batches: How many of each size.
        """
        side = self.generator.img_size
        images = torch.rand(max(batches), 3, side, side).to(self.device)

        def run() -> None:
            for size, count in batches.items():
                for _ in range(count):
                    self.generator(images[:size])
            self.wait()

        return run

    def batches(self) -> Counter[int]:
        """How many batches of each size the model is shown."""
        side, sizes = self.generator.img_size, Counter[int]()
        num_at_once = windows_at_once(self.device)

        def count(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            down, across = (len(window_starts(length, side)) for length in pixels.shape[:2])
            full, rest = divmod(down * across, num_at_once)
            sizes.update({num_at_once: full, rest: 1})
            return np.zeros((1, *pixels.shape[:2]), np.float32)

        for _ in blocks_of(self.view, self.cores, self.grid, count):
            pass
        return Counter({size: number for size, number in sizes.items() if size and number})

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
