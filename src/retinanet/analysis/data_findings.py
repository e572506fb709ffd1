"""Findings about a dataset: annotations that are wrong or make learning hard.

Shape suffixes: K classes, P images, G objects of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.finding import Finding
from retinanet.analysis.statistics import DataStatistics, statistics
from retinanet.data.duplicates import fingerprints, group_numbers, identical_images, near_duplicates
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS
from retinanet.evaluate.detection_limit import crowded_images, describe, highest_ap
from retinanet.pixel_values import FULL_DEPTH, ValueRange

if TYPE_CHECKING:
    from retinanet.data import DetectionData, Record


RARE: Final = 20
"""Number of objects below which a class is hardly learnt and its AP is mostly chance."""
UNEVEN: Final = 50
"""Ratio of the most to the least frequent class above which the classes are reported as uneven."""
SAME_BOX: Final = 0.95
"""Minimum IoU of two boxes of an image that count as the same box."""
TINY: Final = 8.0
"""Side in input pixels below which an object is tiny: the stride of P3, the finest of the default levels."""
WHOLE: Final = 0.95
"""Minimum share of the image's area of a box that counts as the whole image."""


def data_findings(data: DetectionData, *, max_detections: int = 100) -> list[Finding]:
    """Return findings about the annotations, without opening an image.

    Args:
        data: images and objects.
        max_detections: maximum number of detections that the detector returns for an image.
    """
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
            what=f"{_number(len(absent), 'class')} without objects",
            cause="The objects were not labelled, or were labelled under another name. If the images contain such "
            "objects, the model learns them as background",
            advice="Label the objects, or remove the class from the class list",
            where=tuple(absent),
        )
    alike: dict[str, list[str]] = {}
    for name in counts.classes:
        alike.setdefault(re.sub(r"[\s_-]+", "", name.casefold()) or name, []).append(name)
    if similar := [" = ".join(names) for names in alike.values() if len(names) > 1]:
        yield Finding(
            kind="similar class names",
            severity="warning",
            what=f"{_number(len(similar), 'group')} of class names that differ only in case, spaces, - or _",
            cause="The names were probably typed by hand. The model learns each name as a class of its own, so that a "
            "detection of the other class counts as false",
            advice="Unite the classes with --rename old=new",
            where=tuple(similar),
        )
    rare = [f"{name}: {n}" for name, n in zip(counts.classes, counts.objects_K.tolist(), strict=True) if 0 < n < RARE]
    if rare:
        yield Finding(
            kind="rare class",
            severity="note",
            what=f"{_number(len(rare), 'class')} with fewer than {RARE} objects",
            cause="A model hardly learns a class with so few objects, and the AP of such a class is mostly chance",
            advice="Add images with objects of these classes, or use --balance-classes, which gives rare classes more "
            "weight",
            where=tuple(rare),
        )
    present = counts.objects_K[counts.objects_K > 0]
    if len(present) > 1 and present.max() >= UNEVEN * present.min():
        most, least = counts.objects_K.argmax(), np.where(counts.objects_K > 0, counts.objects_K, np.inf).argmin()
        yield Finding(
            kind="uneven classes",
            severity="note",
            what=f"{present.max() // present.min()} times as many objects of {counts.classes[most]} "
            f"({counts.objects_K[most]}) as of {counts.classes[least]} ({counts.objects_K[least]})",
            cause="Frequent classes contribute most of the loss",
            advice="Compare the AP of each class; --balance-classes gives rare classes more weight",
        )


def _boxes(data: DetectionData) -> Iterable[Finding]:
    twice, contrary, whole = [], [], []
    for record in data.records:
        for first, second in _same_boxes(record):
            where = f"{record.path.name}: {_object_name(record, first)} and {_object_name(record, second)}"
            if record.labels_G[first] == record.labels_G[second]:
                twice.append(where)
            else:
                names = [data.classes[record.labels_G[i]] for i in (first, second)]
                contrary.append(f"{where} ({names[0]}, {names[1]})")
        sides = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        full = (sides.prod(axis=1) >= WHOLE * record.width * record.height) & ~record.crowd_G
        whole += [f"{record.path.name}: {_object_name(record, i)}" for i in np.flatnonzero(full).tolist()]
    if twice:
        yield Finding(
            kind="duplicate boxes",
            severity="warning",
            what=f"{_number(len(twice), 'object')} labelled twice (IoU of {SAME_BOX:g} or more, same class)",
            cause="An annotator labelled the object again, or two annotation files were merged. A detector finds an "
            "object only once, so that the second box counts as missed",
            advice="Remove one box of each pair",
            where=tuple(twice),
        )
    if contrary:
        yield Finding(
            kind="contradictory labels",
            severity="warning",
            what=f"{_number(len(contrary), 'object')} labelled as two classes (IoU of {SAME_BOX:g} or more)",
            cause="Annotators disagreed, or a label was corrected and the wrong label was not removed",
            advice="Keep the correct label of each pair",
            where=tuple(contrary),
        )
    if whole:
        yield Finding(
            kind="whole image",
            severity="note",
            what=f"{_number(len(whole), 'box')} covering {WHOLE:.0%} of the image or more",
            cause="The images are close-ups, or a label describes the image instead of an object",
            advice="Remove the boxes that do not enclose an object",
            where=tuple(whole),
        )


