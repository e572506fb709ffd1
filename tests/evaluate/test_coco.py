"""COCO metrics: reference numbers, pycocotools, and invalid results."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinanet.evaluate import EvaluationError, evaluate_results
from retinanet.evaluate.coco import SUMMARY
from tests.evaluate.coco_documents import BOX, ground_truth, result
from tests.shared import num_examples

REFERENCE = Path(__file__).parents[3] / "shared" / "data" / "coco_reference"


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the reference numbers are not at {REFERENCE}")
@pytest.mark.parametrize("as_file", [True, False])
def test_reproduces_the_published_numbers(as_file: bool) -> None:
    expected = json.loads((REFERENCE / "expected.json").read_text())
    truth, results = REFERENCE / "ground_truth.json", REFERENCE / "detections.json"
    metrics = evaluate_results(truth, results) if as_file else evaluate_results(*map(_read, (truth, results)))
    assert set(expected) == set(SUMMARY)
    for name, value in expected.items():
        assert getattr(metrics, name) == pytest.approx(value, abs=1e-9), name
    assert len(metrics.per_class) == 80
    assert sum(row.objects for row in metrics.per_class.values()) == 830


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw data with crowds, images without objects or detections, id gaps, classes without objects, equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    categories = sorted(rng.choice(np.arange(1, 100), size=draw(st.integers(1, 4)), replace=False).tolist())
    images = sorted(rng.choice(np.arange(0, 1000), size=draw(st.integers(1, 6)), replace=False).tolist())
    annotations, results = [], []
    for image in images:
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.uniform([0, 0, 4, 4], [150, 150, 150, 150]).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice(categories)),
                    "bbox": [x, y, w, h],
                    "area": w * h * rng.uniform(0.5, 1),
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
            for _ in range(rng.integers(0, 4)):
                box = (np.array([x, y, w, h]) + rng.normal(0, 4, 4)).clip(0.5).tolist()
                score = round(float(rng.random()), 1)
                category = int(rng.choice(categories))
                results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    truth = {
        "images": [{"id": image, "width": 300, "height": 300} for image in images],
        "categories": [{"id": category, "name": f"class {category}"} for category in categories],
        "annotations": annotations,
    }
    return truth, results


@given(case=cases())
@settings(max_examples=num_examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_equals_pycocotools(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth, results = case
    metrics = evaluate_results(truth, results)
    if not results:  # pycocotools cannot load an empty list
        assert all(getattr(metrics, name) in {0.0, -1.0} for name in SUMMARY)
        return
    with contextlib.redirect_stdout(io.StringIO()):
        coco_truth = coco.COCO()
        coco_truth.dataset = json.loads(json.dumps(truth))
        coco_truth.createIndex()
        reference = cocoeval.COCOeval(coco_truth, coco_truth.loadRes(json.loads(json.dumps(results))), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert [getattr(metrics, name) for name in SUMMARY] == pytest.approx(reference.stats.tolist(), abs=1e-9)
    for k, category in enumerate(reference.params.catIds):
        row = metrics.per_class[f"class {category}"]
        for value, t in ((row.AP, slice(None)), (row.AP50, 0), (row.AP75, 5)):
            precision = reference.eval["precision"][t, :, k, 0, -1]
            expected = precision[precision > -1].mean() if (precision > -1).any() else -1
            assert value == pytest.approx(expected, abs=1e-9)
        assert row.objects == sum(a["category_id"] == category and not a["iscrowd"] for a in truth["annotations"])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_results(ground_truth(), [result()])
    assert capfd.readouterr() == ("", "")


def test_no_results_give_ap_zero() -> None:
    metrics = evaluate_results(ground_truth(), [])
    assert (metrics.AP, metrics.AP50, metrics.AR100) == (0.0, 0.0, 0.0)
    assert metrics.APs == -1.0  # the only object is of medium size
    assert metrics.per_class["cat"].AP == 0.0
    assert metrics.per_class["dog"].AP == -1.0


def test_no_objects_give_minus_one() -> None:
    assert evaluate_results(ground_truth(annotations=[]), [result()]).AP == -1.0


def test_area_and_iscrowd_may_be_missing() -> None:
    annotations = [{"id": 1, "image_id": 1, "category_id": 7, "bbox": BOX}]
    metrics = evaluate_results(ground_truth(annotations=annotations), [result()])
    assert pytest.approx(1) == metrics.AP
    assert metrics.APm == pytest.approx(1)  # 40 x 30 pixels


def test_repeated_category_names_get_their_ids() -> None:
    truth = ground_truth(categories=[{"id": 7, "name": "cat"}, {"id": 90, "name": "cat"}])
    metrics = evaluate_results(truth, [result()])
    assert {name: row.objects for name, row in metrics.per_class.items()} == {"cat (id 7)": 1, "cat (id 90)": 0}


def test_an_array_has_the_columns_of_pycocotools() -> None:
    rows = np.array([[1, *BOX, 0.9, 7]])
    assert evaluate_results(ground_truth(), rows) == evaluate_results(ground_truth(), [result()])
    with pytest.raises(EvaluationError, match=r"\(detections, 7\).*\(1, 6\)"):
        evaluate_results(ground_truth(), rows[:, :6])


def test_json_has_the_documented_keys() -> None:
    out = json.loads(json.dumps(evaluate_results(ground_truth(), [result()]).to_json()))
    assert list(out) == [*SUMMARY, "per_class"]
    assert out["APs"] == -1
    assert out["per_class"]["cat"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "objects": 1}
    assert out["per_class"]["dog"] == {"AP": -1, "AP50": -1, "objects": 0}


def test_json_names_a_limit_of_detections_other_than_cocos() -> None:
    out = evaluate_results(ground_truth(), [result()], max_detections=300).to_json()
    assert list(out) == [*SUMMARY, "AR", "max_detections", "per_class"]
    assert (out["AR"], out["max_detections"]) == (out["AR100"], 300)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (result(image_id=2), "entry 1: image_id 2 is not in the ground truth, which has 1, 5"),
        (result(image_id="1"), "entry 1: image_id '1' is not"),
        (result(category_id=1), "entry 1: category_id 1 is not in the ground truth, which has 7, 90"),
        (result(bbox=[1, 2, 3]), "entry 1: bbox must be four"),
        (result(bbox=[1, 2, math.inf, 4]), "entry 1: bbox must be four finite"),
        (result(bbox=[1, 2, -3, 4]), "entry 1: bbox must have width and height of 0 or more"),
        (result(score=math.nan), "entry 1: score must be a finite number, found nan"),
        (result(score="0.5"), "entry 1: score must be a finite number, found '0.5'"),
        ({"image_id": 1, "bbox": BOX}, "entry 1: expected image_id, category_id, bbox and score, found no category_id"),
        (3, "entry 1: expected an object"),
    ],
)
def test_an_invalid_result_is_reported_with_its_index(tmp_path: Path, bad: Any, words: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([result(), bad]))
    for results in ([result(), bad], path):
        with pytest.raises(EvaluationError) as error:
            evaluate_results(ground_truth(), results)
        assert words in str(error.value)
        assert "1 of 2 results" in str(error.value)


def test_only_the_first_faults_are_listed() -> None:
    with pytest.raises(EvaluationError, match=r"entry 4.*\n.*and 95 more") as error:
        evaluate_results(ground_truth(), [result(image_id=2)] * 100)
    assert "entry 5:" not in str(error.value)


@pytest.mark.parametrize("text", ["{", '{"annotations": []}', "3"])
def test_a_results_file_without_a_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=r"the COCO results (cannot be read|are no list).*results\.json"):
        evaluate_results(ground_truth(), path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [{"id": 1}]}'])
def test_invalid_ground_truth_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(
        EvaluationError, match=r"(the COCO annotations cannot be read|the annotations (are a|have no)).*truth\.json"
    ):
        evaluate_results(path, [])
    with pytest.raises(EvaluationError, match=r"missing\.json"):
        evaluate_results(tmp_path / "missing.json", [])


@pytest.mark.parametrize("ids", [[1, 1, 1], [None, None, None], [0, 1, 2], [-1, 5, 5], [7, 8, 9]])
def test_annotation_ids_have_no_effect(ids: list[int | None]) -> None:
    """hotcoco counts annotations with one id as one object, and id 0 as "not matched"."""
    boxes = [[0, 0, 20, 20], [30, 30, 20, 20], [60, 60, 20, 20]]
    annotations = [
        {**({} if i is None else {"id": i}), "image_id": 1, "category_id": 7, "bbox": box}
        for i, box in zip(ids, boxes, strict=True)
    ]
    metrics = evaluate_results(ground_truth(annotations=annotations), [result(bbox=box) for box in boxes])
    assert pytest.approx(1) == metrics.AP
    assert metrics.per_class["cat"].objects == 3


ANNOTATION = {"id": 1, "image_id": 1, "category_id": 7, "bbox": BOX}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": [{**ANNOTATION, "bbox": None}]}, "bbox must be four finite numbers .*found None"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, 3]}]}, "bbox must be four finite numbers"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, -3, 4]}]}, "width and height of 0 or more"),
        ({"annotations": [{**ANNOTATION, "image_id": 2}]}, "one of the images as image_id, found 2"),
        ({"annotations": [{**ANNOTATION, "category_id": 1}]}, "one of the categories as category_id, found 1"),
        ({"annotations": [{**ANNOTATION, "iscrowd": 2}]}, "0 or 1 as iscrowd, found 2"),
        ({"annotations": [3]}, "annotation at position 1: expected an object"),
        ({"annotations": {}}, "the COCO document has no list of annotations"),
        ({"images": [{"id": 1}, {"id": 1}]}, "image at position 2: expected a unique id, found the id 1 again"),
        ({"categories": [{"id": 7}, {"name": "dog"}]}, "category at position 2: expected an object with an integer id"),
    ],
)
def test_ground_truth_that_would_change_the_metrics_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=rf"(?=[\s\S]*ground truth)[\s\S]*{words}"):
        evaluate_results(ground_truth(**changes), [])


def test_the_number_of_detections_that_count() -> None:
    """Of 250 objects found perfectly, AP counts 100: recall 0.4, which is 41 of COCO's 101 recall levels."""
    boxes = [[20 * (i % 25), 20 * (i // 25), 10, 10] for i in range(250)]
    annotations = [{"image_id": 1, "category_id": 7, "bbox": box} for box in boxes]
    results = [result(bbox=box) for box in boxes]
    capped = evaluate_results(ground_truth(annotations=annotations), results)
    assert (capped.AP, capped.AR, capped.APs) == pytest.approx((41 / 101, 0.4, 41 / 101))
    whole = evaluate_results(ground_truth(annotations=annotations), results, max_detections=250)
    assert pytest.approx((1, 1, 1)) == (whole.AP, whole.AR, whole.per_class["cat"].AP)
    assert pytest.approx((0.004, 0.04, 0.4)) == (whole.AR1, whole.AR10, whole.AR100)
    few = evaluate_results(ground_truth(annotations=annotations), results, max_detections=5)
    assert pytest.approx((0.02, 0.4)) == (few.AR, few.AR100)
