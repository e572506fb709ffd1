"""Write detections as COCO, CSV, Pascal VOC and YOLO files.

Boxes are xyxy in original pixels, 0-based, without "+1". A file is first written as NAME.partial, and renamed once it
is complete. If a run is stopped, its detections up to this point remain in the .partial file.
"""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import ClassVar, Final, Self, TextIO
from xml.etree import ElementTree as ET

import numpy as np
import supervision as sv
import yaml

from retinanet.errors import ConfigError, UserError, did_you_mean
from retinanet.files import partial_path, path_text, replace_file, write_atomically
from retinanet.predict.coco_results import class_ids, class_names, detections_to_coco, scores

CSV_COLUMNS: Final = ("path", "x1", "y1", "x2", "y2", "class", "score")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputImage:
    """An image whose detections are written.

    Args:
        path: image file, as named by the user.
        name: path of the output file in the output folder, without suffix; see `output_names`.
        image_id: image id in COCO results.
        width: original pixels.
        height: original pixels.
    """

    path: Path
    name: PurePosixPath
    image_id: int
    width: int
    height: int


class Writer(ABC):
    """A context manager that writes detections image by image, without keeping them in memory.

    Args:
        output: output folder.
        classes: name of each class id.
        category_ids: COCO category id of each class id.
    """

    outputs: ClassVar[tuple[str, ...]]
    """Names of the files and folders in the output folder. The first contains the detections."""

    def __init__(self, output: Path, *, classes: Sequence[str], category_ids: Sequence[int]) -> None:
        self.path = output / self.outputs[0]
        self.classes = classes
        self.category_ids = category_ids

    @abstractmethod
    def __enter__(self) -> Self:
        """Open the output files."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Complete the output files, unless an error occurred."""

    @abstractmethod
    def write(self, image: OutputImage, detections: sv.Detections) -> None:
        """Write the detections of one image. Images without detections are written too."""


class _SingleFileWriter(Writer):
    """A writer of one text file. The file gets its final name only once it is complete."""

    head = ""
    tail = ""

    def __init__(self, output: Path, *, classes: Sequence[str], category_ids: Sequence[int]) -> None:
        super().__init__(output, classes=classes, category_ids=category_ids)
        self._partial = partial_path(self.path)
        self._file: TextIO

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", encoding="utf-8", newline="")
        self._file.write(self.head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.write(self.tail)
        self._file.close()
        if kind is None:
            replace_file(self._partial, self.path)


class CocoWriter(_SingleFileWriter):
    """COCO results: a JSON list of objects with image_id, category_id, bbox (xywh), score and file_name.

    `file_name` is the path of the image. It identifies images that belong to no dataset, and evaluators ignore it.
    """

    outputs = ("detections.json",)
    head = "["
    tail = "\n]\n"
    _comma = "\n"

    def write(self, image: OutputImage, detections: sv.Detections) -> None:
        """Write one line per detection."""
        for row in detections_to_coco(detections, image_id=image.image_id, category_ids=self.category_ids):
            line = json.dumps({**row, "file_name": path_text(image.path)}, ensure_ascii=False)
            self._file.write(self._comma + line)
            self._comma = ",\n"


class CsvWriter(_SingleFileWriter):
    """CSV: `path,x1,y1,x2,y2,class,score`, one line per detection. An image without detections is `path,,,,,,`."""

    outputs = ("detections.csv",)
    head = ",".join(CSV_COLUMNS) + "\n"

    def write(self, image: OutputImage, detections: sv.Detections) -> None:
        """Write one line per detection, or one line without a box."""
        rows = csv.writer(self._file, lineterminator="\n")
        path = path_text(image.path)
        if not len(detections):
            rows.writerow([path, *[""] * (len(CSV_COLUMNS) - 1)])
        for box, name, score in zip(detections.xyxy, class_names(detections), scores(detections), strict=True):
            rows.writerow([path, *map(str, box), name, str(score)])


class _FolderWriter(Writer):
    """A writer of one file per image."""

    suffix = ""

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def _write(self, image: OutputImage, text: str) -> None:
        write_atomically(self.path / f"{image.name}{self.suffix}", text)


class VocWriter(_FolderWriter):
    """Pascal VOC: one XML file per image, with boxes rounded to 0.01 pixels and a <score> in each object."""

    outputs = ("Annotations",)
    suffix = ".xml"

    def write(self, image: OutputImage, detections: sv.Detections) -> None:
        """Write the XML file of one image."""
        root = ET.Element("annotation")
        folder, name = (path_text(Path(part)) for part in (image.path.parent.name, image.path.name))
        _add(root, folder=folder, filename=name, path=path_text(image.path))
        _add(ET.SubElement(root, "size"), width=image.width, height=image.height, depth=3)
        _add(root, segmented=0)
        for box, label, score in zip(detections.xyxy, class_names(detections), scores(detections), strict=True):
            element = ET.SubElement(root, "object")
            _add(element, name=label, pose="Unspecified", truncated=0, difficult=0, score=score)
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (f"{value:.2f}" for value in box), strict=True)
            _add(ET.SubElement(element, "bndbox"), **dict(corners))
        ET.indent(root)
        self._write(image, ET.tostring(root, encoding="unicode") + "\n")


