"""Train the arms of a study with several seeds, score them, and draw what came out.

    python docs/studies/study.py masks-and-otsu train --patches cuts --nuclei nuclei --output out
    python docs/studies/study.py masks-and-otsu draw --output out

``train`` adds a line a run, set and protocol to ``out/NAME.jsonl``; runs that are there stay.
``draw`` makes the tables and the figure of that file. Everything goes through the commands that a
user has, so an arm is a line of flags.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

#: Of the nuclei benchmark: folder below ``--nuclei``, its flags, and microns per pixel.
SETS = {
    "folder": ["--labels", "folder", "--label-scale", "0.25"],
    "pannuke": ["--pannuke", "pannuke"],
    "monuseg": ["--monuseg", "monuseg"],
}
#: Networks and schedule of every arm; the scale is that of patches of 0.25 microns a pixel.
BASE = ["--preset", "laptop", "--patch-size-px", "112", "--save-freq", "100"]
SCALE = "0.4375"
PROTOCOLS = ("fixed_cleaned", "no_labels_cleaned", "no_labels_by_area", "no_labels_with_stain")
SCORES = ("iou", "aji", "pq")
OTSU = "cleaned Otsu"

Key = tuple[str, str, str]
"""Set, arm, protocol."""


class Study(NamedTuple):
    """Arms by name, each a line of flags."""

    arms: dict[str, str]
    updates: int
    probes: bool = False


STUDIES = {
    "masks-and-otsu": Study(
        {
            "laptop": "",
            "edges, consistency, mean fill": "--edge-weight 1 --consistency-weight 1 --fill mean",
            "reconstruction 2": "--reconstruction-weight 2",
            "stain 1": "--stain-weight 1",
            "stain 10": "--stain-weight 10",
            "stain 100": "--stain-weight 100",
            "stain 10, stain augmentation": "--stain-weight 10 --augment full",
            "stain 10, edges, consistency": (
                "--stain-weight 10 --edge-weight 1 --consistency-weight 1"
            ),
            "stain 10, weak areas": "--stain-weight 10 --alpha-sparsity 0.2",
        },
        updates=300,
    ),
    "family": Study(
        {
            "simclr": "",
            "random masks": "--mask-source random",
            "no masks": "--mask-source none --crops-per-mask 1",
            "adios_s": "--variant adios_s",
            "byol": "--objective byol",
            "simsiam": "--objective simsiam",
            "vit_unet": "--mask-model-type vit_unet --mask-decoder-width 64",
        },
        updates=200,
        probes=True,
    ),
}


def main() -> None:
    """Train or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("what", choices=["train", "draw"])
    parser.add_argument("--patches", type=Path, help="what to train on")
    parser.add_argument("--nuclei", type=Path, help="folder with folder/, pannuke/ and monuseg/")
    parser.add_argument("--classes", type=Path, help="folder of classes, for the probe")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", help="some of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    results = asked.output / f"{asked.study}.jsonl"
    if asked.what == "draw":
        draw(read(results), results.with_suffix(".png"))
        return
    study = STUDIES[asked.study]
    for seed in asked.seeds:
        for arm in asked.arms or study.arms:
            add(results, run(study, arm, seed, asked))


