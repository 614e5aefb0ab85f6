"""The probes' results as tables, a CSV file and a plot, and in words."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from adios_tme.benchmark.probe.metrics import Interval
from adios_tme.benchmark.probe.results import (
    CLASSIFIERS,
    COLOUR,
    GIVEN,
    RANDOM,
    RESULTS_NAME,
    SCORES,
    SIMPLE,
    ClassifierScores,
    Difference,
    MethodScores,
    Results,
    SetResults,
)
from adios_tme.benchmark.results_file import write_beside
from adios_tme.terminal import table
from adios_tme.viz.palette import colour

CLASSIFIER_NAMES = {"knn": "kNN", "logistic": "logistic regression"}
_METHOD_NAMES = {
    RANDOM: "random encoder",
    COLOUR: "colour statistics",
    GIVEN: "given features",
}
_PANEL_INCHES = (4.6, 3.4)


def method_name(name: str) -> str:
    """A rival as people call it."""
    return _METHOD_NAMES.get(name, name)


def write_report(results: Results, output: Path) -> None:
    """Write ``probe.csv``, ``.png`` and ``.svg`` beside the JSON file.

    Raises:
        DataError: If one cannot be written.
    """
    write_beside(output / RESULTS_NAME, results, write_csv, draw_results)


def results_tables(results: Results) -> list[Table]:
    """For each set and classifier a row for every checkpoint, then the rivals."""
    return [_table(each, classifier) for each in results.sets for classifier in CLASSIFIERS]


def _table(each: SetResults, classifier: str) -> Table:
    protocol = each.protocol
    num_train, num_test = sum(protocol["num_train"]), sum(protocol["num_test"])
    headings = ("Method", "Balanced acc. [95 %]", "Macro F1 [95 %]", "AUROC [95 %]")
    shown = table(
        f"{each.name}, {CLASSIFIER_NAMES[classifier]}: {len(each.classes)} classes, "
        f"{num_test} test and {num_train} training samples",
        *headings,
    )
    for scored in each.checkpoints:
        shown.add_row(*_row(f"iteration {scored.iteration}", scored.scores, classifier))
    if each.checkpoints:
        shown.add_section()
    for name, rival in each.rivals.items():
        shown.add_row(*_row(method_name(name), rival.scores, classifier))
    return shown


def _row(name: str, scores: MethodScores, classifier: str) -> list[str]:
    reached = _of(scores, classifier)
    return [name, *(_cell(getattr(reached, score)) for score in SCORES)]


def _of(scores: MethodScores, classifier: str) -> ClassifierScores:
    found: ClassifierScores = getattr(scores, classifier)
    return found


def _cell(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.2f}, {interval.high:.2f}]"


def summary(results: Results) -> list[str]:
    """Sentences: what the newest checkpoint is worth beside its rivals, and what was noted."""
    return [line for each in results.sets for line in _sentences(each)]


def _sentences(each: SetResults) -> Iterator[str]:
    for difference in each.differences:
        yield f"{each.name}: {_verdict(each, difference)}"
    if not each.checkpoints:
        for name, rival in each.rivals.items():
            for classifier in CLASSIFIERS:
                reached = _cell(_of(rival.scores, classifier).balanced_accuracy)
                yield (
                    f"{each.name}: {CLASSIFIER_NAMES[classifier]} on {method_name(name)} reaches "
                    f"a balanced accuracy of {reached}; chance is {1 / len(each.classes):.3f}."
                )


def _verdict(each: SetResults, found: Difference) -> str:
    own = _of(each.checkpoints[-1].scores, found.classifier).balanced_accuracy.value
    other = _of(each.rivals[found.rival].scores, found.classifier).balanced_accuracy.value
    value, low, high = found.difference
    rival = method_name(found.rival)
    if found.rival in SIMPLE:
        rival += " (the stronger of the two that need no training)"
    told_apart = low > 0 or high < 0
    better = f"The encoder is {'better' if value > 0 else 'worse'}"
    verdict = better if told_apart else "They cannot be told apart"
    return (
        f"iteration {found.iteration} reaches a balanced accuracy of {own:.3f} by "
        f"{CLASSIFIER_NAMES[found.classifier]}, {rival} {other:.3f}. {verdict}: the paired "
        f"95 % interval of the difference {value:+.3f} is [{low:+.3f}, {high:+.3f}]."
    )


def notes(results: Results) -> list[str]:
    """What has to be known to read the scores, each once."""
    lines = [f"{each.name}: {note}" for each in results.sets for note in each.notes]
    for each in results.sets:
        methods = [(f"iteration {one.iteration}", one.scores) for one in each.checkpoints]
        methods += [(method_name(name), rival.scores) for name, rival in each.rivals.items()]
        told: dict[str, list[str]] = {}
        for name, scores in methods:
            for classifier in CLASSIFIERS:
                for note in _of(scores, classifier).notes:
                    told.setdefault(f"{CLASSIFIER_NAMES[classifier]}: {note}", []).append(name)
        for note, names in told.items():
            whose = "all" if len(names) == len(methods) else ", ".join(names)
            lines.append(f"{each.name}, {whose}, {note}")
    return lines


def write_csv(results: Results, path: Path) -> None:
    """One line per set, method and classifier: each score with its interval."""
    columns = ["set", "method", "iteration", "classifier", "k", "C"]
    columns += [f"{score}{part}" for score in SCORES for part in ("", "_low", "_high")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for each in results.sets:
            for scored in each.checkpoints:
                start = [each.name, "encoder", scored.iteration]
                writer.writerows(_csv_lines(start, scored.scores))
            for name, rival in each.rivals.items():
                writer.writerows(_csv_lines([each.name, name, None], rival.scores))


def _csv_lines(start: list[object], scores: MethodScores) -> Iterator[list[object]]:
    for classifier in CLASSIFIERS:
        found = _of(scores, classifier)
        cells = [part for score in SCORES for part in getattr(found, score)]
        yield [*start, classifier, found.k, found.C, *cells]


def draw_results(results: Results) -> Figure:
    """Balanced accuracy against iteration: a row for each set, a column for each classifier."""
    rows, columns = len(results.sets), len(CLASSIFIERS)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for each, row in zip(results.sets, panels, strict=True):
        for classifier, ax in zip(CLASSIFIERS, row, strict=True):
            _draw(each, classifier, ax)
    lines = {
        label: line
        for ax in panels.flat
        for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines.keys(), fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _draw(each: SetResults, classifier: str, ax: Axes) -> None:
    reached = [_of(one.scores, classifier).balanced_accuracy for one in each.checkpoints]
    if reached:
        iterations = [one.iteration for one in each.checkpoints]
        value, low, high = np.array(reached, dtype=float).T
        off = np.abs([value - low, high - value])
        ax.errorbar(
            iterations, value, yerr=off, fmt="o-", capsize=3, color=colour(0), label="encoder"
        )
    for number, (name, rival) in enumerate(each.rivals.items(), start=1):
        height = _of(rival.scores, classifier).balanced_accuracy.value
        ax.axhline(height, color=colour(number), linestyle="--", label=method_name(name))
    ax.axhline(1 / len(each.classes), color="grey", linestyle=":", label="chance")
    ax.set(ylabel="balanced accuracy", ylim=(0, 1.03))
    if reached:
        ax.set(xlabel="iteration")
    else:
        ax.set_xticks([])
    ax.set_title(f"{each.name}, {CLASSIFIER_NAMES[classifier]}", fontsize=9)
    ax.grid(alpha=0.3)
