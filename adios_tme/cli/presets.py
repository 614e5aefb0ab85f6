"""``adios-tme presets``."""

from __future__ import annotations

import typer
import yaml

from adios_tme.cli.options import settings_command
from adios_tme.config.presets import Preset, PresetsConfig, find_preset, presets
from adios_tme.errors import ConfigError
from adios_tme.terminal import print_json, terminal

presets_app = typer.Typer()


@settings_command(presets_app, "presets", PresetsConfig)
def list_presets(config: PresetsConfig) -> None:
    """Print all presets, or the settings of one."""
    if config.name is not None:
        try:
            settings = find_preset(config.name).settings
        except ValueError as error:
            raise ConfigError(str(error)) from error
        terminal().print(yaml.safe_dump(settings, sort_keys=False).strip())
    elif config.json_output:
        print_json([preset.model_dump() for preset in presets()])
    else:
        for preset in presets():
            _tell(preset)


def _tell(preset: Preset) -> None:
    console = terminal()
    console.print(preset.name, style="bold")
    console.print(f"  {preset.summary}")
    for what in ("hardware", "time", "result", "command"):
        console.print(f"  {what + ':':<10}{getattr(preset, what)}")
    console.print()
