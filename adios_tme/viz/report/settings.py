"""Settings of runs as tables: all of them, those that were changed, and those that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adios_tme.config.load import leaves
from adios_tme.config.train import TrainConfig

#: Where a run lives is no way in which it differs.
_PLACES = frozenset(("output_dir", "overwrite", "resume"))


def flat_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every setting by its flag."""
    return [(_flag(name), _shown(value)) for name, value in _flat(settings)]


def changed_settings(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Flag, value and default of what a run has otherwise than by default, places left out."""
    defaults = {leaf.path[-1]: leaf.field for leaf in leaves(TrainConfig)}
    found = []
    for name, value in _flat(settings):
        if name not in defaults or name in _PLACES:
            continue
        default = _plain(defaults[name].get_default(call_default_factory=False))
        if value != default and not defaults[name].default_factory:
            found.append((_flag(name), _shown(value), _shown(default)))
    return found


def differing_settings(runs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Flags that runs have different values of, each with the value of every run."""
    trees = [dict(_flat(settings)) for settings in runs.values()]
    names = list(dict.fromkeys(name for tree in trees for name in tree))
    found = []
    for name in names:
        values = [_shown(tree.get(name)) for tree in trees]
        if name not in _PLACES and len(set(values)) > 1:
            found.append((_flag(name), values))
    return found


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield str(name), value


def _plain(value: Any) -> Any:
    """As a YAML file has it."""
    return list(value) if isinstance(value, tuple) else value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)
