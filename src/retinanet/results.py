"""Detections as files that other tools read, and drawn on pictures.

Boxes are xyxy in original pixels, 0-based, without "+1". Files are written beside their target, as NAME.partial, and
renamed when they are whole; what a run that was stopped had found stays in the .partial file.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TextIO, cast
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import supervision as sv
import yaml
from PIL import Image

from retinanet.config import UserError
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    from retinanet.config import ResultFormat

CSV_COLUMNS: Final = ("path", "x1", "y1", "x2", "y2", "class", "score")
TARGETS: Final = {"coco": "detections.json", "csv": "detections.csv", "voc": "Annotations", "yolo": "labels"}
"""What each format writes into the output folder; YOLO a data.yaml with the class names as well."""

MOST_LABELS: Final = 1000
"""With more detections in a picture only the boxes are drawn: nobody could read the names."""

_HEX: Final = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe"),
    *("#008080", "#e6beff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075", "#a9a9a9"),
)
_COLORS: Final = sv.ColorPalette.from_hex(list(_HEX))
_TEXT_COLORS: Final = sv.ColorPalette(
    [sv.Color.BLACK if 0.299 * c.r + 0.587 * c.g + 0.114 * c.b > 140 else sv.Color.WHITE for c in _COLORS.colors]
)
"""Black or white, whichever is read better on the class's colour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Where detections belong.

    Args:
        path: the picture's file, as it was given.
        name: its place in the output folder, without a suffix; see `output_names`.
        image_id: its id in COCO results.
        width: original pixels.
        height: original pixels.
    """

    path: Path
    name: PurePosixPath
    image_id: int
    width: int
    height: int


class Writer(Protocol):
    """A context manager that takes one picture's detections after the other and keeps none of them."""

    def __enter__(self) -> Self:
        """Open what is written to."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the files, unless there was an error."""

    def write(self, picture: Picture, detections: sv.Detections) -> None:
        """Write the detections of one picture; there may be none."""


def open_writer(format: ResultFormat, output: Path, *, classes: Sequence[str], category_ids: Sequence[int]) -> Writer:
    """Return the writer of a format; `classes` and `category_ids` are those of class ids 0, 1, ..."""
    target = output / TARGETS[format]
    if format == "coco":
        return CocoWriter(target, category_ids=category_ids)
    if format == "csv":
        return CsvWriter(target)
    if format == "voc":
        return VocWriter(target)
    return YoloWriter(target, classes=classes)


