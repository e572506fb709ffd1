"""The Lightning trainer of a run: its callbacks in their order, its devices and processes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ProgressBar, RichProgressBar
from timm.layers.norm_act import convert_sync_batchnorm

from retinanet.config import TrainConfig
from retinanet.errors import ConfigError
from retinanet.train.checkpointing import Checkpoints
from retinanet.train.distributed import RestartableDDP
from retinanet.train.extensions import Extensions
from retinanet.train.flight_recorder import FlightRecorder
from retinanet.train.graceful_stop import GracefulStop
from retinanet.train.imbalance_file import ImbalanceFile
from retinanet.train.metrics_file import MetricsFile
from retinanet.train.precision import PRECISIONS
from retinanet.train.progress import EpochLine, StepLimit
from retinanet.train.run_folder import ReplaceRun
from retinanet.train.running_average import RunningAverage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.model import RetinaNet


@dataclass(frozen=True, kw_only=True)
class RunCallbacks:
    """The callbacks of a run, those that the run itself needs by name."""

    checkpoints: Checkpoints
    metrics_file: MetricsFile
    stop: GracefulStop
    in_order: tuple[Callback, ...]


def make_callbacks(config: TrainConfig, classes: Sequence[str], extensions: Extensions) -> RunCallbacks:
    """Return the callbacks of a run. Lightning calls them in this order, and checkpoints last of all ours but one."""
    folder = config.folder.output
    checkpoints = Checkpoints(folder=folder)
    metrics_file = MetricsFile(path=folder / "metrics.csv", log_every=config.run.log_every)
    stop = GracefulStop(checkpoints=checkpoints, folder=folder)
    # The running average swaps its weights in before the evaluation and out after it, so it comes first.
    found: list[Callback] = [RunningAverage(decay=config.optimiser.ema)] if config.optimiser.ema > 0 else []
    found += [FlightRecorder(config=config, classes=classes), metrics_file]
    found.append(ImbalanceFile(folder=folder, config=config, classes=classes))
    if patience := config.schedule.patience:
        found.append(EarlyStopping("AP", mode="max", patience=patience, check_on_train_epoch_end=False))
    if config.schedule.max_steps > 0:
        found.append(StepLimit(config.schedule.max_steps))
    # Here the user's callbacks see the averaged weights in an evaluation, and their state of an epoch is saved with it.
    found += [*extensions.callbacks, ReplaceRun(folder), EpochLine(), checkpoints, stop]
    if sys.stdout.isatty() and not any(isinstance(callback, ProgressBar) for callback in found):
        found.append(RichProgressBar(leave=False))
    return RunCallbacks(checkpoints=checkpoints, metrics_file=metrics_file, stop=stop, in_order=tuple(found))


def make_trainer(config: TrainConfig, callbacks: Sequence[Callback], logger: Any) -> L.Trainer:
    """Return Lightning's trainer with the options of a run."""
    _quieten()
    return L.Trainer(
        accelerator=config.hardware.device,
        **_processes(config),
        precision=PRECISIONS[config.compute.precision],  # type: ignore[arg-type]
        max_epochs=config.schedule.epochs,
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip_gradients or None,
        check_val_every_n_epoch=config.run.evaluate_every,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=logger,
        log_every_n_steps=config.run.log_every,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.folder.output,
    )


def share_batchnorm(model: RetinaNet, config: TrainConfig, trainer: L.Trainer) -> RetinaNet:
    """Return the network with BatchNorm over the batch of all ranks, if the run asks for it. Raises `ConfigError`."""
    if not config.compute.sync_batchnorm or trainer.world_size == 1:
        return model
    if trainer.strategy.root_device.type == "cpu":
        raise ConfigError("sync_batchnorm needs GPUs: PyTorch has no synchronised BatchNorm for the CPU")
    return convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]  # timm's own: torch's drops the activations of its layers


def _processes(config: TrainConfig) -> dict[str, Any]:
    """Return the trainer's devices, machines and how they work together: under torchrun, what it has started."""
    devices, nodes = config.compute.devices or max(1, torch.cuda.device_count()), config.compute.nodes
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices == 1 and nodes == 1:
        return {"devices": 1}
    # `DetectionModule` shares BatchNorm's statistics itself.
    return {"devices": devices, "num_nodes": nodes, "strategy": RestartableDDP(broadcast_buffers=False)}


def _quieten() -> None:
    """Silence Lightning where it only advertises or repeats what we say in our own words."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for words in ("does not have many workers", r"isinstance\(treespec", "in eval mode", "logging interval"):
        warnings.filterwarnings("ignore", f".*{words}.*", module="lightning")
