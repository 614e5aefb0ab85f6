"""The page itself: what a template is filled with, and the file that is written."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from adios_tme.errors import DataError
from adios_tme.files import check_suffix, write_whole
from adios_tme.run_folder.layout import REPORT
from adios_tme.version import __version__
from adios_tme.viz.report.charts import charts_of
from adios_tme.viz.report.embedded import Embedded, Series, embed_series
from adios_tme.viz.report.run_files import RunFiles, read_run
from adios_tme.viz.report.scores import nuclei_table, probe_tables
from adios_tme.viz.report.settings import changed_settings, differing_settings, flat_settings
from adios_tme.viz.report.training_data import training_data
from adios_tme.viz.report.verdicts import verdicts

SUFFIXES = (".html",)
#: Largest file, and what of it pictures of masks may take; the rest is far below.
MOST_BYTES, PICTURE_BYTES = 10_000_000, 6_500_000
#: Lines of long tables.
MOST_ROWS = 50

_HERE = Path(__file__).parent


def report_path(runs: Sequence[Path]) -> Path:
    """Where a report goes that has no name: into the folder of its run, or here for several."""
    return runs[0] / REPORT if len(runs) == 1 else Path(REPORT)


def write_report(
    runs: Sequence[Path],
    path: Path,
    nuclei: Sequence[Path] = (),
    probe: Sequence[Path] = (),
    features: Sequence[Embedded] = (),
) -> None:
    """Write one HTML file that tells of a run or compares several; it needs no network.

    Args:
        runs: Output folders.
        path: The file.
        nuclei: Results of the nuclei benchmark of each run; none: those in their folders.
        probe: Results of the probe of each run; likewise.
        features: A picture of each run's patch tokens and attention, where it was drawn.

    Raises:
        ConfigError: If the name does not end in .html.
        DataError: If a run has no metrics, or a file of it is damaged.
        OSError: If it cannot be written.
    """
    check_suffix(path, SUFFIXES)
    read = [
        read_run(run, nuclei[number] if nuclei else None, probe[number] if probe else None)
        for number, run in enumerate(runs)
    ]
    text = render(read, features)
    if len(text.encode("utf-8")) > MOST_BYTES:
        raise DataError(
            f"{path}: would be larger than {MOST_BYTES // 1_000_000} MB. Give fewer runs."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def render(runs: Sequence[RunFiles], features: Sequence[Embedded] = ()) -> str:
    """The page of some runs."""
    names = _names(runs)
    views = [_view(name, run, len(runs)) for name, run in zip(names, runs, strict=True)]
    for view, picture in zip(views, features, strict=False):
        view["features"] = picture
    lines = {name: run.lines for name, run in zip(names, runs, strict=True)}
    settings = {name: run.settings for name, run in zip(names, runs, strict=True)}
    scripts = [f"/*\n{_vendored('uPlot.LICENSE.txt')}\n*/\n{_vendored('uPlot.iife.min.js')}"]
    scripts += [_own("report.js")]
    styles = [_vendored("uPlot.min.css"), _own("report.css")]
    return _template().render(
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        runs=views,
        differing=differing_settings(settings),
        data={"charts": charts_of(lines), "series": [_slider(view) for view in views]},
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],  # files of the package, as they are
        styles=[Markup(style) for style in styles],
        version=__version__,
    )


def _template() -> Template:
    surroundings = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,  # whatever a slide or a folder is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters["count"] = _count
    return surroundings.get_template("page.html.j2")


def _vendored(name: str) -> str:
    return (_HERE.parent / "vendor" / name).read_text("utf-8")


def _own(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may run and load: these scripts, and nothing of any other place."""
    digests = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode('ascii')}'" for each in digests)
    sources = f"script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    paths = [run.folder.resolve() for run in runs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, start=1)]


def _view(name: str, run: RunFiles, num_runs: int) -> dict[str, Any]:
    """What the template says of a run."""
    return {
        "name": name,
        "folder": str(run.folder),
        "facts": _facts(run),
        "last": run.lines[-1],
        "verdicts": verdicts(run),
        "series": embed_series(run.pictures, PICTURE_BYTES // num_runs),
        "features": None,
        "nuclei": nuclei_table(run.nuclei),
        "probe": probe_tables(run.probe),
        "training_data": training_data(run),
        "corrupt": run.corrupt[:MOST_ROWS],
        "num_corrupt": len(run.corrupt),
        "starts": run.history.starts[-MOST_ROWS:],
        "warnings": run.history.warnings[-MOST_ROWS:],
        "num_warnings": len(run.history.warnings),
        "changed": changed_settings(run.settings),
        "settings": flat_settings(run.settings),
        "environment": _environment(run.environment),
        "command": shlex.join(map(str, run.environment.get("command", []))),
    }


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """A few numbers that stand at the top."""
    last = run.lines[-1]
    return [
        ("Iterations", _count(run.iteration)),
        ("Patches seen", _count(last.get("samples_seen"))),
        ("Epochs", f"{last['epoch']:.2f}" if last.get("epoch") is not None else "unknown"),
        ("Time", _duration(run.history.seconds)),
        ("Encoder", str(run.setting("model", "arch", "unknown"))),
        ("Mask model", str(run.setting("mask", "mask_model_type", "unknown"))),
        ("Masks", str(run.setting("mask", "num_masks", "unknown"))),
        ("Image side", f"{run.setting('data', 'img_size', 'unknown')} px"),
    ]


def _slider(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    series: Series = view["series"]
    return [{"iteration": iteration, "uri": picture.uri} for iteration, picture in series.pictures]


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages") or {}
    rows = {key: environment.get(key) for key in ("adios_tme", "python", "platform", "host")}
    gpus = environment.get("gpus") or ["none"]
    rows |= {"GPUs": ", ".join(map(str, gpus))} if environment else {}
    return [(str(key), str(value)) for key, value in (rows | dict(packages)).items() if value]


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute" if seconds else "unknown"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
