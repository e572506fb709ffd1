"""Draw detections on images. Boxes are xyxy in original pixels.

Shape suffix: D detections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np
import supervision as sv
from PIL import Image

from retinanet.class_styles import class_styles
from retinanet.files import atomic_path
from retinanet.fonts import legible_name
from retinanet.images import MAX_PIXELS_AT_ONCE, open_windows, resized_size
from retinanet.predict.coco_results import class_ids, class_names, scores
from retinanet.predict.drawn_boxes import draw_box, line_widths
from retinanet.predict.drawn_labels import draw_labels
from retinanet.predict.drawn_legend import draw_legend

DRAWN: Final = "drawn"
"""Folder of the drawn images and videos, in the output folder."""
JPEG_QUALITY: Final = 92
MAX_SIDE: Final = 4096
"""Longest side of the drawing, in pixels, if the image is too large to decode at once."""


def draw_file(
    path: Path,
    detections: sv.Detections,
    *,
    threshold: float,
    classes: Sequence[str] | None = None,
    bit_depth: int = 0,
    font: Path | None = None,
) -> Image.Image:
    """Return the image of a file with its detections drawn. Images above `MAX_PIXELS_AT_ONCE` are reduced.

    Args:
        path: image file.
        detections: detections in original pixels.
        threshold: lowest score of a detection that is drawn.
        classes: names of all classes of the model, see `draw`.
        bit_depth: number of bits that a 16-bit image uses, see `images.decode`.
        font: font file for the class names, see `fonts.load_font`.
    """
    with open_windows(path, bit_depth=bit_depth) as windows:
        width, height = windows.size
        if width * height <= MAX_PIXELS_AT_ONCE:
            image = windows.crop((0, 0, width, height))
            return draw(image, detections, threshold=threshold, classes=classes, font=font)
        size = resized_size(width, height, image_size=MAX_SIDE, max_size=MAX_SIDE)
        image = windows.reduced(size)
    factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    scaled = dataclasses.replace(detections, xyxy=detections.xyxy * factor)
    return draw(image, scaled, threshold=threshold, classes=classes, font=font)


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write an image as JPEG, and create its folder if needed. The file appears only once it is complete."""
    with atomic_path(path) as partial:
        image.save(partial, format="JPEG", quality=JPEG_QUALITY)


def draw(
    image: Image.Image,
    detections: sv.Detections,
    *,
    threshold: float = 0.0,
    classes: Sequence[str] | None = None,
    font: Path | None = None,
) -> Image.Image:
    """Return a copy of an RGB image with boxes and labels ("name 0.87") of the detections.

    Lines and labels are smaller for smaller objects and in smaller images. A label is drawn only where it covers no
    other label and at most a small part of any object. Where labels are left out, a legend names the classes.
    Detections with higher scores are drawn over those with lower scores.

    Args:
        image: RGB image.
        detections: detections in pixels of the image.
        threshold: lowest score of a detection that is drawn.
        classes: names of all classes of the model, so that a class is drawn alike in all of its images. Default: the
            classes of the detections.
        font: font file for the class names, see `fonts.load_font`.
    """
    order = np.argsort(scores(detections), kind="stable")
    visible = cast(sv.Detections, detections[order[scores(detections)[order] >= threshold]])
    scene = image.copy()
    if not len(visible):
        return scene
    names = class_names(visible)
    styles = class_styles({*names, *(classes or ())})
    styles_D = [styles[name] for name in names]
    for box_4, style, width in zip(visible.xyxy, styles_D, line_widths(visible.xyxy, image.size).tolist(), strict=True):
        draw_box(scene, box_4, style, width)
    legible = [legible_name(*pair, font) for pair in zip(names, class_ids(visible).tolist(), strict=True)]
    texts = [f"{name} {score:.2f}" for name, score in zip(legible, scores(visible), strict=True)]
    if visible.tracker_id is not None:
        numbers = ["" if track < 0 else f"#{track} " for track in visible.tracker_id.tolist()]
        texts = [number + text for number, text in zip(numbers, texts, strict=True)]
    if not draw_labels(scene, visible.xyxy, texts, styles_D, font):
        draw_legend(scene, visible.xyxy, legible, styles_D, font)
    return scene
