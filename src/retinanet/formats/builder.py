"""A dataset while it is read: images, objects, faults and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from retinanet.files import AllowedFolders
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.image_files import ALLOW, outside_fault
from retinanet.formats.records import SKIP_OBJECT, DetectionData, Fault, Record, unknown_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a dataset is read.

    Args:
        selection: which classes, and under which names.
        images: folder of the images, if it was given.
        split: train, val or test, for a file that holds several splits.
        allow_outside: allow relative paths that climb (..) out of the annotations' folder.
    """

    selection: ClassSelection = field(default_factory=ClassSelection)
    images: Path | None = None
    split: str | None = None
    allow_outside: bool = False


@dataclass(slots=True)
class AnnotatedObject:
    """An object as a file holds it.

    Args:
        number: the file's own id (COCO), or number of the object or of its line, from 1.
        name: class, after renaming.
        box: xyxy in original pixels, cut to the image (see `clip_box`).
        crowd: ignored: counted neither as a target nor as a false positive.
        area: original pixels; the box's area unless given.
    """

    number: int
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None


@dataclass(slots=True)
class AnnotatedImage:
    """An image as a file lists it, with its size in original pixels and the file's own id, if it has one."""

    path: Path
    width: int
    height: int
    objects: list[AnnotatedObject] = field(default_factory=list)
    image_id: int | None = None


class DatasetBuilder:
    """A dataset while it is read.

    Args:
        source: the file or folder.
        options: how it is read.

    Attributes:
        images: the images that can be used.
        faults: invalid images and objects.
        notes: what the user should know, a sentence each.
        allowed: the folders that a relative path may lead to.
    """

    def __init__(self, source: Path, options: ReadOptions) -> None:
        self.source = source
        self.options = options
        self.selection = options.selection
        self.images: list[AnnotatedImage] = []
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.allowed = AllowedFolders.around(source, options.images, allow_outside=options.allow_outside)

    def is_outside(self, path: Path, file: Path, where: str) -> bool:
        """Return whether an image lies outside the allowed folders, and add a fault if it does."""
        if (what := outside_fault(self.allowed, path)) is not None:
            self.add_fault(file, where, what, ALLOW)
        return what is not None

    def add_fault(self, file: Path, where: str, what: str, advice: str) -> None:
        """Add a fault."""
        self.faults.append(Fault(file=file, where=where, what=what, advice=advice))

    def add_object(self, image: AnnotatedImage, found: AnnotatedObject | str | None, *, file: Path, where: str) -> bool:
        """Add an object to its image, or a fault if `found` is what is wrong with the object; None: it is not wanted.

        Return whether an object was added.
        """
        if isinstance(found, AnnotatedObject):
            image.objects.append(found)
            return True
        if found is not None:
            self.add_fault(file, where, found, SKIP_OBJECT)
        return False

    def note_reduced(self, count: int) -> None:
        """Note how many polygons and other shapes were replaced by the boxes around them, if any."""
        if count:
            self.notes.append(f"{count:,} polygons and other shapes were reduced to the boxes around them")

    def build(self, names: Sequence[str] | None = None, ids: Mapping[str, int] | None = None) -> DetectionData:
        """Return the dataset.

        Args:
            names: the classes that the dataset lists; None if it lists none: the names found, sorted.
            ids: category id of each class; 1, 2, ... unless given. A class without an id gets the next unused one.
        """
        if names is None:
            classes = self.selection.class_names(())
            if self.selection.class_list is None:
                classes = tuple(sorted({o.name for image in self.images for o in image.objects}))
        else:
            classes = self.selection.class_names(names)
        label_of = {name: label for label, name in enumerate(classes)}
        for image in self.images:
            for one in [o for o in image.objects if o.name not in label_of]:
                image.objects.remove(one)
                what = unknown_class(one.name, classes)
                self.add_fault(self.source, f"object {one.number} of {image.path.name}", what, SKIP_OBJECT)
        return DetectionData(
            records=tuple(_record(i, image, label_of) for i, image in enumerate(self.images, 1)),
            classes=classes,
            category_ids=category_ids(classes, ids) if ids is not None else tuple(range(1, len(classes) + 1)),
            source=self.source,
            faults=tuple(self.faults),
            notes=(*self.notes, *self.selection.notes()),
        )


def category_ids(classes: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return the category id of each class; a class without one gets an id that no class of the file has."""
    unused = max(ids.values(), default=0)
    found = []
    for name in classes:
        if name not in ids:
            unused += 1
        found.append(ids.get(name, unused))
    return tuple(found)


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
