"""What the numbers of a run mean, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from adios_tme.run_folder.health import (
    GAP_LINES,
    CollapseWarnings,
    DiagnosticWarnings,
    NucleiNotice,
)
from adios_tme.run_folder.metrics import Line
from adios_tme.viz.report.run_files import (
    NUCLEI_RESULTS,
    PROBE_RESULTS,
    RunFiles,
    results_read,
)

Level = Literal["good", "warn", "info"]

#: Share of the time that training may wait for data without being told.
MOST_WAITING = 0.1
#: Differences of IoU below this are called none.
NOTABLE = 0.01

_DIAGNOSED = (
    "mask_coverage",
    "mask_overlap",
    "adversarial_gap",
    "mask_haematoxylin_correlation",
)


class Verdict(NamedTuple):
    """A finding in words, with the numbers that it rests on."""

    level: Level
    title: str
    text: str


def verdicts(run: RunFiles) -> list[Verdict]:
    """Say how a run is by what it has logged and by what it was scored.

    Raises:
        DataError: If its scores are of another form.
    """
    found = [_end(run), _losses(run), *_embeddings(run), *_masks(run)]
    found += [*_data(run), *_restarts(run)]
    with results_read(NUCLEI_RESULTS):
        found += _nuclei(run)
    with results_read(PROBE_RESULTS):
        found += _probe(run)
    return found


def _end(run: RunFiles) -> Verdict:
    total = run.setting("optim", "total_iterations")
    if total is None or run.iteration >= total:
        return Verdict("good", "Finished", f"The run reached iteration {run.iteration:,}.")
    text = f"The last line is of iteration {run.iteration:,} of {total:,}."
    return Verdict("info", "Not finished", text)


def _losses(run: RunFiles) -> Verdict:
    known = [line for line in run.lines if "student_loss" in line]
    lost = sum(line["student_loss"] is None for line in known)
    if lost:
        text = f"The student's loss was not finite in {lost} of {len(known)} lines. Lower --lr."
        return Verdict("warn", "Losses are not finite", text)
    return Verdict("good", "Losses are finite", f"In all {len(known):,} lines of the log.")


def _embeddings(run: RunFiles) -> Iterator[Verdict]:
    """Whether the student tells images apart, by the rules by which the log warns."""
    keys = ("embedding_std", "rankme")
    lines = [line for line in run.lines if all(line.get(key) is not None for key in keys)]
    if not lines:
        return
    watch = CollapseWarnings(run.setting("optim", "warmup_iterations", 0))
    for line in lines:
        watch.warnings(line)
    if watch.active:
        yield Verdict("warn", "The student has collapsed", " ".join(watch.active.values()))
        return
    spread, rank = (lines[-1][key] for key in keys)
    text = f"Embeddings spread {spread:.2f} (1 is evenly) over {rank:.1f} dimensions at the end."
    yield Verdict("good", "Images are told apart", text)


def _masks(run: RunFiles) -> Iterator[Verdict]:
    """The diagnostics of masks, by the rules by which the log warns."""
    lines = [line for line in run.lines if all(line.get(key) is not None for key in _DIAGNOSED)]
    if not lines or run.setting("mask", "mask_source", "learned") != "learned":
        return
    first = run.setting("optim", "warmup_iterations", 0)
    found = _replayed(lines, first)
    last = lines[-1]
    healthy = {
        "collapsed": _coverage(last["mask_coverage"]),
        "duplicate": _overlap(last["mask_overlap"]),
        "gap": _gap([line["adversarial_gap"] for line in lines if line["iteration"] >= first]),
    }
    for kind, verdict in healthy.items():
        if words := found.active.get(kind):
            yield Verdict("warn", _FAULTY[kind], " ".join(words))
        else:
            yield verdict._replace(text=verdict.text + _earlier(found.begun.get(kind, [])))
    yield _sharpness(lines)
    yield _haematoxylin(found.channel, last["mask_haematoxylin_correlation"])


_FAULTY = {
    "collapsed": "A mask has collapsed",
    "duplicate": "Two masks are the same",
    "gap": "The student has caught up with the masks",
}


class _Replayed(NamedTuple):
    """What the log said of masks, by kind of fault."""

    active: dict[str, list[str]]
    """Words of what is wrong as of the last line."""
    begun: dict[str, list[int]]
    """Iterations at which it began."""
    channel: int | None
    """The nuclei's, from 1 on."""


