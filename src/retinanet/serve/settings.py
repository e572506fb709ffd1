"""Read the settings of a request: its threshold, classes, limit and NMS. Unset options are those of the model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from retinanet.errors import ConfigError
from retinanet.serve.marked_objects import label_of
from retinanet.serve.service import DetectSettings
from retinanet.serve.uploads import RefusedError

if TYPE_CHECKING:
    from retinanet.config import PostprocessConfig
    from retinanet.serve.schemas import DetectOptions
    from retinanet.serve.service import ServedDetector


def detect_settings(detector: ServedDetector, options: DetectOptions) -> DetectSettings:
    """Return the settings of a detection request. Raises `RefusedError` 422 for an unknown class or threshold."""
    defaults = detector.postprocess_config
    # A value with commas is a list of names, unless a class has exactly that name.
    names = [name for value in options.classes for name in ([value] if value in detector.classes else value.split(","))]
    labels = [label_of(name.strip(), detector.classes, "classes") for name in names]
    threshold = threshold_of(detector, options.threshold)
    class_thresholds = None if isinstance(threshold, float) else threshold
    return DetectSettings(
        threshold=threshold if isinstance(threshold, float) else min(threshold),
        class_thresholds=class_thresholds,
        max_detections=options.max_detections or defaults.max_detections,
        labels=tuple(labels) or None,
        agnostic_nms=postprocess_config(detector, options.agnostic_nms).agnostic_nms,
    )


def threshold_of(detector: ServedDetector, requested: float | str | None) -> float | tuple[float, ...]:
    """Return the requested threshold, the threshold of each class for "tuned", or the model's threshold for None.

    Raises:
        RefusedError: 422, the model has no tuned thresholds.
    """
    if requested != "tuned":
        return float(detector.postprocess_config.score_threshold if requested is None else requested)
    if detector.info.tuned is None:
        raise RefusedError(
            422,
            "threshold: expected a number, because the model has no tuned thresholds, found 'tuned'. Choose "
            "thresholds with `retinanet tune`, and serve the tuned model",
        )
    return tuple(detector.info.tuned.thresholds)


def postprocess_config(detector: ServedDetector, agnostic_nms: bool | None) -> PostprocessConfig:
    """Return the post-processing of the model with this `agnostic_nms`; None: the model's.

    Raises:
        RefusedError: 422, an exported model contains another NMS.
    """
    config = detector.postprocess_config
    if agnostic_nms is None or agnostic_nms == config.agnostic_nms:
        return config
    config = dataclasses.replace(config, agnostic_nms=agnostic_nms)
    try:
        detector.check_nms(config)
    except ConfigError as error:
        raise RefusedError(422, str(error)) from error
    return config
