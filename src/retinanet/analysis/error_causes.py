"""Find why each object was missed and where each false detection comes from, and the AP that mending one cause regains.

Boxes are xyxy in original pixels unless stated. Shape suffixes: N batch, A anchors, K classes, G objects.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from retinanet.analysis.image_errors import (
    AnchorMatches,
    FalseCause,
    FalseDetection,
    ImageErrors,
    MissCause,
    Missed,
    Prediction,
    box_of,
    predictions,
)
from retinanet.analysis.model_outputs import dense_outputs
from retinanet.boxes import clip, decode, iou
from retinanet.evaluate import evaluate_results
from retinanet.predict.trace import FlatOutputs, Trace
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from retinanet.analysis.model_outputs import DenseBatch
    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import MatchConfig
    from retinanet.data import DetectionData
    from retinanet.types import ArrayDetections

CAUSES: Final[tuple[str, ...]] = tuple(dict.fromkeys((*get_args(MissCause), *get_args(FalseCause))))
"""All causes, those of misses first."""
ADVICE: Final[dict[str, str]] = {
    "suppressed": "keep both boxes with a higher nms_threshold",
    "not a candidate": "give a higher candidates_per_level",
    "beyond max_detections": "give a higher max_detections",
    "below the threshold": "lower the threshold, or train with more images of such objects",
    "wrong class": "check the labels of the two classes, and add images of both",
    "badly localised": "check how tightly the boxes are drawn; train longer or with larger images",
    "no anchor": "fit the anchors (--anchors auto), or train with larger images",
    "anchors ignored": "fit the anchors (--anchors auto), or give --low-quality-matches",
    "anchors taken": "train with --assigner atss --low-quality-matches, or add the feature level P2",
    "low scores": "add images of such objects, or train longer",
    "duplicate": "give a lower nms_threshold",
    "wrong class and place": "add images of both classes",
    "unlabelled?": "label the objects (--hard draws such places)",
    "background": "add images without objects, in which such background occurs",
}
"""What can mend each cause."""
COLUMN_TITLES: Final = ("Cause", "Missed", "False", "AP regained", "What can help")
"""Column titles of the table of causes."""
REINSTATED: Final = ("suppressed", "not a candidate", "beyond max_detections", "below the threshold")
"""Causes inside post-processing: a box that fits the object exists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorCauses:
    """All errors of a network on a dataset at a score threshold, each with one cause.

    Args:
        data: images and objects.
        threshold: lowest score of a detection.
        detections: detections of each image with at least this score, best first.
        missed: missed objects.
        false: false detections.
    """

    data: DetectionData
    threshold: float
    detections: tuple[ArrayDetections, ...] = field(repr=False)
    missed: tuple[Missed, ...]
    false: tuple[FalseDetection, ...]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return the number of missed objects and of false detections of each cause that occurs."""
        missed, false = Counter(m.cause for m in self.missed), Counter(f.cause for f in self.false)
        found: dict[str, tuple[int, int]] = {c: (missed[c], false[c]) for c in CAUSES}  # type: ignore[index]
        return {cause: pair for cause, pair in found.items() if any(pair)}

    @cached_property
    def ap(self) -> float:
        """AP of the detections at the threshold."""
        return self._ap({}, frozenset(), [])

    @cached_property
    def regained(self) -> dict[str, float]:
        """AP that mending a cause alone would add, for each cause that occurs. AP is recomputed: see `_mended`."""
        return {cause: self._mended(cause) - self.ap for cause in self.counts()}

    def sentences(self) -> list[str]:
        """Return the number of errors, and the cause whose mend would regain the most AP."""
        objects = sum(int((~record.crowd_G).sum()) for record in self.data.records)
        return [
            f"With the threshold {self.threshold:g}, {len(self.missed):,} of {objects:,} objects are missed, and "
            f"{len(self.false):,} detections are false. Each error has one cause.",
            *self.best_mend(),
        ]

    def best_mend(self) -> list[str]:
        """Return a sentence about the cause whose mend would regain the most AP; none if no mend would."""
        regained = self.regained
        cause = max(regained, key=lambda name: regained[name], default="")
        if not cause or regained[cause] <= 0:
            return []
        return [
            f"Of the causes of errors at the threshold {self.threshold:g}, most AP would be regained without "
            f'"{cause}": {regained[cause]:+.3f}. What can help: {ADVICE[cause]}.'
        ]

    def rows(self) -> list[list[str]]:
        """Return the table of causes as text; `COLUMN_TITLES` has the column titles."""
        return [
            [cause, f"{missed:,}", f"{false:,}", f"{self.regained[cause]:+.3f}", ADVICE[cause]]
            for cause, (missed, false) in self.counts().items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all errors and their causes as plain values for JSON."""
        causes = {
            cause: {"missed": missed, "false": false, "AP_regained": self.regained[cause], "advice": ADVICE[cause]}
            for cause, (missed, false) in self.counts().items()
        }
        errors = {"missed": self._listed(self.missed), "false": self._listed(self.false)}
        return {"threshold": self.threshold, "AP": self.ap, "causes": causes, **errors}

    def _listed(self, errors: Sequence[Missed | FalseDetection]) -> list[dict[str, Any]]:
        return [{"image_id": self.data.records[e.image].image_id, **dataclasses.asdict(e)} for e in errors]

    def _mended(self, cause: str) -> float:
        """Return the AP if one cause did not exist.

        - Causes inside post-processing: the box that fits the object becomes a detection, with its own score.
        - wrong class, badly localised: the detection gets the class or the box of its object, if the object was
          missed; a false detection of another object, or a second one of the same object, is removed.
        - no anchor, anchors ignored, anchors taken, low scores: the objects do not count (as TIDE's "missed").
        - unlabelled?: the detection becomes an object. Other false detections are removed.
        """
        changed: dict[tuple[int, int], Prediction | None] = {
            (f.image, f.detection): None for f in self.false if f.cause == cause and cause != "unlabelled?"
        }
        added: list[tuple[int, Prediction]] = []
        dropped: set[tuple[int, int]] = set()
        for miss in self.missed:
            if miss.cause != cause:
                continue
            if cause in REINSTATED and miss.best is not None:
                added.append((miss.image, miss.best))
            elif miss.detection is not None:
                score = float(self.detections[miss.image].scores_D[miss.detection])
                changed[miss.image, miss.detection] = Prediction(box=miss.box, label=miss.label, score=score)
                if cause == "wrong class":  # the box stays
                    box = box_of(self.detections[miss.image].boxes_D4[miss.detection])
                    changed[miss.image, miss.detection] = Prediction(box=box, label=miss.label, score=score)
            else:
                dropped.add((miss.image, miss.object))
        labelled = [(f.image, f.prediction) for f in self.false if f.cause == cause == "unlabelled?"]
        return self._ap(changed, frozenset(dropped), added, labelled)

    def _ap(
        self,
        changed: dict[tuple[int, int], Prediction | None],
        dropped: frozenset[tuple[int, int]],
        added: Sequence[tuple[int, Prediction]],
        labelled: Sequence[tuple[int, Prediction]] = (),
    ) -> float:
        """Return AP after changes.

        Args:
            changed: new prediction of a detection by (image, number); None removes it.
            dropped: (image, object) of objects that do not count.
            added: further detections, with the index of their image.
            labelled: further objects, with the index of their image.
        """
        rows = []
        for image, (record, found) in enumerate(zip(self.data.records, self.detections, strict=True)):
            for d, prediction in enumerate(predictions(found)):
                new = changed.get((image, d), prediction)
                if new is not None:
                    rows.append(new.to_coco(record, self.data))
        rows += [prediction.to_coco(self.data.records[image], self.data) for image, prediction in added]
        truth = self.data.to_coco()
        places = [(i, g) for i, record in enumerate(self.data.records) for g in range(len(record.labels_G))]
        truth["annotations"] = [
            annotation for annotation, place in zip(truth["annotations"], places, strict=True) if place not in dropped
        ]
        first = max((annotation["id"] for annotation in truth["annotations"]), default=0) + 1
        for number, (image, prediction) in enumerate(labelled, first):
            row = prediction.to_coco(self.data.records[image], self.data)
            del row["score"]
            area = row["bbox"][2] * row["bbox"][3]
            truth["annotations"].append({**row, "id": number, "area": area, "iscrowd": 0})
        return float(evaluate_results(truth, rows).AP)


