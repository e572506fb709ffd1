"""The gallery of hard examples: where a model disagrees most with the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.images import decode
from retinanet.report.gallery import RIGHT, WRONG, draw_boxes
from retinanet.report.html import ReportImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.analysis.hard_examples import HardExample, HardExamples
    from retinanet.report.html import Report

    Floats = npt.NDArray[np.float64]

SHOWN: Final = 24
"""Of each kind on the page; the CSV has all."""
SIDE: Final = 320
"""Of a cut-out, pixels."""
LABELLED: Final = (70, 90, 105)


def hard_sections(report: Report, found: HardExamples) -> None:
    """Add the hardest background, the hardest objects, and a count of those without an anchor."""
    for title, text, examples in (
        (
            "Background with the highest loss",
            "What the model takes for an object where nothing of that class is labelled (orange). Grey: labelled "
            "objects. If you see an object, it was forgotten: label it.",
            found.background,
        ),
        (
            "Objects with the highest loss",
            "Labelled objects (blue) that the model does not see as what they are labelled. If the label or the box is "
            "wrong, correct it; if it is right, the model needs more of such examples.",
            found.objects,
        ),
    ):
        section = report.section(title)
        section.text(text if examples else "None.")
        section.gallery(
            [example_image(found, example, rank) for rank, example in enumerate(examples[:SHOWN], start=1)], small=True
        )
    if found.unreached:
        section = report.section("Objects without a positive anchor")
        rows = [row for row in found.rows() if row["kind"] == "no anchor"]
        text = "\n".join(
            f"{r['file']}: {r['annotation_id']} {r['class']} {r['x1']} {r['y1']} {r['x2']} {r['y2']}" for r in rows
        )
        section.details(f"{len(rows)} objects (file: annotation, class, x1 y1 x2 y2)", text)


def example_image(found: HardExamples, example: HardExample, rank: int) -> ReportImage:
    """Return the surroundings of an example with its box, enlarged or made smaller to `SIDE`."""
    record, classes = found.data.records[example.image], found.data.classes
    image = decode(record.path)
    x1, y1, x2, y2 = example.box
    half = max(1.5 * max(x2 - x1, y2 - y1), 48) / 2 * 1.6
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(image.width, int(cx + half) + 1), min(image.height, int(cy + half) + 1)
    scale = SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    cut = image.crop((left, top, right, bottom)).resize(size)
    is_object = example.annotation_id is not None
    boxes: list[tuple[Floats, str, tuple[int, int, int]]] = []
    for g, box in enumerate(record.boxes_G4):
        mine = is_object and record.annotation_ids[g] == example.annotation_id
        inside = box[0] < right and box[2] > left and box[1] < bottom and box[3] > top
        if inside and not mine:
            boxes.append((_moved(box, left, top, scale), classes[record.labels_G[g]], LABELLED))
    name = classes[example.label] + ("" if is_object else f" {example.score:.2f}?")
    boxes.append((_moved(np.array(example.box), left, top, scale), name, RIGHT if is_object else WRONG))
    draw_boxes(cut, boxes)
    said = (
        f"{rank}. {record.path.name}: {found.suggestion(example)} (loss {example.loss:.2f}, score {example.score:.2f})"
    )
    if is_object:
        said = f"{rank}. {record.path.name}, object {example.annotation_id}: {found.suggestion(example)} (loss "
        said += f"{example.loss:.2f}, score {example.score:.2f})"
    return ReportImage(image=cut, alt=said, caption=f"{said}.")


def _moved(box: Sequence[float] | Floats, left: int, top: int, scale: float) -> Floats:
    moved: Floats = (np.asarray(box, dtype=np.float64) - np.array([left, top, left, top])) * scale
    return moved
