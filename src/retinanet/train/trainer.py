"""A training run from options to best.ckpt, last.ckpt, metrics.csv, config.yaml and report.html."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import torch
import yaml
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ProgressBar, RichProgressBar
from timm.layers.norm_act import convert_sync_batchnorm

from retinanet.analysis.auto_anchors import fit_anchors
from retinanet.analysis.class_balance import class_alphas
from retinanet.analysis.coverage import reach
from retinanet.checkpoint.reading import read_checkpoint
from retinanet.config import TrainConfig, resolve, to_dict, with_options
from retinanet.data import DataError, DetectionData, cut, load_both
from retinanet.errors import ConfigError
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.train.checkpointing import Checkpoints
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.distributed import RestartableDDP
from retinanet.train.extensions import Extensions, load_extensions, object_names
from retinanet.train.flight_recorder import FlightRecorder
from retinanet.train.graceful_stop import GracefulStop, restarted, resume_command
from retinanet.train.imbalance_file import ImbalanceFile
from retinanet.train.initial_model import build, with_network_of
from retinanet.train.loggers import make_logger, start_logging
from retinanet.train.memory import explained, with_batch_size
from retinanet.train.metrics_file import MetricsFile
from retinanet.train.module import DetectionModule
from retinanet.train.optimisation import RunningAverage
from retinanet.train.output_files import output_error, rank_zero, report_progress, write_output, writing
from retinanet.train.precision import PRECISIONS
from retinanet.train.progress import EpochLine, StepLimit, clock
from retinanet.train.run_folder import OUR_FILES, ReplaceRun, check_output, put_aside
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch.loggers import Logger

    from retinanet.data.user_transform import Transform
    from retinanet.model import RetinaNet


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a run ended with.

    Args:
        best: checkpoint with the highest AP.
        last: checkpoint of the last epoch.
        ap: the highest AP on the validation data.
        seconds: of training, over all resumed parts.
        config: the options of the run, with the values that were computed from the data.
        val_data: the validation data.
    """

    best: Path
    last: Path
    ap: float
    seconds: float
    config: TrainConfig = field(repr=False)
    val_data: DetectionData = field(repr=False)


