"""Crops of images with boxes: dashed ground truth, solid predictions, and no more pixels than the image can fill."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from retinanet.report.gallery import (
    CROP_SIDE,
    FALSE,
    MIN_REGION,
    MISSED,
    OBJECT,
    OTHER_OBJECT,
    PREDICTION,
    UNLABELLED,
    class_label,
    draw_boxes,
    draw_crop,
)

GREY = (90, 90, 90)


def edge(image: Image.Image, y: int) -> set[tuple[int, ...]]:
    """Return the colours along a line of the image."""
    return {image.getpixel((x, y)) for x in range(30, 90)}  # type: ignore[misc]


@pytest.mark.parametrize("style", [OBJECT, MISSED, OTHER_OBJECT, UNLABELLED, PREDICTION, FALSE])
def test_only_boxes_of_predictions_have_continuous_lines(style):
    image = Image.new("RGB", (120, 120), GREY)
    draw_boxes(image, [(np.array([20, 20, 100, 100]), "", style)])
    line = ImageColor.getrgb(style.color)
    drawn = [edge(image, y) for y in range(15, 25) if line in edge(image, y)]
    assert drawn
    has_gaps = all(len(found) > 1 for found in drawn)
    assert has_gaps == (style in (OBJECT, MISSED, OTHER_OBJECT, UNLABELLED))


def test_the_styles_differ_without_colour():
    assert {style.dash for style in (OBJECT, MISSED, OTHER_OBJECT)}.isdisjoint({FALSE.dash, PREDICTION.dash})
    assert UNLABELLED.dash not in {OBJECT.dash, FALSE.dash}


@pytest.mark.parametrize(("box", "expected"), [((300, 300, 306, 306), 2.0), ((100, 100, 500, 500), 0.4)])
def test_a_crop_has_at_most_twice_the_pixels_of_its_region(box, expected):
    """A tiny object keeps at least `MIN_REGION` pixels around it; a large one is reduced."""
    image = Image.effect_noise((640, 640), 60).convert("RGB")
    crop = draw_crop(image, box, [])
    assert max(crop.size) <= CROP_SIDE + 4
    side = max(2.4 * (box[2] - box[0]), MIN_REGION)
    assert max(crop.size) / min(side, 640) == pytest.approx(max(expected, CROP_SIDE / 640), rel=0.1)


def test_labels_of_objects_lie_below_and_those_of_predictions_above():
    image = Image.new("RGB", (120, 120), GREY)
    box = np.array([30, 40, 90, 80])
    draw_boxes(image, [(box, "a", MISSED), (box, "a", PREDICTION)])
    missed, prediction = ImageColor.getrgb(MISSED.color), ImageColor.getrgb(PREDICTION.color)
    rows = [{image.getpixel((x, y)) for x in range(29, 40)} for y in range(120)]
    assert any(prediction in rows[y] for y in range(20, 36))
    assert any(missed in rows[y] for y in range(86, 104))
    assert not any(missed in rows[y] for y in range(20, 36))


def test_boxes_outside_the_crop_and_unusual_names_are_drawn():
    image = Image.new("RGB", (400, 400), GREY)
    crop = draw_crop(
        image, (10, 10, 30, 30), [((300, 300, 390, 390), "far", FALSE), ((0, 0, 400, 400), "größe", OBJECT)]
    )
    assert ImageColor.getrgb(FALSE.color) not in {colour for _, colour in crop.getcolors(1 << 20)}
    assert class_label(["only one"], 7) == "7"
