"""Images with ground truth and detections: judged by hand-worked cases, chosen, drawn."""

from __future__ import annotations

import pytest

from retinanet.evaluate.per_image import judge
from retinanet.report import choose, draw_pair
from retinanet.report.gallery import RIGHT, WRONG
from tests.evaluate.made_items import make

A, B = (10, 10, 30, 30), (50, 10, 70, 30)


def test_the_worst_come_first_and_are_really_wrong() -> None:
    right, half, wrong = [(*A, 0, 0.9)], [(*A, 0, 0.9), (*B, 1, 0.9)], [(*B, 0, 0.9)]
    items = [make([(*A, 0)], found) for found in (right, half, wrong, right, right)]
    chosen = choose(items, threshold=0.3, each=1)
    assert [item.group for item in chosen] == ["worst", "best", "random"]
    assert judge(chosen[0], 0.3).f1 == 0
    assert judge(chosen[1], 0.3).f1 == 1
    assert "worst" not in {item.group for item in choose([make([(*A, 0)], right)] * 3, threshold=0.3)}
    assert [item.group for item in choose([make([], [])], threshold=0.3)] == ["random"]
    assert choose([], threshold=0.3) == []
    assert len(choose(items, threshold=0.3, each=50)) == len(items)


@pytest.mark.parametrize(
    ("size", "stacked"), [((300, 200), True), ((200, 300), False), ((4000, 3000), True), ((1, 1), False)]
)
def test_pairs_fit_and_say_what_they_show(size: tuple[int, int], stacked: bool) -> None:
    image = draw_pair(make([(*A, 0), (*B, 1)], [(*A, 0, 0.9)], size=size), ["cat", "dog"], threshold=0.3)
    assert max(image.image.size) <= 640
    assert ("above" in image.caption) == stacked
    assert "2 objects, 1 missed, 0 wrong" in image.alt
    assert "2 objects, 1 missed, 0 wrong" in image.caption


def test_right_is_blue_and_wrong_is_orange_where_the_boxes_are() -> None:
    image = draw_pair(make([(*A, 0), (*B, 1)], [(*A, 0, 0.9)], size=(100, 100)), ["cat", "dog"], threshold=0.3)
    truth, found = image.image.crop((0, 0, 100, 100)), image.image.crop((108, 0, 208, 100))
    assert truth.getpixel((10, 20)) == found.getpixel((10, 20)) == RIGHT
    assert truth.getpixel((50, 20)) == WRONG
    assert found.getpixel((50, 20)) == (90, 90, 90)


def test_odd_names_and_labels_are_drawn() -> None:
    draw_pair(make([(*A, 7)], [(0, 0, 100, 80, 7, 1.0)]), ["only one"], threshold=0.3)
    draw_pair(make([(*A, 0)], []), ["<b>größe\nчисло"], threshold=0.3)
