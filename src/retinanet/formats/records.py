"""Datasets in memory: images with their boxes, and the faults of the annotations.

Shape suffixes: G objects of an image. Every box is xyxy in original pixels (after EXIF rotation).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retinanet.errors import UserError, did_you_mean, list_names
from retinanet.parse import printable
from retinanet.pixel_values import ValueRange

EXAMPLES: Final = 3
"""Number of faults of one kind that a message lists. Further faults of the kind are counted."""
_SPECIFIC: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+")
"""Parts of a fault that differ between faults of one kind: names, paths and numbers."""
SKIP_OBJECT: Final = "Correct it, or leave the object out with --skip-invalid"
SKIP_IMAGE: Final = "Correct it, or leave the image out with --skip-invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An invalid image or annotation of a dataset."""

    file: Path
    """Annotation file or image file."""
    where: str
    """Position in the file: 'object 13 of 21', 'annotation 1768', 'line 7'; empty for the whole file."""
    what: str
    """Expected and found content."""
    advice: str
    """Advice on how to continue."""

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.what}. {self.advice}.")

    @property
    def place(self) -> str:
        """File and position."""
        return f"{self.file}{', ' if self.where else ''}{self.where}"

    @property
    def kind(self) -> str:
        """Kind of the fault: its expected content and its advice, without numbers, names, paths and found content."""
        return f"{_SPECIFIC.sub('…', self.what.partition(', found ')[0])}|{self.advice}"


def list_faults(faults: Sequence[Fault]) -> list[str]:
    """Return the lines that list faults: each fault of a rare kind, and a count with three examples of a common kind.

    Kinds are in the order of their first faults.
    """
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    lines = []
    for of_kind in kinds.values():
        if len(of_kind) <= EXAMPLES:
            lines += [str(fault) for fault in of_kind]
            continue
        lines.append(printable(f"{len(of_kind):,} faults of one kind. {of_kind[0].advice}. Examples:"))
        lines += [printable(f"  {fault.place}: {fault.what}") for fault in of_kind[:EXAMPLES]]
        lines.append(f"  and {len(of_kind) - EXAMPLES:,} more of this kind; `retinanet check --json` lists each fault")
    return lines


class DataError(UserError):
    """A dataset that cannot be used. The message lists its faults."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message, tuple(faults))
        self.message = message
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join([printable(self.message), *(f"  {line}" for line in list_faults(self.faults))])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """An image and its objects.

    Args:
        path: image file.
        width: width in original pixels.
        height: height in original pixels.
        boxes_G4: float64, xyxy, original pixels, inside the image, with sides above 0.
        labels_G: int64, 0-based class ids.
        crowd_G: bool, true for an ignore region, which is neither a target nor a false positive: crowd regions (COCO),
            difficult objects (VOC), DontCare (KITTI). A region that applies to every class has one row for each class.
        areas_G: float64, square pixels: area of the annotation (of the mask in COCO) or, if missing, of the box.
        annotation_ids: annotation ids of the file (COCO), or the number of each object in its file, from 1 (VOC).
        image_id: image id of the file (COCO), or the number of the image, from 1.
        window: xyxy part of the image, in image pixels, or None for the whole image. Width, height and boxes then
            refer to this part. See `tiling.cut_into_tiles`.
        properties: values of the columns (CSV) and further fields (COCO and others) of the image and of its
            annotations, by name: see `property_values`.
    """

    path: Path
    width: int
    height: int
    boxes_G4: npt.NDArray[np.float64]
    labels_G: npt.NDArray[np.int64]
    crowd_G: npt.NDArray[np.bool_]
    areas_G: npt.NDArray[np.float64]
    annotation_ids: tuple[int, ...]
    image_id: int
    window: tuple[int, int, int, int] | None = None
    properties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def distinct_G(self) -> npt.NDArray[np.bool_]:
        """False for each ignore region that repeats the box of an earlier ignore region, otherwise true."""
        return distinct_boxes(self.boxes_G4, self.crowd_G)


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionData:
    """A dataset in memory, without the pixels."""

    records: tuple[Record, ...]
    """All images, including those without objects."""
    classes: tuple[str, ...]
    """Name of each class id."""
    category_ids: tuple[int, ...]
    """Category id of each class in the file (COCO; ids may have gaps), or 1, 2, ... if the format has no ids."""
    source: Path
    """File or folder of the annotations."""
    faults: tuple[Fault, ...] = ()
    """Invalid images and annotations, which are left out."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about the reading, such as a guessed format or polygons replaced by boxes."""
    value_range: ValueRange | None = None
    """Values of the images with 16 bits per channel, measured by `data.load`; None if there are none."""

    @cached_property
    def num_objects(self) -> int:
        """Number of objects and ignore regions. A region that applies to every class counts once."""
        return sum(int(record.distinct_G.sum()) for record in self.records)

    @cached_property
    def num_crowd(self) -> int:
        """Number of ignore regions, such as crowd regions and difficult objects."""
        return sum(int((record.crowd_G & record.distinct_G).sum()) for record in self.records)

    def to_coco(self) -> dict[str, Any]:
        """Return the data as a COCO ground-truth dictionary, for pycocotools, hotcoco or a file.

        Annotation ids are kept if they are unique and above 0; the further rows of an ignore region that applies to
        every class get new ids. Otherwise annotations are numbered from 1, because evaluators use id 0 for "not
        matched" and treat annotations with one id as one object.
        """
        ids = self._coco_ids()
        annotations: list[dict[str, Any]] = []
        for record in self.records:
            for box, label, crowd, area in zip(
                record.boxes_G4.tolist(),
                record.labels_G.tolist(),
                record.crowd_G.tolist(),
                record.areas_G.tolist(),
                strict=True,
            ):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": ids[len(annotations)],
                        "image_id": record.image_id,
                        "category_id": self.category_ids[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
        return {
            "info": {"description": str(self.source)},
            "images": [
                {"id": r.image_id, "file_name": r.path.name, "width": r.width, "height": r.height} for r in self.records
            ],
            "categories": [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes, strict=True)],
            "annotations": annotations,
        }

    def _coco_ids(self) -> list[int]:
        """Return a unique id above 0 for each row of all records, see `to_coco`."""
        ids = [annotation_id for record in self.records for annotation_id in record.annotation_ids]
        if len(set(ids)) == len(ids) and min(ids, default=1) > 0:
            return ids
        is_distinct = [bool(value) for record in self.records for value in record.distinct_G]
        first = [annotation_id for annotation_id, distinct in zip(ids, is_distinct, strict=True) if distinct]
        if len(set(first)) < len(first) or min(first, default=1) < 1:
            return list(range(1, len(ids) + 1))
        new = itertools.count(max(first) + 1)
        return [i if distinct else next(new) for i, distinct in zip(ids, is_distinct, strict=True)]


