"""The README of an exported folder: what the network is, how it was made, how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adios_tme.config.data import AUGMENTATIONS
from adios_tme.config.model import is_timm
from adios_tme.export import snippets
from adios_tme.export.run_facts import SHOWN_SCORES, Interval, NucleiScores, RunFacts
from adios_tme.export.timm import ARCHITECTURE

#: What a card tells of the settings, by section.
TOLD: Mapping[str, tuple[str, ...]] = {
    "model": ("arch", "patch_size", "embed_dim", "depth", "num_heads", "num_register_tokens"),
    "data": ("img_size", "batch_size_per_gpu", *AUGMENTATIONS, "views"),
    "mask": ("mask_model_type", "num_masks", "crops_per_mask", "mask_source", "mask_ema"),
    "loss": ("alpha_sparsity", "sparsity_penalty_type", "initial_temp", "final_temp"),
    "optim": ("optimizer_type", "lr", "weight_decay", "total_iterations"),
    "run": ("seed",),
}
#: What it tells of the curves, and how it calls them.
CURVES: Mapping[str, str] = {
    "student_loss": "student loss, nats",
    "mask_loss": "mask model loss",
    "contrastive_loss_mask": "contrastive loss that the masks cause, nats",
    "sparsity_penalty": "sparsity penalty",
    "adversarial_gap": "adversarial gap, nats over misplaced masks",
    "mask_coverage": "share of the image under each mask",
    "mask_entropy": "entropy of the masks",
    "mask_haematoxylin_correlation": "correlation of each mask with haematoxylin",
    "eval_fixed_iou": "IoU on watched labels, one channel and threshold for all images",
    "eval_oracle_iou": "IoU on watched labels, best channel of each image",
    "num_damaged": "patches that could not be read, and were replaced",
}
CITATION = """Shi, Siddharth, Torr, Kosiorek: Adversarial Masking for Self-Supervised Learning. \
ICML 2022, [arXiv:2201.13100](https://arxiv.org/abs/2201.13100).

```bibtex
@inproceedings{shi2022adversarial,
  title = {Adversarial Masking for Self-Supervised Learning},
  author = {Shi, Yuge and Siddharth, N. and Torr, Philip H. S. and Kosiorek, Adam R.},
  booktitle = {International Conference on Machine Learning},
  year = {2022}
}
```
"""

Section = tuple[str, str]


def encoder_card(facts: RunFacts, config: Mapping[str, Any]) -> str:
    """The card of an encoder; FOLDER in its code stands for where it lies.

    Args:
        facts: Of its run.
        config: What the folder's ``config.json`` states.
    """
    side = str(config["pretrained_cfg"]["input_size"][-1])
    loading = {
        "With timm 1.0.16 or newer (`hf-hub:NAME/REPOSITORY` from a hub)": _code(snippets.TIMM),
        "With older versions of timm": _code(snippets.OLD_TIMM),
        "With torch alone": _code(snippets.PLAIN_TORCH),
        "With adios_tme": _code(snippets.OURS),
        "In LazySlide": _code(snippets.LAZYSLIDE),
        "In eva, whose configurations read the environment": _code(eva(config), "bash"),
        "In TRIDENT (written after its documentation; no test runs it)": _code(snippets.TRIDENT),
    }
    kind = "ViT"
    if config["architecture"] != ARCHITECTURE:
        kind = config["architecture"]
        loading = {name: code for name, code in loading.items() if "timm 1.0.16" in name}
    return _card(
        facts,
        title=f"{kind} encoder of H&E patches, trained by adversarial masking (ADIOS)",
        head={"library_name": "timm", "pipeline_tag": "image-feature-extraction"},
        loading={name: code.replace("SIDE", side) for name, code in loading.items()},
    )


def mask_card(facts: RunFacts, settings: Mapping[str, Any]) -> str:
    """The card of a mask model; FOLDER in its code stands for where it lies.

    Args:
        facts: Of its run.
        settings: What the folder's ``config.json`` states.
    """
    return _card(
        facts,
        title=f"Mask model of H&E patches: {settings['num_masks']} soft masks without labels",
        head={"library_name": "adios_tme", "pipeline_tag": "image-segmentation"},
        loading={
            "Masks of images (FOLDER may be a repository of a hub, too)": _code(snippets.MASKS),
            "Masked views for another trainer": _code(snippets.AUGMENT),
        },
    )


def eva(config: Mapping[str, Any]) -> str:
    """Environment by which eva builds the encoder of a ``config.json``."""
    images = config["pretrained_cfg"]
    return snippets.EVA.format(
        architecture=config["architecture"],
        width=config["num_features"],
        side=images["input_size"][-1],
        mean=json.dumps(images["mean"]),
        std=json.dumps(images["std"]),
    )


def _card(facts: RunFacts, *, title: str, head: dict[str, Any], loading: Mapping[str, str]) -> str:
    """Markdown with a head that hubs read."""
    head |= {"tags": ["histopathology", "self-supervised-learning", "adios"]}
    if facts.licence:
        head["license"] = facts.licence
    sections: list[Section] = [("Data and settings", _settings(facts))]
    if facts.curves:
        sections.append((f"Iteration {facts.curves['iteration']:,}", _curves(facts.curves)))
    if facts.nuclei:
        sections.append(("Nuclei under the masks", _scores(facts.nuclei)))
    ways = [f"{name}:\n\n{code}" for name, code in loading.items()]
    sections.append(("Load it", "\n".join(["FOLDER is where these files lie.\n", *ways])))
    sections.append(("Cite", CITATION))
    parts = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n", f"# {title}\n", _story(facts)]
    return "\n".join([*parts, *(f"## {name}\n\n{text}" for name, text in sections)])


def _story(facts: RunFacts) -> str:
    data = facts.settings["data"]
    mean, std = (", ".join(f"{value:g}" for value in data[name]) for name in ("mean", "std"))
    licence = facts.licence or "not stated; ask who trained it"
    lines = (
        f"Trained without labels for {facts.iteration:,} updates on {facts.samples_seen:,} images "
        f"of {data['img_size']} px, by adios_tme {facts.version}.",
        f"Images are normalised with mean ({mean}) and standard deviation ({std}), on a scale from "
        f"0 to 1.",
        f"Licence of the weights: {licence}.",
    )
    return "\n\n".join(lines) + "\n"


def _settings(facts: RunFacts) -> str:
    rows = [["data", ", ".join(_roots(facts.settings["data"]))]]
    if epoch := facts.curves.get("epoch"):
        rows.append(["patches in an epoch", f"{round(facts.curves['samples_seen'] / epoch):,}"])
    rows += [
        [f"`{name}`", str(facts.settings[section][name])]
        for section, names in TOLD.items()
        for name in names
        if name in facts.settings.get(section, {}) and not _is_of_no_use(name, facts.settings)
    ]
    return _table(["setting", "value"], rows)


def _is_of_no_use(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting is one of our ViT, and the encoder another network."""
    return name in TOLD["model"][1:] and is_timm(settings["model"]["arch"])


def _roots(data: Mapping[str, Any]) -> list[str]:
    """Names of the data's folders; a card is public, so where they lie is not told."""
    return [Path(str(root)).name for root in data["data_path"]] or ["generated tissue"]


def _curves(curves: Mapping[str, Any]) -> str:
    rows = [[words, _number(curves[name])] for name, words in CURVES.items() if name in curves]
    return _table(["metric", "newest value"], rows)


def _scores(nuclei: NucleiScores) -> str:
    rows = [
        [row.method, row.protocol, *(_with_interval(row.scores[score]) for score in SHOWN_SCORES)]
        for row in nuclei.rows
    ]
    text = (
        f"Of {nuclei.num_images} labelled images of `{nuclei.data_set}`, by `adios-tme benchmark "
        f"nuclei`, with 95 % bootstrap intervals over images. *oracle* takes the best channel of "
        f"each image by its labels; *fixed* chose channel and threshold on other labelled images.\n"
    )
    return f"{text}\n{_table(['method', 'protocol', *SHOWN_SCORES], rows)}"


def _with_interval(score: Interval | None) -> str:
    if score is None:
        return "-"
    mean, low, high = score
    return f"{mean:.3f}" if low is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(_number(each) for each in value)
    return "not finite" if value is None else f"{value:.4g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}```\n"
