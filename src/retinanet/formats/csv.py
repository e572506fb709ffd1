"""The CSV format of keras-retinanet: one line `path,x1,y1,x2,y2,class` per object, xyxy in pixels.

An image without objects has the line `path,,,,,`. If the first line is a header, the columns may have any order
(Roboflow: `filename,width,height,class,xmin,ymin,xmax,ymax`), and columns for the width and height of the image are
compared with the image file. Values may be quoted. The separator is a comma, a semicolon or a tab. If it is no comma,
numbers may have a decimal comma. Lines before the header that start with # are comments. Paths are relative to the
folder of the file, or to `images`. The class list comes from `<name>_classes.csv` or `classes.csv` beside it, with
lines `class,id` as in keras-retinanet. Without such a file, it is the sorted class names of the objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from retinanet.files import is_file
from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import (
    AnnotationFormat,
    Candidate,
    DataSource,
    Evidence,
    FormatWriter,
    files_of_splits,
)
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.csv_table import COLUMNS, CORNER_NAMES, SEPARATORS, Table, read_table
from retinanet.formats.folder_walk import files_in
from retinanet.formats.image_files import ImageFinder, image_size
from retinanet.formats.open_images_files import has_boxes
from retinanet.formats.output import (
    WriteTarget,
    common_class_ids,
    exact_number,
    objects_without_crowd,
    relative_path,
    write_text,
)
from retinanet.formats.records import SKIP_OBJECT, DataError, DetectionData
from retinanet.formats.text import integer, read_lines
from retinanet.images import ImageError
from retinanet.parse import shorten

CLASS_FILE: Final = "classes.csv"


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.COMMON_NAME if source.suffix == ".csv" and not has_boxes(source.path) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    files = _files_in(folder.path)
    others = f", the first of {len(files)} files" if len(files) > 1 else ""
    for file in files:
        yield Candidate(DataSource(file), Evidence.COMMON_NAME, f" by its {file.name}{others}")


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder, or none if a file of Open Images shows that the others belong to it."""
    files = [file for file in files_in(folder, ".csv") if not file.name.endswith(CLASS_FILE)]
    return [] if any(map(has_boxes, files)) else files


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    """Return the file of each split in a folder with several files: train.csv, val.csv."""
    return files_of_splits(_files_in(folder))


