"""The exported folder of an encoder: weights and settings for timm, and a model card."""

from __future__ import annotations

from pathlib import Path

from adios_tme.export.model_card import CardFacts, model_card
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.files import write_whole

CARD_NAME = "README.md"


def write_encoder_folder(exported: ExportedEncoder, facts: CardFacts, folder: Path) -> None:
    """Write the folder; each of its files is whole or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    write_timm(exported, folder)
    write_whole(folder / CARD_NAME, model_card(facts))
