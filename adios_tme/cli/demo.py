"""``adios-tme train --demo``: tissue, training, pictures and scores in one go."""

from __future__ import annotations

import shutil
from pathlib import Path

from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.config.load import build
from adios_tme.config.train import TrainConfig
from adios_tme.files import writing
from adios_tme.run_folder.layout import (
    DEMO_CURVES,
    DEMO_MASKS,
    NUCLEI,
    PARTIAL_TISSUE,
    REPORT,
    TISSUE,
    clear_run,
)
from adios_tme.terminal import progress_bar, terminal

NUM_SLIDES = 12
PATCHES_PER_SLIDE = 96
NUM_LABELLED = 48
#: At this scale nuclei of the generated tissue, 9 px wide, are as wide as real ones.
MICRONS_PER_PIXEL = 0.7


def run_demo(config: TrainConfig) -> None:
    """Generate tissue, train on it, draw, score, and say what the numbers mean."""
    import torch

    from adios_tme.benchmark.nuclei.report import no_labels_table, results_table, write_report
    from adios_tme.benchmark.nuclei.run import score_run
    from adios_tme.benchmark.nuclei.verdict import summary
    from adios_tme.data.gallery import read_gallery
    from adios_tme.data.left_out import LeftOut
    from adios_tme.data.synthetic import SamplePaths
    from adios_tme.launch.local import train
    from adios_tme.pretrained import load_mask_model
    from adios_tme.run_folder.lock import RunLock, owner_of_this_run
    from adios_tme.training.loop import write_run_report
    from adios_tme.viz.curves import draw_curves
    from adios_tme.viz.masks import plot_masks

    console = terminal()
    folder = config.run.output_dir
    rendered, scores = folder / TISSUE, folder / NUCLEI
    masks, curves = folder / DEMO_MASKS, folder / DEMO_CURVES
    tissue = SamplePaths(rendered / "patches", rendered / "nuclei")
    with RunLock(folder, owner_of_this_run()), writing(rendered):
        if config.run.overwrite:
            clear_run(folder)  # now, and not once the new tissue is there
        if not rendered.exists():
            _render(rendered, config.data.patches.patch_size_px, config.run.seed)
    console.print(f"1/4 Tissue to train on, with true nuclei to score against: {rendered}")
    console.print("2/4 Training two networks against each other, without labels")
    flat = config.model_dump()
    flat["demo"], flat["data"]["data_path"] = False, [str(tissue.patches)]
    flat["run"]["overwrite"] = False
    checkpoint = train(build(TrainConfig, flat))

    console.print("3/4 Drawing")
    generator = load_mask_model(checkpoint)
    images = read_gallery(tissue.nuclei / "images", 6, generator.img_size, LeftOut()).images
    with writing(folder):
        plot_masks(images, generator(images), masks, "Masks learnt without labels")
        draw_curves([folder], curves)

    with progress_bar("4/4 Scoring") as on_progress:
        scored = NucleiConfig(
            run=folder, labels=tissue.nuclei, output=scores, label_scale=MICRONS_PER_PIXEL
        )
        results = score_run(scored, on_progress=on_progress)
    write_report(results, scores)
    if config.run.report:
        write_run_report(folder)  # again, now with the scores
    console.print(results_table(results))
    console.print(no_labels_table(results))
    console.print(summary(results))
    newest = results.newest.scores
    margin = newest.fixed_iou - newest.random_channel_iou
    console.print(f"Margin of the fixed channel over a random one: {margin:+.3f} IoU.")
    console.print(
        "IoU is the overlap of a mask with the true nuclei, from 0 to 1; AJI and PQ compare "
        "nucleus by nucleus. The fixed channel was chosen with the labels of other images than it "
        "is scored on; without labels it is the one that goes with the haematoxylin. The oracle "
        "looks at the labels of each image, so it only says what the channels could do. Masks and "
        "Otsu are cleaned by the same steps. Otsu is strong here because the generated stain is "
        "clean; on real tissue, too, cleaned Otsu is what masks have to be compared with."
    )
    for what, path in (
        ("Masks", masks),
        ("Curves", curves),
        ("Scores", scores / "nuclei_benchmark.json"),
        ("Checkpoint", checkpoint),
        *([("Report", folder / REPORT)] if config.run.report else []),
    ):
        console.print(f"{what + ':':<12}{path}")
    preset = "single-gpu" if torch.cuda.is_available() else "laptop"
    console.print(
        f"Next, on your own patches: adios-tme train --preset {preset} --data-path PATCHES "
        f"--output-dir run"
    )


def _render(folder: Path, size_px: int, seed: int) -> None:
    """Write the tissue to train on; the folder is whole or absent."""
    from adios_tme.data.synthetic import write_sample

    partial = folder.with_name(PARTIAL_TISSUE)
    shutil.rmtree(partial, ignore_errors=True)  # of a demo that was interrupted
    with progress_bar("1/4 Rendering tissue") as on_progress:
        write_sample(
            partial,
            num_slides=NUM_SLIDES,
            patches_per_slide=PATCHES_PER_SLIDE,
            size_px=size_px,
            num_labelled=NUM_LABELLED,
            seed=seed,
            on_progress=on_progress,
        )
    partial.rename(folder)
