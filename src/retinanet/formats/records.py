"""What every reader returns: images with their boxes, and the faults that were found on the way.

Shape suffixes: G objects of an image. Every box is xyxy in original pixels (after EXIF rotation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retinanet.errors import UserError, did_you_mean, list_names
from retinanet.parse import printable

MOST_FAULTS_PRINTED: Final = 200
SKIP_OBJECT: Final = "Correct it, or give --skip-invalid to go on without this object"
SKIP_IMAGE: Final = "Correct it, or give --skip-invalid to go on without this image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a dataset."""

    file: Path
    """The annotation file or the image."""
    where: str
    """What in it: 'object 13 of 21', 'annotation 1768', 'line 7'; empty for the whole file."""
    what: str
    """What was expected and what was found."""
    advice: str
    """How to go on."""

    def __str__(self) -> str:
        return printable(f"{self.file}{', ' if self.where else ''}{self.where}: {self.what}. {self.advice}.")


class DataError(UserError):
    """A dataset that cannot be used. The message holds the list of what is wrong with it."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message, tuple(faults))
        self.message = message
        self.faults = tuple(faults)

    def __str__(self) -> str:
        lines = [printable(self.message), *(f"  {fault}" for fault in self.faults[:MOST_FAULTS_PRINTED])]
        if len(self.faults) > MOST_FAULTS_PRINTED:
            lines.append(f"  and {len(self.faults) - MOST_FAULTS_PRINTED} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One image and its objects.

    Args:
        path: the image.
        width: original pixels.
        height: original pixels.
        boxes_G4: float64, xyxy, original pixels, within the image, no side 0.
        labels_G: int64, 0-based class ids.
        crowd_G: bool, neither to be found nor to be punished: COCO's crowd regions, VOC's difficult objects.
        areas_G: float64, original pixels: the annotation's own area (COCO's is the mask's), else the box's.
        annotation_ids: the file's own ids (COCO), or the number of each object in its file, from 1 (VOC).
        image_id: the file's own id (COCO), or the number of the image, from 1.
        window: the part of the image that this is, xyxy in its pixels, or None for all of it; width, height and boxes
            are those of the part. See `tiling.cut`.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionData:
    """A dataset in memory, without the pixels."""

    records: tuple[Record, ...]
    """The images, those without objects among them."""
    classes: tuple[str, ...]
    """The name of each class id."""
    category_ids: tuple[int, ...]
    """The id that each class has in the file (COCO's own, with gaps), or 1, 2, ... where the format has none."""
    source: Path
    """Where it was read from."""
    faults: tuple[Fault, ...] = ()
    """What was left out, and why."""
    notes: tuple[str, ...] = ()
    """What the user should know of the reading, a sentence each: a format that was guessed, polygons made boxes."""

    @cached_property
    def num_objects(self) -> int:
        """All boxes, crowd regions included."""
        return sum(len(record.boxes_G4) for record in self.records)

    @cached_property
    def num_crowd(self) -> int:
        """Those boxes that are neither to be found nor to be punished."""
        return sum(int(record.crowd_G.sum()) for record in self.records)

    def to_coco(self) -> dict[str, Any]:
        """Return the data as a COCO ground-truth dictionary, for pycocotools, hotcoco or a file.

        The file's own annotation ids are kept where all of them are unique and above 0. Otherwise they are numbered
        from 1: an evaluator takes id 0 for "not matched" and a repeated id for the same object.
        """
        ids = [annotation_id for record in self.records for annotation_id in record.annotation_ids]
        if len(set(ids)) < len(ids) or min(ids, default=1) < 1:
            ids = list(range(1, len(ids) + 1))
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


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | str:
    """Return an xyxy box cut to its image, or what is wrong with it.

    A box that reaches over the edge is common (a hand slipped, an object continues) and is cut silently as long as a
    pixel of it, or all of a smaller box, is left; one of zero or negative size, or outside, is a fault.
    """
    x1, y1, x2, y2 = box
    found = f"found ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"
    if not all(map(math.isfinite, box)):
        return f"expected four finite coordinates, {found}"
    if x2 <= x1 or y2 <= y1:
        return f"expected a box with an area above 0, {found}"
    cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if cut[2] - cut[0] < min(1.0, x2 - x1) - 1e-3 or cut[3] - cut[1] < min(1.0, y2 - y1) - 1e-3:
        return f"expected a box within the {width}x{height} image, {found}"
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else f"expected a box with an area above 0, {found}"


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """Return what is wrong with an object of a class that is not among those asked for."""
    return f"expected one of the classes {list_names(classes)}; found {name!r}{did_you_mean(name, classes)}"
