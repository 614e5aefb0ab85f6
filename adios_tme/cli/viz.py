"""``adios-tme viz``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adios_tme.cli.options import command_group, settings_command
from adios_tme.config.commands.viz import (
    VizCurvesConfig,
    VizFeaturesConfig,
    VizMasksConfig,
    VizReportConfig,
)
from adios_tme.files import check_output, writing
from adios_tme.terminal import print_json, progress_bar, tell_left_out, terminal

if TYPE_CHECKING:
    from adios_tme.data.left_out import LeftOut
    from adios_tme.viz.report.embedded import Embedded

#: Images whose features a report shows.
NUM_SHOWN = 6

viz_app = command_group("viz", "Draw masks, curves and features, and write reports of runs.")


@settings_command(viz_app, "masks", VizMasksConfig)
def masks(config: VizMasksConfig) -> None:
    """Draw the masks of some images."""
    from adios_tme.data.gallery import read_gallery
    from adios_tme.data.left_out import LeftOut
    from adios_tme.distributed.world import choose_device
    from adios_tme.pretrained import load_mask_model
    from adios_tme.viz.figure import SUFFIXES
    from adios_tme.viz.masks import plot_masks

    check_output(config.output, SUFFIXES)
    generator = load_mask_model(config.checkpoint, choose_device(config.device))
    left_out = LeftOut()
    with progress_bar("Reading images") as on_progress:
        gallery = read_gallery(
            config.images,
            config.num_images,
            generator.img_size,
            left_out,
            on_progress,
            config.slides,
        )
    images = gallery.images
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


@settings_command(viz_app, "features", VizFeaturesConfig)
def features(config: VizFeaturesConfig) -> None:
    """Draw the features of some images."""
    from adios_tme.data.gallery import read_gallery
    from adios_tme.data.left_out import LeftOut
    from adios_tme.distributed.world import choose_device
    from adios_tme.models.layers import Normalise
    from adios_tme.models.student import as_vit
    from adios_tme.pretrained import load_encoder_for_scoring
    from adios_tme.viz.embedding_map import embedding_map, map_figure, require_map
    from adios_tme.viz.features import draw_features
    from adios_tme.viz.figure import SUFFIXES, save_figure

    written = [config.output, *([config.map_path] if config.map else [])]
    for path in written:
        check_output(path, SUFFIXES)
    if config.map:
        require_map(config.map)
    device = choose_device(config.device)
    trained = load_encoder_for_scoring(config.checkpoint, device)
    encoder = as_vit(trained.encoder, "viz features")
    normalise, left_out = Normalise(trained.mean, trained.std).to(device), LeftOut()
    needs_many = bool(config.map or config.neighbours)
    num_read = max(config.gallery, config.num_images) if needs_many else config.num_images
    with progress_bar("Reading images") as on_progress:
        gallery = read_gallery(
            config.images, num_read, trained.img_size, left_out, on_progress, config.slides
        )
    drawn = draw_features(
        encoder,
        normalise,
        gallery.images,
        config.num_images,
        title=str(config.checkpoint),
        foreground=config.foreground,
        num_neighbours=config.neighbours,
        with_classes=config.map is not None,
    )
    figures = [drawn.figure]
    if config.map and drawn.classes is not None:
        places = embedding_map(drawn.classes, config.map)
        groups = gallery.slides if config.colour_by == "slide" else gallery.classes
        figures.append(map_figure(places, groups, str(config.checkpoint)))
    for figure, path in zip(figures, written, strict=True):
        with writing(path):
            save_figure(figure, path)
    if config.json_output:
        facts = {"output": [str(path) for path in written], "num_images": len(gallery.images)}
        facts |= {"explained_variance": drawn.explained, "left_out": left_out.as_json()}
        print_json(facts)
        return
    tell_left_out(left_out.lines())
    for path in written:
        terminal().print(f"Wrote {path}")


@settings_command(viz_app, "report", VizReportConfig)
def report(config: VizReportConfig) -> None:
    """Write the report of one or several runs."""
    from adios_tme.data.left_out import LeftOut
    from adios_tme.viz.report.page import SUFFIXES, report_path, write_report

    output = config.output or report_path(config.runs)
    check_output(output, SUFFIXES)
    left_out = LeftOut()
    features = _feature_pictures(config, left_out) if config.images else []
    with writing(output):
        write_report(config.runs, output, config.nuclei, config.probe, features)
    tell_left_out(left_out.lines())
    terminal().print(f"Wrote {output}")


def _feature_pictures(config: VizReportConfig, left_out: LeftOut) -> list[Embedded]:
    """A picture of the same images for each run; what is no image is counted once."""
    from adios_tme.data.gallery import read_gallery
    from adios_tme.data.left_out import LeftOut
    from adios_tme.distributed.world import choose_device
    from adios_tme.models.layers import Normalise
    from adios_tme.models.student import as_vit
    from adios_tme.pretrained import load_encoder_for_scoring
    from adios_tme.viz.features import draw_features
    from adios_tme.viz.report.embedded import embed_figure

    assert config.images is not None
    device, pictures, account = choose_device(config.device), [], left_out
    for run in config.runs:
        trained = load_encoder_for_scoring(run, device)
        normalise = Normalise(trained.mean, trained.std).to(device)
        images = read_gallery(
            config.images, NUM_SHOWN, trained.img_size, account, tiles=config.slides
        ).images
        account = LeftOut()  # the next run is shown the same images
        encoder = as_vit(trained.encoder, "viz report --images")
        drawn = draw_features(encoder, normalise, images, NUM_SHOWN)
        pictures.append(embed_figure(drawn.figure))
    return pictures