def read_csv(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a CSV file: see `formats.read`. Category ids are 1, 2, ... in the order of the classes."""
    builder = DatasetBuilder(source.path, options)
    finder = ImageFinder.for_file(source.path, options.images)
    images: dict[str, AnnotatedImage | None] = {}
    table = read_table(source.path)
    for line, row in table.rows:
        if (image := _read_row(row, line, table, builder, finder, images)) is not None:
            image.add_properties(table.cells_by_name(row), known=CORNER_NAMES)
    builder.notes += table.notes(source.path)
    builder.images = [image for image in images.values() if image is not None]
    return builder.build(_class_list(source.path))


def _class_list(source: Path) -> list[str] | None:
    """Return the class names, sorted by id, of a file with lines `class,id` beside the annotations, or None."""
    for path in (source.with_name(f"{source.stem}_classes.csv"), source.with_name(CLASS_FILE)):
        if not path.is_file() or path == source:
            continue
        ids: dict[int, str] = {}
        for number, text in read_lines(path):
            try:
                lines = [next(csv.reader([text], delimiter=separator)) for separator in SEPARATORS]
            except csv.Error as error:
                raise DataError(f"{path}, line {number}: not CSV ({error})") from error
            row = [cell.strip() for cell in next((line for line in lines if len(line) == 2), lines[0])]
            label = integer(row[1]) if len(row) == 2 else None
            if label is None or label < 0:
                if number == 1 and len(row) == 2:  # a header
                    continue
                raise DataError(f"{path}, line {number}: expected `class,id`, found {shorten(text)}")
            if label in ids or row[0] in ids.values():
                raise DataError(f"{path}, line {number}: expected every class and id once, found {shorten(text)} again")
            ids[label] = row[0]
        return [ids[i] for i in sorted(ids)]
    return None


def _read_row(
    row: Sequence[str],
    line: int,
    table: Table,
    builder: DatasetBuilder,
    finder: ImageFinder,
    images: dict[str, AnnotatedImage | None],
) -> AnnotatedImage | None:
    """Add the object of one line to the builder, or its fault. Return the image, if it is valid."""
    where, column_of = f"line {line}", table.column_of
    if len(row) <= max(column_of.values()):
        what = f"expected {','.join(COLUMNS)}, found {len(row)} columns: {','.join(row)!r}"
        builder.add_fault(builder.source, where, what, SKIP_OBJECT)
        return None
    name = row[column_of["path"]].strip()
    if not name:
        builder.add_fault(builder.source, where, "expected the path of an image, found none", SKIP_OBJECT)
        return None
    key = name.replace("\\", "/").removeprefix("./")  # one image, however its path is written
    declared_size = _declared_size(row, table)
    if key not in images:
        images[key] = None
        if (path := builder.find_image(finder, name, file=builder.source, where=where)) is not None:
            try:
                images[key] = AnnotatedImage(path, *image_size(path, *declared_size))
            except ImageError as error:
                what = str(error) if is_file(path) else f"image not found at {path}"
                builder.add_image_fault(path, what, file=builder.source, where=where)
    image = images[key]
    cells = [row[column_of[corner]].strip() for corner in ("x1", "y1", "x2", "y2")]
    written = row[column_of["class"]].strip()
    has_object = any((*cells, written)) and not table.is_placeholder(row)
    if image is None:
        builder.objects_without_image += has_object
    if image is None or not has_object:
        return image
    size = tuple(map(integer, declared_size))
    if None not in size and size != (image.width, image.height):
        what = f"expected one size of {name}, found {image.width}x{image.height} and {size[0]}x{size[1]}"
        builder.add_fault(builder.source, where, what, SKIP_OBJECT)
        return image
    result = _parse_object([table.number(cell) for cell in cells], cells, written, builder.selection, line)
    builder.add_object(image, result, file=builder.source, where=where)
    return image


def _parse_object(
    numbers: Sequence[float | None], cells: Sequence[str], written: str, selection: ClassSelection, line: int
) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    if not written:
        return "expected a class, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    x1, y1, x2, y2 = numbers
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return f"expected four finite numbers x1,y1,x2,y2, found {','.join(cells)!r}"
    return AnnotatedObject(line, name, (x1, y1, x2, y2))


def _declared_size(row: Sequence[str], table: Table) -> tuple[str, str] | tuple[None, None]:
    """Return the width and height of the image that a line declares; None if the columns hold the sides of the box."""
    if "width" not in table.column_of or "height" not in table.column_of:
        return None, None
    width, height = (row[table.column_of[name]].strip() for name in ("width", "height"))
    x1, y1, x2, y2 = (table.number(row[table.column_of[name]]) for name in ("x1", "y1", "x2", "y2"))
    if x1 is not None and y1 is not None and x2 is not None and y2 is not None:
        w, h = table.number(width), table.number(height)
        if w is not None and h is not None and abs(x2 - x1 - w) <= 1 and abs(y2 - y1 - h) <= 1:
            return None, None
    return width, height


def write_csv(splits: Mapping[str, DetectionData], target: WriteTarget) -> dict[str, Path]:
    """Write a CSV file for each split, and the class list. Return the path of each split."""
    written = {}
    for name, data in splits.items():
        path = target.file or target.folder / f"{name or 'annotations'}.csv"
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for record, image_path in zip(data.records, target.images[name], strict=True):
            image = relative_path(image_path, path.parent)
            objects = list(objects_without_crowd(data, record))
            rows.writerows([image, *map(exact_number, box), label] for box, label in objects)
            if not objects:
                rows.writerow([image, "", "", "", "", ""])
        written[name] = write_text(path, text.getvalue())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(common_class_ids(splits).items())
    write_text(target.folder / CLASS_FILE, text.getvalue())
    return written


CSV: Final = AnnotationFormat(
    name="csv",
    title="CSV",
    read=read_csv,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    expects="a .csv (path,x1,y1,x2,y2,class)",
    splits_in_folder=_splits_in_folder,
    writer=FormatWriter(
        write=write_csv,
        not_stored=frozenset(("crowd", "category_ids", "image_ids", "areas", "annotation_ids")),
        file_suffix=".csv",
    ),
)
