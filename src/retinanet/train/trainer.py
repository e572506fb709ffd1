"""Training from options to the files of the run folder: best.ckpt, last.ckpt, metrics.csv, config.yaml."""

from __future__ import annotations

import errno
import json
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
from retinanet.analysis.coverage import training_coverage
from retinanet.config import TrainConfig, flatten, resolve, to_dict, with_options
from retinanet.data import DataError, DetectionData, cut_into_tiles, load_train_and_val
from retinanet.errors import ConfigError
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.pixel_values import FULL_DEPTH, ValueRange
from retinanet.torch_state import building_state
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule
from retinanet.train.devices import check_compiler, training_device
from retinanet.train.extensions import Extensions, load_extensions, object_names
from retinanet.train.initial_model import build_model, with_start_model_options
from retinanet.train.lightning_trainer import RunCallbacks, make_callbacks, make_trainer, share_batchnorm
from retinanet.train.loader_workers import WorkerError, check_shared_memory, worker_failure
from retinanet.train.loggers import make_logger, start_logging
from retinanet.train.memory import checkpoint_size, explain_out_of_memory, with_batch_size
from retinanet.train.output_files import (
    check_free_space,
    is_rank_zero,
    output_error,
    report_progress,
    resume_command,
    write_output,
)
from retinanet.train.progress import format_duration
from retinanet.train.resume import (
    check_resumed_data,
    check_resumed_options,
    read_saved_run,
    with_computed_options,
    with_run_options,
)
from retinanet.train.run_folder import SAMPLING_FILE, check_run_files, files_of_run, restore_backup
from retinanet.train.run_lock import is_restart, locked_run_folder
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch.loggers import Logger

    from retinanet.data.user_transform import Transform
    from retinanet.model import RetinaNet


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Result of a training run.

    Args:
        best: path of the checkpoint with the highest AP.
        last: path of the checkpoint of the last epoch.
        ap: highest AP on the validation data.
        seconds: training time over all resumed parts, seconds.
        config: options of the training run, including the values that were computed from the data.
        val_data: validation data.
    """

    best: Path
    last: Path
    ap: float
    seconds: float
    config: TrainConfig = field(repr=False)
    val_data: DetectionData = field(repr=False)


@building_state()
def fit(
    config: TrainConfig | None = None,
    *,
    transform: str | Transform | None = None,
    callbacks: Sequence[str | Callback] = (),
    logger: str | Logger | Sequence[Logger] | Literal[False] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a detector: `fit(train=..., val=..., output=..., preset="small", epochs=20)`.

    The logger `retinanet.progress` receives the progress; `logging.basicConfig(level=logging.INFO)` shows it.
    The command `retinanet train` also writes report.html.

    Args:
        config: all options in one object. Without `config`, `options` sets the options by name.
        transform: function that changes each training image (see `retinanet.data.TrainingSample`), or
            `package.module:factory`.
        callbacks: Lightning callbacks, or `package.module:factory` for each.
        logger: Lightning logger or loggers, or a name accepted by `--logger`, or False for none. Default: TensorBoard.
        options: options by name, as in the flags of `retinanet train`. `preset` sets the options that are not passed.

    Raises:
        ConfigError: an option does not exist or has an invalid value, or the run folder is in use.
        DataError: the data has faults. The message lists all faults, before training starts.
        BackboneError: the weights of the backbone are missing or do not fit.
        NonFiniteError: a loss, gradient or output of the network became NaN or infinite.
        OutputError: the run folder cannot be written.
        OutOfMemoryError: a training step does not fit into memory.
        WorkerError: a worker died or is stuck, or the shared memory is too small for the batches of the workers.
        StopRequest: SIGTERM or Ctrl-C stopped training, after a checkpoint was saved.
    """
    named = object_names(transform=transform, callbacks=callbacks, logger=logger)
    if config is None:
        config = resolve(TrainConfig, with_run_options({**options, **named}))
    else:
        config = with_options(config, **named)
    extensions = load_extensions(config, transform=transform, callbacks=callbacks, logger=logger)
    check_compiler(config, training_device(config))
    with locked_run_folder(config.folder.output):
        if is_rank_zero():
            restore_backup(config.folder.output)
        return _fit_in_folder(config, extensions)


