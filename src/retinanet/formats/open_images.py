"""The CSV format of Open Images (storage.googleapis.com/openimages): train-annotations-bbox.csv, with one line per box.

XMin, XMax, YMin and YMax are shares of the image size. LabelName is a class id such as /m/01g317, whose name stands in
class-descriptions-boxable.csv. ImageID is the name of the image without its suffix. A box with IsGroupOf 1 holds a
group of objects and is an ignore region of its class. The file covers the whole dataset: boxes of images that were not
downloaded are left out and counted.

Labels of whole images (…-annotations-human-imagelabels.csv) beside the boxes become the properties `verified_present`
and `verified_absent` of the images: the classes that a person saw, and those that a person did not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from retinanet.files import is_file
from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import SPLIT_NAMES, AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import files_in
from retinanet.formats.image_files import AMBIGUOUS_ADVICE, AmbiguousImageError, FileIndex, ImageFinder, readings
from retinanet.formats.open_images_files import (
    BOX_COLUMNS,
    class_names,
    columns_of,
    has_boxes,
    labels_of_images,
    rows_by_name,
    split_of,
)
from retinanet.formats.records import SKIP_OBJECT, DataError, DetectionData
from retinanet.formats.text import finite_number, truth
from retinanet.images import IMAGE_SUFFIXES, ImageError, read_size
from retinanet.parse import shorten

_FLAGS: Final = ("Source", "IsOccluded", "IsTruncated", "IsDepiction", "IsInside")
"""Columns that become properties of the image."""
_PLAIN: Final = re.compile(r"\w+")
"""Matches an image id that is no path, such as 0001eeaf4aed83f9."""
_UNKNOWN: Final = "-1"
"""Value of a flag that is not known."""


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".csv" and has_boxes(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    files = box_files(folder.path)
    others = f", the first of {len(files)} files" if len(files) > 1 else ""
    for file in files:
        yield Candidate(DataSource(file), Evidence.OWN_FILE, f" by its {file.relative_to(folder.path)}{others}")


def box_files(folder: Path) -> list[Path]:
    """Return the files of boxes in a folder, in annotations/ (CVAT) or in labels/ (FiftyOne)."""
    places = [place for name in (".", "annotations", "labels") if (place := folder / name).is_dir()]
    return [file for place in places for file in files_in(place, ".csv") if has_boxes(file)]


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    files = box_files(folder)
    found: dict[str, Path] = {}
    for file in files:
        if (split := split_of(file)) is not None:
            found.setdefault(split, file)
    return found if len(files) > 1 else {}


def read_open_images(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a file of boxes: see `formats.read`. Category ids are 1, 2, ... in the order of the classes.

    Classes are the classes of the boxes, in the order of the file with the class names, or sorted without such a file.
    """
    path = source.path
    if missing := [name for name in BOX_COLUMNS if name not in columns_of(path)]:
        raise DataError(f"{path}: expected the columns {', '.join(BOX_COLUMNS)}; found no {', '.join(missing)}")
    builder = DatasetBuilder(path, options, BoxNumbers("xyxy", "fractions"))
    names = class_names(path)
    images = _Images(builder)
    found: set[str] = set()
    for line, row in rows_by_name(path):
        where, label, image_id = f"line {line}", row.get("LabelName"), row.get("ImageID")
        if not label or not image_id:
            what = f"expected an ImageID and a LabelName, found {shorten(', '.join(row.values()))}"
            builder.add_fault(path, where, what, SKIP_OBJECT)
        elif (image := images.find(image_id, where)) is not None:
            found.add(names.get(label, label))
            image.add_properties({flag: row[flag] for flag in _FLAGS if row.get(flag, _UNKNOWN) != _UNKNOWN})
            builder.add_object(image, _parse_row(row, line, image, names, builder.selection), file=path, where=where)
    builder.images = [image for image in images.known.values() if image is not None]
    builder.notes += images.notes()
    for image_id, name, is_present in labels_of_images(path, names):
        if (image := images.known.get(image_id)) is not None and name in found:
            image.add_properties({"verified_present" if is_present else "verified_absent": name})
    listed = dict.fromkeys(name for name in names.values() if name in found)
    return builder.build([*listed, *sorted(found - listed.keys())])


