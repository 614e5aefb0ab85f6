"""Before the first step: the patches indexed, the folder claimed, the networks where they begin."""

from __future__ import annotations

import logging
import os
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from adios_tme.config.model import is_timm
from adios_tme.config.train import TrainConfig
from adios_tme.data.corrupt import CorruptLog, CorruptPatch
from adios_tme.data.index_builder import open_indexes, open_or_build
from adios_tme.data.mixture import PatchMixture
from adios_tme.distributed.collectives import on_first_rank
from adios_tme.distributed.world import World, torchrun_shares_store
from adios_tme.errors import ConfigError, DataError
from adios_tme.models.build import build_student
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.resolve import resolve
from adios_tme.pretrained import init_from, init_mask_encoder
from adios_tme.run_folder.checkpoints import find_checkpoint, read_checkpoint
from adios_tme.run_folder.layout import CORRUPT
from adios_tme.run_folder.log import run_log
from adios_tme.run_folder.prepare import check_same_shape, prepare_folder, resume_source
from adios_tme.terminal import progress_bar
from adios_tme.trackers.build import check_packages
from adios_tme.training.batches import plan_batches
from adios_tme.training.feed import Feed
from adios_tme.training.state import Run

#: Settings that rate and temperature follow, by section.
SCHEDULED = (
    *(("optim", name) for name in ("lr", "min_lr", "total_iterations", "warmup_iterations")),
    *(("loss", name) for name in ("initial_temp", "final_temp")),
)

logger = logging.getLogger(__name__)


def check_timm(config: TrainConfig, world: World) -> None:
    """Refuse a network of timm's that cannot be trained as the settings ask, before a run begins.

    Raises:
        ConfigError: If there is none, it takes no such images, or its batch norms would not see
            all images of an update.
    """
    optim, model, resolved = config.optim, config.model, resolve(config, world.device)
    plan = plan_batches(config.data.batch_size_per_gpu, optim.global_batch_size, world.num_ranks)
    student = build_student(model, config.data.img_size, resolved)
    if plan.num_passes > 1 and any(isinstance(each, nn.BatchNorm2d) for each in student.modules()):
        raise ConfigError(
            f"global_batch_size={optim.global_batch_size} takes {plan.num_passes} passes, and the "
            f"batch norms of arch={model.arch} must see all images of an update at once. Raise "
            f"--batch-size-per-gpu to {optim.global_batch_size} or start more processes, or use a "
            f"network without batch norm."
        )


def claim(config: TrainConfig, *, resumes: bool = False) -> None:
    """Index the patches, then make the output folder this run's.

    Args:
        config: Settings of the run.
        resumes: Whether this launch had the folder before, and only its processes are new.

    Raises:
        ConfigError: If the patches or a tracker's package are missing, or the folder holds another
            run.
        DataError: If no patch can be read, or the folder cannot be written.
    """
    check_packages(config.tracking.trackers)
    output_dir = config.run.output_dir
    with progress_bar("Indexing archives") as on_progress:
        reports = open_or_build(config.data, output_dir, on_progress)
    requeued = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
    prepare_folder(config, resumes=resumes or requeued)
    damage = CorruptLog(output_dir / CORRUPT)
    with run_log(output_dir):
        for report in reports:
            report.log(logger)
            damage.note(CorruptPatch(str(fault.path), "", fault.message) for fault in report.faults)


def open_index(config: TrainConfig, world: World) -> PatchMixture:
    """Open the indexes that the first rank has brought up to date.

    Raises:
        ConfigError: If a global batch holds no negatives.
        DataError: If there is one patch alone.
    """
    most, asked = config.data.batch_size_per_gpu, config.optim.global_batch_size
    if plan_batches(most, asked, world.num_ranks).global_size < 2:
        raise ConfigError(
            "data: batch_size_per_gpu=1 on one process leaves no other image to compare with. "
            "Use --batch-size-per-gpu or --global-batch-size 2 or more."
        )
    patches = open_indexes(config.data, config.run.output_dir)
    if len(patches) < 2:
        raise DataError(
            f"{config.data.roots[0].path}: one patch alone leaves no other image to compare with. "
            f"Add patches, or take more of those there with --all or --pattern."
        )
    return patches


