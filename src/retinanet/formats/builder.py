"""Collect images, objects, faults and notes while a dataset is read."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from retinanet.files import AllowedFolders, is_file
from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.box_numbers import MIN_FRACTIONS, BoxNumbers, BoxStatistics
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import listed_files
from retinanet.formats.image_files import (
    AMBIGUOUS_ADVICE,
    DATA_SUFFIXES,
    OUTSIDE_ADVICE,
    AmbiguousImageError,
    advice_for_missing_image,
    outside_fault,
)
from retinanet.formats.records import (
    SKIP_IMAGE,
    SKIP_OBJECT,
    DetectionData,
    Fault,
    Record,
    clip_box,
    unknown_class,
)
from retinanet.images import IMAGE_SUFFIXES
from retinanet.parse import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinanet.formats.folder_walk import LeftOut
    from retinanet.formats.image_files import FoundImage, ImageFinder

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


class _NamedImage(NamedTuple):
    """An image that the annotations name, and the position of the name, for a fault."""

    found: FoundImage
    name: str
    file: Path
    where: str


class DatasetBuilder:
    """Collects images, objects, faults and notes, and builds a dataset from them.

    Args:
        source: annotation file or folder.
        options: options of the reader.
        numbers: meaning of the four numbers of a box in the file, for the checks of their unit and order.
        root: folder of the dataset, if `source` lies deeper in it.

    Attributes:
        images: valid images.
        faults: invalid images and objects.
        notes: sentences for the user about the reading.
        boxes: statistics of the boxes, before they are clipped to their images.
        reduced: number of objects whose box was computed from another shape.
        reduced_shapes: name of such shapes in the note about them.
        objects_without_image: number of objects that are left out, because their image has a fault.
        allowed: folders that relative paths may reach.
    """

    def __init__(
        self, source: Path, options: ReadOptions, numbers: BoxNumbers = _PIXEL_CORNERS, *, root: Path | None = None
    ) -> None:
        self.source = source
        self.options = options
        self.selection = options.selection
        self.images: list[AnnotatedImage] = []
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.boxes = BoxStatistics(numbers)
        self.reduced = 0
        self.reduced_shapes = "polygons and other shapes"
        self.objects_without_image = 0
        self._first_pixel: list[tuple[AnnotatedImage, AnnotatedObject, Path, str]] = []
        self.allowed = AllowedFolders.around(root or source, options.images, allow_outside=options.allow_outside)
        self._named_images: list[_NamedImage] = []

    def find_image(
        self, finder: ImageFinder, name: str, *, file: Path, where: str, near: Path | None = None, objects: int = 0
    ) -> Path | None:
        """Return the path of the image that the annotations name, or None after adding a fault.

        If no image is found, the path is the one where it was expected: `data.load` reports it.

        Args:
            finder: finder of the images.
            name: name in the annotations.
            file: annotation file, for a fault.
            where: position of the name in the file, for a fault.
            near: folder whose image is taken if several images match.
            objects: number of objects of the image, which are left out with it.
        """
        try:
            found = finder.find(name, near=near)
        except AmbiguousImageError as error:
            self.add_fault(file, where, str(error), AMBIGUOUS_ADVICE)
            self.objects_without_image += objects
            return None
        return self.add_found_image(found, name, file=file, where=where, objects=objects)

    def add_found_image(self, found: FoundImage, name: str, *, file: Path, where: str, objects: int = 0) -> Path | None:
        """Return the path of a found image, or None after adding a fault if it lies outside the allowed folders.

        The image is a fault at the end if another name leads to it as well: see `_leave_out_doubtful_images`.
        """
        if self.is_outside(found.path, file, where):
            self.objects_without_image += objects
            return None
        path = Path(found.path)  # a new object for each name, because the finder may return one object for two names
        self._named_images.append(_NamedImage(found._replace(path=path), name, file, where))
        return path

    def add_image_fault(self, path: Path, what: str, *, file: Path, where: str, objects: int = 0) -> None:
        """Add the fault of an image whose file is needed for its size, but is missing or cannot be read.

        Args:
            path: image file.
            what: expected and found content.
            file: annotation file.
            where: position of the image in the annotation file.
            objects: number of objects of the image, which are left out with it.
        """
        advice = SKIP_IMAGE if is_file(path) else advice_for_missing_image(self.options.images)
        self.add_fault(file, where, what, advice)
        self.objects_without_image += objects

    def _leave_out_doubtful_images(self) -> None:
        """Add a fault for each image that was found by the end of its path, if another name leads to the same file.

        cam1/a.jpg and cam2/a.jpg may not both stand for the only a.jpg on the disk.
        """
        if all(image.found.is_whole for image in self._named_images):
            return
        by_file: dict[str, list[_NamedImage]] = {}
        for image in self._named_images:
            if is_file(image.found.path):
                by_file.setdefault(os.path.realpath(image.found.path), []).append(image)
        doubtful: set[int] = set()
        for images in by_file.values():
            if len({image.name for image in images}) == 1 or all(image.found.is_whole for image in images):
                continue
            for image in images:
                if not image.found.is_whole:
                    other = next(i.name for i in images if i.name != image.name)
                    what = f"expected the image {shorten(image.name)}, found only {image.found.path}, which is also "
                    self.add_fault(image.file, image.where, f"{what}the image of {shorten(other)}", AMBIGUOUS_ADVICE)
                    doubtful.add(id(image.found.path))
        self.objects_without_image += sum(len(image.objects) for image in self.images if id(image.path) in doubtful)
        self.images = [image for image in self.images if id(image.path) not in doubtful]
        by_end = [i for i in self._named_images if not i.found.is_whole and id(i.found.path) not in doubtful]
        if by_end:
            count = f"{len(by_end):,} {'image was' if len(by_end) == 1 else 'images were'}"
            first = f"{by_end[0].found.path} for {shorten(by_end[0].name)}"
            self.notes.append(f"{count} found by the end of the written path, such as {first}")

    def note_left_out(self, left_out: LeftOut) -> None:
        """Add a note for each kind of file and folder that a search left out."""
        notes = left_out.sentences(expected_suffixes=DATA_SUFFIXES | IMAGE_SUFFIXES)
        self.notes += [note for note in notes if note not in self.notes]

    def _note_unlisted_images(self) -> None:
        """Add a note for images that are listed twice, and one for images beside them that are not listed."""
        known = {os.path.abspath(image.path) for image in self.images}  # noqa: PTH100 - resolve() would follow links
        known |= {os.path.abspath(image.found.path) for image in self._named_images}  # noqa: PTH100
        known |= {os.path.abspath(fault.file) for fault in self.faults}  # noqa: PTH100
        count_of = Counter(str(image.path) for image in self.images)
        if repeated := [path for path, count in count_of.items() if count > 1]:
            names = f"{len(repeated):,} ({', '.join(repeated[:3])})"
            self.notes.append(f"images listed more than once, each time with the objects of one entry only: {names}")
        folders = sorted({os.path.dirname(path) for path in known})  # noqa: PTH120
        unnamed = [path for folder in folders for path in listed_files(folder, IMAGE_SUFFIXES) if path not in known]
        if unnamed:
            names = ", ".join([*unnamed[:3], *(["..."] if len(unnamed) > 3 else [])])
            count = f"{len(unnamed):,} {'image' if len(unnamed) == 1 else 'images'}"
            self.notes.append(f"not read, no annotations in {self.source}: {count} ({names})")

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
            if result.name in self.selection.regions:
                result.name, result.crowd = None, True
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
            notes.insert(0, f"{self.reduced:,} {self.reduced_shapes} were replaced by their bounding boxes")
        if self.objects_without_image:
            notes.append(f"{self.objects_without_image:,} objects of images with a fault were left out")
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
        self._leave_out_doubtful_images()
        self._note_unlisted_images()
        self._leave_out_fractions()
        if names is None:
            classes = self.selection.class_names(())
            if self.selection.class_list is None:
                classes = tuple(sorted({o.name for i in self.images for o in i.objects if o.name is not None}))
        else:
            classes = self.selection.class_names(names)
        label_of = {name: label for label, name in enumerate(classes)}
        for image in self.images:
            for unknown in [o for o in image.objects if o.name is not None and o.name not in label_of]:
                image.objects.remove(unknown)
                what = unknown_class(str(unknown.name), classes)
                self.add_fault(self.source, f"object {unknown.number} of {image.path.name}", what, SKIP_OBJECT)
        dataset_faults, notes = self._check_boxes()
        if regions := sum(o.name is None for image in self.images for o in image.objects):
            notes.append(f"{regions:,} ignore {'region applies' if regions == 1 else 'regions apply'} to every class")
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
    """Return the record of an image. A region without a class has a row for each class, after all other objects."""
    labels = [(o, label_of[o.name]) for o in image.objects if o.name is not None]
    labels += [(o, label) for o in image.objects if o.name is None for label in label_of.values()]
    objects = [o for o, _ in labels]
    boxes_G4 = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    box_areas = (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
    areas = [area if o.area is None else o.area for o, area in zip(objects, box_areas, strict=True)]
    return Record(
        path=image.path,
        width=image.width,
        height=image.height,
        boxes_G4=boxes_G4,
        labels_G=np.array([label for _, label in labels], np.int64),
        crowd_G=np.array([o.crowd for o in objects], np.bool_),
        areas_G=np.array(areas, np.float64),
        annotation_ids=tuple(o.number for o in objects),
        image_id=number if image.image_id is None else image.image_id,
        properties=image.properties,
    )