def detections_to_coco(
    detections: ArrayDetections | sv.Detections, *, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return COCO results, best first as they come: image_id, category_id, bbox (xywh, original pixels), score.

    Args:
        detections: of one picture.
        image_id: its id in the ground truth.
        category_ids: COCO's id of each 0-based class id.
    """
    if isinstance(detections, ArrayDetections):
        boxes_D4, scores_D = detections.boxes_D4.tolist(), detections.scores_D.tolist()
        labels_D = detections.labels_D.tolist()
    else:
        boxes_D4 = detections.xyxy.tolist()
        scores_D, labels_D = _scores(detections).tolist(), _class_ids(detections).tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[k], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, k in zip(boxes_D4, scores_D, labels_D, strict=True)
    ]


def detections_to_array(
    found: Iterable[tuple[int, ArrayDetections]], *, category_ids: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return COCO results as an array (D, 7): image_id, x, y, width, height, score, category_id; as they come.

    What `evaluate_results` takes, in a fraction of the time that a dictionary for each detection needs.

    Args:
        found: id in the ground truth, and detections, of each picture.
        category_ids: COCO's id of each 0-based class id; those below 0 are left out.
    """
    ids, parts = [], []
    for image_id, detections in found:
        ids.append(image_id)
        parts.append(detections)
    if not parts:
        return np.zeros((0, 7))
    boxes_D4 = np.concatenate([p.boxes_D4 for p in parts]).astype(np.float64)
    scores_D = np.concatenate([p.scores_D for p in parts]).astype(np.float64)
    labels_D = np.concatenate([p.labels_D for p in parts])
    image_D = np.repeat(np.array(ids, np.float64), [len(p.scores_D) for p in parts])
    category_D = np.array(category_ids, np.float64)[labels_D]
    array_D7 = np.column_stack([image_D, boxes_D4[:, :2], boxes_D4[:, 2:] - boxes_D4[:, :2], scores_D, category_D])
    kept_D7: npt.NDArray[np.float64] = array_D7[category_D >= 0]
    return kept_D7


class _OneFile:
    """A text file that takes its name when it is whole."""

    head = ""
    tail = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = partial_of(path)
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
            self._partial.replace(self.path)


class CocoWriter(_OneFile):
    """COCO results: a JSON list of image_id, category_id, bbox (xywh), score, and the picture's path as file_name.

    COCO's own ids say nothing of pictures that are in no data set, hence the file name; evaluators pass over it.
    """

    head = "["
    tail = "\n]\n"

    def __init__(self, path: Path, *, category_ids: Sequence[int]) -> None:
        super().__init__(path)
        self.category_ids = category_ids
        self._comma = "\n"

    def write(self, picture: Picture, detections: sv.Detections) -> None:
        """Write one line per detection."""
        for row in detections_to_coco(detections, image_id=picture.image_id, category_ids=self.category_ids):
            line = json.dumps({**row, "file_name": picture.path.as_posix()}, ensure_ascii=False)
            self._file.write(self._comma + line)
            self._comma = ",\n"


class CsvWriter(_OneFile):
    """`path,x1,y1,x2,y2,class,score`, one line per detection; a picture without any is `path,,,,,,`."""

    head = ",".join(CSV_COLUMNS) + "\n"

    def write(self, picture: Picture, detections: sv.Detections) -> None:
        """Write the lines of one picture."""
        rows = csv.writer(self._file, lineterminator="\n")
        path = picture.path.as_posix()
        if not len(detections):
            rows.writerow([path, *[""] * (len(CSV_COLUMNS) - 1)])
        for box, name, score in zip(detections.xyxy, class_names(detections), _scores(detections), strict=True):
            rows.writerow([path, *map(str, box), name, str(score)])


class _Folder:
    """One file per picture."""

    suffix = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def _write(self, picture: Picture, text: str) -> None:
        write_text(self.folder / f"{picture.name}{self.suffix}", text)


class VocWriter(_Folder):
    """Pascal VOC: one XML per picture, boxes to a hundredth of a pixel, and a <score> in each object."""

    suffix = ".xml"

    def write(self, picture: Picture, detections: sv.Detections) -> None:
        """Write one picture's XML."""
        root = ET.Element("annotation")
        _add(root, folder=picture.path.parent.name, filename=picture.path.name, path=picture.path.as_posix())
        _add(ET.SubElement(root, "size"), width=picture.width, height=picture.height, depth=3)
        _add(root, segmented=0)
        for box, name, score in zip(detections.xyxy, class_names(detections), _scores(detections), strict=True):
            element = ET.SubElement(root, "object")
            _add(element, name=name, pose="Unspecified", truncated=0, difficult=0, score=score)
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (f"{value:.2f}" for value in box), strict=True)
            _add(ET.SubElement(element, "bndbox"), **dict(corners))
        ET.indent(root)
        self._write(picture, ET.tostring(root, encoding="unicode") + "\n")


