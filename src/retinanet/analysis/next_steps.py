"""Choose the commands that are most useful after a training run, a check or a tuning, ready to copy into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retinanet.analysis.ap_course import ap_course
from retinanet.analysis.overfitting import find_overfitting
from retinanet.config import DataConfig, TrainConfig, flatten, options_of
from retinanet.parse import parse_duration

if TYPE_CHECKING:
    from retinanet.analysis.ap_course import ApCourse, Row

STEPS: Final = 2
"""Number of commands that are suggested at most."""
LEARNT: Final = 0.05
"""AP below which a model has learnt too little for thresholds: data and errors come first."""
RECALL_AIM: Final = "recall=0.95"
"""Aim of the suggested tuning if detections of objects lie below the threshold."""
ANCHOR_CAUSES: Final = frozenset({"no anchor", "anchors ignored", "anchors taken"})
LABEL_CAUSES: Final = frozenset({"unlabelled?", "wrong class", "wrong class and place", "badly localised"})
THRESHOLD_CAUSES: Final = frozenset({"below the threshold", "background", "duplicate"})


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """A command that is useful next.

    Args:
        reason: what the command tells or changes, and why it is suggested. A sentence without a full stop.
        command: command line with all words quoted for a POSIX shell.
    """

    reason: str
    command: str


def shell_command(*words: object) -> str:
    """Return a command line of `retinanet`, with its words quoted for a POSIX shell."""
    return shlex.join(("retinanet", *map(str, words)))


def data_flags(dataset: DataConfig, *, images: Path | None = None) -> tuple[str, ...]:
    """Return the flags that read a dataset again as it was read: those whose values differ from their defaults.

    Args:
        dataset: options of the dataset.
        images: folder of the images, if it differs from `dataset`, as for validation images.
    """
    values = flatten(dataset)
    if images is not None:
        values["images"] = images
    words: list[str] = []
    for name, option in options_of(DataConfig).items():
        value = values[name]
        if value in (option.default, ()):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return tuple(words)


def after_training(config: TrainConfig, rows: Sequence[Row]) -> list[NextStep]:
    """Return the two most useful commands after a training run.

    - AP is below `LEARNT`: the data and the errors are checked.
    - AP was still rising: training continues.
    - The model overfits: a short probe finds out whether other settings or more images help.
    - In every other case, and where one command is left: errors are explained, then thresholds are tuned.

    Args:
        config: options of the training run.
        rows: rows of its metrics.csv.
    """
    course = ap_course(rows)
    steps: list[NextStep] = []
    if course is not None and course.is_rising and (step := _train_longer(config, course)) is not None:
        steps.append(step)
    if course is None or course.best < LEARNT:
        ap = "no AP was measured" if course is None else f"AP is only {course.best:.3f}"
        steps.append(_check_training_data(config, ap))
    elif find_overfitting(rows) is not None:
        steps.append(_prescribe(config, "Probe whether other settings or more images help: the model overfits"))
    model, flags = config.folder.output / "best.ckpt", _validation_flags(config)
    steps.append(check_errors(model, config.val, flags, report=config.folder.output / "check.html"))
    steps.append(tune_thresholds(model, config.val, flags))
    return steps[:STEPS]


def after_check(
    model: Path, data: Path, causes: Sequence[str], *, flags: Sequence[str] = (), run: TrainConfig | None = None
) -> list[NextStep]:
    """Return the two most useful commands after a check of a model.

    Args:
        model: checkpoint that was checked.
        data: dataset that it was checked on.
        causes: causes of its errors (`analysis.causes`), the one that costs most first.
        flags: flags that read the dataset, see `data_flags`.
        run: options of the training run of the model, if they are known.
    """
    steps: dict[str, NextStep] = {}
    for cause in causes:
        for step in mend_steps(cause, model, data, flags=flags, run=run):
            steps.setdefault(step.command, step)
    for step in (tune_thresholds(model, data, flags), label_suspects(model, data, flags)):
        steps.setdefault(step.command, step)
    return list(steps.values())[:STEPS]


def after_evaluation(model: Path, data: Path, flags: Sequence[str] = ()) -> list[NextStep]:
    """Return the most useful commands after an evaluation: the errors are explained, then thresholds are tuned.

    Both need a checkpoint. The errors of COCO results are explained by their detections alone. No command is useful for
    an exported model.

    Args:
        model: evaluated checkpoint, exported model or COCO results file.
        data: dataset of the evaluation.
        flags: flags that read the dataset, see `data_flags`.
    """
    report = model.with_name("check.html")
    if model.suffix.lower() == ".json":
        return [check_errors(model, data, flags, report=report)]
    if model.suffix.lower() != ".ckpt":
        return []
    return [check_errors(model, data, flags, report=report), tune_thresholds(model, data, flags)]


def mend_steps(
    cause: str, model: Path, data: Path, *, flags: Sequence[str] = (), run: TrainConfig | None = None
) -> Iterator[NextStep]:
    """Yield the command that addresses a cause of errors (`analysis.causes`); none if no command does.

    The arguments are those of `after_check`.
    """
    if cause in ANCHOR_CAUSES and run is not None and run.fitted.anchors != "auto":
        yield _fit_anchors(run, f"Train with anchors that fit the objects: errors have the cause '{cause}'")
    elif cause in LABEL_CAUSES:
        yield label_suspects(
            model, data, flags, f"See probably wrong and missing labels: errors have the cause '{cause}'"
        )
    elif cause in THRESHOLD_CAUSES:
        aim = RECALL_AIM if cause == "below the threshold" else None
        yield tune_thresholds(
            model, data, flags, f"Choose score thresholds for an aim: errors have the cause '{cause}'", aim
        )
    elif cause == "low scores" and run is not None:
        yield _prescribe(run, "Probe whether other settings or more images help: errors have the cause 'low scores'")


def check_errors(model: Path, data: Path, flags: Sequence[str] = (), *, report: Path) -> NextStep:
    """Return the command that explains the errors of a model."""
    reason = "See why objects are missed and where false detections come from"
    return NextStep(reason=reason, command=shell_command("check", model, data, *flags, "--report", report))


def tune_thresholds(
    model: Path,
    data: Path,
    flags: Sequence[str] = (),
    reason: str = "Calibrate the scores, and choose the score thresholds for your aim",
    aim: str | None = None,
) -> NextStep:
    """Return the command that tunes the score thresholds of a model."""
    words = ("--aim", aim) if aim else ()
    target = model.with_name("tuned.ckpt")
    return NextStep(reason=reason, command=shell_command("tune", model, data, *flags, *words, "-o", target))


def label_suspects(
    model: Path, data: Path, flags: Sequence[str] = (), reason: str = "See the objects that are probably unlabelled"
) -> NextStep:
    """Return the command that lists and draws the examples with the highest loss."""
    target = model.with_name("hard")
    return NextStep(reason=reason, command=shell_command("check", model, data, *flags, "--hard", "-o", target))


def serve_model(model: Path, reason: str) -> NextStep:
    """Return the command that serves a model, with a page for trying images."""
    return NextStep(reason=f"{reason}, on a web page", command=shell_command("serve", model))


def _validation_flags(config: TrainConfig) -> tuple[str, ...]:
    return data_flags(config.dataset, images=config.validation.val_images)


def _train_longer(config: TrainConfig, course: ApCourse) -> NextStep | None:
    """Return the command that doubles the length of a training run; None for a run that a number of steps limits."""
    schedule = config.schedule
    if schedule.max_steps > 0:
        length = ("--max-steps", str(2 * schedule.max_steps))
    elif schedule.time_budget is not None:
        length = ("--time-budget", f"{2 * parse_duration(schedule.time_budget):g}s")
    elif course.last_epoch >= schedule.epochs:
        length = ("--epochs", str(2 * schedule.epochs))
    else:
        return None  # `patience` or a callback has stopped training
    return NextStep(
        reason=f"Train longer: AP was still rising, by {course.gain:.3f} in the last {course.recent} evaluations",
        command=shell_command("train", "--resume", "-o", config.folder.output, *length),
    )


def _check_training_data(config: TrainConfig, ap: str) -> NextStep:
    words: list[object] = ["check", config.train, "--val", config.val, *data_flags(config.dataset)]
    if config.validation.val_images is not None:
        words += ["--val-images", config.validation.val_images]
    words += ["--preset", config.base.preset, "--report", config.folder.output / "data.html"]
    reason = f"See faults of the data and objects that no anchor reaches: {ap}"
    return NextStep(reason=reason, command=shell_command(*words))


def _prescribe(config: TrainConfig, reason: str) -> NextStep:
    words: list[object] = ["prescribe", config.train, "--val", config.val, *data_flags(config.dataset)]
    if config.validation.val_images is not None:
        words += ["--val-images", config.validation.val_images]
    words += ["--preset", config.base.preset, "-o", _beside(config.folder.output, "prescription")]
    return NextStep(reason=reason, command=shell_command(*words))


def _fit_anchors(config: TrainConfig, reason: str) -> NextStep:
    folder = config.folder.output
    words = ("train", "--config", folder / "config.yaml", "--anchors", "auto", "-o", _beside(folder, "anchors"))
    return NextStep(reason=reason, command=shell_command(*words))


def _beside(folder: Path, what: str) -> Path:
    """Return the path of a folder beside a run folder: `runs/first-anchors`."""
    return folder.with_name(f"{folder.name}-{what}")
