"""Exported folders: weights, settings and a model card, all there or none."""

from __future__ import annotations

import json
from pathlib import Path

from adios_tme.export.model_card import encoder_card, mask_card
from adios_tme.export.run_facts import RunFacts
from adios_tme.export.timm import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    ExportedEncoder,
    timm_config,
    write_timm,
)
from adios_tme.files import replacing_folder, write_whole
from adios_tme.models.mask_models.generator import MaskGenerator

CARD_NAME = "README.md"
#: All that a folder holds.
FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)


def is_exported(path: Path) -> bool:
    """Whether a folder looks like one that was exported, of whichever network."""
    return (path / CONFIG_NAME).is_file() and (path / WEIGHTS_NAME).is_file()


def is_mask_folder(path: Path) -> bool:
    """Whether a folder is one of a mask model."""
    if not is_exported(path):
        return False
    try:
        return "mask_model_type" in json.loads((path / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def write_encoder_folder(exported: ExportedEncoder, facts: RunFacts, folder: Path) -> None:
    """Write a folder that stock timm loads.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing_folder(folder) as partial:
        write_timm(exported, partial)
        write_whole(partial / CARD_NAME, encoder_card(facts, timm_config(exported)))


def write_mask_folder(generator: MaskGenerator, facts: RunFacts, folder: Path) -> None:
    """Write a folder that `MaskGenerator.from_pretrained` loads.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing_folder(folder) as partial:
        write_whole(partial / CARD_NAME, mask_card(facts, generator.settings()))
        generator.save_pretrained(partial)  # which keeps a card that is there
