"""The CSV format of keras-retinanet: one line `path,x1,y1,x2,y2,class` per object, xyxy in pixels.

An image without objects has the line `path,,,,,`. If the first line is a header, the columns may have any order
(Roboflow: `filename,width,height,class,xmin,ymin,xmax,ymax`). Values may be quoted. Paths are relative to the folder of
the file, or to `images`. The class list comes from `<name>_classes.csv` or `classes.csv` beside the file, with lines
`class,id` as in keras-retinanet. Without such a file, it is the sorted class names of the objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from retinanet.files import is_file, open_text
from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence, FormatWriter
from retinanet.formats.builder import AnnotatedImage, AnnotatedObject, DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.folder_walk import files_in
from retinanet.formats.image_files import ImageFinder
from retinanet.formats.output import (
    WriteTarget,
    common_class_ids,
    exact_number,
    objects_without_crowd,
    relative_path,
    write_text,
)
from retinanet.formats.records import SKIP_IMAGE, SKIP_OBJECT, DataError, DetectionData, clip_box
from retinanet.formats.text import finite_number, read_lines
from retinanet.images import ImageError, read_size
from retinanet.parse import shorten

COLUMNS: Final = ("path", "x1", "y1", "x2", "y2", "class")
CLASS_FILE: Final = "classes.csv"
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "img", "image_name", "image_id"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "class_name", "name", "category", "classname"),
}
_CORNERS: Final = frozenset(alias for corner in ("x1", "y1", "x2", "y2") for alias in _ALIASES[corner])


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.COMMON_NAME if source.suffix == ".csv" else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    for file in files_in(folder.path, ".csv"):
        if not file.name.endswith(CLASS_FILE):
            yield Candidate(DataSource(file), Evidence.COMMON_NAME, f" by its {file.name}")


def read_csv(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a CSV file: see `formats.read`. Category ids are 1, 2, ... in the order of the classes."""
    builder = DatasetBuilder(source.path, options)
    finder = ImageFinder.for_file(source.path, options.images)
    images: dict[str, AnnotatedImage | None] = {}
    column_of: Mapping[str, int] = {name: index for index, name in enumerate(COLUMNS)}
    header_names: Sequence[str] = COLUMNS
    line = 1
    try:
        with open_text(source.path) as file:
            reader = csv.reader(file)
            for row in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in row):
                    continue
                if line == 1 and (header := _header(row)) is not None:
                    column_of, header_names = header, [cell.strip() for cell in row]
                    continue
                if (image := _read_row(row, line, column_of, builder, finder, images)) is not None:
                    image.add_properties(_columns(row, header_names), known=_CORNERS)
    except UnicodeDecodeError as error:
        raise DataError(f"{source.path}: expected UTF-8 text ({error})") from error
    except csv.Error as error:
        raise DataError(f"{source.path}, line {line}: not CSV ({error})") from error
    if column_of["path"] != 0 or column_of["class"] != len(COLUMNS) - 1:
        columns = ", ".join(f"column {column_of[name] + 1} as {name}" for name in COLUMNS)
        builder.notes.append(f"the header line of {source.path} was read as: {columns}")
    builder.images = [image for image in images.values() if image is not None]
    return builder.build(_class_list(source.path))


def _header(row: Sequence[str]) -> dict[str, int] | None:
    """Return the index of each column if the first line is a header, or None."""
    cells = [cell.strip().lower() for cell in row]
    columns = {
        name: next((cells.index(alias) for alias in aliases if alias in cells), -1)
        for name, aliases in _ALIASES.items()
    }
    return columns if min(columns.values()) >= 0 else None


def _class_list(source: Path) -> list[str] | None:
    """Return the class names, sorted by id, of a file with lines `class,id` beside the annotations, or None."""
    for path in (source.with_name(f"{source.stem}_classes.csv"), source.with_name(CLASS_FILE)):
        if not path.is_file() or path == source:
            continue
        ids: dict[int, str] = {}
        for line, text in read_lines(path):
            try:
                row = [cell.strip() for cell in next(csv.reader([text]))]
            except csv.Error as error:
                raise DataError(f"{path}, line {line}: not CSV ({error})") from error
            label = finite_number(row[1]) if len(row) == 2 else None
            if label is None or label < 0 or not label.is_integer():
                if line == 1 and len(row) == 2:  # a header
                    continue
                raise DataError(f"{path}, line {line}: expected `class,id`, found {shorten(text)}")
            if int(label) in ids or row[0] in ids.values():
                raise DataError(f"{path}, line {line}: expected every class and id once, found {shorten(text)} again")
            ids[int(label)] = row[0]
        return [ids[i] for i in sorted(ids)]
    return None


def _read_row(
    row: Sequence[str],
    line: int,
    column_of: Mapping[str, int],
    builder: DatasetBuilder,
    finder: ImageFinder,
    images: dict[str, AnnotatedImage | None],
) -> AnnotatedImage | None:
    """Add the object of one line to the builder, or its fault. Return the image, if it is valid."""
    where = f"line {line}"
    if len(row) <= max(column_of.values()):
        what = f"expected {','.join(COLUMNS)}, found {len(row)} columns: {','.join(row)!r}"
        builder.add_fault(builder.source, where, what, SKIP_OBJECT)
        return None
    name = row[column_of["path"]].strip()
    if not name:
        builder.add_fault(builder.source, where, "expected the path of an image, found none", SKIP_OBJECT)
        return None
    name = name.replace("\\", "/").removeprefix("./")  # one image, however its path is written
    if name not in images:
        path = builder.find_image(finder, name, file=builder.source, where=where)
        if path is None:
            images[name] = None
            return None
        try:
            images[name] = AnnotatedImage(path, *read_size(path))
        except ImageError as error:
            images[name] = None
            what = f"image not found at {path}" if not is_file(path) else str(error)
            builder.add_fault(builder.source, where, what, SKIP_IMAGE)
    image = images[name]
    cells = [row[column_of[corner]].strip() for corner in ("x1", "y1", "x2", "y2")]
    written = row[column_of["class"]].strip()
    if image is None or not any((*cells, written)):
        return image
    result = _parse_object(cells, written, image, builder.selection, line)
    builder.add_object(image, result, file=builder.source, where=where)
    return image


def _columns(row: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the cells of a line by the names of their columns: "column 7" for a column without a name."""
    return {
        names[index] if index < len(names) and names[index] else f"column {index + 1}": cell
        for index, cell in enumerate(row)
    }


def _parse_object(
    cells: Sequence[str], written: str, image: AnnotatedImage, selection: ClassSelection, line: int
) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    if not written:
        return "expected a class, found none"
    if (name := selection.new_name(written)) is None:
        return None
    if fault := selection.fault(name):
        return fault
    x1, y1, x2, y2 = (finite_number(cell) for cell in cells)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return f"expected four finite numbers x1,y1,x2,y2, found {','.join(cells)!r}"
    box = clip_box((x1, y1, x2, y2), image.width, image.height)
    return box if isinstance(box, str) else AnnotatedObject(line, name, box)


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
    writer=FormatWriter(
        write=write_csv,
        not_stored=frozenset(("crowd", "category_ids", "image_ids", "areas", "annotation_ids")),
        file_suffix=".csv",
    ),
)