def fit(
    config: TrainConfig | None = None,
    *,
    transform: str | Transform | None = None,
    callbacks: Sequence[str | Callback] = (),
    logger: str | Logger | Sequence[Logger] | Literal[False] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a detector: `fit(train=..., val=..., output=..., preset="small", epochs=20)`.

    Progress goes to the logger `retinanet.progress`; `logging.basicConfig(level=logging.INFO)` shows it.
    The command `retinanet train` also writes report.html.

    Args:
        config: all options at once,
        transform: changes each training image, see `retinanet.data.TrainingSample`; or `package.module:factory`.
        callbacks: Lightning callbacks, or `package.module:factory` for each.
        logger: Lightning logger or loggers, or a name as for `--logger`; False for none; TensorBoard unless given.
        options: or by name, as the flags of `retinanet train`; `preset` fills in the others.

    Raises:
        ConfigError: an option that does not exist, a bad value, or a run folder that is in use.
        DataError: faults in the data, all of them, before any training.
        BackboneError: no weights for the backbone.
        NonFiniteError: a loss, a gradient or an output of the network became NaN or infinite.
        OutputError: the run's folder cannot be written any more.
        StopRequest: SIGTERM or Ctrl-C, after saving.
    """
    named = object_names(transform=transform, callbacks=callbacks, logger=logger)
    config = with_options(config, **named) if config else resolve(TrainConfig, {**options, **named})
    extensions = load_extensions(config, transform=transform, callbacks=callbacks, logger=logger)
    config = with_network_of(config)
    DetectionLoss(config=config.loss)  # a loss or an assigner that cannot be made is refused before the data is read
    make_assigner(config.matching)
    if restarted() and not config.run.resume:
        config = _resumed_after_restart(config)
    has_checkpoint = check_output(config)
    if config.run.resume and not has_checkpoint:
        report_progress(f"{config.folder.output} holds a run that ended before its first checkpoint: it begins anew")
    L.seed_everything(config.random.seed, workers=False, verbose=False)
    train_data, val_data = load_both(config)
    for name, data in (("train", train_data), ("val", val_data)):
        for note in data.notes:
            report_progress(f"{name}: {note}")
        left_out = f", {len(data.faults)} left out for a fault (--skip-bad)" if data.faults else ""
        report_progress(
            f"{name}: {len(data.records)} pictures, {data.num_objects} objects, {len(data.classes)} classes{left_out}"
        )
    tiling = config.tiling
    if tiling.tile:
        train_data = cut(train_data, tiling).data
        report_progress(f"train: {len(train_data.records)} tiles and whole pictures, of tiles of {tiling.tile} pixels")
    config = _fitted_to(train_data, config)
    report_progress(f"anchors: {reach(train_data, config).sentence()}")
    model, config = build(config, train_data.classes)
    config = with_batch_size(model, _with_resumed_batch_size(config), train_data)
    if rank_zero():
        with writing(config.folder.output):
            config.folder.output.mkdir(parents=True, exist_ok=True)
        if config.existing.overwrite:
            put_aside(config.folder.output)
        write_config(config, config.folder.output / "config.yaml")
    return _train(model, config, train_data, val_data, extensions, resume=has_checkpoint)


def _fitted_to(data: DetectionData, config: TrainConfig) -> TrainConfig:
    """Return the config with what was to be computed from the data: anchors, and an alpha for each class.

    The result holds numbers only: `config.yaml` repeats the run without computing them again.
    """
    if config.fitted.anchors == "auto":
        fitted = fit_anchors(
            data,
            model_config=config.model,
            match_config=config.matching,
            image_config=config.image,
            seed=config.random.seed,
        )
        report_progress(f"auto-anchors: {fitted.sentence()}")
        config = with_options(config, anchors="given", **vars(fitted.model_config))
    if config.fitted.balance_classes:
        labels = np.concatenate([record.labels_G[~record.crowd_G] for record in data.records])
        counts = np.bincount(labels, minlength=len(data.classes)).tolist()
        alphas = class_alphas(counts, alpha=config.loss.alpha)
        said = ", ".join(f"{name} {alpha:.2f}" for name, alpha in zip(data.classes, alphas, strict=True))
        report_progress(f"alpha by class: {said}")
        config = with_options(config, class_alpha=alphas, balance_classes=False)
    if config.loss.class_alpha and len(config.loss.class_alpha) != len(data.classes):
        raise ConfigError(
            f"class_alpha needs a value for each of the {len(data.classes)} classes, found {config.loss.class_alpha}"
        )
    return config


def write_config(config: TrainConfig, path: Path) -> None:
    """Write every option as YAML: `retinanet train --config FILE -o NEW` repeats the run."""
    values = to_dict(with_options(config, resume=False, overwrite=False))
    for name in ("train", "val", "images", "val_images", "backbone_weights", "start_from"):
        if values[name] is not None:
            values[name] = str(Path(values[name]).absolute())
    head = f"# retinanet {__version__}; `retinanet train --config THIS -o NEW_FOLDER` repeats the run\n"
    write_output(path, (head + yaml.safe_dump(values, sort_keys=False)).encode())


def _resumed_after_restart(config: TrainConfig) -> TrainConfig:
    """Return the config to go on with what this very command began, where SLURM or torchrun runs it once more."""
    if not any((config.folder.output / name).exists() for name in OUR_FILES):
        return config
    report_progress(f"run again by SLURM or torchrun: going on with {config.folder.output}")
    return with_options(config, resume=True, overwrite=False)


def _with_resumed_batch_size(config: TrainConfig) -> TrainConfig:
    """Return the config with the number that `batch_size` auto became when the run began, where it is resumed."""
    path = config.folder.output / "config.yaml"
    if config.batch.batch_size or not config.run.resume or not path.exists():
        return config
    return with_options(config, batch_size=int(yaml.safe_load(path.read_text())["batch_size"]))


def _train(
    model: RetinaNet,
    config: TrainConfig,
    train_data: DetectionData,
    val_data: DetectionData,
    extensions: Extensions,
    *,
    resume: bool,
) -> TrainResult:
    checkpoints = Checkpoints(folder=config.folder.output)
    metrics_file = MetricsFile(path=config.folder.output / "metrics.csv", log_every=config.run.log_every)
    # The running average swaps its weights in before the evaluation and out after it, so it comes first.
    callbacks: list[Callback] = [RunningAverage(decay=config.optimiser.ema)] if config.optimiser.ema > 0 else []
    callbacks.append(FlightRecorder(config=config, classes=train_data.classes))
    callbacks += [metrics_file, ImbalanceFile(folder=config.folder.output, config=config, classes=train_data.classes)]
    if config.schedule.patience:
        callbacks.append(
            EarlyStopping("AP", mode="max", patience=config.schedule.patience, check_on_train_epoch_end=False)
        )
    if config.schedule.max_steps > 0:
        callbacks.append(StepLimit(config.schedule.max_steps))
    stop = GracefulStop(checkpoints=checkpoints, folder=config.folder.output)
    # Here the user's callbacks see the averaged weights in an evaluation, and their state of an epoch is saved with it.
    callbacks += extensions.callbacks
    callbacks += [ReplaceRun(config.folder.output), EpochLine(), checkpoints, stop]
    show_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if not show_bar and sys.stdout.isatty():
        show_bar = True
        callbacks.append(RichProgressBar(leave=False))
    _quieten()
    trainer = L.Trainer(
        accelerator=config.hardware.device,
        **_processes(config),
        precision=PRECISIONS[config.compute.precision],  # type: ignore[arg-type]
        max_epochs=config.schedule.epochs,
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip_gradients or None,
        check_val_every_n_epoch=config.run.evaluate_every,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=extensions.loggers or make_logger(config, resume=resume),
        log_every_n_steps=config.run.log_every,
        enable_checkpointing=False,
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.folder.output,
    )
    if config.compute.sync_batchnorm and trainer.world_size > 1:
        if trainer.strategy.root_device.type == "cpu":
            raise ConfigError("sync_batchnorm needs GPUs: PyTorch has no synchronised BatchNorm for the CPU")
        model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # timm's own: torch's drops the activations of its layers
    val_tiles = cut(val_data, config.tiling)
    module = DetectionModule(model=model, config=config, train_data=train_data, val_data=val_data, val_tiles=val_tiles)
    data = DetectionDataModule(
        config=config, train_data=train_data, val_data=val_tiles.data, transform=extensions.transform
    )
    last = config.folder.output / "last.ckpt"
    if resume:
        read_checkpoint(last)  # says what is wrong with it, before Lightning fails over it
    start_logging(trainer.loggers, config, resume=resume)
    start = time.monotonic()
    device = trainer.strategy.root_device
    with stop.listening(), _plain_errors(config.folder.output), explained(model, config, train_data, device):
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
    if checkpoints.unevaluated:
        trainer.validate(module, data, verbose=False)
        checkpoints.settle(trainer, module)
    report_progress(f"trained for {clock(time.monotonic() - start)}")
    return TrainResult(
        best=config.folder.output / "best.ckpt",
        last=last,
        ap=checkpoints.best_ap,
        seconds=metrics_file.seconds(),
        config=config,
        val_data=val_data,
    )


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


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """Take the traceback out of a message that a worker process sent, and put a full disk into words."""
    try:
        yield
    except DataError as error:
        said = str(error).strip().rpartition("DataError: ")[2]
        raise DataError(f"{said}\nmend it, then go on with: {resume_command(folder)}") from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES}:
            raise
        raise output_error(error, folder) from error


def _quieten() -> None:
    """Silence Lightning where it only advertises or repeats what we say in our own words."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for words in ("does not have many workers", r"isinstance\(treespec", "in eval mode", "logging interval"):
        warnings.filterwarnings("ignore", f".*{words}.*", module="lightning")
