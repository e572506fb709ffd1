"""Draw a legend: the style, the name and the number of detections of each class in an image.

Boxes are xyxy in pixels of the image. Shape suffix: D detections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from retinanet.fonts import load_font
from retinanet.predict.drawn_boxes import draw_box
from retinanet.predict.drawn_labels import MIN_FONT_SIZE, TEXTS_PER_IMAGE, text_top

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.class_styles import ClassStyle

Floats = npt.NDArray[np.number[Any]]

MAX_SHARE: Final = 0.6
"""Largest share of the height of the image. Further classes are counted in the last row."""
PANEL: Final = (0, 0, 0, 190)
"""Colour of the legend's background, RGBA: the image shines through."""


def draw_legend(
    image: Image.Image,
    boxes_D4: Floats,
    names: Sequence[str],
    styles: Sequence[ClassStyle],
    font_file: Path | None = None,
) -> None:
    """Draw the legend into the corner where it covers the smallest area of boxes. An image without room gets none.

    Args:
        image: RGB image, drawn upon.
        boxes_D4: boxes.
        names: class name of each box.
        styles: style of the class of each box.
        font_file: font file, see `fonts.load_font`.
    """
    size = max(MIN_FONT_SIZE, round(min(image.size) / TEXTS_PER_IMAGE))
    row, padding = round(size * 1.5), size // 2
    lines = legend_lines(names, styles, max_lines=int((image.height * MAX_SHARE - 2 * padding) // row))
    font = load_font([text for text, _ in lines], size, font_file)
    width = round(max((font.getlength(text) for text, _ in lines), default=0)) + 2 * size + 3 * padding
    height = row * len(lines) + 2 * padding
    if not lines or width > image.width:
        return
    left, top = _best_corner(image.size, (width, height), boxes_D4)
    panel = Image.new("RGBA", (width, height), PANEL)
    image.paste(panel, (left, top), panel)
    draw = ImageDraw.Draw(image)
    for number, (text, style) in enumerate(lines):
        middle = top + padding + row * number + row // 2
        if style is not None:
            sample = np.array([left + padding, middle - size / 2, left + padding + 2 * size, middle + size / 2])
            draw_box(image, sample, style, max(1, size // 6))
        draw.text((left + 2 * padding + 2 * size, text_top(middle, font)), text, "white", font)


def legend_lines(
    names: Sequence[str], styles: Sequence[ClassStyle], *, max_lines: int
) -> list[tuple[str, ClassStyle | None]]:
    """Return the text and the style of each line: the most frequent classes first, the rest counted in the last."""
    counts, style_of = Counter(names).most_common(), dict(zip(names, styles, strict=True))
    lines: list[tuple[str, ClassStyle | None]] = [(f"{name} {count:,}", style_of[name]) for name, count in counts]
    if len(lines) > max_lines > 0:
        rest = counts[max_lines - 1 :]
        lines[max_lines - 1 :] = [(f"{len(rest)} other classes {sum(count for _, count in rest):,}", None)]
    return lines[: max(0, max_lines)]


def _best_corner(size: tuple[int, int], extent: tuple[int, int], boxes_D4: Floats) -> tuple[int, int]:
    """Return the left upper corner of the legend that covers the smallest area of boxes."""
    right, bottom = size[0] - extent[0], size[1] - extent[1]

    def covered(corner: tuple[int, int]) -> float:
        x, y = corner
        low, high = np.maximum(boxes_D4[:, :2], (x, y)), np.minimum(boxes_D4[:, 2:], (x + extent[0], y + extent[1]))
        return float(np.prod((high - low).clip(0), axis=1).sum())

    return min(((right, 0), (0, 0), (right, bottom), (0, bottom)), key=covered)
