"""The VisDrone format of the task "object detection in images": annotations/*.txt beside images/*.jpg.

A line holds bbox_left, bbox_top, bbox_width, bbox_height in pixels, score, object_category, truncation, occlusion,
separated by commas (aiskyeye.com, data format of task 1). Ignore regions are:

- category 0, "ignored regions", and category 11, "others": for every class
- an object with a score of 0, which the VisDrone evaluation ignores: for its class
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinanet.formats.annotated_image import AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.text import finite_number, integer
from retinanet.formats.text_labels import TextLabels
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.formats.annotated_image import AnnotatedImage
    from retinanet.formats.annotation_format import DataSource
    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.class_selection import ClassSelection
    from retinanet.formats.records import DetectionData

CLASSES: Final = (
    *("pedestrian", "people", "bicycle", "car", "van"),
    *("truck", "tricycle", "awning-tricycle", "bus", "motor"),
)
"""Name of each object category, from category 1."""
IGNORED: Final = frozenset((0, 11))
"""Categories of ignore regions: "ignored regions" and "others"."""
_COLUMNS: Final = 8


def _columns(text: str) -> list[str]:
    """Return the columns of a line. Some lines of VisDrone end with a comma."""
    return [cell.strip() for cell in text.strip().removesuffix(",").split(",")]


def _is_label(text: str) -> bool:
    cells = _columns(text)
    return len(cells) == _COLUMNS and all(finite_number(cell) is not None for cell in cells)


_LABELS: Final = TextLabels(
    title="VisDrone",
    label_folders=("annotations",),
    image_folders=("images",),
    is_label=_is_label,
)


def read_visdrone(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a VisDrone folder: see `formats.read`. Classes and category ids are the ten categories of VisDrone."""
    builder = _LABELS.read(source, options, _parse_line, numbers=BoxNumbers("xywh"))
    ids: dict[str, int] = {}
    for category, name in enumerate(CLASSES, 1):
        ids.setdefault(options.selection.rename.get(name, name), category)
    return builder.build(CLASSES, ids)


def _parse_line(text: str, line: int, image: AnnotatedImage, selection: ClassSelection) -> AnnotatedObject | str | None:
    cells = _columns(text)
    if len(cells) != _COLUMNS:
        return f"expected {_COLUMNS} columns of VisDrone, found {len(cells)}: {shorten(text)}"
    left, top, width, height = (finite_number(cell) for cell in cells[:4])
    if left is None or top is None or width is None or height is None:
        return f"expected finite numbers bbox_left, bbox_top, bbox_width, bbox_height, found {shorten(text)}"
    score, category = integer(cells[4]), integer(cells[5])
    if score not in (0, 1):
        return f"expected a score of 0 (ignored) or 1, found {shorten(cells[4])}. Other scores are those of detections"
    if category is None or not 0 <= category <= len(CLASSES) + 1:
        return f"expected an object category from 0 to {len(CLASSES) + 1}, found {shorten(cells[5])}"
    box = (left, top, left + width, top + height)
    if category in IGNORED:
        return AnnotatedObject(line, None, box, crowd=True)
    if (name := selection.new_name(CLASSES[category - 1])) is None:
        return None
    if fault := selection.fault(name):
        return fault
    image.add_properties({"truncation": cells[6], "occlusion": cells[7]})
    return AnnotatedObject(line, name, box, crowd=score == 0)


VISDRONE: Final = AnnotationFormat(
    name="visdrone",
    title="VisDrone",
    read=read_visdrone,
    recognise_folder=_LABELS.recognise_folder,
    expects="a VisDrone folder",
    reads_folder=True,
    splits_in_file=_LABELS.splits,
)
