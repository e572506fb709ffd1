"""Outcomes at every threshold equal the matching of each image and the confusion matrix, in Python and in V8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.analysis.causes import CAUSES
from retinanet.analysis.outcomes import KINDS, SIZES, STEPS, UNLABELLED, Outcomes, sizes, thousandths
from retinanet.data import DetectionData, load
from retinanet.evaluate import confusion_matrix
from retinanet.evaluate.per_image import ImageResults, items_from_results, match_detections
from retinanet.report.embedded_images import EmbeddedImage, image_data
from retinanet.report.explorer import run_data
from tests.evaluate.image_results import make
from tests.evaluate.random_detections import random_case
from tests.javascript import Scripts

A, B = (10, 10, 30, 30), (50, 10, 70, 30)
ALL = {"label": -1, "size": -1, "kind": -1}


def random_items(seed: int, **options: Any) -> tuple[list[ImageResults], int, Mapping[str, Any], Sequence[Any]]:
    """Return images, the number of classes, and the ground truth and results that they come from."""
    truth, rows = random_case(np.random.default_rng(seed), **options)
    label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
    items = []
    for image in truth["images"]:
        objects = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = [r for r in rows if r["image_id"] == image["id"]]
        items.append(
            make(
                [(*corners(a["bbox"]), label_of[a["category_id"]]) for a in objects],
                [(*corners(r["bbox"]), label_of[r["category_id"]], r["score"]) for r in found],
                crowd=[bool(a["iscrowd"]) for a in objects],
            )
        )
    return items, len(label_of), truth, rows


def corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = bbox
    return x, y, x + w, y + h


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def matched(items: Sequence[ImageResults], threshold: float) -> dict[str, int]:
    verdicts = [match_detections(item, threshold) for item in items]
    return {
        name: sum(getattr(v, name) for v in verdicts) for name in ("objects", "found", "missed", "false", "unlabelled")
    }


def script_counts(scripts: Scripts, run: Mapping[str, Any], step: int, **chosen: int) -> dict[str, Any]:
    found: dict[str, Any] = scripts.call("outcomeCounts", run, step, {**ALL, **chosen}, UNLABELLED)
    return found


def check_all_thresholds(
    scripts: Scripts, outcomes: Outcomes, items: Sequence[ImageResults], truth: Any, rows: Any, steps: Sequence[int]
) -> None:
    """Compare Outcomes and the script with the matching of each image and with hotcoco's confusion matrix."""
    run, K = run_data("run", outcomes), len(outcomes.classes)
    embedded = [
        image_data(EmbeddedImage(index=i, name="p", width=1, height=1, source=""), [outcomes], 0, with_source=False)
        for i in range(len(items))
    ]
    for step in steps:
        expected = matched(items, step / 100)
        counts = outcomes.counts(step)
        found = script_counts(scripts, run, step)
        for name, value in expected.items():
            assert getattr(counts, name) == value, (step, name)
            assert found[name] == value, (step, name)
        assert [found[name] for name in ("precision", "recall", "f1")] == [counts.precision, counts.recall, counts.f1]
        matrix = confusion_matrix(truth, rows, score=step / 100).counts
        assert np.array_equal(outcomes.confusion(step), matrix), step
        assert scripts.call("confusionCounts", run, step, ALL, K) == matrix.tolist(), step
        by_label = [script_counts(scripts, run, step, label=k) for k in range(K)]
        for k, of_class in enumerate(by_label):
            assert (of_class["found"], of_class["missed"]) == (
                outcomes.counts(step, label=k).found,
                outcomes.counts(step, label=k).missed,
            )
        for name in expected:
            by_size = [script_counts(scripts, run, step, size=s)[name] for s in range(len(SIZES))]
            assert sum(by_size) == sum(of_class[name] for of_class in by_label) == expected[name]
        for name in ("missed", "false", "unlabelled"):
            assert sum(script_counts(scripts, run, step, kind=k)[name] for k in range(len(KINDS))) == expected[name]
        options = {"numClasses": K, "unlabelledKind": UNLABELLED}
        marks = [scripts.call("imageMarks", one, 0, step, options) for one in embedded]
        for item, of_image in zip(items, marks, strict=True):
            shown = scripts.call("countMarks", of_image)
            assert shown == {name: value for name, value in matched([item], step / 100).items() if name != "objects"}
        cells = np.zeros_like(matrix)
        for mark in [mark for of_image in marks for mark in of_image if mark["cell"]]:
            cells[tuple(mark["cell"])] += 1
        assert np.array_equal(cells, matrix), step


@pytest.fixture(scope="module")
def scripts() -> Scripts:
    return Scripts(["outcomes"])


@pytest.mark.parametrize("seed", range(4))
def test_every_threshold_of_random_images(scripts: Scripts, seed: int) -> None:
    items, classes, truth, rows = random_items(seed, images=5, classes=3)
    outcomes = Outcomes(items, names(classes), threshold=0.4)
    check_all_thresholds(scripts, outcomes, items, truth, rows, range(seed, STEPS + 1, 9))


