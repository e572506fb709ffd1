"""The DOTA format of aerial images: a .txt file per image in labelTxt, beside the images.

A line holds the corners of a rotated box, the category and a flag: x1 y1 x2 y2 x3 y3 x4 y4 category difficult
(captain-whu.github.io/DOTA/dataset.html). Lines `imagesource:...` and `gsd:...` at the start of a file are left out.

A rotated box is read as the upright box around it. Objects marked as difficult are ignored, as in the DOTA evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinanet.formats.annotated_image import AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.geometry import box_around
from retinanet.formats.text import finite_number, integer
from retinanet.formats.text_labels import TextLabels
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.formats.annotated_image import AnnotatedImage
    from retinanet.formats.annotation_format import DataSource
    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.class_selection import ClassSelection
    from retinanet.formats.records import DetectionData

_HEADERS: Final = ("imagesource:", "gsd:")
_COLUMNS: Final = (9, 10)
"""Numbers of columns: the difficult flag may be missing."""
_COORDINATES: Final = 8
_VERSIONS: Final = ("v1.0", "v1.5", "v2.0")


def _is_header(text: str) -> bool:
    return text.lower().replace("'", "").startswith(_HEADERS)


def _is_label(text: str) -> bool:
    words = text.split()
    return _is_header(text) or (
        len(words) in _COLUMNS
        and all(finite_number(word) is not None for word in words[:_COORDINATES])
        and finite_number(words[_COORDINATES]) is None
    )


_LABELS: Final = TextLabels(
    title="DOTA",
    label_folders=(
        *("labelTxt", "annfiles"),
        *(f"labelTxt-{version}/labelTxt" for version in _VERSIONS),
        *(f"labelTxt-{version}" for version in _VERSIONS),
    ),
    image_folders=("images",),
    is_label=_is_label,
    suffix=".png",
)


def read_dota(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read a DOTA folder as upright boxes: see `formats.read`. Classes are the categories of the objects, sorted."""
    builder = _LABELS.read(source, options, _parse_line, numbers=BoxNumbers())
    builder.reduced_shapes = "rotated boxes of DOTA"
    return builder.build()


def _parse_line(text: str, line: int, _: AnnotatedImage, selection: ClassSelection) -> AnnotatedObject | str | None:
    if _is_header(text):
        return None
    words = text.split()
    if len(words) not in _COLUMNS:
        return f"expected 8 coordinates, a category and a difficult flag, found {len(words)} columns: {shorten(text)}"
    numbers = [number for word in words[:_COORDINATES] if (number := finite_number(word)) is not None]
    if len(numbers) != _COORDINATES:
        return f"expected 8 finite coordinates, found {shorten(' '.join(words[:_COORDINATES]))}"
    difficult = integer(words[9]) if len(words) == _COLUMNS[1] else 0
    if difficult is None or difficult < 0:
        return f"expected a difficult flag of 0 or more, found {shorten(words[9])}"
    if (name := selection.new_name(words[_COORDINATES])) is None:
        return None
    if fault := selection.fault(name):
        return fault
    xs, ys = numbers[::2], numbers[1::2]
    is_upright = len(set(xs)) <= 2 and len(set(ys)) <= 2
    return AnnotatedObject(
        line, name, box_around(zip(xs, ys, strict=True)), crowd=difficult > 0, reduced=not is_upright
    )


DOTA: Final = AnnotationFormat(
    name="dota",
    title="DOTA",
    read=read_dota,
    recognise_folder=_LABELS.recognise_folder,
    expects="a DOTA folder",
    reads_folder=True,
    splits_in_file=_LABELS.splits,
)