def _fit_in_folder(config: TrainConfig, extensions: Extensions) -> TrainResult:
    """Train in a locked run folder. Nothing is written before the options, the data and the weights are checked."""
    if is_restart() and not config.run.resume:
        config = _resume_after_restart(config)
    has_checkpoint = check_run_files(config)
    saved = read_saved_run(config.folder.output / "last.ckpt", config) if has_checkpoint else None
    if saved is not None:
        config = with_computed_options(config, saved)
        check_resumed_options(config, saved, report=True)
    else:
        config = with_start_model_options(config)
    # An invalid loss or assigner raises its error here, before the data is read.
    DetectionLoss(config=config.loss)
    make_assigner(config.matching)
    if config.run.resume and not has_checkpoint:
        report_progress(
            f"{config.folder.output} holds a training run without a checkpoint: training starts from the beginning"
        )
    L.seed_everything(config.random.seed, workers=False, verbose=False)
    config, train_data, val_data = _load_data(config)
    config = _with_fitted_options(train_data, config)
    if saved is not None:
        check_resumed_options(config, saved, report=False)
        check_resumed_data(train_data, val_data, saved)
    report_progress(f"anchors: {training_coverage(train_data, config).sentence()}")
    model, config = build_model(config, train_data.classes, has_checkpoint)
    config = with_batch_size(model, config, train_data)
    check_shared_memory(config, train_data, val_data)
    return _train(model, config, train_data, val_data, extensions, resume=has_checkpoint)


def _load_data(config: TrainConfig) -> tuple[TrainConfig, DetectionData, DetectionData]:
    """Return the config with the bit depth of the images, the training data (cut into tiles if the options say so) and
    the validation data. Report both datasets.
    """
    train_data, val_data = load_train_and_val(config)
    for name, data in (("train", train_data), ("val", val_data)):
        for note in data.notes:
            report_progress(f"{name}: {note}")
        left_out = f", {len(data.faults)} faults left out (--skip-invalid)" if data.faults else ""
        report_progress(
            f"{name}: {len(data.records)} images, {data.num_objects} objects, {len(data.classes)} classes{left_out}"
        )
    config = _with_bit_depth(config, ValueRange.join((train_data.value_range, val_data.value_range)))
    tiling = config.tiling
    if tiling.tile:
        train_data = cut_into_tiles(train_data, tiling).data
        report_progress(f"train: {len(train_data.records)} tiles and whole images; tile size {tiling.tile} pixels")
    return config, train_data, val_data