@pytest.mark.slow
def test_every_threshold_of_real_detections(scripts: Scripts, shared_data: Path) -> None:
    """Planted detections on blood cells: shifted, confused, duplicated and invented boxes at all scores."""
    data: DetectionData = load(
        shared_data / "bccd" / "ImageSets" / "Main" / "val.txt", skip_invalid=True, open_images=False
    )
    rng = np.random.default_rng(0)
    rows = []
    for record in data.records[:12]:
        for box, label in zip(record.boxes_G4, record.labels_G, strict=True):
            for _ in range(rng.integers(0, 4)):
                x1, y1, x2, y2 = box + rng.normal(0, 8, 4)
                if x2 > x1 and y2 > y1:
                    k = int(label) if rng.random() < 0.8 else int(rng.integers(len(data.classes)))
                    rows.append(
                        {"image_id": record.image_id, "category_id": data.category_ids[k], "score": float(rng.random())}
                    )
                    rows[-1]["bbox"] = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
    items = items_from_results(data, rows)
    outcomes = Outcomes(items, data.classes, threshold=0.5)
    check_all_thresholds(scripts, outcomes, items, data.to_coco(), rows, range(0, STEPS + 1, 8))


def test_scores_are_rounded_down_so_that_comparisons_stay_exact() -> None:
    scores = np.array([0.0, 0.29, 0.2899999, 0.57, 0.5699999999, 1.0, 0.999])
    assert thousandths(scores).tolist() == [0, 290, 289, 570, 569, 1000, 999]
    every = np.arange(101) / 100
    assert thousandths(every).tolist() == list(range(0, 1001, 10))


def test_sizes_are_those_of_coco() -> None:
    boxes = np.array([[0, 0, 31, 33], [0, 0, 32, 32], [0, 0, 96, 95], [0, 0, 96, 96], [5, 5, 5, 5]])
    assert [SIZES[k] for k in sizes(boxes)] == ["small", "medium", "medium", "large", "small"]


def test_kinds_of_errors_by_hand() -> None:
    shifted = (24, 10, 44, 30)  # IoU 6 / 34 with A
    item = make(
        [(*A, 0), (*B, 0), (100, 100, 120, 120, 1)],
        [(*B, 1, 0.9), (*shifted, 0, 0.8), (200, 200, 220, 220, 0, 0.7), (300, 0, 320, 20, 0, 0.2)],
    )
    outcomes = Outcomes([item], ["cat", "dog"], threshold=0.3)
    image = outcomes.images[0]
    assert [KINDS[k] for k in image.kind_D] == ["wrong class", "badly localised", "unlabelled?", "background"]
    assert [KINDS[k] for k in image.kind_G] == ["badly localised", "wrong class", "no detection"]
    # Above the scores of the false detections, no detection remains.
    high = Outcomes([item], ["cat", "dog"], threshold=0.95).images[0]
    assert [KINDS[k] for k in high.kind_G] == ["no detection"] * 3
    assert set(CAUSES) < set(KINDS)


def test_an_object_is_found_up_to_the_score_of_its_detection() -> None:
    outcomes = Outcomes([make([(*A, 0)], [(*A, 0, 0.505)])], ["cat"], threshold=0.5)
    assert [outcomes.counts(step).found for step in (50, 51)] == [1, 0]
    assert KINDS[outcomes.images[0].kind_G[0]] == "below the threshold"
    empty = Outcomes([], ["cat"], threshold=0.5)
    counts = empty.counts()
    assert (counts.objects, counts.precision, counts.recall, counts.f1) == (0, None, None, None)
    assert empty.confusion().tolist() == [[0, 0], [0, 0]]


def test_class_ids_beyond_the_names_have_their_number_as_name() -> None:
    assert Outcomes([make([(*A, 3)], [])], ["cat"], threshold=0.5).classes == ("cat", "1", "2", "3")


def test_marks_pass_the_filters_and_differences_between_runs_are_found(scripts: Scripts) -> None:
    first = make([(*A, 0), (*B, 1)], [(*A, 0, 0.9), (*B, 0, 0.8)])
    second = make([(*A, 0), (*B, 1)], [(*B, 1, 0.9)])
    runs = [Outcomes([item], ["cat", "dog"], threshold=0.5) for item in (first, second)]
    embedded = image_data(EmbeddedImage(index=0, name="p", width=1, height=1, source=""), runs, 0, with_source=False)
    options = {"numClasses": 2, "unlabelledKind": UNLABELLED}
    marks, other = (scripts.call("imageMarks", embedded, run, 50, options) for run in (0, 1))
    assert [mark["outcome"] for mark in marks] == ["found", "false", "missed"]
    assert [mark["object"] for mark in scripts.call("onlyFound", marks, other)] == [0]
    assert [mark["object"] for mark in scripts.call("onlyFound", other, marks)] == [1]
    assert len(scripts.call("filteredMarks", marks, {**ALL, "label": 1}, "")) == 1
    assert len(scripts.call("filteredMarks", marks, {**ALL, "kind": KINDS.index("wrong class")}, "")) == 2
    assert len(scripts.call("filteredMarks", marks, ALL, "found")) == 1
    assert [mark["box"] for mark in scripts.call("cellMarks", marks, [1, 0])] == [list(B)]


def test_of_many_classes_those_with_most_errors_are_in_the_table(scripts: Scripts) -> None:
    counts = np.diag(np.arange(101))
    counts[3, 7], counts[100, 50] = 50, 20
    assert scripts.call("tableClasses", counts.tolist(), 3) == [3, 7, 50]
    assert scripts.call("tableClasses", counts.tolist(), 200) == list(range(100))
