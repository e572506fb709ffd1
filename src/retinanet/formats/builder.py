"""Collect images, objects, faults and notes while a dataset is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.files import AllowedFolders
from retinanet.formats.box_numbers import MIN_FRACTIONS, BoxNumbers, BoxStatistics
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.image_files import OUTSIDE_ADVICE, outside_fault
from retinanet.formats.records import SKIP_OBJECT, DetectionData, Fault, Record, clip_box, unknown_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PIXEL_CORNERS: Final = BoxNumbers()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options of a format's reader.

    Args:
        selection: classes to read, and their new names.
        images: folder of the images, if the user names one.
        split: train, val or test, for a file with several splits.
        allow_outside: whether relative paths may leave (..) the allowed folders of the annotations.
    """

    selection: ClassSelection = field(default_factory=ClassSelection)
    images: Path | None = None
    split: str | None = None
    allow_outside: bool = False


@dataclass(slots=True)
class AnnotatedObject:
    """An object in an annotation file.

    Args:
        number: annotation id (COCO), or number of the object or its line, from 1.
        name: class name after renaming.
        box: xyxy, original pixels. `DatasetBuilder.add_object` checks the box and clips it to the image.
        crowd: whether the object is ignored: counted neither as a target nor as a false positive.
        area: area in square original pixels; None for the area of the box.
        reduced: whether the box was computed from another shape, such as a polygon or a rotated box.
    """

    number: int
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None
    reduced: bool = False


@dataclass(slots=True)
class AnnotatedImage:
    """An image in an annotation file, with its size in original pixels and its image id, if the format has ids."""

    path: Path
    width: int
    height: int
    objects: list[AnnotatedObject] = field(default_factory=list)
    image_id: int | None = None


