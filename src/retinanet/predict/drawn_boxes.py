"""Draw the box of a detection in the style of its class: a line with dashes, and a casing around the line.

Boxes are xyxy in pixels of the image. Shape suffix: D detections.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from retinanet.class_styles import ClassStyle

Floats = npt.NDArray[np.number[Any]]

LINES_PER_IMAGE: Final = 300
"""Shorter side of an image, in widths of the thickest line."""
LINES_PER_OBJECT: Final = 10
"""Shorter side of an object, in widths of its line, if the object is small. A thick line hides a small object."""


def line_widths(boxes_D4: Floats, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the width of the line of each box, in pixels, for an image of `size` (width, height)."""
    widths_D = np.minimum(min(size) / LINES_PER_IMAGE, shorter_sides(boxes_D4) / LINES_PER_OBJECT)
    widths: npt.NDArray[np.int64] = np.maximum(1, widths_D.round()).astype(np.int64)
    return widths


def shorter_sides(boxes_D4: Floats) -> Floats:
    """Return the shorter side of each box, pixels."""
    sides_D: Floats = (boxes_D4[:, 2:] - boxes_D4[:, :2]).min(axis=1)
    return sides_D


def draw_box(image: Image.Image, box_4: Floats, style: ClassStyle, width: int) -> None:
    """Draw a box with a line of `width` pixels and a casing of one pixel on both sides.

    The line is centred on the edges of the box. Around an object that is small for the line, the line and the casing
    lie outside the box, so that the object stays visible.
    """
    x1, y1, x2, y2 = (float(value) for value in box_4)
    small = min(x2 - x1, y2 - y1) < LINES_PER_OBJECT * width
    outside = width + 1 if small else width // 2 + 1
    corners = (math.floor(x1) - outside, math.floor(y1) - outside, math.ceil(x2) + outside, math.ceil(y2) + outside)
    draw = ImageDraw.Draw(image)
    draw.rectangle(_ordered(corners), outline=style.casing, width=width + (1 if small else 2))
    _draw_line(draw, _ordered((corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1)), style, width)


def _ordered(corners: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the corners with x2 >= x1 and y2 >= y1, also for a box whose second corner lies before its first."""
    x1, y1, x2, y2 = corners
    return x1, y1, max(x1, x2), max(y1, y2)


def _draw_line(draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], style: ClassStyle, width: int) -> None:
    """Draw the edges of a box inside its corners, with dashes that begin at the corners."""
    x1, y1, x2, y2 = corners
    if not style.dash:
        draw.rectangle(corners, outline=style.color, width=width)
        return
    line, gap = (length * width for length in style.dash)
    for start in range(x1, x2 + 1, line + gap):
        end = min(start + line - 1, x2)
        draw.rectangle((start, y1, end, min(y1 + width - 1, y2)), fill=style.color)
        draw.rectangle((start, max(y2 - width + 1, y1), end, y2), fill=style.color)
    for start in range(y1, y2 + 1, line + gap):
        end = min(start + line - 1, y2)
        draw.rectangle((x1, start, min(x1 + width - 1, x2), end), fill=style.color)
        draw.rectangle((max(x2 - width + 1, x1), start, x2, end), fill=style.color)
