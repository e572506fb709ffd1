"""Find the threshold below which an object is detected, and the option that shows a box that post-processing dropped.

Both follow from real runs of post-processing and matching, not from a formula. Shape suffixes: A anchors, K classes,
D boxes that NMS keeps, G objects.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from retinanet.analysis.image_errors import ImageErrors
from retinanet.config import PostprocessConfig
from retinanet.predict.trace import Trace

if TYPE_CHECKING:
    from retinanet.analysis.causes import MissCause
    from retinanet.analysis.image_errors import Missed

LOWEST_THRESHOLD: Final = 0.001
"""Lowest threshold at which an object is searched. Below it, nearly every box of an image is a detection."""
DECIMALS: Final = 3
"""Thresholds and IoUs are rounded down, or up, to this many decimals, so that they hold as they are printed."""
LOWEST_REMEDY: Final = PostprocessConfig.score_threshold
"""Lowest threshold that is a remedy. Below it, an image has many false detections."""
HIGHEST_NMS_THRESHOLD: Final = 0.8
"""Highest NMS threshold that is tried. With a higher one, NMS keeps several boxes of most objects."""
NMS_STEP: Final = 0.02

Option = Literal["threshold", "nms_threshold", "agnostic_nms", "candidates_per_level", "max_detections"]
"""Option of post-processing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """Whether some threshold shows an object.

    Args:
        threshold: highest threshold, in steps of 0.001, at which a detection matches the object; None: no threshold.
        cause: why the object is missed even at `LOWEST_THRESHOLD`; None if a threshold shows it.
    """

    threshold: float | None
    cause: MissCause | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """The value of one option with which an object is detected, all other options unchanged.

    Args:
        option: name of the option.
        value: the value nearest to the present one with which the object was detected in a run of post-processing.
        detections: number of detections of the image with this value.
    """

    option: Option
    value: float | int | bool
    detections: int


def below(score: float) -> float:
    """Return the highest threshold, in steps of 0.001, that a float32 score exceeds."""
    steps = math.floor(score * 10**DECIMALS)
    while steps > 0 and not np.float32(score) > np.float32(steps / 10**DECIMALS):
        steps -= 1
    return steps / 10**DECIMALS


def visibilities(errors: ImageErrors) -> list[Visibility]:
    """Return, for each object of an image, the highest threshold at which a detection matches the object.

    Post-processing runs once at `LOWEST_THRESHOLD`. Detections at a higher threshold are the first of these, because
    candidates, NMS, the limit of detections and matching go from the highest score down. Crowd regions count as missed.
    """
    lowest = _changed(errors, threshold=LOWEST_THRESHOLD)
    causes = {miss.object: miss.cause for miss in lowest.missed()}
    found = []
    for g in range(len(errors.record.labels_G)):
        d = lowest.detection_of(g)
        score = None if d is None else below(float(lowest.shown.scores_D[d]))
        found.append(Visibility(threshold=score, cause=causes.get(g)))
    return found


def remedy(errors: ImageErrors, miss: Missed, visibility: Visibility) -> Remedy | None:
    """Return the option that makes a missed object a detection; None if no option of post-processing does.

    Args:
        errors: errors of the image.
        miss: the missed object.
        visibility: the threshold that shows the object, see `visibilities`.
    """
    for option, value in _attempts(errors, miss, visibility):
        changed = _changed(errors, **{option: value})
        if changed.detection_of(miss.object) is not None:
            return Remedy(option=option, value=value, detections=len(changed.shown))
    return None


def _attempts(errors: ImageErrors, miss: Missed, visibility: Visibility) -> Iterator[tuple[Option, float | int | bool]]:
    """Yield options with values that can show a missed object, the smallest change first."""
    trace, config, best = errors.trace, errors.trace.config, errors.best(miss.object)
    if miss.cause == "suppressed" and best is not None:
        fate = trace.fate(best, miss.label)
        assert fate.kept is not None and fate.iou is not None  # noqa: PT018, S101
        if config.agnostic_nms and trace.label_D[fate.kept] != miss.label:
            yield "agnostic_nms", False
        value = math.ceil((fate.iou + 1e-6) * 100) / 100
        while value <= HIGHEST_NMS_THRESHOLD:
            yield "nms_threshold", round(value, 2)
            value += NMS_STEP
    elif miss.cause == "not a candidate" and best is not None:
        level = trace.flat.level_of(best)
        scores_AK = trace.flat.scores_AK[trace.flat.starts[level] : trace.flat.starts[level + 1]]
        yield "candidates_per_level", int((scores_AK >= trace.flat.scores_AK[best, miss.label]).sum())
        yield "candidates_per_level", int((scores_AK > config.score_threshold).sum())
    elif miss.cause == "beyond max_detections" and best is not None:
        kept = np.flatnonzero((trace.anchor_D == best) & (trace.label_D == miss.label))
        yield "max_detections", int(kept[0]) + 1
    if visibility.threshold is not None and visibility.threshold >= LOWEST_REMEDY:
        yield "threshold", visibility.threshold


def _changed(errors: ImageErrors, *, threshold: float | None = None, **options: float | int | bool) -> ImageErrors:
    """Return the errors of the image with another threshold of detections, or other options of post-processing."""
    config: PostprocessConfig = dataclasses.replace(errors.trace.config, **options)  # type: ignore[arg-type]
    thresholds: float | Sequence[float] = errors.thresholds if threshold is None else threshold
    if threshold is not None:
        config = dataclasses.replace(config, score_threshold=min(config.score_threshold, threshold))
    return ImageErrors(
        number=errors.number,
        record=errors.record,
        trace=Trace(errors.trace.flat, config),
        anchors=errors.anchors,
        levels=errors.levels,
        threshold=thresholds,
    )
