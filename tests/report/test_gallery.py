"""Test which images a report shows, and how their ground truth and detections are drawn."""

from __future__ import annotations

import pytest

from retinanet.evaluate.per_image import match_detections
from retinanet.report import choose_images, draw_pair
from retinanet.report.gallery import CORRECT, UNLABELLED, WRONG
from tests.evaluate.image_results import make

A, B = (10, 10, 30, 30), (50, 10, 70, 30)


def test_the_worst_images_come_first_and_have_errors() -> None:
    correct, half_correct, wrong = [(*A, 0, 0.9)], [(*A, 0, 0.9), (*B, 1, 0.9)], [(*B, 0, 0.9)]
    items = [make([(*A, 0)], detections) for detections in (correct, half_correct, wrong, correct, correct)]
    chosen = choose_images(items, threshold=0.3, each=1)
    assert [item.group for item in chosen] == ["worst", "best", "random"]
    assert match_detections(chosen[0], 0.3).f1 == 0
    assert match_detections(chosen[1], 0.3).f1 == 1
    assert "worst" not in {item.group for item in choose_images([make([(*A, 0)], correct)] * 3, threshold=0.3)}
    assert [item.group for item in choose_images([make([], [])], threshold=0.3)] == ["random"]
    assert choose_images([], threshold=0.3) == []
    assert len(choose_images(items, threshold=0.3, each=50)) == len(items)


@pytest.mark.parametrize(
    ("size", "stacked"), [((300, 200), True), ((200, 300), False), ((4000, 3000), True), ((1, 1), False)]
)
def test_drawn_pairs_fit_and_have_a_caption_with_counts(size: tuple[int, int], stacked: bool) -> None:
    image = draw_pair(make([(*A, 0), (*B, 1)], [(*A, 0, 0.9)], size=size), ["cat", "dog"], threshold=0.3)
    assert max(image.image.size) <= 640
    assert ("above" in image.caption) == stacked
    assert "2 objects, 1 missed, 0 false" in image.alt
    assert "2 objects, 1 missed, 0 false" in image.caption


def test_correct_boxes_are_blue_and_wrong_boxes_are_orange() -> None:
    image = draw_pair(make([(*A, 0), (*B, 1)], [(*A, 0, 0.9)], size=(100, 100)), ["cat", "dog"], threshold=0.3)
    ground_truth, detections = image.image.crop((0, 0, 100, 100)), image.image.crop((108, 0, 208, 100))
    assert ground_truth.getpixel((10, 20)) == detections.getpixel((10, 20)) == CORRECT
    assert ground_truth.getpixel((50, 20)) == WRONG
    assert detections.getpixel((50, 20)) == (90, 90, 90)


def test_probably_unlabelled_objects_are_purple_and_counted_apart() -> None:
    image = draw_pair(make([(*A, 0)], [(*A, 0, 0.9), (*B, 0, 0.8)], size=(100, 100)), ["cat"], threshold=0.3)
    detections = image.image.crop((108, 0, 208, 100))
    assert detections.getpixel((10, 20)) == CORRECT
    assert detections.getpixel((50, 20)) == UNLABELLED
    assert "1 object, 0 missed, 0 false, 1 probably unlabelled" in image.caption


def test_unknown_class_ids_and_unusual_names_are_drawn() -> None:
    draw_pair(make([(*A, 7)], [(0, 0, 100, 80, 7, 1.0)]), ["only one"], threshold=0.3)
    draw_pair(make([(*A, 0)], []), ["<b>größe\nчисло"], threshold=0.3)
