"""``adios-tme sample``."""

from __future__ import annotations

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.commands.sample import SampleConfig
from adios_tme.files import writing
from adios_tme.terminal import command, progress_bar, terminal

sample_app = typer.Typer()


@settings_command(sample_app, "sample", SampleConfig)
def sample(config: SampleConfig) -> None:
    """Write generated tissue, and say how it is used."""
    if config.slide:
        _slide(config)
        return
    from adios_tme.data.synthetic import write_sample

    with writing(config.out), progress_bar("Rendering") as on_progress:
        paths = write_sample(
            config.out,
            num_slides=config.num_slides,
            patches_per_slide=config.patches_per_slide,
            size_px=config.size_px,
            num_labelled=config.num_labelled,
            seed=config.seed,
            on_progress=on_progress,
        )
    console = terminal()
    size = () if config.size_px == 448 else ("--patch-size-px", config.size_px)
    console.print(f"Train on it: {command('train', '--data-path', paths.patches, *size)}")
    console.print(f"Score masks: {command('benchmark', 'nuclei', 'RUN', '--labels', paths.nuclei)}")


def _slide(config: SampleConfig) -> None:
    from adios_tme.data.synthetic import check_empty
    from adios_tme.data.synthetic_slide import write_slide

    check_empty(config.out)
    path = config.out / "slides" / "slide_001.tif"
    with writing(path), progress_bar("Rendering") as on_progress:
        table = write_slide(path, config.slide_size_px, config.seed, on_progress)
    console = terminal()
    console.print(f"True nuclei: {table}")
    words = ("train", "--data-path", path.parent, "--mpp", 0.25)
    console.print(f"Train on it: {command(*words)}")