class _Images:
    """The images of a file of boxes, by their ids.

    Attributes:
        known: image of each id; None for an image that is missing or has a fault.
    """

    def __init__(self, builder: DatasetBuilder) -> None:
        self.builder = builder
        self.known: dict[str, AnnotatedImage | None] = {}
        self._missing: dict[str, int] = {}
        images, above = builder.options.images, builder.source.absolute().parent
        around = ImageFinder.for_file(builder.source, images)
        split = split_of(builder.source)
        names = ("data", "images", *(SPLIT_NAMES[split] if split else ()))
        further = [] if images is not None else [place / name for place in (above, above.parent) for name in names]
        existing = [place for place in further if place.is_dir() and place not in around.folders]
        index = FileIndex([*around.index.folders, *existing], IMAGE_SUFFIXES, by_stem=True)
        self._finder = ImageFinder([*around.folders, *existing], index)

    def find(self, name: str, where: str) -> AnnotatedImage | None:
        """Return the image of the id in a line, or None without one. The first line of an invalid image is a fault."""
        if name not in self.known:
            self.known[name] = self._read(name, where)
        if self.known[name] is None:
            if name in self._missing:
                self._missing[name] += 1
            else:
                self.builder.objects_without_image += 1
        return self.known[name]

    def notes(self) -> list[str]:
        """Return a sentence about the images that are missing."""
        if not self._missing:
            return []
        boxes, first = sum(self._missing.values()), next(iter(self._missing))
        return [
            f"{len(self._missing):,} images with {boxes:,} boxes were left out, because no image file has their id, "
            f"such as {first}"
        ]

    def _read(self, name: str, where: str) -> AnnotatedImage | None:
        source = self.builder.source
        if _PLAIN.fullmatch(name) and not self._finder.index.best_matches(name)[1]:  # most images of a partial download
            self._missing[name] = 0
            return None
        try:
            found = self._finder.find(name)
        except AmbiguousImageError as error:
            self.builder.add_fault(source, where, str(error), AMBIGUOUS_ADVICE)
            return None
        if not is_file(found.path):
            self._missing[name] = 0
            return None
        # The written id has no suffix.
        own_end = found.path.with_suffix("").as_posix()
        is_whole = found.is_whole or any(own_end.endswith(f"/{text.lstrip('/')}") for text in readings(name))
        if (
            path := self.builder.add_found_image(found._replace(is_whole=is_whole), name, file=source, where=where)
        ) is None:
            return None
        try:
            return AnnotatedImage(path, *read_size(path))
        except ImageError as error:
            what = str(error).removeprefix(f"{path}: ")
            self.builder.add_image_fault(path, what, file=source, where=where)
            return None


def _parse_row(
    row: Mapping[str, str], line: int, image: AnnotatedImage, names: Mapping[str, str], selection: ClassSelection
) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    written = names.get(row["LabelName"], row["LabelName"])
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    cells = [row.get(column, "") for column in BOX_COLUMNS[2:]]
    x1, x2, y1, y2 = map(finite_number, cells)
    if x1 is None or x2 is None or y1 is None or y2 is None:
        return f"expected finite numbers {', '.join(BOX_COLUMNS[2:])}, found {shorten(', '.join(cells))}"
    group = row.get("IsGroupOf", "")
    if (is_group := truth("" if group == _UNKNOWN else group)) is None:
        return f"expected 0, 1 or -1 as IsGroupOf, found {shorten(group)}"
    W, H = image.width, image.height
    return AnnotatedObject(line, name, (x1 * W, y1 * H, x2 * W, y2 * H), crowd=is_group)


OPEN_IMAGES: Final = AnnotationFormat(
    name="open_images",
    title="Open Images CSV",
    read=read_open_images,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    splits_in_folder=_splits_in_folder,
)
