"""One process's part of a run, from the first batch to the last checkpoint."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

from adios_tme.checkpoint import CheckpointWriter, find_checkpoint, read_checkpoint
from adios_tme.config.train import TrainConfig
from adios_tme.data.index import DatasetIndex
from adios_tme.data.indexing import index_path, open_or_build
from adios_tme.distributed import World, any_rank, barrier, process_group
from adios_tme.errors import ConfigError, DataError, TrainingDivergedError, TrainingStoppedError
from adios_tme.training.feed import Feed
from adios_tme.training.folder import check_same_shape, prepare_folder, resume_source
from adios_tme.training.metrics import Recorder
from adios_tme.training.signals import stop_on_signal
from adios_tme.training.state import Run
from adios_tme.training.step import train_step

logger = logging.getLogger("adios_tme")


def run_training(config: TrainConfig, *, prepare: bool = True) -> Path:
    """Train until ``total_iterations`` and return the last checkpoint.

    Args:
        config: Settings of the run.
        prepare: Whether the output folder is still to be claimed; a launcher does it before.

    Raises:
        ConfigError: If the settings do not fit the folder, the machine or each other.
        DataError: If the patches cannot be read.
        CheckpointError: If the checkpoint to go on from is damaged, or the last one cannot be
            written.
        TrainingDivergedError: If gradients stay non-finite.
        TrainingStoppedError: After a signal, once the checkpoint is saved.
    """
    with process_group(config.compute.device) as world, stop_on_signal() as stop:
        if prepare and world.is_first:
            prepare_folder(config)
        barrier()
        run = Run.build(config, world)
        index = open_index(config, world)
        history = restore(run)
        writer = CheckpointWriter(config.run.output_dir, config.run.keep_checkpoints)
        with Feed(config, world, index, run.samples_seen) as feed, Recorder(run, feed) as recorder:
            announce(run, feed, history)
            try:
                for images in feed:
                    if run.is_finished:
                        break
                    now = run.schedule()
                    report = train_step(run, images, now)
                    run.advance()
                    recorder.record(report, now)
                    check_health(run, feed)
                    if (leaving := stop.on_any_rank()) or save_is_due(run):
                        save(run, writer)
                    if leaving:
                        break
            finally:
                writer.close()
        if not run.is_finished:
            name = signal.Signals(stop.number).name
            raise TrainingStoppedError(
                f"{name}: stopped after iteration {run.iteration}; the checkpoint is saved. "
                f"Run the same command again to go on.",
                stop.number,
            )
    return find_checkpoint(config.run.output_dir)


def open_index(config: TrainConfig, world: World) -> DatasetIndex:
    """Build or open the index on the first rank, then open it on the others.

    Raises:
        ConfigError: If a global batch holds no negatives.
    """
    if config.data.batch_size_per_gpu * world.num_ranks < 2:
        raise ConfigError(
            "data: batch_size_per_gpu=1 on one process leaves no other image to compare with. "
            "Use --batch-size-per-gpu 2 or more."
        )
    assert config.data.data_path is not None
    output_dir = config.run.output_dir
    if world.is_first:
        report = open_or_build(config.data, output_dir)
        for fault in report.faults:
            logger.warning("Left out: %s", fault)
        if report.num_scanned:
            logger.info("Indexed %d archives in %s", report.num_scanned, report.index.path)
    barrier()
    return DatasetIndex.open(index_path(config.data.data_path, output_dir))


def restore(run: Run) -> str:
    """Go back to the newest checkpoint, or take the first weights that were asked for.

    Returns:
        What happened, for the log.
    """
    settings = run.config.run
    source = resume_source(run.config)
    if source is not None:
        state = read_checkpoint(source)
        check_same_shape(run.config, state["config"], source)
        streams = run.load_state(state)
        randomness = "random streams restored" if streams else "new random streams (other ranks)"
        return f"resumed {source} at iteration {run.iteration}; {randomness}"
    if settings.init_from is not None:
        source = find_checkpoint(Path(settings.init_from))
        state = read_checkpoint(source)
        check_same_shape(run.config, state["config"], source)
        run.load_weights(state)
        return f"started from the weights of {source}"
    return f"started from seed {settings.seed}"


def announce(run: Run, feed: Feed, history: str) -> None:
    """Log what is about to happen."""
    data, world = run.config.data, run.world
    logger.info("%s", history[0].upper() + history[1:])
    logger.info(
        "%d patches in %d archives; global batch %d (%d x %d ranks) on %s in %s; attention %s",
        len(feed.index),
        feed.index.num_archives,
        run.global_batch_size,
        data.batch_size_per_gpu,
        world.num_ranks,
        world.device,
        str(run.dtype).removeprefix("torch."),
        run.bare_student.encoder.attention,
    )
    if run.is_finished:
        logger.info(
            "The run is complete at iteration %d. Raise --total-iterations to go on.", run.iteration
        )


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
