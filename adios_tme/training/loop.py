"""One process's part of a run, from the first batch to the last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adios_tme.config.train import TrainConfig
from adios_tme.data.mixture import PatchMixture
from adios_tme.distributed.collectives import barrier, failing_together, on_first_rank
from adios_tme.distributed.hang_watch import HangWatch
from adios_tme.distributed.stop import stop_on_signal
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.distributed.world import World, process_group
from adios_tme.errors import (
    CheckpointError,
    MembershipChangedError,
    TrainingDivergedError,
    TrainingStoppedError,
)
from adios_tme.optim.schedule import Schedule
from adios_tme.run_folder.checkpoint_writer import CheckpointWriter
from adios_tme.run_folder.layout import NEWEST, REPORT
from adios_tme.run_folder.lock import RunLock, owner_of_this_run
from adios_tme.run_folder.log import run_log
from adios_tme.run_folder.prepare import record_settings, resume_source
from adios_tme.training.accumulate import accumulated_step
from adios_tme.training.evaluation import Evaluate
from adios_tme.training.feed import Feed, Pass
from adios_tme.training.recorder import Recorder
from adios_tme.training.sample_log import SampleLog, roll_back
from adios_tme.training.start import announce, claim, open_index, start
from adios_tme.training.state import Run
from adios_tme.training.step import Report, train_step

logger = logging.getLogger(__name__)

Admit = Callable[[TrainConfig, World], None]


def run_training(
    config: TrainConfig,
    *,
    channel: WorkerChannel | None = None,
    evaluate: Evaluate | None = None,
    admit: Admit | None = None,
) -> Path:
    """Train until ``total_iterations`` and return the last checkpoint.

    Args:
        config: Settings of the run.
        channel: What the launcher of this process says, if our own launched it.
        evaluate: Scores masks on labelled images, every ``eval_freq`` iterations.
        admit: Called before anything is built or written; raises what the run is refused for.

    Raises:
        ConfigError: If the settings do not fit the folder, the machine or each other.
        DataError: If the patches cannot be read.
        CheckpointError: If every checkpoint to resume from is damaged, or two in a row or the last
            one cannot be written.
        TrainingDivergedError: If gradients stay non-finite.
        TrainingStoppedError: After a signal, once the checkpoint is saved.
        MembershipChangedError: When the launcher wants to start more processes, likewise.
    """
    timeout = config.launch.collective_timeout_seconds
    with (
        _admitted(config, admit) as world,
        stop_on_signal(channel) as stop,
        HangWatch(world, timeout) as hang_watch,
        _claimed_folder(config) as lock,
    ):
        index = open_index(config, world)
        with run_log(config.run.output_dir, writes=world.is_first) as console:
            run = start(config, world, index)
            on_first_rank(lambda: record_settings(config))
            with (
                _feed(run, index) as feed,
                Recorder(run, feed, console, evaluate) as recorder,
                _sample_log(run, feed) as samples,
                _writer(run, lock) as writer,
            ):
                announce(run, feed)
                request, fed = Request.CONTINUE, iter(feed)
                while not run.is_finished and request == Request.CONTINUE:
                    hang_watch.at(f"iteration {run.iteration + 1}, waiting for data")
                    with failing_together():
                        passes = [next(fed) for _ in range(run.batches.num_passes)]
                    now = run.schedule()
                    hang_watch.at(f"iteration {run.iteration + 1}, computing")
                    report = take_step(run, passes, now)
                    if samples:
                        rows = [each.rows for each in passes]
                        samples.write(run.iteration + 1, run.samples_seen, rows)
                    run.advance()
                    recorder.record(report, now, passes)
                    check_soundness(run, feed, writer)
                    hang_watch.at(f"end of iteration {run.iteration}")
                    request = stop.agree(give_up=writer is not None and bool(writer.gave_up()))
                    if request == Request.GIVE_UP:
                        break
                    if request != Request.CONTINUE or save_is_due(run):
                        save(run, writer)
                hang_watch.at("writing the last checkpoint")
                if request == Request.GIVE_UP:
                    give_up(writer)
            if run.is_finished and config.run.report and world.is_first:
                hang_watch.at("writing the report")
                write_run_report(config.run.output_dir)
        check_finished(run, request)
    return config.run.output_dir / NEWEST


@contextmanager
def _admitted(config: TrainConfig, admit: Admit | None) -> Iterator[World]:
    """The processes of the run, once none of them refuses it."""
    with process_group(config.compute.device, config.launch.collective_timeout_seconds) as world:
        if admit is not None:
            with failing_together():
                admit(config, world)
        yield world


def take_step(run: Run, passes: list[Pass], now: Schedule) -> Report:
    """Update both networks on the images of one update."""
    if len(passes) == 1:
        return train_step(run, passes[0].images, now, passes[0].clean)
    images = [each.images for each in passes]
    return accumulated_step(run, images, now, [each.clean for each in passes])


@contextmanager
def _claimed_folder(config: TrainConfig) -> Iterator[RunLock | None]:
    """Hold the output folder, made ready by the first rank; None on the others."""
    owner = owner_of_this_run()
    with ExitStack() as stack:
        lock: list[RunLock] = []

        def take_and_prepare() -> None:
            lock.append(stack.enter_context(RunLock(config.run.output_dir, owner)))
            claim(config, resumes=not lock[0].is_new_launch)

        on_first_rank(take_and_prepare)
        yield lock[0] if lock else None


def _feed(run: Run, index: PatchMixture) -> Feed:
    config, batch_size = run.config, run.batches.images_per_pass
    return Feed(config.data, config.run, run.world, index, batch_size, run.samples_seen)


@contextmanager
def _sample_log(run: Run, feed: Feed) -> Iterator[SampleLog | None]:
    if not run.config.run.log_samples:
        yield None
        return
    folder = run.config.run.output_dir
    on_first_rank(lambda: roll_back(folder, run.iteration))
    with SampleLog(folder, run.world.rank, run.batches, feed.index.epoch_length) as log:
        yield log


@contextmanager
def _writer(run: Run, lock: RunLock | None) -> Iterator[CheckpointWriter | None]:
    """The first rank's writer of checkpoints."""
    if lock is None:
        yield None
        return
    settings = run.config.run
    keep_every = settings.keep_checkpoints and settings.keep_checkpoints * settings.save_freq
    with CheckpointWriter(settings.output_dir, keep_every, lock.check) as writer:
        yield writer


