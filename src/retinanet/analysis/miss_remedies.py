"""Derive what can help against the losses of a miss map: the value of an option, what it brings, and the command.

What an option brings is counted on the data, by real runs of matching and NMS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.causes import NO_DETECTION
from retinanet.analysis.next_steps import NextStep, check_errors, data_flags, label_suspects, mend_steps, shell_command
from retinanet.config import DataConfig, TrainConfig, section_from_dict
from retinanet.config.option_file import read_yaml
from retinanet.errors import UserError
from retinanet.evaluate.per_image import pair_detections

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.image_errors import Missed
    from retinanet.evaluate.per_image import ImageResults

REGAINED: Final = 0.5
"""Share of the objects of a loss that a derived value regains at least."""
DECIMALS: Final = 3
"""Decimals of a derived threshold, rounded down, so that the threshold holds as it is printed."""
LARGER: Final = 1.5
"""Factor of the image size that is suggested for objects that are too small or badly localised."""
CHECKPOINT_SUFFIXES: Final = (".ckpt", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The files that the commands of a miss map name.

    Args:
        model: checkpoint, exported model or COCO results.
        data: dataset.
        flags: flags that read the dataset, see `next_steps.data_flags`.
        run: options of the training run of the model, if they are known.
    """

    model: Path
    data: Path
    flags: tuple[str, ...] = ()
    run: TrainConfig | None = None

    @property
    def is_checkpoint(self) -> bool:
        """True if the file is a checkpoint, which `tune` and the full `check` require."""
        return self.model.suffix.lower() in CHECKPOINT_SUFFIXES


def model_files(model: Path, data: Path, dataset: DataConfig, *, images: Path | None = None) -> ModelFiles:
    """Return the files of a model and a dataset.

    Args:
        model: checkpoint, exported model or COCO results.
        data: dataset.
        dataset: options that the dataset was read with.
        images: folder of the images, if it differs from `dataset`, as for validation images.
    """
    return ModelFiles(model=model, data=data, flags=data_flags(dataset, images=images), run=training_run(model))


def training_run(model: Path) -> TrainConfig | None:
    """Return the options of the run folder that a model lies in; None if it lies in no folder with a config.yaml."""
    path = model.parent / "config.yaml"
    if not path.is_file():
        return None
    try:
        return section_from_dict(TrainConfig, {**read_yaml(path), "output": model.parent})
    except UserError:
        return None  # the file of another program, or of a version with other options


@dataclass(frozen=True, kw_only=True)
class MissRemedy:
    """What can help against a loss.

    Args:
        outlook: the derived value and what it brings, in a sentence; empty if no value can be derived.
        steps: commands, ready to copy.
    """

    outlook: str = ""
    steps: tuple[NextStep, ...] = ()


