"""Comparison of a resumed training run with its checkpoint, before anything is changed."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.analysis.auto_anchors import ANCHOR_OPTIONS
from retinanet.checkpoint.loaded_model import KEY, CheckpointError
from retinanet.checkpoint.reading import read_checkpoint
from retinanet.config import (
    ImageConfig,
    LossConfig,
    MatchConfig,
    ModelConfig,
    PostprocessConfig,
    TrainConfig,
    flatten,
    given_options,
    options_of,
    section_from_dict,
    with_options,
)
from retinanet.config.option_file import read_yaml
from retinanet.errors import ConfigError
from retinanet.files import user_path
from retinanet.former_names import current_options
from retinanet.parse import parse_duration
from retinanet.pixel_values import FULL_DEPTH
from retinanet.train.output_files import report_progress
from retinanet.train.progress import Patience
from retinanet.train.run_folder import continue_from_best

if TYPE_CHECKING:
    from retinanet.data import DetectionData

UNNAMED: Final = frozenset({"output", "overwrite", "resume"})
"""Options that say which run continues. They are never compared."""
DATA_OPTIONS: Final = frozenset(
    (
        *("train", "val", "images", "val_images", "format", "classes", "ignore_classes", "ignore_regions", "rename"),
        *("skip_invalid", "allow_outside"),
    )
)
"""Options of the data. The data itself is compared instead, so that a dataset may move to another folder."""
CHANGEABLE: Final = frozenset(
    (
        *("epochs", "max_steps", "time_budget", "schedule", "warmup_steps", "patience", "evaluate_every", "log_every"),
        *("measure_imbalance", "easy_from", "on_nonfinite", "max_skipped_steps", "workers", "worker_timeout", "cache"),
        *("device", "devices", "nodes", "precision", "compile", "sync_batchnorm", "close_augment"),
        *("logger", "callbacks", "backbone_weights"),
        *("lr", "lr_batch_size", "backbone_lr_factor", "weight_decay", "clip_gradients", "batch_size", "accumulate"),
        *options_of(PostprocessConfig),
    )
)
"""Options that a resumed training run may change. They take effect from the checkpoint on, without a stored state that
would no longer fit. All other options describe what is trained, so a change of them would make another run."""
BATCHES: Final = frozenset({"batch_size", "accumulate"})
"""Options that must not change within an epoch, because the position in the epoch is a number of batches."""
NEEDED: Final = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "randomness", "epoch")
"""Entries of a checkpoint without which training cannot continue."""


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far the training run of a checkpoint had come.

    Args:
        epochs: number of complete epochs.
        steps: number of optimiser steps.
        waited: number of evaluations since the best AP, counted for `patience`.
        stopped: whether training had ended before `epochs`, by `patience`, `max_steps`, `time_budget` or a callback.
        time_budget: time budget of the training run, seconds; 0 for none.
        time_is_used: whether all steps of the time budget are done.
    """

    epochs: int = 0
    steps: int = 0
    waited: int = 0
    stopped: bool = False
    time_budget: float = 0.0
    time_is_used: bool = False


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """What the checkpoint of a training run to resume holds.

    Args:
        path: the checkpoint.
        options: options of the training run by name. An option that its version did not have is missing, or has its
            default if the resumed run sets it.
        classes: class names of the training data.
        data: fingerprints of the training and the validation data; empty for checkpoints of earlier versions.
        within_epoch: whether the checkpoint was saved between two steps of an epoch.
        progress: how far training had come.
    """

    path: Path
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    within_epoch: bool
    progress: RunProgress = field(default_factory=lambda: RunProgress())

    @property
    def new_run(self) -> str:
        """The command that starts a new training run with the weights of the checkpoint."""
        return _new_run_command(self.path)