class DatasetBuilder:
    """Collects images, objects, faults and notes, and builds a dataset from them.

    Args:
        source: annotation file or folder.
        options: options of the reader.
        numbers: meaning of the four numbers of a box in the file, for the checks of their unit and order.

    Attributes:
        images: valid images.
        faults: invalid images and objects.
        notes: sentences for the user about the reading.
        boxes: statistics of the boxes, before they are clipped to their images.
        reduced: number of objects whose box was computed from another shape.
        allowed: folders that relative paths may reach.
    """

    def __init__(self, source: Path, options: ReadOptions, numbers: BoxNumbers = _PIXEL_CORNERS) -> None:
        self.source = source
        self.options = options
        self.selection = options.selection
        self.images: list[AnnotatedImage] = []
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.boxes = BoxStatistics(numbers)
        self.reduced = 0
        self._first_pixel: list[tuple[AnnotatedImage, AnnotatedObject, Path, str]] = []
        self.allowed = AllowedFolders.around(source, options.images, allow_outside=options.allow_outside)

    def is_outside(self, path: Path, file: Path, where: str) -> bool:
        """Return whether an image lies outside the allowed folders. Add a fault if it does."""
        if (what := outside_fault(self.allowed, path)) is not None:
            self.add_fault(file, where, what, OUTSIDE_ADVICE)
        return what is not None

    def add_fault(self, file: Path, where: str, what: str, advice: str) -> None:
        """Add a fault of an image or an annotation: see `Fault`."""
        self.faults.append(Fault(file=file, where=where, what=what, advice=advice))

    def add_object(
        self, image: AnnotatedImage, result: AnnotatedObject | str | None, *, file: Path, where: str
    ) -> bool:
        """Add an object to its image, or its fault to the faults. Return whether an object was added.

        The box of the object is checked against the image and clipped to it.

        Args:
            image: image of the object.
            result: the object; or a text that describes its fault; or None for an object that is left out.
            file: annotation file, for the fault.
            where: position in the file, for the fault.
        """
        if isinstance(result, AnnotatedObject):
            result = self._check_box(result, image, file, where)
        if isinstance(result, AnnotatedObject):
            image.objects.append(result)
            self.reduced += result.reduced
            return True
        if result is not None:
            self.add_fault(file, where, result, SKIP_OBJECT)
        return False

    def _check_box(self, item: AnnotatedObject, image: AnnotatedImage, file: Path, where: str) -> AnnotatedObject | str:
        """Return the object with its box clipped to the image, or a text that describes the fault of the box."""
        if all(map(math.isfinite, item.box)):
            fault = self.boxes.numbers.unit_fault(item.box, image.width, image.height)
            if fault is not None:
                return fault
            if self.boxes.numbers.may_be_fractions(item.box, image.width, image.height):
                self._first_pixel.append((image, item, file, where))
            elif not item.reduced:
                self.boxes.add(item.box, item.area, image)
        box = clip_box(item.box, image.width, image.height)
        if isinstance(box, str):
            return box
        item.box = box
        return item

    def _leave_out_fractions(self) -> None:
        """Leave out the boxes inside the first pixel of their image if there are several of them."""
        sides = [min(item.box[2] - item.box[0], item.box[3] - item.box[1]) for _, item, _, _ in self._first_pixel]
        if sum(side < 1 - 1e-6 for side in sides) < MIN_FRACTIONS:  # boxes of exactly one pixel may lie there
            return
        for image, item, file, where in self._first_pixel:
            if item not in image.objects:  # it has another fault already
                continue
            image.objects.remove(item)
            numbers = self.boxes.numbers.written(item.box, image.width, image.height)
            what = (
                f"expected pixels, maybe fractions of the image size, found {numbers}, a box inside the first pixel of "
                f"the {image.width}x{image.height} image"
            )
            advice = (
                "Multiply fractions by the width and height of the image, or leave the object out with --skip-invalid"
            )
            self.add_fault(file, where, what, advice)

    def _check_boxes(self) -> tuple[list[Fault], list[str]]:
        """Return the faults and the notes that only all boxes together show."""
        notes = self.boxes.notes()
        if self.reduced:
            notes.insert(0, f"{self.reduced:,} polygons and other shapes were replaced by their bounding boxes")
        if (what := self.boxes.fault()) is None:
            return [], notes
        advice = "Correct the numbers, or read the numbers as they are with --skip-invalid"
        return [Fault(file=self.source, where="", what=what, advice=advice)], notes

    def build(self, names: Sequence[str] | None = None, ids: Mapping[str, int] | None = None) -> DetectionData:
        """Return the dataset.

        Args:
            names: classes that the dataset lists; None if the format has no class list: the names of the objects,
                sorted.
            ids: category id of each class; None for 1, 2, ... A class without an id gets the next unused id.
        """
        self._leave_out_fractions()
        if names is None:
            classes = self.selection.class_names(())
            if self.selection.class_list is None:
                classes = tuple(sorted({o.name for image in self.images for o in image.objects}))
        else:
            classes = self.selection.class_names(names)
        label_of = {name: label for label, name in enumerate(classes)}
        for image in self.images:
            for unknown in [o for o in image.objects if o.name not in label_of]:
                image.objects.remove(unknown)
                what = unknown_class(unknown.name, classes)
                self.add_fault(self.source, f"object {unknown.number} of {image.path.name}", what, SKIP_OBJECT)
        dataset_faults, notes = self._check_boxes()
        return DetectionData(
            records=tuple(_record(i, image, label_of) for i, image in enumerate(self.images, 1)),
            classes=classes,
            category_ids=category_ids(classes, ids) if ids is not None else tuple(range(1, len(classes) + 1)),
            source=self.source,
            faults=(*dataset_faults, *self.faults),
            notes=(*self.notes, *notes, *self.selection.notes()),
        )


def category_ids(classes: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return the category id of each class. A class without an id gets one that no class of the file has."""
    last_id = max(ids.values(), default=0)
    all_ids = []
    for name in classes:
        if name not in ids:
            last_id += 1
        all_ids.append(ids.get(name, last_id))
    return tuple(all_ids)


def _record(number: int, image: AnnotatedImage, label_of: Mapping[str, int]) -> Record:
    objects = image.objects
    boxes_G4 = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    box_areas = (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
    areas = [area if o.area is None else o.area for o, area in zip(objects, box_areas, strict=True)]
    return Record(
        path=image.path,
        width=image.width,
        height=image.height,
        boxes_G4=boxes_G4,
        labels_G=np.array([label_of[o.name] for o in objects], np.int64),
        crowd_G=np.array([o.crowd for o in objects], np.bool_),
        areas_G=np.array(areas, np.float64),
        annotation_ids=tuple(o.number for o in objects),
        image_id=number if image.image_id is None else image.image_id,
    )
