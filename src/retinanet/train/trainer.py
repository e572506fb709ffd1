"""Training from options to the files of the run folder: best.ckpt, last.ckpt, metrics.csv, config.yaml."""

from __future__ import annotations

import errno
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback

from retinanet.analysis.coverage import training_coverage
from retinanet.analysis.overfitting import find_overfitting
from retinanet.config import TrainConfig, resolve, to_dict, with_options
from retinanet.data import DataError, DetectionData, cut_into_tiles
from retinanet.errors import ConfigError
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.progress import LiveStatus, format_duration, no_live_status
from retinanet.torch_state import building_state
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule
from retinanet.train.devices import check_compiler, training_device
from retinanet.train.extensions import (
    Extensions,
    is_user_error,
    load_extensions,
    named_in_errors,
    object_names,
)
from retinanet.train.initial_model import build_model, with_start_model_options
from retinanet.train.lightning_trainer import (
    RunCallbacks,
    has_progress_bar,
    make_callbacks,
    make_trainer,
    share_batchnorm,
)
from retinanet.train.loader_workers import WorkerError, check_shared_memory, worker_failure
from retinanet.train.loggers import make_logger, start_logging
from retinanet.train.memory import checkpoint_size, explain_out_of_memory, with_batch_size
from retinanet.train.metrics_table import read_metrics
from retinanet.train.output_files import (
    check_free_space,
    is_rank_zero,
    output_error,
    report_progress,
    resume_command,
    write_output,
)
from retinanet.train.resume import (
    check_resumed_data,
    check_resumed_options,
    read_saved_run,
    why_ended,
    with_computed_options,
    with_run_options,
)
from retinanet.train.run_data import load_run_data, with_class_alphas, with_fitted_anchors
from retinanet.train.run_folder import ANCHORS_FILE, SAMPLING_FILE, check_run_files, files_of_run, restore_backup
from retinanet.train.run_lock import is_restart, locked_run_folder
from retinanet.train.time_budget import check_length_options, make_time_plan
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch.loggers import Logger

    from retinanet.data.dataset import Sample
    from retinanet.data.user_transform import Transform
    from retinanet.model import RetinaNet
    from retinanet.train.time_plan import TimePlan


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
        first_images: names and samples of the first training images, augmented as the network got them; empty on other
            ranks than 0.
    """

    best: Path
    last: Path
    ap: float
    seconds: float
    config: TrainConfig = field(repr=False)
    val_data: DetectionData = field(repr=False)
    first_images: Sequence[tuple[str, Sample]] = field(default=(), repr=False)


@building_state()
def fit(
    config: TrainConfig | None = None,
    *,
    transform: str | Transform | None = None,
    callbacks: Sequence[str | Callback] = (),
    logger: str | Logger | Sequence[Logger] | Literal[False] | None = None,
    started: float | None = None,
    live: LiveStatus = no_live_status,
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
        started: value of `time.monotonic` at which `time_budget` starts. Default: the call of this function.
        live: function that opens a display of the status on rank 0, see `retinanet.progress.LiveStatus`. It is not
            opened beside a progress bar of Lightning among the callbacks.
        options: options by name, as in the flags of `retinanet train`. `preset` sets the options that are not passed.

    Raises:
        ConfigError: an option does not exist or has an invalid value, or the run folder is in use.
        DataError: the data has faults. The message lists all faults, before training starts.
        BackboneError: the weights of the backbone are missing or do not fit.
        NonFiniteError: a loss, gradient or output of the network became NaN or infinite.
        OutputError: the run folder cannot be written.
        OutOfMemoryError: a training step does not fit into memory.
        WorkerError: a worker died or is stuck, or the shared memory is too small for the batches of the workers.
        StopRequest: SIGTERM, Ctrl-C or a closed terminal stopped training, after a checkpoint was saved.
    """
    started = time.monotonic() if started is None else started
    named = object_names(transform=transform, callbacks=callbacks, logger=logger)
    if config is None:
        config = resolve(TrainConfig, with_run_options({**options, **named}))
    else:
        config = with_options(config, **named)
    check_length_options(config)
    extensions = load_extensions(config, transform=transform, callbacks=callbacks, logger=logger)
    check_compiler(config, training_device(config))
    with locked_run_folder(config.folder.output):
        if is_rank_zero():
            restore_backup(config.folder.output)
        return _fit_in_folder(config, extensions, started, live)


def _fit_in_folder(config: TrainConfig, extensions: Extensions, started: float, live: LiveStatus) -> TrainResult:
    """Train in a locked run folder. Nothing is written before the options, the data and the weights are checked."""
    if is_restart() and not config.run.resume:
        config = _resume_after_restart(config)
    checkpoint = check_run_files(config)
    saved = read_saved_run(checkpoint, config) if checkpoint is not None else None
    if saved is not None:
        config = with_computed_options(config, saved)
        check_resumed_options(config, saved, report=True)
    else:
        config = with_start_model_options(config)
    # An invalid loss or assigner raises its error here, before the data is read.
    DetectionLoss(config=config.loss)
    make_assigner(config.matching)
    if config.run.resume and checkpoint is None:
        report_progress(
            f"{config.folder.output} holds a training run without a checkpoint: training starts from the beginning"
        )
    elif checkpoint is not None and checkpoint.name != "last.ckpt":
        report_progress(f"{config.folder.output / 'last.ckpt'} does not exist: training continues from {checkpoint}")
    L.seed_everything(config.random.seed, workers=False, verbose=False)
    config, train_data, val_data = load_run_data(config)
    config, anchors = with_fitted_anchors(train_data, config)
    config = with_class_alphas(train_data, config)
    if saved is not None:
        check_resumed_options(config, saved, report=False)
        check_resumed_data(train_data, val_data, saved)
    report_progress(f"anchors: {training_coverage(train_data, config).sentence(can_fit=not anchors)}")
    model, config = build_model(config, train_data.classes, checkpoint is not None)
    config = with_batch_size(model, config, train_data)
    check_shared_memory(config, train_data, val_data)
    if (ended := why_ended(config, saved) if saved is not None else None) is not None:
        report_progress(f"nothing is left to train: {ended}")
    return _train(
        model,
        config,
        train_data,
        val_data,
        extensions,
        anchors=anchors,
        checkpoint=checkpoint,
        ended=ended is not None,
        time_plan=make_time_plan(config, started),
        live=live,
    )


