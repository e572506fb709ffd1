"""Lightning trainer of a training run: its callbacks in order, its devices and its processes."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar
from timm.layers.norm_act import convert_sync_batchnorm

from retinanet.config import TrainConfig
from retinanet.errors import ConfigError
from retinanet.train.checkpointing import Checkpoints
from retinanet.train.devices import device_counts, training_device
from retinanet.train.distributed import RestartableDDP
from retinanet.train.extensions import Extensions
from retinanet.train.flight_recorder import FlightRecorder
from retinanet.train.graceful_stop import GracefulStop
from retinanet.train.imbalance_file import ImbalanceFile
from retinanet.train.metrics_file import MetricsFile
from retinanet.train.precision import PRECISIONS, BFloat16Precision
from retinanet.train.progress import Patience, ProgressReport, StepLimit
from retinanet.train.run_folder import TIME_BUDGET_FILE, ReversibleStart
from retinanet.train.running_average import RunningAverage
from retinanet.train.time_budget import TimeBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.model import RetinaNet
    from retinanet.train.time_plan import TimePlan


@dataclass(frozen=True, kw_only=True)
class RunCallbacks:
    """Callbacks of a training run. `in_order` holds all callbacks; the other fields give access to single ones."""

    checkpoints: Checkpoints
    metrics_file: MetricsFile
    stop: GracefulStop
    start: ReversibleStart
    time_budget: TimeBudget | None
    progress: ProgressReport
    in_order: tuple[Callback, ...]


def make_callbacks(
    config: TrainConfig,
    classes: Sequence[str],
    extensions: Extensions,
    *,
    resume: bool,
    ended: bool,
    time_plan: TimePlan | None = None,
) -> RunCallbacks:
    """Return the callbacks of a training run. Lightning calls them in the order of `in_order`.

    Args:
        config: options of the training run.
        classes: class names of the training data.
        extensions: callbacks and loggers of the user.
        resume: whether training continues from last.ckpt.
        ended: whether no step is left to train after the resume.
        time_plan: plan of a training run with a time budget.
    """
    folder = config.folder.output
    checkpoints = Checkpoints(folder=folder, ended=ended)
    metrics_file = MetricsFile(path=folder / "metrics.csv", log_every=config.run.log_every)
    stop = GracefulStop(checkpoints=checkpoints, folder=folder)
    start = ReversibleStart(config, resume=resume)
    # The running average replaces the weights during an evaluation. It comes first, so all others see the average.
    callbacks: list[Callback] = [RunningAverage(decay=config.optimiser.ema)] if config.optimiser.ema > 0 else []
    callbacks += [FlightRecorder(config=config, classes=classes), metrics_file]
    callbacks.append(ImbalanceFile(folder=folder, config=config, classes=classes))
    if patience := config.schedule.patience:
        callbacks.append(Patience(patience))
    if config.schedule.max_steps > 0:
        callbacks.append(StepLimit(config.schedule.max_steps))
    time_budget = TimeBudget(time_plan, path=folder / TIME_BUDGET_FILE) if time_plan is not None else None
    callbacks += [time_budget] if time_budget is not None else []
    # The user's callbacks come before the checkpoints, which then include the state of these callbacks after the epoch.
    progress = ProgressReport(
        metrics_file=metrics_file,
        best_ap=lambda: checkpoints.best_ap,
        max_steps=config.schedule.max_steps,
        time_plan=time_plan,
    )
    callbacks += [*extensions.callbacks, start, progress, checkpoints, stop]
    return RunCallbacks(
        checkpoints=checkpoints,
        metrics_file=metrics_file,
        stop=stop,
        start=start,
        time_budget=time_budget,
        progress=progress,
        in_order=tuple(callbacks),
    )


def make_trainer(config: TrainConfig, callbacks: Sequence[Callback], logger: Any) -> L.Trainer:
    """Return Lightning's trainer with the options of a training run.

    Raises:
        ConfigError: Lightning refuses the options, for example a number of nodes that SLURM contradicts.
    """
    _silence_lightning()
    options = _trainer_options(config, callbacks)
    try:
        return L.Trainer(callbacks=list(callbacks), logger=logger, **options)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        advice = (
            ". In an interactive session of SLURM, set SLURM_JOB_NAME=interactive" if SLURMEnvironment.detect() else ""
        )
        raise ConfigError(
            f"Lightning refuses to start: {error}{advice}. The options are --device {config.hardware.device}, "
            f"--devices {config.compute.devices}, --nodes {config.compute.nodes} and --precision "
            f"{config.compute.precision}"
        ) from error


def _trainer_options(config: TrainConfig, callbacks: Sequence[Callback]) -> dict[str, Any]:
    return dict(
        **_device_options(config),
        **_precision_options(config),
        # With a time budget, the callback `TimeBudget` sets both numbers.
        max_epochs=config.schedule.epochs if config.schedule.time_budget is None else -1,
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip_gradients or None,
        check_val_every_n_epoch=config.run.evaluate_every if config.schedule.time_budget is None else 1,
        num_sanity_val_steps=0,
        log_every_n_steps=config.run.log_every,
        enable_checkpointing=False,
        enable_progress_bar=has_progress_bar(callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.folder.output,
    )


def has_progress_bar(callbacks: Sequence[Callback]) -> bool:
    """Return whether a progress bar of Lightning is among the callbacks, which only a user adds."""
    return any(isinstance(callback, ProgressBar) for callback in callbacks)


def share_batchnorm(model: RetinaNet, config: TrainConfig, trainer: L.Trainer) -> RetinaNet:
    """Return the network with BatchNorm synchronised over the ranks if `sync_batchnorm` is set.

    Raises:
        ConfigError: the devices are CPUs.
    """
    if not config.compute.sync_batchnorm or trainer.world_size == 1:
        return model
    if trainer.strategy.root_device.type == "cpu":
        raise ConfigError(
            "sync_batchnorm needs GPUs, because PyTorch has no synchronised BatchNorm for the CPU; found device cpu: "
            "remove --sync-batchnorm"
        )
    # timm's function, because torch's drops the activations inside timm's BatchNorm layers
    return convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]


def _device_options(config: TrainConfig) -> dict[str, Any]:
    """Return the trainer's options for devices, nodes and strategy."""
    device = training_device(config)
    devices, nodes = device_counts(config)
    if devices == 1 and nodes == 1:
        one_gpu = device.type == "cuda" and device.index is not None
        return {"accelerator": device.type, "devices": [device.index] if one_gpu else 1}
    # `DetectionModule` copies the BatchNorm statistics of rank 0 itself, so DDP need not broadcast buffers.
    strategy = RestartableDDP(broadcast_buffers=False)
    return {"accelerator": device.type, "devices": devices, "num_nodes": nodes, "strategy": strategy}


def _precision_options(config: TrainConfig) -> dict[str, Any]:
    if config.compute.precision == "bf16":
        return {"plugins": [BFloat16Precision(training_device(config).type)]}
    return {"precision": PRECISIONS[config.compute.precision]}


def _silence_lightning() -> None:
    """Suppress Lightning's messages that advertise, or that repeat messages of this package."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    without_patience = re.escape(f'add the following callbacks: ["{Patience.STATE_KEY}"]')
    patterns = ["does not have many workers", r"isinstance\(treespec", "in eval mode", "logging interval"]
    patterns.append("sync_dist=True")  # all ranks log the same numbers
    patterns.append("your dataloader is not resumable")  # the batch sampler skips the batches already used
    for pattern in (*patterns, without_patience):
        warnings.filterwarnings("ignore", f".*{pattern}.*", module="lightning")
    # `_device_options` turns the option off, and its successor would still copy the buffers at the start.
    warnings.filterwarnings("ignore", ".*`broadcast_buffers` is deprecated")
