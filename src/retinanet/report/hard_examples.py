"""Draw hard examples: the places where a model disagrees most with the annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.formats.records import drawn_names
from retinanet.images import decode_for_display
from retinanet.report.gallery import FALSE, OBJECT, OTHER_OBJECT, UNLABELLED, class_label, draw_crop, pluralise
from retinanet.report.html import ReportImage

if TYPE_CHECKING:
    from retinanet.analysis.hard_examples import HardExample, HardExamples
    from retinanet.report.html import Report

MAX_EXAMPLES: Final = 24
"""Maximum number of examples of each kind in the report. The CSV file contains all examples."""


def hard_sections(report: Report, hard: HardExamples) -> None:
    """Add the hardest background boxes, the hardest objects, and the objects without a positive anchor."""
    for title, text, examples in (
        (
            "Background with the highest loss",
            "Dotted purple: a box that the model predicts where nothing is annotated. If the box contains an object, "
            "the annotation is missing: add it. Solid orange: a box that the model predicts where an object of another "
            "class is annotated. Dashed grey: annotated objects.",
            hard.background,
        ),
        (
            "Objects with the highest loss",
            "Dashed blue: an annotated object with a low score for its class. If its class or box is wrong, correct "
            "the annotation. If the annotation is correct, add more training images with similar objects.",
            hard.objects,
        ),
    ):
        section = report.section(title)
        section.text(text if examples else "None.")
        section.gallery(
            [example_image(hard, example, rank) for rank, example in enumerate(examples[:MAX_EXAMPLES], start=1)],
            small=True,
        )
    if hard.unreached:
        section = report.section("Objects without a positive anchor")
        rows = [row for row in hard.rows() if row["kind"] == "no anchor"]
        text = "\n".join(
            f"{r['file']}: {r['annotation_id']} {r['class']} {r['x1']} {r['y1']} {r['x2']} {r['y2']}" for r in rows
        )
        section.details(f"{pluralise(len(rows), 'object')} (file: annotation id, class, x1 y1 x2 y2)", text)


def example_image(hard: HardExamples, example: HardExample, rank: int) -> ReportImage:
    """Return a crop around an example with its box drawn. `rank` is its number in the caption."""
    record, classes = hard.data.records[example.image], hard.data.classes
    is_object = example.annotation_id is not None
    names = [class_label(classes, label) for label in range(len(classes))]
    boxes = [
        (record.boxes_G4[g], name, OTHER_OBJECT)
        for g, name in drawn_names(record.boxes_G4, record.labels_G, record.crowd_G, names)
        if not (is_object and record.annotation_ids[g] == example.annotation_id)
    ]
    name = class_label(classes, example.label) + ("" if is_object else f" {example.score:.2f}?")
    style = OBJECT if is_object else UNLABELLED if example.kind == "unlabelled?" else FALSE
    boxes.append((np.array(example.box), name, style))
    crop = draw_crop(decode_for_display(record.path), example.box, boxes)
    annotation = f", object {example.annotation_id}" if is_object else ""
    text = f"{rank}. {record.path.name}{annotation}: {hard.suggestion(example)}"
    text += f" (loss {example.loss:.2f}, score {example.score:.2f})"
    return ReportImage(image=crop, alt=text, caption=f"{text}.")
