"""The YOLO format: a data.yaml that names splits and classes, and a .txt label file for each image.

A label is a line `class x y width height`: the class id from 0, the centre and the sides, relative to the image's width
and height. An image without a label file, or with an empty one, has no objects. Polygons (segmentation) and oriented
boxes (four corners) are replaced by their bounding boxes, and a note gives their number. In a pose dataset, a line
holds the box first and then the key points, as `kpt_shape` in the data.yaml declares; the key points are left out.

Two variants are read as well: Darknet's obj.data with obj.names and image lists (CVAT's "YOLO 1.1"), and a folder with
classes.txt, images/ and labels/ (Label Studio's "YOLO").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import (
    SPLIT_NAMES,
    AnnotationFormat,
    Candidate,
    DataSource,
    Evidence,
    FormatWriter,
)
from retinanet.formats.box_numbers import Box, BoxNumbers
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import files_in
from retinanet.formats.geometry import box_around
from retinanet.formats.image_files import is_list_of_images
from retinanet.formats.output import WriteTarget, common_class_ids, objects_without_crowd, write_text
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData, Record
from retinanet.formats.text import finite_number, read_lines
from retinanet.formats.yolo_index import DARKNET_SUFFIX, YAML_NAMES, YAML_SUFFIXES, read_index, splits_in_file
from retinanet.formats.yolo_labels import LabelFinder, add_labels_without_image, expected_label
from retinanet.images import ImageError, read_size
from retinanet.parse import shorten

_DIGITS: Final = 17
"""Number of significant decimal digits that represent a float64 exactly."""
_COLUMNS_OF_A_BOX: Final = 5
_COLUMNS_OF_KEY_POINTS: Final = 11
"""Smallest number of columns for the note about key points: 9 columns are oriented boxes."""
_MANY_LINES: Final = 10
"""Smallest number of lines for the note about key points."""


def _recognise_file(source: DataSource) -> Evidence | None:
    if source.suffix in {*YAML_SUFFIXES, DARKNET_SUFFIX}:
        return Evidence.COMMON_NAME
    return Evidence.COMMON_NAME if source.suffix == ".txt" and is_list_of_images(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    for name in (*YAML_NAMES, "obj.data"):
        if (file := folder.path / name).is_file():
            yield Candidate(DataSource(file), Evidence.OWN_FILE, f" by its {name}")
    if (folder.path / "labels").is_dir():
        yield Candidate(folder, Evidence.COMMON_NAME, " by its folder labels")
    has_names = any((folder.path / name).is_file() for name in ("obj.names", "classes.txt"))
    if has_names and files_in(folder.path, ".txt"):
        yield Candidate(folder, Evidence.TEXT_FILES, " by the .txt files and the class names in it")


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    """Return the folder of the images of each split, images/train or train/images, if no file declares the splits."""
    if any((folder / name).is_file() for name in (*YAML_NAMES, "obj.data")):
        return {}
    places = {
        split: next((p for n in names for p in (folder / "images" / n, folder / n / "images") if p.is_dir()), None)
        for split, names in SPLIT_NAMES.items()
    }
    found = {split: place for split, place in places.items() if place is not None}
    return found if len(found) > 1 else {}


def read_yolo(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a YOLO dataset: see `formats.read`. Category ids are YOLO's own plus 1, as COCO's begin at 1.

    Args:
        source: data.yaml, obj.data, a list of images (.txt), or a folder with images/ and labels/.
        options: options of the reader. `images` replaces the folder that the file names; `split` names one of its
            splits.
    """
    builder = DatasetBuilder(source.path, options, BoxNumbers("cxcywh", "fractions"))
    index = read_index(builder)
    names, paths = index.names, index.images
    rows = _RowReader(names, index.key_points, builder.selection)
    finder = LabelFinder(index.label_folders)
    files = [finder.find(path) for path in paths]
    shared = _shared_labels(paths, files)
    label_files: set[Path] = set()
    unlabelled = 0
    for path, file in zip(paths, files, strict=True):
        label_files.add(file or expected_label(path))
        if file in shared:
            names_of = ", ".join(sorted(image.name for image in shared[file]))
            what = f"expected one image for the labels in {file}, found {len(shared[file])}: {names_of}"
            advice = "Remove or rename one of the images and its labels, or leave the images out with --skip-invalid"
            builder.add_fault(path, "", what, advice)
            continue
        try:
            image = AnnotatedImage(path, *read_size(path))
        except ImageError as error:
            builder.add_image_fault(path, str(error).removeprefix(f"{path}: "), file=path, where="")
            continue
        builder.images.append(image)
        if file is not None:
            _read_labels(file, image, rows, builder)
        else:
            unlabelled += 1
    if paths and unlabelled == len(paths):
        raise DataError(
            f"{source.path}: none of its {unlabelled} images has a label file; the first was expected at "
            f"{expected_label(paths[0])}, or beside it"
        )
    if unlabelled:
        builder.notes.append(f"{unlabelled:,} of {len(paths):,} images have no label file, so no objects")
    builder.notes += rows.notes()
    add_labels_without_image(builder, label_files, index.folders, index.label_folders or [])
    ids: dict[str, int] = {}
    for label, name in names.items():
        ids.setdefault(options.selection.rename.get(name, name), label + 1)
    return builder.build(list(names.values()), ids)


