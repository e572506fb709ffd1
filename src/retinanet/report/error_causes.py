"""Show the causes of a model's errors: how many, the AP that is regained without each, and examples."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from retinanet.analysis.causes import ADVICE
from retinanet.analysis.error_causes import COLUMN_TITLES
from retinanet.analysis.image_errors import Missed
from retinanet.images import decode_for_display
from retinanet.report.gallery import (
    CROP_SIDE,
    FALSE,
    MISSED,
    OTHER_OBJECT,
    PREDICTION,
    UNLABELLED,
    MarkedBox,
    class_label,
    draw_crop,
)
from retinanet.report.html import ReportImage

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.image_errors import FalseDetection
    from retinanet.report.html import Report

LEGEND: Final = (
    "Dashed orange: a missed object. Dashed grey: other objects. Solid blue: a prediction that concerns a missed "
    "object. Solid orange: a false detection. Dotted purple: a detection that is probably an unlabelled object."
)
"""Meaning of the boxes in the examples."""
EXAMPLES: Final = 3
"""Maximum number of drawn examples of each cause."""


def causes_sections(report: Report, causes: ErrorCauses, *, with_misses: bool = True) -> None:
    """Add the table of causes, and a gallery for each cause.

    Args:
        report: report.
        causes: all errors.
        with_misses: False to leave the missed objects out of the galleries, because the miss map shows them.
    """
    section = report.section("Causes of the errors")
    if not (rows := causes.rows()):
        section.text("There are no errors.")
        return
    section.table(
        COLUMN_TITLES[:-1],
        [row[:-1] for row in rows],
        caption=f"Errors at the threshold {causes.threshold:g}, with AP {causes.ap:.3f}. Every missed object and every "
        "false detection has one cause. AP regained: AP, computed anew, if this cause alone did not exist. A missed "
        "object that is detected with a wrong class or place, and this false detection, are two sides of one error.",
    )
    if not with_misses:
        section.text("The miss map shows the missed objects. The images below show false detections.")
    section.text(LEGEND)
    for cause in causes.counts():
        missed = [miss for miss in causes.missed if miss.cause == cause] if with_misses else []
        missed.sort(key=lambda miss: -miss.best.score if miss.best is not None else 0.0)
        false = sorted((f for f in causes.false if f.cause == cause), key=lambda f: -f.prediction.score)
        errors: list[Missed | FalseDetection] = [*missed, *false]
        present = [e for e in errors if causes.data.records[e.image].path.is_file()]
        images = [example_image(causes, error) for error in present[:EXAMPLES]]
        if images or with_misses:
            section.text(f"{cause[0].upper()}{cause[1:]}. What can help: {ADVICE[cause]}.")
        if images:
            section.gallery(images, small=True)


def example_image(causes: ErrorCauses, error: Missed | FalseDetection, *, side: int = CROP_SIDE) -> ReportImage:
    """Return a crop around a missed object or a false detection, with the boxes that its cause concerns.

    Args:
        causes: all errors.
        error: the error in the middle of the crop.
        side: longest side of the crop, pixels.
    """
    record, classes = causes.data.records[error.image], causes.data.classes
    boxes: list[MarkedBox] = [(box, "", OTHER_OBJECT) for g, box in enumerate(record.boxes_G4) if g != error.object]
    predictions = [p for p in causes.predictions_of(error) if p is not None]
    if isinstance(error, Missed):
        boxes.append((error.box, f"{class_label(classes, error.label)} missed", MISSED))
        style = PREDICTION
    else:
        if error.object is not None:
            label = class_label(classes, int(record.labels_G[error.object]))
            boxes.append((record.boxes_G4[error.object], label, OTHER_OBJECT))
        style = UNLABELLED if error.cause == "unlabelled?" else FALSE
    for p in predictions:
        score = math.floor(100 * p.score) / 100  # rounded down, so that a score below the threshold looks lower
        boxes.append((p.box, f"{class_label(classes, p.label)} {score:.2f}", style))
    around = record.boxes_G4[error.object] if error.object is not None else predictions[0].box
    text = f"{record.path.name}: {causes.why(error)}".removesuffix(", ")
    crop = draw_crop(_decoded(record.path), [float(value) for value in around], boxes, side=side)
    what = "a missed object" if isinstance(error, Missed) else "a detection"
    return ReportImage(image=crop, alt=f"Crop of {record.path.name} around {what}", caption=f"{text}.")


@lru_cache(maxsize=1)
def _decoded(path: Path) -> Image.Image:
    """Return an image. Several errors of one image follow each other."""
    return decode_for_display(path)
