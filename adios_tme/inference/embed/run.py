"""Features of a data set, by one process or by several together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.data.corrupt import CorruptLog, CorruptPatch
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import index_archives, index_path
from adios_tme.distributed.collectives import (
    barrier,
    failing_together,
    max_over_ranks,
    on_first_rank,
    sum_over_ranks,
)
from adios_tme.distributed.hang_watch import HangWatch
from adios_tme.distributed.stop import StopListener, stop_on_signal
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.distributed.world import World, process_group
from adios_tme.errors import MembershipChangedError, TrainingStoppedError
from adios_tme.inference.embed.encoder import load_feature_encoder, name_of
from adios_tme.inference.embed.features_file import check_format
from adios_tme.inference.embed.folder import Layout, claim_folder, identity_of
from adios_tme.inference.embed.plan import PlannedSlide, plan_slides, share_out
from adios_tme.inference.embed.work import Work
from adios_tme.run_folder.layout import CORRUPT
from adios_tme.run_folder.lock import RunLock, owner_of_this_run
from adios_tme.run_folder.log import terminal_log
from adios_tme.terminal import progress_bar

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]


def run_embedding(config: EmbedConfig, *, channel: WorkerChannel | None = None) -> Path:
    """Embed every slide that is not finished, and return the output folder.

    Ranks share the slides, and take their batches in step, so that an error or a signal reaches all
    of them at once.

    Args:
        config: Settings.
        channel: What the launcher of this process says, if our own launched it.

    Raises:
        ConfigError: If the settings do not fit the encoder, the names or the output folder.
        CheckpointError: If the encoder cannot be loaded.
        DataError: If patches cannot be read, or files cannot be written.
        TrainingStoppedError: After a signal; finished slides stay.
        MembershipChangedError: When the launcher wants to start more processes.
    """
    timeout = config.launch.collective_timeout_seconds
    with (
        process_group(config.features.device, timeout) as world,
        stop_on_signal(channel) as stop,
        HangWatch(world, timeout) as hang_watch,
        terminal_log() if world.is_first else nullcontext(),
        _locked(config.output),
    ):
        hang_watch.at("loading the encoder")
        with failing_together():
            check_format(config.format)
            encoder = load_feature_encoder(config.run, config.features, world.device)
        index = _open_index(config)
        layout = Layout(config, config.encoder_name or name_of(config.run))
        hang_watch.at("reading names")
        with _bar("Reading names", world) as on_progress:
            planned = plan_slides(index, layout, world, on_progress)
        name = layout.encoder_name
        on_first_rank(lambda: claim_folder(config.output, identity_of(config, encoder, name)))
        pending = [slide for slide in planned if slide.state != "finished"]
        _announce(planned, pending, encoder.dim, world)
        own = share_out(pending, world.num_ranks)[world.rank]
        with ExitStack() as stack:
            with failing_together():
                work = Work(config, index, encoder, layout, own, world.device)
                stack.enter_context(closing(work)).start()
            num_patches = sum(len(slide.patches) for slide in pending)
            with _bar("Embedding patches", world) as on_progress:
                request = _take_steps(work, num_patches, stop, hang_watch, on_progress)
        _tell(config, work, len(pending))
        _check_finished(request)
    return config.output


def _take_steps(
    work: Work,
    num_patches: int,
    stop: StopListener,
    hang_watch: HangWatch,
    on_progress: OnProgress,
) -> Request:
    """Do the work of every rank in step; what asked for an end before the last one, if anything.

    Raises:
        AdiosError: Of any rank, on all of them.
    """
    num_steps = max_over_ranks(work.num_steps)
    for step in range(1, num_steps + 1):
        hang_watch.at(f"batch {step} of {num_steps}")
        with failing_together():
            work.step()
        on_progress(num_patches * step // num_steps, num_patches)
        request = stop.agree()
        if request != Request.CONTINUE and step < num_steps:
            return request
    return Request.CONTINUE


@contextmanager
def _bar(what: str, world: World) -> Iterator[OnProgress]:
    """A bar of the first rank."""
    if not world.is_first:
        yield lambda done, total: None
        return
    with progress_bar(what) as on_progress:
        yield on_progress


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the output folder, by the first rank."""
    owner = owner_of_this_run()
    with ExitStack() as stack:
        on_first_rank(lambda: _enter(stack, RunLock(folder, owner, "--output")))
        yield


def _enter(stack: ExitStack, lock: RunLock) -> None:
    stack.enter_context(lock)


def _open_index(config: EmbedConfig) -> DatasetIndex:
    """The index, brought up to date by the first rank."""
    path = index_path(config.data_path, config.output)

    def bring_up_to_date() -> None:
        with progress_bar("Indexing archives") as on_progress:
            report = index_archives(
                config.data_path,
                config.patches,
                path,
                tiling=config.tiling,
                own=[config.output],
                on_progress=on_progress,
            )
        report.log(logger)
        damage = CorruptLog(config.output / CORRUPT)
        damage.note(CorruptPatch(str(fault.path), "", fault.message) for fault in report.faults)

    on_first_rank(bring_up_to_date)
    return DatasetIndex.open(path)


def _announce(
    planned: list[PlannedSlide], pending: list[PlannedSlide], dim: int, world: World
) -> None:
    if not world.is_first:
        return
    num_changed = sum(slide.state == "changed" for slide in pending)
    num_finished = len(planned) - len(pending)
    if num_finished:
        logger.info("%d of %d slides are finished already.", num_finished, len(planned))
    if num_changed:
        logger.warning(
            "%d slides have other patches than their files, or damaged files, and are done again.",
            num_changed,
        )
    shared = [slide for slide in pending if slide.num_at_one_place]
    if shared:
        logger.warning(
            "%d of the patches to embed, first of %s, have the x and y of another one of their "
            "slide. If their names state the place of something larger, say by --name-pattern "
            "where their own stands.",
            sum(slide.num_at_one_place for slide in shared),
            shared[0].patches.name,
        )
    logger.info(
        "%d patches of %s to embed, as %d numbers each, on %d x %s.",
        sum(len(slide.patches) for slide in pending),
        _slides(len(pending)),
        dim,
        world.num_ranks,
        world.device.type,
    )


def _slides(number: int) -> str:
    return f"{number} slide{'s' * (number != 1)}"


def _tell(config: EmbedConfig, work: Work, num_pending: int) -> None:
    """Say what was done and what was left out (a collective)."""
    names = ("slides", "left_out", "slides_with_left_out", "empty")
    counts = dict(zip(names, sum_over_ranks(*(work.counts[name] for name in names)), strict=True))
    logger.info("Wrote %d of %s.", counts["slides"], _slides(num_pending))
    if counts["left_out"]:
        logger.warning(
            "Left out: %d patches of %d slides, which cannot be read; %d of these slides have no "
            "file. See %s; once they are mended, remove the files of those slides and run the same "
            "command again.",
            counts["left_out"],
            counts["slides_with_left_out"],
            counts["empty"],
            config.output / CORRUPT,
        )


def _check_finished(request: Request) -> None:
    """Raise what explains an end before the last slide.

    Raises:
        TrainingStoppedError: After a signal.
        MembershipChangedError: When processes are to begin again among more.
    """
    if request == Request.CONTINUE:
        return
    number = request.signal
    if number is None:
        barrier()
        raise MembershipChangedError("Stopped, to go on with more machines.")
    raise TrainingStoppedError(
        f"{number.name}: stopped; slides that are finished stay. "
        f"Run the same command again to go on.",
        number,
    )
