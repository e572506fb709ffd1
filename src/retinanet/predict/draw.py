"""Draw detections on images. Boxes are xyxy in original pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final, cast

import numpy as np
import supervision as sv
from PIL import Image

from retinanet.files import atomic_path
from retinanet.fonts import legible_name, load_font
from retinanet.images import MAX_PIXELS_AT_ONCE, open_windows, resized_size
from retinanet.predict.coco_results import class_ids, class_names, scores

DRAWN: Final = "drawn"
"""Folder of the drawn images and videos, in the output folder."""
JPEG_QUALITY: Final = 92
MAX_SIDE: Final = 4096
"""Longest side of the drawing, in pixels, if the image is too large to decode at once."""


def draw_file(
    path: Path, detections: sv.Detections, *, threshold: float, bit_depth: int = 0, font: Path | None = None
) -> Image.Image:
    """Return the image of a file with its detections drawn. Images above `MAX_PIXELS_AT_ONCE` are reduced.

    Args:
        path: image file.
        detections: detections in original pixels.
        threshold: lowest score of a detection that is drawn.
        bit_depth: number of bits that a 16-bit image uses, see `images.decode`.
        font: font file for the class names, see `fonts.load_font`.
    """
    with open_windows(path, bit_depth=bit_depth) as windows:
        width, height = windows.size
        if width * height <= MAX_PIXELS_AT_ONCE:
            return draw(windows.crop((0, 0, width, height)), detections, threshold=threshold, font=font)
        size = resized_size(width, height, image_size=MAX_SIDE, max_size=MAX_SIDE)
        image = windows.reduced(size)
    factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    scaled = dataclasses.replace(detections, xyxy=detections.xyxy * factor)
    return draw(image, scaled, threshold=threshold, font=font)


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write an image as JPEG, and create its folder if needed. The file appears only once it is complete."""
    with atomic_path(path) as partial:
        image.save(partial, format="JPEG", quality=JPEG_QUALITY)


MAX_LABELS: Final = 1000
"""Largest number of detections with labels. In images with more detections, only boxes are drawn."""
_HEX: Final = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe"),
    *("#008080", "#e6beff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075", "#a9a9a9"),
)
_COLORS: Final = sv.ColorPalette.from_hex(list(_HEX))
_TEXT_COLORS: Final = sv.ColorPalette(
    [sv.Color.BLACK if 0.299 * c.r + 0.587 * c.g + 0.114 * c.b > 140 else sv.Color.WHITE for c in _COLORS.colors]
)
"""Text colour of each class: black or white, whichever contrasts more with the colour of the class."""


def draw(
    image: Image.Image, detections: sv.Detections, *, threshold: float = 0.0, font: Path | None = None
) -> Image.Image:
    """Return a copy of an RGB image with boxes and labels ("name 0.87") of the detections.

    Line width and font size depend on the image size. Each class has its own colour. Detections with higher scores are
    drawn over those with lower scores.

    Args:
        image: RGB image.
        detections: detections in pixels of the image.
        threshold: lowest score of a detection that is drawn.
        font: font file for the class names, see `fonts.load_font`.
    """
    order = np.argsort(scores(detections), kind="stable")
    visible = cast(sv.Detections, detections[order[scores(detections)[order] >= threshold]])
    scene = image.copy()
    if not len(visible):
        return scene
    visible.class_id = class_ids(visible)
    side = min(image.size)
    object_side = float(np.median((visible.xyxy[:, 2:] - visible.xyxy[:, :2]).min(axis=1)))
    thickness = max(1, round(min(side / 300, object_side / 10)))  # a thick line hides a small object
    scene = sv.BoxAnnotator(color=_COLORS, thickness=thickness).annotate(scene, visible)
    names = [legible_name(*pair, font) for pair in zip(class_names(visible), class_ids(visible).tolist(), strict=True)]
    labels = [f"{name} {score:.2f}" for name, score in zip(names, scores(visible), strict=True)]
    if visible.tracker_id is not None:
        numbers = ["" if track < 0 else f"#{track} " for track in visible.tracker_id.tolist()]
        labels = [number + label for number, label in zip(numbers, labels, strict=True)]
    if len(visible) > MAX_LABELS:
        return scene
    font_size = max(9, round(side / 38))
    annotator = sv.RichLabelAnnotator(
        color=_COLORS,
        text_color=_TEXT_COLORS,
        font_size=font_size,
        text_padding=max(1, font_size // 6),
        smart_position=len(visible) <= MAX_LABELS // 4,  # memory and time are quadratic in the number of labels
    )
    annotator.font = load_font(labels, font_size, font)  # type: ignore[assignment]  # any font of Pillow
    drawn: Image.Image = annotator.annotate(scene, visible, labels=labels)
    return drawn
