"""Train the arms of a study with several seeds, score them, and draw what came out.

    python docs/studies/study.py masks-and-otsu train --patches cuts --nuclei nuclei --output out
    python docs/studies/study.py masks-and-otsu draw --output out
    adios-tme sample generated --size-px 64
    python docs/studies/study.py family train --patches cuts --nuclei nuclei \
        --classes camelyon16_lymphnode --generated generated --output out
    python docs/studies/study.py family draw --output out

``train`` adds a line a run, set and protocol to ``out/NAME.jsonl``; runs that are there already are
not made again.
``draw`` makes the tables and the figure of that file. Everything goes through the commands that a
user has, so an arm is a line of flags.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import drawing

#: Networks and schedule of every arm.
BASE = ["--preset", "laptop"]
#: A prior, and a weak penalty on areas.
PRIOR = "--stain-weight 10 --alpha-sparsity 0.2"
#: With strong colours, as the preset `stain-prior` has it.
COLOURS = f"{PRIOR} --augment full --augment-colour 0.4"
#: A student that is a ViT-U-Net's encoder, and that mask model.
WIDE = "--embed-dim 128 --num-heads 2"
VIT_UNET = (
    "--mask-model-type vit_unet --mask-encoder-dim 128 --mask-encoder-depth 4 "
    "--mask-decoder-width 64 --mask-dropout 0"
)


class Tissue(NamedTuple):
    """What is trained on, and the labelled images that come with it.

    Words in capitals in front of a path stand for the script's own flags.
    """

    patches: list[str]
    sets: dict[str, list[str]]
    """Of the nuclei benchmark, by name."""
    scale: str
    """Of the patches as the networks see them, in microns per pixel."""
    classes: list[str]
    """For the probe."""


FOLDER = ["--labels", "NUCLEI/folder", "--label-scale", "0.25"]
PANNUKE = ["--pannuke", "NUCLEI/pannuke"]
MONUSEG = ["--monuseg", "NUCLEI/monuseg"]
GENERATED = ["--labels", "GENERATED/nuclei", "--label-scale", "0.25"]
CUTS = ["--data-path", "PATCHES", "--patch-size-px", "112"]
DRAWN = ["--data-path", "GENERATED/patches", "--patch-size-px", "64"]


class Study(NamedTuple):
    """Arms by name, each a line of flags, on one kind of tissue or several.

    A line may begin a path with the word OUTPUT, for the run of an arm before it.
    """

    arms: dict[str, str]
    tissues: dict[str, Tissue]
    updates: int


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
            "stain 10, weak areas": PRIOR,
            "weak areas, 900 updates": f"{PRIOR} --total-iterations 900 --save-freq 150",
            "weak areas, colours": COLOURS,
            "weak areas, colours, wide student": f"{COLOURS} {WIDE}",
            "weak areas, colours, vit_unet": f"{COLOURS} {WIDE} {VIT_UNET}",
            "weak areas, colours, vit_unet from student": (
                f"{COLOURS} {WIDE} {VIT_UNET} --mask-encoder-checkpoint "
                "OUTPUT/masks-and-otsu/real-weak-areas-colours-wide-student-s0"
            ),
            "weak areas, prior until 0.3": f"{PRIOR} --stain-until 0.3",
        },
        {
            "real": Tissue(
                CUTS, {"folder": FOLDER, "pannuke": PANNUKE, "monuseg": MONUSEG}, "0.4375", []
            )
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
            "simclr, crops": "--crops-per-mask 1",
            "two views": "--views two --augment full --augment-colour 0.4",
            "vit_unet, 64": "--mask-model-type vit_unet --mask-decoder-width 64",
            "vit_unet, 256": "--mask-model-type vit_unet --mask-decoder-width 256",
        },
        {
            "generated": Tissue(DRAWN, {"generated": GENERATED}, "0.25", []),
            "real": Tissue(CUTS, {"folder": FOLDER}, "0.4375", ["CLASSES/tissue_source_4class"]),
        },
        updates=100,
    ),
}


def main() -> None:
    """Train or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("what", choices=["train", "draw"])
    parser.add_argument("--patches", type=Path, help="real ones to train on")
    parser.add_argument("--nuclei", type=Path, help="folder with folder/, pannuke/ and monuseg/")
    parser.add_argument("--classes", type=Path, help="folder of folders of classes, for the probe")
    parser.add_argument("--generated", type=Path, help="what `adios-tme sample` wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tissues", nargs="+", help="some of them")
    parser.add_argument("--arms", nargs="+", help="some of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    results = asked.output / f"{asked.study}.jsonl"
    study = STUDIES[asked.study]
    if asked.what == "draw":
        drawing.draw(asked.study, read(results), study.arms, results.with_suffix(".png"))
        return
    tissues, arms = asked.tissues or study.tissues, asked.arms or study.arms
    for seed, tissue, arm in itertools.product(asked.seeds, tissues, arms):
        key = {"study": asked.study, "tissue": tissue, "arm": arm, "seed": seed}
        if not any(key.items() <= line.items() for line in read(results)):
            add(results, [key | line for line in run(study, tissue, arm, seed, asked)])


def run(
    study: Study, tissue: str, arm: str, seed: int, asked: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train one arm with one seed and score it, unless there is nothing to score."""
    what, name = study.tissues[tissue], f"{tissue}-{arm}-s{seed}".replace(", ", "-")
    output = asked.output / asked.study / name.replace(" ", "-")
    length = ["--total-iterations", str(study.updates), "--save-freq", "100"]
    flags = [*BASE, *length, *placed([*what.patches, *study.arms[arm].split()], asked)]
    has_masks = "--mask-source" not in flags
    if not has_masks and not what.classes:
        return []
    call("train", "--output-dir", output, "--seed", seed, *flags)
    lines = [
        line
        for labels, place in what.sets.items()
        if has_masks
        for line in nuclei(output, labels, placed(place, asked), what.scale)
    ]
    return lines + list(probe(output, placed(what.classes, asked)))


def placed(words: list[str], asked: argparse.Namespace) -> list[str]:
    """Paths in place of the words that stand for them."""
    places = {name.upper(): str(value) for name, value in vars(asked).items()}
    heads = (word.partition("/") for word in words)
    return [places.get(head, head) + slash + rest for head, slash, rest in heads]


def nuclei(run_folder: Path, name: str, labels: list[str], scale: str) -> Iterator[dict[str, Any]]:
    """Means and paired differences of the last checkpoint on one set.

    Beside them the checkpoint that would have been kept without a label: the one whose mask goes
    with the haematoxylin of these images most.
    """
    where = run_folder / f"s_{name}"
    call("benchmark", "nuclei", run_folder, *labels, "--scale", scale, "--output", where)
    found = json.loads((where / "nuclei_benchmark.json").read_text(encoding="utf-8"))
    last = found["checkpoints"][-1]
    kept = max(found["checkpoints"], key=correlation)
    for protocol in drawing.PROTOCOLS:
        yield {
            "set": name,
            "protocol": protocol,
            "iteration": last["iteration"],
            "scores": means(last[protocol]),
            "difference": last["differences"][protocol],
            "last_minus_best": found["course"][protocol]["last_minus_best"],
            "kept": {"iteration": kept["iteration"], "scores": means(kept[protocol])},
        }
    rival = found["baselines"]["otsu_haematoxylin_cleaned"]["no_labels"]
    yield {
        "set": name,
        "protocol": drawing.OTSU,
        "scores": means(rival),
    }


def means(scores: dict[str, Any]) -> dict[str, float]:
    """Over images, of the scores that are drawn."""
    return {score: scores[score]["mean"] for score in drawing.SCORES}


def correlation(checkpoint: dict[str, Any]) -> float:
    """Of the mask that was chosen without a label with the haematoxylin."""
    return float(max(checkpoint["no_labels_choice"]["correlation"]))


def probe(run_folder: Path, classes: list[str]) -> Iterator[dict[str, Any]]:
    """Scores of the last checkpoint's encoder, and of what needs no training, on each set."""
    if not classes:
        return
    where = run_folder / "probe"
    sets = [word for name in classes for word in ("--train", name)]
    call("benchmark", "probe", run_folder, *sets, "--output", where)
    for found in json.loads((where / "probe.json").read_text(encoding="utf-8"))["sets"]:
        methods = {"encoder": found["checkpoints"][-1], **found["rivals"]}
        for method, classifier in itertools.product(methods, ("knn", "logistic")):
            scores = methods[method]["scores"][classifier]
            yield {
                "set": found["name"],
                "protocol": classifier,
                "method": method,
                "scores": {name: scores[name] for name in ("balanced_accuracy", "auroc")},
            }


def call(*words: object) -> None:
    """Call the command, as a user would."""
    subprocess.run([sys.executable, "-m", "adios_tme", *map(str, words)], check=True)


def add(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add the lines of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as results:
        results.writelines(json.dumps(line) + "\n" for line in lines)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
