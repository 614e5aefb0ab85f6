"""The cases that the speed of the training step is measured in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.config.load import build, leaves, likely, nest, shapes
from adios_tme.config.model import MaskConfig
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError

SettingPath = tuple[str, ...]
"""A setting's sections and its name."""

#: Settings that tell cases apart, beside the ones that are swept.
SHOWN: tuple[SettingPath, ...] = (
    ("model", "arch"),
    ("mask", "mask_model_type"),
    ("mask", "num_masks"),
    ("mask", "crops_per_mask"),
    ("data", "img_size"),
    ("data", "batch_size_per_gpu"),
    ("compute", "precision"),
    ("compute", "attention"),
    ("compute", "compile"),
)
#: Stands for settings of these sections.
PRESET: SettingPath = ("preset",)


@dataclass(frozen=True)
class Case:
    """One combination of settings."""

    settings: dict[str, Any]
    """By leaf name: those that are shown, and those that are swept; as JSON takes them."""
    work: dict[str, Any]
    """By path: all that the step depends on, as JSON takes it."""
    config: TrainConfig


def cases(config: ThroughputConfig) -> list[Case]:
    """Every combination of the swept values, or the one case without a sweep.

    Raises:
        ConfigError: If a setting is unknown or cannot be swept, a combination is not allowed, or
            its step is not one that is measured.
    """
    swept = [_parse_sweep(text) for text in config.sweep]
    names = [name for name, _ in swept]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"sweep: {name} is given twice. Give all its values at once.")
    return [
        _case(config, dict(zip(names, values, strict=True)))
        for values in itertools.product(*(values for _, values in swept))
    ]


def _parse_sweep(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    name = "batch_size_per_gpu" if name == "batch_size" else name
    paths = _paths()
    if not equals or not values:
        raise ConfigError(f"sweep={text!r}: expected name=value,value, as batch_size=16,32.")
    if name not in paths:
        near = [leaf.path[-1] for leaf in likely(name, TrainConfig)]
        meant = f"Did you mean {' or '.join(near)}?" if near else "See adios-tme train --help-all."
        raise ConfigError(f"sweep={text!r}: {name} is no setting of a run. {meant}")
    if name not in _shaping_paths() and paths[name] != PRESET:
        raise ConfigError(
            f"sweep={text!r}: the step that is measured does not depend on {name}. "
            f"Sweep a setting of the networks, the masks, the optimisers or the device's work."
        )
    return name, [value.strip() for value in values.split(",")]


def _paths() -> dict[str, SettingPath]:
    return {leaf.path[-1]: leaf.path for leaf in leaves(TrainConfig)}


def _shaping_paths() -> dict[str, SettingPath]:
    """Settings that the step depends on."""
    return {leaf.path[-1]: leaf.path for leaf in leaves(TrainConfig) if shapes(leaf)}


def _case(config: ThroughputConfig, swept: Mapping[str, str]) -> Case:
    given = config.model_dump(include={"model", "mask", "compute"}, exclude_unset=True)
    data = {"data_path": ".", "img_size": config.img_size, "batch_size_per_gpu": config.batch_size}
    resolved = build(TrainConfig, {"data": data}, given, nest(TrainConfig, swept))
    _refuse_other_steps(resolved.mask)
    if config.baseline:
        _refuse_baselines_of_others(resolved)
    tree, paths = resolved.model_dump(mode="json"), _paths()
    shown = {path[-1]: path for path in SHOWN} | {name: paths[name] for name in swept}
    return Case(
        {name: _value(tree, path) for name, path in shown.items()},
        {".".join(path): _value(tree, path) for path in _shaping_paths().values()},
        resolved,
    )


def _refuse_other_steps(mask: MaskConfig) -> None:
    """Every step that is measured learns masks, as its cost and the plain steps have it.

    Raises:
        ConfigError: If masks are not learned, or not on every iteration.
    """
    if mask.mask_source != "learned":
        raise ConfigError(
            f"mask.mask_source={mask.mask_source}: only a step that learns its masks is measured, "
            f"as its floor and the baselines are. Drop it."
        )
    if mask.mask_update_freq > 1:
        raise ConfigError(
            f"mask.mask_update_freq={mask.mask_update_freq}: every step that is measured updates "
            f"the mask model. Drop it."
        )


def _refuse_baselines_of_others(config: TrainConfig) -> None:
    """The plain steps are SimCLR's on every mask.

    Raises:
        ConfigError: If the step that is measured is another one.
    """
    others = (("loss", "objective", "simclr"), ("mask", "variant", "adios"))
    for section, name, known in others:
        value = getattr(getattr(config, section), name)
        if value != known:
            raise ConfigError(
                f"{section}.{name}={value}: baselines are plain steps with {known}, which do other "
                f"work. Drop --baseline."
            )


def _value(tree: Mapping[str, Any], path: SettingPath) -> Any:
    value: Any = tree
    for name in path:
        value = value[name]
    return value
