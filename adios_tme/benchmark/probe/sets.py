"""The sets that settings name, each in its two parts."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

from adios_tme.benchmark.probe.class_folders import read_class_folders
from adios_tme.benchmark.probe.feature_files import holds_features, read_features
from adios_tme.benchmark.probe.samples import Parts, Samples, held_out_by, parts_of
from adios_tme.config.commands.probe import ProbeConfig
from adios_tme.data.left_out import LeftOut
from adios_tme.errors import ConfigError


class ProbeSet:
    """One training and test part.

    Args:
        name: How tables call it.
        parts: Of images, or of features that were written earlier.
        left_out: What was not taken from its folders.
    """

    def __init__(self, name: str, parts: Parts[Any], left_out: LeftOut) -> None:
        self.name = name
        self.parts = parts
        self.left_out = left_out
        self.is_images = parts.train.facts["kind"] == "images"

    def __len__(self) -> int:
        return len(self.parts.train) + len(self.parts.test)

    def facts(self) -> dict[str, Any]:
        """What it is made of, as plain values."""
        train, test = self.parts.train, self.parts.test
        return {
            "train": train.facts,
            "test": test.facts if self.parts.split_by == "folders" else {},
            "split_by": self.parts.split_by,
            "classes": list(self.parts.classes),
            "num_train": [train.labels.count(name) for name in self.parts.classes],
            "num_test": [test.labels.count(name) for name in self.parts.classes],
            "num_train_slides": len(set(train.slides)) if train.tells_slides else None,
            "num_test_slides": len(set(test.slides)) if test.tells_slides else None,
        }


def open_sets(config: ProbeConfig) -> list[ProbeSet]:
    """List every set and divide it; nothing is read but labels and features of files.

    Raises:
        ConfigError: If settings do not fit what the sets are.
        DataError: If a set cannot be used.
    """
    sources = [holds_features(path) for path in (*config.train, *config.test)]
    _check_settings(config, sources)
    names = Counter(path.name for path in config.train)
    sets = []
    for train, test in zip_longest(config.train, config.test):
        first = _read(train, config)
        others = [_read(test, config)] if test is not None else []
        parts = (
            parts_of(first, others[0])
            if others
            else held_out_by(first, config.split_by, config.test_fraction, config.seed)
        )
        left_out = LeftOut()
        for part in (first, *others):
            left_out.merge(part.left_out, part.path.name)
        is_unique = bool(train.name) and names[train.name] == 1
        sets.append(ProbeSet(train.name if is_unique else str(train), parts, left_out))
    return sets


def _read(path: Path, config: ProbeConfig) -> Samples[Any]:
    if holds_features(path):
        assert config.labels is not None
        return read_features(path, config.labels)
    return read_class_folders(path, config.slide_pattern, [config.output], config.slides)


def _check_settings(config: ProbeConfig, sources: list[bool]) -> None:
    """Raise ConfigError where a setting is missing, or would be ignored."""
    paths = (*config.train, *config.test)
    if any(sources) and config.labels is None:
        raise ConfigError(
            f"{paths[sources.index(True)]}: holds HDF5 features, and their labels are not given. "
            f"Give --labels a CSV file with the columns slide and label."
        )
    if not all(sources) and config.run is None:
        raise ConfigError(
            f"{paths[sources.index(False)]}: holds no HDF5 features, and no run is given to embed "
            f"images with. Give RUN, or a folder of features."
        )
    for train, test in zip(config.train, config.test, strict=False):
        if holds_features(train) != holds_features(test):
            raise ConfigError(
                f"{train} and {test}: one holds features, the other does not. "
                f"Give two folders of classes, or two of features."
            )
    ignored = {
        "labels": config.labels is not None and not any(sources),
        "run": config.run is not None and all(sources),
        "slide_pattern": config.slide_pattern is not None and all(sources),
        "mpp": config.slides.mpp is not None and all(sources),
    }
    for name, is_ignored in ignored.items():
        if is_ignored:
            what = "a folder of images" if name != "labels" else "a file or folder of HDF5 features"
            value = config.slides.mpp if name == "mpp" else getattr(config, name)
            raise ConfigError(f"{name}={value} would be ignored: no --train is {what}. Drop it.")
