"""The output folder of ``adios-tme embed``: whose features it holds, and where each slide lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.data.names import NameFacts
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import write_whole, writing
from adios_tme.inference.embed.encoder import FeatureEncoder
from adios_tme.inference.embed.features_file import SUFFIXES, Attribute
from adios_tme.run_folder.layout import PARTIAL_FILES

#: Says of which encoder, and with which settings, the features of a folder are.
IDENTITY = "embed.json"
_DIGEST = "digest"


def identity_of(config: EmbedConfig, encoder: FeatureEncoder, name: str) -> dict[str, Any]:
    """What shapes the numbers and files of a folder."""
    return {
        "encoder": name,
        _DIGEST: encoder.digest(),
        "img_size": encoder.img_size,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "pool": config.features.pool,
        "precision": config.features.precision,
        "dtype": config.dtype,
        "format": config.format,
        "no_coords": config.no_coords,
        "target_magnification": config.target_magnification,
        "level0_magnification": config.level0_magnification,
        "overlap": config.overlap,
        "mpp": config.slides.mpp,
    }


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make a folder that of one encoder, or see that it is; what a killed process left goes.

    Raises:
        ConfigError: If it holds features of another encoder, or with other settings.
        DataError: If it cannot be read or written.
    """
    path = folder / IDENTITY
    if path.exists():
        _check_same(folder, _read(path), identity)
        for partial in folder.glob(f"**/features_*/**/{PARTIAL_FILES}"):
            partial.unlink(missing_ok=True)
        return
    own = f"features_{identity['encoder']}"
    for unknown in (*folder.glob(own), *folder.glob(f"*/{own}")):
        raise ConfigError(
            f"{unknown}: holds files, and no {IDENTITY} says of which encoder. "
            f"Give another --output, another --encoder-name, or remove that folder."
        )
    with writing(path):
        write_whole(path, json.dumps(identity, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read, so that it is not known whose features lie there. "
            f"Give another --output, or remove that folder."
        ) from error
    return found


def _check_same(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if there.get(_DIGEST) != wanted[_DIGEST]:
        raise ConfigError(
            f"{folder}: holds features of another encoder ({there.get('encoder')}, weights "
            f"{str(there.get(_DIGEST))[:12]}; now {wanted['encoder']}, weights "
            f"{wanted[_DIGEST][:12]}). Give another --output, or remove that folder."
        )
    for name, value in wanted.items():
        if there.get(name) != value:
            raise ConfigError(
                f"{folder}: holds features with {name}={there.get(name)}, and {name}={value} is "
                f"asked for. Give another --output, or the settings of {folder / IDENTITY}."
            )


@dataclass(frozen=True)
class Layout:
    """Where the features of a slide go, and what is stated of it.

    Args:
        config: Settings.
        encoder_name: How the encoder is called.
    """

    config: EmbedConfig
    encoder_name: str

    def known(self, facts: NameFacts) -> NameFacts:
        """What names and flags state together.

        Raises:
            ConfigError: If they differ.
        """
        return facts._replace(
            magnification=self._one(facts, "magnification", "target_magnification"),
            overlap=self._one(facts, "overlap", "overlap"),
        )

    def _one(self, facts: NameFacts, fact: str, flag: str) -> Any:
        stated, given = getattr(facts, fact), getattr(self.config, flag)
        if None not in (stated, given) and stated != given:
            raise ConfigError(
                f"{flag}={given:g} is not what the names of {facts.slide} state ({stated:g}). "
                f"Drop --{flag.replace('_', '-')}, or rename the patches."
            )
        return stated if given is None else given

    def folder(self, facts: NameFacts) -> Path:
        """``20x_256px_0px_overlap/features_NAME``, of what is known."""
        parts = (
            (facts.magnification, "{:g}x"),
            (facts.size, "{}px"),
            (facts.overlap, "{}px_overlap"),
        )
        grid = "_".join(text.format(value) for value, text in parts if value is not None)
        return Path(grid, f"features_{self.encoder_name}")

    def path(self, file_name: str, facts: NameFacts) -> Path:
        """The file of a slide."""
        return self.config.output / self.folder(facts) / (file_name + SUFFIXES[self.config.format])

    def attributes(self, path: Path, file_name: str, facts: NameFacts) -> dict[str, Attribute]:
        """What TRIDENT writes of a slide, as far as it is known."""
        level0 = self.config.level0_magnification
        known: dict[str, Attribute | None] = {
            "name": file_name.rpartition("/")[2],
            "savetodir": str(path.parent.absolute()),
            "encoder": self.encoder_name,
            "patch_size": facts.size,
            "patch_size_level0": _level0_size(facts, level0),
            "level0_magnification": _whole(level0),
            "target_magnification": _whole(facts.magnification),
            "overlap": facts.overlap,
            "mpp": facts.mpp,
        }
        return {name: value for name, value in known.items() if value is not None}


def _level0_size(facts: NameFacts, level0_magnification: float | None) -> int | None:
    """Side of a patch at full resolution, as TRIDENT rounds it."""
    if facts.level0_size is not None:
        return facts.level0_size
    if facts.size is None or facts.magnification is None or level0_magnification is None:
        return None
    return int(facts.size * level0_magnification // facts.magnification)


def _whole(number: float | None) -> float | None:
    """A whole number as one, as TRIDENT has magnifications."""
    return int(number) if number is not None and number == int(number) else number
