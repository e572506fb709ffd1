"""What in a dataset will make training harder than it need be. Shape suffixes: G objects of an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.finding import Finding
from retinanet.analysis.statistics import DataStatistics, statistics
from retinanet.data.duplicates import fingerprints, nearly_same, same

if TYPE_CHECKING:
    from retinanet.data import DetectionData, Record


RARE: Final = 20
"""A class with fewer objects than this is hardly learnt, and its AP is largely chance."""
UNEVEN: Final = 50
"""So many times more objects of one class than of another are named."""
SAME_BOX: Final = 0.95
"""Two boxes of an image with at least this IoU are one."""
TINY: Final = 8.0
"""Sides below this, in the network's input, are less than one position of the finest usual level."""
WHOLE: Final = 0.95


def data_findings(data: DetectionData, *, max_detections: int = 100) -> list[Finding]:
    """Return what of the annotations looks wrong or makes learning hard; no image is opened."""
    counts = statistics(data)
    return [
        *_classes(counts),
        *_boxes(data),
        *_crowded(data, counts, max_detections),
        *_emptiness(data, counts),
    ]


def _classes(counts: DataStatistics) -> Iterable[Finding]:
    absent = [name for name, n in zip(counts.classes, counts.objects_K, strict=True) if not n]
    if absent:
        yield Finding(
            kind="unlabelled class",
            severity="warning",
            what=f"{_number(len(absent), 'class')} without a single object",
            cause="Nobody labelled them, or they were labelled under another name; if they are in the images, "
            "training teaches that they are background",
            advice="Label them, or take the class out of the list",
            where=tuple(absent),
        )
    rare = [f"{name}: {n}" for name, n in zip(counts.classes, counts.objects_K.tolist(), strict=True) if 0 < n < RARE]
    if rare:
        yield Finding(
            kind="rare class",
            severity="note",
            what=f"{_number(len(rare), 'class')} with fewer than {RARE} objects",
            cause="So few are hardly learnt, and their AP is largely chance",
            advice="More images of them, or --balance-classes, which gives rarer classes more weight",
            where=tuple(rare),
        )
    present = counts.objects_K[counts.objects_K > 0]
    if len(present) > 1 and present.max() >= UNEVEN * present.min():
        most, least = counts.objects_K.argmax(), np.where(counts.objects_K > 0, counts.objects_K, np.inf).argmin()
        yield Finding(
            kind="uneven classes",
            severity="note",
            what=f"{present.max() // present.min()} times more objects of {counts.classes[most]} "
            f"({counts.objects_K[most]}) than of {counts.classes[least]} ({counts.objects_K[least]})",
            cause="Frequent classes make most of the loss",
            advice="--balance-classes gives rarer classes more weight; look at AP class by class",
        )


def _boxes(data: DetectionData) -> Iterable[Finding]:
    twice, contrary, whole = [], [], []
    for record in data.records:
        for first, second in _same_boxes(record):
            where = f"{record.path.name}: {_name(record, first)} and {_name(record, second)}"
            if record.labels_G[first] == record.labels_G[second]:
                twice.append(where)
            else:
                names = [data.classes[record.labels_G[i]] for i in (first, second)]
                contrary.append(f"{where} ({names[0]}, {names[1]})")
        sides = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        full = (sides.prod(axis=1) >= WHOLE * record.width * record.height) & ~record.crowd_G
        whole += [f"{record.path.name}: {_name(record, i)}" for i in np.flatnonzero(full).tolist()]
    if twice:
        yield Finding(
            kind="duplicate boxes",
            severity="warning",
            what=f"{_number(len(twice), 'object')} labelled twice (IoU of {SAME_BOX:g} or more, same class)",
            cause="The same object was annotated again, or two annotation files were merged",
            advice="Remove one of each: a detector can find it only once, the other counts as missed",
            where=tuple(twice),
        )
    if contrary:
        yield Finding(
            kind="contradictory labels",
            severity="warning",
            what=f"{_number(len(contrary), 'object')} labelled as two classes at once (IoU of {SAME_BOX:g} or more)",
            cause="Annotators disagreed, or a label was corrected without removing the old one",
            advice="Keep the right one of each",
            where=tuple(contrary),
        )
    if whole:
        yield Finding(
            kind="whole image",
            severity="note",
            what=f"{_number(len(whole), 'box')} over {WHOLE:.0%} of the image or more",
            cause="Close-ups, or a label for the image rather than for an object",
            advice="See whether they are meant",
            where=tuple(whole),
        )


def _same_boxes(record: Record) -> Iterable[tuple[int, int]]:
    """Return the pairs of objects of an image whose boxes are one."""
    keep = np.flatnonzero(~record.crowd_G)
    boxes = record.boxes_G4[keep]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for place in range(len(keep) - 1):
        rest = boxes[place + 1 :]
        sides = np.minimum(boxes[place, 2:], rest[:, 2:]) - np.maximum(boxes[place, :2], rest[:, :2])
        common = sides.clip(0).prod(axis=1)
        same = common >= SAME_BOX * (area[place] + area[place + 1 :] - common)
        for other in np.flatnonzero(same):
            yield int(keep[place]), int(keep[place + 1 + other])


