"""Follow the objects of each class from all objects to the found ones, with each loss on the way.

The losses are those of `error_causes`, in the order of the pipeline: every missed object is lost at exactly one stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.causes import ADVICE, NO_DETECTION
from retinanet.analysis.miss_remedies import MissRemedy, Remedies

if TYPE_CHECKING:
    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.image_errors import Missed
    from retinanet.analysis.miss_remedies import ModelFiles
    from retinanet.evaluate.per_image import ImageResults


STAGES: Final[dict[str, tuple[str, ...]]] = {
    "detected at any score": (NO_DETECTION,),
    "reached by anchors": ("no anchor", "anchors ignored", "anchors taken"),
    "scored": ("low scores",),
    "among the candidates": ("not a candidate",),
    "kept by NMS": ("suppressed",),
    "within max_detections": ("beyond max_detections",),
    "above the threshold": ("below the threshold",),
    "of the right class": ("wrong class",),
    "in the right place": ("badly localised",),
}
"""The stages of the pipeline in their order: what an object passes, and the causes that lose it."""
UNKNOWN_CAUSES: Final = (
    "This map follows the detections alone. The command check, with the checkpoint and the data, shows which objects "
    "were lost inside the network and its post-processing: by the anchors, the scores or NMS."
)
"""Note about a map that was made without the network."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """The objects of a class that are lost for one cause.

    Args:
        stage: stage of the pipeline that they do not pass.
        cause: cause of the miss, see `analysis.causes`.
        missed: the lost objects, the nearest to a detection first.
        taken_by: number of these objects that each class took: of the detection with the wrong class, of the detection
            that suppressed the object, of the object that holds the anchors, or with a higher score at the anchors.
        remedy: what can help.
    """

    stage: str
    cause: str
    missed: tuple[Missed, ...] = field(repr=False)
    taken_by: dict[str, int]
    remedy: MissRemedy

    def text(self) -> str:
        """Return the count and the cause in a few words: "9 below the threshold", "8 taken by RBC"."""
        count = len(self.missed)
        if self.cause != "wrong class":
            return f"{count:,} {self.cause}"
        names = ", ".join(f"{n:,} {name}" if len(self.taken_by) > 1 else name for name, n in self.taken_by.items())
        return f"{count:,} taken by {names}"

    def to_json(self) -> dict[str, Any]:
        """Return the loss as values for JSON, without the list of its objects, which `errors` has."""
        return {
            "stage": self.stage,
            "cause": self.cause,
            "missed": len(self.missed),
            "taken_by": self.taken_by,
            "advice": ADVICE[self.cause],
            "outlook": self.remedy.outlook,
            "commands": [{"reason": step.reason, "command": step.command} for step in self.remedy.steps],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassFunnel:
    """The way of the objects of a class through the pipeline.

    Args:
        name: name of the class.
        objects: number of objects, without crowd regions.
        losses: losses in the order of the pipeline.
        unlabelled: number of detections of the class that are probably unlabelled objects.
    """

    name: str
    objects: int
    losses: tuple[Loss, ...]
    unlabelled: int

    @property
    def missed(self) -> int:
        """Number of missed objects."""
        return sum(len(loss.missed) for loss in self.losses)

    @property
    def found(self) -> int:
        """Number of found objects."""
        return self.objects - self.missed

    def stages(self) -> list[tuple[str, int, tuple[Loss, ...]]]:
        """Return each stage that loses objects: its name, the number of objects that pass it, and its losses."""
        left, stages = self.objects, []
        for stage in dict.fromkeys(loss.stage for loss in self.losses):
            losses = tuple(loss for loss in self.losses if loss.stage == stage)
            left -= sum(len(loss.missed) for loss in losses)
            stages.append((stage, left, losses))
        return stages

    def text(self) -> str:
        """Return the funnel in a sentence: "83 platelets: 63 found, 3 no anchor, 9 below the threshold"."""
        parts = [f"{self.found:,} found", *(loss.text() for loss in self.losses)]
        return f"{self.name}, {self.objects:,} {'object' if self.objects == 1 else 'objects'}: {', '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """Return the funnel as values for JSON."""
        return {
            "class": self.name,
            "objects": self.objects,
            "found": self.found,
            "missed": self.missed,
            "unlabelled": self.unlabelled,
            "losses": [loss.to_json() for loss in self.losses],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class MissMap:
    """The funnel of each class.

    Args:
        errors: the errors that the map shows.
        classes: classes with objects or probably unlabelled objects. The class with the smallest share of found objects
            comes first; of equal shares, the class with more missed objects.
        label_remedy: what can help against unlabelled objects.
        with_network: True if the causes inside the network are known.
    """

    errors: ErrorCauses
    classes: tuple[ClassFunnel, ...]
    label_remedy: MissRemedy
    with_network: bool

    @property
    def threshold(self) -> float:
        """Lowest score of a detection."""
        return self.errors.threshold

    def to_json(self) -> dict[str, Any]:
        """Return the map as values for JSON."""
        return {
            "threshold": self.threshold,
            "with_network": self.with_network,
            "classes": [one.to_json() for one in self.classes],
        }


def miss_map(errors: ErrorCauses, items: Sequence[ImageResults], files: ModelFiles) -> MissMap:
    """Return the funnels of the objects of a dataset.

    Args:
        errors: errors of the model, from `error_causes` or `errors_from_results`.
        items: images of `errors.data` with all detections, also those below the threshold.
        files: model and dataset, for the commands.
    """
    data = errors.data
    labels = [record.labels_G[~record.crowd_G] for record in data.records]
    objects_K = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(data.classes))
    unlabelled = Counter(f.prediction.label for f in errors.false if f.cause == "unlabelled?")
    remedies = Remedies(errors, items, files)
    missed: dict[int, dict[str, list[Missed]]] = {}
    for miss in errors.missed:
        missed.setdefault(miss.label, {}).setdefault(miss.cause, []).append(miss)
    funnels = [
        ClassFunnel(
            name=name,
            objects=int(objects_K[k]),
            losses=tuple(_losses(errors, missed.get(k, {}), remedies)),
            unlabelled=unlabelled[k],
        )
        for k, name in enumerate(data.classes)
        if objects_K[k] or unlabelled[k]
    ]
    funnels.sort(key=lambda one: (one.found / one.objects if one.objects else 1.0, -one.missed))
    return MissMap(
        errors=errors, classes=tuple(funnels), label_remedy=remedies.of_labels(), with_network=bool(errors.nms_trials)
    )


def _losses(errors: ErrorCauses, missed_by_cause: dict[str, list[Missed]], remedies: Remedies) -> list[Loss]:
    """Return the losses of a class in the order of the pipeline."""
    losses = []
    for stage, causes in STAGES.items():
        for cause in causes:
            if cause not in missed_by_cause:
                continue
            missed = sorted(
                missed_by_cause[cause], key=lambda m: (-(m.best.score if m.best else 0.0), m.image, m.object)
            )
            winners = Counter(winner for miss in missed if (winner := _winner(errors, miss)) is not None)
            losses.append(
                Loss(
                    stage=stage,
                    cause=cause,
                    missed=tuple(missed),
                    taken_by={errors.data.classes[k]: count for k, count in winners.most_common()},
                    remedy=remedies.of_loss(cause, missed),
                )
            )
    return losses


def _winner(errors: ErrorCauses, miss: Missed) -> int | None:
    """Return the class that took an object; None if no class did."""
    if miss.cause in ("wrong class", "suppressed") and miss.detection is not None:
        return int(errors.detections[miss.image].labels_D[miss.detection])
    if miss.cause == "anchors taken" and miss.taken_by is not None:
        return int(errors.data.records[miss.image].labels_G[miss.taken_by])
    if miss.cause == "low scores" and miss.preferred_label not in (None, miss.label):
        return miss.preferred_label
    return None
