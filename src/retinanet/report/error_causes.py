"""Show the causes of a model's errors: how many, the AP that is regained without each, and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.causes import ADVICE
from retinanet.analysis.error_causes import COLUMN_TITLES
from retinanet.analysis.image_errors import Missed
from retinanet.images import decode_for_display
from retinanet.report.gallery import CORRECT, OTHER_OBJECT, WRONG, class_label, draw_crop
from retinanet.report.html import ReportImage

if TYPE_CHECKING:
    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.image_errors import FalseDetection
    from retinanet.report.html import Report

EXAMPLES: Final = 3
"""Maximum number of drawn examples of each cause."""


def causes_sections(report: Report, causes: ErrorCauses) -> None:
    """Add the table of causes, and a gallery for each cause."""
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
    section.text("Blue: a missed object. Orange: a detection or another prediction. Grey: other objects.")
    for cause in causes.counts():
        missed = [miss for miss in causes.missed if miss.cause == cause]
        missed.sort(key=lambda miss: -miss.best.score if miss.best is not None else 0.0)
        false = sorted((f for f in causes.false if f.cause == cause), key=lambda f: -f.prediction.score)
        errors: list[Missed | FalseDetection] = [*missed, *false]
        present = [e for e in errors if causes.data.records[e.image].path.is_file()]
        images = [example_image(causes, error) for error in present[:EXAMPLES]]
        section.text(f"{cause[0].upper()}{cause[1:]}. What can help: {ADVICE[cause]}.")
        if images:
            section.gallery(images, small=True)


def example_image(causes: ErrorCauses, error: Missed | FalseDetection) -> ReportImage:
    """Return a crop around a missed object or a false detection, with the boxes that its cause concerns."""
    record, classes = causes.data.records[error.image], causes.data.classes
    boxes = [
        (box, class_label(classes, label), OTHER_OBJECT)
        for g, (box, label) in enumerate(zip(record.boxes_G4, record.labels_G, strict=True))
    ]
    predictions = [p for p in causes.predictions_of(error) if p is not None]
    boxes += [(np.array(p.box), f"{class_label(classes, p.label)} {p.score:.2f}", WRONG) for p in predictions]
    if error.object is not None:
        box, label, _ = boxes[error.object]
        boxes.append((box, label, CORRECT if isinstance(error, Missed) else OTHER_OBJECT))
    around = record.boxes_G4[error.object] if error.object is not None else predictions[0].box
    text = f"{record.path.name}: {causes.why(error)}"
    crop = draw_crop(decode_for_display(record.path), [float(value) for value in around], boxes)
    return ReportImage(image=crop, alt=text, caption=f"{text}.")