def error_causes(
    trained: LoadedModel,
    data: DetectionData,
    *,
    threshold: float,
    batch_size: int = 8,
    progress: ProgressBar = no_progress_bar,
) -> ErrorCauses:
    """Find the cause of every error of a network.

    Args:
        trained: network with its settings, see `model_outputs.load_for_analysis`.
        data: images and objects, loaded with `classes=trained.classes`.
        threshold: lowest score of a detection; the model's `score_threshold` if that is higher.
        batch_size: number of images per batch.
        progress: function that opens a progress bar.
    """
    detections: dict[int, ArrayDetections] = {}
    missed: list[Missed] = []
    false: list[FalseDetection] = []
    for dense in dense_outputs(trained, data, batch_size=batch_size, progress=progress):
        for n, index in enumerate(dense.batch.indices):
            image = ImageErrors(
                number=index,
                record=data.records[index],
                trace=Trace(_flat(dense, n), trained.postprocess_config),
                anchors=_anchor_matches(dense, n, trained.match_config),
                levels=trained.model.config.levels,
                threshold=threshold,
            )
            detections[index] = image.shown
            missed += image.missed()
            false += image.false()
    return ErrorCauses(
        data=data,
        threshold=threshold,
        detections=tuple(detections[i] for i in range(len(data.records))),
        missed=tuple(sorted(missed, key=lambda m: (m.image, m.object))),
        false=tuple(sorted(false, key=lambda f: (f.image, f.detection))),
    )


def _flat(dense: DenseBatch, n: int) -> FlatOutputs:
    """Return the dense predictions of image `n` of a batch, in original pixels."""
    outputs, frame = dense.outputs, dense.batch.frames[n]
    scale_4 = np.array([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2, np.float32)
    boxes_A4 = decode(outputs.deltas_NA4[n].float(), outputs.anchors_A4)
    boxes_A4 = clip(boxes_A4, width=frame.resized_width, height=frame.resized_height)
    return FlatOutputs(
        scores_AK=_array(outputs.logits_NAK[n].float().sigmoid()),
        boxes_A4=_array(boxes_A4) * scale_4,
        anchors_A4=_array(outputs.anchors_A4) * scale_4,
        starts=(0, *np.cumsum(outputs.anchors_per_level).tolist()),
    )


def _anchor_matches(dense: DenseBatch, n: int, config: MatchConfig) -> AnchorMatches:
    """Return what training makes of the anchors of image `n` of a batch."""
    positive_A, matched_A = dense.targets.positive_NA[n], dense.targets.matched_NA[n]
    boxes_G4 = dense.batch.targets[n].boxes_G4
    return AnchorMatches(
        object_A=matched_A.masked_fill(~positive_A, -1).cpu().numpy(),
        iou_AG=_array(iou(dense.outputs.anchors_A4[:, None], boxes_G4.to(dense.outputs.anchors_A4.dtype)[None])),
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
    )


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.cpu().numpy()
    return array
