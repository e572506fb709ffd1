"""Metrics of slices: hand-worked numbers, and equality with an evaluation of the part alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinanet.evaluate import evaluate_results
from retinanet.evaluate.attributes import Attribute
from retinanet.evaluate.slices import Slice, slice_metrics, slice_rows
from tests.evaluate.random_detections import random_case

BOX = [0.0, 0, 20, 20]


def truth(images: int, **area: float) -> dict[str, Any]:
    """Return images with one small object each."""
    return {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": BOX, **area} for i in range(images)],
    }


def found(images: range) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9} for i in images]


def test_hand_worked_slices() -> None:
    """80 images with one object each. Of the 40 day images all objects are found, of the 40 night images none."""
    weather = Attribute(name="time", images={"day": range(40), "night": range(40, 80), "none": []})
    day, night, cat, small, none = sorted(
        slice_metrics(truth(80), found(range(40)), [weather]),
        key=lambda row: ("day", "night", "cat", "small", "none").index(row.value),
    )
    assert (day.AP, day.AP50, day.AR, day.images, day.objects) == pytest.approx((1, 1, 1, 40, 40))
    assert (night.AP, night.AR) == (0, 0)
    assert cat.AP == small.AP == pytest.approx(51 / 101)  # recall 0, 0.01, ..., 0.5
    assert (cat.attribute, small.attribute, cat.objects, small.images) == ("class", "object size", 80, 80)
    assert day.difference == pytest.approx(50 / 101)
    assert (none.AP, none.difference, none.objects, none.is_reliable) == (-1, None, 0, False)


def test_the_worst_slice_is_first_and_small_slices_follow() -> None:
    attribute = Attribute(name="a", images={"few": range(75, 80), "most": range(75), "half": range(40)})
    rows = slice_metrics(truth(80), found(range(20)), [attribute])
    assert [row.value for row in rows] == ["cat", "small", "most", "half", "few"]
    assert [row.is_reliable for row in rows] == [True, True, True, True, False]
    assert rows[-1].AP == 0
    assert [row[-1] for row in slice_rows(rows)] == ["", "", "", "", "few"]
    assert slice_rows(rows)[0][0] == "class: cat"


@pytest.mark.parametrize(("images", "objects", "is_reliable"), [(10, 30, True), (9, 30, False), (10, 29, False)])
def test_limits_of_a_reliable_slice(images: int, objects: int, is_reliable: bool) -> None:
    row = Slice(attribute="a", value="b", images=images, objects=objects, AP=0, AP50=0, AR=0, difference=None)
    assert row.is_reliable == is_reliable
    assert row.to_json()["is_reliable"] == is_reliable


@pytest.mark.parametrize("limit", [2, 100, 256])
def test_a_slice_equals_an_evaluation_of_its_images(limit: int) -> None:
    rng = np.random.default_rng(limit)
    for _ in range(10):
        data, results = random_case(rng, images=8)
        ids = [image["id"] for image in data["images"]]
        parts = {"first": ids[:3], "second": ids[3:], "all": ids}
        rows = slice_metrics(data, results, [Attribute(name="part", images=parts)], max_detections=limit)
        whole = evaluate_results(data, results, max_detections=limit)
        by_name = {(row.attribute, row.value): row for row in rows}
        for name, images in parts.items():
            part = {key: value for key, value in data.items() if key != "annotations"}
            part["images"] = [image for image in data["images"] if image["id"] in images]
            part["annotations"] = [row for row in data["annotations"] if row["image_id"] in images]
            alone = evaluate_results(part, [r for r in results if r["image_id"] in images], max_detections=limit)
            row = by_name["part", name]
            assert pytest.approx((alone.AP, alone.AP50, alone.AR), abs=1e-12) == (row.AP, row.AP50, row.AR)
            assert row.objects == sum(not annotation["iscrowd"] for annotation in part["annotations"])
        assert (by_name["part", "all"].difference or 0) == pytest.approx(0, abs=1e-12)
        for name, of_class in whole.per_class.items():
            if of_class.objects:
                row = by_name["class", name]
                assert (row.AP, row.AP50, row.AR, row.objects) == (
                    of_class.AP,
                    of_class.AP50,
                    of_class.AR,
                    of_class.objects,
                )
        sizes = {"small": (whole.APs, whole.ARs), "medium": (whole.APm, whole.ARm), "large": (whole.APl, whole.ARl)}
        for size, expected in sizes.items():
            if ("object size", size) in by_name:
                row = by_name["object size", size]
                assert expected == (row.AP, row.AR)
            else:
                assert expected == (-1, -1)
