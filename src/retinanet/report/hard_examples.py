"""Draw hard examples: the places where a model disagrees most with the annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.images import decode_for_display
from retinanet.report.gallery import CORRECT, WRONG, class_label, draw_boxes, pluralise
from retinanet.report.html import ReportImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.analysis.hard_examples import HardExample, HardExamples
    from retinanet.report.html import Report

    Floats = npt.NDArray[np.float64]

MAX_EXAMPLES: Final = 24
"""Maximum number of examples of each kind in the report. The CSV file contains all examples."""
SIDE: Final = 320
"""Longest side of a drawn crop, pixels."""
OTHER_OBJECT: Final = (70, 90, 105)
"""Colour of objects near an example, RGB."""


def hard_sections(report: Report, hard: HardExamples) -> None:
    """Add the hardest background boxes, the hardest objects, and the objects without a positive anchor."""
    for title, text, examples in (
        (
            "Background with the highest loss",
            "Orange: a box that the model predicts where the annotations have no object of that class. Grey: annotated "
            "objects. If the orange box contains an object, its annotation is missing: add it.",
            hard.background,
        ),
        (
            "Objects with the highest loss",
            "Blue: an annotated object with a low score for its class. If its class or box is wrong, correct the "
            "annotation. If the annotation is correct, add more training images with similar objects.",
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
    """Return a crop around an example with its box drawn, resized to `SIDE`. `rank` is its number in the caption."""
    record, classes = hard.data.records[example.image], hard.data.classes
    image = decode_for_display(record.path)
    x1, y1, x2, y2 = example.box
    half = max(1.5 * max(x2 - x1, y2 - y1), 48) / 2 * 1.6
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(image.width, int(cx + half) + 1), min(image.height, int(cy + half) + 1)
    scale = SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    crop = image.crop((left, top, right, bottom)).resize(size)
    is_object = example.annotation_id is not None
    boxes: list[tuple[Floats, str, tuple[int, int, int]]] = []
    for g, box in enumerate(record.boxes_G4):
        is_example = is_object and record.annotation_ids[g] == example.annotation_id
        inside = box[0] < right and box[2] > left and box[1] < bottom and box[3] > top
        if inside and not is_example:
            boxes.append((_to_crop(box, left, top, scale), class_label(classes, record.labels_G[g]), OTHER_OBJECT))
    name = class_label(classes, example.label) + ("" if is_object else f" {example.score:.2f}?")
    boxes.append((_to_crop(np.array(example.box), left, top, scale), name, CORRECT if is_object else WRONG))
    draw_boxes(crop, boxes)
    annotation = f", object {example.annotation_id}" if is_object else ""
    text = f"{rank}. {record.path.name}{annotation}: {hard.suggestion(example)}"
    text += f" (loss {example.loss:.2f}, score {example.score:.2f})"
    return ReportImage(image=crop, alt=text, caption=f"{text}.")


def _to_crop(box: Sequence[float] | Floats, left: int, top: int, scale: float) -> Floats:
    in_crop: Floats = (np.asarray(box, dtype=np.float64) - np.array([left, top, left, top])) * scale
    return in_crop