class YoloWriter(_FolderWriter):
    """YOLO: one text file per image, one line `class cx cy w h score` per detection.

    Boxes are fractions of the image's width and height. The file data.yaml beside the folder contains the class names.
    """

    outputs = ("labels", "data.yaml")
    suffix = ".txt"

    def __enter__(self) -> Self:
        """Write data.yaml with the class names, and create the folder."""
        names = {"names": dict(enumerate(self.classes))}
        write_atomically(self.path.parent / "data.yaml", yaml.safe_dump(names, allow_unicode=True, sort_keys=False))
        return super().__enter__()

    def write(self, image: OutputImage, detections: sv.Detections) -> None:
        """Write the text file of one image. It is empty without detections."""
        x1, y1, x2, y2 = detections.xyxy.astype(np.float64).reshape(-1, 4).T
        W, H = image.width, image.height
        boxes = np.stack([(x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H], axis=1)
        lines = [
            f"{k} {' '.join(f'{value:.8f}' for value in box)} {score}\n"
            for k, box, score in zip(class_ids(detections), boxes, scores(detections), strict=True)
        ]
        self._write(image, "".join(lines))


WRITERS: Final[dict[str, type[Writer]]] = {
    "coco": CocoWriter,
    "voc": VocWriter,
    "yolo": YoloWriter,
    "csv": CsvWriter,
}


def find_writer(format: str) -> type[Writer]:
    """Return the writer class of a format. Raises `ConfigError` for an unknown format."""
    if format not in WRITERS:
        known = ", ".join(WRITERS)
        raise ConfigError(f"format must be one of {known}, found {format!r}{did_you_mean(format, WRITERS)}")
    return WRITERS[format]


def open_writer(format: str, output: Path, *, classes: Sequence[str], category_ids: Sequence[int]) -> Writer:
    """Return a writer of a format. `classes` and `category_ids` belong to the class ids 0, 1, ..."""
    return find_writer(format)(output, classes=classes, category_ids=category_ids)


def _add(parent: ET.Element, **children: object) -> None:
    for tag, value in children.items():
        ET.SubElement(parent, tag).text = str(value)


def output_names(paths: Sequence[Path]) -> list[PurePosixPath]:
    """Return a unique output name for each image: its path in the common folder of all images, without suffix.

    The suffix is kept if names would otherwise be equal (a.jpg, a.png).
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - resolve() would follow links
    if len({path.anchor for path in absolute}) > 1:
        raise UserError("expected all images on one drive, found several drives: predict on one drive at a time")
    root = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    full = [PurePosixPath(path.relative_to(root).as_posix()) for path in absolute]
    names = [path.with_suffix("") for path in full]
    while True:
        count: dict[str, int] = {}
        for name in names:  # without case: on some disks, a.txt and A.txt are the same file
            count[str(name).casefold()] = count.get(str(name).casefold(), 0) + 1
        unique = [f if count[str(n).casefold()] > 1 else n for n, f in zip(names, full, strict=True)]
        if unique == names:
            return names
        names = unique
