"""Draw crops of images with boxes for a report. Dashed boxes are ground truth, the others are predictions.

Boxes are xyxy, original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from retinanet.class_styles import DASHES, LIGHT, ClassStyle
from retinanet.fonts import legible_name, load_font
from retinanet.predict.drawn_boxes import draw_box

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

_BLUE, _ORANGE, _PURPLE, _GREY = "#0f6390", "#c25400", "#7d3c91", "#465a69"
_SOLID, _DASHED, _DOTTED = DASHES

OBJECT: Final = ClassStyle(_BLUE, LIGHT, _DASHED)
"""Style of an object that is neither missed nor without an anchor."""
MISSED: Final = ClassStyle(_ORANGE, LIGHT, _DASHED)
"""Style of a missed object, or of an object without an anchor."""
OTHER_OBJECT: Final = ClassStyle(_GREY, LIGHT, _DASHED)
"""Style of other objects near an example."""
PREDICTION: Final = ClassStyle(_BLUE, LIGHT, _SOLID)
"""Style of a prediction that is not a false detection."""
FALSE: Final = ClassStyle(_ORANGE, LIGHT, _SOLID)
"""Style of a false detection."""
UNLABELLED: Final = ClassStyle(_PURPLE, LIGHT, _DOTTED)
"""Style of a detection that is probably an unlabelled object."""
CROP_SIDE: Final = 320
"""Longest side of a drawn crop, pixels."""
MIN_REGION: Final = 160
"""Shortest side of the cropped region, pixels of the image: a crop has at most twice the pixels of its region."""
LINE_WIDTH: Final = 2
FONT_SIZE: Final = 12
"""Font size of labels, in pixels."""

MarkedBox = tuple["Floats | Sequence[float]", str, ClassStyle]
"""A box (xyxy), its label, which may be empty, and its style."""


def draw_crop(
    image: Image.Image, around_4: Sequence[float], boxes: Sequence[MarkedBox], *, side: int = CROP_SIDE
) -> Image.Image:
    """Return the surroundings of a box, with boxes drawn onto these.

    Args:
        image: image.
        around_4: xyxy box in the middle of the crop.
        boxes: drawn boxes, xyxy, pixels of the image. Boxes outside the crop are left out; later boxes cover earlier
            ones.
        side: longest side of the crop, pixels.
    """
    x1, y1, x2, y2 = around_4
    half = max(2.4 * max(x2 - x1, y2 - y1), MIN_REGION) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(image.width, int(cx + half) + 1), min(image.height, int(cy + half) + 1)
    scale = min(side / max(right - left, bottom - top), side / MIN_REGION)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    crop = image.crop((left, top, right, bottom)).resize(size, Image.Resampling.LANCZOS)
    offset_4 = np.array([left, top, left, top])
    near = [
        ((np.asarray(box, dtype=np.float64) - offset_4) * scale, text, style)
        for box, text, style in boxes
        if box[0] < right and box[2] > left and box[1] < bottom and box[3] > top
    ]
    draw_boxes(crop, near)
    return crop


def draw_boxes(image: Image.Image, boxes: Sequence[MarkedBox]) -> None:
    """Draw boxes onto an image, in pixels of the image. Labels cover all boxes."""
    for box, _, style in boxes:
        draw_box(image, np.asarray(box), style, LINE_WIDTH)
    for box, text, style in boxes:
        if text:
            _draw_label(image, np.asarray(box), text, style)


def class_label(classes: Sequence[str], label: int) -> str:
    """Return the class name of a label, or the class id if no font has the name or the label has no class."""
    return legible_name(classes[label], int(label)) if 0 <= label < len(classes) else str(label)


def _draw_label(image: Image.Image, box: Floats, text: str, style: ClassStyle) -> None:
    """Draw a label above the box of a prediction, and below the box of an object, so that labels differ in place.

    Where the image has no space for the label, it lies on the other side.
    """
    draw = ImageDraw.Draw(image)
    x1, y1, _, y2 = (float(value) for value in box)
    font = load_font((text,), FONT_SIZE)
    _, _, w, h = (round(value) for value in draw.textbbox((0, 0), text, font=font))
    x = min(max(0.0, x1 - 1), max(0, image.width - w - 6))
    above, below = y1 - h - 6, max(y1, y2) + 3
    has_above, has_below = above >= 0, below + h + 4 <= image.height
    is_below = has_below and (style.dash == _DASHED or not has_above)
    y = below if is_below else above if has_above else max(0.0, image.height - h - 4)
    draw.rectangle((x, y, x + w + 5, y + h + 3), fill=style.color)
    draw.text((x + 3, y + 1), text, fill=style.casing, font=font)


def pluralise(number: int, noun: str) -> str:
    """Return "no objects", "1 object", "12 objects"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if number == 1 else f"{number or 'no'} {plural}"