def _crowded(data: DetectionData, counts: DataStatistics, max_detections: int) -> Iterable[Finding]:
    full = np.flatnonzero(counts.per_image_P > max_detections)
    if len(full):
        yield Finding(
            kind="many objects",
            severity="warning",
            what=f"{_number(len(full), 'image')} with more than {max_detections} objects, at most "
            f"{counts.per_image_P.max()}",
            cause=f"An image gets no more than {max_detections} detections, so that the others are always missed; "
            "COCO's AP counts 100",
            advice=f"--max-detections {int(counts.per_image_P.max() * 1.5)}, or smaller images",
            where=tuple(data.records[i].path.name for i in full),
        )


def _emptiness(data: DetectionData, counts: DataStatistics) -> Iterable[Finding]:
    if counts.images and counts.empty > counts.images / 2:
        yield Finding(
            kind="empty images",
            severity="note",
            what=f"{counts.empty:,} of {counts.images:,} images have no object",
            cause="They teach what background looks like; if their objects were only not labelled, they teach it "
            "wrongly",
            advice="Look at some of them",
            where=tuple(record.path.name for record in data.records if not (~record.crowd_G).any()),
        )


def split_findings(train: DetectionData, val: DetectionData) -> list[Finding]:
    """Return the classes that only one of two datasets has."""
    found = []
    objects = [dict(zip(data.classes, statistics(data).objects_K.tolist(), strict=True)) for data in (train, val)]
    for (one, first), (other, second) in (
        (("train", objects[0]), ("val", objects[1])),
        (("val", objects[1]), ("train", objects[0])),
    ):
        only = [name for name, n in first.items() if n and not second.get(name)]
        if not only:
            continue
        found.append(
            Finding(
                kind=f"class only in {one}",
                severity="error"
                if one == "val" and only_in_list(only, train)
                else "warning"
                if one == "val"
                else "note",
                what=f"{_number(len(only), 'class')} with objects in {one} and none in {other}",
                cause="The model never sees them; `train` refuses classes that are not in its list"
                if one == "val"
                else "How well they are found is not measured",
                advice="Split so that both have them, and name them alike in both",
                where=tuple(only),
            )
        )
    return found


def only_in_list(names: Sequence[str], train: DetectionData) -> bool:
    """Return whether some of the names are not even in the training data's class list."""
    return any(name not in train.classes for name in names)


def duplicate_findings(sets: Sequence[tuple[str, DetectionData]], *, workers: int = 2) -> list[Finding]:
    """Return images that are the same or look it, within and between datasets. Decodes every image.

    Args:
        sets: (name, data), such as ("train", ...), ("val", ...).
        workers: threads that decode.
    """
    places = [(name, record) for name, data in sets for record in data.records]
    prints = fingerprints([record for _, record in places], workers=workers)
    names = [f"{name}/{record.path.name}" for name, record in places]
    found = []
    for kind, groups in (
        ("the very same pixels", same(prints)),
        ("nearly the same pixels", [[i, j] for i, j, _ in nearly_same(prints)]),
    ):
        across = [group for group in groups if len({places[i][0] for i in group}) > 1]
        within = [group for group in groups if len({places[i][0] for i in group}) == 1]
        nearly = kind.startswith("nearly")
        if across:
            found.append(
                Finding(
                    kind="near-duplicates in both sets" if nearly else "images in both sets",
                    severity="warning",
                    what=f"{_number(len(across), 'pair' if nearly else 'image')} with {kind} in more than one of "
                    f"{', '.join(name for name, _ in sets)}",
                    cause="The split was not made by image, or files were copied"
                    + ("; or frames of a film, or fields of a microscope, lie next to each other" if nearly else ""),
                    advice="Take them out of one: AP on images that were trained on says nothing. `retinanet split` "
                    "keeps such images on one side",
                    where=tuple(" = ".join(names[i] for i in group) for group in across),
                )
            )
        if within:
            found.append(
                Finding(
                    kind="near-duplicates" if nearly else "duplicate images",
                    severity="note" if nearly else "warning",
                    what=f"{_number(len(within), 'pair' if nearly else 'image')} with {kind} within a set",
                    cause="Files were copied, or the same image was annotated twice",
                    advice="Keep one of each: they count double, and their annotations may disagree",
                    where=tuple(" = ".join(places[i][1].path.name for i in group) for group in within),
                )
            )
    return found


def _name(record: Record, index: int) -> str:
    return f"object {record.annotation_ids[index]}"


def _number(count: int, thing: str) -> str:
    plural = f"{thing}es" if thing.endswith(("s", "x")) else f"{thing}s"
    return f"1 {thing}" if count == 1 else f"{count:,} {plural}"
