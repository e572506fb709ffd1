"""Hard examples from COCO results: unlabelled objects, wrong labels and missed objects."""

from __future__ import annotations

import math

import pytest

from retinanet.analysis.hard_results import hard_examples_from_results
from tests.analysis.datasets import dataset_from_boxes


def row(image, category, box, score):
    x1, y1, x2, y2 = box
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}


HERE, THERE, FAR = (10, 10, 50, 50), (100, 100, 150, 150), (200, 200, 260, 260)


def test_losses_and_kinds_by_hand():
    """Image 1: an a detected as a (0.8), and an a detected as b (0.9). Image 2: a missed b, and two detections of an a
    at one place without a label (0.7, 0.6). The loss of an object is -log(score), of background -log(1 - score).
    Without a detection the score counts as 0.001."""
    data = dataset_from_boxes([[(0, *HERE), (0, *THERE)], [(1, *HERE)]])
    results = [row(1, 1, HERE, 0.8), row(1, 2, THERE, 0.9), row(2, 1, FAR, 0.7), row(2, 1, (201, 200, 260, 260), 0.6)]
    found = hard_examples_from_results(data, results)
    background = [(e.kind, e.image, e.label, e.score, e.loss) for e in found.background]
    assert background == [
        ("wrong class?", 0, 1, 0.9, pytest.approx(-math.log(0.1))),
        ("unlabelled?", 1, 0, 0.7, pytest.approx(-math.log(0.3))),
    ]
    objects = [(e.image, e.annotation_id, e.score, e.predicted_label, e.predicted_score, e.loss) for e in found.objects]
    assert objects == [
        (0, 2, 0.0, 1, 0.9, pytest.approx(-math.log(0.001))),
        (1, 1, 0.0, 1, 0.0, pytest.approx(-math.log(0.001))),
        (0, 1, 0.8, 0, 0.8, pytest.approx(-math.log(0.8))),
    ]
    assert found.unreached == ()
    assert "wrong label" in found.suggestion(found.objects[0])
    assert "labelled b, not detected" in found.suggestion(found.objects[1])
    assert "nothing is labelled" in found.suggestion(found.background[1])
    assert any("1 objects are detected as another class" in sentence for sentence in found.sentences())


def test_a_part_of_an_object_of_the_class_is_not_unlabelled():
    """FAR has 60 x 60 pixels. 80 % of the first box lie in FAR, 65 % of the second one (IoU 0.06 each). The third box
    has an IoU of 0.45 with FAR, the fourth one an IoU of 0.25. No box is a part of an object of another class."""
    boxes = ((244, 200, 264, 215), (247, 200, 267, 215), (223, 200, 283, 260), (236, 200, 296, 260))
    kinds = ("part of an object", "unlabelled?", "inaccurate box", "unlabelled?")
    data = dataset_from_boxes([[(0, *FAR)]] * 4)
    for label, expected in ((1, kinds), (2, ("unlabelled?", *kinds[1:]))):
        results = [row(number, label, box, 0.9) for number, box in enumerate(boxes, start=1)]
        found = hard_examples_from_results(data, results)
        assert tuple(example.kind for example in sorted(found.background, key=lambda e: e.image)) == expected
    sentence = "1 background boxes in 1 images have a score of 0.5 or more: probably unlabelled objects"
    part_alone = hard_examples_from_results(data, [row(1, 1, boxes[0], 0.9), row(2, 1, boxes[1], 0.9)])
    assert any(text.startswith(sentence) for text in part_alone.sentences())
    assert "a part of it" in part_alone.suggestion(part_alone.background[0])


def test_crowd_regions_are_neither_objects_nor_background():
    data = dataset_from_boxes([[(0, *HERE, True)]])
    found = hard_examples_from_results(data, [row(1, 1, HERE, 0.9)])
    assert found.background == found.objects == ()


def test_only_the_hardest_examples_are_kept():
    data = dataset_from_boxes([[(0, *HERE)]] * 5)
    results = [row(image, 1, box, 0.1 * image) for image in range(1, 6) for box in (HERE, FAR)]
    found = hard_examples_from_results(data, results, count=2)
    assert [e.image for e in found.objects] == [0, 1]
    assert [e.image for e in found.background] == [4, 3]


def test_an_image_without_objects_and_without_detections():
    found = hard_examples_from_results(dataset_from_boxes([[], []]), [row(2, 1, HERE, 0.6)])
    assert [e.kind for e in found.background] == ["unlabelled?"]
    assert found.objects == ()