def start(config: TrainConfig, world: World, index: PatchMixture) -> Run:
    """Build both networks, and go back to the newest checkpoint or take the weights asked for.

    Raises:
        CheckpointError: If what it should start from is missing, damaged or does not fit.
        ConfigError: If a run to resume has other settings, or has seen other patches.
    """
    run = Run.build(config, world)
    run.patches = index.content()
    settings = config.run
    source = on_first_rank(lambda: resume_source(settings))
    if source is not None:
        state = read_checkpoint(source)
        check_same_shape(config, state["config"], source)
        streams = run.load_state(state)
        randomness = (
            "random streams restored"
            if streams
            else f"new random streams: {state['world_size']} ranks have become {world.num_ranks}"
        )
        logger.info("Resumed %s at iteration %d; %s", source, run.iteration, randomness)
        check_same_patches(state, run, source)
        tell_new_schedule(state["config"], run)
    elif settings.init_from is not None:
        take_weights(run, settings.init_from)
    elif config.mask.mask_encoder_checkpoint is not None:
        source = find_checkpoint(config.mask.mask_encoder_checkpoint)
        assert isinstance(run.bare_mask_model, ViTUNet)
        init_mask_encoder(run.bare_mask_model, source)
        logger.info("Started the mask model's encoder from the student in %s", source)
    else:
        logger.info("Started from seed %d", settings.seed)
    return run


def check_same_patches(state: dict[str, Any], run: Run, source: Path) -> None:
    """Refuse to go on with other patches than a checkpoint saw, unless that is asked for.

    Raises:
        ConfigError: With both counts; a checkpoint of an early release does not tell.
    """
    before, now = state.get("patches"), run.patches
    if before is None or now is None or before == now:
        return
    counts = (
        f"{before['num_patches']} in {before['num_archives']} archives or folders then, "
        f"{now['num_patches']} in {now['num_archives']} now"
    )
    if not run.config.run.accept_new_data:
        raise ConfigError(
            f"{source}: the run has seen other patches than these ({counts}). Give the --data-path "
            f"and the rule of patches that it had, --accept-new-data to go on with these in "
            f"another order, or another --output-dir."
        )
    logger.warning("The run goes on with other patches (%s), in another order.", counts)


def tell_new_schedule(saved: dict[str, Any], run: Run) -> None:
    """Say what rate and temperature will be where settings of the schedule have changed."""
    now = run.config.model_dump(mode="json")
    changed = [
        f"{name} {old} -> {now[part][name]}"
        for part, name in SCHEDULED
        if (old := saved[part].get(name)) != now[part][name]
    ]
    if not changed or run.is_finished:
        return
    here, loss = run.schedule(), run.config.loss
    logger.info(
        "Another schedule from here on (%s): the student's learning rate is %.3g now and %.3g at "
        "iteration %d, the temperature %.3g and %.3g.",
        "; ".join(changed),
        here.lr,
        run.config.optim.min_lr,
        run.config.optim.total_iterations,
        here.temperature,
        loss.final_temp,
    )


def take_weights(run: Run, source: str) -> None:
    """Take weights from elsewhere, and log what did not fit."""
    misfits = init_from(run.bare_student, run.bare_mask_model, source)
    run.objective.restart(run.bare_student)
    if run.averaged_mask_model:
        run.averaged_mask_model.restart(run.bare_mask_model)
    logger.info("Started from the weights of %s; %d tensors did not fit", source, len(misfits))
    for misfit in misfits:
        logger.warning("%s", misfit)


def announce(run: Run, feed: Feed) -> None:
    """Log what is about to happen."""
    world = run.world
    log_batch = logger.info
    if run.batches.asked not in (None, run.global_batch_size):
        log_batch = logger.warning
    log_batch(
        "%d patches in %s; global batch %s on %s in %s; attention %s",
        len(feed.index),
        feed.index.sources,
        run.batches,
        world.device,
        str(run.resolved.dtype).removeprefix("torch."),
        "timm's own" if is_timm(run.config.model.arch) else run.resolved.attention,
    )
    total = run.config.optim.total_iterations
    ends = (
        ("The mask model is frozen", run.config.mask.train_mask_until),
        ("The prior from the stain ends", run.config.loss.stain_until),
    )
    for what, share in ends:
        if share < 1:
            logger.info("%s after %d of %d updates", what, ceil(share * total), total)
    if len(feed.index) < run.global_batch_size:
        logger.warning(
            "%d patches are fewer than a global batch of %d, so that an image is compared with "
            "itself as with another. Add patches, or lower --batch-size-per-gpu.",
            len(feed.index),
            run.global_batch_size,
        )
    if torchrun_shares_store():
        logger.warning(
            "torchrun shares its store with the training processes, which may then not meet again "
            "after one is killed. Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where torchrun starts."
        )
    if run.is_finished:
        logger.info(
            "The run is complete at iteration %d, on %d patches. Raise --total-iterations to "
            "go on.",
            run.iteration,
            len(feed.index),
        )
