"""Ignore regions that apply to every class: evaluation equals pycocotools, and an evaluation without the detections."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data import DetectionData, Record
from retinanet.evaluate import confusion_matrix, evaluate_results
from retinanet.evaluate.coco import SUMMARY
from retinanet.evaluate.per_image import items_from_results, match_detections
from tests.shared import num_examples

K = 3
REGION = (100.0, 100.0, 300.0, 300.0)
Rows = list[dict[str, Any]]


def dataset(rng: np.random.Generator, *, with_regions: bool) -> DetectionData:
    """Return four images with objects in the left half. Images 0 and 1 have a region that applies to all classes."""
    records = []
    for number in range(4):
        count = int(rng.integers(1, 5))
        corner = rng.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 50, (count, 2))], axis=1)
        labels = rng.integers(0, K, count)
        regions = K if with_regions and number < 2 else 0
        boxes = np.concatenate([boxes, np.tile(REGION, (regions, 1))])
        records.append(
            Record(
                path=Path(f"{number}.jpg"),
                width=300,
                height=300,
                boxes_G4=boxes,
                labels_G=np.concatenate([labels, np.arange(regions)]).astype(np.int64),
                crowd_G=np.arange(count + regions) >= count,
                areas_G=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                annotation_ids=tuple(range(1, count + regions + 1)),
                image_id=number + 1,
            )
        )
    return DetectionData(records=tuple(records), classes=tuple("abc"), category_ids=(1, 2, 3), source=Path("x.json"))


def detections(data: DetectionData, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return detections near the objects of all images, and detections inside of the place of the region."""
    near: Rows = []
    inside: Rows = []
    for record in data.records:
        for box in record.boxes_G4[~record.crowd_G]:
            x1, y1, x2, y2 = (box + rng.normal(0, 3, 4)).tolist()
            near.append(row(record, rng, [x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)]))
        for _ in range(3):
            x, y = rng.uniform(101, 200, 2).tolist()
            inside.append(row(record, rng, [x, y, *rng.uniform(5, 90, 2).tolist()]))
    return near, inside


def row(record: Record, rng: np.random.Generator, bbox: list[float]) -> dict[str, Any]:
    category = int(rng.integers(1, K + 1))
    return {"image_id": record.image_id, "category_id": category, "bbox": bbox, "score": float(rng.random())}


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=num_examples(20), deadline=None)
def test_equals_pycocotools_and_an_evaluation_without_the_detections_in_the_region(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    data = dataset(np.random.default_rng(seed), with_regions=True)
    plain = dataset(np.random.default_rng(seed), with_regions=False)
    near, inside = detections(plain, np.random.default_rng(seed + 1))
    counted = [entry for entry in inside if entry["image_id"] > 2]
    metrics = evaluate_results(data.to_coco(), [*near, *inside])
    expected_metrics = evaluate_results(plain.to_coco(), [*near, *counted])
    for name in SUMMARY:
        if name != "AR1":  # of one detection per image and class, COCO counts the ignored one, too
            assert getattr(metrics, name) == getattr(expected_metrics, name), name
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = data.to_coco()
        truth.createIndex()
        run = cocoeval.COCOeval(truth, truth.loadRes([*near, *inside]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert [getattr(metrics, name) for name in SUMMARY] == pytest.approx(run.stats.tolist(), abs=1e-9)
    matrix = confusion_matrix(data.to_coco(), [*near, *inside], score=0.3)
    expected = confusion_matrix(plain.to_coco(), [*near, *counted], score=0.3)
    assert matrix.counts.tolist() == expected.counts.tolist()


def test_detections_in_a_region_are_neither_false_nor_probably_unlabelled() -> None:
    rng = np.random.default_rng(0)
    data = dataset(rng, with_regions=True)
    sure = {"category_id": 3, "score": 0.99}
    results = [{"image_id": i, "bbox": [150.0, 150.0, 40.0, 40.0], **sure} for i in (1, 3)]
    first, _, third, _ = (match_detections(item, 0.5) for item in items_from_results(data, results))
    assert (first.false, first.unlabelled) == (0, 0)
    assert (third.false, third.unlabelled) == (0, 1)
    assert first.missed == int((~data.records[0].crowd_G).sum())