def write_config(config: TrainConfig, path: Path) -> None:
    """Write every option as YAML. `retinanet train --config FILE -o NEW` repeats the training run."""
    values = to_dict(with_options(config, resume=False, overwrite=False))
    # The time budget and the number of epochs exclude each other.
    for name in ("epochs", "max_steps") if config.schedule.time_budget is not None else ():
        del values[name]
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


def _train(
    model: RetinaNet,
    config: TrainConfig,
    train_data: DetectionData,
    val_data: DetectionData,
    extensions: Extensions,
    *,
    anchors: dict[str, Any],
    checkpoint: Path | None,
    ended: bool,
    time_plan: TimePlan | None,
    live: LiveStatus,
) -> TrainResult:
    folder, resume = config.folder.output, checkpoint is not None
    callbacks = make_callbacks(config, train_data.classes, extensions, resume=resume, ended=ended, time_plan=time_plan)
    trainer = make_trainer(config, callbacks.in_order, extensions.loggers or make_logger(config, resume=resume))
    model = share_batchnorm(model, config, trainer)
    if config.compute.compile:
        model.compile()
    val_tiles = cut_into_tiles(val_data, config.tiling)
    module = DetectionModule(
        model=model,
        config=config,
        train_data=train_data,
        val_data=val_data,
        val_tiles=val_tiles,
        time_plan=time_plan,
    )
    data = DetectionDataModule(
        config=config, train_data=train_data, val_data=val_tiles.data, transform=extensions.transform
    )
    data.check_memory()
    sampling = data.sampling.to_dict()
    report_progress(sampling["sentence"])
    start = time.monotonic()
    if is_rank_zero():
        check_free_space(folder, checkpoint_size(model, config))
    if has_progress_bar(callbacks.in_order) or not is_rank_zero():
        live = no_live_status
    with (
        live() as callbacks.progress.show,
        callbacks.start.undo_on_failure(),
        callbacks.stop.restored_handlers(),
        _user_errors(callbacks),
        explain_out_of_memory(model, config, train_data, trainer.strategy.root_device),
        named_in_errors(extensions, trainer),
    ):
        if is_rank_zero():
            write_config(config, folder / "config.yaml")
            write_output(folder / SAMPLING_FILE, json.dumps(sampling, indent=2))
            if anchors:
                write_output(folder / ANCHORS_FILE, json.dumps(anchors, indent=2))
        start_logging(trainer.loggers, config, resume=resume)
        trainer.fit(module, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    if callbacks.checkpoints.unevaluated:
        with live() as callbacks.progress.show, named_in_errors(extensions, trainer):
            trainer.validate(module, data, verbose=False)
        callbacks.checkpoints.save_if_best(trainer, module)
    if is_rank_zero():
        _report_overfitting(folder / "metrics.csv")
    if callbacks.time_budget is not None and not ended:
        callbacks.time_budget.write_result(trainer.global_step)
    report_progress(f"training time: {format_duration(time.monotonic() - start)}")
    return TrainResult(
        best=folder / "best.ckpt",
        last=folder / "last.ckpt",
        ap=callbacks.checkpoints.best_ap,
        seconds=callbacks.metrics_file.seconds(),
        config=config,
        val_data=val_data,
        first_images=data.first_images() if is_rank_zero() else (),
    )


def _report_overfitting(metrics: Path) -> None:
    """Report overfitting that metrics.csv shows. A file that a user has damaged does not fail a finished run."""
    with suppress(ValueError):
        if (overfitting := find_overfitting(read_metrics(metrics))) is not None:
            report_progress(overfitting.sentence())


@contextmanager
def _user_errors(callbacks: RunCallbacks) -> Iterator[None]:
    """Turn an error of a loader worker, and an `OSError` such as a full disk, into a short error with the next command.

    Raises:
        DataError: an image cannot be read. The traceback that a worker adds to its message is removed.
        OutputError: the run folder cannot be written.
        WorkerError: a worker died or is stuck.
        ConfigError: BatchNorm cannot be trained with such small images.
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
        disk_errors = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES}
        if error.errno not in disk_errors or is_user_error(error):
            raise
        raise output_error(error, folder) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "training BatchNorm needs more than one position per batch in each feature map, found an image without "
            "another of its size in a batch, and so small that a feature map has 1 x 1 positions: give a larger "
            "--image-size, or keep the BatchNorm layers of pretrained weights fixed (--freeze-batchnorm)"
        ) from error