def _replayed(lines: list[Line], first: int) -> _Replayed:
    watch, notice = DiagnosticWarnings(first), NucleiNotice()
    begun: dict[str, list[int]] = {}
    active: dict[str, list[str]] = {}
    for line in lines:
        before = set(watch.active)
        watch.warnings(line)
        notice.notices(line)
        for kind in set(watch.active) - before:
            begun.setdefault(kind.split()[0], []).append(line["iteration"])
    for kind, words in watch.active.items():
        active.setdefault(kind.split()[0], []).append(words)  # "collapsed 2" is of the second mask
    return _Replayed(active, begun, notice.channel)


def _coverage(shares: list[float | None]) -> Verdict:
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return Verdict("warn", "Masks are not finite", "The mask model has diverged. Lower --lr.")
    text = f"They cover {_percent(min(known))} to {_percent(max(known))} of the images."
    return Verdict("good", "Every mask is in use", text)


_FAULTY = {
    "collapsed": "A mask has collapsed",
    "duplicate": "Two masks are the same",
    "gap": "The student has caught up with the masks",
}


def _overlap(overlap: float) -> Verdict:
    text = f"The closest two overlap by {overlap:.2f} (1 is the same mask)."
    return Verdict("good", "Masks differ", text)


def _gap(gaps: list[float]) -> Verdict:
    recent = gaps[-GAP_LINES:]
    if len(recent) < GAP_LINES:
        text = f"The log has {len(recent)} lines after the warm-up, and {GAP_LINES} are needed."
        return Verdict("info", "Too early to say whether masks are hard", text)
    mean = sum(recent) / len(recent)
    return Verdict(
        "good",
        "Masks are hard for the student",
        f"Their loss is {mean:.3f} above that of the same masks at random places "
        f"(last {len(recent)} lines).",
    )


def _earlier(iterations: list[int]) -> str:
    if not iterations:
        return ""
    different = list(dict.fromkeys(iterations))
    shown = ", ".join(f"{iteration:,}" for iteration in different[:5])
    return f" It was otherwise from iteration {shown}{' and later' if different[5:] else ''}."


def _sharpness(lines: list[Line]) -> Verdict:
    values = [line["mask_entropy"] for line in lines if line.get("mask_entropy") is not None]
    if not values:
        return Verdict("info", "Sharpness is not known", "The log has no entropy of the masks.")
    fell = values[-1] < values[0]
    return Verdict(
        "good" if fell else "info",
        "Masks have become sharper" if fell else "Masks have not become sharper",
        f"The entropy of a pixel went from {values[0]:.2f} to {values[-1]:.2f} "
        f"(1 is undecided, 0 is sharp).",
    )


def _haematoxylin(channel: int | None, values: list[float | None]) -> Verdict:
    shown = ", ".join("none" if value is None else f"{value:.2f}" for value in values)
    text = f"Correlation of the masks with haematoxylin at the end: {shown}."
    if channel is None:
        return Verdict("info", "No mask is plainly the nuclei's", text)
    return Verdict("good", f"Mask {channel} follows the nuclei", text)


def _data(run: RunFiles) -> Iterator[Verdict]:
    waits = [line["data_wait_fraction"] for line in run.lines if line.get("data_wait_fraction")]
    if waits:
        mean = sum(waits) / len(waits)
        text = f"Training waited for data {_percent(mean)} of the time."
        if mean > MOST_WAITING:
            advice = " Raise --num-workers; adios-tme benchmark data says what the loader gives."
            yield Verdict("warn", "Data come too slowly", text + advice)
        else:
            yield Verdict("good", "Data come in time", text)
    damaged = run.lines[-1].get("num_damaged")
    if damaged or run.corrupt:
        text = f"{max(damaged or 0, len(run.corrupt)):,} could not be read and were replaced."
        yield Verdict("warn", "Some patches are corrupt", text + " They are listed below.")
    elif damaged is not None:
        yield Verdict("good", "Every patch could be read", "None had to be replaced.")


