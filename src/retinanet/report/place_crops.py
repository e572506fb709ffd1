"""Draw small crops of the places of the loss microscope.

Boxes are xyxy, original pixels. Shape suffix: G ground-truth boxes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from retinanet.images import decode_for_display
from retinanet.report.gallery import FALSE, OBJECT, OTHER_OBJECT
from retinanet.report.html import jpeg

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.analysis.gradient_place import Place
    from retinanet.data import DetectionData
    from retinanet.report.html import Report

CROP_SIDE: Final = 176
"""Longest side of the crop of a place, pixels."""
CROP_BYTES: Final = 2_000_000
"""Maximum size of all crops of the microscope in base64. Places beyond the limit are named and not drawn."""


def place_crops(report: Report, places: Sequence[Place], data: DetectionData) -> list[Markup]:
    """Return the crop of each place as a data URI, empty for a missing image file and beyond `CROP_BYTES`.

    Each image is opened once. The size of the crops is added to `report.image_bytes`.
    """
    found, left = [Markup("")] * len(places), CROP_BYTES
    for number in dict.fromkeys(place.image for place in places):
        record = data.records[number]
        if left <= 0 or not record.path.is_file():
            continue
        image = decode_for_display(record.path)
        for i, place in enumerate(places):
            if place.image != number:
                continue
            text = jpeg(crop(image, place, record.boxes_G4))
            left -= len(text)
            if left > 0:
                report.image_bytes += len(text)
                found[i] = Markup("data:image/jpeg;base64,") + Markup(text)  # noqa: S704 (base64)
    return found


def crop(image: Image.Image, place: Place, boxes_G4: npt.NDArray[np.floating]) -> Image.Image:
    """Return the surroundings of a place, `CROP_SIDE` pixels wide or high, with its box and the boxes of other objects.

    Args:
        image: image.
        place: place in the middle of the crop. An object is blue, background is orange.
        boxes_G4: all ground-truth boxes of the image; these are grey.
    """
    x1, y1, x2, y2 = place.box
    half = max(0.9 * max(x2 - x1, y2 - y1), 32)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(image.width, int(cx + half) + 1), min(image.height, int(cy + half) + 1)
    scale = CROP_SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    part = image.crop((left, top, right, bottom)).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(part)
    for box in [*(box for box in boxes_G4.tolist() if not np.allclose(box, place.box, atol=0.5)), place.box]:
        a, b, c, d = ((v - o) * scale for v, o in zip(box, (left, top, left, top), strict=True))
        if c <= a or d <= b:
            continue
        if box is not place.box:
            draw.rectangle((a, b, c, d), outline=OTHER_OBJECT.color, width=1)
            continue
        # A white outline below the colour keeps the box visible on any image.
        draw.rectangle((a - 1, b - 1, c + 1, d + 1), outline=(255, 255, 255), width=4)
        draw.rectangle((a, b, c, d), outline=(OBJECT if place.is_object else FALSE).color, width=2)
    return part