def _same_boxes(record: Record) -> Iterable[tuple[int, int]]:
    """Yield each object whose box has an IoU of at least `SAME_BOX` with an earlier one, after the first of these."""
    indices = np.flatnonzero(~record.crowd_G)
    boxes = record.boxes_G4[indices]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    is_found = np.zeros(len(indices), np.bool_)
    for first in range(len(indices) - 1):
        rest = boxes[first + 1 :]
        sides = np.minimum(boxes[first, 2:], rest[:, 2:]) - np.maximum(boxes[first, :2], rest[:, :2])
        intersection = sides.clip(0).prod(axis=1)
        same = intersection >= SAME_BOX * (area[first] + area[first + 1 :] - intersection)
        new = same & ~is_found[first + 1 :]  # of 4,000 equal boxes, 3,999 are listed, not 8 million pairs
        is_found[first + 1 :] |= same
        for offset in np.flatnonzero(new):
            yield int(indices[first]), int(indices[first + 1 + offset])


def _crowded(data: DetectionData, counts: DataStatistics, max_detections: int) -> Iterable[Finding]:
    full = np.flatnonzero(counts.per_image_P > max_detections)
    if not len(full):
        return
    most, limit = int(counts.per_image_P.max()), COCO_MAX_DETECTIONS
    of_a_class = crowded_images(data, limit)
    capped = (
        f"In {_number(len({id(c.record) for c in of_a_class}), 'image')}, one class alone has more "
        f"({describe(of_a_class)}), so that AP cannot exceed {highest_ap(data, limit):.3f}"
        if of_a_class
        else "No class reaches this number in an image"
    )
    yield Finding(
        kind="many objects",
        severity="warning",
        what=f"{_number(len(full), 'image')} with more than {max_detections} objects, the most in one image: {most}",
        cause=f"The detector returns at most {max_detections} detections per image, so that further objects are "
        f"always missed. COCO's AP counts at most {limit} detections per image and class. {capped}",
        advice=f"Use --max-detections {int(most * 1.5)} in `train` and in `evaluate`, or cut the images into tiles",
        where=tuple(data.records[i].path.name for i in full),
    )


def _emptiness(data: DetectionData, counts: DataStatistics) -> Iterable[Finding]:
    if counts.images and counts.empty > counts.images / 2:
        yield Finding(
            kind="empty images",
            severity="note",
            what=f"{counts.empty:,} of {counts.images:,} images have no object",
            cause="Images without objects are useful examples of background, unless their objects were not labelled: "
            "the model then learns these objects as background",
            advice="Check some of these images for unlabelled objects",
            where=tuple(record.path.name for record in data.records if not (~record.crowd_G).any()),
        )


def split_findings(train: DetectionData, val: DetectionData) -> list[Finding]:
    """Return findings about classes with objects in only one of training and validation data."""
    findings = []
    objects = [dict(zip(data.classes, statistics(data).objects_K.tolist(), strict=True)) for data in (train, val)]
    for (one, first), (other, second) in (
        (("train", objects[0]), ("val", objects[1])),
        (("val", objects[1]), ("train", objects[0])),
    ):
        only = [name for name, n in first.items() if n and not second.get(name)]
        if not only:
            continue
        findings.append(
            Finding(
                kind=f"class only in {one}",
                severity="error"
                if one == "val" and only_in_list(only, train)
                else "warning"
                if one == "val"
                else "note",
                what=f"{_number(len(only), 'class')} with objects in {one} and none in {other}",
                cause="The model cannot learn these classes, and `retinanet train` refuses validation classes that the "
                "class list of the training data lacks"
                if one == "val"
                else "The evaluation does not measure these classes",
                advice="Split the data so that both parts have objects of every class, and use the same class names",
                where=tuple(only),
            )
        )
    return findings