def _restarts(run: RunFiles) -> Iterator[Verdict]:
    count = len(run.history.starts) - 1
    if count > 0:
        times = "once" if count == 1 else f"{count} times"
        text = f"It was resumed {times}; causes are listed below."
        yield Verdict("info", "The run was interrupted", text)


def _nuclei(run: RunFiles) -> Iterator[Verdict]:
    """The newest checkpoint beside the best method without training, by the fixed protocol."""
    if run.nuclei is None:
        return
    newest = run.nuclei["checkpoints"][-1]
    differences = newest.get("differences") or {}
    if paired := (differences.get("fixed_cleaned") or differences.get("fixed") or {}).get("iou"):
        yield _by_intervals(paired)
        return
    model = newest["fixed"]["iou"]["mean"]
    baselines = run.nuclei["baselines"].items()
    means = {name: float(each["fixed"]["iou"]["mean"]) for name, each in baselines}
    if means:
        name = max(means, key=means.__getitem__)
        shown = f"IoU {model:.3f}, {name_of_method(name)} {means[name]:.3f}."
        gap = model - means[name]
        yield _of_nuclei(0 if abs(gap) < NOTABLE else gap, shown)


def _by_intervals(paired: dict[str, Any]) -> Verdict:
    """Where the benchmark compares image by image with the strongest baseline of the same kind."""
    mean, low, high = paired["mean"], paired["low"], paired["high"]
    name = name_of_method(paired["than"])
    shown = f"The difference of IoU from that of {name} is {mean:+.3f}"
    if low is None or high is None:
        return _of_nuclei(0, f"{shown}, on a single image.")
    return _of_nuclei(0 if low <= 0 <= high else mean, f"{shown} [{low:+.3f}, {high:+.3f}].")


def _of_nuclei(gap: float, shown: str) -> Verdict:
    if gap > 0:
        return Verdict("good", "Nuclei are found better than by every baseline", shown)
    if gap == 0:
        return Verdict("good", "Nuclei are found as well as by the best baseline", shown)
    text = f"{shown} For nuclei alone, that baseline is the better tool."
    return Verdict("info", "A baseline finds nuclei better", text)


def _probe(run: RunFiles) -> Iterator[Verdict]:
    """The newest checkpoint's kNN beside the best features that need no training, set by set."""
    for each in (run.probe or {}).get("sets", []):
        simple = {
            name: _accuracy(rival)
            for name, rival in each["rivals"].items()
            if name in _NEEDS_NO_TRAINING
        }
        if not simple or not each["checkpoints"]:
            continue
        name = max(simple, key=simple.__getitem__)
        paired = _difference(each["differences"], name)
        if paired is not None:
            text = (
                f"{each['name']}: balanced accuracy {_accuracy(each['checkpoints'][-1]):.3f} by "
                f"kNN, {name_of_method(name)} {simple[name]:.3f}; the difference is "
                f"{paired['value']:+.3f} [{paired['low']:+.3f}, {paired['high']:+.3f}]."
            )
            yield Verdict(*_judged(paired["low"], paired["high"]), text)


def _accuracy(method: dict[str, Any]) -> float:
    return float(method["scores"]["knn"]["balanced_accuracy"]["value"])


def _difference(differences: list[dict[str, Any]], rival: str) -> dict[str, float] | None:
    """Of the newest checkpoint to a rival, by kNN, on the same resamples."""
    for each in differences:
        if (each["classifier"], each["rival"]) == ("knn", rival):
            found: dict[str, float] = each["difference"]
            return found
    return None


_NEEDS_NO_TRAINING = ("random_encoder", "colour_statistics")


def _judged(low: float, high: float) -> tuple[Level, str]:
    """How a paired difference is called."""
    if low > 0:
        return "good", "Features are better than those without training"
    if high < 0:
        return "info", "Features without training are better"
    return "info", "Features are not told apart from those without training"


def name_of_method(name: str) -> str:
    """How a table calls what a benchmark's file calls ``otsu_haematoxylin``."""
    return name.replace("_", " ").replace("hed", "HED").capitalize().replace(" hed", " HED")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
