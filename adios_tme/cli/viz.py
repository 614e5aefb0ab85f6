"""``adios-tme viz``."""

from __future__ import annotations

from adios_tme.cli.options import command_group, settings_command
from adios_tme.config.viz import VizCurvesConfig, VizMasksConfig
from adios_tme.files import check_output, writing
from adios_tme.terminal import print_json, tell_left_out, terminal

viz_app = command_group("viz", "Draw masks and curves as PNG or SVG.")


@settings_command(viz_app, "masks", VizMasksConfig)
def masks(config: VizMasksConfig) -> None:
    """Draw the masks of some images."""
    from adios_tme.data.images import load_images
    from adios_tme.data.left_out import LeftOut
    from adios_tme.distributed.world import choose_device
    from adios_tme.pretrained import load_mask_model
    from adios_tme.viz.figure import SUFFIXES
    from adios_tme.viz.masks import plot_masks

    check_output(config.output, SUFFIXES)
    generator = load_mask_model(config.checkpoint, choose_device(config.device))
    left_out = LeftOut()
    images = load_images(config.images, config.num_images, generator.img_size, left_out)
    drawn = generator(images.to(generator.normalise.mean.device))
    with writing(config.output):
        plot_masks(images, drawn, config.output, title=str(config.checkpoint))
    if config.json_output:
        facts = {"output": str(config.output), "num_images": len(images)}
        print_json(facts | {"left_out": left_out.as_json()})
        return
    tell_left_out(left_out.lines())
    terminal().print(f"Wrote {config.output}")


@settings_command(viz_app, "curves", VizCurvesConfig)
def curves(config: VizCurvesConfig) -> None:
    """Draw the curves of runs."""
    from adios_tme.viz.curves import draw_curves
    from adios_tme.viz.figure import SUFFIXES

    check_output(config.output, SUFFIXES)
    with writing(config.output):
        draw_curves(config.runs, config.output)
    terminal().print(f"Wrote {config.output}")
