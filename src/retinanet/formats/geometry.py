"""Bounding boxes of other shapes, xyxy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def box_around(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return the xyxy bounding box of points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def box_around_rotated(
    x: float, y: float, width: float, height: float, degrees: float, *, about: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the xyxy bounding box of a rectangle that is rotated clockwise about a point.

    Args:
        x: left edge before the rotation, pixels; right edge if the width is negative.
        y: top edge before the rotation, pixels; bottom edge if the height is negative.
        width: width before the rotation, pixels.
        height: height before the rotation, pixels.
        degrees: clockwise rotation.
        about: centre of the rotation, pixels.
    """
    if not degrees:
        return box_around([(x, y), (x + width, y + height)])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    moved = [(px - about[0], py - about[1]) for px, py in corners]
    return box_around((about[0] + px * cos - py * sin, about[1] + px * sin + py * cos) for px, py in moved)


def turn_box(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """Return the xyxy bounding box of an xyxy box that is rotated clockwise about its centre."""
    x1, y1, x2, y2 = box
    if not degrees or x2 <= x1 or y2 <= y1:  # an invalid box stays invalid
        return box
    return box_around_rotated(x1, y1, x2 - x1, y2 - y1, degrees, about=((x1 + x2) / 2, (y1 + y2) / 2))
