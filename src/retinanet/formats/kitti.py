"""The KITTI format of the object benchmark: a .txt file per image in label_2, beside the images in image_2.

A line holds 15 columns, separated by spaces (devkit_object/readme.txt): type, truncated (0 to 1), occluded (0 to 3),
alpha, the box as left, top, right, bottom in pixels from 0, three dimensions and three coordinates in metres, and
rotation_y. Only the type and the box are objects; `truncated` and `occluded` become properties of the image. NVIDIA's
TAO Toolkit writes the same lines into labels/, beside images/.

Regions of the type DontCare are ignore regions for every class, as in the KITTI evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinanet.formats.annotated_image import AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.text import finite_number
from retinanet.formats.text_labels import TextLabels
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.formats.annotated_image import AnnotatedImage
    from retinanet.formats.annotation_format import DataSource
    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.class_selection import ClassSelection
    from retinanet.formats.records import DetectionData

IGNORED: Final = "DontCare"
_COLUMNS: Final = 15


def _is_label(text: str) -> bool:
    """Return whether a line is KITTI's, not a polygon of YOLO: a type, numbers, and an occlusion state of -1 to 3."""
    words = text.split()
    numbers = [finite_number(word) for word in words[1:]]
    return (
        len(words) in (_COLUMNS, _COLUMNS + 1)
        and finite_number(words[0]) is None
        and None not in numbers
        and numbers[1] in (-1, 0, 1, 2, 3)
    )


_LABELS: Final = TextLabels(
    title="KITTI",
    label_folders=("label_2", "training/label_2", "labels"),
    image_folders=("image_2", "images", "data"),
    is_label=_is_label,
    suffix=".png",
)


def read_kitti(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a KITTI folder: see `formats.read`. Classes are the types of the objects, sorted, without DontCare."""
    return _LABELS.read(source, options, _parse_line, numbers=BoxNumbers()).build()


def _parse_line(text: str, line: int, image: AnnotatedImage, selection: ClassSelection) -> AnnotatedObject | str | None:
    words = text.split()
    if len(words) != _COLUMNS:
        what = f"expected {_COLUMNS} columns of KITTI, found {len(words)}: {shorten(text)}"
        return f"{what}. The last column may be the score of a detection" if len(words) == _COLUMNS + 1 else what
    numbers = [finite_number(word) for word in words[1:]]
    for number, word in zip(numbers, words[1:], strict=True):
        if number is None:
            return f"expected a type and {_COLUMNS - 1} finite numbers, found {shorten(word)}"
    left, top, right, bottom = (number for number in numbers[3:7] if number is not None)
    if words[0] == IGNORED:
        return AnnotatedObject(line, None, (left, top, right, bottom), crowd=True)
    if (name := selection.new_name(words[0])) is None:
        return None
    if fault := selection.fault(name):
        return fault
    image.add_properties({"truncated": words[1], "occluded": words[2]})
    return AnnotatedObject(line, name, (left, top, right, bottom))


KITTI: Final = AnnotationFormat(
    name="kitti",
    title="KITTI",
    read=read_kitti,
    recognise_folder=_LABELS.recognise_folder,
    expects="a KITTI folder",
    reads_folder=True,
    splits_in_file=_LABELS.splits,
)
