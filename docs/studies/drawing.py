"""Figures and tables of studies, from their lines of results."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

PROTOCOLS = ("fixed_cleaned", "no_labels_cleaned", "no_labels_by_area", "no_labels_with_stain")
SCORES = ("iou", "aji", "pq")
OTSU = "cleaned Otsu"
#: Fewest that an interval is drawn from.
NUM_SEEDS = 3
#: Of the masks study, in order.
SETS = ("folder", "pannuke", "monuseg")

Line = dict[str, Any]
Key = tuple[str, str, str]
"""Set, arm, protocol."""
Found = Mapping[Key, list[Line]]


class Measure(NamedTuple):
    """A number of each run of the family study."""

    title: str
    set: str
    protocol: str
    score: str

    def of(self, found: Found, arm: str) -> dict[int, float]:
        """By seed; none where the arm has no such number."""
        return {line["seed"]: _value(line, self.score) for line in self._lines(found, arm)}

    def rivals(self, found: Found, arm: str) -> dict[str, float]:
        """What needs no training, by name."""
        if self.score == "balanced_accuracy":
            lines = found[self.set, arm, self.protocol]
            others = [line for line in lines if line["method"] != "encoder"]
            return {line["method"].replace("_", " "): _value(line, self.score) for line in others}
        return {OTSU: _mean(found[self.set, arm, OTSU], self.score)}

    def _lines(self, found: Found, arm: str) -> list[Line]:
        lines = found[self.set, arm, self.protocol]
        return [line for line in lines if line.get("method", "encoder") == "encoder"]


MEASURES = (
    Measure("generated: IoU, no labels", "generated", "no_labels_cleaned", "iou"),
    Measure("generated: AJI, no labels", "generated", "no_labels_cleaned", "aji"),
    Measure("folder: IoU, fixed", "folder", "fixed_cleaned", "iou"),
    Measure("folder: IoU, no labels", "folder", "no_labels_cleaned", "iou"),
    Measure("folder: AJI, no labels", "folder", "no_labels_cleaned", "aji"),
    Measure("four classes: kNN", "tissue_source_4class", "knn", "balanced_accuracy"),
    Measure("four classes: logistic", "tissue_source_4class", "logistic", "balanced_accuracy"),
)


def draw(study: str, lines: list[Line], in_order: Iterable[str], path: Path) -> None:
    """Draw each arm's seeds beside what needs no training, and write the tables of the page."""
    found: dict[Key, list[Line]] = defaultdict(list)
    for line in lines:
        found[line["set"], line["arm"], line["protocol"]].append(line)
    there = {line["arm"] for line in lines}
    arms = [arm for arm in in_order if arm in there]
    figure, tables = (_family if study == "family" else _masks)(found, arms)
    figure.savefig(path, dpi=100)
    for name, rows in tables.items():
        text = "\n".join(rows) + "\n"
        path.with_suffix(f".{name}.md").write_text(text, encoding="utf-8")


def _masks(found: Found, arms: list[str]) -> tuple[Figure, dict[str, Iterator[str]]]:
    figure = Figure(figsize=(11, 0.6 * len(arms) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(SETS), sharey=True)
    for ax, name in zip(axes, SETS, strict=True):
        ax.axvline(_mean(found[name, arms[0], OTSU], "iou"), color="0.4", ls="--", label=OTSU)
        for number, protocol in enumerate(PROTOCOLS):
            points = [
                (line["scores"]["iou"], row + 0.15 * (number - 1.5))
                for row, arm in enumerate(arms)
                for line in found[name, arm, protocol]
            ]
            if points:
                ax.plot(*np.transpose(points), "o", ms=4, color=f"C{number}", label=protocol)
        ax.set(title=name, xlabel="IoU", yticks=range(len(arms)), yticklabels=arms)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize="x-small")
    tables = {"means": _means, "differences": _differences, "stopping": _stopping}
    return figure, {name: table(found, arms) for name, table in tables.items()}


def _means(found: Found, arms: list[str]) -> Iterator[str]:
    """IoU / AJI / PQ, mean over seeds."""
    yield "| arm | seeds | protocol | " + " | ".join(SETS) + " |"
    yield "|---|---|---|" + "---|" * len(SETS)
    for arm, protocol in [(arms[0], OTSU), *itertools.product(arms, PROTOCOLS)]:
        runs = [found[name, arm, protocol] for name in SETS]
        if all(runs):
            cells = [" / ".join(f"{_mean(each, score):.3f}" for score in SCORES) for each in runs]
            name, seeds = ("", "") if protocol == OTSU else (arm, str(len(runs[0])))
            yield f"| {name} | {seeds} | {protocol} | " + " | ".join(cells) + " |"


