"""Recipes that ship with the package, and those of a user's file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml

from adios_tme.config.base import Config, Flag, Positional
from adios_tme.config.load import read_yaml

#: Earlier names of presets, which stay.
ALIASES = {"steady": "stable"}


class Preset(Config):
    """Settings of a run, and what they are known to do."""

    name: str
    summary: str
    command: str
    """How it is run."""
    hardware: str
    time: str
    """How long it takes, where that was measured."""
    result: str
    """What came out of it, where that was measured."""
    settings: dict[str, Any]
    """By section, as in a settings file."""


class PresetsConfig(Config):
    """List the recipes that ship with the package: hardware, time and result of each.

    `adios-tme train --preset NAME` puts the settings of one under those that you give; a YAML file
    of your own in place of NAME does the same.
    """

    name: Annotated[str | None, Positional()] = None
    """A preset whose settings are printed, as a file that `--preset` and `--config` take."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the list as JSON."""


def presets() -> Iterator[Preset]:
    """Every preset that ships, by name."""
    folder = files("adios_tme") / "presets"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            facts = yaml.safe_load(file.read_text(encoding="utf-8"))
            yield Preset(name=file.name.removesuffix(".yaml"), **facts)


def find_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ValueError: If there is none of that name, with the nearest.
    """
    known = {preset.name: preset for preset in presets()}
    found = known.get(ALIASES.get(name, name))
    if found is None:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"preset={name}: no such preset or file.{meant} Use one of {', '.join(known)}, or a "
            f"YAML file of settings."
        )
    return found


def settings_of(given: str, config: type[Config]) -> dict[str, Any]:
    """Settings that ``--preset`` stands for: those of a name, or of a file.

    Args:
        given: A name of `presets`, or the path of a settings file.
        config: The tree that the settings belong to.

    Raises:
        ConfigError: If the file cannot be read.
        ValueError: If it is neither.
    """
    if is_file(given):
        return read_yaml(Path(given), config)
    return find_preset(given).settings


def is_file(given: str) -> bool:
    """Whether a preset is given as a file: by its ending, or as a path."""
    return given.endswith((".yaml", ".yml")) or "/" in given
