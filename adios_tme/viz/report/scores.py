"""Tables of what the benchmarks wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from adios_tme.viz.report.run_files import NUCLEI_RESULTS, PROBE_RESULTS, results_read
from adios_tme.viz.report.verdicts import name_of_method

Row = list[str]


class Table(NamedTuple):
    """A table with what it shows."""

    caption: str
    head: Row
    rows: list[Row]
    notes: tuple[str, ...] = ()
    """What one has to know before quoting a number."""


def nuclei_table(results: Mapping[str, Any] | None) -> Table | None:
    """Checkpoints, then the baselines; fixed and oracle figures in columns of their own.

    Raises:
        DataError: If the file is of another form.
    """
    if results is None:
        return None
    with results_read(NUCLEI_RESULTS):
        protocol = results["protocol"]
        num_test = protocol["num_images"] - protocol["num_calibration"]
        rows = [
            *(
                _nuclei_row(f"Iteration {each['iteration']:,}", each)
                for each in results["checkpoints"]
            ),
            *(
                _nuclei_row(name_of_method(name), each)
                for name, each in results["baselines"].items()
            ),
        ]
        caption = (
            f"{protocol['data_set']}: channel and threshold chosen on "
            f"{protocol['num_calibration']} labelled images, scored on {num_test} others. "
            f"The oracle picks the best channel of each image, so it only says what they could do."
        )
    head = ["Method", "IoU [95 %]", "AJI", "PQ", "Oracle IoU", "Random channel", "No labels IoU"]
    return Table(caption, head[: len(rows[0])], rows)


def _nuclei_row(name: str, scores: Mapping[str, Any]) -> Row:
    fixed = scores["fixed"]
    return [
        name,
        _interval(fixed["iou"]["mean"], fixed["iou"]["low"], fixed["iou"]["high"]),
        _number(fixed["aji"]["mean"]),
        _number(fixed["pq"]["mean"]),
        _number(scores["oracle"]["iou"]["mean"]),
        _number(scores["random_channel_iou"]),
        *([_number(scores["no_labels"]["iou"]["mean"])] if "no_labels" in scores else []),
    ]


def probe_tables(results: Mapping[str, Any] | None) -> list[Table]:
    """A table for each set that was probed.

    Raises:
        DataError: If the file is of another form.
    """
    if results is None:
        return []
    with results_read(PROBE_RESULTS):
        return [_probe_table(each) for each in results["sets"]]


def _probe_table(results: Mapping[str, Any]) -> Table:
    rows = []
    methods = [(f"Iteration {each['iteration']:,}", each) for each in results["checkpoints"]]
    methods += [(name_of_method(name), each) for name, each in results["rivals"].items()]
    for name, method in methods:
        row = [name]
        for classifier in ("knn", "logistic"):
            scores = method["scores"][classifier]
            for score in ("balanced_accuracy", "auroc"):
                value = scores[score]
                row.append(_interval(value["value"], value["low"], value["high"]))
        rows.append(row)
    classes = results["protocol"]["classes"]
    caption = (
        f"{results['name']}: {len(results['test_images'])} test images, {len(classes)} classes."
    )
    head = ["Features", "kNN accuracy", "kNN AUROC", "Logistic accuracy", "Logistic AUROC"]
    return Table(caption, head, rows, tuple(map(str, results.get("notes", ()))))


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return _number(value)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