def _with_fitted_options(data: DetectionData, config: TrainConfig) -> TrainConfig:
    """Return the config with the options that depend on the data: anchors (`anchors`), alphas (`balance_classes`).

    The options then hold the computed numbers, so that config.yaml repeats the training run with the same numbers.
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
        config = with_options(config, anchors="given", **flatten(fitted.model_config))
    if config.fitted.balance_classes:
        labels = np.concatenate([record.labels_G[~record.crowd_G] for record in data.records])
        counts = np.bincount(labels, minlength=len(data.classes)).tolist()
        alphas = class_alphas(counts, alpha=config.loss.alpha)
        by_class = ", ".join(f"{name} {alpha:.2f}" for name, alpha in zip(data.classes, alphas, strict=True))
        report_progress(f"alpha by class: {by_class}")
        config = with_options(config, class_alpha=alphas, balance_classes=False)
    if config.loss.class_alpha and len(config.loss.class_alpha) != len(data.classes):
        raise ConfigError(
            f"class_alpha needs one value for each of the {len(data.classes)} classes, found "
            f"{len(config.loss.class_alpha)}: {config.loss.class_alpha}. Set one value per class, in the order of the "
            "class ids"
        )
    return config


def write_config(config: TrainConfig, path: Path) -> None:
    """Write every option as YAML. `retinanet train --config FILE -o NEW` repeats the training run."""
    values = to_dict(with_options(config, resume=False, overwrite=False))
    for name in ("train", "val", "images", "val_images", "backbone_weights", "start_from"):
        if values[name] is not None:
            values[name] = str(Path(values[name]).absolute())
    header = f"# retinanet {__version__}; `retinanet train --config THIS_FILE -o NEW_FOLDER` repeats the training run\n"
    write_output(path, (header + yaml.safe_dump(values, sort_keys=False)).encode())


def _resume_after_restart(config: TrainConfig) -> TrainConfig:
    """Return the config with `resume` set, if an earlier start of this command has written into the run folder."""
    if not files_of_run(config.folder.output):
        return config
    report_progress(f"restarted by SLURM or torchrun: resuming {config.folder.output}")
    return with_options(config, resume=True, overwrite=False)


def _with_bit_depth(config: TrainConfig, value_range: ValueRange | None) -> TrainConfig:
    """Return the config with the number of bits that 16-bit images use, if there are such images and it is auto."""
    if value_range is None:
        return config
    given = config.image.bit_depth
    depth = given or value_range.bit_depth
    if depth < FULL_DEPTH:
        other = "--bit-depth sets another number" if not given else "--bit-depth sets this number"
        report_progress(f"{value_range.describe()}. Value {2**depth - 1:,} is read as white ({other})")
    if value_range.largest >= 2**depth:
        report_progress(f"values above {2**depth - 1:,} become white, and their differences are lost")
    return with_options(config, bit_depth=depth)


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
    callbacks = make_callbacks(config, train_data.classes, extensions, resume=resume)
    trainer = make_trainer(config, callbacks.in_order, extensions.loggers or make_logger(config, resume=resume))
    model = share_batchnorm(model, config, trainer)
    if config.compute.compile:
        model.compile()
    val_tiles = cut_into_tiles(val_data, config.tiling)
    module = DetectionModule(model=model, config=config, train_data=train_data, val_data=val_data, val_tiles=val_tiles)
    data = DetectionDataModule(
        config=config, train_data=train_data, val_data=val_tiles.data, transform=extensions.transform
    )
    sampling = data.sampling.to_dict()
    report_progress(sampling["sentence"])
    start = time.monotonic()
    if is_rank_zero():
        check_free_space(folder, checkpoint_size(model, config))
    with (
        callbacks.start.undo_on_failure(),
        callbacks.stop.restored_handlers(),
        _user_errors(callbacks),
        explain_out_of_memory(model, config, train_data, trainer.strategy.root_device),
    ):
        if is_rank_zero():
            write_config(config, folder / "config.yaml")
            write_output(folder / SAMPLING_FILE, json.dumps(sampling, indent=2))
        start_logging(trainer.loggers, config, resume=resume)
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
    if callbacks.checkpoints.unevaluated:
        trainer.validate(module, data, verbose=False)
        callbacks.checkpoints.save_if_best(trainer, module)
    report_progress(f"training time: {format_duration(time.monotonic() - start)}")
    return TrainResult(
        best=folder / "best.ckpt",
        last=last,
        ap=callbacks.checkpoints.best_ap,
        seconds=callbacks.metrics_file.seconds(),
        config=config,
        val_data=val_data,
    )


@contextmanager
def _user_errors(callbacks: RunCallbacks) -> Iterator[None]:
    """Turn an error of a loader worker, and an `OSError` such as a full disk, into a short error with the next command.

    Raises:
        DataError: an image cannot be read. The traceback that a worker adds to its message is removed.
        OutputError: the run folder cannot be written.
        WorkerError: a worker died or is stuck.
    """
    folder = callbacks.start.folder
    try:
        yield
    except (WorkerError, RuntimeError) as error:
        if (failure := error if isinstance(error, WorkerError) else worker_failure(error)) is None:
            raise
        raise WorkerError(f"{failure}.\nThen resume with: {resume_command(folder)}") from error
    except DataError as error:
        message = str(error).strip().rpartition("DataError: ")[2]
        can_resume = callbacks.start.has_started or callbacks.start.resume
        advice = f"resume with: {resume_command(folder)}" if can_resume else "start the training run again"
        raise DataError(f"{message}\nCorrect the data, then {advice}") from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES}:
            raise
        raise output_error(error, folder) from error
