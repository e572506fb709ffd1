"""Find why each object was missed and where each false detection comes from, and the AP that mending one cause regains.

Boxes are xyxy in original pixels unless stated. Shape suffixes: N batch, A anchors, K classes, G objects.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from retinanet.analysis.anchor_matches import AnchorMatches
from retinanet.analysis.causes import ADVICE, CAUSES, NO_DETECTION, REINSTATED
from retinanet.analysis.image_errors import FalseDetection, ImageErrors, Missed, Prediction, predictions
from retinanet.analysis.mended_ap import Errors, ap_after, mended_ap
from retinanet.analysis.model_outputs import dense_outputs, input_objects
from retinanet.analysis.nms_trials import NmsTrial, NmsTrials
from retinanet.boxes import clip, decode, iou
from retinanet.predict.trace import FlatOutputs, Trace
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from retinanet.analysis.model_outputs import DenseBatch
    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import MatchConfig
    from retinanet.data import DetectionData
    from retinanet.formats.records import Record
    from retinanet.types import ArrayDetections

COLUMN_TITLES: Final = ("Cause", "Missed", "False", "AP regained", "What can help")
"""Column titles of the table of causes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorCauses(Errors):
    """All errors of a network on a dataset at a score threshold, with their causes in numbers and words.

    Args:
        nms_trials: outcomes of higher values of `nms_threshold`, the model's own first; empty without the network.
        limits: for (image, object) with the causes "not a candidate" and "beyond max_detections", the lowest value of
            candidates_per_level or max_detections that keeps the box.
    """

    nms_trials: tuple[NmsTrial, ...] = field(default=(), repr=False)
    limits: Mapping[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return the number of missed objects and of false detections of each cause that occurs."""
        missed, false = Counter(m.cause for m in self.missed), Counter(f.cause for f in self.false)
        found: dict[str, tuple[int, int]] = {c: (missed[c], false[c]) for c in (*CAUSES, NO_DETECTION)}  # type: ignore[index]
        return {cause: pair for cause, pair in found.items() if any(pair)}

    @cached_property
    def unlabelled(self) -> int:
        """Number of detections that are probably unlabelled objects: the cause "unlabelled?"."""
        return sum(f.cause == "unlabelled?" for f in self.false)

    @cached_property
    def ap(self) -> float:
        """AP of the detections at the threshold."""
        return ap_after(self)

    @cached_property
    def regained(self) -> dict[str, float]:
        """AP that mending a cause alone would add, for each cause that occurs. AP is recomputed: see `mended_ap`."""
        return {cause: mended_ap(self, cause) - self.ap for cause in self.counts()}

    def sentences(self) -> list[str]:
        """Return the number of errors, and the cause whose mend would regain the most AP."""
        objects = sum(int((~record.crowd_G).sum()) for record in self.data.records)
        return [
            f"With the threshold {self.threshold:g}, {len(self.missed):,} of {objects:,} objects are missed, "
            f"{len(self.false) - self.unlabelled:,} detections are false, and {self.unlabelled:,} detections are "
            "probably unlabelled objects. Each error has one cause.",
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

    def predictions_of(self, error: Missed | FalseDetection) -> list[Prediction | None]:
        """Return the predictions that the cause of an error concerns: the box that fits, and the detection."""
        if isinstance(error, FalseDetection):
            return [error.prediction]
        involved = None if error.detection is None else predictions(self.detections[error.image])[error.detection]
        return [error.best if error.cause in REINSTATED else None, involved]

    def why(self, error: Missed | FalseDetection) -> str:
        """Return the numbers behind the cause of an error, without a full stop."""
        classes = self.data.classes
        if isinstance(error, FalseDetection):
            overlap = "" if error.iou is None else f", IoU {error.iou:.2f} with an object"
            found = error.prediction
            return f"detection of {classes[found.label]}, score {found.score:.3f}{overlap}"
        return f"missed {classes[error.label]}, {error.why(classes)}"

    def to_json(self) -> dict[str, Any]:
        """Return all errors and their causes as plain values for JSON."""
        causes = {
            cause: {"missed": missed, "false": false, "AP_regained": self.regained[cause], "advice": ADVICE[cause]}
            for cause, (missed, false) in self.counts().items()
        }
        errors = {"missed": self._listed(self.missed), "false": self._listed(self.false)}
        return {
            "threshold": self.threshold,
            "AP": self.ap,
            "unlabelled": self.unlabelled,
            "causes": causes,
            **errors,
        }

    def _listed(self, errors: Sequence[Missed | FalseDetection]) -> list[dict[str, Any]]:
        return [
            {"image_id": self.data.records[e.image].image_id, "why": self.why(e), **dataclasses.asdict(e)}
            for e in errors
        ]


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
    limits: dict[tuple[int, int], int] = {}
    trials = NmsTrials(len(data.classes), threshold)
    for dense in dense_outputs(trained, data, batch_size=batch_size, progress=progress):
        for n, index in enumerate(dense.batch.indices):
            image = ImageErrors(
                number=index,
                record=data.records[index],
                trace=Trace(_flat(dense, n), trained.postprocess_config),
                anchors=_anchor_matches(dense, n, data.records[index], trained.match_config),
                levels=trained.model.config.levels,
                threshold=threshold,
            )
            detections[index] = image.shown
            of_image = list(image.missed())
            limits |= {(index, m.object): limit for m in of_image if (limit := needed_limit(image, m)) is not None}
            missed += of_image
            false += image.false()
            trials.add(image.record, image.trace)
    return ErrorCauses(
        data=data,
        threshold=threshold,
        detections=tuple(detections[i] for i in range(len(data.records))),
        missed=tuple(sorted(missed, key=lambda m: (m.image, m.object))),
        false=tuple(sorted(false, key=lambda f: (f.image, f.detection))),
        nms_trials=trials.results(),
        limits=limits,
    )


def needed_limit(image: ImageErrors, miss: Missed) -> int | None:
    """Return the lowest limit that keeps the box of a missed object; None if no limit dropped the box."""
    best, trace = image.best(miss.object), image.trace
    if best is None or miss.cause not in ("not a candidate", "beyond max_detections"):
        return None
    if miss.cause == "beyond max_detections":
        return int(np.flatnonzero((trace.anchor_D == best) & (trace.label_D == miss.label))[0]) + 1
    level = trace.flat.level_of(best)
    scores_AK = trace.flat.scores_AK[trace.flat.starts[level] : trace.flat.starts[level + 1]]
    return int((scores_AK >= trace.flat.scores_AK[best, miss.label]).sum())


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


def _anchor_matches(dense: DenseBatch, n: int, record: Record, config: MatchConfig) -> AnchorMatches:
    """Return what training makes of the anchors of image `n` of a batch."""
    boxes_G4, index_T = input_objects(record, dense.batch.frames[n])
    positive_A = dense.targets.positive_NA[n].cpu().numpy()
    object_A = np.full(len(positive_A), -1)
    object_A[positive_A] = index_T[dense.targets.matched_NA[n].cpu().numpy()[positive_A]]
    anchors_A4 = dense.outputs.anchors_A4
    iou_AG = _array(iou(anchors_A4[:, None], torch.from_numpy(boxes_G4).to(anchors_A4)[None]))
    return AnchorMatches.of(object_A, iou_AG, config)


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.cpu().numpy()
    return array