def _shared_labels(paths: Sequence[Path], files: Sequence[Path | None]) -> dict[Path | None, set[Path]]:
    """Return the images of each label file that has objects and belongs to several images: a.jpg and a.png."""
    images: dict[Path | None, set[Path]] = {}
    for path, file in zip(paths, files, strict=True):
        if file is not None:
            images.setdefault(file, set()).add(path)
    return {file: of for file, of in images.items() if len(of) > 1 and file is not None and file.stat().st_size > 0}


def _read_labels(file: Path, image: AnnotatedImage, rows: _RowReader, builder: DatasetBuilder) -> None:
    """Add the objects of a label file to the builder."""
    try:
        lines = list(read_lines(file))
    except DataError as error:
        builder.add_fault(file, "", str(error).removeprefix(f"{file}: "), SKIP_IMAGE)
        builder.images.remove(image)
        return
    for line, text in lines:
        builder.add_object(image, rows.read(text.split(), line, image), file=file, where=f"line {line}")


class _RowReader:
    """Reads the lines of label files: boxes, polygons, and boxes with key points.

    Args:
        names: name of each class id.
        key_points: number of key points and of numbers per key point (2, or 3 with visibility); None if the dataset
            declares none.
        selection: classes to read.
    """

    def __init__(self, names: Mapping[int, str], key_points: tuple[int, int] | None, selection: ClassSelection) -> None:
        self.names, self.key_points, self.selection = names, key_points, selection
        self.ids = {name: class_id for class_id, name in names.items()}
        self.with_key_points = 0
        self.columns_of_polygons = Counter[int]()

    def read(self, words: Sequence[str], line: int, image: AnnotatedImage) -> AnnotatedObject | str | None:
        """Return the object of a line, a text that describes its fault, or None if its class is left out."""
        numbers = [finite_number(word) for word in words]
        if len(words) >= _COLUMNS_OF_A_BOX and numbers[0] is None:  # the name of a class instead of its id
            numbers[0] = self.ids.get(words[0])
        finite = [number for number in numbers if number is not None]
        if len(finite) < len(words) or not finite:
            return f"expected finite numbers, found {shorten(' '.join(words))}"
        label, *values = finite
        if label != int(label) or int(label) not in self.names:
            valid_ids = f"{min(self.names)} to {max(self.names)}" if self.names else "which is empty"
            return f"expected a class id of the class list ({valid_ids}), found {words[0]!r}"
        if (name := self.selection.new_name(self.names[int(label)])) is None:
            return None
        if fault := self.selection.fault(name):
            return fault
        shape = self._shape(values)
        if isinstance(shape, str):
            return shape
        (x1, y1, x2, y2), is_polygon = shape
        W, H = image.width, image.height
        return AnnotatedObject(line, name, (x1 * W, y1 * H, x2 * W, y2 * H), reduced=is_polygon)

    def notes(self) -> list[str]:
        """Return sentences about key points."""
        notes = []
        if self.with_key_points:
            notes.append(
                f"the key points of {self.with_key_points:,} lines were left out: their first numbers are boxes"
            )
        if len(self.columns_of_polygons) == 1 and self.key_points is None:
            ((columns, count),) = self.columns_of_polygons.items()
            if count >= _MANY_LINES and columns >= _COLUMNS_OF_KEY_POINTS:
                notes.append(
                    f"all {count:,} polygons have {columns} columns: if these are boxes with key points, declare "
                    f"`kpt_shape: [{(columns - _COLUMNS_OF_A_BOX) // 2}, 2]` in the data.yaml"
                )
        return notes

    def _has_key_points(self, values: Sequence[float]) -> bool:
        """Return whether numbers follow a box: as declared, or because they can only be x, y, visibility."""
        further = len(values) - _COLUMNS_OF_A_BOX + 1
        if self.key_points is not None:
            return further == self.key_points[0] * self.key_points[1]
        visible = values[_COLUMNS_OF_A_BOX + 1 :: 3]
        if further < 3 or further % 3 or not all(value in (0, 1, 2) for value in visible):
            return False
        x1, y1, x2, y2 = _corners_of_box(values)
        points = zip(values[4::3], values[5::3], visible, strict=True)
        return all(not v or (x1 - 0.01 <= x <= x2 + 0.01 and y1 - 0.01 <= y <= y2 + 0.01) for x, y, v in points)

    def _shape(self, values: Sequence[float]) -> tuple[Box, bool] | str:
        """Return the xyxy box of a line relative to the image size, and whether the line is a polygon.

        For an invalid line, return a text that describes its fault.
        """
        if len(values) == _COLUMNS_OF_A_BOX - 1:
            return _corners_of_box(values), False
        if self._has_key_points(values):
            self.with_key_points += 1
            return _corners_of_box(values), False
        columns = len(values) + 1
        if self.key_points is not None:
            expected = _COLUMNS_OF_A_BOX + self.key_points[0] * self.key_points[1]
            declared = " x ".join(map(str, self.key_points))
            return f"expected {_COLUMNS_OF_A_BOX} or {expected} columns (kpt_shape {declared}), found {columns} columns"
        if len(values) < 6 or len(values) % 2:
            what = f"expected `class x y width height` or the corners of a polygon, found {columns} columns"
            is_detection = columns == _COLUMNS_OF_A_BOX + 1 and 0 <= values[-1] <= 1
            return f"{what}: the last one may be the confidence of a detection" if is_detection else what
        self.columns_of_polygons[columns] += 1
        return box_around(zip(values[::2], values[1::2], strict=True)), True


