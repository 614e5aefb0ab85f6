"""One process's part of a run, from the first batch to the last checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path

from adios_tme.checkpoint import CheckpointWriter, find_checkpoint
from adios_tme.config.train import TrainConfig
from adios_tme.distributed import any_rank, barrier, process_group
from adios_tme.errors import DataError, TrainingDivergedError, TrainingStoppedError
from adios_tme.training.feed import Feed
from adios_tme.training.folder import resume_source
from adios_tme.training.log import run_log
from adios_tme.training.metrics import Evaluate, Recorder
from adios_tme.training.signals import SharedNumber, stop_on_signal
from adios_tme.training.start import announce, claim, open_index, start
from adios_tme.training.state import Run
from adios_tme.training.step import train_step


def run_training(
    config: TrainConfig,
    *,
    prepare: bool = True,
    launcher: SharedNumber | None = None,
    evaluate: Evaluate | None = None,
) -> Path:
    """Train until ``total_iterations`` and return the last checkpoint.

    Args:
        config: Settings of the run.
        prepare: Whether the output folder is still to be claimed; a launcher does it before.
        launcher: Number of the signal that the launcher was sent, or 0.
        evaluate: Scores masks on labelled images, every ``eval_freq`` iterations.

    Raises:
        ConfigError: If the settings do not fit the folder, the machine or each other.
        DataError: If the patches cannot be read.
        CheckpointError: If the checkpoint to go on from is damaged, or the last one cannot be
            written.
        TrainingDivergedError: If gradients stay non-finite.
        TrainingStoppedError: After a signal, once the checkpoint is saved.
    """
    with process_group(config.compute.device) as world, stop_on_signal(launcher) as stop:
        if prepare and world.is_first:
            claim(config)
        barrier()
        index = open_index(config, world)
        with run_log(config.run.output_dir, writes=world.is_first) as console:
            run = start(config, world)
            with (
                Feed(config, world, index, run.samples_seen) as feed,
                Recorder(run, feed, console, evaluate) as recorder,
                CheckpointWriter(config.run.output_dir, config.run.keep_checkpoints) as writer,
            ):
                announce(run, feed)
                for images in feed:
                    if run.is_finished:
                        break
                    now = run.schedule()
                    report = train_step(run, images, now)
                    run.advance()
                    recorder.record(report, now, images)
                    check_health(run, feed)
                    if (leaving := stop.on_any_rank()) or save_is_due(run):
                        save(run, writer)
                    if leaving:
                        break
        if not run.is_finished:
            name = signal.Signals(stop.number).name
            raise TrainingStoppedError(
                f"{name}: stopped after iteration {run.iteration}; the checkpoint is saved. "
                f"Run the same command again to go on.",
                stop.number,
            )
    return find_checkpoint(config.run.output_dir)


def save_is_due(run: Run) -> bool:
    """Whether this iteration ends with a checkpoint; the last one always does."""
    return run.iteration % run.config.run.save_freq == 0 or run.is_finished


def save(run: Run, writer: CheckpointWriter) -> None:
    """Hand the state of this moment to the writer of the first rank."""
    state = run.state()
    if run.world.is_first:
        writer.save(state)


def check_health(run: Run, feed: Feed) -> None:
    """Stop a run that has diverged or whose patches cannot be read, on every rank alike.

    Raises:
        TrainingDivergedError: If too many updates in a row were refused.
        DataError: If too many patches were damaged.
    """
    if run.iteration % run.config.run.log_freq and not save_is_due(run):
        return
    for name, updater in run.updaters().items():
        if updater.has_diverged():
            raise TrainingDivergedError(
                f"The {name} model's gradients stayed non-finite until iteration {run.iteration}. "
                f"Those updates were refused; last good checkpoint: "
                f"{resume_source(run.config) or 'none yet'}. Lower --lr, or check the data."
            )
    damage: DataError | None = None
    try:
        feed.check_damage()
    except DataError as error:
        damage = error
    if any_rank(damage is not None):
        raise damage or DataError("Another rank met too many damaged patches; see its message.")
