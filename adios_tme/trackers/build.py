"""The trackers of a run, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, util

from adios_tme.config.tracking import TrackerName
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError
from adios_tme.run_folder.layout import TRACKERS
from adios_tme.trackers.background import BackgroundTracker
from adios_tme.trackers.base import RunToTrack, ServiceTracker, Tracker
from adios_tme.trackers.jsonl import JsonLinesTracker
from adios_tme.trackers.run_ids import RunIds

#: How long a tracker may take to start, and to finish, while training waits.
LIMIT_SECONDS = 60.0


def check_packages(trackers: tuple[TrackerName, ...]) -> None:
    """Raise unless the package of every tracker is installed; none is imported.

    Raises:
        ConfigError: Naming what is missing.
    """
    missing = [name for name in trackers if not _is_installed(name)]
    if missing:
        raise ConfigError(
            f"trackers: {' and '.join(missing)} cannot be used, as the package is not installed "
            f"here. Run pip install 'adios-tme[{','.join(missing)}]', or drop "
            f"{' '.join(f'--trackers {name}' for name in missing)}."
        )


def build_trackers(config: TrainConfig, iteration: int) -> list[Tracker]:
    """Open every tracker of a run, and tell it the settings; metrics.jsonl is always the first.

    Args:
        config: Settings of the run.
        iteration: Finished updates.
    """
    output_dir, tracking = config.run.output_dir, config.tracking
    run = RunToTrack(
        output_dir=output_dir,
        project=tracking.tracker_project,
        name=tracking.tracker_run_name or output_dir.resolve().name,
        iteration=iteration,
        # The other ranks wait meanwhile.
        limit_seconds=min(LIMIT_SECONDS, config.launch.collective_timeout_seconds / 2),
    )
    ids = RunIds(output_dir / TRACKERS)
    trackers: list[Tracker] = [
        JsonLinesTracker(output_dir),
        *(BackgroundTracker(name, _starter(name), run, ids) for name in tracking.trackers),
    ]
    for tracker in trackers:  # all of which start at the same time
        tracker.store_init_configuration(config.model_dump(mode="json"))
    return trackers


def _is_installed(name: TrackerName) -> bool:
    """Whether a package is there, and not only a folder of its name, as wandb makes one."""
    spec = util.find_spec(name)
    return spec is not None and spec.origin is not None


def _starter(name: TrackerName) -> Callable[[RunToTrack], ServiceTracker]:
    """What opens a tracker; its module imports the package only then."""

    def start(run: RunToTrack) -> ServiceTracker:
        opened: ServiceTracker = import_module(f"adios_tme.trackers.{name}").open_run(run)
        return opened

    return start