class Remedies:
    """The remedies of the losses of a model on a dataset.

    Args:
        errors: errors of the model.
        items: images with all detections, also those below the threshold.
        files: model and dataset.
    """

    def __init__(self, errors: ErrorCauses, items: Sequence[ImageResults], files: ModelFiles) -> None:
        self.errors, self.items, self.files = errors, items, files

    def of_loss(self, cause: str, missed: Sequence[Missed]) -> MissRemedy:
        """Return the remedy of the objects of one class that are lost for one cause."""
        if cause == "below the threshold":
            return self._lower_threshold(missed)
        if cause == "suppressed":
            return self._higher_nms_threshold(missed)
        if cause in ("not a candidate", "beyond max_detections"):
            return self._higher_limit(cause, missed)
        return MissRemedy(steps=tuple(self._steps(cause)))

    def of_labels(self) -> MissRemedy:
        """Return the remedy of probably unlabelled objects."""
        files = self.files
        return MissRemedy(steps=(label_suspects(files.model, files.data, files.flags),))

    def _steps(self, cause: str) -> Iterator[NextStep]:
        files = self.files
        if cause == NO_DETECTION:
            if files.is_checkpoint:
                report = files.model.with_name("check.html")
                yield check_errors(files.model, files.data, files.flags, report=report)
            return
        if cause == "anchors taken" and files.run is not None:
            words = ("--assigner", "atss", "--low-quality-matches")
            yield self._train("atss", "Train again with an assigner that gives every object an anchor", *words)
            return
        steps = list(mend_steps(cause, files.model, files.data, flags=files.flags, run=files.run))
        if files.is_checkpoint or cause in ("wrong class", "badly localised"):
            yield from steps
        if files.run is not None and (cause == "badly localised" or (cause == "no anchor" and not steps)):
            size = round(LARGER * files.run.image.image_size / 32) * 32
            sizes = ("--image-size", str(size), "--max-size", str(round(LARGER * files.run.image.max_size)))
            yield self._train("larger", "Train again with larger images", *sizes)

    def _train(self, name: str, reason: str, *words: str) -> NextStep:
        assert self.files.run is not None  # noqa: S101
        folder = self.files.run.folder.output
        target = folder.with_name(f"{folder.name}-{name}")
        command = shell_command("train", "--config", folder / "config.yaml", *words, "-o", target)
        return NextStep(reason=reason, command=command)

    def _lower_threshold(self, missed: Sequence[Missed]) -> MissRemedy:
        """Return the threshold that shows half of the objects, and what it shows besides."""
        threshold = regaining_threshold([miss.best.score for miss in missed if miss.best is not None])
        found_K, false_K = self._changes(threshold)
        label = missed[0].label
        outlook = (
            f"With a threshold of {threshold:g} instead of {self.errors.threshold:g}, "
            f"{self._gain(found_K, false_K, label)}."
        )
        steps = self._predict("Detect with this threshold", "--threshold", threshold)
        return MissRemedy(outlook=outlook, steps=(*steps, *self._steps("below the threshold")))

    def _higher_nms_threshold(self, missed: Sequence[Missed]) -> MissRemedy:
        """Return the lowest `nms_threshold` that keeps half of the suppressed objects; without one, the best."""
        own, *others = self.errors.nms_trials
        label = missed[0].label
        gains = [int(trial.found_K[label] - own.found_K[label]) for trial in others]
        most = max(gains, default=0)
        if most <= 0:
            return MissRemedy(outlook="No value of nms_threshold up to 0.9 finds more objects of this class.")
        trial = others[next(i for i, gain in enumerate(gains) if gain >= min(most, REGAINED * len(missed)))]
        changes = self._gain(trial.found_K - own.found_K, trial.false_K - own.false_K, label)
        objects = int(sum((~record.crowd_G).sum() for record in self.errors.data.records))
        return MissRemedy(
            outlook=f"With nms_threshold {trial.nms_threshold:g} instead of {own.nms_threshold:g}, {changes}. F1 is "
            f"{trial.f1(objects):.3f} instead of {own.f1(objects):.3f}.",
            steps=self._predict("Detect with this NMS threshold", "--nms-threshold", trial.nms_threshold),
        )

    def _higher_limit(self, cause: str, missed: Sequence[Missed]) -> MissRemedy:
        """Return the limit that keeps all objects of a loss."""
        option = "candidates_per_level" if cause == "not a candidate" else "max_detections"
        needed = [self.errors.limits[miss.image, miss.object] for miss in missed]
        return MissRemedy(
            outlook=f"With {option} {max(needed):,}, none of these boxes is dropped by this limit.",
            steps=self._option("limit", option, max(needed)),
        )

    def _predict(self, reason: str, flag: str, value: float) -> tuple[NextStep, ...]:
        """Return the command that detects with another value of an option; none for a file of results."""
        model = self.files.model
        if model.suffix.lower() == ".json":
            return ()
        images = self.errors.data.records[0].path.parent
        words = ("predict", model, images, flag, f"{value:g}", "-o", model.with_name("found"))
        return (NextStep(reason=reason, command=shell_command(*words)),)

    def _option(self, name: str, option: str, value: float) -> tuple[NextStep, ...]:
        """Return the command that trains with another option of post-processing."""
        if self.files.run is None:
            return ()
        flag = "--" + option.replace("_", "-")
        return (self._train(name, f"Train again with this {option}", flag, f"{value:g}"),)

    def _changes(self, threshold: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the numbers of further found objects and of further false detections at a lower threshold, (K,)."""
        counts = []
        scores_D, labels_D, correct_D = self._hidden
        shown_D = scores_D >= threshold
        for own_D in (correct_D, ~correct_D):
            counts.append(np.bincount(labels_D[shown_D & own_D], minlength=len(self.errors.data.classes)))
        return counts[0], counts[1]

    @cached_property
    def _hidden(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Score, class id and correctness of all detections below the threshold, without those in crowd regions."""
        parts = []
        for item in self.items:
            partner_D, in_crowd_D = pair_detections(item)
            hidden_D = (np.asarray(item.scores_D) < self.errors.threshold) & ~in_crowd_D
            parts.append((item.scores_D[hidden_D], item.detected_labels_D[hidden_D], partner_D[hidden_D] >= 0))
        if not parts:
            return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool)
        scores, labels, correct = (np.concatenate(values) for values in zip(*parts, strict=True))
        return scores, labels, correct

    def _gain(self, found_K: npt.NDArray[np.int64], false_K: npt.NDArray[np.int64], label: int) -> str:
        """Return what a change brings: "12 more objects are found, 9 of them RBC, and 30 more detections are false"."""
        found, false = int(found_K.sum()), int(false_K.sum())
        name = self.errors.data.classes[label]
        of_class = "" if len(self.errors.data.classes) == 1 else f", {int(found_K[label]):,} of them {name}"
        objects = "1 more object is found" if found == 1 else f"{found:,} more objects are found"
        detections = "1 more detection is" if false == 1 else f"{false:,} more detections are"
        return f"{objects}{of_class}, and {detections} false or unlabelled"


def regaining_threshold(scores: Sequence[float]) -> float:
    """Return the highest threshold, rounded down, that at least `REGAINED` of the scores reach."""
    needed = math.ceil(REGAINED * len(scores))
    score = sorted(scores, reverse=True)[needed - 1]
    return math.floor(score * 10**DECIMALS) / 10**DECIMALS
