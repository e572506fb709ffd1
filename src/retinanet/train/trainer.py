"""A training run from options to best.ckpt, last.ckpt, metrics.csv, config.yaml and report.html."""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import yaml
from lightning.pytorch.callbacks import Callback

from retinanet.analysis.auto_anchors import fit_anchors
from retinanet.analysis.class_balance import class_alphas
from retinanet.analysis.coverage import reach
from retinanet.checkpoint.reading import read_checkpoint
from retinanet.config import TrainConfig, resolve, to_dict, with_options
from retinanet.data import DataError, DetectionData, cut, load_both
from retinanet.errors import ConfigError
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule
from retinanet.train.extensions import Extensions, load_extensions, object_names
from retinanet.train.graceful_stop import restarted, resume_command
from retinanet.train.initial_model import build, with_network_of
from retinanet.train.lightning_trainer import make_callbacks, make_trainer, share_batchnorm
from retinanet.train.loggers import make_logger, start_logging
from retinanet.train.memory import explained, with_batch_size
from retinanet.train.output_files import output_error, rank_zero, report_progress, write_output, writing
from retinanet.train.progress import clock
from retinanet.train.run_folder import OUR_FILES, check_output, put_aside
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
        left_out = f", {len(data.faults)} left out for a fault (--skip-invalid)" if data.faults else ""
        report_progress(
            f"{name}: {len(data.records)} images, {data.num_objects} objects, {len(data.classes)} classes{left_out}"
        )
    tiling = config.tiling
    if tiling.tile:
        train_data = cut(train_data, tiling).data
        report_progress(f"train: {len(train_data.records)} tiles and whole images, of tiles of {tiling.tile} pixels")
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
    folder, last = config.folder.output, config.folder.output / "last.ckpt"
    callbacks = make_callbacks(config, train_data.classes, extensions)
    trainer = make_trainer(config, callbacks.in_order, extensions.loggers or make_logger(config, resume=resume))
    model = share_batchnorm(model, config, trainer)
    val_tiles = cut(val_data, config.tiling)
    module = DetectionModule(model=model, config=config, train_data=train_data, val_data=val_data, val_tiles=val_tiles)
    data = DetectionDataModule(
        config=config, train_data=train_data, val_data=val_tiles.data, transform=extensions.transform
    )
    if resume:
        read_checkpoint(last)  # says what is wrong with it, before Lightning fails over it
    start_logging(trainer.loggers, config, resume=resume)
    start = time.monotonic()
    device = trainer.strategy.root_device
    with callbacks.stop.listening(), _plain_errors(folder), explained(model, config, train_data, device):
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
    if callbacks.checkpoints.unevaluated:
        trainer.validate(module, data, verbose=False)
        callbacks.checkpoints.settle(trainer, module)
    report_progress(f"trained for {clock(time.monotonic() - start)}")
    return TrainResult(
        best=folder / "best.ckpt",
        last=last,
        ap=callbacks.checkpoints.best_ap,
        seconds=callbacks.metrics_file.seconds(),
        config=config,
        val_data=val_data,
    )


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
