"""Which settings keep a channel on the nuclei: the demo's training over several seeds.

    python docs/benchmarks/stability.py tissue results.jsonl --steps 160 --seeds 0 1 2

A line a run: IoU of the fixed channel every twenty updates, of the weights and of moving averages.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from adios_tme.benchmark.nuclei.during_training import evaluator
from adios_tme.config.load import build
from adios_tme.config.train import DEMO, TrainConfig
from adios_tme.data.index_builder import open_indexes, open_or_build
from adios_tme.data.synthetic import SamplePaths, write_sample
from adios_tme.distributed.world import World
from adios_tme.models.ema import MovingAverage
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.training.feed import Feed
from adios_tme.training.state import Run
from adios_tme.training.step import train_step

#: The demo's training without decay, as most of a long run is: sizes for a few minutes on a core.
BASE: dict[str, Any] = {
    "data": {"img_size": 48, "num_workers": 0, "batch_size_per_gpu": 12},
    "optim": {"min_lr": 1e-3},
}
#: What each variant changes.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "decay": {"optim": {"min_lr": 1e-6}},
    "lr 3e-4": {"optim": {"lr": 3e-4, "min_lr": 3e-4}},
    "alpha 0.1": {"loss": {"alpha_sparsity": 0.1}},
    "alpha 2": {"loss": {"alpha_sparsity": 2.0}},
    "sinh_squared": {"loss": {"sparsity_penalty_type": "sinh_squared"}},
    "mask lr ratio 0.1": {"optim": {"mask_lr_ratio": 0.1}},
    "mask lr ratio 1": {"optim": {"mask_lr_ratio": 1.0}},
    "mask update freq 4": {"mask": {"mask_update_freq": 4}},
    "temperature 0.1": {"loss": {"initial_temp": 0.1, "final_temp": 0.1}},
    "temperature 0.5": {"loss": {"initial_temp": 0.5, "final_temp": 0.5}},
    "alpha 2, ratio 0.25, decay": {
        "loss": {"alpha_sparsity": 2.0},
        "optim": {"mask_lr_ratio": 0.25, "min_lr": 1e-6},
    },
}
DECAYS = (0.9, 0.99)
EVERY = 20
NUM_LABELLED = 24


def main() -> None:
    """Train every variant with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tissue", type=Path, help="generated tissue; rendered when missing")
    parser.add_argument("results", type=Path, help="JSON lines, added to")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    paths = SamplePaths(asked.tissue / "patches", asked.tissue / "nuclei")
    if not asked.tissue.exists():
        write_sample(
            asked.tissue, num_slides=12, patches_per_slide=96, size_px=64, num_labelled=48, seed=42
        )
    for seed in asked.seeds:
        for variant in asked.variants:
            line = train_variant(variant, seed, asked.steps, paths)
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def train_variant(variant: str, seed: int, steps: int, paths: SamplePaths) -> dict[str, Any]:
    """Train one variant and follow its masks."""
    start = time.perf_counter()
    here = {
        "data": {"data_path": paths.patches},
        "run": {"seed": seed, "output_dir": paths.patches},
        "optim": {"total_iterations": steps},
        "watch": {"eval_labels": paths.nuclei, "eval_images": NUM_LABELLED},
    }
    config = build(TrainConfig, DEMO, BASE, here, VARIANTS[variant], {"demo": False})
    evaluate = evaluator(config.watch)
    assert evaluate is not None
    world = World(0, 1, 0, 1, torch.device("cpu"))
    run = Run.build(config, world)
    averages = {decay: MovingAverage(run.bare_mask_model, decay) for decay in DECAYS}
    networks = {"weights": run.bare_mask_model}
    networks |= {f"average {decay}": average.network for decay, average in averages.items()}
    curves: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    open_or_build(config.data, config.run.output_dir)
    index = open_indexes(config.data, config.run.output_dir)
    batch_size = run.batches.images_per_pass
    with Feed(config.data, config.run, world, index, batch_size, first_sample=0) as feed:
        for fed in feed:
            if run.is_finished:
                break
            now = run.schedule()
            train_step(run, fed.images, now, fed.clean)
            if now.mask_is_due:
                for average in averages.values():
                    average.update(run.bare_mask_model)
            run.advance()
            if run.iteration % EVERY == 0:
                for name, network in networks.items():
                    generator = MaskGenerator(
                        network, config.data.img_size, config.data.mean, config.data.std
                    )
                    training = network.training
                    curves[name].append(evaluate(generator.eval()))
                    network.train(training)
    seconds = time.perf_counter() - start
    return {"variant": variant, "seed": seed, "steps": steps, "seconds": seconds, "curves": curves}


if __name__ == "__main__":
    main()