def run(study: Study, arm: str, seed: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and score one arm with one seed."""
    output = asked.output / asked.study / f"{arm.replace(', ', '-').replace(' ', '-')}-s{seed}"
    flags = [*BASE, *study.arms[arm].split(), "--total-iterations", str(study.updates)]
    call("train", "--data-path", asked.patches, "--output-dir", output, "--seed", seed, *flags)
    key = {"study": asked.study, "arm": arm, "seed": seed}
    lines = []
    has_masks = "--mask-source" not in flags
    for name in SETS if has_masks else ():
        lines += [key | line for line in nuclei(output, asked.nuclei, name)]
    if study.probes:
        lines += [key | line for line in probe(output, asked.classes)]
    return lines


def nuclei(run_folder: Path, labels: Path, name: str) -> Iterator[dict[str, Any]]:
    """Means and paired differences of the last checkpoint on one set."""
    kind, place, *flags = SETS[name]
    where = run_folder / f"s_{name}"
    call(
        *("benchmark", "nuclei", run_folder, kind, labels / place, *flags),
        *("--scale", SCALE, "--output", where),
    )
    found = json.loads((where / "nuclei_benchmark.json").read_text(encoding="utf-8"))
    last = found["checkpoints"][-1]
    for protocol in PROTOCOLS:
        yield {
            "set": name,
            "protocol": protocol,
            "iteration": last["iteration"],
            "scores": {score: last[protocol][score]["mean"] for score in SCORES},
            "difference": last["differences"][protocol],
            "last_minus_best": found["course"][protocol]["last_minus_best"],
        }
    rival = found["baselines"]["otsu_haematoxylin_cleaned"]["no_labels"]
    yield {
        "set": name,
        "protocol": OTSU,
        "scores": {score: rival[score]["mean"] for score in SCORES},
    }


def probe(run_folder: Path, classes: Path) -> Iterator[dict[str, Any]]:
    """Balanced accuracy of the last checkpoint's encoder, and of what it is compared with."""
    where = run_folder / "probe"
    call("benchmark", "probe", run_folder, "--train", classes, "--output", where)
    found = json.loads((where / "probe_benchmark.json").read_text(encoding="utf-8"))
    yield {"set": classes.name, "protocol": "probe", "scores": found}


def call(*words: object) -> None:
    """Call the command, as a user would."""
    subprocess.run([sys.executable, "-m", "adios_tme", *map(str, words)], check=True)


def add(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add lines, in the place of those of the same run that are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = {(line["arm"], line["seed"]) for line in lines}
    kept = [line for line in read(path) if (line["arm"], line["seed"]) not in runs]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept + lines), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw each arm's seeds beside cleaned Otsu, set by set, and write the tables of the page."""
    found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        found[line["set"], line["arm"], line["protocol"]].append(line)
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    figure = Figure(figsize=(11, 0.6 * len(arms) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(SETS), sharey=True)
    for ax, name in zip(axes, SETS, strict=True):
        ax.axvline(_mean(found[name, arms[0], OTSU], "iou"), color="0.4", ls="--", label=OTSU)
        for number, protocol in enumerate(PROTOCOLS):
            points = [
                (line["scores"]["iou"], row + 0.15 * (number - 1.5))
                for row, arm in enumerate(arms)
                for line in found[name, arm, protocol]
            ]
            if points:
                ax.plot(*np.transpose(points), "o", ms=4, color=f"C{number}", label=protocol)
        ax.set(title=name, xlabel="IoU", yticks=range(len(arms)), yticklabels=arms)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=100)
    for name, rows in (("means", _means), ("differences", _differences)):
        text = "\n".join(rows(found, arms)) + "\n"
        path.with_suffix(f".{name}.md").write_text(text, encoding="utf-8")


def _means(found: Mapping[Key, list[dict[str, Any]]], arms: list[str]) -> Iterator[str]:
    """IoU / AJI / PQ, mean over seeds."""
    yield "| arm | seeds | protocol | " + " | ".join(SETS) + " |"
    yield "|---|---|---|" + "---|" * len(SETS)
    for arm, protocol in [(arms[0], OTSU), *itertools.product(arms, PROTOCOLS)]:
        runs = [found[name, arm, protocol] for name in SETS]
        if all(runs):
            cells = [" / ".join(f"{_mean(each, score):.3f}" for score in SCORES) for each in runs]
            name, seeds = ("", "") if protocol == OTSU else (arm, str(len(runs[0])))
            yield f"| {name} | {seeds} | {protocol} | " + " | ".join(cells) + " |"


def _differences(found: Mapping[Key, list[dict[str, Any]]], arms: list[str]) -> Iterator[str]:
    """What mask and stain together have over the strongest cleaned baseline, image by image."""
    yield "| arm | seed | set | IoU | AJI | PQ |"
    yield "|---|---|---|---|---|---|"
    for arm, name in itertools.product(arms, SETS):
        for line in found[name, arm, "no_labels_with_stain"]:
            cells = [
                f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
                for apart in (line["difference"][score] for score in SCORES)
            ]
            yield f"| {arm} | {line['seed']} | {name} | " + " | ".join(cells) + " |"


def _mean(runs: list[dict[str, Any]], score: str) -> float:
    return float(np.mean([line["scores"][score] for line in runs]))


if __name__ == "__main__":
    main()