def read_saved_run(path: Path, config: TrainConfig) -> SavedRun:
    """Return what a checkpoint holds about its training run.

    Raises:
        CheckpointError: the file is damaged, is not a retinanet checkpoint, or holds no state of a training run.
    """
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {continue_from_best(path)}") from error
    missing = [name for name in NEEDED if name not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{path} cannot be resumed: it holds no {', '.join(missing)}. Start a new training run with its weights: "
            f"{_new_run_command(path)}"
        )
    entry = checkpoint[KEY]
    saved = entry.get("config")
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path}: expected a dictionary of training options, found {type(saved).__name__}")
    known = options_of(TrainConfig)
    saved = {name: v for name, v in current_options(saved, known, warn=False).items() if name in known}
    saved.setdefault("bit_depth", FULL_DEPTH)  # a run of a version without this option used all 16 bits
    own = {name: str(getattr(config, name)) for name in ("train", "val")}
    complete = flatten(section_from_dict(TrainConfig, {**own, "output": str(config.folder.output), **saved}))
    try:
        loop, callbacks = checkpoint["loops"]["fit_loop"], checkpoint["callbacks"]
        batches = loop["epoch_loop.batch_progress"]
        within_epoch = not batches["is_last_batch"] and batches["current"]["processed"] > 0
        progress = RunProgress(
            epochs=loop["epoch_progress"]["current"]["processed"],
            steps=checkpoint["global_step"],
            waited=callbacks.get(Patience.STATE_KEY, {}).get("wait_count", 0),
            stopped=callbacks["Checkpoints"]["stopped"],
            **_used_time(callbacks.get("TimeBudget"), checkpoint["global_step"]),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be resumed: it holds no position within the training run") from error
    return SavedRun(
        path=path,
        options={name: complete[name] for name in (*saved, *sorted(given_options(config) - set(saved)))},
        classes=tuple(entry.get("classes", ())),
        data=checkpoint.get("data", {}),
        within_epoch=within_epoch,
        progress=progress,
    )


def _used_time(state: Mapping[str, Any] | None, steps: int) -> dict[str, Any]:
    """Return the fields of `RunProgress` on the time budget from the state of the callback `TimeBudget`."""
    if state is None:
        return {}
    total = state["total_steps"]
    return {"time_budget": state["budget"], "time_is_used": total is not None and steps >= total}


def why_ended(config: TrainConfig, saved: SavedRun) -> str | None:
    """Return why a training run has no step left with the options of its resume, and how to go on; otherwise None."""
    done, schedule = saved.progress, config.schedule
    if schedule.time_budget is not None:
        if done.time_is_used and parse_duration(schedule.time_budget) <= done.time_budget:
            return f"the --time-budget of {schedule.time_budget} is used: a larger --time-budget would train further"
    elif done.epochs >= schedule.epochs:
        return f"all {schedule.epochs} epochs are done: a larger --epochs would train further"
    if 0 < schedule.max_steps <= done.steps:
        return f"all {schedule.max_steps} steps of --max-steps are done: --max-steps -1 would train further"
    had_waited = 0 < saved.options.get("patience", 0) <= done.waited
    had_all_steps = 0 < saved.options.get("max_steps", -1) <= done.steps
    if done.stopped and had_waited and 0 < schedule.patience <= done.waited:
        return (
            f"evaluations without a better AP: {done.waited}, the --patience of the training run. A larger --patience, "
            "or --patience 0, would train further"
        )
    if done.stopped and not had_waited and not had_all_steps and not done.time_is_used:
        return f"a callback had stopped training. Start a new training run with its weights: {saved.new_run}"
    return None


def with_run_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a call, completed with the options in the config.yaml of the run to resume."""
    if options.get("resume") is not True or "output" not in options:
        return options
    path = user_path(options["output"]) / "config.yaml"
    if not path.exists():
        return options
    known = options_of(TrainConfig)
    saved = {name: v for name, v in current_options(read_yaml(path), known, warn=False).items() if name in known}
    return {**saved, **current_options(options, known)}


def with_computed_options(config: TrainConfig, saved: SavedRun) -> TrainConfig:
    """Return the config with the values that the first start computed: batch size, bit depth, normalisation, options
    of `--from`.

    An option that the user gave keeps its value, see `given_options`, except `auto` and `as_needed`: a resumed run
    keeps the anchors that its first start has fitted.
    """
    names = {"image_mean", "image_std"}
    if config.start.start_from is not None:
        names |= {name for cls in (ModelConfig, ImageConfig, MatchConfig, LossConfig) for name in options_of(cls)}
    names -= given_options(config)
    if not config.batch.batch_size:
        names.add("batch_size")
    if config.fitted.anchors != "given":
        names |= set(ANCHOR_OPTIONS)
    computed = {name: saved.options[name] for name in sorted(names) if name in saved.options}
    if not config.image.bit_depth and "bit_depth" in saved.options:
        computed["bit_depth"] = saved.options["bit_depth"]
    if config.fitted.anchors != "given":
        computed["anchors"] = "given"
    return with_options(config, **computed)


def check_resumed_options(config: TrainConfig, saved: SavedRun, *, report: bool) -> None:
    """Compare the options of a resumed training run with its checkpoint.

    Options that are still to be computed from the data (`balance_classes`) are not compared.

    Args:
        config: options of the resumed training run.
        saved: the checkpoint.
        report: whether to report the allowed changes in a line.

    Raises:
        ConfigError: an option has changed that must not change, or `epochs` is less than the number of complete epochs.
    """
    values = flatten(config)
    if config.schedule.time_budget is None and config.schedule.epochs < saved.progress.epochs:
        raise ConfigError(
            f"epochs must be {saved.progress.epochs} or more, the number of complete epochs of the training run in "
            f"{config.folder.output}, found {config.schedule.epochs}"
        )
    skipped = set(UNNAMED | DATA_OPTIONS)
    if config.fitted.balance_classes:
        skipped |= {"balance_classes", "class_alpha"}
    changed = [name for name, old in saved.options.items() if name not in skipped and not _is_same(old, values[name])]
    fixed = set(values) - CHANGEABLE | (BATCHES if saved.within_epoch else frozenset())
    texts = {name: f"{name} was {_text(saved.options[name])}, is {_text(values[name])}" for name in changed}
    if refused := [texts[name] for name in changed if name in fixed]:
        within = " in the middle of an epoch" if all(name in BATCHES for name in changed if name in fixed) else ""
        raise ConfigError(
            f"the training run in {config.folder.output} cannot be resumed with other options{within}: "
            f"{'; '.join(refused)}. Resume without them, or start a new training run with the weights of this run: "
            f"{saved.new_run}"
        )
    if changed and report:
        report_progress(f"resuming with changed options: {'; '.join(texts[name] for name in changed)}")


def check_resumed_data(train: DetectionData, val: DetectionData, saved: SavedRun) -> None:
    """Compare the data of a resumed training run with its checkpoint. Images that changed in place are reported.

    Raises:
        ConfigError: other classes, or other images from another path.
    """
    if train.classes != saved.classes:
        added = [name for name in train.classes if name not in saved.classes]
        removed = [name for name in saved.classes if name not in train.classes]
        changes = [f"new: {', '.join(added)}"] if added else []
        changes += [f"missing: {', '.join(removed)}"] if removed else []
        raise ConfigError(
            f"the training run to resume has the classes {', '.join(saved.classes)}, but the training data has "
            f"{', '.join(train.classes)} ({'; '.join(changes) or 'in another order'}). Resume with the same classes, "
            f"or start a new training run with the weights of this run: {saved.new_run}"
        )
    for name, data in (("train", train), ("val", val)):
        before, now = saved.data.get(name), fingerprint(data)
        if before is None or before["digest"] == now["digest"]:
            continue
        sizes = f"{before['images']} images with {before['objects']} objects"
        found = f"{now['images']} images with {now['objects']} objects"
        if before["source"] != now["source"]:
            raise ConfigError(
                f"{name} must hold the images of the training run to resume, {before['source']} ({sizes}), found "
                f"{now['source']} ({found}). Resume without --{name}, or start a new training run with the weights of "
                f"this run: {saved.new_run}"
            )
        report_progress(f"{name}: the data has changed since the checkpoint, which was trained with {sizes}")


def fingerprint(data: DetectionData) -> dict[str, Any]:
    """Return path, size and hash of a dataset. The hash covers file names, image sizes, boxes, labels and crowds."""
    digest = hashlib.sha256()
    for record in data.records:
        digest.update(f"{record.path.name} {record.width} {record.height} {record.window}\n".encode(errors="replace"))
        for values in (record.boxes_G4, record.labels_G, record.crowd_G):
            digest.update(values.tobytes())
    return {
        "source": str(data.source.absolute()),
        "images": len(data.records),
        "objects": data.num_objects,
        "digest": digest.hexdigest(),
    }


def _new_run_command(path: Path) -> str:
    return f"retinanet train --from {shlex.quote(str(path))} -o NEW_FOLDER"


def _is_same(saved: Any, value: Any) -> bool:
    """Return whether a value is the saved one. A relative saved path is compared by its file name."""
    if isinstance(saved, Path) and isinstance(value, Path):
        return saved.absolute() == value.absolute() or (not saved.is_absolute() and saved.name == value.name)
    return bool(saved == value)


def _text(value: Any) -> str:
    return " ".join(map(_text, value)) if isinstance(value, tuple) and value else str(value)
