"""Draw the labels of detections where they hide nothing: neither another label nor an object.

Boxes are xyxy in pixels of the image. Shape suffixes: D detections, P positions of a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from retinanet.fonts import load_font
from retinanet.predict.drawn_boxes import shorter_sides

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.class_styles import ClassStyle

Floats = npt.NDArray[np.number[Any]]

MIN_FONT_SIZE: Final = 9
"""Smallest font size, pixels: the limit of what can be read."""
TEXTS_PER_IMAGE: Final = 38
"""Shorter side of an image, in font sizes of the largest label."""
TEXTS_PER_OBJECT: Final = 3
"""Shorter side of an object, in font sizes of its label, if the object is small."""
CAPITAL_MIDDLE: Final = 0.56
"""Middle of the capital letters of DejaVu Sans below the upper end of a text, in font sizes."""
MAX_COVERED: Final = 0.15
"""Largest share of any box that a label may cover."""
MIN_PLACED: Final = 0.5
"""If fewer labels than this share have a place, no label is drawn: a few labels in a crowd do not help."""
MAX_LABELS: Final = 1000
"""Largest number of detections with labels. The time to place labels is quadratic in their number."""


def draw_labels(
    image: Image.Image,
    boxes_D4: Floats,
    texts: Sequence[str],
    styles: Sequence[ClassStyle],
    font_file: Path | None = None,
) -> bool:
    """Draw a label for each box that has a place for it, those of the last boxes first. Return whether all are drawn.

    Args:
        image: image, drawn upon.
        boxes_D4: boxes.
        texts: label of each box.
        styles: style of the class of each box.
        font_file: font file, see `fonts.load_font`.
    """
    if len(texts) > MAX_LABELS:
        return False
    sizes = font_sizes(boxes_D4, image.size)
    fonts = {size: load_font(texts, size, font_file) for size in set(sizes)}
    extents = [_extent(text, fonts[size]) for text, size in zip(texts, sizes, strict=True)]
    places = label_places(boxes_D4, extents, image.size)
    placed = [d for d, place in enumerate(places) if place is not None]
    if len(placed) < MIN_PLACED * len(texts):
        return False
    draw = ImageDraw.Draw(image)
    for d in placed:
        x1, y1, x2, y2 = places[d]  # type: ignore[misc]
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=styles[d].color)
        font = fonts[sizes[d]]
        draw.text((x1 + _padding(sizes[d]), text_top((y1 + y2) / 2, font)), texts[d], styles[d].casing, font)
    return len(placed) == len(texts)


def font_sizes(boxes_D4: Floats, size: tuple[int, int]) -> list[int]:
    """Return the font size of the label of each box, in pixels, for an image of `size` (width, height)."""
    sizes_D = np.minimum(min(size) / TEXTS_PER_IMAGE, shorter_sides(boxes_D4) / TEXTS_PER_OBJECT)
    return [max(MIN_FONT_SIZE, round(size)) for size in sizes_D.tolist()]


def label_places(
    boxes_D4: Floats, extents: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[tuple[int, int, int, int] | None]:
    """Return the xyxy place of the label of each box, or None if every position would hide something.

    A place lies inside the image, covers no other label, and covers at most `MAX_COVERED` of any box. The last boxes
    are placed first.

    Args:
        boxes_D4: boxes.
        extents: width and height of each label, pixels.
        size: width and height of the image, pixels.
    """
    places: list[tuple[int, int, int, int] | None] = [None] * len(extents)
    taken = np.zeros((len(extents), 4))
    for number, d in enumerate(reversed(range(len(extents)))):
        positions_P4 = _positions(boxes_D4[d], extents[d], size)
        free_P = (positions_P4[:, :2] >= 0).all(axis=1) & (positions_P4[:, 2:] <= size).all(axis=1)
        free_P &= ~(_intersections(positions_P4, taken[:number]) > 0).any(axis=1)
        areas_D = np.prod(boxes_D4[:, 2:] - boxes_D4[:, :2], axis=1)
        free_P &= (_intersections(positions_P4, boxes_D4) <= MAX_COVERED * areas_D).all(axis=1)
        if free_P.any():
            taken[number] = positions_P4[free_P.argmax()]
            x1, y1, x2, y2 = taken[number].astype(int).tolist()
            places[d] = x1, y1, x2, y2
    return places


def _positions(box_4: Floats, extent: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Return the positions of a label, best first: above and below the box, inside its upper corner, beside it."""
    (x1, y1), (x2, y2), (w, h) = np.floor(box_4[:2]), np.ceil(box_4[2:]), extent
    left, right = (min(max(x, 0), max(0, size[0] - w)) for x in (x1, x2 - w))
    corners_P2 = [(left, y1 - h), (left, y2), (right, y1 - h), (right, y2), (left, max(y1, 0)), (x2, y1), (x1 - w, y1)]
    return np.array([(x, y, x + w, y + h) for x, y in corners_P2])


def _intersections(a_P4: Floats, b_D4: Floats) -> Floats:
    """Return the area of the intersection of each pair of boxes, (P, D)."""
    a, b = a_P4[:, None], b_D4[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    areas_PD: Floats = sides[..., 0] * sides[..., 1]
    return areas_PD


def text_top(middle: float, font: Any) -> float:
    """Return the upper end of a text whose capital letters have their middle at y = `middle`.

    Pillow's anchors do not serve: it ignores them for fonts that mix several files.
    """
    return middle - CAPITAL_MIDDLE * float(font.size)


def _extent(text: str, font: Any) -> tuple[int, int]:
    """Return the width and the height of a label with its padding, pixels."""
    size = int(font.size)
    return round(font.getlength(text)) + 2 * _padding(size), size + 2 * _padding(size)


def _padding(font_size: int) -> int:
    return max(1, font_size // 5)
