"""Draw the miss map: for each class, how many objects pass each stage, and what the losses are, show and need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retinanet.analysis.causes import ADVICE, MISS_MEANINGS, NO_DETECTION
from retinanet.analysis.miss_map import UNKNOWN_CAUSES
from retinanet.evaluate.per_image import CONFIDENT
from retinanet.report.error_causes import LEGEND, example_image
from retinanet.report.html import jpeg, render

if TYPE_CHECKING:
    from retinanet.analysis.image_errors import FalseDetection, Missed
    from retinanet.analysis.miss_map import ClassFunnel, Loss, MissMap
    from retinanet.analysis.miss_remedies import MissRemedy
    from retinanet.report.html import Report

THUMBNAILS: Final = 6
"""Maximum number of thumbnails of each loss."""
THUMBNAIL_SIDE: Final = 240
"""Longest side of a thumbnail, pixels."""
MAX_BYTES: Final = 1_800_000
"""Maximum size of all thumbnails in base64, bytes. Every loss has one thumbnail before a loss has two."""
OPENED: Final = 6
"""Number of classes whose funnel is open at first."""
TAKEN: Final = {
    "wrong class": "Detected as",
    "suppressed": "Suppressed by a detection of",
    "anchors taken": "Their anchors belong to an object of",
    "low scores": "A higher score at their anchors has",
}
"""What the classes in `Loss.taken_by` did."""
MEANINGS: Final[dict[str, str]] = {
    **dict(MISS_MEANINGS.items()),
    NO_DETECTION: "no detection of any score fits the object",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lost:
    """A row of the map that opens: what it states, its errors, its remedy, and its place in the bars."""

    text: str
    count: int
    sentences: Sequence[str]
    errors: Sequence[Missed | FalseDetection]
    remedy: MissRemedy
    start: float = 0.0
    width: float = 0.0


def miss_map_section(report: Report, found: MissMap) -> None:
    """Add the miss map as a section. Classes whose objects are all found have one line together."""
    section = report.section("Miss map")
    lossy = [one for one in found.classes if one.losses or one.unlabelled]
    complete = [one for one in found.classes if one not in lossy]
    section.text(
        f"The map follows the objects of each class to the found ones, at the threshold {found.threshold:g}. The class "
        "with the smallest share of found objects comes first. Open a loss to see its objects, what can help, and a "
        "command that is ready to copy."
    )
    if not found.with_network:
        section.text(UNKNOWN_CAUSES)
    if lossy:
        section.text(f"In the images: {LEGEND[0].lower()}{LEGEND[1:]}")
        rows = [_rows(one, found) for one in lossy]
        images = _thumbnails(report, found, [row for of_class in rows for row in of_class if isinstance(row, _Lost)])
        classes = [
            {
                "funnel": one,
                "share": f"{one.found / one.objects:.0%}" if one.objects else "",
                "rows": [_values(row, images) for row in of_class],
            }
            for one, of_class in zip(lossy, rows, strict=True)
        ]
        section.interactive("copy", render("miss_map.html", classes=classes, opened=OPENED), {})
    if complete:
        names = ", ".join(f"{one.name} ({one.objects:,})" for one in complete)
        section.text(f"All objects of these classes are found: {names}.")


def _rows(funnel: ClassFunnel, found: MissMap) -> list[_Lost | dict[str, Any]]:
    """Return the rows of a class below its first: losses, and what passes each stage."""
    rows: list[_Lost | dict[str, Any]] = []
    before = funnel.objects
    stages = funnel.stages()
    for number, (stage, left, losses) in enumerate(stages):
        for loss in losses:
            before -= len(loss.missed)
            rows.append(
                _Lost(
                    text=loss.text().split(" ", 1)[1],
                    count=len(loss.missed),
                    sentences=_sentences(loss),
                    errors=loss.missed,
                    remedy=loss.remedy,
                    start=100 * before / funnel.objects,
                    width=100 * len(loss.missed) / funnel.objects,
                )
            )
        name = f"{stage}: found" if number == len(stages) - 1 else stage
        rows.append(_passed(name, left, funnel.objects))
    if funnel.unlabelled:
        errors = [f for f in found.errors.false if f.cause == "unlabelled?" and _name(found, f) == funnel.name]
        errors.sort(key=lambda f: -f.prediction.score)
        text = (
            f"A detection with a score of {CONFIDENT:g} or more lies where no object is labelled. The model may be "
            "right, and the labels incomplete."
        )
        rows.append(
            _Lost(
                text="detection is probably an unlabelled object"
                if funnel.unlabelled == 1
                else "detections are probably unlabelled objects",
                count=funnel.unlabelled,
                sentences=[text, f"What can help: {ADVICE['unlabelled?']}."],
                errors=errors,
                remedy=found.label_remedy,
            )
        )
    return rows


def _name(found: MissMap, error: FalseDetection) -> str:
    return found.errors.data.classes[error.prediction.label]


def _passed(stage: str, left: int, objects: int) -> dict[str, Any]:
    return {"loss": False, "text": stage, "count": f"{left:,}", "width": f"{100 * left / objects:.2f}"}


def _sentences(loss: Loss) -> list[str]:
    meaning = MEANINGS[loss.cause]
    sentences = [f"{meaning[0].upper()}{meaning[1:]}."]
    if loss.taken_by:
        names = ", ".join(f"{name} ({count:,})" for name, count in loss.taken_by.items())
        sentences.append(f"{TAKEN[loss.cause]}: {names}.")
    sentences.append(f"What can help: {ADVICE[loss.cause]}.")
    return [*sentences, loss.remedy.outlook] if loss.remedy.outlook else sentences


def _thumbnails(report: Report, found: MissMap, rows: Sequence[_Lost]) -> dict[int, list[tuple[str, str, str]]]:
    """Return the thumbnails of each row, by its id, as (data URI, text alternative, caption).

    Every row gets its first thumbnail before a row gets its second, until the size limit is reached.
    """
    records = found.errors.data.records
    present = {id(row): [e for e in row.errors if records[e.image].path.is_file()][:THUMBNAILS] for row in rows}
    images: dict[int, list[tuple[str, str, str]]] = {id(row): [] for row in rows}
    free = min(MAX_BYTES, report.free_bytes)
    for number in range(THUMBNAILS):
        for row in rows:
            if number >= len(present[id(row)]):
                continue
            image = example_image(found.errors, present[id(row)][number], side=THUMBNAIL_SIDE)
            source = f"data:image/jpeg;base64,{jpeg(image.image)}"
            free -= len(source)
            if free < 0:
                return images
            images[id(row)].append((source, image.alt, image.caption))
    return images


def _values(row: _Lost | dict[str, Any], images: dict[int, list[tuple[str, str, str]]]) -> dict[str, Any]:
    """Return the values of a row for the template."""
    if not isinstance(row, _Lost):
        return row
    shown = images[id(row)]
    left = row.count - len(shown)
    return {
        "loss": True,
        "text": f"{row.count:,} {row.text}",
        "count": f"−{row.count:,}" if row.width else f"{row.count:,}",
        "start": f"{row.start:.2f}",
        "width": f"{row.width:.2f}" if row.width else "",
        "sentences": row.sentences,
        "commands": [(f"{step.reason}:", step.command) for step in row.remedy.steps],
        "images": shown,
        "more": f"{left:,} more {'is' if left == 1 else 'are'} not shown." if shown and left else "",
    }