class YoloWriter(_Folder):
    """YOLO: one text file per picture, `class cx cy w h score` with boxes as shares of the picture's width and height.

    The class names are in data.yaml, beside the folder.
    """

    suffix = ".txt"

    def __init__(self, folder: Path, *, classes: Sequence[str]) -> None:
        super().__init__(folder)
        self.classes = classes

    def __enter__(self) -> Self:
        """Write the class names."""
        names = {"names": dict(enumerate(self.classes))}
        write_text(self.folder.parent / "data.yaml", yaml.safe_dump(names, allow_unicode=True, sort_keys=False))
        return super().__enter__()

    def write(self, picture: Picture, detections: sv.Detections) -> None:
        """Write one picture's text file, empty without detections."""
        x1, y1, x2, y2 = detections.xyxy.astype(np.float64).reshape(-1, 4).T
        W, H = picture.width, picture.height
        boxes = np.stack([(x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H], axis=1)
        lines = [
            f"{k} {' '.join(f'{value:.8f}' for value in box)} {score}\n"
            for k, box, score in zip(_class_ids(detections), boxes, _scores(detections), strict=True)
        ]
        self._write(picture, "".join(lines))


def _add(parent: ET.Element, **children: object) -> None:
    for tag, value in children.items():
        ET.SubElement(parent, tag).text = str(value)


def _class_ids(detections: sv.Detections) -> Any:
    return np.zeros(len(detections), np.int64) if detections.class_id is None else detections.class_id


def _scores(detections: sv.Detections) -> Any:
    return np.ones(len(detections), np.float32) if detections.confidence is None else detections.confidence


def class_names(detections: sv.Detections) -> list[str]:
    """Return the name of each detection's class, or its number where the detections bring no names."""
    names = detections.data.get("class_name")
    return [str(name) for name in (_class_ids(detections) if names is None else names)]


def partial_of(path: Path) -> Path:
    """Return where a file is written before it takes its name."""
    return path.with_name(path.name + ".partial")


def write_text(path: Path, text: str) -> None:
    """Write a whole file under its name, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def output_names(paths: Sequence[Path]) -> list[PurePosixPath]:
    """Return where each picture's output goes: its path below the pictures' common folder, without the suffix.

    Two pictures never share a name: where only the suffix tells them apart (a.jpg, a.png), it is kept.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - resolve() would follow links
    if len({path.anchor for path in absolute}) > 1:
        raise UserError("the pictures lie on several drives: predict on one drive at a time")
    root = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    full = [PurePosixPath(path.relative_to(root).as_posix()) for path in absolute]
    names = [path.with_suffix("") for path in full]
    while True:
        count: dict[str, int] = {}
        for name in names:  # a.jpg and A.png are one file where the disk does not tell capitals apart
            count[str(name).casefold()] = count.get(str(name).casefold(), 0) + 1
        unique = [f if count[str(n).casefold()] > 1 else n for n, f in zip(names, full, strict=True)]
        if unique == names:
            return names
        names = unique


def draw(image: Image.Image, detections: sv.Detections, *, threshold: float = 0.0) -> Image.Image:
    """Return a copy of an RGB picture with boxes and "name 0.87" for the detections that score `threshold` or more.

    Lines and letters fit the picture's size, each class has its colour, and the best detections lie on top.
    """
    order = np.argsort(_scores(detections), kind="stable")
    shown = cast(sv.Detections, detections[order[_scores(detections)[order] >= threshold]])
    scene = image.copy()
    if not len(shown):
        return scene
    shown.class_id = _class_ids(shown)
    side = min(image.size)
    object_side = float(np.median((shown.xyxy[:, 2:] - shown.xyxy[:, :2]).min(axis=1)))
    thickness = max(1, round(min(side / 300, object_side / 10)))  # a thick line would hide a small object
    scene = sv.BoxAnnotator(color=_COLORS, thickness=thickness).annotate(scene, shown)
    labels = [f"{name} {score:.2f}" for name, score in zip(class_names(shown), _scores(shown), strict=True)]
    if shown.tracker_id is not None:
        numbers = ["" if track < 0 else f"#{track} " for track in shown.tracker_id.tolist()]
        labels = [number + label for number, label in zip(numbers, labels, strict=True)]
    if len(shown) > MOST_LABELS:
        return scene
    font_size = max(9, round(side / 38))
    annotator = sv.RichLabelAnnotator(
        color=_COLORS,
        text_color=_TEXT_COLORS,
        font_path=_font(),
        font_size=font_size,
        text_padding=max(1, font_size // 6),
        smart_position=len(shown) <= MOST_LABELS // 4,  # memory and time grow with the square of their number
    )
    drawn: Image.Image = annotator.annotate(scene, shown, labels=labels)
    return drawn


def _font() -> str:
    """Return the path of a font with more than ASCII, which matplotlib brings."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