def save_is_due(run: Run) -> bool:
    """Whether this iteration ends with a checkpoint; the last one always does."""
    return run.iteration % run.config.run.save_freq == 0 or run.is_finished


def save(run: Run, writer: CheckpointWriter | None) -> None:
    """Hand the state of this moment to the writer of the first rank."""
    state = run.state()
    if writer is not None:
        writer.save(state)


def give_up(writer: CheckpointWriter | None) -> None:
    """Stop because checkpoints cannot be written any more.

    Raises:
        CheckpointError: Always; on the first rank with the reason.
    """
    reason = writer.gave_up() if writer else None
    raise reason or CheckpointError("The first rank could not write checkpoints; see its message.")


def check_finished(run: Run, request: Request) -> None:
    """Raise what explains an end before the last iteration.

    Raises:
        TrainingStoppedError: After a signal.
        MembershipChangedError: When processes are to begin again among more.
    """
    if run.is_finished:
        return
    number = request.signal
    if number is None:
        barrier()  # nobody begins again before the first rank has written
        raise MembershipChangedError(
            f"Saved at iteration {run.iteration}, to resume with more machines."
        )
    raise TrainingStoppedError(
        f"{number.name}: stopped after iteration {run.iteration}; the checkpoint is saved. "
        f"Run the same command again to go on.",
        number,
    )


def write_run_report(folder: Path) -> None:
    """Write the report of a finished run; whatever goes wrong costs the report and a warning."""
    from adios_tme.viz.report.page import write_report

    path = folder / REPORT
    try:
        write_report([folder], path)
    except Exception as error:  # the run is whole without it
        what = str(error) or type(error).__name__
        logger.warning("%s: was not written (%s). Try adios-tme viz report.", path, what)


def check_soundness(run: Run, feed: Feed, writer: CheckpointWriter | None) -> None:
    """Stop a run that has diverged or whose patches cannot be read, on every rank alike.

    Raises:
        TrainingDivergedError: If too many updates in a row were refused.
        DataError: If too many patches were corrupt.
    """
    if run.iteration % run.config.run.log_freq and not save_is_due(run):
        return
    for name, updater in run.updaters().items():
        if updater.has_diverged():
            if writer is not None:
                writer.wait()  # the newest may still be on its way to the disk
            barrier()
            raise TrainingDivergedError(
                f"The {name} model's gradients stayed non-finite until iteration {run.iteration}. "
                f"Those updates were refused; last good checkpoint: "
                f"{resume_source(run.config.run) or 'none yet'}. Lower --lr, or check the data."
            )
    with failing_together():
        feed.check_corrupt()