def _corners_of_box(values: Sequence[float]) -> Box:
    """Return the xyxy box of numbers that begin with its centre and its sides."""
    x, y, w, h = values[:4]
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def write_yolo(splits: Mapping[str, DetectionData], target: WriteTarget) -> dict[str, Path]:
    """Write a data.yaml for all splits, and a .txt label file for each image. Return the path of each split."""
    content: dict[str, Any] = {}
    class_ids = common_class_ids(splits)
    for name, data in splits.items():
        content[name or "train"] = f"images/{name}".rstrip("/")
        for record, image_path in zip(data.records, target.images[name], strict=True):
            labels = _label_lines(data, record, class_ids)
            write_text(target.folder / "labels" / name / f"{image_path.stem}.txt", labels)
    content["names"] = {number: name for name, number in class_ids.items()}
    file = write_text(target.folder / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return {name: file.with_name(f"{file.name}#{name}") if name else file for name in splits}


def _label_lines(data: DetectionData, record: Record, class_ids: Mapping[str, int]) -> str:
    """Return the text of the label file of one image, without crowd regions."""
    lines = []
    W, H = record.width, record.height
    for (x1, y1, x2, y2), name in objects_without_crowd(data, record):
        relative = ((x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H)
        lines.append(f"{class_ids[name]} {' '.join(f'{value:.{_DIGITS}g}' for value in relative)}\n")
    return "".join(lines)


YOLO: Final = AnnotationFormat(
    name="yolo",
    title="YOLO",
    read=read_yolo,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    expects="a YOLO data.yaml",
    reads_folder=True,
    splits_in_file=splits_in_file,
    splits_in_folder=_splits_in_folder,
    writer=FormatWriter(
        write=write_yolo,
        not_stored=frozenset(("crowd", "category_ids", "image_ids", "areas", "annotation_ids")),
        images_found_by="place",
    ),
)
