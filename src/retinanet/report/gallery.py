"""Draw crops of images with boxes for a report.

Boxes are xyxy, original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from retinanet.fonts import legible_name, load_font

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]
    Ints = npt.NDArray[np.integer]

CORRECT: Final = (0, 114, 177)
"""Colour of an object or detection that has a match, RGB."""
WRONG: Final = (194, 60, 0)
"""Colour of a missed object or a false detection, RGB."""
UNLABELLED: Final = (125, 60, 145)
"""Colour of a detection that is probably an unlabelled object, RGB."""
OTHER_OBJECT: Final = (70, 90, 105)
"""Colour of other objects near an example, RGB."""
CROP_SIDE: Final = 320
"""Longest side of a drawn crop, pixels."""
FONT_SIZE: Final = 12
"""Font size of labels, in pixels."""


def draw_crop(
    image: Image.Image, around_4: Sequence[float], boxes: Sequence[tuple[Floats, str, tuple[int, int, int]]]
) -> Image.Image:
    """Return the surroundings of a box, resized to `CROP_SIDE`, with boxes drawn onto these.

    Args:
        image: image.
        around_4: xyxy box in the middle of the crop.
        boxes: box (xyxy, pixels of the image), text and RGB colour of each drawn box; boxes outside the crop are left
            out, and later boxes cover earlier ones.
    """
    x1, y1, x2, y2 = around_4
    half = max(1.5 * max(x2 - x1, y2 - y1), 48) / 2 * 1.6
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(image.width, int(cx + half) + 1), min(image.height, int(cy + half) + 1)
    scale = CROP_SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    crop = image.crop((left, top, right, bottom)).resize(size)
    draw_boxes(
        crop,
        [
            ((np.asarray(box, dtype=np.float64) - np.array([left, top, left, top])) * scale, text, colour)
            for box, text, colour in boxes
            if box[0] < right and box[2] > left and box[1] < bottom and box[3] > top
        ],
    )
    return crop


def draw_boxes(image: Image.Image, boxes: Sequence[tuple[Floats, str, tuple[int, int, int]]]) -> None:
    """Draw boxes onto an image, each given as (xyxy in pixels of the image, text, RGB colour)."""
    for box, text, colour in boxes:
        _draw_box(image, np.asarray(box), text, colour)


def class_label(classes: Sequence[str], label: int) -> str:
    """Return the class name of a label, or the class id if no font has the name or the label has no class."""
    return legible_name(classes[label], int(label)) if 0 <= label < len(classes) else str(label)


def _draw_box(image: Image.Image, box: Floats, text: str, colour: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(image)
    x1, y1, x2, y2 = (float(value) for value in box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    # A white outline below the colour keeps the box visible on any background.
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(255, 255, 255), width=4)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=2)
    font = load_font((text,), FONT_SIZE)
    _, _, w, h = (round(value) for value in draw.textbbox((0, 0), text, font=font))
    x = min(max(0.0, x1 - 1), max(0, image.width - w - 6))
    y = y1 - h - 4 if y1 - h - 4 >= 0 else min(y2 + 2, image.height - h - 4)
    draw.rectangle((x, y, x + w + 5, y + h + 3), fill=colour)
    draw.text((x + 3, y + 1), text, fill=(255, 255, 255), font=font)


def pluralise(number: int, noun: str) -> str:
    """Return "no objects", "1 object", "12 objects"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if number == 1 else f"{number or 'no'} {plural}"