def distinct_boxes(boxes_G4: npt.NDArray[np.float64], crowd_G: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return false for each ignore region that repeats the box of an earlier ignore region, otherwise true."""
    distinct_G = np.ones(len(crowd_G), np.bool_)
    crowd = np.flatnonzero(crowd_G)
    if len(crowd) > 1:
        distinct_G[crowd] = False
        distinct_G[crowd[np.unique(boxes_G4[crowd], axis=0, return_index=True)[1]]] = True
    return distinct_G


def drawn_names(
    boxes_G4: npt.NDArray[np.float64],
    labels_G: npt.NDArray[np.int64],
    crowd_G: npt.NDArray[np.bool_],
    classes: Sequence[str],
) -> Iterator[tuple[int, str]]:
    """Yield the index and the name of each box to draw: an ignore region once, as "ignored" if it has several classes.

    Args:
        boxes_G4: boxes of an image.
        labels_G: class id of each box.
        crowd_G: whether each box is an ignore region.
        classes: name of each class id.
    """
    for g in np.flatnonzero(distinct_boxes(boxes_G4, crowd_G)).tolist():
        name = classes[labels_G[g]]
        if crowd_G[g]:
            repeats = int((crowd_G & (boxes_G4 == boxes_G4[g]).all(axis=1)).sum())
            name = "ignored" if repeats > 1 else f"{name} (crowd)"
        yield g, name


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | str:
    """Return an xyxy box clipped to its image, or a text that describes its fault.

    Boxes often extend over the edge of the image. Such a box is clipped without a fault if at least one pixel of each
    side remains, or the whole side if it is shorter. A box without a positive area, or outside the image, is a fault.

    Args:
        box: x1, y1, x2, y2, image pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.
    """
    x1, y1, x2, y2 = box
    found = f"found ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"
    if not all(map(math.isfinite, box)):
        return f"expected four finite coordinates, {found}"
    if x2 <= x1 or y2 <= y1:
        return f"expected a box with an area above 0, {found}"
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] - clipped[0] < min(1.0, x2 - x1) - 1e-3 or clipped[3] - clipped[1] < min(1.0, y2 - y1) - 1e-3:
        return f"expected a box within the {width}x{height} image, {found}"
    has_area = clipped[0] < clipped[2] and clipped[1] < clipped[3]
    return clipped if has_area else f"expected a box with an area above 0, {found}"


def property_values(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the values, as text, of a column or field. The number 7.0 is "7"; "" and NaN are no value.

    A list has several values. The fields of an object have names such as extra.patient.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from property_values(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from property_values(name, inner)
    elif isinstance(value, float) and value.is_integer():
        yield name, str(int(value))
    elif isinstance(value, (str, int, float)) and value == value and (text := str(value).strip()):  # noqa: PLR0124 - NaN
        yield name, text


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """Return the fault of an object whose class is not in the class list."""
    return f"expected one of the classes {list_names(classes)}; found {name!r}{did_you_mean(name, classes)}"