def _stopping(found: Found, arms: list[str]) -> Iterator[str]:
    """The checkpoint that goes with the haematoxylin most, and what it and the last one have."""
    yield "| arm | seed | set | kept | IoU / AJI kept | IoU / AJI of the last |"
    yield "|---|---|---|---|---|---|"
    for arm, name in itertools.product(arms, SETS):
        for line in found[name, arm, "no_labels_cleaned"]:
            if kept := line.get("kept"):
                cells = [
                    f"{scores['iou']:.3f} / {scores['aji']:.3f}"
                    for scores in (kept["scores"], line["scores"])
                ]
                at = f"{kept['iteration']} of {line['iteration']}"
                yield f"| {arm} | {line['seed']} | {name} | {at} | " + " | ".join(cells) + " |"


def _differences(found: Found, arms: list[str]) -> Iterator[str]:
    """What mask and stain together have over the strongest cleaned baseline, image by image."""
    yield "| arm | seed | set | IoU | AJI | PQ |"
    yield "|---|---|---|---|---|---|"
    for arm, name in itertools.product(arms, SETS):
        for line in found[name, arm, "no_labels_with_stain"]:
            cells = [
                f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
                for apart in (line["difference"][score] for score in SCORES)
            ]
            yield f"| {arm} | {line['seed']} | {name} | " + " | ".join(cells) + " |"


def _family(found: Found, arms: list[str]) -> tuple[Figure, dict[str, Iterator[str]]]:
    drawn = [measure for measure in MEASURES if measure.score != "aji"]
    figure = Figure(figsize=(1.6 * len(drawn) + 1.5, 0.4 * len(arms) + 1.5), layout="constrained")
    for ax, measure in zip(figure.subplots(1, len(drawn), sharey=True), drawn, strict=True):
        _draw_measure(ax, measure, found, arms)
    ax.invert_yaxis()
    return figure, {"means": _family_means(found, arms), "differences": _from_first(found, arms)}


def _draw_measure(ax: Axes, measure: Measure, found: Found, arms: Sequence[str]) -> None:
    points = [
        (value, row) for row, arm in enumerate(arms) for value in measure.of(found, arm).values()
    ]
    ax.plot(*np.transpose(points), "o", ms=4)
    for (name, value), style in zip(
        measure.rivals(found, arms[0]).items(), ("--", ":"), strict=False
    ):
        ax.axvline(value, color="0.4", ls=style, label=name)
    ax.set(title=measure.title, yticks=range(len(arms)), yticklabels=arms)
    ax.title.set_fontsize("x-small")
    ax.tick_params(axis="x", labelsize="x-small")
    ax.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.05))


def _family_means(found: Found, arms: list[str]) -> Iterator[str]:
    """Means over seeds, and their range."""
    yield "| arm | " + " | ".join(measure.title for measure in MEASURES) + " |"
    yield "|---|" + "---|" * len(MEASURES)
    for arm in arms:
        values = [list(measure.of(found, arm).values()) for measure in MEASURES]
        cells = [_over_seeds(each) for each in values]
        yield f"| {arm} | " + " | ".join(cells) + " |"
    rivals = [measure.rivals(found, arms[0]) for measure in MEASURES]
    for name in dict.fromkeys(name for each in rivals for name in each):
        cells = [f"{each[name]:.3f}" if name in each else "-" for each in rivals]
        yield f"| *{name}* | " + " | ".join(cells) + " |"


def _over_seeds(values: list[float]) -> str:
    if not values:
        return "-"
    several = f"{min(values):.3f} to {max(values):.3f}"
    return f"{np.mean(values):.3f} ({several if len(values) >= NUM_SEEDS else 'one seed'})"


def _from_first(found: Found, arms: list[str]) -> Iterator[str]:
    """Difference from the first arm, seed by seed, with a 95 % t-interval over seeds."""
    yield "| arm | " + " | ".join(measure.title for measure in MEASURES) + " |"
    yield "|---|" + "---|" * len(MEASURES)
    for arm in arms[1:]:
        cells = [_apart(measure.of(found, arm), measure.of(found, arms[0])) for measure in MEASURES]
        if set(cells) == {"-"}:
            continue
        yield f"| {arm} | " + " | ".join(cells) + " |"


def _apart(values: Mapping[int, float], first: Mapping[int, float]) -> str:
    apart = np.array([value - first[seed] for seed, value in values.items() if seed in first])
    if len(apart) < NUM_SEEDS:
        return "-"
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    mean = apart.mean()
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def _value(line: Line, score: str) -> float:
    value = line["scores"][score]
    return float(value["value"] if isinstance(value, dict) else value)


def _mean(runs: list[Line], score: str) -> float:
    return float(np.mean([_value(line, score) for line in runs]))