def value_findings(sets: Sequence[DetectionData], bit_depth: int) -> list[Finding]:
    """Return a finding about 16-bit images whose values use fewer bits, or more bits than `bit_depth` (0: auto)."""
    values = ValueRange.join(data.value_range for data in sets)
    if values is None or values.bit_depth == (bit_depth or FULL_DEPTH):
        return []
    depth = values.bit_depth
    seen = values.largest >> 8
    if bit_depth == 0:
        cause = (
            "Cameras, X-ray and thermal sensors store fewer bits in 16-bit files. Read as 16 bits, the brightest "
            f"pixel is {seen} of 255"
        )
        advice = (
            f"`retinanet train` reads value {2**depth - 1:,} as white (--bit-depth {depth}) and stores this number in "
            "the model, so that predictions use it. Use --bit-depth with the number of bits of the sensor if it differs"
        )
    elif values.largest < 2**bit_depth:
        cause = f"With --bit-depth {bit_depth}, the brightest pixel is {values.largest >> (bit_depth - 8)} of 255"
        advice = f"Use --bit-depth {depth}, unless other images of the sensor are brighter"
    else:
        cause = f"With --bit-depth {bit_depth}, values above {2**bit_depth - 1:,} become white"
        advice = f"Use --bit-depth {depth}"
    return [Finding(kind="value range", severity="warning", what=values.describe(), cause=cause, advice=advice)]


def only_in_list(names: Sequence[str], train: DetectionData) -> bool:
    """Return whether at least one of the names is absent from the class list of the training data."""
    return any(name not in train.classes for name in names)


def duplicate_findings(sets: Sequence[tuple[str, DetectionData]], *, workers: int = 2) -> list[Finding]:
    """Return findings about images with equal or nearly equal pixels, within and between datasets.

    Args:
        sets: (name, data) of each dataset, such as ("train", ...), ("val", ...).
        workers: number of threads that decode images.
    """
    places = [(name, record) for name, data in sets for record in data.records]
    prints = fingerprints([record for _, record in places], workers=workers)
    names = [f"{name}/{record.path.name}" for name, record in places]
    findings = []
    for kind, groups in (
        ("identical pixels", identical_images(prints)),
        ("nearly identical pixels", _groups(len(prints), near_duplicates(prints))),
    ):
        across = [group for group in groups if len({places[i][0] for i in group}) > 1]
        within = [group for group in groups if len({places[i][0] for i in group}) == 1]
        nearly = kind.startswith("nearly")
        noun = "image" if not nearly else "pair" if all(len(group) == 2 for group in groups) else "group"
        if across:
            findings.append(
                Finding(
                    kind="near-duplicates in both sets" if nearly else "images in both sets",
                    severity="warning",
                    what=f"{_number(len(across), noun)} with {kind} in more than one of "
                    f"{', '.join(name for name, _ in sets)}",
                    cause="The data was not split by image, or files were copied"
                    + (", or the images are neighbouring video frames or microscope fields" if nearly else "")
                    + ". AP on training images does not measure how well the model generalises",
                    advice="Remove these images from one of the sets, or split again: `retinanet split` keeps such "
                    "images in one set",
                    where=tuple(" = ".join(names[i] for i in group) for group in across),
                )
            )
        if within:
            findings.append(
                Finding(
                    kind="near-duplicates" if nearly else "duplicate images",
                    severity="note" if nearly else "warning",
                    what=f"{_number(len(within), noun)} with {kind} within a set",
                    cause="Files were copied, or the same image was annotated twice. Such images count double, and "
                    "their annotations may disagree",
                    advice="Keep one image of each group",
                    where=tuple(" = ".join(places[i][1].path.name for i in group) for group in within),
                )
            )
    return findings


def _groups(count: int, pairs: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """Return the groups of items that pairs connect."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_numbers(count, [pair[:2] for pair in pairs])):
        members.setdefault(group, []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _object_name(record: Record, index: int) -> str:
    return f"object {record.annotation_ids[index]}"


def _number(count: int, thing: str) -> str:
    """Return a count with its noun in singular or plural."""
    plural = f"{thing}es" if thing.endswith(("s", "x")) else f"{thing}s"
    return f"1 {thing}" if count == 1 else f"{count:,} {plural}"
