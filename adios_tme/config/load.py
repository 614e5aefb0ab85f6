"""From a YAML file and flags to a settings tree, with errors in plain words."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from adios_tme.config.base import Config, MayBePath, OtherNames, Shapes
from adios_tme.errors import ConfigError
from adios_tme.files import write_whole

SomeConfig = TypeVar("SomeConfig", bound=Config)


class Leaf(NamedTuple):
    """One setting: where it stands in the tree, and its declaration."""

    path: tuple[str, ...]
    field: FieldInfo
    section: type[Config]


def section_type(field: FieldInfo) -> type[Config] | None:
    """The settings class a field holds, or None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def leaves(config: type[Config], prefix: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of a tree, in the order of declaration."""
    for name, field in config.model_fields.items():
        inner = section_type(field)
        if inner is None:
            yield Leaf((*prefix, name), field, config)
        else:
            yield from leaves(inner, (*prefix, name))


def shapes(leaf: Leaf) -> Literal["weights", "step"] | None:
    """What a setting decides, as its declaration marks it."""
    return next((mark.what for mark in leaf.field.metadata if isinstance(mark, Shapes)), None)


def value_type(field: FieldInfo) -> Any:
    """The type of a setting without ``| None``."""
    kind = field.annotation
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (kind,) = (arm for arm in typing.get_args(kind) if arm is not type(None))
    return kind


def nest(config: type[Config], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings given by leaf name into their sections."""
    tree: dict[str, Any] = {}
    paths = {leaf.path[-1]: leaf.path for leaf in leaves(config)}
    for name, value in flat.items():
        *sections, last = paths[name]
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Deep union of settings; later layers win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                value = merge(old, value)
            merged[key] = value
    return merged


class _Loader(yaml.SafeLoader):
    """Reads words as YAML 1.2 does; to YAML 1.1 `off` is false and `1:4` is 64."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first
    )


#: Sections inside sections that are looked into; an alias may lead back to where it stands.
_DEEPEST = 4


def read_yaml(path: Path, config: type[Config]) -> dict[str, Any]:
    """Read a settings file; leaf names may stand in their section or at the top.

    Raises:
        ConfigError: If the file is missing, is not YAML or names a setting twice.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        content = yaml.load(text, _Loader)
        lines = _lines_of_keys(yaml.compose(text, _Loader), path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Give --config an existing YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML. {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected settings as `name: value` lines.")
    places = {leaf.path[-1]: leaf.path for leaf in leaves(config)}
    names = places.keys() - set(config.model_fields)
    flat = {key: content.pop(key) for key in list(content) if key in names}
    for name in flat:
        if {(name,), places[name]} <= lines.keys():
            raise _given_twice(path, name, lines[name,], lines[places[name]])
    return merge(content, nest(config, flat))


def _lines_of_keys(
    node: yaml.Node | None, path: Path, prefix: tuple[str, ...] = ()
) -> dict[tuple[str, ...], int]:
    """The line of each setting, by its place in the tree.

    Raises:
        ConfigError: If one of them is there twice.
    """
    lines: dict[tuple[str, ...], int] = {}
    if not isinstance(node, yaml.MappingNode) or len(prefix) > _DEEPEST:
        return lines
    for key, value in node.value:
        place = (*prefix, str(key.value))
        if place in lines:
            raise _given_twice(path, place[-1], lines[place], key.start_mark.line + 1)
        lines[place] = key.start_mark.line + 1
        lines |= _lines_of_keys(value, path, place)
    return lines


def _given_twice(path: Path, name: str, *lines: int) -> ConfigError:
    first, second = sorted(lines)
    return ConfigError(f"{path}: {name} is given twice, in lines {first} and {second}. Keep one.")


def build(config: type[SomeConfig], *layers: Mapping[str, Any], source: str = "") -> SomeConfig:
    """Validate merged settings.

    Args:
        config: Class of the tree.
        layers: Nested settings; later ones win.
        source: File to name in errors, if one took part.

    Raises:
        ConfigError: With one line per mistake.
    """
    try:
        return config.model_validate(merge(*layers))
    except (ValidationError, ConfigError) as error:
        message = explain(error, config) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{source}: {message}" if source else message) from error


def explain(error: ValidationError, config: type[Config]) -> str:
    """Translate pydantic's report into one line per mistake."""
    lines, too_few = [], {}
    for mistake in error.errors():
        where = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "default_factory_not_called":
            continue  # only the echo of another mistake
        if mistake["type"] == "extra_forbidden":
            lines.append(_unknown(mistake["loc"], config))
        elif mistake["type"] == "missing" and isinstance(mistake["loc"][-1], int):
            too_few[where.rpartition(".")[0]] = mistake["loc"][-1] + 1  # the last is the number
        elif mistake["type"] == "missing":
            lines.append(f"{where} is missing. Run the command with --help to see how it is given.")
        else:
            lines.append(f"{where}: {in_words(mistake)}" if where else in_words(mistake))
    lines.extend(f"{where}: expected {number} values." for where, number in too_few.items())
    return "\n".join(lines)


def in_words(mistake: Mapping[str, Any]) -> str:
    """One mistake of pydantic's report: what was expected, and what was given."""
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    return f"{_expectation(mistake)}, got {mistake['input']!r}."


def _expectation(mistake: Mapping[str, Any]) -> str:
    limits = mistake.get("ctx", {})
    words = {
        "greater_than_equal": "expected at least {ge}",
        "greater_than": "expected more than {gt}",
        "less_than_equal": "expected at most {le}",
        "less_than": "expected less than {lt}",
        "multiple_of": "expected a multiple of {multiple_of}",
        "literal_error": "expected one of {expected}",
        "int_parsing": "expected a whole number",
        "int_from_float": "expected a whole number",
        "int_type": "expected a whole number",
        "float_parsing": "expected a number",
        "float_type": "expected a number",
        "bool_parsing": "expected true or false",
        "bool_type": "expected true or false",
        "string_type": "expected text",
        "finite_number": "expected a finite number",
        "path_type": "expected a path",
        "tuple_type": "expected several values",
        "list_type": "expected several values",
        "dict_type": "expected settings by name",
        "model_type": "expected settings by name",
        "too_long": "expected at most {max_length} values",
        "too_short": "expected at least {min_length} values",
    }
    return words.get(mistake["type"], "expected another kind of value").format(**limits)


def _unknown(location: tuple[int | str, ...], config: type[Config]) -> str:
    where = ".".join(str(part) for part in location)
    meant = likely(str(location[-1]), config)
    if not meant:
        return f"{where}: unknown setting. Run the command with --help for the list."
    names = " or ".join(".".join(leaf.path) for leaf in meant)
    return f"{where}: unknown setting. Did you mean {names}?"


def likely(name: str, config: type[Config]) -> list[Leaf]:
    """The settings that a name may stand for which is none: what others call so, or the nearest."""
    known = {leaf.path[-1]: leaf for leaf in leaves(config)}
    called_so = [leaf for leaf in known.values() if name in _other_names(leaf)]
    return called_so or [known[near] for near in difflib.get_close_matches(name, known, n=1)]


def _other_names(leaf: Leaf) -> tuple[str, ...]:
    return next((mark.names for mark in leaf.field.metadata if isinstance(mark, OtherNames)), ())


def with_whole_paths(config: SomeConfig) -> SomeConfig:
    """The same settings for a process that works in another folder."""
    whole = {
        name: _whole(getattr(config, name), field)
        for name, field in type(config).model_fields.items()
    }
    changed = {name: value for name, value in whole.items() if value != getattr(config, name)}
    return config.model_copy(update=changed)


def _whole(value: Any, field: FieldInfo) -> Any:
    if isinstance(value, Config):
        return with_whole_paths(value)
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(_whole(part, field) for part in value)
    marks = [mark for mark in field.metadata if isinstance(mark, MayBePath)]
    return marks[0].whole(value) if marks and isinstance(value, str) else value


def write_yaml(config: Config, path: Path) -> None:
    """Write a resolved tree as a file that ``--config`` takes back; it is whole or as it was."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_whole(path, text)
